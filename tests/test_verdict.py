"""What docs/verdict.md rests on: nothing it may not be tuned by has changed, and intervals say what they may."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from verdict import frozen, sources
from verdict.arithmetic import objects_asked_for
from verdict.check import find_check
from verdict.claim import Claim, Part, find
from verdict.evidence import Estimate, Evidence, NotRun, gained, number, quotient
from verdict.page import _effect_words, _made_with, _others, _same_results, _split_by_seed, page
from verdict.predictions import ALONE, PLAIN, PREDICTIONS, SCAN
from verdict.sensitivity import conclusion, sensitivity_rows
from verdict.statements import STATEMENTS
from verdict.studies import load_studies, request_of, varied

from mmfw.compare.model import Cell, Comparison, RunReference, Study, StudyPolicy, StudyScenario, VsMainline
from mmfw.costs import describe
from mmfw.results import Recording, read_run
from mmfw.results.manifest import Distribution, core_digest
from mmfw.run import RunRequest, run

CLAIMS = (*PREDICTIONS, *STATEMENTS)
SEEDS = (0, 1, 2, 3, 4)
SCENARIO = StudyScenario(
    name="s", source="s", sha256="", kernel="7.1", costs="default", costs_sha256="", description="", metrics=("x",),
    primary=("x",),
)  # fmt: skip


def write_study(
    folder: Path,
    name: str,
    figures: dict[str, dict[str, list[float]]],
    *,
    one_result: bool = False,
    digest: str = "",
    core: str = "",
) -> None:
    """A study's ``compare.json`` with figures of policies, seed by seed; a difference of 1 matters."""
    against = VsMainline(
        median_difference=0, ci=None, level=None, ratio=None, ratio_ci=None, nr_pairs=5, least_difference=1
    )
    cells = [
        Cell(
            scenario="s", policy=policy, metric=metric, unit="1", better="lower", description="", primary=False,
            seeds=SEEDS, values=tuple(values), median=None, ci=None, level=None, verdict=None,
            vs_mainline=None if policy == "mainline" else against,
        )
        for policy, row in figures.items()
        for metric, values in row.items()
    ]  # fmt: skip
    runs = [
        RunReference(
            scenario="s",
            policy=policy,
            seed=seed,
            path="",
            digest=f"{digest}{policy} {0 if one_result else seed}",
        )
        for policy in figures
        for seed in SEEDS
    ]
    study = Study(
        format=1, command=(), scenarios=(SCENARIO,), policies=tuple(
            StudyPolicy(name=policy, policies=policy, description="") for policy in figures
        ), seeds=SEEDS, short=False, duration=None, kernel=None,
        overrides={}, mmfw="", python="", numpy="", numba="", scipy="",
        distributions={"mmfw": Distribution(version="1", sha256=core)} if core else {},
    )  # fmt: skip
    found = Comparison(
        format=1, study=study, method="", cells=tuple(cells), applicability=(), runs=tuple(runs), missing=()
    )
    (folder / name).mkdir()
    (folder / name / "compare.json").write_text(found.model_dump_json())


def around(value: float) -> list[float]:
    return [value - 2, value - 1, value, value + 1, value + 2]


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


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        (("confirmed", "refuted"), "confirmed in part"),
        (("undecided", "refuted"), "refuted in part"),
        (("refuted", "refuted"), "refuted"),
        (("confirmed", "confirmed"), "confirmed"),
    ],
)
def test_of_alternatives_one_is_enough(tmp_path, outcomes, whole):
    claim = replace(claim_of(*outcomes), alternatives=True)
    assert find(claim, Evidence(tmp_path)).outcome == whole
    assert next(each for each in PREDICTIONS if each.alternatives).name == "P8"


def test_what_some_seeds_do_and_others_do_not_is_said(tmp_path):
    write_study(
        tmp_path,
        "loop",
        {"mainline": {"xe_bo_evictions": around(9)}, "p": {"xe_bo_evictions": [0, 7, 0, 0, 6]}},
    )
    evidence = Evidence(tmp_path)
    assert list(_split_by_seed(evidence, "loop", ["mainline", "p"])) == [
        "- p: 3 of 5 seeds evict nothing, the others 6 to 7 objects."
    ]
    assert not _same_results(evidence, "loop", "mainline", "p")
    assert _same_results(evidence, "loop", "p", "p")


def test_a_claim_without_its_studies_has_no_verdict(tmp_path):
    assert find(claim_of("confirmed", missing=True), Evidence(tmp_path)).outcome == "not run"
    text = page(load_studies(), tmp_path)
    assert text.count("**not run**") == len(CLAIMS)
    assert text.count("Beside it: nothing yet, for study scan-alone has not been made.") == 2  # P7, S5


def test_a_study_whose_runs_failed_says_so_however_often_it_is_asked(tmp_path):
    write_study(tmp_path, "vary-nr_swap_pages-524288", {"mainline": {"x": around(1)}})
    file = tmp_path / "vary-nr_swap_pages-524288" / "compare.json"
    document = json.loads(file.read_text())
    document["runs"] = []
    document["missing"] = [
        {
            "scenario": "s",
            "policy": "mainline",
            "seed": 0,
            "error": "raise nr_swap_pages",
            "command": "mmfw run s",
        }
    ]
    file.write_text(json.dumps(document))
    evidence = Evidence(tmp_path)
    for _ in range(2):
        with pytest.raises(
            NotRun, match=r"1 runs of study .* failed, the first \(seed 0\) since raise nr_swap_pages"
        ):
            evidence.comparison("vary-nr_swap_pages-524288")
    assert (
        page(load_studies(), tmp_path).count("since raise nr_swap_pages") == 2
    )  # the parameter, the command


def test_a_fruitless_walk_asks_for_four_times_the_objects_over_seeks():
    assert objects_asked_for(2) == pytest.approx(2, rel=0.001)
    assert objects_asked_for(1) == pytest.approx(4, rel=0.001)


def test_figures_are_printed_with_three_digits():
    assert [number(v) for v in (0.12345, 12345.6, 3.0, -0.5)] == ["0.123", "12,346", "3", "-0.5"]


def self_loop(folder: Path, by_compaction: float):
    loop = {
        "mainline": {"xe_bo_evictions": around(12_000)},
        PLAIN: {"xe_bo_evictions": around(11_000), "xe_bo_evictions_compaction": around(by_compaction)},
        SCAN: {"xe_bo_evictions_compaction": [0] * 5},
    }
    write_study(folder, "loop", loop)
    return find(next(claim for claim in CLAIMS if claim.name == "S5"), Evidence(folder))


@pytest.mark.parametrize(("by_compaction", "outcome"), [(2200, "refuted in part"), (7000, "confirmed")])
def test_what_kswapd_evicts_is_not_compaction_s_doing(tmp_path, by_compaction, outcome):
    finding = self_loop(tmp_path, by_compaction)
    assert (finding.outcome, finding.mark) == (outcome, "\\*")
    assert "shrink_slab runs beside the scans" in finding.claim.less


@pytest.mark.parametrize(
    ("evictions", "by_compaction", "frames", "says"),
    [
        (7000, 6000, 300, "keep the loop going"),
        (3000, 2000, 500, "of its evictions they make 0.25"),
        (3000, 2000, 1000, "but no frames that matter"),
        (3000, 0, 1000, "take nothing"),
    ],
)
def test_scan_alone_is_told_in_words_when_it_is_there(tmp_path, evictions, by_compaction, frames, says):
    none = [0.0] * 5
    study = {
        "mainline": {"xe_bo_evictions": around(12_000), "working_set_loss_pages": around(1000)},
        "elide-and-scan": {
            "xe_bo_evictions": around(3000), "xe_bo_evictions_compaction": none, "xe_frames": around(1000),
        },
        ALONE: {
            "xe_bo_evictions": around(evictions),
            "xe_bo_evictions_compaction": around(by_compaction) if by_compaction else none,
            "xe_frames": around(frames), "working_set_loss_pages": around(700),
        },
    }  # fmt: skip
    write_study(tmp_path, "scan-alone", study)
    for name in ("P7", "S5"):
        beside = next(claim for claim in CLAIMS if claim.name == name).beside
        assert beside is not None
        assert says in beside(Evidence(tmp_path))


def test_seeds_that_gave_one_result_have_no_interval_on_the_page(tmp_path):
    figures = {"mainline": {"x": [2.0] * 5}, "p": {"x": [1.0] * 5}}
    write_study(tmp_path, "one", figures, one_result=True)
    write_study(tmp_path, "five", figures)
    evidence = Evidence(tmp_path)
    assert str(evidence.figure("one", "x")) == "2 (5 seeds, one distinct result)"
    assert str(evidence.ratio("one", "x", "p")) == "0.5 (5 seeds, one distinct result)"
    assert str(evidence.difference("five", "x", "p")) == "-1 [-1, -1]"


def test_studies_of_two_kernels_are_held_against_each_other_seed_by_seed(tmp_path, monkeypatch):
    """Seeds differ by far more than kernels do: in every one the figure falls to a tenth."""
    values = {"old": [10.0, 20.0, 100.0, 200.0, 1000.0], "new": [1.0, 2.0, 10.0, 20.0, 100.0]}
    for name, row in values.items():
        write_study(tmp_path, name, {"mainline": {"x": row}})
    evidence = Evidence(tmp_path)
    monkeypatch.setattr(evidence, "runs", lambda study: values[study])
    share = evidence.ratio_of_studies("new", "old", float)
    assert (share.low, share.median, share.high) == (0.1, 0.1, 0.1)
    assert (
        evidence.estimate(values["new"], "new").at_most(0.1 * evidence.estimate(values["old"], "").low)
        == "undecided"
    )


@pytest.mark.parametrize(("value", "base", "found"), [(3, 2, 1.5), (0, 0, 1), (3, 0, 3), (0, 2, 0)])
def test_a_figure_as_a_multiple_of_another(value, base, found):
    assert quotient(value, base) == found


def test_only_variations_that_change_the_runs_count(tmp_path, monkeypatch):
    """Unvaried, one the same, one that loses the gain, one that keeps it, and the rest not run."""
    section = load_studies().sensitivity
    names = [each.spec.name for each in varied(section)]

    def study(name: str, hint: float, digest: str) -> None:
        figures = {"mainline": {"x": around(10)}, **{p: {"x": around(10 * hint)} for p in section.policies}}
        write_study(tmp_path, name, figures, digest=digest)

    for name, hint, digest in (
        (names[0], 8, "a"),
        (names[1], 8, "a"),
        (names[2], 2, "b"),
        (names[3], 9, "c"),
    ):
        study(name, hint, digest)
    evidence = Evidence(tmp_path)
    monkeypatch.setattr(evidence, "of_runs", lambda study, read: evidence.figure(study, "x"))
    monkeypatch.setattr(
        evidence, "ratio_of_runs", lambda study, read, policy: evidence.ratio(study, "x", policy)
    )
    rows = list(sensitivity_rows(evidence, section))
    assert [(row.changes, row.holds) for row in rows[:4]] == [
        (False, True),
        (False, True),
        (True, False),
        (True, True),
    ]
    said = conclusion(rows)
    assert said.startswith(
        "Of 2 variations that change the runs, the hint's interval lies above 5 times mainline in 1."
    )
    assert f"The very runs of none: {rows[1].name}." in said
    assert f"Could not run: {rows[4].name}" in said
    assert conclusion(rows[:2]) == ""


def test_a_check_counts_runs_that_gave_another_digest(tmp_path, monkeypatch):
    studies = load_studies()
    monkeypatch.setattr(sources, "commits", lambda: {"abc": "0123456789ab"})
    figures = {"mainline": {"x": around(10)}, "p": {"x": around(20)}}
    assert find_check(studies, tmp_path) is None
    write_study(tmp_path, "pair", figures)
    assert find_check(studies, tmp_path) is None  # not run again
    (tmp_path / "check").mkdir()
    write_study(tmp_path / "check", "pair", figures, core="abc")
    found = find_check(studies, tmp_path)
    assert found is not None
    assert (found.nr_runs, found.others) == (10, ())
    assert "again with core of commit 0123456789ab: of 10 runs 10 gave" in str(found)
    shutil.rmtree(tmp_path / "check" / "pair")
    write_study(tmp_path / "check", "pair", figures, digest="other", core="abd")
    found = find_check(studies, tmp_path)
    assert found is not None
    assert (found.nr_runs, set(found.others)) == (10, {"pair with mainline", "pair with p"})
    assert "again with core of sources abd: of 10 runs 0 gave the digest" in str(found)
    # A figure of each policy, and five seeds: of a sixth's, four in six are expected between the least and the greatest.
    assert (found.figures.nr, found.figures.nr_within) == (2, 2)
    assert found.figures.expected == pytest.approx(2 * 4 / 6)
    shutil.rmtree(tmp_path / "check" / "pair")
    far = {"mainline": {"x": around(10)}, "p": {"x": around(90)}}
    write_study(tmp_path / "check", "pair", far, digest="other", core="abd")
    found = find_check(studies, tmp_path)
    assert found is not None
    assert "Of the rest, 1 of their 2 figures lie between" in str(found)
    write_study(tmp_path, "copy", figures)
    write_study(tmp_path / "check", "copy", figures, core="abc")
    assert find_check(studies, tmp_path) is None  # one by this core, one by that


def test_a_stopgap_that_changes_less_than_what_matters_neither_helps_nor_hurts():
    def says(middle: float, low: float, high: float) -> str:
        return _effect_words(Estimate(middle, low, high, 10))

    assert says(1.002, 1.001, 1.003).startswith("changes the frame rate by less than 1%")
    assert says(1, 1, 1).startswith("changes the frame rate by less than 1%")
    assert (says(1.1, 1.02, 1.2), says(0.9, 0.8, 0.98)) == ("helps", "hurts")
    assert (
        says(1.005, 1.001, 1.3)
        == says(1.1, 0.9, 1.2)
        == "is undecided: these seeds cannot tell whether it helps or hurts"
    )


def test_scenarios_that_no_claim_rests_on_are_shown_with_their_verdicts(tmp_path):
    figures = {
        "mainline": {"x": [2.0] * 5, "success_ratio_order_9": around(10)},
        "p": {"x": [1.0] * 5, "success_ratio_order_9": around(20)},
        "q": {"x": [2.0] * 5, "success_ratio_order_9": [5.0, 6.0, 10.0, 12.0, 20.0]},
    }
    write_study(tmp_path, "ping-pong", figures, one_result=True)
    text = _others(Evidence(tmp_path))
    one = "(5 seeds, one distinct result)"
    assert f"| ping-pong | p | x | 1 {one} | 2 {one} | -1 {one} | better |" in text
    assert f"| ping-pong | q | x | 2 {one} | 2 {one} | 0 {one} | no difference |" in text
    (wide,) = [line for line in text.splitlines() if line.startswith("| ping-pong | q | success")]
    assert wide.endswith("| undecided |")  # from 3 fewer to 8 more
    assert "| ping-pong | p | success_ratio_order_9 | 20" in text
    assert "| ping-pong | p | working_set_loss_pages | nothing to measure | | | |" in text
    assert "| thp | study thp has not been made |" in text


def test_the_page_says_what_its_runs_were_made_with_and_when_that_has_changed(tmp_path, monkeypatch):
    commits, made = sources.commits(), sources.installed()
    if not commits:
        pytest.skip("no history here")
    known = next(iter(commits))

    def head(core: str, **others: str) -> str:
        monkeypatch.setattr(sources, "installed", lambda: made | {"mmfw": known})
        write_study(tmp_path, "pair", {"mainline": {"x": around(1)}})
        file = tmp_path / "pair" / "compare.json"
        document = json.loads(file.read_text())
        found = {"mmfw": core, **others}
        document["study"]["distributions"] = {
            name: {"version": "1", "sha256": sha256} for name, sha256 in found.items()
        }
        file.write_text(json.dumps(document))
        text = _made_with(load_studies(), Evidence(tmp_path))
        shutil.rmtree(tmp_path / "pair")
        return text

    assert head(known).strip() == f"The runs were made with core of commit {commits[known]}."
    assert "which no commit has" in head("0" * 64)
    assert "**This page is older than the code**: the sources of mmfw have changed" in head("0" * 64)
    assert "the sources of mmfw-gone have changed" in head(known, **{"mmfw-gone": "1"})
    for name, core in (("loop", "a" * 64), ("copy", "b" * 64), ("thp", "a" * 64)):
        write_study(tmp_path, name, {"mainline": {"x": around(1)}}, core=core)
    said = _made_with(load_studies(), Evidence(tmp_path))
    assert (
        f"core of sources {'a' * 16}, which no commit has; those of copy with core of sources {'b' * 16}"
        in said
    )


def test_the_digest_of_a_commit_is_that_of_its_files(tmp_path):
    """The same sources in a history and on disk have one digest: that is how a page finds its commit."""
    package = tmp_path / "core" / "mmfw"
    for name in ("a.py", "a/b.py", "a-b.py", "cli/x.py", "run.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"# {name}\n")
    try:
        for words in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"],
        ):
            subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git here")
    (found,) = sources.commits(tmp_path)
    files = {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in package.rglob("*.py")
    }
    assert found == core_digest(files)
    assert found == core_digest({path: sha for path, sha in files.items() if not path.startswith("cli")})


def test_what_a_counter_gained_is_read_between_two_moments(tmp_path):
    pytest.importorskip("mmfw_probe")
    recording = Recording(samples=True, blocks=False, events=False)
    request = RunRequest(scenario="object-loop", duration="1500ms", out=tmp_path / "run", recording=recording)
    whole = run(request).metrics["probe_evictions"]
    made = read_run(tmp_path / "run")
    assert gained(made, "probe_evictions", 0, 1.5) == whole > 0
    late = gained(made, "probe_evictions", 1.2, 1.5)
    assert 0 < late < whole
    assert late + gained(made, "probe_evictions", 0, 1.2) == whole
    with pytest.raises(NotRun, match="has no samples of nothing"):
        gained(made, "nothing", 0, 1)


def test_costs_are_varied_once_each_and_only_where_no_source_gives_them():
    groups = load_studies().sensitivity.vary_costs
    costs = [cost for group in groups for cost in group.costs]
    assert len(costs) == len(set(costs))
    known = dict(describe("default"))
    unsourced = {cost for cost, figure in known.items() if figure.source.startswith("estimate")}
    # A switch costs what lmbench measured; swapping out goes with the device.
    assert set(costs) == unsourced - {"context_switch", "syscall"} | {"swap_out_page"}
    halved = next(
        each for each in varied(load_studies().sensitivity) if each.spec.name == "vary-costs-gpu-0.5"
    )
    assert halved.spec.overrides == {"cost_ns.bind_bo": 10_000, "cost_ns.gpu_job": 500_000}
