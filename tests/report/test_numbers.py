from __future__ import annotations

import pytest

from mmfw.report.numbers import show, show_interval, show_ratio, unit_of, unit_words

MINUS, TIMES_DASH = "\u2212", "\u2013"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "1", TIMES_DASH),
        (float("nan"), "1", TIMES_DASH),
        (float("inf"), "ns", TIMES_DASH),
        (0, "1", "0"),
        (0.0, "1", "0"),
        (716081, "pages", "716,081"),
        (1_234_567, "pages", "1.23M"),
        (999, "ns", "999 ns"),
        (325930, "ns", "326 µs"),
        (2_000_000_000, "ns", "2 s"),
        (0.00066225, "1", "0.00066"),
        (-0.125, "1", f"{MINUS}0.125"),
        (0.046, "1", "0.0460"),
        (1e-30, "1", "1.0e-30"),
    ],
)
def test_a_value_has_few_digits_and_its_scale(value: float | None, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_an_interval_has_one_scale_and_signs_where_they_tell() -> None:
    assert show_interval(-7e6, (-7.5e6, 2e5), "ns", plus=True) == f"{MINUS}7 [{MINUS}7.50, +0.200] ms"
    assert show_interval(0, (-1, 1), plus=True) == f"0 [{MINUS}1, +1]"
    assert show_interval(5, (5, 5)) == "5 [5, 5]"  # all seeds agree; no interval at all is something else
    assert show_interval(5, None) == "5"
    assert show_interval(None, (1, 2)) == TIMES_DASH


def test_a_ratio_that_is_not_1_does_not_read_as_1() -> None:
    assert show_ratio(0.0312, (0.03, 0.0444)) == "\u00d70.0312 [0.0300, 0.0444]"
    assert show_ratio(0.998, (0.9934, 0.99991)) == "\u00d70.9980 [0.9934, 0.9999]"
    assert show_ratio(1.5, None) == "\u00d71.50"
    assert show_ratio(1.0, (1.0, 1.0)) == "\u00d71 [1, 1]"
    assert show_ratio(1.004, (1.0, 1.2)) == "\u00d71.004 [1, 1.200]"
    assert show_ratio(1.000000001, None) == "\u00d71.000000"


def test_times_carry_their_own_unit() -> None:
    assert [unit_words(unit) for unit in ("ns", "1", "pages", "1/1000")] == ["time", "", "pages", "‰"]


def test_shares_are_in_percent_and_their_differences_in_points() -> None:
    share, points = unit_of("1", "share"), unit_of("1", "share", difference=True)
    assert show_interval(0.775, (0.75, 0.797), share) == "77.5 [75, 79.7]%"
    assert show_interval(-0.203, (-0.248, 0.1), points, plus=True) == f"{MINUS}20.3 [{MINUS}24.8, +10] pp"
    assert [show(value, share) for value in (0, 1, 0.29, 0.07, 0.000012)] == [
        "0%",
        "100%",
        "29%",
        "7%",
        "0.00120%",
    ]
    assert [unit_of(unit, kind) for unit, kind in (("1/1000", "share"), ("1", "ratio"), ("1", None))] == [
        "1/1000",
        "1",
        "1",
    ]
