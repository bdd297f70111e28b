"""What a run leaves behind for other tools: a trace as ftrace writes it, and /proc as it was before and after."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mmfw.errors import InputError
from mmfw.proc.snapshot import PROC_FILES, proc_files
from mmfw.tracing.events import choose_events
from mmfw.tracing.options import choose_options
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
        It cannot be made or written to, or holds a ``before`` or ``after`` that is not an earlier run's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, dict[str, str]] = {}
        self._made: list[Path] = []
        self._stage: Path | None = None
        self._renamed: list[tuple[Path, Path]] = []
        try:
            self._make()
            if not path.is_dir():
                raise InputError("--proc: is a file; name a folder", file=str(path))
            for moment in _MOMENTS:
                if (path / moment).is_symlink() or ((path / moment).exists() and not _is_ours(path / moment)):
                    raise InputError(
                        f"--proc: has a {moment!r} that no run wrote; name another folder", file=str(path)
                    )
            # A fault of the folder shows before the run, not after it.
            Path(tempfile.mkdtemp(dir=path)).rmdir()
        except (OSError, ValueError) as fault:
            self.discard()
            raise _unwritable(path, fault) from None
        except InputError:
            self.discard()
            raise

    def _make(self) -> None:
        missing = [self.path] if not self.path.exists() else []
        while missing and not missing[-1].parent.exists():
            missing.append(missing[-1].parent)
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.append(folder)

    def take(self, moment: str, mm: Mm) -> None:
        """Read a machine's files, for `prepare`."""
        self._texts[moment] = proc_files(mm)

    def prepare(self) -> None:
        """Write what was read under a temporary name.

        Raises
        ------
        InputError
            It could not be written; an earlier run's files are untouched.
        """
        try:
            self._stage = Path(tempfile.mkdtemp(prefix=".proc-", dir=self.path))
            for moment, texts in self._texts.items():
                for name, text in texts.items():
                    file = self._stage / moment / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(text.encode("ascii"))
        except OSError as fault:
            self.discard()
            raise _unwritable(self.path, fault) from None

    def publish(self) -> None:
        """Put what was prepared in its place; what stood there is kept for `restore` until `discard`.

        Raises
        ------
        InputError
            It could not be renamed; an earlier run's files are where they were.
        """
        assert self._stage is not None
        try:
            for moment in self._texts:
                if (self.path / moment).exists():
                    self._rename(self.path / moment, self._stage / f"old-{moment}")
                self._rename(self._stage / moment, self.path / moment)
        except OSError as fault:
            self.restore()
            raise _unwritable(self.path, fault) from None

    def _rename(self, old: Path, new: Path) -> None:
        old.rename(new)
        self._renamed.append((old, new))

    def restore(self) -> None:
        """Undo `publish`, as far as it came."""
        while self._renamed:
            old, new = self._renamed.pop()
            new.rename(old)

    def discard(self) -> None:
        """Take away what `publish` has not put in its place, and folders that were made for nothing."""
        if self._stage is not None:
            shutil.rmtree(self._stage, ignore_errors=True)
            self._stage = None
        try:
            while self._made:
                self._made.pop().rmdir()
        except OSError:  # something is in it, so it was not made for nothing
            self._made.clear()


def _is_ours(path: Path) -> bool:
    """Whether a folder holds the files of a snapshot and nothing else."""
    names = {name.partition("/")[0] for name in PROC_FILES}
    return path.is_dir() and {entry.name for entry in path.iterdir()} == names


class Observer:
    """What ``--trace``, ``--events``, ``--trace-options`` and ``--proc`` ask of a run; it changes nothing in the run.

    Parameters
    ----------
    trace : Path or None
        File of the trace (`mmfw.tracing.output`).
    events : str or None
        What is traced (`mmfw.tracing.events.choose_events`).
    trace_options : str or None
        How it is printed (`mmfw.tracing.options.choose_options`).
    proc : Path or None
        Folder of the /proc files.

    Raises
    ------
    InputError
        An event or option is unknown, some are named without a file, or a place cannot be written to.
    """

    def __init__(
        self, *, trace: Path | None, events: str | None, trace_options: str | None, proc: Path | None
    ) -> None:
        for option, given in (("--events", events), ("--trace-options", trace_options)):
            if given is not None and trace is None:
                raise InputError(f"{option} says what --trace writes; name a file with --trace")
        self._chosen = choose_events(events)
        options = choose_options(trace_options)
        self._recorder: Recorder | None = None
        self._file: TraceFile | None = None
        # The folder first: the trace may be meant to stand in it.
        self._folder = None if proc is None else ProcFolder(proc)
        try:
            if trace is not None:
                self._file = TraceFile(trace, options)
                if proc is not None:
                    _keep_apart(self._file, proc)
        except InputError:
            self.close()
            raise

    def start(self, mm: Mm) -> None:
        """Look at a machine before it runs, and trace it from here on."""
        if self._folder is not None:
            self._folder.take("before", mm)
        if self._file is not None:
            self._recorder = Recorder(mm, self._chosen, self._file.write, self._file.options)
            self._recorder.start()

    def finish(self, mm: Mm) -> None:
        """Look at a machine that has run, and trace it no more."""
        if self._recorder is not None:
            self._recorder.stop()
        if self._folder is not None:
            self._folder.take("after", mm)

    def commit(self, nr_cpus: int) -> None:
        """Write everything, or nothing.

        Parameters
        ----------
        nr_cpus : int
            CPUs of the machine, for the trace's header.

        Raises
        ------
        InputError
            A file could not be written; what was there before is untouched.
        """
        if self._file is not None:
            self._file.prepare(nr_cpus)
        if self._folder is not None:
            self._folder.prepare()
            self._folder.publish()
        if self._file is not None:
            try:
                self._file.publish()
            except InputError:
                if self._folder is not None:
                    self._folder.restore()
                raise

    def close(self) -> None:
        """Drop what was not written."""
        if self._file is not None:
            self._file.discard()
        if self._folder is not None:
            self._folder.discard()


def _keep_apart(trace: TraceFile, proc: Path) -> None:
    """Refuse a trace in the place of /proc files, or in a folder that they replace."""
    places = [proc.resolve() / moment for moment in _MOMENTS]
    if any(place == trace.target or place in trace.target.parents for place in places):
        raise InputError("--trace: lies where --proc writes; name another place", file=str(trace.path))
