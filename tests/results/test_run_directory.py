"""Run directories: what is in them, that recording changes nothing, and that they are written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmfw.errors import InputError, MmfwError
from mmfw.eventlog import DIGESTED_EVENTS
from mmfw.mm.requests import RequestClass, RequestStats
from mmfw.policies import parse_policy
from mmfw.results import Recording, read_run
from mmfw.results.difference import difference
from mmfw.results.events import event_name
from mmfw.results.extras import study_module
from mmfw.run import RunRequest, run

pytest.importorskip("pyarrow")
README = Path(__file__).parents[2] / "README.md"
TOY = Path(__file__).parents[1] / "data" / "toy"


def request(**changes: object) -> RunRequest:
    base = RunRequest(scenario=str(TOY / "toy-loop.toml"), plugin_files=(TOY / "toy.py",), duration="500ms")
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "a"
    run(request(out=out))
    return out


def test_recording_changes_nothing_and_repeats_byte_for_byte(recorded: Path, tmp_path: Path) -> None:
    plain = run(request())
    first = read_run(recorded)
    assert first.manifest.digest == plain.digest
    run(request(out=tmp_path / "b"))
    for name in ("samples.parquet", "blocks.parquet", "events.parquet"):
        assert (tmp_path / "b" / name).read_bytes() == (recorded / name).read_bytes()
    again = read_run(tmp_path / "b")
    assert again.manifest.inputs() == first.manifest.inputs()
    assert again.document.metrics == first.document.metrics


def test_the_readme_s_snippet_runs_as_pasted(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = README.read_text().split("```python\n")[1:]
    (snippet,) = [code for code in (each.partition("```")[0] for each in blocks) if "samples.parquet" in code]
    (recorded.parent / "run").symlink_to(recorded)
    monkeypatch.chdir(recorded.parent)
    exec(compile(snippet, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("{'time_ns': 100000000, 'nr_free_pages': ")


def test_samples_say_what_the_result_says(recorded: Path) -> None:
    result, table = read_run(recorded), read_run(recorded).samples()
    assert table.column("time_ns").to_pylist() == [100_000_000 * i for i in range(6)]
    free = table.column("nr_free_pages").to_pylist()
    assert result.document.metrics["nr_free_pages_min"] == min(free)
    assert result.document.metrics["nr_free_pages_end"] == free[-1]
    by_order = sum(np.array(table.column(f"free_order_{o}").to_pylist()) << o for o in range(11))
    assert by_order.tolist() == free
    for name, end in result.document.vmstat.items():
        column = f"vmstat.{name}"
        if column in table.column_names:
            values = table.column(column).to_pylist()
            assert values == sorted(values)
            assert values[-1] <= end
        else:
            assert end == 0 or name.startswith(("pgalloc", "pgfree"))
    assert table.column("metric.toy_evictions").to_pylist()[0] == 0


def test_blocks_add_up_to_the_machine_and_its_free_pages(recorded: Path) -> None:
    result = read_run(recorded)
    blocks, samples = result.blocks(), result.samples()
    rows = {name: np.array(blocks.column(name).to_pylist()) for name in blocks.column_names}
    parts = rows["nr_free"] + rows["nr_movable"] + rows["nr_other"]
    assert (parts == rows["nr_pages"]).all()
    assert (rows["nr_other"] >= 0).all()
    assert (rows["nr_free_order_9"] <= rows["nr_free"]).all()
    assert len(np.unique(rows["first_pfn"])) <= 128
    for time_ns, free in zip(
        samples.column("time_ns").to_pylist(), samples.column("nr_free_pages").to_pylist(), strict=True
    ):
        assert rows["nr_free"][rows["time_ns"] == time_ns].sum() == free
    assert rows["nr_movable"].sum() > 0


def test_events_are_those_of_the_digest_in_their_order(recorded: Path) -> None:
    result = read_run(recorded)
    table = result.events()
    times = table.column("time_ns").to_pylist()
    assert times == sorted(times)
    wakes = [
        order
        for name, order in zip(
            table.column("event").to_pylist(), table.column("order").to_pylist(), strict=True
        )
        if name == "mm_vmscan_kswapd_wake"
    ]
    assert sum(result.document.kswapd_wakes_by_order.values()) == len(wakes) > 0
    assert set(table.column("event").to_pylist()) <= {event_name(kind) for kind in DIGESTED_EVENTS}
    shrinkers = {
        name
        for name, event in zip(
            table.column("shrinker").to_pylist(), table.column("event").to_pylist(), strict=True
        )
        if event == "mm_shrink_slab_start"
    }
    assert "toy" in {str(name).split("-")[0] for name in shrinkers}


def test_block_times_thin_out_evenly_however_long_the_run(tmp_path: Path) -> None:
    run(request(out=tmp_path / "long", duration="10s", recording=Recording(samples=False, events=False)))
    result = read_run(tmp_path / "long")
    assert result.samples() is None
    assert result.manifest.recorded == ("metrics.json", "blocks.parquet")
    times = np.unique(result.blocks().column("time_ns").to_pylist())
    assert 24 <= len(times) <= 48
    assert np.unique(np.diff(times)).tolist() == [400_000_000]
    assert times[0] == 0


def test_latencies_count_every_request_once() -> None:
    stats = RequestStats()
    stats.note(0, 9, 2, ok=True, ns=2000)
    stats.note(0, 9, 1, ok=False, ns=0)
    (row,) = stats.latencies()
    assert (row.order, row.cls) == (9, RequestClass.CN)
    assert row.bin_ns[:3] == (0, 1, 2)
    filled = {low: (n, bad) for low, n, bad in zip(row.bin_ns, row.nr, row.nr_failed, strict=True) if n}
    assert filled == {0: (1, 1), 512: (2, 0)}
    assert row.bin_ns[-1] == 512


def test_an_old_run_directory_is_replaced_whole_and_anything_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    run(request(out=out))
    assert (out / "events.parquet").exists()
    run(request(out=out, recording=Recording(samples=True, blocks=False, events=False), duration="100ms"))
    assert sorted(os.listdir(out)) == ["manifest.json", "metrics.json", "samples.parquet"]
    assert os.listdir(out.parent) == ["run"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no run directory, or holds more than a run wrote"):
        run(request(out=out))
    assert (out / "notes.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.touch()
    for place in (file, tmp_path):
        with pytest.raises(InputError, match="is no run directory"):
            run(request(out=place))


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MmfwError):
        run(request(out=tmp_path / "a" / "b", kernel="5.4"))
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="--trace: lies in the folder of --out"):
        run(request(out=tmp_path / "a", trace=tmp_path / "a" / "trace"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x: --out: cannot be written: Not a directory"):
        run(request(out=tmp_path / "file" / "x"))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("manifest.json", None, "no run directory, or a damaged one: No such file or directory"),
        ("manifest.json", b"{", "damaged: Expecting property name"),
        ("manifest.json", b'{"format": 2}', "format 2 of a run directory; this version reads 1"),
        ("manifest.json", b"[]", "damaged: : Input should be"),
        ("metrics.json", b'{"metrics": {}}', "damaged: figures: Field required"),
        ("metrics.json", b"\xff", "no run directory, or a damaged one"),
        ("samples.parquet", b"PAR1", "cannot be read as Parquet"),
        ("blocks.parquet", None, "cannot be read as Parquet"),
    ],
)
def test_damage_is_named(recorded: Path, tmp_path: Path, name: str, damage: bytes | None, said: str) -> None:
    for file in recorded.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)

    def read_all() -> None:
        result = read_run(tmp_path)
        result.samples()
        result.blocks()

    with pytest.raises(InputError) as fault:
        read_all()
    assert str(fault.value).startswith(f"{tmp_path / name}: {said}")


def test_the_manifest_repeats_the_run(recorded: Path) -> None:
    manifest = read_run(recorded).manifest
    assert manifest.command[:2] == ("mmfw", "run")
    assert manifest.command[3:] == (
        "--plugin-file",
        str(TOY / "toy.py"),
        "--seed",
        "0",
        "--duration",
        "500ms",
    )
    assert manifest.scenario_toml == (TOY / "toy-loop.toml").read_text()
    assert manifest.distributions["mmfw"].version == manifest.mmfw
    asked = request(
        policies=parse_policy("elide-shrink-slab:elide_needs_order0_ok=no"),
        overrides={"objects": 3, "on": True, "names": ["a"]},
        short=True,
        duration=None,
    )
    words = asked.command("toy-loop")
    assert "elide-shrink-slab:elide_needs_order0_ok=no" in words
    assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == [
        "objects=3",
        "on=true",
        'names=["a"]',
    ]
    assert words[-1] == "--short"


def test_difference_says_what_and_from_when_on(recorded: Path, tmp_path: Path) -> None:
    run(request(out=tmp_path / "b", seed=1))
    old, new = read_run(recorded), read_run(tmp_path / "b")
    same = difference(old, old)
    assert (same.same_result, same.inputs, same.figures, same.first_ns) == (True, (), (), None)
    found = difference(old, new)
    assert not found.same_result
    assert [(each.name, each.old, each.new) for each in found.inputs] == [("seed", 0, 1)]
    first = {f"{each.kind}.{each.name}": each.first_ns for each in found.figures}
    assert found.first_ns == min(ns for ns in first.values() if ns is not None)
    before, after = old.samples(), new.samples()
    for name, ns in first.items():
        if ns is not None and name in before.column_names and name in after.column_names:
            row = ns // 100_000_000
            a, b = before.column(name).to_pylist(), after.column(name).to_pylist()
            assert a[:row] == b[:row]
            assert a[row] != b[row]


def test_metrics_json_is_the_documents_of_run_and_more(recorded: Path) -> None:
    document = json.loads((recorded / "metrics.json").read_text())
    result = run(request())
    plain = json.loads(json.dumps(result.as_json()))
    assert document.keys() - plain.keys() == {"figures", "latency"}
    for name in plain.keys() - {"wall_seconds"}:
        assert document[name] == plain[name]
    assert document["figures"].keys() == document["metrics"].keys()


def test_a_missing_library_is_one_line_with_the_remedy() -> None:
    with pytest.raises(
        InputError, match=r"^--out needs pyarow \(No module named 'pyarow'\): pip install mmfw\[study\]$"
    ):
        study_module("pyarow.parquet", "--out")
