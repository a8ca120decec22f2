"""The scores that models are evaluated against: ratings of people, or labels of a teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.benchmarks.records import Benchmark
from pseudo_labels import addresses
from pseudo_labels.crops import FULL
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.store import LabelStore

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Targets:
    """The scores to predict, one for each image.

    Attributes:
        name: name of the benchmark or of the labels.
        source: ``opinions`` (ratings of people) or ``teacher``.
        ids: distinct image ids.
        scores: float64 [N] in [0, 1], 1 best.
        groups: scene of each image; images of one scene are resampled together.
        subsets: subset under which each image is reported; empty for none.
        near_training: whether the image shows a scene of the training part; headline figures leave it out.
        about: facts for a report, as JSON values.
        names: image names for people; empty to use the ids.
        marked: which of ``near_training`` the benchmark marks itself; empty if all.
    """

    name: str
    # "opinions" is the old word for ratings; reports on disk have it.
    source: Literal["opinions", "teacher"]
    ids: tuple[str, ...]
    scores: FloatArray
    groups: tuple[str, ...]
    subsets: tuple[str, ...]
    near_training: tuple[bool, ...]
    about: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    marked: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        # Predictions are matched to targets by id, and the other columns by position.
        lengths = {len(part) for part in (self.ids, self.scores, self.groups, self.subsets, self.near_training)}
        if len(lengths) > 1 or len(set(self.ids)) < len(self.ids):
            raise PocketiqaError(
                f"targets {self.name!r}: ids, scores, groups and subsets must belong together, ids once"
            )
        if self.names and len(self.names) != len(self.ids):
            raise PocketiqaError(f"targets {self.name!r}: {len(self.names)} names for {len(self.ids)} images")
        if not self.ids:
            raise PocketiqaError(f"targets {self.name!r} hold no images: there is nothing to evaluate on")

    def part(self, ids: Sequence[str]) -> "Targets":
        """The targets of ``ids`` alone, in that order.

        Raises:
            PocketiqaError: ``ids`` is empty, or one of them has no target.
        """
        index_of = {id: index for index, id in enumerate(self.ids)}
        unknown = [id for id in ids if id not in index_of]
        if unknown:
            raise PocketiqaError(f"targets {self.name!r} have no score for {unknown[0]!r}: name images that have one")
        indices = [index_of[id] for id in ids]
        return replace(
            self,
            ids=tuple(ids),
            scores=self.scores[indices],
            groups=tuple(self.groups[index] for index in indices),
            subsets=tuple(self.subsets[index] for index in indices),
            near_training=tuple(self.near_training[index] for index in indices),
            names=tuple(self.names[index] for index in indices) if self.names else (),
            marked=tuple(self.marked[index] for index in indices) if self.marked else (),
        )


def targets_from_benchmark(benchmark: Benchmark) -> Targets:
    """Ratings of a benchmark, of all its rows: select the split first.

    An image is near the training part if the benchmark marks it, or if a comparison by features detected it.
    """
    rows = benchmark.rows
    return Targets(
        name=benchmark.name,
        source="opinions",
        ids=tuple(row.id for row in rows),
        scores=np.array([row.score for row in rows], np.float64),
        groups=tuple(row.group for row in rows),
        subsets=tuple(row.subset for row in rows),
        near_training=tuple(row.near_training or row.near_duplicate for row in rows),
        about=benchmark.as_dict(),
        marked=tuple(row.near_training for row in rows),
    )


def distortion_family(ref: ImageRef) -> str:
    """Family of the distortion of an image, ``original`` for none, ``several`` for regions that differ in it."""
    # Imported here: loading all distortions takes a fifth of a second, which an evaluation on ratings does not need.
    from pseudo_labels.distort import DISTORTIONS

    # A pool of another origin may name distortions that the catalogue lacks: they are families of their own.
    names = {one.distortion for one in ref.distorted_regions} or {ref.distortion}
    if len(names) > 1:
        return "several"
    (name,) = names
    known = DISTORTIONS.get(name)
    return known.family if known else name or "original"


def targets_from_labels(
    store: LabelStore,
    pool: Pool,
    ids: Sequence[str] | None = None,
    *,
    subset_of: Callable[[ImageRef], str] = distortion_family,
) -> Targets:
    """Labels of a teacher as targets: the agreement of a student with it.

    Args:
        store: finished labels of ``pool``.
        pool: pool of the images; gives groups and distortions.
        ids: images to evaluate on, such as the held-out part; all with a label if None. Images without a label are
            left out.
        subset_of: gives the subset under which an image is reported.

    Raises:
        PocketiqaError: the store is of another pool, or none of the images has a label.
    """
    if store.spec.pool_digest != pool.digest:
        raise PocketiqaError(f"the labels in {store.folder} are of another pool than {pool.folder}")
    # A store may hold crops as well; only the score of the full image is comparable with other models.
    columns = store.labels().select(["id", "view", "status", "score"]).to_pylist()
    scores = {row["id"]: row["score"] for row in columns if row["view"] == FULL and row["status"] == Status.OK}
    wanted = [id for id in (scores if ids is None else ids) if id in scores]
    refs = [pool.by_id(id) for id in wanted]
    stamp = store.spec.stamp
    return Targets(
        name=f"labels of {stamp.name}",
        source="teacher",
        ids=tuple(wanted),
        scores=np.array([scores[id] for id in wanted], np.float64),
        # An image without a group is a scene of its own; under one empty name, all such images would be drawn as one.
        groups=tuple(ref.group or ref.id for ref in refs),
        subsets=tuple(subset_of(ref) for ref in refs),
        near_training=(False,) * len(wanted),
        about={"stamp": stamp.as_dict(), "digest": store.digest, "scale": stamp.scale, "images": len(wanted)},
        names=tuple(display_name(pool, ref) for ref in refs),
    )


def display_name(pool: Pool, ref: ImageRef) -> str:
    """File name of an image of a pool; for a distorted copy that of its reference, with distortion and level."""
    original = pool.by_id(ref.ref_id) if ref.ref_id else ref
    name = addresses.name_of(original.uri)
    return f"{name}, {ref.distortion.replace('_', ' ')} {ref.level:.2g}" if ref.distortion else name
