"""What difference is too small to matter, by the sort of figure."""

from __future__ import annotations

import pytest

from mmfw.compare import CompareRequest
from mmfw.compare.threshold import LEAST_EFFECT, least_difference, threshold_words


@pytest.mark.parametrize(
    ("kind", "unit", "baseline", "least"),
    [
        ("count", "pages", 100_000, 1000),
        ("count", "1", 100, 10),
        ("count", "1", 0, 10),
        ("failure", "1", 0, 0),
        ("failure", "1", 400, 4),
        ("share", "1", 0.002, 0.01),
        ("share", "1", 2.0, 0.02),
        ("share", "1/1000", 5, 10),
        ("share", "%", 50, 1),
        ("duration", "ns", -300, 3),
        ("rate", "1/s", 0, 0),
    ],
)
def test_the_smallest_difference_that_matters(kind: str, unit: str, baseline: float, least: float) -> None:
    assert least_difference(kind, unit, baseline, LEAST_EFFECT) == pytest.approx(least)  # type: ignore[arg-type]
    assert least_difference(kind, unit, baseline, 0) == 0  # type: ignore[arg-type]


def test_another_threshold_is_part_of_the_command_and_said(tmp_path) -> None:
    request = CompareRequest(("s",), ("p",), 5, tmp_path)
    assert "--least-effect" not in request.command()
    changed = CompareRequest(("s",), ("p",), 5, tmp_path, least_effect=0.05)
    assert changed.command()[-2:] == ("--least-effect", "0.05")
    exact = CompareRequest(("s",), ("p",), 5, tmp_path, least_effect=0.0123456789)
    assert exact.command()[-1] == "0.0123456789"
    assert "5% of mainline's median" in threshold_words(0.05)
    assert threshold_words(0) == "There is no threshold: the smallest difference matters."
