"""A trace altered in one number must differ, and at the right line: what equal figures are worth."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from mmfw.replay.engine import ReplayResult, replay_file

TRACES = Path(__file__).parent / "data" / "traces"
#: Place of an event's or operation's numbers that may be changed and stay within the format, with its limit.
EVENT_FIELDS = {"x": (1, 1 << 16), "z": (1, 1 << 16), "p": (1, 1 << 16)}


def lines_of(name: str) -> list[str]:
    with gzip.open(TRACES / name, "rt", encoding="ascii") as stream:
        return stream.read().splitlines()


TRACE = {name: lines_of(f"{name}.jsonl.gz") for name in ("256M-s1-t1", "256M-s1-t2")}


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("path", sorted(TRACES.iterdir()), ids=lambda path: path.name.partition(".")[0])
def test_real_traces_replay_exactly(path: Path) -> None:
    result = replay_file(path)
    check = json.loads(lines_of(path.name)[-1])["check"]
    assert result.first_mismatch is None
    assert (result.passed, result.final_state_matches) == (True, True)
    assert result.ops == check["ops"]
    assert result.pfn_matches == result.pfns_compared == check["allocs_ok"] + check["allocs_failed"]
    assert result.events_match == result.events_compared > 0
    assert (result.states_compared, result.states_match) == (2, 2)


def places(lines: list[str], kind: str) -> list[int]:
    """Indices of the lines that an alteration of this kind may hit."""
    values = [json.loads(line) for line in lines]
    if kind in ("pfn", "free"):
        return [
            i for i, v in enumerate(values) if isinstance(v, list) and v[0] == {"pfn": "a", "free": "f"}[kind]
        ]
    if kind == "event":
        return [i for i, v in enumerate(values) if isinstance(v, list) and v[0] in EVENT_FIELDS]
    label = {"state 0": 0, "mid state": 1, "end state": 100}[kind]
    return [i for i, v in enumerate(values) if isinstance(v, dict) and v.get("state") == label]


def altered(lines: list[str], kind: str, rng: random.Random) -> tuple[list[str], int]:
    """Lines with one number changed, and the index of the changed line."""
    index = rng.choice(places(lines, kind))
    value = json.loads(lines[index])
    if kind == "pfn":
        value[4] = rng.choice([-1, value[4] + 1, value[4] ^ 8, rng.randrange(1 << 16)])
    elif kind == "free":
        value[2] = rng.choice([value[2] + 1, value[2] ^ 16, rng.randrange(1 << 16)])
    elif kind == "event":
        at, limit = EVENT_FIELDS[value[0]]
        value[at] = (value[at] + rng.randrange(1, limit)) % limit
    else:
        alter_list(value, rng)
    text = json.dumps(value, separators=(",", ":"))
    if text == lines[index]:
        return altered(lines, kind, rng)
    return [*lines[:index], text, *lines[index + 1 :]], index


def alter_list(state: dict[str, Any], rng: random.Random) -> None:
    """Change, swap or drop one entry of one free or per-CPU list."""
    zone = rng.choice(state["zones"])
    lists = [entries for area in zone["free_area"] for entries in area["lists"] if entries]
    entries = rng.choice(lists + [entries for entries in zone["pcp"]["lists"] if entries])
    at = rng.randrange(len(entries))
    how = rng.choice(("swap", "change", "drop"))
    if how == "swap" and len(entries) > 1:
        other = (at + 1) % len(entries)
        entries[at], entries[other] = entries[other], entries[at]
    elif how == "drop":
        del entries[at]
    elif isinstance(entries[at], list):
        entries[at][0] ^= 1
    else:
        entries[at] ^= 1 << rng.randrange(16)


KINDS = ("pfn", "free", "event", "state 0", "mid state", "end state")


@pytest.mark.parametrize("seed", range(120))
def test_one_altered_number_is_found(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    name, kind = rng.choice(sorted(TRACE)), KINDS[seed % len(KINDS)]
    lines, index = altered(TRACE[name], kind, rng)
    result = replay_file(write(tmp_path / "altered.jsonl", lines))
    first = result.first_mismatch
    assert not result.passed
    assert first is not None
    if kind == "pfn":
        assert (first.line, first.operation, first.what) == (index + 1, lines[index], "pfn")
        assert first.expected.split()[-1].strip("()") in (hex(json.loads(lines[index])[4]), "-1")
        assert result.pfn_matches < result.pfns_compared
    elif kind == "event":
        after = next(i for i in range(index, len(lines)) if lines[i][2] in "afd")
        assert (first.line, first.operation, first.what) == (after + 1, lines[after], "events")
        assert result.events_match < result.events_compared
    elif kind in ("mid state", "end state"):
        assert (first.line, first.operation) == (index + 1, f"state {json.loads(lines[index])['state']}")
        assert result.states_match < result.states_compared
        assert result.final_state_matches == (kind == "mid state")
    else:
        # A wrong page that is freed, or stands on a list, shows when it or its buddy is next met.
        assert first.line >= index + 1


def test_bad_free_is_named_with_the_reason(tmp_path: Path) -> None:
    lines = list(TRACE["256M-s1-t2"])
    index = next(i for i, line in enumerate(lines) if line.startswith('["f"'))
    lines.insert(index, lines[index])
    result = replay_file(write(tmp_path / "twice.jsonl", lines))
    first = result.first_mismatch
    assert first is not None
    assert (first.line, first.operation, first.what) == (index + 2, lines[index], "free")
    assert first.got == "not an allocated block of that order"


def test_after_a_difference_the_share_of_equal_pfns_still_means_something(tmp_path: Path) -> None:
    lines = list(TRACE["256M-s1-t1"])
    index = places(lines, "pfn")[100]
    value = json.loads(lines[index])
    value[4] += 1
    # The later free must name the same page, as in a trace of a kernel that had chosen it.
    lines[index] = json.dumps(value, separators=(",", ":"))
    result = replay_file(write(tmp_path / "one.jsonl", lines))
    assert result.pfns_compared == 1028
    assert 900 <= result.pfn_matches < 1028


def contradiction(lines: list[str], tmp_path: Path, key: str, change: int) -> ReplayResult:
    state = json.loads(lines[1])
    state["zones"][1][key] += change
    return replay_file(write(tmp_path / "odd.jsonl", [lines[0], json.dumps(state), *lines[2:]]))


def test_state_that_contradicts_itself_is_a_difference_at_its_line(tmp_path: Path) -> None:
    result = contradiction(TRACE["256M-s1-t1"], tmp_path, "vm_free", 1)
    first = result.first_mismatch
    assert first is not None
    assert (first.line, first.operation, first.op_index, first.what) == (2, "state 0", -1, "consistency")
    assert first.got.startswith("zones[1].vm_free: with vm_free_cpu_diff is ")


@pytest.mark.parametrize("key", ["watermark_boost", "nr_reserved_highatomic", "percpu_drift_mark"])
def test_figure_of_a_state_that_no_page_shows_is_found_in_the_next_state(tmp_path: Path, key: str) -> None:
    result = contradiction(TRACE["256M-s1-t2"], tmp_path, key, 1)
    first = result.first_mismatch
    assert first is not None
    assert first.line > 2
    assert not result.final_state_matches
