"""What is learned from: pools with labels of teachers or people, as one table of training examples."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from typing import Any, overload

import numpy as np

from distill.data.levels import NO_LIMIT, LevelLists
from distill.data.pixel_cache import PixelCache
from distill.data.regions import RegionTable
from distill.data.split import Part, Split
from pseudo_labels.crops import FLIP, FULL, crop_of
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status, TeacherStamp
from pseudo_labels.ref_tables import ROWS_AT_ONCE
from pseudo_labels.store import LabelStore

Numbers = Sequence[float] | np.ndarray
# ``box`` stays float64, as the labelling had it: rounded to float32, its edges in pixels could move by one.
_TYPES = {
    "source": np.int16, "row": np.int32, "target": np.float32, "weight": np.float32, "flipped": np.bool_,
    "box": np.float64, "shard": np.int32, "shard_row": np.int32, "levels": np.float32,
}  # fmt: skip
_FOURS = ("box", "levels")


class LabelTable:
    """Scores in memory, such as ratings of people; training reads it like a label store.

    Attributes:
        ids: ids of images in the pool they are used with.
        scores: float32 [N] in [0, 1], 1 best.
        confidence: float32 [N] in [0, 1], weight of each score.
        about: facts for a report, as JSON values; of published ratings ``scale``, ``citation`` and ``licence``.
    """

    def __init__(self, ids: Sequence[str], scores: Numbers, confidence: Numbers | None = None):
        self.about: dict[str, Any] = {}
        self.ids = list(ids)
        self.scores = np.asarray(scores, dtype=np.float32)
        self.confidence = (
            np.ones(len(self.ids), np.float32) if confidence is None else np.asarray(confidence, np.float32)
        )
        if not len(self.ids) == len(self.scores) == len(self.confidence):
            raise PocketiqaError(
                f"a label table has {len(self.ids)} ids, {len(self.scores)} scores and {len(self.confidence)} "
                "confidences: give one of each for every image"
            )
        if len(set(self.ids)) != len(self.ids):
            raise PocketiqaError(
                f"a label table names {Counter(self.ids).most_common(1)[0][0]!r} twice: merge its scores"
            )
        for name, values in (("score", self.scores), ("confidence", self.confidence)):
            # Negated, so that NaN is refused too: no comparison with it is true.
            wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
            if wrong.size:
                raise PocketiqaError(
                    f"the {name} of {self.ids[wrong[0]]!r} is {values[wrong[0]]}: scale it to [0, 1], 1 best"
                )

    @property
    def digest(self) -> str:
        """Identity of the labels."""
        return digest_of([self.ids, self.scores.tolist(), self.confidence.tolist()])


@dataclass(frozen=True)
class Source:
    """A pool with labels.

    Attributes:
        name: for people and for the history.
        pool: where the images are.
        labels: a finished store made from this pool, or a table of scores by image id.
        weight: how often each of its images is drawn per pass through the data: 1 once, 2.5 two or three times,
            0.5 every other pass, 0 never: such a source only validates.
        selects: whether its validation images count in choosing the best checkpoint.
        features: a finished store whose features go with a table of scores, image by image: a teacher shows what the
            student shall see, people say what it shall score. A store of labels brings its own.
        only: ids of the images that are learned from; None for all that have a label.
        regions: labels of regions of the images, learned beside the labels of images. An image whose label has no
            confidence is learned from by its regions alone.
        levels: lists of copies of a photograph whose order is learned, and nothing else of this source: its labels only
            name the images. ``weight`` is then how often each list is drawn.
    """

    name: str
    pool: Pool
    labels: LabelStore | LabelTable
    weight: float = 1.0
    selects: bool = True
    features: LabelStore | None = None
    only: frozenset[str] | None = None
    regions: RegionTable | None = None
    levels: LevelLists | None = None

    @property
    def feature_store(self) -> LabelStore | None:
        """Where teacher features of its images are, if anywhere."""
        return self.labels if isinstance(self.labels, LabelStore) else self.features

    @property
    def of_crops(self) -> bool:
        """Whether its labels are of crops: they are no labels of whole images, on which models are evaluated."""
        return isinstance(self.labels, LabelStore) and self.labels.spec.of_crops

    def describe(self) -> dict[str, Any]:
        """What determines the examples, as JSON values."""
        # No key where there is nothing to say: what earlier versions wrote of such a source is still equal, so their
        # runs resume.
        beside = {} if self.features is None else {"features": self.features.digest}
        beside |= {} if self.only is None else {"only": digest_of(sorted(self.only))}
        beside |= {} if self.regions is None else {"regions": self.regions.digest}
        beside |= {} if self.levels is None else {"levels": self.levels.digest}
        return {
            "name": self.name,
            "pool": self.pool.digest,
            "labels": self.labels.digest,
            "weight": self.weight,
            "selects": self.selects,
            **beside,
        }


def teachers_of(sources: Sequence[Source]) -> list[TeacherStamp]:
    """Whose labels are learned, or features are compared with: each once, in the order of the sources."""
    stamps = [store.spec.stamp for source in sources if (store := source.feature_store) is not None]
    stamps += [source.regions.teacher for source in sources if source.regions is not None]
    return list({stamp.digest: stamp for stamp in stamps}.values())


@dataclass(frozen=True)
class Examples:
    """Rows to train or validate on, as columns of equal length.

    Attributes:
        source: index of the source.
        row: position in its pool.
        target: score in [0, 1].
        weight: confidence of the label.
        flipped: whether the label is of the mirror image.
        box: [N, 4], top, left, height and width of the part that the label is of, as fractions of the image.
        shard: where cached features are, -1 where there are none.
        shard_row: position within the shard.
        levels: [N, 4], number of the list, level of distortion, least and most drop of the score for each level, for
            ``losses.level_ranking_loss``; number -1 for a picture of no list. Pictures of a list follow each other.
    """

    source: np.ndarray
    row: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    flipped: np.ndarray
    box: np.ndarray
    shard: np.ndarray
    shard_row: np.ndarray
    levels: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: np.ndarray) -> "Examples":
        """The rows that an index or mask picks."""
        return Examples(*(getattr(self, column.name)[which] for column in fields(self)))

    def with_mean_weight_one(self) -> "Examples":
        """The same rows, their weights scaled: losses divide by the number of rows, not by the sum of weights."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        # Pictures of lists have no labels: counted in, they would make those of the others weigh the more, the more
        # lists there are. Images that are learned from by their regions alone have weight 0; there may be no others.
        labelled = self.weight[self.levels[:, 0] < 0]
        mean = (labelled.mean() if len(labelled) else 0.0) or 1.0
        return Examples(**(columns | {"weight": (self.weight / mean).astype(np.float32)}))


class ImagesOf(Sequence[ImageRef]):
    """The images of examples, made on demand: as objects, those of a million rows would take a gigabyte.

    Args:
        pools: the pool of each source.
        source: int [n], number of the source of each example.
        row: int [n], position in its pool.
    """

    def __init__(self, pools: Sequence[Pool], source: np.ndarray, row: np.ndarray):
        self._pools, self._source, self._row = pools, source, row

    def __len__(self) -> int:
        return len(self._row)

    @overload
    def __getitem__(self, index: int) -> ImageRef: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageRef]: ...

    def __getitem__(self, index: int | slice) -> ImageRef | Sequence[ImageRef]:
        if isinstance(index, slice):
            return ImagesOf(self._pools, self._source[index], self._row[index])
        return self._pools[int(self._source[index])][int(self._row[index])]

    def __iter__(self) -> Iterator[ImageRef]:
        # Rows of a source follow each other.
        for block in np.split(np.arange(len(self)), np.flatnonzero(np.diff(self._source)) + 1):
            for start in range(0, len(block), ROWS_AT_ONCE):
                here = block[start : start + ROWS_AT_ONCE]
                yield from self._pools[int(self._source[here[0]])].take(self._row[here])


@dataclass(frozen=True)
class Collected:
    """All usable examples of all sources, with what was left out.

    Attributes:
        examples: in order of source and pool.
        refs: the image of each example.
        skipped: number of rows left out, by source and reason.
    """

    examples: Examples
    refs: Sequence[ImageRef]
    skipped: dict[str, int]

    def of(self, split: Split, part: Part) -> Examples:
        """The examples of one part."""
        ids = (ref.id for ref in self.refs)
        return self.examples.take(np.fromiter((split.parts[id] == part for id in ids), bool, len(self.refs)))


def collect(sources: Sequence[Source], caches: Sequence[PixelCache], feature: str | None = None) -> Collected:
    """Gather every row that has pixels, a score and some confidence.

    Args:
        sources: pools with labels; names must differ.
        caches: pixels of each source's pool.
        feature: name of a teacher feature that training compares with; sources without it take no part in that.

    Raises:
        PocketiqaError: labels that belong to another pool, an unknown view, a feature that no source has, or no
            usable row at all.
    """
    _check(sources, feature)
    kept = _Columns()
    lists = 0
    skipped: Counter[str] = Counter()
    for number, (source, cache) in enumerate(zip(sources, caches, strict=True)):
        labels = _labels(source, feature) if source.levels is None else _level_rows(source, source.levels, lists)
        lists += 0 if source.levels is None else len(source.levels)
        for label, ref in labels:
            # Not counted as skipped: the recipe wanted these images alone.
            if source.only is not None and ref.id not in source.only:
                continue
            regions = None if source.regions is None else source.regions.at(label.row)
            reason = _unusable(label, ref, cache, needs_no_score=regions is not None or source.levels is not None)
            if reason:
                skipped[f"{source.name}: {reason}"] += 1
                continue
            kept.add(number, label, _crop(label, ref))
    examples = kept.examples()
    if not len(examples):
        raise PocketiqaError(f"no usable labelled image in {[source.name for source in sources]} ({dict(skipped)})")
    refs = ImagesOf([source.pool for source in sources], examples.source, examples.row)
    return Collected(examples, refs, dict(sorted(skipped.items())))


class _Columns:
    """Examples as they come, as numbers of their final size and not as objects."""

    def __init__(self) -> None:
        # ``array`` has no type for truth values.
        self._columns = {name: array("b" if kind is np.bool_ else np.dtype(kind).char) for name, kind in _TYPES.items()}

    def add(self, source: int, label: "_Label", box: tuple[float, ...]) -> None:
        source_, row, target, weight, flipped, box_, shard, shard_row, levels = self._columns.values()
        source_.append(source)
        row.append(label.row)
        target.append(label.score)
        weight.append(label.confidence)
        flipped.append(label.view == FLIP)
        box_.extend(box)
        shard.append(label.shard)
        shard_row.append(label.shard_row)
        levels.extend(label.levels)

    def examples(self) -> Examples:
        columns = {name: np.array(column, dtype=_TYPES[name]) for name, column in self._columns.items()}
        return Examples(**{name: own.reshape(-1, 4) if name in _FOURS else own for name, own in columns.items()})


_OF_LABELS = ("status", "score", "confidence", "view", "sha256")


@dataclass(frozen=True, slots=True)
class _Label:
    row: int
    status: str
    score: float
    confidence: float
    view: str
    sha256: str
    shard: int = -1
    shard_row: int = -1
    levels: tuple[float, float, float, float] = (-1.0, 0.0, 0.0, NO_LIMIT)


def _level_rows(source: Source, lists: LevelLists, first: int) -> Iterator[tuple[_Label, ImageRef]]:
    """The pictures of lists, which are numbered from ``first``; a clean picture comes once for each of its lists."""
    refs = {row: source.pool[row] for row in lists.rows}
    for number, one in enumerate(lists, start=first):
        for row, level in one.places:
            levels = (float(number), level, one.drop.least, one.drop.most)
            yield _Label(row, Status.OK, 0.0, 0.0, FULL, sha256=refs[row].sha256, levels=levels), refs[row]


def _labels(source: Source, feature: str | None) -> Iterator[tuple[_Label, ImageRef]]:
    """The labels of a source with their images, in the pool's order."""
    labels = source.labels
    if isinstance(labels, LabelTable):
        yield from _table_labels(source, labels, feature)
        return
    # Sources without the feature are learned from by their scores; -1 keeps their rows out of the feature loss.
    featured = feature is not None and feature in labels.spec.features
    refs = iter(source.pool)
    for shard in range(labels.spec.shards):
        table = labels.shard_labels(shard)
        records = zip(*(table[name].to_pylist() for name in _OF_LABELS), strict=True)
        # ``refs`` runs on over all shards, so it comes last: zip asks it only if the others have a row, and takes no
        # image too many at the end of a shard.
        for index, (row, record, ref) in enumerate(zip(labels.shard_rows(shard), records, refs, strict=False)):
            at, at_row = (shard, index) if featured else (-1, -1)
            yield _Label(row, *record, shard=at, shard_row=at_row), ref


def _table_labels(source: Source, table: LabelTable, feature: str | None) -> Iterator[tuple[_Label, ImageRef]]:
    left = {image_id: index for index, image_id in enumerate(table.ids)}
    featured = _feature_places(source.features, feature)
    for row, ref in enumerate(source.pool):
        # A duplicate has its original's id; only the original is learned from.
        index = left.pop(ref.id, None) if ref.status != Status.DUPLICATE else None
        if index is not None:
            score, confidence = float(table.scores[index]), float(table.confidence[index])
            shard, shard_row = featured.get(ref.id, (-1, -1))
            label = _Label(row, Status.OK, score, confidence, FULL, sha256=ref.sha256, shard=shard, shard_row=shard_row)
            yield label, ref
    # The table may be of another version of the pool: to learn from the rest in silence would hide it.
    if left:
        raise PocketiqaError(
            f"source {source.name!r}: {len(left)} of {len(table.ids)} labelled images are not in the pool "
            f"{source.pool.folder}, first {next(iter(left))!r}"
        )


def _feature_places(store: LabelStore | None, feature: str | None) -> dict[str, tuple[int, int]]:
    """Shard and row of the feature of each whole image that has one, by image id."""
    if store is None or feature not in store.spec.features:
        return {}
    return {
        record["id"]: (shard, index)
        for shard in range(store.spec.shards)
        for index, record in enumerate(store.shard_labels(shard).to_pylist())
        if record["status"] == Status.OK and record["view"] == FULL
    }


def _unusable(label: _Label, ref: ImageRef, cache: PixelCache, *, needs_no_score: bool) -> str:
    """Why a row is not learned from; empty if it is."""
    if label.status != Status.OK:
        return f"label {label.status}"
    if ref.status != Status.OK:
        return f"image {ref.status.value}"
    # The score is of other pixels than training would show.
    if label.sha256 != ref.sha256:
        return "image changed since it was labelled"
    # Good when the pool was made, and unreadable by the time it was decoded for training.
    if label.row in cache.statuses:
        return f"image {cache.statuses[label.row][0].value}"
    # A row of weight 0 would only take a place in a batch, unless its regions or its place in a list are learned.
    return "" if label.confidence > 0 or needs_no_score else "no confidence"


def _crop(label: _Label, ref: ImageRef) -> tuple[float, ...]:
    try:
        return _box_of(label.view)
    except PocketiqaError as error:
        raise PocketiqaError(f"the label of image {ref.id} cannot be learned from: {error}") from error


@lru_cache(maxsize=1024)
def _box_of(view: str) -> tuple[float, ...]:
    return astuple(crop_of(view))


def _check(sources: Sequence[Source], feature: str | None) -> None:
    names = [source.name for source in sources]
    if not sources or len(set(names)) != len(names):
        raise PocketiqaError(f"sources {names}: give at least one, each with a name of its own")
    for source in sources:
        store = source.labels if isinstance(source.labels, LabelStore) else None
        if source.weight < 0:
            raise PocketiqaError(f"source {source.name!r} has weight {source.weight}: it must be at least 0")
        # Labels are matched by row, so they must be of this very pool.
        if store is not None and store.spec.pool_digest != source.pool.digest:
            raise PocketiqaError(
                f"source {source.name!r}: the labels in {store.folder} were made for another pool than "
                f"{source.pool.folder} (or it has changed since): label this pool"
            )
    if not any(source.selects for source in sources):
        raise PocketiqaError(f"none of the sources {names} selects: at least one must choose the best checkpoint")
    _check_features(sources, feature)


def _check_features(sources: Sequence[Source], feature: str | None) -> None:
    for source in sources:
        if source.features is None:
            continue
        if isinstance(source.labels, LabelStore):
            raise PocketiqaError(f"source {source.name!r}: a label store has features of its own: leave features out")
        if feature is None:
            raise PocketiqaError(
                f"source {source.name!r} has features, but no loss compares with them: give losses.feature or "
                "losses.relational a weight (without a live teacher), or leave features out"
            )
    known = sorted({name for source in sources if (store := source.feature_store) for name in store.spec.features})
    if feature is not None and feature not in known:
        raise PocketiqaError(f"no source has the feature {feature!r}: {known or 'none at all'} are stored")
