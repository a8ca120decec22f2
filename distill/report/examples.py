"""Sections with pictures: single images with their scores, quality maps, distorted copies."""

from collections.abc import Mapping
from typing import Any

from distill.html.figures import overlay, thumbnail
from distill.html.markup import Html, shortened, tag
from distill.html.tables import Section, data, decimals, signed, soft, table
from distill.report.inputs import ReportInputs
from pseudo_labels.images import ImageError


def disagreement(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """The images on which model and target are farthest apart, and some on which they agree."""
    if not content["disagreement"]:
        return None
    n, kind = len(content["disagreement"]), content["kind"]
    words = f"The {n} images on which the {kind} is farthest from the target. Faults of a model are easiest seen here."
    body: list[object] = [soft(words), _gallery(content, inputs, "disagreement")]
    if content["closest"]:
        body += [
            tag("h3", f"The {len(content['closest'])} on which it is closest"),
            _gallery(content, inputs, "closest"),
        ]
    return Section("disagreement", "Where they disagree most", body)


def _gallery(content: Mapping[str, Any], inputs: ReportInputs, which: str) -> Html:
    return tag("div", [_card(content, inputs, row) for row in content[which]], class_="gallery")


def _card(content: Mapping[str, Any], inputs: ReportInputs, row: Mapping[str, Any]) -> Html:
    picture = None
    if inputs.load_image is not None:
        try:
            rgb = inputs.load_image(inputs.targets.ids[row["at"]])
            scores = f"target {decimals(row['target'], 2)}, {content['kind']} {decimals(row['score'], 2)}"
            picture = thumbnail(rgb, alt=f"Photograph {row['id']}: {scores}")
        except ImageError:
            picture = None  # its scores still tell something
    bars = [_bar("target", "target", row["target"]), _bar(content["model"], content["kind"], row["score"])]
    if row["teacher"] is not None:
        bars.append(_bar(content["teacher"], "teacher", row["teacher"]))
    caption = tag("figcaption", shortened(row["name"]), ": ", data(row["difference"], signed))
    return tag("figure", picture, tag("div", bars, class_="scores"), caption)


def _bar(label: str, css: str, value: float) -> list[Html]:
    # The width of a bar must stay inside its frame; the number beside it is as it was given.
    fraction = round(100 * min(max(value, 0.0), 1.0), 1)
    fill = tag("i", class_=css, style=f"width:{fraction}%")
    return [
        tag("span", label),
        tag("span", fill, class_="bar", aria_hidden="true"),
        data(value, lambda v: decimals(v, 2)),
    ]


def maps(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """Photographs under their quality maps."""
    if not inputs.quality_maps:
        return None
    cards = []
    for one, row in zip(inputs.quality_maps, content["quality_maps"], strict=True):
        name = shortened(one.name)
        pair = tag(
            "div",
            thumbnail(one.rgb, alt=f"Photograph {name}"),
            thumbnail(overlay(one.rgb, one.quality_map), alt=f"Quality map of {name}, dark where the quality is low"),
            class_="pair",
        )
        ends = tag(
            "div",
            tag("span", "low ", data(row["low"], _two)),
            tag("span", "high ", data(row["high"], _two)),
            class_="ends",
        )
        caption = tag("figcaption", tag("b", name), ", score ", data(row["score"], _two))
        cards.append(tag("figure", pair, tag("div", class_="scale", aria_hidden="true"), ends, caption))
    words = (
        f"{content['model']} scores every part of an image; the score is their weighted mean. Colours span each map."
    )
    return Section("maps", "Quality maps", [soft(words), tag("div", cards, class_="pairs")])


def _two(value: float) -> str:
    return decimals(value, 2)


def distorted(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """Originals against visibly distorted copies."""
    rows = content["damaged"]
    if not rows:
        return None
    with_pictures = [copy for copy in inputs.distorted if copy.original is not None and copy.distorted is not None]
    pictures = [_before_after(copy) for copy in with_pictures]
    cells = [
        [
            shortened(row["name"]),
            row["damage"],
            data(row["original_score"], decimals),
            data(row["damaged_score"], decimals),
            _change(row),
        ]
        for row in rows
    ]
    # Equal scores do not count as lower: the model did not notice the distortion.
    lower = sum(row["difference"] < 0 for row in rows)
    words = f"{content['model']} gives {lower} of {len(rows)} distorted copies a lower score than the original."
    listed = table(
        ["photograph", "distortion", "original", "distorted", "change"],
        cells,
        caption="Scores from 0 (worst) to 1 (best)",
    )
    return Section(
        "damaged", "Before and after distortion", [soft(words), tag("div", pictures[:6], class_="pairs"), listed]
    )


def _change(row: Mapping[str, Any]) -> Html:
    return tag("span", data(row["difference"], signed), class_="down" if row["difference"] < 0 else "up")


def _before_after(one: Any) -> Html:
    name = shortened(one.name)
    pair = tag(
        "div",
        thumbnail(one.original, alt=f"{name}, original"),
        thumbnail(one.distorted, alt=f"{name} with {one.distortion}"),
        class_="pair",
    )
    scores = tag("span", data(one.original_score, _two), " → ", data(one.distorted_score, _two))
    return tag("figure", pair, tag("figcaption", tag("b", name), f", {one.distortion}: ", scores))
