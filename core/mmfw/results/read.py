"""Reading a run directory back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmfw.errors import InputError
from mmfw.offers import Better, FigureKind
from mmfw.results.extras import study_module
from mmfw.results.manifest import FORMAT, Manifest

Number = int | float | None
M = TypeVar("M", bound=BaseModel)


class FigureInfo(BaseModel):
    """What a metric means (`mmfw.result.Figure`); runs of versions that did not say so have no `kind`."""

    model_config = ConfigDict(frozen=True)

    unit: str
    better: Better
    description: str
    kind: FigureKind | None = None


class LatencyRow(BaseModel):
    """How long requests of one order and class took.

    Attributes
    ----------
    order : int
        Order.
    class : str
        ``C0``, ``CO``, ``CM`` or ``CN`` (`mmfw.mm.requests.RequestClass`); attribute `cls`.
    bin_ns : tuple of int
        Lower bounds of the bins, ns: 0, then powers of two; a bin ends where the next begins. Empty bins are there.
    nr, nr_failed : tuple of int
        Requests in each bin, and those of them that got nothing.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    order: int
    cls: str = Field(alias="class")
    bin_ns: tuple[int, ...]
    nr: tuple[int, ...]
    nr_failed: tuple[int, ...]


class RunDocument(BaseModel):
    """``metrics.json``, as far as it is read here; more keys are in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    metrics: dict[str, Number]
    figures: dict[str, FigureInfo]
    vmstat: dict[str, int]
    buddyinfo_before: dict[str, list[int]]
    buddyinfo: dict[str, list[int]]
    kswapd_wakes_by_order: dict[str, int]
    latency: tuple[LatencyRow, ...]
    digest: str
    not_modelled: tuple[str, ...]

    def figure(self, name: str) -> Number:
        """A metric, or a counter of /proc/vmstat."""
        return self.metrics[name] if name in self.metrics else self.vmstat.get(name)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : Manifest
        What it was made of.
    document : RunDocument
        What came of it.
    """

    path: Path
    manifest: Manifest
    document: RunDocument

    def samples(self) -> Any | None:
        """``samples.parquet`` as a pyarrow.Table; None if it was not recorded."""
        return self._table("samples.parquet")

    def blocks(self) -> Any | None:
        """``blocks.parquet`` as a pyarrow.Table; None if it was not recorded."""
        return self._table("blocks.parquet")

    def events(self) -> Any | None:
        """``events.parquet`` as a pyarrow.Table; None if it was not recorded."""
        return self._table("events.parquet")

    def _table(self, name: str) -> Any | None:
        if name not in self.manifest.recorded:
            return None
        pq = study_module("pyarrow.parquet", "reading a run directory")
        lib = study_module("pyarrow", "reading a run directory")
        file = self.path / name
        try:
            return pq.read_table(file, use_threads=False)
        except (OSError, lib.ArrowException) as fault:
            said = " ".join(str(fault).split())
            raise InputError(f"cannot be read as Parquet: {said:.200}", file=str(file)) from None


def _load(file: Path, model: type[M]) -> M:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as fault:
        said = fault.strerror if isinstance(fault, OSError) else fault
        raise InputError(f"no run directory, or a damaged one: {said}", file=str(file)) from None
    try:
        document = json.loads(text)
        if model is Manifest and isinstance(document, dict) and document.get("format") != FORMAT:
            raise InputError(
                f"format {document.get('format')!r:.40} of a run directory; this version reads {FORMAT}",
                file=str(file),
            )
        return model.model_validate(document)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"damaged: {where}: {first['msg']}", file=str(file)) from None
    except (ValueError, RecursionError) as fault:
        raise InputError(f"damaged: {fault}", file=str(file)) from None


def read_run(path: Path | str) -> RunDirectory:
    """Read a run directory; tables are read when they are asked for.

    Raises
    ------
    InputError
        It is none, or damaged; names the file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("no such run directory; mmfw run --out writes one", file=str(folder))
    return RunDirectory(
        folder, _load(folder / "manifest.json", Manifest), _load(folder / "metrics.json", RunDocument)
    )
