"""What a comparison left: ``compare.json``, and the runs behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from mmfw.compare.model import FORMAT, Comparison
from mmfw.errors import InputError
from mmfw.results import RunDirectory, read_run


@dataclass(frozen=True, slots=True)
class Study:
    """A comparison and where its runs are.

    Attributes
    ----------
    path : Path
        Its folder.
    comparison : Comparison
        Medians, intervals, verdicts, and what was asked for.
    places : dict of (str, str) to dict of int to str
        Run directories below the folder by scenario and policy, and by seed.
    """

    path: Path
    comparison: Comparison
    places: dict[tuple[str, str], dict[int, str]] = field(repr=False)

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of policies, mainline first."""
        return tuple(policy.name for policy in self.comparison.study.policies)

    def runs(self, scenario: str, policy: str) -> tuple[RunDirectory, ...]:
        """Runs of a policy in a scenario, seeds rising; those whose folder is gone are left out.

        Raises
        ------
        InputError
            One is damaged.
        """
        places = sorted(self.places.get((scenario, policy), {}).items())
        return tuple(read_run(self.path / place) for _, place in places if (self.path / place).exists())


def read_study(path: Path) -> Study:
    """Read what ``mmfw compare`` wrote.

    Raises
    ------
    InputError
        It is damaged, or of another version; names the file.
    """
    file = path / "compare.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("format") != FORMAT:
            raise InputError(
                f"format {document.get('format')!r:.40} of a comparison; this version reads {FORMAT}",
                file=str(file),
            )
        comparison = Comparison.model_validate(document)
    except OSError as fault:
        raise InputError(f"cannot be read: {fault.strerror}", file=str(file)) from None
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"damaged: {where}: {first['msg']}", file=str(file)) from None
    except (ValueError, RecursionError) as fault:
        raise InputError(f"damaged: {fault}", file=str(file)) from None
    if not comparison.study.policies or not comparison.study.scenarios:
        raise InputError("compares nothing", file=str(file))
    places: dict[tuple[str, str], dict[int, str]] = {}
    for run in comparison.runs:
        if Path(run.path).is_absolute() or ".." in Path(run.path).parts:
            raise InputError(f"damaged: run {run.path!r} is not in this folder", file=str(file))
        places.setdefault((run.scenario, run.policy), {})[run.seed] = run.path
    return Study(path, comparison, places)
