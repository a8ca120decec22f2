"""The page of ``pocketiqa compare-folders``: what changed on average, and the worst changes as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.html.figures import thumbnail
from distill.html.markup import Html, document, shortened, tag
from distill.html.plots import Series, histogram, scatter
from distill.html.style import CSS
from distill.html.tables import Section, count, data, decimals, signed, soft, table
from distill.scoring.pairing import PairRow
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError, load
from students.preprocess import Preprocess

# Improvements are there for comparison: fewer of them.
_BEST = 4
_MOST_ROWS = 200
# A thumbnail is stored with twice its 240 pixels: a large photograph is reduced to that while it is decoded.
_REDUCED = Preprocess(max_side=480)


def page(
    rows: Sequence[PairRow],
    summary: Mapping[str, Any],
    folders: tuple[Path, Path],
    model: str,
    *,
    worst: int,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> str:
    """A page that needs nothing but itself.

    Args:
        rows: pairs with a change, the worst first; then those without.
        summary: see ``before_after.Comparison``.
        folders: of the photographs before and after.
        model: name of the model, and how to tell it.
        worst: how many of the worst changes are shown as pictures.
        limits: of decoding.
    """
    good = [row for row in rows if row.score is not None]
    lower = [row for row in good if row.score is not None and row.score < 0][:worst]
    higher = [row for row in reversed(good) if row.score is not None and row.score > 0][:_BEST]
    sections = [
        _all_pairs(good, summary) if good else None,
        _gallery("worst", f"The {len(lower)} worst changes", lower, limits) if lower else None,
        _gallery("best", f"The {len(higher)} best changes", higher, limits) if higher else None,
        _without([row for row in rows if row.score is None]),
    ]
    title = f"{folders[0].name or folders[0]} → {folders[1].name or folders[1]}"
    body = tag(
        "main",
        tag("p", "pocketiqa compare-folders", class_="kicker"),
        tag("h1", title),
        tag("p", _lead(summary), class_="lead"),
        tag("dl", _tiles(summary), class_="tiles"),
        [section.html() for section in sections if section is not None],
        tag("footer", f"Scores of {model}, 0 worst, 1 best. Before: {folders[0]}. After: {folders[1]}."),
    )
    return document(title, body, CSS)


def _lead(summary: Mapping[str, Any]) -> str:
    if not summary["pairs"]:
        return "No pair has two scores."
    low, high = summary["low"], summary["high"]
    if low is None:
        return f"Of {summary['pairs']} pairs; {summary['interval_reason']}."
    if low > 0:
        return "On average, the photographs after are scored higher."
    if high < 0:
        return "On average, the photographs after are scored lower."
    return "On average, no difference can be told from chance."


def _tiles(summary: Mapping[str, Any]) -> list[Html]:
    ends = None
    if summary["low"] is not None:
        ends = [data(summary["low"], signed), " to ", data(summary["high"], signed), ", 95 % interval"]
    change = data(summary["mean_change"], signed)
    test = summary["sign_test"]
    means = None
    if summary["mean_before"] is not None:
        means = [data(summary["mean_before"], decimals), " → ", data(summary["mean_after"], decimals)]
    return [
        _tile("Mean change", change, ends),
        _tile("Mean score", data(summary["mean_after"], decimals), means),
        _tile("Better", data(summary["better"], count), ["of ", data(summary["pairs"], count), " pairs"]),
        _tile("Worse", data(summary["worse"], count), [data(summary["equal"], count), " equal"]),
        _tile("Sign test", data(test["p"], lambda p: f"p = {p:.2g}"), [data(summary["scenes"], count), " scenes"]),
    ]


def _tile(label: str, value: Html, note: object) -> Html:
    return tag("div", tag("dt", label), tag("dd", value), tag("dd", note) if note else None)


def _all_pairs(rows: Sequence[PairRow], summary: Mapping[str, Any]) -> Section:
    before = np.array([row.before for row in rows], np.float64)
    after = np.array([row.after for row in rows], np.float64)
    names, figures = [row.path for row in rows], []
    if len(rows) > 1:
        drawing = scatter(Series("pairs", "student", before, after), x_label="before", y_label="after", names=names)
        words = tag("figcaption", tag("b", "After, by before"), f", n = {len(rows)}. Dashed: both equal.")
        figures.append(tag("figure", drawing, words))
        # Symmetric; at least 0.05, or the smallest changes would look large.
        reach = max(0.05, float(np.abs(after - before).max()))
        changes = Series("change", "student", after - before, after)
        drawing = histogram([changes], x_label="after − before", title="Changes", reach=(-reach, reach), mark=0.0)
        figures.append(tag("figure", drawing, tag("figcaption", tag("b", "Changes"), " in twentieths.")))
    listed = table(
        ["photograph", "before", "after", "change"],
        [[shortened(row.path), *_numbers(row)] for row in rows[:_MOST_ROWS]],
        caption="The lowest change first" + (f"; the first {_MOST_ROWS}" if len(rows) > _MOST_ROWS else ""),
    )
    notes = soft("Median change ", data(summary["median_change"], signed), ".")
    return Section(
        "pairs",
        "All pairs",
        [tag("div", figures, class_="charts"), notes, tag("details", tag("summary", "Table"), listed)],
    )


def _numbers(row: PairRow) -> list[Html]:
    change = "" if not row.score else "up" if row.score < 0 else "down"  # green and orange of the page's style
    return [data(row.before, decimals), data(row.after, decimals), tag("span", data(row.score, signed), class_=change)]


def _gallery(id: str, title: str, rows: Sequence[PairRow], limits: DecodeLimits) -> Section:
    return Section(id, title, [tag("div", [_card(row, limits) for row in rows], class_="pairs")])


def _card(row: PairRow, limits: DecodeLimits) -> Html:
    name = shortened(row.path)
    pair = tag(
        "div",
        [_picture(file, f"{name}, {when}", limits) for file, when in zip(row.files, ("before", "after"), strict=True)],
        class_="pair whole",
    )
    before, after, change = _numbers(row)
    return tag("figure", pair, tag("figcaption", tag("b", name), ": ", before, " → ", after, ", ", change))


def _picture(file: str, alt: str, limits: DecodeLimits) -> Html:
    try:
        return thumbnail(load(file, limits, resizer=_REDUCED), alt=alt)
    except ImageError as error:  # it was scored, and is gone or changed since
        return tag("p", f"{alt}: {error.reason}", class_="soft")


def _without(rows: Sequence[PairRow]) -> Section | None:
    """Pairs that have no change and files without a partner, with the reason."""
    if not rows:
        return None
    cells = [[shortened(row.path), str(row.status), row.reason] for row in rows[:_MOST_ROWS]]
    caption = f"{len(rows)} in all" + (f", the first {_MOST_ROWS}" if len(rows) > _MOST_ROWS else "")
    return Section("without", "Without a score", [table(["photograph", "status", "reason"], cells, caption=caption)])
