"""A study's folder: who may write in it, which runs are in it already, and its two documents."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from mmfw.compare.model import Study
from mmfw.compare.plan import PlannedRun
from mmfw.errors import InputError
from mmfw.results import read_run
from mmfw.results.manifest import Manifest
from mmfw.results.write import FILES, STAGE_SUFFIX

LOCK: Final = ".lock"
STUDY: Final = "study.json"
COMPARISON: Final = "compare.json"
REPORT: Final = "report.html"
RUNS: Final = "runs"
#: What there is of a run.
State = Literal["done", "missing", "other", "damaged"]
#: How long a process that was killed may take to be gone.
_GRACE_SECONDS: Final = 3.0


def folder_name(text: str) -> str:
    """A composition as a folder's name: ``:``, which some systems do not allow, is a comma there.

    Examples
    --------
    >>> folder_name("compaction-scan:distinguish=false+no-kswapd-kick")
    'compaction-scan,distinguish=false+no-kswapd-kick'
    """
    plain = text.replace(":", ",")
    name = re.sub(r"[^A-Za-z0-9.,=+_-]", "_", plain)[:150]
    return name if name == plain else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class StudyFolder:
    """The folder of one study, locked against other processes while it is open.

    Parameters
    ----------
    path : Path
        The folder; made if it is missing.

    Raises
    ------
    InputError
        It is a file, holds something else, cannot be written to, or another process works on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.exists() and not _is_ours(path):
                raise InputError("--out: is there and is no study's folder; name another", file=str(path))
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as fault:
            raise InputError(f"--out: cannot be written: {fault.strerror}", file=str(path)) from None
        self._acquire()

    def _acquire(self) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                owner = os.read(self._lock, 20).decode("ascii", "replace").strip()
                os.close(self._lock)
                raise InputError(
                    f"--out: another mmfw compare (process {owner or 'unknown'}) works on this folder; wait for it, "
                    "or name another",
                    file=str(self.path),
                ) from None
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            return

    def __enter__(self) -> StudyFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def place(self, run: PlannedRun) -> Path:
        """Where a run's directory is, or goes."""
        return self.path / RUNS / run.scenario / folder_name(run.policies) / f"seed-{run.seed}"

    def state(self, run: PlannedRun) -> State:
        """What is there of a run: ``other`` came of other inputs, ``damaged`` cannot be read or lacks a file."""
        place = self.place(run)
        if not place.exists():
            return "missing"
        try:
            manifest = Manifest.model_validate_json((place / "manifest.json").read_bytes())
        except (OSError, ValueError):
            return "damaged"
        # As it would come back from the file: JSON knows no tuples.
        expected = run.inputs.model_dump_json()
        if manifest.inputs().model_dump_json() != expected:
            return "other"
        wanted = {"metrics.json", *run.request.recording.files}
        if not wanted <= set(manifest.recorded):
            return "other"
        if not all((place / name).is_file() for name in wanted):
            return "damaged"
        try:
            return "done" if read_run(place).document.digest == manifest.digest else "damaged"
        except InputError:
            return "damaged"

    def drop(self, run: PlannedRun) -> None:
        """Take away a run that is of no use; one to which somebody added a file stays."""
        place = self.place(run)
        if place.is_dir() and {entry.name for entry in place.iterdir()} <= FILES:
            shutil.rmtree(place, ignore_errors=True)

    def clear_stages(self) -> None:
        """Take away what processes that were ended in a run had begun to write."""
        for stage in (self.path / RUNS).glob(f"*/*/.*{STAGE_SUFFIX}"):
            shutil.rmtree(stage, ignore_errors=True)
        for stage in self.path.glob(f".*{STAGE_SUFFIX}"):
            stage.unlink(missing_ok=True)

    def clear_answer(self, study: Study, *, more_to_run: bool) -> None:
        """Take away an answer that is no longer one.

        Parameters
        ----------
        study : Study
            What is asked for now.
        more_to_run : bool
            Whether runs are to be made that the answer cannot have counted.
        """
        if more_to_run or self._read_study() != study:
            for name in (COMPARISON, REPORT):
                (self.path / name).unlink(missing_ok=True)

    def left_out(self, study: Study) -> list[str]:
        """What the answer tells of and a new one will not: policies, scenarios, and how many seeds."""
        before = self._read_study() if (self.path / COMPARISON).is_file() else None
        if before is None:
            return []
        asked = _names(study)
        lost = [name for name in _names(before) if name not in asked]
        seeds = set(before.seeds) - set(study.seeds)
        return lost + ([f"{len(seeds)} of its {len(before.seeds)} seeds"] if seeds else [])

    def _read_study(self) -> Study | None:
        try:
            return Study.model_validate_json((self.path / STUDY).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, name: str, document: BaseModel) -> Path:
        """Write one of the documents, whole or not at all.

        Raises
        ------
        InputError
            It could not be written.
        """
        text = _text(document.model_dump(mode="json"))
        stage = self.path / f".{name}{STAGE_SUFFIX}"
        try:
            stage.write_text(text, encoding="utf-8")
            stage.replace(self.path / name)
        except OSError as fault:
            raise InputError(f"--out: cannot be written: {fault.strerror}", file=str(self.path)) from None
        return self.path / name


def _names(study: Study) -> list[str]:
    return [each.name for each in study.policies] + [each.name for each in study.scenarios]


def _text(document: dict[str, Any]) -> str:
    """JSON with a row of each of its lists on a line, so that one can look and compare line by line."""
    parts = []
    for name, value in document.items():
        rows = [json.dumps(row) for row in value] if isinstance(value, list) else []
        text = "[\n  " + ",\n  ".join(rows) + "\n ]" if rows else json.dumps(value)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _is_ours(path: Path) -> bool:
    """Whether a folder is empty, or a study's."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()} - {LOCK}
    if STUDY not in names:
        return all(name.endswith(STAGE_SUFFIX) for name in names)
    try:
        head = json.loads((path / STUDY).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and {"format", "scenarios", "policies", "seeds"} <= head.keys()
