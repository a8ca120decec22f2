"""``pocketiqa compare-folders``: what was done to photographs, measured: pair by pair, on average, and the worst.

Base install only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from distill.html.tables import decimals, signed
from distill.scoring.before_after_page import page
from distill.scoring.columns import Column, Kind, Layout, model_columns
from distill.scoring.pairing import Pair, PairRow, pairs_by_name, pairs_of_table
from distill.scoring.row_files import check_format, choose_format, write_rows
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DecodeLimits
from pseudo_labels.metrics.changes import summarise
from pseudo_labels.outputs import new_file
from pseudo_labels.records import Status
from students.runtime import Row, Scorer

_NAMED = 5


PAIR_COLUMNS = (
    Column("name", Kind.TEXT, lambda row: row.path, heading="photograph"),
    Column("before", Kind.NUMBER, attrgetter("before"), heading="before"),
    Column("after", Kind.NUMBER, attrgetter("after"), heading="after"),
    Column("change", Kind.NUMBER, lambda row: row.score, heading="change"),
    Column("status", Kind.TEXT, lambda row: str(row.status), heading="status", last=True),
    Column("reason", Kind.TEXT, lambda row: row.reason, heading="reason", last=True),
    Column("before_path", Kind.PATH, attrgetter("before_path")),
    Column("after_path", Kind.PATH, attrgetter("after_path")),
    Column("group", Kind.TEXT, attrgetter("group")),
)


@dataclass(frozen=True)
class Comparison:
    """All pairs of two folders, and what they say together.

    Attributes:
        rows: pairs with a change, the worst change first; then those without, with the reason.
        summary: see ``metrics.changes.summarise``; and ``mean_before``, ``mean_after`` and
            ``without`` (status to number of rows).
    """

    rows: list[PairRow]
    summary: dict[str, Any]


def compare_folders(
    before: Path,
    after: Path,
    model: str | None = None,
    *,
    pairs: Path | None = None,
    recursive: bool = False,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    out: Path | None = None,
    file_format: str | None = None,
    gallery: Path | None = None,
    worst: int = 12,
    overwrite: bool = False,
    excel_safe: bool = False,
) -> Comparison:
    """Score the photographs of two folders, and write their changes; arguments as for the command.

    Raises:
        PocketiqaError: no such folders, no pairs, or a format that cannot be written.
        OutputConflictError: ``out`` or ``gallery`` exists already.
        WriteError: one of them cannot be written; this is tried before the first image is scored.
    """
    file_format = choose_format(file_format, out)
    check_format(file_format, out, excel_safe=excel_safe)
    if gallery is not None and gallery.suffix.lower() not in (".html", ".htm"):
        raise PocketiqaError(f"--gallery {gallery}: the page is HTML, name it {gallery.with_suffix('.html').name}")
    if worst < 1:
        raise PocketiqaError(f"--worst {worst}: at least 1 is shown")
    with ExitStack() as stack:
        file = None if out is None else stack.enter_context(new_file(out, overwrite=overwrite))
        drawn = None if gallery is None else stack.enter_context(new_file(gallery, overwrite=overwrite))
        limits = DecodeLimits(max_pixels=max_pixels)
        scorer = Scorer(model, limits=limits)
        all_pairs = (
            pairs_by_name(before, after, recursive=recursive, warn=console.warn)
            if pairs is None
            else pairs_of_table(pairs, before, after)
        )
        if all(pair.problem for pair in all_pairs):
            raise PocketiqaError(
                f"no image of {before} has the name of one of {after}: name folders whose files are called alike, or "
                "pair them by --pairs FILE.csv"
            )
        with console.progress(f"compare-folders ({scorer.contract.name})") as report:
            scores = _scores(scorer, all_pairs, workers, report)
        comparison = compared(all_pairs, scores)
        about = {"kind": "comparison", "model": {"name": scorer.contract.name, "sha256": scorer.digest}}
        write_rows(
            comparison.rows,
            file_format,
            file,
            layout=Layout((*PAIR_COLUMNS, *model_columns(scorer.contract.name, scorer.digest)), excel_safe),
            heading=f"changes by {scorer.contract.name} ({scorer.digest[:12]}), after minus before, 0 worst, 1 best",
            about={**about, "summary": comparison.summary},
        )
        if drawn is not None:
            words = f"{scorer.contract.name} ({scorer.digest[:12]})"
            made = page(comparison.rows, comparison.summary, (before, after), words, worst=worst, limits=limits)
            drawn.write(made.encode())
    return comparison


def _scores(scorer: Scorer, pairs: Sequence[Pair], workers: int, report: Any) -> dict[Path, Row]:
    """The row of each file, which is scored once even if several pairs name it."""
    files = list(dict.fromkeys(file for pair in pairs if not pair.problem for file in (pair.before, pair.after)))
    known = [file for file in files if file is not None]
    return dict(zip(known, scorer.score_many(known, workers=workers, progress=report), strict=True))


def compared(pairs: Iterable[Pair], scores: Mapping[Path, Row]) -> Comparison:
    """Rows of the pairs, the worst change first, and their summary.

    Args:
        pairs: all, those without partner as well.
        scores: the row of each file of the pairs that are whole.
    """
    rows = [_row(pair, scores) for pair in pairs]
    good = sorted((row for row in rows if row.score is not None), key=lambda row: (row.score, row.path))
    bad = [row for row in rows if row.score is None]
    without: dict[str, int] = {}
    for row in bad:
        without[str(row.status)] = without.get(str(row.status), 0) + 1
    changes = np.array([row.score for row in good], np.float64)
    summary = summarise(changes, [row.group for row in good])
    for name in ("before", "after"):
        values = [getattr(row, name) for row in good]
        summary[f"mean_{name}"] = math.fsum(values) / len(values) if values else None
    return Comparison(good + bad, {**summary, "without": without})


def _row(pair: Pair, scores: Mapping[Path, Row]) -> PairRow:
    files = str(pair.before or ""), str(pair.after or "")
    if pair.problem or pair.before is None or pair.after is None:
        return PairRow(pair.name, None, Status.MISSING, pair.problem, files=files, group=pair.group)
    first, second = scores[pair.before], scores[pair.after]
    reasons = [f"{which}: {row.reason}" for which, row in (("before", first), ("after", second)) if row.reason]
    change = None if first.score is None or second.score is None else second.score - first.score
    status = Status.OK if change is not None else second.status if first.score is not None else first.status
    return PairRow(
        pair.name, change, status, "; ".join(reasons), before=first.score, after=second.score, files=files,
        group=pair.group,
    )  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def summary_lines(summary: Mapping[str, Any], rows: Sequence[PairRow]) -> list[str]:
    """The summary in sentences, and the files without a partner by name."""
    lines = []
    if summary["pairs"]:
        ends = (
            f" (95 % interval {signed(summary['low'])} to {signed(summary['high'])})"
            if summary["low"] is not None
            else f" (no interval: {summary['interval_reason']})"
        )
        before, after = decimals(summary["mean_before"]), decimals(summary["mean_after"])
        lines.append(
            f"{_count(summary['pairs'], 'pair')}: {before} to {after}, mean change "
            f"{signed(summary['mean_change'])}{ends}"
        )
        test = summary["sign_test"]
        p = "" if test["p"] is None else f"; sign test p = {test['p']:.2g}"
        lines.append(f"{summary['better']} better, {summary['worse']} worse, {summary['equal']} equal{p}")
    alone = [row.path for row in rows if row.score is None and not all(row.files)]
    if alone:
        more = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
        lines.append(f"{_count(len(alone), 'file')} without a partner: {', '.join(alone[:_NAMED])}{more}")
    failed = sum(row.score is None for row in rows) - len(alone)
    if failed:
        lines.append(f"{_count(failed, 'pair')} without a score; see status and reason")
    return lines
