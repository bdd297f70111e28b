"""What ``--policy`` says: which policies run together, and with which options.

``P+Q`` composes; ``P:key=value`` sets an option of P, more of them follow after further colons. ``mainline`` is the
kernel as it is, and stands alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from mmfw.discovery import discover, only_record, short_name
from mmfw.errors import InputError
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
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{key}={toml_value(value)}" for key, value in self.options)])


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
    """Policies of a ``--policy`` text; none for mainline.

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
    found = tuple(_one(part, text) for part in text.split("+"))
    names = [policy.name for policy in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--policy {text!r}: {name!r} is named twice")
    if MAINLINE in names:
        if len(names) > 1 or found[0].options:
            raise InputError(
                f"--policy {text!r}: mainline is the kernel without a policy; it stands alone, without options"
            )
        return ()
    return found


def _one(part: str, text: str) -> Policy:
    name, *options = part.strip().split(":")
    if not name:
        raise InputError(f"--policy {text!r}: an empty name; write names with + between, such as P+Q")
    name = short_name(name)
    if name != MAINLINE:
        only_record(name, [record for record in discover() if record.group == GROUP])
    pairs = []
    for option in options:
        if "=" not in option:
            raise InputError(f"--policy {text!r}: option {option!r} has no value; write {name}:key=value")
        pairs.append(parse_set(option))
    return Policy(name, tuple(pairs))
