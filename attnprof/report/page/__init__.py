"""Report -> one HTML file that needs nothing else: summary, tables, charts, notes, and the data itself.

It opens from a disk or a CI artifact without a network, and its Content-Security-Policy forbids any address. Tables are plain
HTML and read without a script; the script sorts and filters them and draws the charts, light or dark as the system asks.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from attnprof.errors import UsageError
from attnprof.plain import printable
from attnprof.report.charts import Canvas, Chart, charts_of, panels_of, spec_of
from attnprof.report.charts.axes import config
from attnprof.report.json import data
from attnprof.report.page.packed import packed
from attnprof.report.page.paper import printed
from attnprof.report.page.parts import crosschecks, glance, surroundings, tables_of, texts_of
from attnprof.report.page.summary import facts, failures, sentences
from attnprof.report.table import Report
from attnprof.report.text import clean

_HERE = Path(__file__).parent
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Liberation Sans, sans-serif"
_CANVAS = Canvas(340, 270, 12, columns=1, interactive=True)
_THEMES = {
    "light": Canvas(340, 270, 12, paper="#ffffff", ink="#1b1b1b", faint="#e4e4e4"),
    "dark": Canvas(340, 270, 12, paper="#181b20", ink="#e6e6e6", faint="#363c46"),
}


def render(report: Report) -> str:
    """The whole report as HTML. Raises UsageError where altair or vl-convert is not installed."""
    import jinja2

    charts, reasons = charts_of(report, every_size=True)
    groups, specs = _drawn(charts)
    shared, panels = packed(specs)
    themes = {name: config(canvas, _FONT) for name, canvas in _THEMES.items()}
    tables, best = tables_of(report), glance(report)
    style = _text("page.css") + printed(texts_of(tables, best))
    script, bundle = _text("page.js"), _bundle()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("page.html.j2")).render(
        name=clean(report.name),
        policy=_policy(scripts=(bundle, script), style=style),
        style=style,
        facts=facts(report),
        glance=best,
        sentences=sentences(report),
        failures=failures(report),
        tables=tables,
        crosschecks=crosschecks(report),
        groups=groups,
        reasons=reasons,
        notes=report.notes,
        surroundings=surroundings(report),
        charts_json=_embedded({"specs": shared, "panels": panels, "themes": themes}),
        data_json=_embedded(data(report.records, report.name)),
        bundle=bundle,
        script=script,
    )


def _shown(value: Any) -> Any:
    """What the template prints: text that is not the page's own (safe) obeys nobody either."""
    return printable(value) if type(value) is str else value


def _drawn(charts: list[Chart]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Charts of one key together, the largest size first, as the template wants them; and the specs of all their panels."""
    groups: dict[str, dict[str, Any]] = {}
    specs: list[dict[str, Any]] = []
    for chart in charts:
        panels = []
        for panel in panels_of(chart, _CANVAS):
            spec = spec_of(panel, _CANVAS, _FONT)
            del spec["config"]  # the page has one for each theme
            panels.append({"title": panel.title, "said": panel.said, "number": len(specs)})
            specs.append(spec)
        variant = {"size": chart.size, "caption": chart.caption, "panels": panels, "facts": chart.facts}
        words = {"key": chart.key, "title": chart.title, "choice": chart.choice, "facts_head": chart.facts_head}
        group = groups.setdefault(chart.key, {**words, "variants": []})
        group["variants"].append(variant)
    return list(groups.values()), specs


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script."""
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError("the page needs vl-convert: pip install 'attnprof[plots]'.") from error
    found: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "\r" in found or "</script" in found.lower() or "<!--" in found:
        raise UsageError("this vl-convert's script cannot stand in a page: pip install --upgrade 'attnprof[plots]'.")
    return found


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _embedded(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or opens a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _policy(scripts: tuple[str, ...], style: str) -> str:
    """The policy: nothing from any address, no other script and no other style sheet than those of the page."""
    allowed = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
