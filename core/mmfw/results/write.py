"""Writing a run directory: whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mmfw.errors import InputError
from mmfw.results.extras import study_module
from mmfw.results.manifest import Manifest

#: What a run directory may hold; with anything else in it, it is not replaced.
FILES: Final = frozenset(
    {"manifest.json", "metrics.json", "samples.parquet", "blocks.parquet", "events.parquet", "report.html"}
)
#: End of the names under which a folder is put together, and an old one put aside.
STAGE_SUFFIX: Final = ".mmfw-tmp"


def _unwritable(path: Path, fault: Exception) -> InputError:
    said = fault.strerror or fault if isinstance(fault, OSError) else fault
    return InputError(f"--out: cannot be written: {said}", file=str(path))


def is_run_directory(path: Path) -> bool:
    """Whether a folder is one that a run wrote, and nobody put anything else into it."""
    if not path.is_dir() or path.is_symlink():
        return False
    # A report that was killed while it was written is no reason to keep the folder.
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(STAGE_SUFFIX)}
    if not names:
        return True
    if "manifest.json" not in names or not names <= FILES:
        return False
    try:
        head = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and {"format", "mmfw", "scenario_sha256", "digest"} <= head.keys()


class RunFolder:
    """A run directory in the making.

    It is put together beside its place and renamed. Make one before the run, so that a fault of the place shows before
    hours of computing.

    Parameters
    ----------
    path : Path
        Where it goes, in place of an earlier run directory; folders above it are made.

    Raises
    ------
    InputError
        Something else is there, nothing can be written there, or pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        study_module("pyarrow.parquet", "--out")
        self.path = path
        self._made: list[Path] = []
        try:
            if (path.exists() or path.is_symlink()) and not is_run_directory(path):
                raise InputError(
                    "--out: is there and is no run directory, or holds more than a run wrote; name another folder",
                    file=str(path),
                )
            missing = [each for each in path.absolute().parents if not each.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                self._made.append(folder)
            self._stage = path.absolute().with_name(f".{path.absolute().name}.{os.getpid()}{STAGE_SUFFIX}")
            self._old = self._stage.with_suffix(f".old{STAGE_SUFFIX}")
            shutil.rmtree(self._stage, ignore_errors=True)
            self._stage.mkdir()
        except (OSError, ValueError) as fault:
            self._unmake()
            raise _unwritable(path, fault) from None

    def prepare(self, manifest: Manifest, document: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
        """Write everything beside its place.

        Parameters
        ----------
        manifest : Manifest
            ``manifest.json``.
        document : mapping
            ``metrics.json``.
        tables : mapping of str to pyarrow.Table
            By file name.

        Raises
        ------
        InputError
            It could not be written; what was there before is untouched.
        """
        pq = study_module("pyarrow.parquet", "--out")
        try:
            for name, table in tables.items():
                pq.write_table(table, self._stage / name, compression="zstd")
            text = json.dumps(document, indent=1)
            (self._stage / "metrics.json").write_text(text + "\n", encoding="utf-8")
            text = manifest.model_dump_json(indent=1)
            (self._stage / "manifest.json").write_text(text + "\n", encoding="utf-8")
        except OSError as fault:
            self.discard()
            raise _unwritable(self.path, fault) from None

    def publish(self) -> None:
        """Put it in its place.

        Raises
        ------
        InputError
            It could not be renamed; what was there before is where it was.
        """
        try:
            if self.path.exists():
                shutil.rmtree(self._old, ignore_errors=True)
                self.path.rename(self._old)
            try:
                self._stage.rename(self.path)
            except OSError:
                if self._old.exists():
                    self._old.rename(self.path)
                raise
        except OSError as fault:
            self.discard()
            raise _unwritable(self.path, fault) from None
        self._made.clear()
        shutil.rmtree(self._old, ignore_errors=True)

    def discard(self) -> None:
        """Take away what was not published, and folders that were made for nothing."""
        shutil.rmtree(self._stage, ignore_errors=True)
        self._unmake()

    def _unmake(self) -> None:
        try:
            while self._made:
                self._made.pop().rmdir()
        except OSError:  # something is in it, so it was not made for nothing
            self._made.clear()
