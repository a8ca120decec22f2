"""The page: overview, every table with what it means, and the pictures at which models disagree."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from distill.html.figures import thumbnail
from distill.html.markup import Html, document, shortened, tag
from distill.html.plots import Span, intervals
from distill.html.style import CSS
from distill.html.tables import Section, decimals, soft, table
from distill.stress.photograph import Photograph, resized
from distill.trust.definitions import DEFINITIONS
from distill.trust.pictures import CLEAN, PhotographFile, picture
from distill.trust.tables import Sheet, sheets
from pseudo_labels.images import ImageError, load
from students.preprocess import Preprocess

_THUMBNAIL_PX = 480
_REDUCED = Preprocess(max_side=_THUMBNAIL_PX)
_COLOURS = {"onnx": "student", "student": "student", "teacher": "teacher"}
_JUDGED = ("d", "l", "p")


def page(
    result: Mapping[str, Any], photographs: Sequence[PhotographFile], rated_files: Mapping[str, str] | None = None
) -> str:
    """A page that needs nothing but itself.

    Args:
        result: figures, as ``run.trust`` makes them.
        photographs: the photographs of the tests, for pictures.
        rated_files: path of each rated photograph by id, for pictures of the clusters.
    """
    models = result["models"]
    sections = [_section(sheet, result) for sheet in sheets(result)]
    if result["gmad"]:
        sections.append(_disagreements(result["gmad"], photographs))
    if result["ratings"] is not None and result["ratings"]["clusters"]:
        sections.append(_clusters(result["ratings"]["clusters"], rated_files or {}))
    names = ", ".join(model["name"] for model in models)
    body = tag(
        "main",
        tag("p", "pocketiqa trust", class_="kicker"),
        tag("h1", names),
        tag("p", "What their scores are worth, tested without people.", class_="lead"),
        [section.html() for section in sections],
        tag("footer", _footer(result)),
    )
    return document(f"Trust: {names}", body, CSS)


def _section(sheet: Sheet, result: Mapping[str, Any]) -> Section:
    meanings = [_meaning(name) for name in sheet.about]
    charts = None
    if sheet.title == "Overview" and "d" in sheet.about:
        charts = tag("div", [_chart(name, result["models"]) for name in _JUDGED], class_="charts")
    # Of one table, its meaning is read first; of the overview's ten, on demand.
    told = tag("details", tag("summary", "What each of them means"), meanings) if len(meanings) > 1 else meanings
    parts = [table(sheet.header, sheet.rows, caption=sheet.caption)]
    return Section(_anchor(sheet.title), sheet.title, [charts, *parts, told] if len(meanings) > 1 else [told, *parts])


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def _meaning(name: str) -> Html:
    definition = DEFINITIONS[name]
    source = f" ({definition.source})" if definition.source else ""
    return soft(tag("b", f"{definition.title}. "), definition.meaning, source)


def _chart(name: str, models: Sequence[Mapping[str, Any]]) -> Html:
    spans = [
        Span(model["name"], _COLOURS[model["kind"]], model[name]["value"], model[name]["low"], model[name]["high"])
        for model in models
        if model[name]["value"] is not None
    ]
    title = DEFINITIONS[name].title
    asked = f", at least {DEFINITIONS[name].least:g} is asked"
    drawn = intervals(spans, x_label=title, title=title) if spans else soft("no figure")
    return tag("figure", drawn, tag("figcaption", tag("b", title), asked))


def _disagreements(pairs: Sequence[Mapping[str, Any]], photographs: Sequence[PhotographFile]) -> Section:
    # A photograph is decoded once, however many of its copies are shown; thumbnails are kept, not its pixels.
    opened = cache(lambda position: photographs[position].open())
    drawn = cache(lambda position, test, label: _drawn(opened(position), test, label))
    figures = [_pair(pair, drawn) for pair in pairs]
    body = [_meaning("gmad"), tag("div", figures, class_="pairs")]
    return Section("gmad", DEFINITIONS["gmad"].title, body)


def _drawn(photograph: Photograph, test: str, label: str) -> Html:
    rgb = picture(photograph, test, label)
    small = resized(rgb, _THUMBNAIL_PX) if max(rgb.shape[:2]) > _THUMBNAIL_PX else rgb
    return thumbnail(small, alt=f"{shortened(photograph.name)}, {_label(label)}")


def _label(label: str) -> str:
    return "clean" if label == CLEAN else label.replace("_", " ")


def _pair(pair: Mapping[str, Any], drawn: Any) -> Html:
    sides = [pair["better"], pair["worse"]]
    shown = [drawn(side["photograph"], side["test"], side["label"]) for side in sides]
    words = []
    for role in ("defender", "attacker"):
        name = pair[role]
        scores = " and ".join(decimals(side["scores"][name]) for side in sides)
        places = " and ".join(f"{side['percentiles'][name]:.0f}" for side in sides)
        says = "alike" if role == "defender" else "far apart"
        words.append(
            tag("p", tag("b", name), f" takes them for {says}: {scores} ({places} % from below). ", class_="soft")
        )
    what = " and ".join(_label(side["label"]) for side in sides)
    return tag("figure", tag("div", shown, class_="pair whole"), tag("figcaption", f"{what}.", words))


def _clusters(clusters: Sequence[Mapping[str, Any]], files: Mapping[str, str]) -> Section:
    figures = []
    for cluster in clusters:
        shown = [_rated_picture(Path(files[id])) for id in cluster["examples"] if files.get(id)]
        name = tag("b", cluster["name"])
        figures.append(tag("figure", tag("div", shown, class_="pair"), tag("figcaption", name, f", {cluster['n']}")))
    body = [soft("Rated photographs nearest to the middle of each cluster."), tag("div", figures, class_="pairs")]
    return Section("contents", "Clusters of content", body)


def _rated_picture(path: Path) -> Html:
    try:
        return thumbnail(load(path, resizer=_REDUCED), alt=shortened(path.name))
    except ImageError as error:  # it was scored, and is gone or changed since
        return soft(f"{shortened(path.name)}: {error.reason}")


def _footer(result: Mapping[str, Any]) -> list[str]:
    digests = ", ".join(f"{model['name']} {model['key'][:12]}" for model in result["models"])
    n = len(result["photographs"])
    return [
        f"{n} photograph{'' if n == 1 else 's'}. Models: {digests}. pocketiqa {result['version']}, {result['date']}."
    ]
