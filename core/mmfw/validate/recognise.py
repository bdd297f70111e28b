"""Tells what kind of experiment a captured folder holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmfw.errors import InputError, did_you_mean
from mmfw.machine.jsonread import Node
from mmfw.proc.text import read_text

#: Kinds of capture, each with the files by which its folder is known where ``capture.json`` is missing.
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "static": ("zoneinfo", "sys_vm"),
    "shrink": ("shrink.trace.gz",),
    "compact": ("KERNEL.trace.gz", "KERNEL.before.txt"),
    "gpu": ("gpu.trace.gz",),
    "lru": ("lru.trace.gz",),
}


@dataclass(frozen=True, slots=True)
class Capture:
    """A captured experiment.

    Attributes
    ----------
    path : Path
        Its folder.
    kind : str
        A key of `KINDS`.
    name : str
        Its name, unique among captures of a kind.
    document : object
        Its ``capture.json``, or what its name tells in that form.
    """

    path: Path
    kind: str
    name: str
    document: object = None


def captures_of(paths: Iterable[Path]) -> tuple[list[Capture], list[Path]]:
    """Captures in folders, in the order given, and the plain files that were named beside them.

    A shell's ``compact/*`` names the files that lie beside captures too (``summary.json``); they are no captures, and
    named alone they are an error.

    Raises
    ------
    InputError
        A folder holds no capture, or only files are named.
    """
    known = list(paths)
    folders = [path for path in known if not path.is_file()]
    if not folders:
        return [capture for path in known for capture in find_captures(path)], []
    files = [path for path in known if path.is_file()]
    return [capture for path in folders for capture in find_captures(path)], files


def find_captures(path: Path) -> list[Capture]:
    """Capture in a folder, or the captures in the folders below it, by name.

    Raises
    ------
    InputError
        There is none, or one is of no known kind.
    """
    if not path.exists():
        raise InputError("no such folder; a capture is a folder with capture.json", file=str(path))
    if not path.is_dir():
        raise InputError("is a file; a capture is a folder with capture.json", file=str(path))
    own = _recognise(path)
    if own is not None:
        return [own]
    try:
        below = sorted(child for child in path.iterdir() if child.is_dir())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", file=str(path)) from error
    found = [capture for child in below if (capture := _recognise(child)) is not None]
    if not found:
        kinds = ", ".join(f"{kind} ({', '.join(files)})" for kind, files in KINDS.items())
        raise InputError(f"is no capture: it has no capture.json, nor the files of {kinds}", file=str(path))
    return found


def _recognise(path: Path) -> Capture | None:
    about = path / "capture.json"
    if about.is_file():
        try:
            document: object = json.loads(read_text(about))
        except (ValueError, RecursionError) as error:
            raise InputError(f"is not JSON: {error}", file=str(about)) from error
        node = Node(document, "", str(about))
        kind = node.key("kind").text()
        if kind not in KINDS:
            raise node.key("kind").error(f"is {kind!r}; {did_you_mean(kind, KINDS)}")
        return Capture(path, kind, node.key("name").text(), document)
    for kind, files in KINDS.items():
        if all((path / file).is_file() for file in files):
            return Capture(path, kind, path.name, _from_name(kind, path.name))
    return None


def _from_name(kind: str, name: str) -> dict[str, object]:
    """What a name such as ``1G-frag16-s1`` or ``512M-m2-o9`` tells, as ``capture.json`` would."""
    mem, _, rest = name.partition("-")
    variant, _, last = rest.partition("-")
    found: dict[str, object] = {"kind": kind, "name": name, "mem": mem, "variant": variant}
    if last[:1] == "s" and last[1:].isdigit():
        found["seed"] = int(last[1:])
    if last[:1] == "o" and last[1:].isdigit():
        found["order"] = int(last[1:])
        found["requests"] = 120 if found["order"] == 9 else 400
    return found
