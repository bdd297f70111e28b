"""A claim, its parts, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from verdict.evidence import Evidence, NotRun, Outcome


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a claim says, the figure that shows it, and what would: written before the runs."""

    says: str
    figures: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Claim:
    """What was predicted.

    Attributes
    ----------
    name : str
        ``P1`` to ``P8`` for predictions of the thread, ``S1`` to ``S10`` for falsifiable statements.
    text : str
        What it says.
    studies : tuple of str
        What it rests on.
    look : callable
        Yields the parts.
    limits : str
        What the model leaves out that could change it.
    less : str
        What its words say and no part of it measures; empty if each word is measured. An outcome is marked by it.
    alternatives : bool
        The parts are alternatives, of which one is enough: where some hold and others do not, the claim is confirmed in part.
    beside : callable, optional
        A paragraph on what another study, made later, says of it; no verdict hangs on it.
    """

    name: str
    text: str
    studies: tuple[str, ...]
    look: Callable[[Evidence], Iterator[Part]]
    limits: str
    less: str = ""
    alternatives: bool = False
    beside: Callable[[Evidence], str] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a claim."""

    claim: Claim
    outcome: str
    parts: tuple[Part, ...]

    @property
    def mark(self) -> str:
        """A star, for Markdown, if the outcome rests on less than the claim says; else empty."""
        return "\\*" if self.claim.less and self.outcome != "not run" else ""


def find(claim: Claim, evidence: Evidence) -> Finding:
    """Look at the evidence: all parts must hold, and one that does not refutes; of alternatives one is enough."""
    parts: list[Part] = []
    try:
        parts.extend(claim.look(evidence))
    except NotRun as fault:
        return Finding(claim, "not run", (*parts, Part("the rest", str(fault), "undecided")))
    outcomes = [part.outcome for part in parts]
    if all(outcome == "confirmed" for outcome in outcomes):
        return Finding(claim, "confirmed", tuple(parts))
    if "refuted" in outcomes:
        whole = all(outcome == "refuted" for outcome in outcomes)
        some = "confirmed in part" if claim.alternatives and "confirmed" in outcomes else "refuted in part"
        return Finding(claim, "refuted" if whole else some, tuple(parts))
    return Finding(claim, "undecided", tuple(parts))
