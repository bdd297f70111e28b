"""What ``--policy`` says: which policies run together, and with which options.

``P+Q`` composes; ``P:key=value`` sets an option of P, more of them follow after further colons. ``mainline`` is the
kernel as it is, and stands alone. A name may be that of a set (`mmfw.policy_sets`), which stands for its policies, or
the path of a prototype (``quiet.py``), which is no installed plugin.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from mmfw.discovery import PluginRecord, discover, file_record, only_record, short_name
from mmfw.errors import InputError, did_you_mean
from mmfw.policy_sets import PolicySet, find_policy_sets
from mmfw.scenario import parse_set

GROUP: Final = "mmfw.policies"
MAINLINE: Final = "mainline"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy and its options.

    Attributes
    ----------
    name : str
        Short name.
    options : tuple of (str, value)
        Its parameters, in the order given.
    file : str
        Path of a prototype, as given; empty for what is installed.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    file: str = ""

    def __str__(self) -> str:
        return ":".join(
            [self.file or self.name, *(f"{key}={toml_value(value)}" for key, value in self.options)]
        )


def toml_value(value: object) -> str:
    """A value as `mmfw.scenario.parse_set` reads it back.

    Examples
    --------
    >>> toml_value(False), toml_value(3), toml_value("as-order")
    ('false', '3', 'as-order')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(json.dumps(each) for each in value) + "]"
    return str(value)


def parse_policy(text: str | None) -> tuple[Policy, ...]:
    """Policies of a ``--policy`` text, sets replaced by what they stand for; none for mainline.

    A policy that two sets bring along with the same options is there once.

    Raises
    ------
    InputError
        It has a comma, an empty or doubled name, an option without a value, or a plugin that is no policy.
    """
    if text is None:
        return ()
    if "," in text:
        raise InputError(
            f"--policy {text!r}: a comma lists alternatives, and a run has one; compose policies with +, such as P+Q"
        )
    records = [record for record in discover() if record.group == GROUP]
    found = _Expansion(text, records).policies(text, ())
    chosen: dict[str, _Named] = {}
    for each in found:
        other = chosen.setdefault(each.policy.name, each)
        if other is each:
            continue
        if not (other.by or each.by):
            raise InputError(f"--policy {text!r}: {each.policy.name!r} is named twice")
        if sorted(other.policy.options) != sorted(each.policy.options):
            raise InputError(
                f"--policy {text!r}: both {other.policy} ({other.origin}) and {each.policy} ({each.origin}); "
                "a run has each policy once"
            )
    if MAINLINE in chosen:
        if len(chosen) > 1 or chosen[MAINLINE].policy.options:
            raise InputError(
                f"--policy {text!r}: mainline is the kernel without a policy; it stands alone, without options"
            )
        return ()
    return tuple(each.policy for each in chosen.values())


@dataclass(frozen=True, slots=True)
class _Named:
    """A policy, and the set that brought it along, if one did."""

    policy: Policy
    by: str = ""

    @property
    def origin(self) -> str:
        return f"of set {self.by}" if self.by else "as given"


class _Expansion:
    """Reads one ``--policy`` text."""

    def __init__(self, text: str, records: list[PluginRecord]) -> None:
        self._text = text
        self._records = records
        self._sets: dict[str, PolicySet] | None = None

    def policies(self, text: str, within: tuple[PolicySet, ...]) -> list[_Named]:
        """All that a text names, or a set's; `within` are the sets that it stands in."""
        return [named for part in text.split("+") for named in self._one(part, within)]

    def _one(self, part: str, within: tuple[PolicySet, ...]) -> list[_Named]:
        text = self._text
        name, *options = part.strip().split(":")
        if not name:
            raise InputError(f"--policy {text!r}: an empty name; write names with + between, such as P+Q")
        if name.endswith(".py"):
            return [_Named(Policy(file_record(name).name, self._pairs(name, options), name))]
        name = short_name(name)
        if all(record.name != name for record in self._records):
            found = self._set(name, within)
            if options:
                raise InputError(
                    f"--policy {text!r}: {name} is a set, which takes no options; write out what it stands for: "
                    f"{found.policies}"
                )
            return self.policies(found.policies, (*within, found))
        if name != MAINLINE:
            only_record(name, self._records)
        pairs = self._pairs(name, options)
        return [_Named(Policy(name, pairs), within[0].name if within else "")]

    def _pairs(self, name: str, options: list[str]) -> tuple[tuple[str, Any], ...]:
        for option in options:
            if "=" not in option:
                raise InputError(
                    f"--policy {self._text!r}: option {option!r} has no value; write {name}:key=value"
                )
        return tuple(map(parse_set, options))

    def _set(self, name: str, within: tuple[PolicySet, ...]) -> PolicySet:
        if self._sets is None:
            self._sets = find_policy_sets()
        found = self._sets.get(name)
        if found is not None and found not in within:
            return found
        if found is not None:
            raise InputError(f"policy set {name!r} stands for itself", file=found.file)
        if within:
            outer = within[-1]
            raise InputError(
                f"policy set {outer.name!r} needs policy {name!r}, which is not installed: "
                f"pip install {outer.distribution_of(name)}"
            )
        known = {record.name for record in self._records} | self._sets.keys()
        raise InputError(f"no plugin {name!r}; {did_you_mean(name, known)}")


def policy_text(policies: tuple[Policy, ...]) -> str:
    """One way to write a composition: by name, options by key; ``mainline`` for none."""
    ordered = sorted(
        (replace(each, options=tuple(sorted(each.options, key=lambda pair: pair[0]))) for each in policies),
        key=lambda each: each.name,
    )
    return "+".join(map(str, ordered)) or MAINLINE
