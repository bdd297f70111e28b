"""Digests of what a verdict must not be tuned by: scenario files and the cost table."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import tomli

from mmfw.compare.model import StudyScenario
from mmfw.costs import profile
from mmfw.results.manifest import sha256_costs, sha256_text
from mmfw.scenario import find_scenarios

FILE: Final = Path(__file__).with_name("frozen.toml")


def digests() -> dict[str, dict[str, str]]:
    """SHA-256 of every installed scenario and of the default cost table, as they are now."""
    scenarios = {name: sha256_text(found.text) for name, found in sorted(find_scenarios().items())}
    return {"scenarios": scenarios, "costs": {"default": sha256_costs(profile("default"))}}


def frozen() -> dict[str, dict[str, str]]:
    """Those of ``frozen.toml``."""
    return tomli.loads(FILE.read_text(encoding="utf-8"))


def write() -> None:
    """Freeze what is there now."""
    lines = [
        "# SHA-256 of the scenario files and of the cost table before the first study ran (python -m verdict freeze)."
    ]
    for section, found in digests().items():
        lines += ["", f"[{section}]", *(f'{name} = "{digest}"' for name, digest in found.items())]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def changed(scenarios: tuple[StudyScenario, ...]) -> list[str]:
    """What of a study is not as it was frozen."""
    was = frozen()
    found = [f"scenario {each.name}" for each in scenarios if was["scenarios"].get(each.name) != each.sha256]
    found += [
        f"cost table {each.costs}" for each in scenarios if was["costs"].get(each.costs) != each.costs_sha256
    ]
    return found
