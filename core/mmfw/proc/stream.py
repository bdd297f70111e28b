"""Long text files line by line, gzip or plain, one line in memory at a time."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmfw.errors import InputError

#: No line of a capture is longer; a state of a 64 GiB machine in pieces of one page is about this long.
MAX_LINE_BYTES: Final = 1 << 28
_GZIP_MAGIC: Final = b"\x1f\x8b"


class LineStream:
    """The lines of a text file whose writer ends every line.

    Parameters
    ----------
    path : Path
        Plain or gzip-compressed; which of the two is told by the first bytes.

    Attributes
    ----------
    number : int
        Number of the line given last, counted from 1; 0 before the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0

    def error(self, message: str, line: int | None = None) -> InputError:
        """Error about a line of this file, the last one given if none is named."""
        number = self.number if line is None else line
        return InputError(message, file=str(self.path), line=max(number, 1))

    def __iter__(self) -> Iterator[str]:
        """Lines without their ends.

        Raises
        ------
        InputError
            The file cannot be read, is damaged or cut short, or is not ASCII.
        """
        try:
            with self.path.open("rb") as raw:
                magic = raw.read(len(_GZIP_MAGIC))
                raw.seek(0)
                stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if magic == _GZIP_MAGIC else raw
                while data := stream.readline(MAX_LINE_BYTES + 1):
                    self.number += 1
                    if len(data) > MAX_LINE_BYTES:
                        raise self.error(f"the line is longer than {MAX_LINE_BYTES} bytes")
                    if not data.endswith(b"\n"):
                        raise self.error("the file ends inside this line; it was cut short")
                    yield data.decode("ascii").rstrip("\r\n")
        except UnicodeDecodeError as fault:
            raise self.error(f"byte {fault.start + 1} of the line is not ASCII") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
            raise self.error(f"the compressed data is damaged after this line ({fault})") from None
        except OSError as fault:
            raise InputError(f"cannot be read: {fault.strerror or fault}", file=str(self.path)) from None
        except ValueError as fault:
            # A path with a null byte.
            raise InputError(f"cannot be read: {fault}", file=str(self.path)) from None
