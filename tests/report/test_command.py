from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mmfw.cli.report import report


def test_the_command_prints_where_the_page_is(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(run_folder)
    assert capsys.readouterr().out == f"{run_folder / 'report.html'}\n"


def test_the_command_is_among_the_others(
    mmfw_command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = mmfw_command("report", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "holds neither compare.json nor manifest.json" in done.stderr
