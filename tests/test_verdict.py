"""What docs/verdict.md rests on: nothing it may not be tuned by has changed, and intervals say what they may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from verdict import frozen
from verdict.arithmetic import objects_asked_for
from verdict.claim import Claim, Part, find
from verdict.evidence import Estimate, Evidence, NotRun, number
from verdict.page import page
from verdict.predictions import PREDICTIONS
from verdict.statements import STATEMENTS
from verdict.studies import load_studies, request_of, varied

CLAIMS = (*PREDICTIONS, *STATEMENTS)


def test_scenario_files_and_cost_table_are_as_they_were_before_the_first_study():
    assert frozen.digests() == frozen.frozen()


def test_every_claim_rests_on_studies_that_there_are():
    studies = load_studies()
    names = [spec.name for spec in studies.studies] + [each.spec.name for each in varied(studies.sensitivity)]
    assert len(names) == len(set(names))
    assert {name for claim in CLAIMS for name in claim.studies} <= set(names)
    assert [claim.name for claim in CLAIMS] == [f"P{i}" for i in range(1, 9)] + [
        f"S{i}" for i in range(1, 11)
    ]


@pytest.mark.slow
def test_every_study_can_be_planned():
    from mmfw.compare.plan import make_plan
    from mmfw.scenario import load_scenario

    studies = load_studies()
    for spec in studies.studies:
        plan, remarks = make_plan(request_of(spec, 1, Path("unused"), 1))
        assert remarks == ()
        assert len(plan.runs) > 1
    for each in varied(studies.sensitivity):
        load_scenario(each.spec.scenario, each.spec.overrides)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "at_most", "within"),
    [
        (5.5, 6.0, "confirmed", "refuted", "confirmed"),
        (4.0, 6.0, "undecided", "undecided", "undecided"),
        (2.0, 3.0, "refuted", "confirmed", "refuted"),
        (4.0, 5.0, "undecided", "confirmed", "undecided"),
        (8.0, 9.0, "confirmed", "refuted", "refuted"),
    ],
)
def test_an_interval_on_both_sides_of_a_threshold_decides_nothing(low, high, at_least, at_most, within):
    found = Estimate((low + high) / 2, low, high, 10)
    assert (found.at_least(5), found.at_most(5), found.within(5, 7)) == (at_least, at_most, within)


def claim_of(*outcomes: str, missing: bool = False) -> Claim:
    def look(evidence: Evidence) -> Iterator[Part]:
        for outcome in outcomes:
            yield Part("it says", "a figure", outcome)  # type: ignore[arg-type]
        if missing:
            raise NotRun("study x has not been made")

    return Claim("P0", "text", (), look, "nothing")


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        (("confirmed", "confirmed"), "confirmed"),
        (("confirmed", "undecided"), "undecided"),
        (("confirmed", "refuted"), "refuted in part"),
        (("undecided", "refuted"), "refuted in part"),
        (("refuted", "refuted"), "refuted"),
    ],
)
def test_a_claim_holds_only_if_all_of_it_does(tmp_path, outcomes, whole):
    assert find(claim_of(*outcomes), Evidence(tmp_path)).outcome == whole


def test_a_claim_without_its_studies_has_no_verdict(tmp_path):
    assert find(claim_of("confirmed", missing=True), Evidence(tmp_path)).outcome == "not run"
    text = page(load_studies(), tmp_path)
    assert text.count("**not run**") == len(CLAIMS) - 1  # S10 is arithmetic


def test_a_fruitless_walk_asks_for_four_times_the_objects_over_seeks():
    assert objects_asked_for(2) == pytest.approx(2, rel=0.001)
    assert objects_asked_for(1) == pytest.approx(4, rel=0.001)


def test_figures_are_printed_with_three_digits():
    assert [number(v) for v in (0.12345, 12345.6, 3.0, -0.5)] == ["0.123", "12,346", "3", "-0.5"]
