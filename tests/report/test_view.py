from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmfw.errors import InputError
from mmfw.report.panels import Panel, choose_panels
from mmfw.report.view import MAX_POINTS, View, pack_view
from mmfw.results import read_run

STEALS = Panel("vmstat.pgsteal_kswapd", "pgsteal_kswapd", "pages/s", 1)


def unpacked(view: View) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(view.packed)))
    return document


def rewrite(folder: Path, name: str, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), folder / name)


def samples(nr: int, **more: Any) -> dict[str, Any]:
    free = {f"free_order_{order}": np.full(nr, order, dtype=np.int64) for order in range(11)}
    return {"time_ns": np.arange(nr, dtype=np.int64) * 100_000_000, **free, **more}


def test_a_long_run_is_thinned_and_loses_no_counts(run_folder: Path) -> None:
    gained = np.arange(4001, dtype=np.int64) ** 2
    rewrite(run_folder, "samples.parquet", samples(4001, **{STEALS.key: gained}))
    view = pack_view(read_run(run_folder), [STEALS], {})
    found = unpacked(view)
    assert len(found["t"]) <= MAX_POINTS + 1
    assert (found["t"][0], found["t"][-1]) == (0, 399_500)
    assert view.step_ns == 1_700_000_000
    seconds = np.diff(found["t"]) / 1000
    rates = np.array(found["series"][STEALS.key])
    assert rates[-1] == rates[-2]
    assert (rates[:-1] * seconds).sum() == pytest.approx(3995**2, rel=1e-3)
    assert found["orders"][9] == [9 << 9] * len(found["t"])
    assert found["free_max"] == sum(order << order for order in range(11))


def test_the_map_has_a_row_for_a_hole_and_none_where_nothing_is(run_folder: Path) -> None:
    rewrite(
        run_folder,
        "blocks.parquet",
        {
            "time_ns": [0, 0, 0, 10**9, 10**9, 10**9],
            "first_pfn": [0, 1024, 4096] * 2,
            "nr_pages": [1024, 512, 1024] * 2,
            "nr_free": [1024, 256, 0, 0, 0, 512],
            "nr_free_order_9": [512, 0, 0, 0, 0, 512],
        },
    )
    heat = unpacked(pack_view(read_run(run_folder), [], {}))["heat"]
    assert heat["t"] == [0, 1000]
    assert heat["pfn"] == [0, 1024, 2048, 4096, 5120]
    assert heat["free"] == [[100, 0], [50, 0], [None, None], [0, 50]]
    assert heat["big"] == [[50, 0], [0, 0], [None, None], [0, 50]]


def test_what_was_not_recorded_is_said(run_folder: Path) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text())
    manifest["recorded"] = ["metrics.json"]
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    found = unpacked(pack_view(read_run(run_folder), [STEALS], {"pgfree": 3, "pgscan_anon": 0}))
    assert (found["t"], found["heat"], found["series"]) == ([], None, {})
    assert [text.split(" were")[0] for text in found["said"]] == ["no samples", "no blocks"]
    assert found["vmstat"] == {"pgfree": 3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"free_order_9": None}, "no column 'free_order_9'"),
        ({"time_ns": np.zeros(5, dtype=np.int64)}, "time_ns does not rise"),
        ({"free_order_3": ["x"] * 5}, "no numbers"),
        ({STEALS.key: np.array([0, 1, np.nan, 2, 3])}, "no numbers"),
    ],
)
def test_a_damaged_table_is_named(run_folder: Path, change: dict[str, Any], said: str) -> None:
    columns = {name: values for name, values in (samples(5) | change).items() if values is not None}
    rewrite(run_folder, "samples.parquet", columns)
    with pytest.raises(InputError, match=r"samples\.parquet.*" + said):
        pack_view(read_run(run_folder), [STEALS], {})


def test_a_damaged_document_is_named(run_folder: Path) -> None:
    file = run_folder / "metrics.json"
    document = json.loads(file.read_text())
    del document["requests"][0]["p50_ns"]
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"metrics\.json: damaged: requests\.0\.p50_ns"):
        pack_view(read_run(run_folder), [], {})


def test_a_column_of_words_is_left_to_packing(run_folder: Path) -> None:
    rewrite(run_folder, "samples.parquet", samples(2, **{"metric.words": ["a", "b"]}))
    run = read_run(run_folder)
    panels = choose_panels(None, ["words"], [run])
    with pytest.raises(InputError, match=r"metric\.words.*no numbers"):
        pack_view(run, panels, {})


def test_latencies_keep_every_request_and_drop_empty_bins(made_run: Path) -> None:
    run = read_run(made_run)
    rows = unpacked(pack_view(run, [], {}))["latency"]
    assert rows
    for row, given in zip(rows, run.document.latency, strict=True):
        assert row["total"] == sum(row["nr"]) == sum(given.nr)
        assert row["nr"][0]
        assert row["nr"][-1]
        assert len(row["bin_ns"]) == len(row["nr"])


def test_phases_are_there_with_their_times(made_run: Path) -> None:
    run = read_run(made_run)
    given = (run.document.model_extra or {})["phases"]
    found = unpacked(pack_view(run, [], {}))["phases"]
    assert given
    assert [(each["name"], each["start"]) for each in found] == [
        (each["name"], each["start_ns"] // 10**6) for each in given
    ]


def test_a_metric_that_falls_is_drawn_as_it_stands(run_folder: Path) -> None:
    falls, rises = np.array([3.0, 2, 1, 0, 0]), np.arange(5.0)
    columns = {"metric.falls": falls, "metric.rises": rises, "metric.frames": falls, "metric.speed": rises}
    rewrite(run_folder, "samples.parquet", samples(5, **columns))
    file = run_folder / "metrics.json"
    document = json.loads(file.read_text())
    document["figures"]["speed"] = {"unit": "MiB/s", "better": "higher", "description": "how fast"}
    file.write_text(json.dumps(document))
    panels = choose_panels("frames", ["falls", "rises", "absent", "speed"], [read_run(run_folder)])
    found = [(panel.title, panel.unit, panel.per_second) for panel in panels if "metric." in panel.key]
    assert found == [("frames", "1/s", 1), ("falls", "1", 0), ("rises", "1/s", 1), ("speed", "MiB/s", 0)]


def test_what_is_said_to_add_up_is_drawn_as_a_rate_and_nothing_else_is(run_folder: Path) -> None:
    rises = np.arange(5.0)
    rewrite(run_folder, "samples.parquet", samples(5, **{"metric.held": rises, "metric.done": rises}))
    file = run_folder / "metrics.json"
    document = json.loads(file.read_text())
    for name, kind in (("held", "level"), ("done", "count")):
        document["figures"][name] = {"unit": "pages", "kind": kind, "better": "higher", "description": name}
    file.write_text(json.dumps(document))
    found = {
        panel.title: panel.unit for panel in choose_panels(None, ["held", "done"], [read_run(run_folder)])
    }
    assert (found["held"], found["done"]) == ("pages", "pages/s")
