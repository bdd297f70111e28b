"""What becomes of the hint's gain when each parameter that no source gives is halved or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mmfw.results import RunDirectory
from mmfw.scenario import parse_duration
from verdict.evidence import Estimate, Evidence, NotRun, gained
from verdict.studies import Sensitivity, Varied, load_studies, varied

HINT: Final = "opportunistic-compaction"
#: How many times mainline's the hint's frame rate is to be, as P1 has it.
FIVEFOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One variation.

    Attributes
    ----------
    varied : Varied
        What was varied.
    base : Estimate or None
        Mainline's figure; None where it did not run.
    ratios : dict of str to Estimate
        Multiples of it, by policy.
    why : str
        Why it did not run; empty if it did.
    changes : bool
        Whether any run is another than without the variation.
    """

    varied: Varied
    base: Estimate | None
    ratios: dict[str, Estimate]
    why: str
    changes: bool

    @property
    def name(self) -> str:
        """For a sentence."""
        parameter = self.varied.parameter.partition(" (")[0].partition(":")[0]
        return f"{parameter} {self.varied.value}"

    @property
    def holds(self) -> bool:
        """Whether the hint's gain is fivefold or more, as far as its interval tells."""
        return HINT in self.ratios and self.ratios[HINT].low >= FIVEFOLD


def sensitivity_rows(evidence: Evidence, section: Sensitivity) -> Iterator[Row]:
    """All variations, the unvaried one first."""
    end = parse_duration(section.duration) / 1e9

    def read(run: RunDirectory) -> float:
        return gained(run, section.metric, section.from_seconds, end)

    plain: dict[tuple[str, int], str] | None = None
    for each in varied(section):
        name = each.spec.name
        try:
            digests = evidence.digests(name)
            base = evidence.of_runs(name, read)
            ratios = {policy: evidence.ratio_of_runs(name, read, policy) for policy in section.policies}
        except NotRun as fault:
            yield Row(each, None, {}, str(fault), changes=False)
            continue
        plain = digests if plain is None else plain
        yield Row(each, base, ratios, "", changes=digests != plain)


def conclusion(rows: list[Row]) -> str:
    """In how many variations the hint's gain is fivefold, and what it is in the others; empty if none ran."""
    changed = [row for row in rows if row.changes]
    if not changed:
        return ""
    below = [f"{row.name} ({row.ratios[HINT]} times)" for row in changed if not row.holds]
    same = [row.name for row in rows[1:] if row.base is not None and not row.changes]
    failed = [row.name for row in rows if row.base is None]
    text = (
        f"Of {len(changed)} variations that change the runs, the hint's interval lies above {FIVEFOLD} times mainline in "
        f"{len(changed) - len(below)}. Not with {'; '.join(below) or 'none'}."
    )
    text += f" The very runs of none: {', '.join(same)}." if same else ""
    return text + (f" Could not run: {', '.join(failed)}." if failed else "")


def hint_varied(evidence: Evidence) -> str:
    """`conclusion`, for P1."""
    found = conclusion(list(sensitivity_rows(evidence, load_studies().sensitivity)))
    if not found:
        raise NotRun("no parameter was varied")
    return f"{found} The table is at the end."
