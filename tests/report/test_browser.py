"""The pages in a real browser: they draw, complain of nothing, and run no script but their own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmfw.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
]


def opened(file: Path, anchor: str, profile: Path) -> tuple[str, str]:
    """The page as scripts left it, and what the browser's console said."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=4000", "--dump-dom",
            f"{file.as_uri()}{anchor}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )  # fmt: skip
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def test_a_run_is_drawn(run_folder: Path, tmp_path: Path) -> None:
    dom, console = opened(write_report(run_folder), "", tmp_path / "profile")
    assert console == ""
    assert len(re.findall(r'class="chart[^"]*js-plotly-plot', dom)) == 3


def test_a_cell_leads_to_its_figures(study_folder: Path, tmp_path: Path) -> None:
    dom, console = opened(write_report(study_folder), "#s0-p2", tmp_path / "profile")
    assert console == ""
    assert "owned" not in re.search(r"<title>(.*?)</title>", dom)[1]  # type: ignore[index]
    assert len(re.findall(r'class="chart[^"]*js-plotly-plot', dom)) == 3
    assert re.search(r"<span data-chosen[^>]*>p&lt;/script&gt;", dom)
