"""The file: templates, style, scripts and data in one, without anything to fetch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from mmfw.errors import InputError
from mmfw.results.extras import study_module
from mmfw.results.write import STAGE_SUFFIX

#: From many small blocks to few large ones; as in charts.js.
ORDER_COLOURS: Final = (
    "#5b2a86", "#5a4b9f", "#4c6aab", "#3f83ac", "#3b99a5", "#45ae98",
    "#63c084", "#8fcf6b", "#bfd95a", "#ecd94a", "#f59e2e",
)  # fmt: skip
_WHAT: Final = "mmfw report"


def json_for_html(document: Any) -> Any:
    """JSON that may stand in a script element: nothing in it can end the element.

    Returns
    -------
    markupsafe.Markup
        Text that the template writes as it is.
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return study_module("markupsafe", _WHAT).Markup(text.replace("<", "\\u003c"))


def _text_of(name: str) -> str:
    return (files("mmfw.report") / "templates" / name).read_text(encoding="utf-8")


def _plotly_js() -> str:
    script: str = study_module("plotly.offline", _WHAT).get_plotlyjs()
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _breakable(text: str, markup: Any) -> Any:
    """Text that may break behind an underscore or a plus, as names are long."""
    return markup("<wbr>").join(re.split(r"(?<=[_+])", text))


def render(template: str, context: Mapping[str, Any]) -> str:
    """The page as text.

    Parameters
    ----------
    template : str
        ``compare.html.j2`` or ``run.html.j2``.
    context : mapping
        What the template names. All text in it is escaped.

    Raises
    ------
    InputError
        A library of the extra ``study`` is missing.
    """
    jinja2 = study_module("jinja2", _WHAT)
    markup = study_module("markupsafe", _WHAT).Markup
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmfw.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = lambda text: _breakable(str(text), markup)
    own = {
        "css": markup(_text_of("report.css")),
        "plotly": markup(_plotly_js()),
        "charts_js": markup(_text_of("charts.js")),
        "page_js": markup(_text_of("page.js")),
        "order_colours": list(enumerate(ORDER_COLOURS)),
    }
    page: str = environment.get_template(template).render(**own, **context)
    return page


def write_page(file: Path, text: str) -> Path:
    """Write a file whole or not at all.

    Raises
    ------
    InputError
        It cannot be written.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}{STAGE_SUFFIX}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except OSError as fault:
        beside.unlink(missing_ok=True)
        raise InputError(f"cannot be written: {fault.strerror}", file=str(file)) from None
    return file
