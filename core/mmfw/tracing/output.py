"""The trace's file: its header tells how many lines follow, so it is put together at the end."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from mmfw.errors import InputError
from mmfw.proc.ftrace import format_ftrace_header
from mmfw.tracing.options import TraceOptions

#: Characters collected before they are handed to the operating system.
_CHUNK: Final = 1 << 20


class TraceFile:
    """A trace that is written whole or not at all.

    Lines go to a nameless file beside the wanted one. `prepare` writes header and lines under a temporary name, and
    `publish` renames that.

    Parameters
    ----------
    path : Path
        Where the trace goes, in place of what is there; compressed if it ends in ``.gz``, in a way that
        depends on nothing but the lines.
    options : TraceOptions
        How lines are printed.

    Attributes
    ----------
    target : Path
        `path`, absolute and without links.
    nr_lines : int
        Lines so far.

    Raises
    ------
    InputError
        Nothing can be written there.
    """

    def __init__(self, path: Path, options: TraceOptions) -> None:
        self.path = path
        self.options = options
        self.nr_lines = 0
        self._lines: list[str] = []
        self._nr_chars = 0
        self._failure: OSError | None = None
        self._partial: Path | None = None
        try:
            self.target = path.resolve()
            if self.target.is_dir():
                raise InputError("--trace: is a folder; name a file", file=str(path))
            if self.target.exists() and not stat.S_ISREG(self.target.stat().st_mode):
                raise InputError(
                    "--trace: is not a regular file; name one that may be replaced", file=str(path)
                )
            spool = tempfile.TemporaryFile(dir=self.target.parent)  # noqa: SIM115 # `discard` closes it
        # ValueError: a null byte in the name; RuntimeError: a loop of links.
        except (OSError, ValueError, RuntimeError) as fault:
            raise _unwritable(path, fault) from None
        self._spool = cast(IO[bytes], spool)

    def write(self, line: str) -> None:
        """Add a line, its newline included; a fault is kept for `prepare`, because this is called by the simulated."""
        self.nr_lines += 1
        self._lines.append(line)
        self._nr_chars += len(line)
        if self._nr_chars >= _CHUNK:
            self._drain()

    def _drain(self) -> None:
        if self._failure is None:
            try:
                self._spool.write("".join(self._lines).encode("ascii"))
            except OSError as fault:
                self._failure = fault
        self._lines.clear()
        self._nr_chars = 0

    def prepare(self, nr_cpus: int) -> None:
        """Write the file under a temporary name.

        Raises
        ------
        InputError
            It could not be written; what was there before is untouched.
        """
        self._drain()
        header = format_ftrace_header(self.nr_lines, nr_cpus, irq_info=self.options.irq_info)
        partial = self.target.with_name(f".{os.getpid()}.trace.tmp")
        try:
            if self._failure is not None:
                raise self._failure
            partial.unlink(missing_ok=True)
            with partial.open("xb") as raw:
                self._partial = partial
                self._spool.seek(0)
                self._put(raw, header.encode("ascii"))
        except OSError as fault:
            self.discard()
            raise _unwritable(self.path, fault) from None

    def publish(self) -> None:
        """Put what was prepared in its place.

        Raises
        ------
        InputError
            It could not be renamed; what was there before is untouched.
        """
        assert self._partial is not None
        try:
            self._partial.replace(self.target)
        except OSError as fault:
            raise _unwritable(self.path, fault) from None
        self._partial = None

    def _put(self, raw: BinaryIO, header: bytes) -> None:
        if self.target.suffix != ".gz":
            raw.write(header)
            shutil.copyfileobj(self._spool, raw, _CHUNK)
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            packed.write(header)
            shutil.copyfileobj(self._spool, packed, _CHUNK)

    def discard(self) -> None:
        """Drop what was not published."""
        # What could not be written before cannot be now, when its buffer is emptied.
        with suppress(OSError):
            self._spool.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None


def _unwritable(path: Path, fault: Exception) -> InputError:
    said = fault.strerror or fault if isinstance(fault, OSError) else fault
    return InputError(f"--trace: cannot be written: {said}", file=str(path))
