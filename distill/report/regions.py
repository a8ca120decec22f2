"""The section on regions: how well a student knows them, which are worst and best, what a teacher takes for what."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.html.figures import thumbnail
from distill.html.markup import Html, shortened, tag
from distill.html.tables import Section, count, data, decimals, soft, table, with_interval
from distill.report.inputs import RegionExample, ReportInputs

KINDS = ("quality", "importance")
_METRICS = {"srcc": "SRCC", "plcc": "PLCC", "within": "SRCC within a picture", "pointing": "pointing"}
_STUDENT = "student"
_MODELS = {
    _STUDENT: "the student",
    "before": "the student before it learned",
    "crop": "the student's score of the region's crop",
    "whole": "the student's score of the whole picture",
    "area": "the area of the region",
}
_PARTS = {"test": "scenes that the student never saw", "validation": "the validation part"}
_GLOSSARY = (
    "SRCC and PLCC are over all regions. SRCC within a picture is the mean over the pictures: a model that says the "
    "same of all regions of a picture has 0 there. Pointing is the fraction of pictures with a distorted region in "
    "which it has the lowest quality."
)
_CHOICES = {
    "worst": "The {} with the lowest quality, by the student",
    "best": "The {} with the highest quality",
    "farthest": "The {} on which it is farthest from the label",
}


def regions(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """Figures against baselines with intervals, examples as pictures, and the teacher's types."""
    about = content["regions"]
    if about is None or inputs.regions is None:
        return None
    where = _PARTS.get(about["part"], about["part"])
    body: list[object] = [soft(f"Regions of {where}, against their labels. {_GLOSSARY}")]
    parts = _parts(about["sources"])
    for name, own in parts.items():
        body += _source(content, name, about["sources"][name])
        # Parts of the same regions: for a closer look.
        body += [
            tag(
                "details",
                tag("summary", part.removeprefix(f"{name}, ")),
                _source(content, part, about["sources"][part]),
            )
            for part in own
        ]
    body += _examples(content, inputs)
    body += [_types(teacher, rows) for teacher, rows in about["types"].items()]
    return Section("regions", "Regions", body)


def _parts(sources: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the sources, each with those of its parts, such as ``copies, one distorted region`` of ``copies``."""
    parts: dict[str, list[str]] = {}
    for name in sorted(sources, key=len):
        whole = next((other for other in parts if name.startswith(f"{other}, ")), None)
        parts.setdefault(name if whole is None else whole, [])
        if whole is not None:
            parts[whole].append(name)
    # In the order of the file.
    return {name: [part for part in sources if part in parts[name]] for name in sources if name in parts}


def region_results(content: Mapping[str, Any]) -> list[str]:
    """The same figures in sentences, for the model card."""
    about, points = content.get("regions"), []
    if about is None:
        return points
    wholes = _parts(about["sources"])
    for name, source in about["sources"].items():
        for kind in KINDS:
            models = _ordered(source[kind].get("models", {}), _MODELS)
            where = f"{about['part']} part, {source['regions']} regions of {source['pictures']} pictures"
            for model in models[:1]:
                figures = source[kind]["models"][model]
                own = [f"{_metric(metric)} {_in_words(figures[metric])}" for metric in _ordered(figures, _METRICS)]
                points.append(f"Region {kind} on {name} ({where}), {_model(content, model)}: {'; '.join(own)}.")
            # Of the baselines the one figure that whole pictures cannot give.
            beside = [
                f"{_model(content, model)} {_in_words(source[kind]['models'][model]['within'])}"
                for model in models[1:]
                if name in wholes and "within" in source[kind]["models"][model]
            ]
            if beside:
                points.append(f"Beside it, {_METRICS['within']} of region {kind} on {name}: {'; '.join(beside)}.")
    return points


def _ordered(names: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Known names in their order, then all others: JSON has them by the alphabet."""
    places = {name: place for place, name in enumerate(known)}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def _in_words(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "does not exist"
    ends = "" if figure["low"] is None else f" ({decimals(figure['low'])} to {decimals(figure['high'])})"
    return f"{decimals(figure['value'])}{ends}, n = {figure['n']}"


def _metric(name: str) -> str:
    return _METRICS.get(name, name.replace("_", " "))


def _model(content: Mapping[str, Any], name: str) -> str:
    return content["model"] if name == _STUDENT else _MODELS.get(name, name.replace("_", " "))


def _source(content: Mapping[str, Any], name: str, source: Mapping[str, Any]) -> list[object]:
    counted = [
        data(source["regions"], count), " regions of ", data(source["pictures"], count),
        " pictures of ", data(source["scenes"], count), " scenes.",
    ]  # fmt: skip
    tables = [part for kind in KINDS if source[kind] for part in _kind(content, kind, source[kind])]
    return [tag("h3", f"On {name}"), tag("p", counted), *tables]


def _kind(content: Mapping[str, Any], kind: str, figures: Mapping[str, Any]) -> list[object]:
    """Table of one kind of label, a row a model, and how far the student is ahead of each baseline."""
    models, gains = figures["models"], figures.get("gain", {})
    metrics = _ordered({metric: None for own in models.values() for metric in own}, _METRICS)
    # The gain is in the order within a picture: what a score of the whole picture cannot give.
    header = [f"{kind} by", *map(_metric, metrics), *(["student's gain within a picture"] if gains else [])]
    rows = []
    for name in _ordered(models, _MODELS):
        own = models[name]
        cells = [_figure(own[metric]) if metric in own else data(None, decimals) for metric in metrics]
        gain = [_figure(gains[name], difference=True) if name in gains else ""] if gains else []
        rows.append([_named(content, name), *cells, *gain])
    ceiling = figures.get("ceiling")
    words = f"Region {kind}, 95 % intervals over scenes"
    reached = None
    # Labels that all differ can be ordered perfectly: nothing to be said.
    if ceiling and ceiling["value"] is not None and round(ceiling["value"], 3) < 1:
        at_most = data(ceiling["value"], decimals)
        reached = soft("Within pictures, at most ", at_most, " can be reached: equal labels have no order.")
    return [table(header, rows, caption=words), reached]


def _named(content: Mapping[str, Any], name: str) -> Html:
    css = content["kind"] if name == _STUDENT else "other"
    return tag("span", tag("i", class_=f"key {css}"), _model(content, name))


def _figure(figure: Mapping[str, Any], *, difference: bool = False) -> Html:
    """A figure with its interval and the number that it is of."""
    value = {"reason": "it does not exist for these labels", **figure}
    if difference:
        value["difference"] = figure["value"]
    number = tag("span", "n = ", data(figure["n"], count), class_="interval")
    return tag("span", with_interval(value, difference=difference), number, class_="measured")


def _examples(content: Mapping[str, Any], inputs: ReportInputs) -> list[object]:
    assert inputs.regions is not None
    examples, body = content["regions"]["examples"], []
    for choice, heading in _CHOICES.items():
        chosen: Sequence[RegionExample] = getattr(inputs.regions, choice)
        if not chosen:
            continue
        cards = [_card(content, row, one) for row, one in zip(examples[choice], chosen, strict=True)]
        body += [tag("h3", heading.format(len(chosen))), tag("div", cards, class_="pairs")]
    if not body:
        return []
    words = soft(
        "Chosen from ", data(examples["regions"], count), " regions of ", data(examples["pictures"], count),
        " pictures, each of another scene. Left the region, right the quality map, whose colours span its own range.",
    )  # fmt: skip
    return [tag("h3", "Examples"), words, *body]


def _card(content: Mapping[str, Any], row: Mapping[str, Any], one: RegionExample) -> Html:
    name = shortened(row["name"])
    said = f"quality {decimals(row['quality'], 2)}, label {decimals(row['quality_label'], 2)}"
    pair = tag(
        "div",
        thumbnail(one.panels[0], alt=f"{name} with the outline of the region: {said}"),
        thumbnail(one.panels[1], alt=f"Quality map of {name} with the region, dark where the quality is low"),
        class_="pair whole",
    )
    rows = [[kind, _two(row[kind]), _two(row[f"{kind}_label"])] for kind in KINDS]
    done = f", {row['distortion']}" if row["distortion"] else ""
    caption = tag("figcaption", tag("b", name), f" ({row['source']}){done}")
    return tag("figure", pair, caption, table(["", content["model"], "label"], rows))


def _two(value: float | None) -> Html:
    return data(value, lambda one: decimals(one, 2), why="the teacher gives none")


def _types(teacher: str, rows: Mapping[str, Mapping[str, Any]]) -> list[object]:
    """How often a teacher named which distortion, by the one that is known."""
    named = {name for row in rows.values() for name in row["named"]}
    # What data and teacher name alike stands first and in one order, so that agreement is the diagonal.
    known = sorted(rows, key=lambda name: (name not in named, name))
    columns = sorted(named, key=lambda name: (name not in rows, name))
    cells = [
        [_plain(name), data(rows[name]["n"], count), *(_counted(rows[name], other) for other in columns)]
        for name in known
    ]
    words = "Regions by what is known of them (rows) and by what the teacher says (columns); dark: most of the row"
    heading = tag("h3", f"Types of distortion, as {teacher} names them")
    return [heading, table(["known", "n", *map(_plain, columns)], cells, caption=words)]


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _counted(row: Mapping[str, Any], name: str) -> Html | str:
    number = row["named"].get(name, 0)
    # The colour's strength is for the eye alone; the number is the figure.
    strength = f"--part:{round(100 * number / row['n'])}%"
    return tag("span", data(number, count), class_="heat", style=strength) if number else "0"
