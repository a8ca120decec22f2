"""The result of a comparison as tables and lines for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from distill.leakage.record import closest, copied, images_in_words, in_words
from distill.terminal.console import shown

_SHOWN = 8


def overlap_tables(record: Mapping[str, Any]) -> list[Table]:
    """Tables of the SRCC of copied scores (where measured) and of the closest pairs."""
    pairs = Table("tested", "nearest trained", "cosine", "scores", title="closest pairs", title_justify="left")
    for image in closest(record)[:_SHOWN]:
        scores = " and ".join(_score(image[key]) for key in ("score", "nearest_score"))
        pairs.add_row(shown(image["name"]), shown(image["nearest_name"]), f"{image['cosine']:.3f}", scores)
    for column in pairs.columns[:2]:
        column.overflow = "fold"
    return ([] if record["copying"] is None else [_copying(record["copying"])]) + [pairs]


def _copying(copying: Mapping[str, Any]) -> Table:
    title = "copying the score of the nearest trained image"
    table = Table("images", "n", "SRCC [95 %]", title=title, title_justify="left")
    for name, part in copied(copying).items():
        table.add_row(shown(images_in_words(name)), str(part["n"]), _interval(part["srcc"]))
    return table


def _score(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _interval(srcc: Mapping[str, Any]) -> str:
    if srcc["value"] is None:
        return f"none ({srcc['reason']})"
    if srcc["low"] is None:
        return f"{srcc['value']:.3f}"
    return f"{srcc['value']:.3f} [{srcc['low']:.3f}, {srcc['high']:.3f}]"


def overlap_lines(record: Mapping[str, Any]) -> list[str]:
    """The result in sentences: near duplicates, marks of the benchmark, scenes, the split."""
    scenes, split, marked = record["scenes"], record["split"], record["marked"]
    lines = [in_words(record)]
    if marked is not None:
        lines.append(f"{marked['both']} of the {marked['marked']} that the benchmark marks itself are among them")
    lines.append(
        f"{scenes['scenes']} scenes, {scenes['on_both_sides']} of them in both sets, the largest of "
        f"{scenes['largest']} images"
    )
    if record["copying"] is None:
        lines.append(f"copying scores was not measured: {record['copying_reason']}")
    if split["reason"]:
        lines.append(f"no split was made: {split['reason']}")
    else:
        lines.append("split by scene: " + ", ".join(f"{n} {part}" for part, n in split["images"].items()))
    return lines


def left_out_lines(record: Mapping[str, Any]) -> list[str]:
    """A line for each image set with images that could not be compared."""
    lines = []
    for image_set in ("trained", "tested"):
        coverage = record[image_set]
        if coverage["examples"]:
            first, missing = coverage["examples"][0], coverage["images"] - coverage["compared"]
            words = f"{missing} of {coverage['images']} {image_set} images were not compared"
            lines.append(f"{words}, such as {shown(first['id'])}: {shown(first['reason'])}")
    return lines
