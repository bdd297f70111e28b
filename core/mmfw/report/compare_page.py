"""The page of a comparison: a matrix of verdicts, and a section for each scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmfw.policies import MAINLINE
from mmfw.report.repeat import study_repeat
from mmfw.report.sections import MatrixCell, Section
from mmfw.report.study import Study
from mmfw.report.verdicts import LEGEND, Head


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """A policy's row in the matrix, by scenario."""

    name: str
    description: str
    cells: list[MatrixCell]


def _lead(study: Study, sections: list[Section]) -> list[str]:
    asked = study.comparison.study
    what = [
        f"{asked.duration} of virtual time each" if asked.duration else "",
        "short durations" if asked.short else "",
    ]
    what += [f"kernel {asked.kernel}" if asked.kernel else ""]
    what += [f"{key}={value}" for key, value in asked.overrides.items()]
    said = [text for text in what if text]
    lead = [
        f"{_counted(len(asked.seeds), 'seed', 'seeds')}{'; ' if said else ''}{', '.join(said)}. "
        f"A policy's run of a seed is compared with {MAINLINE}'s run of the same seed.",
        f"{study.comparison.method}{_levels(study)}",
        "Read success (S) beside loss (W): a policy whose requests fail at once also loses less.",
    ]
    drawings = [section.drawing for section in sections]
    validated = dict.fromkeys(text for drawing in drawings for text in drawing.validated)
    not_modelled = dict.fromkeys(text for drawing in drawings for text in drawing.not_modelled)
    if validated:
        lead.append(f"What is validated: {'; '.join(validated)}.")
    if not_modelled:
        lead.append(f"Not modelled: {'; '.join(not_modelled)}.")
    return lead


def _levels(study: Study) -> str:
    """Levels that the intervals of differences have here."""
    versus = [cell.vs_mainline for cell in study.comparison.cells if cell.vs_mainline is not None]
    found = {each.nr_pairs: each.level for each in versus if each.level is not None}
    words = [f"{level * 100:.4g}% ({nr} pairs)" for nr, level in sorted(found.items())]
    return f" Levels here: {', '.join(words)}." if words else ""


def _counted(nr: int, one: str, many: str) -> str:
    return f"{nr} {one if nr == 1 else many}"


def _said(study: Study) -> list[str]:
    """What a reader must know before any verdict."""
    said = []
    if len(study.comparison.study.seeds) < 5:
        said.append("Fewer than 5 seeds ran, so there are medians and differences, but no verdicts.")
    missing = study.comparison.missing
    if missing:
        said.append(
            f"{_counted(len(missing), 'run', 'runs')} failed and {'is' if len(missing) == 1 else 'are'} missing from "
            "what follows; the table below “To repeat it” has each one's error and command."
        )
    return said


def compare_context(study: Study) -> dict[str, Any]:
    """What ``compare.html.j2`` names."""
    asked = study.comparison.study
    sections = [Section(study, nr, scenario) for nr, scenario in enumerate(asked.scenarios)]
    matrix = [
        MatrixRow(
            policy.name, policy.description, [section.matrix_cell(nr, policy.name) for section in sections]
        )
        for nr, policy in enumerate(asked.policies)
    ]
    glossary: dict[str, Head] = {}
    for section in sections:
        for head in (*section.main.heads, *section.rest.heads):
            glossary.setdefault(head.name, head)
    return {
        "title": f"{_counted(len(asked.policies) - 1, 'policy', 'policies')} against {MAINLINE} in "
        f"{_counted(len(asked.scenarios), 'scenario', 'scenarios')}",
        "lead": _lead(study, sections),
        "said": _said(study),
        "baseline": MAINLINE,
        "legend": LEGEND,
        "scenarios": sections,
        "matrix": matrix,
        "glossary": sorted(glossary.values(), key=lambda head: head.name),
        "repeat": study_repeat(study),
        "footer": "Written by mmfw report from the comparison's folder; the same folder gives the same bytes.",
    }
