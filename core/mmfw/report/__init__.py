"""The report: one HTML file without anything to fetch, of a comparison or of a single run.

Whatever is in the folder is read through `mmfw.results`; what a browser draws is thinned to what a screen shows
(`mmfw.report.view`). The same folder gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from mmfw.errors import InputError

__all__ = ["write_report"]


def write_report(out: Path) -> Path:
    """Write ``report.html`` into a folder.

    Parameters
    ----------
    out : Path
        What ``mmfw compare --out`` or ``mmfw run --out`` wrote.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        The folder is neither, or damaged, or a library is missing. What was there before is untouched.
    """
    from mmfw.report.compare_page import compare_context
    from mmfw.report.page import render, write_page
    from mmfw.report.run_page import run_context
    from mmfw.report.study import read_study
    from mmfw.results import read_run

    out = Path(out)
    if not out.is_dir():
        raise InputError("no such folder; mmfw compare --out or mmfw run --out writes one", file=str(out))
    if (out / "compare.json").exists():
        text = render("compare.html.j2", compare_context(read_study(out)))
    elif (out / "manifest.json").exists():
        text = render("run.html.j2", run_context(read_run(out)))
    else:
        raise InputError(
            "holds neither compare.json nor manifest.json; name what mmfw compare --out or mmfw run --out wrote",
            file=str(out),
        )
    return write_page(out / "report.html", text)
