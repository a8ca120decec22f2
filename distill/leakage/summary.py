"""What was found, for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from distill.leakage.record import closest, copied, in_words

_SHOWN = 8


def overlap_tables(record: Mapping[str, Any]) -> list[Table]:
    """What copying gives, and the closest pairs."""
    pairs = Table("tested", "nearest trained", "cosine", "scores", title="closest pairs", title_justify="left")
    for one in closest(record)[:_SHOWN]:
        scores = " and ".join(_score(one[key]) for key in ("score", "nearest_score"))
        pairs.add_row(escape(one["name"]), escape(one["nearest_name"]), f"{one['cosine']:.3f}", scores)
    for column in pairs.columns[:2]:
        column.overflow = "fold"
    return ([] if record["copying"] is None else [_copying(record["copying"])]) + [pairs]


def _copying(copying: Mapping[str, Any]) -> Table:
    title = "copying the score of the nearest trained image"
    found = Table("images", "n", "SRCC [95 %]", title=title, title_justify="left")
    for name, part in copied(copying).items():
        found.add_row(escape(name), str(part["n"]), escape(_interval(part["srcc"])))
    return found


def _score(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _interval(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return f"none ({found['reason']})"
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def overlap_lines(record: Mapping[str, Any]) -> list[str]:
    """What was found in sentences: near images, marks of the benchmark, scenes, the split."""
    scenes, split, marked = record["scenes"], record["split"], record["marked"]
    lines = [in_words(record)]
    if marked is not None:
        lines.append(f"{marked['both']} of the {marked['marked']} that the benchmark marks itself are among them")
    lines.append(
        f"{scenes['scenes']} scenes, {scenes['on_both_sides']} of them on both sides, the largest of "
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
    """A line for each side with images that could not be compared."""
    lines = []
    for side in ("trained", "tested"):
        found = record[side]
        if found["examples"]:
            first, missing = found["examples"][0], found["images"] - found["compared"]
            words = f"{missing} of {found['images']} {side} images were not compared"
            lines.append(f"{words}, such as {first['id']}: {first['reason']}")
    return lines
