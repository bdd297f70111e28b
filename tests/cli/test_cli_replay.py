"""``mmfw replay``: its lines, its JSON and its exit status."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.cli import main

TRACES = Path(__file__).parents[1] / "data" / "traces"
SMALL = TRACES / "256M-s1-t1.jsonl.gz"
Replay = Callable[..., tuple[int, str, str]]


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str]) -> Replay:
    """Run the command in this process: status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["replay", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, out, err

    return run


@pytest.fixture
def altered(tmp_path: Path) -> Path:
    """A trace whose first allocation returned another page of the same list."""
    lines = gzip.decompress(SMALL.read_bytes()).decode().splitlines()
    assert lines[2] == '["a",0,0,0,24925]'
    lines[2] = '["a",0,0,0,24927]'
    path = tmp_path / "altered.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_matching_trace_is_one_line_and_status_0(replay: Replay) -> None:
    assert replay(SMALL) == (
        0,
        f"{SMALL}: 2000 operations, pfns 1028/1028, events 1611/1611, states 2/2: match\n",
        "",
    )


def test_json_has_the_promised_keys(replay: Replay) -> None:
    status, out, err = replay(SMALL, TRACES / "256M-s1-t2.jsonl.gz", "--format", "json")
    first, second = json.loads(out)
    assert (status, err) == (0, "")
    assert first == {
        "file": str(SMALL),
        "ops": 2000,
        "pfns_compared": 1028,
        "pfn_matches": 1028,
        "events_compared": 1611,
        "events_match": 1611,
        "states_compared": 2,
        "states_match": 2,
        "first_mismatch": None,
        "final_state_matches": True,
    }
    assert (second["pfn_matches"], second["events_match"]) == (1325, 870)


def test_first_difference_names_line_operation_and_pages_and_shows_the_lists(
    replay: Replay, altered: Path
) -> None:
    status, out, err = replay(altered)
    lines = out.splitlines()
    assert (status, err) == (1, "")
    assert lines[0].endswith(": DIFFERS")
    assert lines[1] == f'{altered}:3: first difference, operation 0: ["a",0,0,0,24927]'
    assert lines[2] == "  pfn: expected pfn 24927 (0x615f), got pfn 24925 (0x615d)"
    assert lines[3].startswith("  zone DMA32: free ")
    assert any(line.startswith("    pcp list 0 (order 0): 24926 24927 ") for line in lines)


def test_json_of_a_difference(replay: Replay, altered: Path) -> None:
    status, out, _ = replay(altered, "--format=json")
    (result,) = json.loads(out)
    assert status == 1
    assert result["pfn_matches"] < result["pfns_compared"] == 1028
    mismatch = result["first_mismatch"]
    assert (mismatch["line"], mismatch["op_index"], mismatch["what"]) == (3, 0, "pfn")
    assert (mismatch["expected"], mismatch["got"]) == ("pfn 24927 (0x615f)", "pfn 24925 (0x615d)")
    assert mismatch["around"]


def test_one_difference_among_many_files_is_status_1(replay: Replay, altered: Path) -> None:
    status, out, _ = replay(SMALL, altered)
    assert status == 1
    assert out.splitlines()[-1] == "1 of 2 traces match"


def test_folder_stands_for_its_traces_by_name(replay: Replay, altered: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no trace")
    (tmp_path / "a.jsonl.gz").write_bytes(SMALL.read_bytes())
    status, out, _ = replay(tmp_path)
    assert status == 1
    assert [line.partition(": ")[0] for line in out.splitlines() if " operations, " in line] == [
        str(tmp_path / "a.jsonl.gz"),
        str(altered),
    ]


def test_wrong_input_is_one_line_and_status_2(replay: Replay, tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    assert replay(missing) == (2, "", f"mmfw: {missing}: cannot be read: No such file or directory\n")
    assert replay(tmp_path) == (
        2,
        "",
        f"mmfw: {tmp_path}: the folder holds no trace (*.jsonl or *.jsonl.gz)\n",
    )
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(SMALL.read_bytes()[:9000])
    status, out, err = replay(cut)
    assert (status, out) == (2, "")
    assert err.startswith(f"mmfw: {cut}:")
    assert err.endswith(
        ": the compressed data is damaged after this line "
        "(Compressed file ended before the end-of-stream marker was reached)\n"
    )
