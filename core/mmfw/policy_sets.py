"""Named compositions of policies: found as scenarios are, read without importing a plugin.

An entry point of the group ``mmfw.policy_sets`` names a package whose folder has a ``policy-sets.toml``::

    [sets.NAME]
    policies = "P+Q:key=value"      # as --policy takes it; names of other sets, too
    description = "what it stands for, in one line"

    [distributions]                 # where a policy comes from, if it is not mmfw-policy-NAME
    P = "some-distribution"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tomli
from importlib_metadata import entry_points
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mmfw.discovery import short_name
from mmfw.errors import InputError
from mmfw.resources import package_files

GROUP: Final = "mmfw.policy_sets"
FILE: Final = "policy-sets.toml"

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]


class _Set(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    policies: str = Field(min_length=1)
    description: str = Field(min_length=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: dict[_Name, _Set]
    distributions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A named composition.

    Attributes
    ----------
    name : str
        Short name.
    policies : str
        What it stands for, as ``--policy`` takes it.
    description : str
        One line.
    origin : str
        Distribution that ships it.
    file : str
        File it stands in.
    distributions : tuple of (str, str)
        Where policies come from, if not from ``mmfw-policy-NAME``.
    """

    name: str
    policies: str
    description: str
    origin: str
    file: str
    distributions: tuple[tuple[str, str], ...] = ()

    def distribution_of(self, policy: str) -> str:
        """Distribution that would have to be installed for a policy."""
        return dict(self.distributions).get(policy, f"mmfw-policy-{policy}")


def find_policy_sets() -> dict[str, PolicySet]:
    """All installed sets by name.

    Raises
    ------
    InputError
        A file is wrong, or two distributions ship a set of one name.
    """
    found: dict[str, PolicySet] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.dist.name if e.dist else "", e.name)):
        origin = str(entry.dist.name) if entry.dist else entry.name
        for path in package_files(entry.value, FILE):
            for each in _read(path, origin):
                other = found.setdefault(each.name, each)
                if other is not each:
                    raise InputError(
                        f"policy set {each.name!r} is shipped twice, by {other.origin} and {origin}; "
                        "uninstall or rename one",
                        file=str(path),
                    )
    return dict(sorted(found.items()))


def _read(path: Path, origin: str) -> list[PolicySet]:
    try:
        document = _File.model_validate(tomli.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as fault:
        said = str(fault)
        if isinstance(fault, ValidationError):
            first = fault.errors()[0]
            said = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise InputError(f"policy sets of {origin} cannot be read: {said}", file=str(path)) from None
    distributions = tuple((short_name(name), where) for name, where in sorted(document.distributions.items()))
    return [
        PolicySet(name, each.policies, each.description, origin, str(path), distributions)
        for name, each in document.sets.items()
    ]
