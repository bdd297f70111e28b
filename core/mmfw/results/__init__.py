"""Run directories: what a run was made of and what came of it, written whole, and read back.

================  ==============================================================================================
file              holds
================  ==============================================================================================
manifest.json     what the run depends on, with versions and digests, and how to repeat it (`Manifest`)
metrics.json      what ``mmfw run --format json`` prints, what each figure means, and request latencies by order
                  and class (`RunDocument`)
samples.parquet   memory at fixed virtual times (`mmfw.results.samples`)
blocks.parquet    fragmentation over pfns and time (`mmfw.results.blocks`)
events.parquet    the digested events (`mmfw.results.events`)
================  ==============================================================================================
"""

from __future__ import annotations

from mmfw.results.manifest import FORMAT, Manifest, RunInputs
from mmfw.results.read import RunDirectory, RunDocument, read_run
from mmfw.results.record import Recorder, Recording
from mmfw.results.write import RunFolder

__all__ = [
    "FORMAT",
    "Manifest",
    "Recorder",
    "Recording",
    "RunDirectory",
    "RunDocument",
    "RunFolder",
    "RunInputs",
    "read_run",
]
