from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmfw.compare.model import Comparison
from mmfw.errors import InputError
from mmfw.report import write_report
from report.conftest import HOSTILE, POLICIES, write_study


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        last = self.tags[-1] if self.tags else ("", {})
        if last[0] == "script" and self._open and self._open[-1] == "script":
            self.scripts.append((last[1], data))
        elif last[0] != "style":
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def values(self, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for _, attrs in self.tags if attribute in attrs]

    def nr(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def pages(run_folder: Path, study_folder: Path) -> list[Page]:
    return [Page(write_report(folder).read_text()) for folder in (run_folder, study_folder)]


def test_a_page_needs_nothing_from_elsewhere(pages: list[Page]) -> None:
    for page in pages:
        assert page.values("src") == []
        assert all(link.startswith("#") for link in page.values("href"))
        assert page.nr("link") == 0
        assert page.nr("script") == len(page.scripts) == 4


def test_every_anchor_has_a_place_and_every_table_a_caption(pages: list[Page]) -> None:
    for page in pages:
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        assert {link.removeprefix("#") for link in page.values("href")} <= set(ids)
        assert {ref for refs in page.values("aria-labelledby") for ref in refs.split()} <= set(ids)
        assert page.nr("caption") == page.nr("table")
        assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
        assert ("html", {"lang": "en"}) in page.tags
        assert any(attrs.get("name") == "viewport" for tag, attrs in page.tags if tag == "meta")


def test_names_of_plugins_are_text(pages: list[Page]) -> None:
    page = pages[1]
    assert HOSTILE in " ".join(page.text)
    assert not any(
        "title='owned'" in code for attrs, code in page.scripts if attrs.get("type") != "application/json"
    )
    data = json.loads(next(code for attrs, code in page.scripts if attrs.get("id") == "data-s0"))
    assert data["names"] == list(POLICIES)


def test_runs_that_policies_share_are_packed_once(pages: list[Page]) -> None:
    data = json.loads(next(code for attrs, code in pages[1].scripts if attrs.get("id") == "data-s0"))
    assert data["of"] == [0, 1, 1, None, 0]
    assert len(data["views"]) == 2


def test_what_failed_and_what_does_not_act_is_said(pages: list[Page]) -> None:
    text = " ".join(" ".join(pages[1].text).split())
    for said in (
        "1 run failed and is missing",
        "it broke",
        "failed with seed 3",
        "does not act here: idle acts only on nothing. Its figures",
        "No run to draw of: fails.",
        "no result",
        "success ✗ worse",
        "4 of 5 pairs",
        "Levels here: 87.5% (4 pairs), 93.75% (5 pairs).",
        "do_shrink_slab() exact against 6.1.192",
    ):
        assert said in text


def test_success_stands_beside_loss(study_folder: Path) -> None:
    text = write_report(study_folder).read_text()
    head = text[text.index('<table class="metrics">') :]
    assert head.index("success_") < head.index("working_") < head.index("free_<wbr>blocks")


def test_shares_are_in_percent_and_kinds_are_explained(pages: list[Page]) -> None:
    text = " ".join(" ".join(pages[1].text).split())
    assert "300 [100, 500]%" in text
    assert "\u2212300 [\u2212400, \u2212200] pp" in text
    assert "share: a part of a whole" in text


def test_seeds_that_gave_one_result_are_said_beside_the_verdict(made_run: Path, tmp_path: Path) -> None:
    def one_result(comparison: Comparison) -> Comparison:
        cells = []
        for cell in comparison.cells:
            against = cell.vs_mainline
            if against is not None and cell.primary:
                same = {"nr_results": 1, "ci": None, "level": None, "ratio_ci": None}
                cell = cell.model_copy(update={"vs_mainline": against.model_copy(update=same)})
            cells.append(cell)
        return comparison.model_copy(update={"cells": tuple(cells)})

    text = write_report(write_study(tmp_path / "study", made_run, one_result)).read_text()
    matrix, metrics = (text[text.index(f'<table class="{name}">') :] for name in ("matrix", "metrics"))
    for part in (matrix[: matrix.index("</table>")], metrics[: metrics.index("</table>")]):
        assert "5 seeds, one distinct result" in part
        assert "[\u22128" not in part


def test_the_same_folder_gives_the_same_bytes(run_folder: Path, study_folder: Path) -> None:
    for folder in (run_folder, study_folder):
        first = write_report(folder).read_bytes()
        assert write_report(folder).read_bytes() == first
        assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


def test_a_run_that_is_gone_leaves_the_tables(study_folder: Path) -> None:
    (study_folder / "runs" / "b").rename(study_folder / "elsewhere")
    text = write_report(study_folder).read_text()
    assert "No run to draw of: elide-shrink-slab, p&lt;/script&gt;" in text
    assert "✓ better" in text


def _shorten(folder: Path) -> None:
    whole = (folder / "compare.json").read_text()
    (folder / "compare.json").write_text(whole[: len(whole) // 2])


def _replace(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "compare.json"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_shorten, r"compare\.json: damaged"),
        (
            _replace('"verdict":"better"', '"verdict":"splendid"'),
            r"compare\.json: damaged: cells\.\d+\.verdict",
        ),
        (_replace("runs/b/seed-0", "../b/seed-0"), r"compare\.json: damaged: run '\.\./b/seed-0'"),
        (
            _replace('{"format":1,"study"', '{"format":2,"study"'),
            r"format 2 of a comparison; this version reads 1",
        ),
        (
            _replace('"least_effect":0.0', '"least_effect":1.0'),
            r"damaged: study\.least_effect: .* less than 1",
        ),
        (_replace('"least_effect":0.0', '"least_effect":NaN'), r"damaged: study\.least_effect: "),
        (lambda folder: (folder / "compare.json").write_text("[]"), r"compare\.json: damaged"),
        (lambda folder: (folder / "compare.json").write_bytes(b"\xff\xfe"), r"compare\.json: damaged"),
        (lambda folder: (folder / "runs/b/seed-0/metrics.json").write_text("{"), r"metrics\.json: damaged"),
        (
            lambda folder: (folder / "runs/b/seed-0/samples.parquet").write_text("x"),
            r"samples\.parquet: .*Parquet",
        ),
    ],
)
def test_damage_is_one_line_and_leaves_the_old_page(
    study_folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    page = study_folder / "report.html"
    page.write_text("old")
    damage(study_folder)
    with pytest.raises(InputError, match=said):
        write_report(study_folder)
    assert page.read_text() == "old"


def test_a_scenario_that_is_none_is_one_line(run_folder: Path) -> None:
    file = run_folder / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"scenario_toml": "metrics = 3"}))
    with pytest.raises(InputError, match=r"manifest\.json: damaged: scenario_toml is no scenario: .*metrics"):
        write_report(run_folder)


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither compare\.json nor manifest\.json"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "file")


def test_a_page_that_cannot_be_written_is_one_line(run_folder: Path) -> None:
    (run_folder / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html: cannot be written"):
        write_report(run_folder)
    assert not any(file.name.startswith(".") for file in run_folder.iterdir())
