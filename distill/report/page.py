"""Puts the report together: ``report.html``, ``report.json`` and ``model_card.md``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.html.markup import Html, document, tag
from distill.html.style import CSS
from distill.html.tables import Section, data, decimals, milliseconds, si, size, times
from distill.report.agreement import agreement, benchmarks, costs, plots, subsets
from distill.report.content import build_content
from distill.report.examples import disagreement, distorted, maps
from distill.report.inputs import ReportInputs
from distill.report.leakage import overlap
from distill.report.model_card import Part, card, to_html, to_markdown
from distill.report.origins import provenance, repeat
from distill.report.regions import regions
from distill.report.training import fitting, training
from pseudo_labels.files import checksummed_json, explain_write_errors, write_atomic

_TILES: dict[str, Callable[[float], str]] = {
    "metric": decimals,
    "si": si,
    "size": size,
    "ms": milliseconds,
    "times": times,
}


@dataclass(frozen=True)
class ReportFiles:
    """Paths of the page, its JSON twin and the model card."""

    html: Path
    json: Path
    model_card: Path


def build_report(inputs: ReportInputs, out: Path) -> ReportFiles:
    """Write the page, its JSON twin and the model card into ``out``; equal inputs give equal bytes.

    The page needs nothing but itself: no script, no font, no address outside. Every number on it is a ``data`` element
    whose exact value is in the twin.

    Args:
        inputs: everything that the page shows.
        out: folder, made if needed; earlier files of the same names are replaced.

    Raises:
        PocketiqaError: the model was not evaluated.
        StorageFullError: the disk is full.
    """
    content = build_content(inputs)
    # Computed from the content itself, so that the page shows no number that the twin lacks.
    content["residuals"] = _residual_figures(content)
    parts = card(content)
    content["model_card"] = [{"title": part.title, "points": list(part.points)} for part in parts]
    page = render(content, inputs, parts)
    files = ReportFiles(out / "report.html", out / "report.json", out / "model_card.md")
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(files.html, page.encode())
    write_atomic(files.json, checksummed_json(content))
    write_atomic(files.model_card, to_markdown(content, parts).encode())
    return files


def _residual_figures(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Mean and spread of prediction minus target of every model."""
    targets, figures = np.array(content["points"]["targets"], np.float64), {}
    for name, scores in content["points"]["scores"].items():
        # float64, as a mean of many small differences loses digits in float32.
        known = np.array([np.nan if score is None else score for score in scores], np.float64)
        difference = (known - targets)[~np.isnan(known)]
        if len(difference):
            figures[name] = {"n": len(difference), "mean": float(difference.mean()), "std": float(difference.std())}
    return figures


def render(content: Mapping[str, Any], inputs: ReportInputs, parts: list[Part]) -> str:
    """The page as text."""
    card_note = tag("p", "The same text as ", tag("code", "model_card.md"), ".", class_="soft")
    sections = [
        agreement(content),
        subsets(content),
        benchmarks(content),
        costs(content),
        plots(content),
        training(content),
        fitting(content),
        disagreement(content, inputs),
        maps(content, inputs),
        regions(content, inputs),
        distorted(content, inputs),
        overlap(content, inputs),
        provenance(content),
        Section("card", "Model card", [card_note, to_html(parts)]),
        repeat(content),
    ]
    sections = [section for section in sections if section is not None]
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections]
    body = tag(
        "main",
        tag("p", "pocketiqa report", class_="kicker"),
        tag("h1", content["title"]),
        tag("p", content["headline"], class_="lead"),
        tag("dl", [_tile(tile) for tile in content["tiles"]], class_="tiles") if content["tiles"] else None,
        tag("nav", tag("ul", links), aria_label="Sections"),
        [section.html() for section in sections],
        tag("footer", "Every number on this page stands in ", tag("code", "report.json"), " with all its digits."),
    )
    return document(content["title"], body, CSS)


def _tile(tile: Mapping[str, Any]) -> Html:
    value = tag("dd", data(tile["value"], _TILES[tile["kind"]]))
    return tag("div", tag("dt", tile["label"]), value, tag("dd", tile["note"]) if tile["note"] else None)
