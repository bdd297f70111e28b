"""docs/verdict.md from the evidence."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mmfw.compare.statistics import METHOD, TOO_FEW
from mmfw.compare.threshold import LEAST_EFFECT, threshold_words
from mmfw.result import CORE_VALIDATED, NOT_MODELLED
from verdict import frozen, sources
from verdict.check import Check, find_check, specs_of
from verdict.claim import Claim, Finding, find
from verdict.evidence import MAINLINE, Estimate, Evidence, NotRun, number
from verdict.predictions import ELIDE, PREDICTIONS
from verdict.sensitivity import HINT, conclusion, sensitivity_rows
from verdict.statements import STATEMENTS
from verdict.studies import Studies

LOOP_FIGURES: Final = (
    ("xe_fps_median", "frames/s a tab"),
    ("xe_bo_evictions", "objects evicted"),
    ("working_set_loss_pages", "loss W, pages"),
    ("success_ratio_order_9", "success S, orders 9 and 10"),
    ("kswapd_busy_ratio", "kswapd busy"),
    ("nr_free_pages_median", "free pages"),
    ("free_blocks_order_9", "free blocks of 2 MiB (DMA's 7 included)"),
)

#: Studies that no claim rests on, and what is shown of them besides what decides.
OTHERS: Final = ("kvmalloc", "thp", "forty", "ping-pong")
ALWAYS: Final = ("success_ratio_order_9", "working_set_loss_pages")


GLOSSARY: Final = (
    "Names: *the hint* is opportunistic-compaction, *elision* elide-shrink-slab. compaction-scan-plain is compaction-scan with "
    "`distinguish=false`, chinner the three of elide-shrink-slab, compaction-scan and no-kswapd-kick, elide-and-scan the first two, "
    "stopgap-hint and stopgap-xe chinner with the hint or with xe-fragmentation-heuristic. *The control* is order0-pressure. Loss W is "
    "the size of what was evicted and needed again within 10 s, in pages; success S the share of requests for orders 9 and 10 that got their block, "
    "unfairness the largest quotient of a cache's share of the losses and of the memory held. P1 to P8 here are predictions, not the policies of those numbers."
)


def page(studies: Studies, folder: Path) -> str:
    """The whole page."""
    evidence = Evidence(folder)
    parts = [
        _head(studies, evidence, find_check(studies, folder)),
        _summary([*PREDICTIONS, *STATEMENTS], evidence),
        "## Predictions of the thread",
        *(_claim(find(claim, evidence), evidence) for claim in PREDICTIONS),
        "## Falsifiable statements",
        *(_claim(find(claim, evidence), evidence) for claim in STATEMENTS),
        _loop_table(
            evidence,
            "loop",
            "The loop under every policy",
            "Loss stands beside success: a policy under which requests fail sooner loses less. "
            "`ttm-beneficial-order` runs with `mode=noretry`.",
        ),
        _loop_table(
            evidence,
            "no-boost",
            "The loop with vm.watermark_boost_factor = 0",
            "Added once the study above had run. A fallback that takes a pageblock of another type raises the watermarks, which "
            "wakes kswapd at order 0; no policy touches that.",
        ),
        _loop_table(
            evidence,
            "scan-alone",
            "compaction-scan beside elision",
            "Added then, too: with shrink_slab elided, what evicts objects for high orders is compaction's own scans.",
        ),
        _others(evidence),
        _stopgaps(evidence),
        _sensitivity(studies, evidence),
        _repeat(studies, evidence),
    ]
    return "\n\n".join(parts) + "\n"


def _head(studies: Studies, evidence: Evidence, check: Check | None) -> str:
    changed = sorted({text for spec in studies.studies for text in _changed(evidence, spec.name)})
    state = (
        "Scenario files and cost table are as they were frozen before the first study (`verdict/frozen.toml`)."
        if not changed
        else f"**Changed since they were frozen**: {', '.join(changed)}."
    )
    return (
        "# Verdict\n\n"
        'What the thread on v6 of "mm, drm/ttm, drm/xe: Avoid reclaim/eviction loops under fragmentation" predicted, held against '
        "runs of this simulator. Written by `python -m verdict write`; do not edit.\n\n"
        f'Of core, {CORE_VALIDATED} (section "Why believe it"). What core of 7.1 and 7.2 does otherwise, and the drivers, are '
        "modelled after their sources and not validated; README lists what of later compaction is not there. Policies are "
        f"readings of what was said, see their READMEs. Not modelled: {'; '.join(NOT_MODELLED)}.\n\n{METHOD} "
        f"{threshold_words(LEAST_EFFECT)} Figures below are medians with that interval; a part is confirmed or refuted only if the whole "
        f"interval lies on one side of its threshold, which stood in `verdict/` before the studies, though single-seed runs of the loop under eight policies had been seen by then. The figures that S5, S6 and S10 are held "
        f"against, and the last part of P3, were made afterwards. {state}{_made_with(studies, evidence, check)}\n\n{GLOSSARY}"
    )


def _made_with(studies: Studies, evidence: Evidence, check: Check | None = None) -> str:
    """With which sources the runs were made, and whether the code has changed since; empty if there are none."""
    by_core: dict[str, list[str]] = {}
    older: dict[str, None] = {}
    for name in (spec.name for spec in specs_of(studies)):
        try:
            made_with = evidence.comparison(name).study.distributions
        except NotRun:
            continue
        if "mmfw" in made_with:
            by_core.setdefault(made_with["mmfw"].sha256, []).append(name)
            older |= dict.fromkeys(sources.changed_since(made_with, sources.installed()))
    if not by_core:
        return ""
    known = sources.commits()
    first, *rest = sorted(by_core.items(), key=lambda item: -len(item[1]))
    words = [_named(first[0], known)]
    words += [f"those of {', '.join(names)} with core of {_named(sha256, known)}" for sha256, names in rest]
    text = f"\n\nThe runs were made with core of {'; '.join(words)}."
    if older:
        text += f" **This page is older than the code**: the sources of {', '.join(sorted(older))} have changed since"
        text += f". {check}" if check is not None else ", and figures may have with them."
    return text


def _named(sha256: str, known: Mapping[str, str]) -> str:
    return f"commit {known[sha256]}" if sha256 in known else f"sources {sha256[:16]}, which no commit has"


def _changed(evidence: Evidence, study: str) -> list[str]:
    try:
        return frozen.changed(evidence.comparison(study).study.scenarios)
    except NotRun:
        return []


def _summary(claims: list[Claim], evidence: Evidence) -> str:
    rows = ["| | claim | verdict |", "|---|---|---|"]
    found = [find(claim, evidence) for claim in claims]
    rows += [f"| {each.claim.name} | {each.claim.text} | **{each.outcome}**{each.mark} |" for each in found]
    rows += [
        "",
        "A claim is confirmed if all its parts are, and refuted if all are; refuted in part if some are, and undecided otherwise. "
        "P8's parts are alternatives: it is confirmed in part if one is.",
    ]
    if any(each.mark for each in found):
        rows += ["", "\\* rests on less than the claim says; its section has what was not measured."]
    return "\n".join(rows)


def _claim(finding: Finding, evidence: Evidence) -> str:
    claim = finding.claim
    lines = [
        f"### {claim.name}: {finding.outcome}{finding.mark}",
        "",
        claim.text,
        "",
        "| it says | found | |",
        "|---|---|---|",
    ]
    lines += [f"| {part.says} | {part.figures} | {part.outcome} |" for part in finding.parts]
    if claim.less:
        lines += ["", f"Rests on less than it says: {claim.less}"]
    if claim.beside is not None:
        try:
            lines += ["", f"Beside it: {claim.beside(evidence)}"]
        except NotRun as fault:
            lines += ["", f"Beside it: nothing yet, for {fault}."]
    lines += ["", f"Could change it: {claim.limits}"]
    if claim.studies:
        lines += ["", f"Studies: {', '.join(claim.studies)}."]
    return "\n".join(lines)


def _loop_table(evidence: Evidence, study: str, title: str, text: str) -> str:
    lines = [
        f"## {title}",
        "",
        text,
        "",
        "| policy | " + " | ".join(name for _, name in LOOP_FIGURES) + " |",
        "|---" * (len(LOOP_FIGURES) + 1) + "|",
    ]
    try:
        names = [policy.name for policy in evidence.comparison(study).study.policies]
        for name in names:
            figures = [str(evidence.figure(study, metric, name)) for metric, _ in LOOP_FIGURES]
            lines.append(f"| {name} | {' | '.join(figures)} |")
        lines += ["", *_split_by_seed(evidence, study, names)]
    except NotRun as fault:
        lines.append(f"\nNot there: {fault}.")
    return "\n".join(lines).rstrip()


def _split_by_seed(evidence: Evidence, study: str, names: list[str]) -> Iterator[str]:
    """Says of which policies some seeds evict nothing and others do: a median does not tell that."""
    for name in names:
        values = [v for v in evidence.cell(study, name, "xe_bo_evictions").values if v is not None]
        some = sorted(v for v in values if v)
        if some and len(some) < len(values):
            yield (
                f"- {name}: {len(values) - len(some)} of {len(values)} seeds evict nothing, the others {number(some[0])} to "
                f"{number(some[-1])} objects."
            )


def _others(evidence: Evidence) -> str:
    """Figures of studies that no claim rests on, as `mmfw compare` judges them."""
    lines = [
        "## Scenarios that no claim rests on",
        "",
        f"What decides in each, success and loss, against mainline. {threshold_words(LEAST_EFFECT)}",
        "",
        "| study | policy | figure | median | mainline's | difference | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for study in OTHERS:
        try:
            lines += _rows(evidence, study)
        except NotRun as fault:
            lines.append(f"| {study} | {fault} | | | | | |")
    return "\n".join(lines)


def _rows(evidence: Evidence, study: str) -> Iterator[str]:
    comparison = evidence.comparison(study)
    names = dict.fromkeys((*comparison.study.scenarios[0].primary, *ALWAYS))
    for policy in (each.name for each in comparison.study.policies if each.name != MAINLINE):
        for name in names:
            try:
                own, base = evidence.figure(study, name, policy), evidence.figure(study, name)
                apart = evidence.difference(study, name, policy)
            except NotRun:
                # Such as the success of requests that nobody made.
                yield f"| {study} | {policy} | {name} | nothing to measure | | | |"
                continue
            verdict = evidence.verdict(study, name, policy) or TOO_FEW
            yield f"| {study} | {policy} | {name} | {own} | {base} | {apart} | {verdict} |"


def _stopgaps(evidence: Evidence) -> str:
    lines = [
        "## As a stopgap: the hint or a heuristic in the driver?",
        "",
        "Frames of all tabs in the loop, as multiples of mainline's, and what each does once chinner is there, the "
        "series that the thread asks for: elide-shrink-slab, compaction-scan and no-kswapd-kick together.",
        "",
        "| | frames | objects evicted | success S |",
        "|---|---|---|---|",
    ]

    def row(policy: str, base: str) -> str:
        frames, lost = (
            evidence.ratio("loop", metric, policy, base) for metric in ("xe_frames", "xe_bo_evictions")
        )
        success = evidence.difference("loop", "success_ratio_order_9", policy, base)
        return f"| {policy} against {base} | {frames} times | {lost} times | {success} |"

    try:
        for policy in (HINT, "xe-fragmentation-heuristic", "ttm-beneficial-order", "chinner"):
            lines.append(row(policy, MAINLINE))
        for policy in ("stopgap-hint", "stopgap-xe"):
            lines.append(row(policy, "chinner"))
        lines.append("")
        for policy, name in (("stopgap-hint", "The hint"), ("stopgap-xe", "Xe's heuristic")):
            frames = evidence.ratio("loop", "xe_frames", policy, "chinner")
            same = _same_results(evidence, "loop", policy, "chinner")
            says = (
                "gives the same result in every seed: it does nothing there"
                if same
                else _effect_words(frames)
            )
            lines.append(f"{name}, left in under chinner, {says}.")
        for study in ("copy", "dcache"):
            figure = "xe_bo_evicted_pages" if study == "copy" else "dcache_objects_freed"
            lines.append(
                f"In the study {study} the hint's loss is {evidence.ratio(study, figure, HINT)} of mainline's, elision's "
                f"{evidence.ratio(study, figure, ELIDE)}."
            )
    except NotRun as fault:
        lines.append(f"\nNot there: {fault}.")
    return "\n".join(lines)


def _same_results(evidence: Evidence, study: str, *policies: str) -> bool:
    """Whether policies' runs have one digest, seed by seed."""
    found: dict[int, set[str]] = {}
    for run in evidence.comparison(study).runs:
        if run.policy in policies:
            found.setdefault(run.seed, set()).add(run.digest)
    return all(len(digests) == 1 for digests in found.values())


def _effect_words(frames: Estimate) -> str:
    """What a ratio of frames says, with the threshold that `mmfw compare` has."""
    if frames.low > 1 - LEAST_EFFECT and frames.high < 1 + LEAST_EFFECT:
        return f"changes the frame rate by less than {LEAST_EFFECT * 100:g}%, which is no difference that matters"
    if frames.low > 1 and frames.median >= 1 + LEAST_EFFECT:
        return "helps"
    if frames.high < 1 and frames.median <= 1 - LEAST_EFFECT:
        return "hurts"
    return "is undecided: these seeds cannot tell whether it helps or hurts"


def _sensitivity(studies: Studies, evidence: Evidence) -> str:
    section = studies.sensitivity
    lines = [
        "## Parameters that no source gives",
        "",
        f"`{section.scenario}` for {section.duration}, {section.seeds} seeds, each such parameter halved and doubled where that "
        f"can run: `{section.metric}` from second {section.from_seconds:g} on, and as a multiple of mainline's. Before that all "
        "policies make their objects. Costs are varied in groups, and the profile's ns are in brackets. Not varied: the rows of "
        "/proc/buddyinfo.",
        "",
        "| parameter | value | mainline | " + " | ".join(section.policies) + " |",
        "|---" * (len(section.policies) + 3) + "|",
    ]
    rows = list(sensitivity_rows(evidence, section))
    for row in rows:
        about = f"| {row.varied.parameter} | {row.varied.value} |"
        if row.base is None:
            lines.append(f"{about} {row.why} |" + " |" * len(section.policies))
        else:
            lines.append(f"{about} {row.base} | {' | '.join(map(str, row.ratios.values()))} |")
    found = conclusion(rows)
    return "\n".join([*lines, "", found] if found else lines)


def _repeat(studies: Studies, evidence: Evidence) -> str:
    lines = [
        "## To repeat it",
        "",
        "    python -m verdict run --out DIR      # hours; goes on where it was stopped",
        "    python -m verdict write --out DIR    # this page",
        "    python -m verdict check --out DIR    # a seed of each study again: whether the installed code gives the same",
        "",
        "| study | command | kernel | scenario, sha256 | core's sources, sha256 | mainline's digest, seed 0 |",
        "|---|---|---|---|---|---|",
    ]
    lines += list(_commands(studies, evidence))
    return "\n".join(lines)


def _commands(studies: Studies, evidence: Evidence) -> Iterator[str]:
    for name in (spec.name for spec in specs_of(studies)):
        try:
            comparison = evidence.comparison(name)
        except NotRun as fault:
            yield f"| {name} | {fault} | | | | |"
            continue
        command = shlex.join(comparison.study.command).replace("|", "\\|")
        scenario = comparison.study.scenarios[0]
        digest = next(run.digest for run in comparison.runs if run.policy == MAINLINE)
        core = comparison.study.distributions["mmfw"].sha256
        kernel = comparison.study.kernel or scenario.kernel
        yield f"| {name} | `{command}` | {kernel} | {scenario.name} {scenario.sha256[:16]} | {core[:16]} | {digest[:16]} |"
