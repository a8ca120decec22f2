"""Photographs among those of their moment: their groups, ranks and probabilities, and the columns that say them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.scoring.columns import Column, Kind
from distill.scoring.moments import Seen, moments_of
from students.pairs import PairHead, chances, logits
from students.runtime import Row


@dataclass(frozen=True, slots=True)
class Shot(Row):
    """A photograph among those of its moment; without a score it is in no group, and all further fields are empty.

    Attributes:
        group: number of the group, from 1, in the order of the photographs.
        photographs: number of photographs of the group.
        rank: place in the group, 1 best.
        wins: mean probability of being better than another one of the group, in [0, 1]; None if it is alone, or the
            model has no head on pairs.
        kept: whether it is one of the best of its group.
        confidence: of one that is kept, the least probability that it is better than one that is not; None if all are
            kept, or the model has no head on pairs.
    """

    group: int | None = None
    photographs: int | None = None
    rank: int | None = None
    wins: float | None = None
    kept: bool | None = None
    confidence: float | None = None


def _kept(row: Row) -> str | None:
    kept = row.kept if isinstance(row, Shot) else None
    return None if kept is None else "yes" if kept else "no"


GROUP_COLUMNS = (
    Column("group", Kind.WHOLE, attrgetter("group"), heading="group"),
    Column("photographs", Kind.WHOLE, attrgetter("photographs"), heading="of"),
    Column("rank", Kind.WHOLE, attrgetter("rank"), heading="rank"),
    Column("wins", Kind.NUMBER, attrgetter("wins"), heading="wins"),
    Column("kept", Kind.TEXT, _kept, heading="kept"),
    Column("confidence", Kind.NUMBER, attrgetter("confidence"), heading="confidence"),
)


@dataclass(frozen=True)
class Viewed:
    """A photograph that was scored.

    Attributes:
        row: of it.
        seen: what tells its moment; None without a score.
        embedding: of the student; None without a score, and of a student without it.
    """

    row: Row
    seen: Seen | None = None
    embedding: NDArray[np.float32] | None = None


def ranked(viewed: Sequence[Viewed], head: PairHead | None, *, keep: int, seconds: float) -> list[Shot]:
    """Photographs group by group, the best first; those without a score at the end.

    Args:
        viewed: photographs.
        head: says which of two is better; None ranks by scores.
        keep: see ``best_of``.
        seconds: see ``moments.moments_of``.
    """
    good = [(one.row, one.seen, one.embedding) for one in viewed if one.seen is not None]
    groups = moments_of([seen for _, seen, _ in good], seconds=seconds, alike=1.0 if head is None else head.alike)
    shots: list[Shot] = []
    for number, members in enumerate(groups, start=1):
        rows = [good[member][0] for member in members]
        scores = [row.score or 0.0 for row in rows]
        embeddings = [good[member][2] for member in members]
        strengths = logits(scores) if head is None else head.strengths(np.array(embeddings), scores)
        # Of equal ones the first stays first.
        order = np.argsort(-strengths, kind="stable")
        better = chances(strengths[order])
        count = len(rows)
        for place, member in enumerate(order):
            alone, losers = count == 1 or head is None, better[place, keep:]
            shots.append(
                Shot(
                    **_fields(rows[member]),
                    group=number,
                    photographs=count,
                    rank=place + 1,
                    wins=None if alone else float((better[place].sum() - 0.5) / (count - 1)),
                    kept=place < keep,
                    confidence=None if alone or place >= keep or not len(losers) else float(losers.min()),
                )
            )
    return shots + [Shot(**_fields(one.row)) for one in viewed if one.seen is None]


def _fields(row: Row) -> dict[str, Any]:
    return {item.name: getattr(row, item.name) for item in fields(Row)}


def summary(rows: Sequence[Shot]) -> str:
    """One line for people."""
    scored = [row for row in rows if row.group is not None]
    sizes = {row.group: row.photographs or 0 for row in scored}
    several = [size for size in sizes.values() if size > 1]
    kept = sum(bool(row.kept) for row in scored)
    return (
        f"{len(scored)} photographs: {sum(several)} in {len(several)} groups of similar ones, "
        f"{len(sizes) - len(several)} alone; {kept} kept, {len(scored) - kept} not"
    )
