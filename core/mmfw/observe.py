"""What a run leaves behind for other tools: a trace as ftrace writes it, and /proc as it was before and after."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mmfw.errors import InputError
from mmfw.proc.snapshot import PROC_FILES, proc_files
from mmfw.tracing.events import choose_events
from mmfw.tracing.output import TraceFile
from mmfw.tracing.recorder import Recorder

if TYPE_CHECKING:
    from mmfw.mm.core import Mm

_MOMENTS: Final = ("before", "after")


def _unwritable(path: Path, fault: Exception) -> InputError:
    said = fault.strerror or fault if isinstance(fault, OSError) else fault
    return InputError(f"--proc: cannot be written: {said}", file=str(path))


class ProcFolder:
    """A folder with ``before/`` and ``after/``, copies of a machine's /proc files, written whole or not at all.

    Parameters
    ----------
    path : Path
        The folder; made if it is missing. What else is in it stays.

    Raises
    ------
    InputError
        It cannot be made, or holds a ``before`` or ``after`` that is not an earlier run's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, dict[str, str]] = {}
        self._made = False
        try:
            if not path.exists():
                path.mkdir(parents=True)
                self._made = True
            if not path.is_dir():
                raise InputError("--proc: is a file; name a folder", file=str(path))
            for moment in _MOMENTS:
                if os.path.lexists(path / moment) and not _is_ours(path / moment):
                    raise InputError(
                        f"--proc: has a {moment!r} that no run wrote; name another folder", file=str(path)
                    )
        except (OSError, ValueError) as fault:
            raise _unwritable(path, fault) from None

    def take(self, moment: str, mm: Mm) -> None:
        """Read a machine's files, for `commit`."""
        self._texts[moment] = proc_files(mm)

    def commit(self) -> None:
        """Write what was read.

        Raises
        ------
        InputError
            It could not be written; an earlier run's files are untouched.
        """
        partial = self.path / f".{os.getpid()}.tmp"
        try:
            for moment, texts in self._texts.items():
                for name, text in texts.items():
                    file = partial / moment / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(text.encode("ascii"))
            for moment in self._texts:
                if (self.path / moment).exists():
                    (self.path / moment).rename(partial / f"old-{moment}")
                (partial / moment).rename(self.path / moment)
        except OSError as fault:
            raise _unwritable(self.path, fault) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._made = False

    def discard(self) -> None:
        """Take away the folder if it was made for nothing."""
        if self._made:
            self._made = False
            try:
                self.path.rmdir()
            except OSError:
                return


def _is_ours(path: Path) -> bool:
    """Whether a folder holds the files of a snapshot and nothing else."""
    names = {name.partition("/")[0] for name in PROC_FILES}
    return path.is_dir() and not path.is_symlink() and {entry.name for entry in path.iterdir()} == names


class Observer:
    """What ``--trace``, ``--events`` and ``--proc`` ask of a run; it changes nothing in the run.

    Parameters
    ----------
    trace : Path or None
        File of the trace (`mmfw.tracing.output`).
    events : str or None
        What is traced (`mmfw.tracing.events.choose_events`).
    proc : Path or None
        Folder of the /proc files.

    Raises
    ------
    InputError
        An event is unknown, events are named without a file, or a place cannot be written to.
    """

    def __init__(self, *, trace: Path | None, events: str | None, proc: Path | None) -> None:
        if events is not None and trace is None:
            raise InputError("--events says what --trace writes; name a file with --trace")
        self._chosen = choose_events(events)
        self._recorder: Recorder | None = None
        self._file: TraceFile | None = None
        # The folder first: the trace may be meant to stand in it.
        self._folder = None if proc is None else ProcFolder(proc)
        try:
            self._file = None if trace is None else TraceFile(trace)
        except InputError:
            self.close()
            raise

    def start(self, mm: Mm) -> None:
        """Look at a machine before it runs, and trace it from here on."""
        if self._folder is not None:
            self._folder.take("before", mm)
        if self._file is not None:
            self._recorder = Recorder(mm, self._chosen, self._file.write)
            self._recorder.start()

    def finish(self, mm: Mm) -> None:
        """Look at a machine that has run, and write everything.

        Raises
        ------
        InputError
            A file could not be written.
        """
        if self._recorder is not None:
            self._recorder.stop()
        if self._folder is not None:
            self._folder.take("after", mm)
            self._folder.commit()
        if self._file is not None:
            self._file.commit(mm.sched.nr_cpus)

    def close(self) -> None:
        """Drop what was not written."""
        if self._file is not None:
            self._file.discard()
        if self._folder is not None:
            self._folder.discard()
