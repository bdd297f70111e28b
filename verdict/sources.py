"""Which sources the runs were made with: the commit that has them, and whether they are the installed ones still."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from mmfw.discovery import discover
from mmfw.errors import MmfwError
from mmfw.plugins import check_plugin
from mmfw.results.manifest import Distribution, core_digest, distributions_of

ROOT: Final = Path(__file__).resolve().parents[1]
CORE: Final = "core/mmfw"
#: Characters of a commit's name that the page gives.
SHORT: Final = 12


@lru_cache(maxsize=1)
def installed() -> dict[str, str]:
    """Digests of the sources of core and of all installed plugins, by distribution."""
    found: dict[str, str] = {}
    for record in discover():
        try:
            loaded = check_plugin(record)
        except MmfwError:
            continue  # one that cannot be loaded took part in no run
        found |= {name: each.sha256 for name, each in distributions_of(loaded).items()}
    return found


def changed_since(made_with: Mapping[str, Distribution], now: Mapping[str, str]) -> list[str]:
    """Distributions whose installed sources are not those that runs were made with, or that are gone."""
    return sorted(name for name, each in made_with.items() if now.get(name) != each.sha256)


@lru_cache(maxsize=4)
def commits(root: Path = ROOT) -> dict[str, str]:
    """Newest commit for each state of core's sources in the history, by their digest; empty without a history."""
    found: dict[str, str] = {}
    digests: dict[str, str] = {}
    try:
        for commit in _git(root, "rev-list", "HEAD", "--", CORE).decode().split():
            blobs = dict(_blobs(root, commit))
            digests |= _contents(root, [blob for blob in blobs.values() if blob not in digests])
            files = {path: digests[blob] for path, blob in blobs.items()}
            found.setdefault(core_digest(files), commit[:SHORT])
    except (OSError, subprocess.CalledProcessError):
        return {}
    return found


def _git(root: Path, *words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(
        ["git", "-C", str(root), *words], input=stdin, capture_output=True, check=True
    ).stdout


def _blobs(root: Path, commit: str) -> Iterator[tuple[str, str]]:
    """Python files of core, relative to its package, and their blobs."""
    for line in _git(root, "ls-tree", "-r", commit, "--", CORE).decode().splitlines():
        about, _, path = line.partition("\t")
        if path.endswith(".py"):
            yield path.removeprefix(f"{CORE}/"), about.split()[2]


def _contents(root: Path, blobs: list[str]) -> dict[str, str]:
    """SHA-256 of each blob's content."""
    out = _git(root, "cat-file", "--batch", stdin="\n".join(blobs).encode()) if blobs else b""
    found, at = {}, 0
    for blob in blobs:
        end = out.index(b"\n", at)
        size = int(out[at:end].split()[2])
        found[blob] = hashlib.sha256(out[end + 1 : end + 1 + size]).hexdigest()
        at = end + 1 + size + 1
    return found
