from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw.errors import InputError, MmfwError
from mmfw.scenario import load_scenario, parse_duration, parse_scenario, parse_set

GOOD = """name = "small"
description = "A test"
plugins = []
machine = "256M"

[state]
page_cache_pages = 10

[[workloads]]
name = "load"
count = 3
params = { rate = 5 }
"""


def test_a_scenario_is_read_with_its_defaults():
    scenario = parse_scenario(GOOD, "small.toml")
    assert (scenario.kernel, scenario.duration, scenario.nr_swap_pages) == ("6.1", "60s", 0)
    assert scenario.workloads[0].count == 3
    assert scenario.state.page_cache_pages == 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("machine =", "machin =", "small.toml:4: machin: no such key; did you mean 'machine'?"),
        (
            "page_cache_pages",
            "page_cache_page",
            "small.toml:7: state.page_cache_page: no such key; did you mean 'page_cache_pages'?",
        ),
        (
            "count = 3",
            "count = 0",
            "small.toml:11: workloads.0.count: Input should be greater than or equal to 1 (it is 0)",
        ),
        ('name = "small"', 'name = "small', "small.toml:1: not TOML: "),
        ('"256M"', "256", "small.toml:4: machine: Input should be a valid string (it is 256)"),
    ],
)
def test_a_fault_is_named_with_file_line_and_key(old, new, message):
    with pytest.raises(InputError) as fault:
        parse_scenario(GOOD.replace(old, new, 1), "small.toml")
    assert str(fault.value).startswith(message)


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match=r"small\.toml: machine: this key is missing"):
        parse_scenario(GOOD.replace('machine = "256M"\n', ""), "small.toml")


def test_set_reaches_workloads_scenario_and_plugin_parameters():
    scenario = parse_scenario(
        GOOD,
        "small.toml",
        {"rate": 7, "count": 9, "state.page_cache_pages": 3, "xe.seed_pages": 4, "machine": "1G"},
    )
    assert scenario.workloads[0].params == {"rate": 7}
    assert scenario.workloads[0].count == 9
    assert scenario.state.page_cache_pages == 3
    assert scenario.params == {"xe": {"seed_pages": 4}}
    assert scenario.machine == "1G"


def test_an_unknown_parameter_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="--set ratee: no such parameter; did you mean 'rate'"):
        parse_scenario(GOOD, "small.toml", {"ratee": 1})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", ("a", 1)),
        ("a.b=true", ("a.b", True)),
        ("m=8G", ("m", "8G")),
        ('m="x"', ("m", "x")),
        ("f=0.5", ("f", 0.5)),
    ],
)
def test_values_are_read_as_toml_and_bare_words_as_strings(text, value):
    assert parse_set(text) == value


@pytest.mark.parametrize("text", ["a", "=1", "a b=1", ""])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(InputError, match="write KEY=VALUE"):
        parse_set(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("60s", 60 * 10**9), ("1500ms", 15 * 10**8), ("2min", 120 * 10**9), ("0.5s", 5 * 10**8), ("7ns", 7)],
)
def test_durations(text, ns):
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "60", "s", "-1s", "0s", "1h", "1e9s", "9999999999999s"])
def test_no_durations(text):
    with pytest.raises(InputError, match="duration"):
        parse_duration(text)


def test_an_unknown_scenario_is_refused():
    with pytest.raises(InputError, match="no scenario 'nonesuch-at-all'"):
        load_scenario("nonesuch-at-all")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read"):
        load_scenario("nowhere.toml")


@given(st.text(max_size=200))
def test_any_text_is_a_scenario_or_an_error(text):
    with pytest.raises(MmfwError):
        parse_scenario(text, "fuzz.toml")


@given(st.integers(0, len(GOOD) - 1), st.characters(max_codepoint=0x2FF))
def test_one_changed_character_is_read_or_refused(at, char):
    try:
        parse_scenario(GOOD[:at] + char + GOOD[at + 1 :], "fuzz.toml")
    except InputError as fault:
        assert "fuzz.toml" in str(fault)


KNOBS = GOOD + '\n[knobs]\nclients = "workloads.0.count"\nboth = ["clients", "rate"]\n'


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("clients", 20, lambda s: s.workloads[0].count),
        ("both", 8, lambda s: s.workloads[0].count),
        ("both", 8, lambda s: s.workloads[0].params["rate"]),
        ("rate", 9, lambda s: s.workloads[0].params["rate"]),
        ("fragmentation", "none", lambda s: s.state.fragmentation),
        ("unmovable_block_fraction", 0.5, lambda s: s.state.unmovable_block_fraction),
        ("workloads.0.params.rate", 4, lambda s: s.workloads[0].params["rate"]),
    ],
)
def test_a_bare_key_reaches_knobs_parameters_and_the_state(key, value, read):
    assert read(parse_scenario(KNOBS, "small.toml", {key: value})) == value


def test_a_bare_key_that_is_nowhere_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"--set client: no such parameter; did you mean 'clients'\?"):
        parse_scenario(KNOBS, "small.toml", {"client": 3})


@pytest.mark.parametrize(
    "text", ["workloads = 3", "workloads = [3]", "params = 3", "params = [3]", "knobs = 3", "state = 3"]
)
def test_overriding_a_malformed_file_still_names_the_fault(text):
    # A key before the first table belongs to the file's top.
    head = GOOD.split("\n[state]")[0]
    with pytest.raises(InputError) as fault:
        parse_scenario(f"{head}\n{text}\n", "small.toml", {"rate": 3, "fragmentation": "none", "count": 2})
    assert "small.toml" in str(fault.value) or "--set" in str(fault.value)


def test_a_knob_that_names_itself_does_not_hang():
    text = GOOD + '\n[knobs]\nrate = "rate"\nround = ["round"]\n'
    assert parse_scenario(text, "small.toml", {"rate": 2}).workloads[0].params["rate"] == 2
    with pytest.raises(InputError, match="knob 'round' stands for itself"):
        parse_scenario(text, "small.toml", {"round": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + f"nr_swap_pages = {'9' * 5000}\n", "not TOML that can be read"),
        ("a = " + "[" * 500 + "]" * 500, "not TOML that can be read"),
        (
            GOOD.replace("page_cache_pages = 10", "page_cache_pages = 10000000000000000000000"),
            "less than or equal",
        ),
        (GOOD + '\n[knobs]\nclients = ""\n', r"knobs\.clients: it stands for nothing"),
        (GOOD + "\n[knobs]\nclients = []\n", r"knobs\.clients: it stands for nothing"),
        (GOOD + '\n[knobs]\nduration = "workloads.0.count"\n', r"knobs\.duration: the scenario has a key"),
        ('duration = "999999999999min"\n' + GOOD, "too long; a run lasts 1440min"),
    ],
)
def test_what_would_break_a_reader_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_scenario(text, "small.toml")


def test_two_knobs_that_stand_for_each_other_do_not_hang():
    text = GOOD + '\n[knobs]\na = "b"\nb = "a"\n'
    with pytest.raises(InputError, match="knob 'a' stands for itself"):
        parse_scenario(text, "small.toml", {"a": 3})


@pytest.mark.parametrize("text", ["v=" + "9" * 5000, "v=" + "[" * 500])
def test_a_setting_that_would_break_a_reader_is_refused(text):
    with pytest.raises(InputError, match="--set v: cannot be read"):
        parse_set(text)
