"""Several finished label stores of one pool, read side by side a block of rows at a time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.remote import location
from pseudo_labels.shards import shard_of, shard_rows
from pseudo_labels.store import LabelStore

FloatArray = NDArray[np.float64]


class Part:
    """A finished store under a name of its own; any range of rows can be read, whatever its shards are."""

    def __init__(self, name: str, store: LabelStore):
        self.name = name
        self.store = store
        # The shard that was read last: blocks come in order, and several of them may lie in one shard.
        self._held: tuple[int, pa.Table] | None = None

    def rows(self, span: range) -> pa.Table:
        """Labels of the rows of ``span``, verified.

        Raises:
            IntegrityError: a shard was altered.
        """
        return pa.concat_tables(self._table(index).slice(start, size) for index, start, size in self._pieces(span))

    def features(self, span: range, name: str) -> NDArray[np.float16]:
        """A stored feature of the rows of ``span``: [rows, ...], zeros where a row is not ``ok``."""
        pieces = [
            self.store.shard_features(index)[name][start : start + size] for index, start, size in self._pieces(span)
        ]
        shape = next((piece.shape[1:] for piece in pieces if piece.size), pieces[0].shape[1:])
        # A shard without any ok row holds [rows, 0], for its writer never saw a feature.
        return np.concatenate([
            piece if piece.shape[1:] == shape else np.zeros((len(piece), *shape), np.float16) for piece in pieces
        ])  # fmt: skip

    def _pieces(self, span: range) -> list[tuple[int, int, int]]:
        """Shard, first row in it and number of rows, for each shard that ``span`` touches."""
        rows, shards, pieces = self.store.spec.rows, self.store.spec.shards, []
        # Only those: looked for among all, they would cost the square of the number of shards.
        for index in range(shard_of(rows, shards, span.start), shard_of(rows, shards, span.stop - 1) + 1):
            own = shard_rows(rows, shards, index)
            start, stop = max(own.start, span.start), min(own.stop, span.stop)
            pieces.append((index, start - own.start, stop - start))
        return pieces

    def _table(self, index: int) -> pa.Table:
        if self._held is None or self._held[0] != index:
            self._held = index, self.store.shard_labels(index)
        return self._held[1]


@dataclass(frozen=True)
class Columns:
    """Scores and spreads of all parts for all rows: 8 bytes for each row of each part.

    Attributes:
        scores: float32 [parts, rows], NaN where there is none.
        spreads: float32 [parts, rows], NaN where there is none.
    """

    scores: NDArray[np.float32]
    spreads: NDArray[np.float32]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """[parts, rows]: where there is a score."""
        return np.isfinite(self.scores)

    @property
    def scored_by(self) -> NDArray[np.int64]:
        """[rows]: how many parts have a score."""
        return self.scored.sum(axis=0, dtype=np.int64)


def open_parts(folders: Sequence[Path | str]) -> list[Part]:
    """Open stores of one pool, in an order that does not depend on that of ``folders``.

    A part is named after its teacher, with the beginning of its labels' digest where that is not enough.

    Raises:
        PocketiqaError: a store is unfinished, given twice, or of another pool.
    """
    stores = [LabelStore.open(location(folder)) for folder in folders]
    for store in stores[1:]:
        _check_same_pool(stores[0], store)
    # Their order decides the order of sums, and so the last bits of a fused score.
    stores.sort(key=lambda store: (store.spec.stamp.name, store.digest))
    for first, second in pairwise(stores):
        if first.digest == second.digest:
            raise PocketiqaError(f"{first.folder} and {second.folder} hold the same labels: give each teacher once")
    counts = Counter(store.spec.stamp.name for store in stores)
    return [Part(_name(store, counts), store) for store in stores]


def _name(store: LabelStore, counts: Counter[str]) -> str:
    name = store.spec.stamp.name
    return name if counts[name] == 1 else f"{name}-{store.digest[:8]}"


def _check_same_pool(first: LabelStore, other: LabelStore) -> None:
    if (first.spec.pool_digest, first.spec.rows) != (other.spec.pool_digest, other.spec.rows):
        raise PocketiqaError(
            f"the labels in {other.folder} are of another pool than those in {first.folder} (or it has changed "
            "between): label one pool with every teacher"
        )


def read_columns(parts: Sequence[Part], spans: Sequence[range], progress: Progress | None = None) -> Columns:
    """Read and verify every label of every part.

    Raises:
        PocketiqaError: rows at one position are not of the same image, bytes and view.
        IntegrityError: a shard was altered.
    """
    rows = parts[0].store.spec.rows
    columns = Columns(*(np.full((len(parts), rows), np.nan, np.float32) for _ in range(2)))
    for done, span in enumerate(spans, start=1):
        tables = [part.rows(span) for part in parts]
        for position, (part, table) in enumerate(zip(parts, tables, strict=True)):
            _check_aligned(parts[0], tables[0], part, table, span)
            here = slice(span.start, span.stop)
            # Scores are NaN unless ok; a spread means nothing without its score.
            columns.scores[position, here] = table["score"].to_numpy()
            columns.spreads[position, here] = np.where(np.isfinite(table["score"]), table["score_std"], np.nan)
        if progress:
            progress(done, len(spans))
    return columns


def _check_aligned(first: Part, expected: pa.Table, part: Part, table: pa.Table, span: range) -> None:
    for column, what in (("id", "image"), ("view", "view"), ("sha256", "bytes")):
        if expected[column].equals(table[column]):
            continue
        pairs = zip(expected.to_pylist(), table.to_pylist(), strict=True)
        for row, (one, other) in zip(span, pairs, strict=True):
            # A row without a score may not know its bytes.
            known = column != "sha256" or one["status"] == other["status"] == Status.OK
            if known and one[column] != other[column]:
                raise PocketiqaError(
                    f"row {row} of {part.store.folder} is of the {what} {other[column]!r}, but of {one[column]!r} in "
                    f"{first.store.folder}: only labels of the same {what} can be fused"
                )


def find_feature(parts: Sequence[Part], wanted: str) -> tuple[int, str]:
    """The part and the name of a stored feature, given as ``NAME``, or as ``TEACHER/NAME`` if several teachers have it.

    Raises:
        PocketiqaError: no part stores it, or more than one.
    """
    known = {f"{part.name}/{name}": (at, name) for at, part in enumerate(parts) for name in part.store.spec.features}
    matches = [position for full, position in known.items() if wanted in (full, position[1])]
    if len(matches) != 1:
        state = "is stored by several teachers" if matches else "is not stored"
        raise PocketiqaError(f"feature {wanted!r} {state}: choose one of {', '.join(known) or 'none at all'}")
    return matches[0]


@dataclass(frozen=True)
class Ratings:
    """Rows of a pool that people have rated.

    Attributes:
        rows: [L], positions in the pool, rising.
        scores: [L] in [0, 1], 1 best.
        groups: [L], scene of each image.
        digest: identity of ids, scores and groups.
    """

    rows: NDArray[np.int64]
    scores: FloatArray
    groups: tuple[str, ...]
    digest: str


def find_ratings(
    parts: Sequence[Part],
    spans: Sequence[range],
    scored: NDArray[np.bool_],
    ratings: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
) -> Ratings:
    """The rated rows for which at least one teacher has a score.

    Args:
        parts: stores of one pool.
        spans: blocks of rows that cover the pool.
        scored: [rows], whether any teacher has a score.
        ratings: in [0, 1] by image id; images that are not in the pool are left out.
        groups: scene by image id; None takes the pool's, and where that is gone each image is its own scene.
    """
    rows: list[int] = []
    ids: list[str] = []
    for span in spans:
        for row, image_id in zip(span, parts[0].rows(span)["id"].to_pylist(), strict=True):
            # A duplicate has its original's id, and no score.
            if scored[row] and image_id in ratings:
                rows.append(row)
                ids.append(image_id)
    if not rows:
        raise PocketiqaError(
            f"none of the {len(ratings)} rated images is among those that the teachers labelled: make the pool of "
            "the rated images and the others together, and label that"
        )
    scenes = groups if groups is not None else _pool_groups(parts[0], set(ids))
    own = tuple(scenes.get(image_id) or image_id for image_id in ids)
    scores = [float(ratings[image_id]) for image_id in ids]
    # Groups too: with others the folds differ, and so do the fits.
    identity = digest_of([ids, scores, list(own)])
    return Ratings(np.array(rows, np.int64), np.array(scores, np.float64), own, identity)


def _pool_groups(part: Part, ids: set[str]) -> dict[str, str]:
    try:
        pool = Pool.open(part.store.pool_path)
    except PocketiqaError:
        return {}
    # The pool was made anew since: its scenes may be others.
    if pool.digest != part.store.spec.pool_digest:
        return {}
    return {ref.id: ref.group for ref in pool if ref.id in ids}
