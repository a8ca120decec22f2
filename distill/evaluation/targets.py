"""What models are judged by: opinions of people, or the labels of a teacher that a student should agree with."""

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
    """The scores to be met, one for each image.

    Attributes:
        name: of the benchmark or of the labels.
        source: ``ratings`` of people or ``teacher``.
        ids: of the images, distinct.
        scores: in [0, 1], 1 best.
        groups: images of one scene share it; they are resampled together.
        subsets: part that is reported separately; empty for none.
        near_training: images known to show a scene of the training part; headline figures leave them out.
        about: facts for a report, as JSON values.
        names: of the images, for a person; the ids if empty.
        marked: those of ``near_training`` that the benchmark itself marks; all of these if empty.
    """

    name: str
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
        lengths = {len(part) for part in (self.ids, self.scores, self.groups, self.subsets, self.near_training)}
        if len(lengths) > 1 or len(set(self.ids)) < len(self.ids):
            raise PocketiqaError(
                f"targets {self.name!r}: ids, scores, groups and subsets must belong together, ids once"
            )
        if self.names and len(self.names) != len(self.ids):
            raise PocketiqaError(f"targets {self.name!r}: {len(self.names)} names for {len(self.ids)} images")
        if not self.ids:
            raise PocketiqaError(f"targets {self.name!r} hold no images: there is nothing to judge by")

    def part(self, ids: Sequence[str]) -> "Targets":
        """Those of ``ids`` alone, in that order.

        Raises:
            PocketiqaError: none, or some of them are no targets.
        """
        at = {id: place for place, id in enumerate(self.ids)}
        strange = [id for id in ids if id not in at]
        if strange:
            raise PocketiqaError(f"targets {self.name!r} say nothing of {strange[0]!r}: name images that have one")
        places = [at[id] for id in ids]
        return replace(
            self,
            ids=tuple(ids),
            scores=self.scores[places],
            groups=tuple(self.groups[place] for place in places),
            subsets=tuple(self.subsets[place] for place in places),
            near_training=tuple(self.near_training[place] for place in places),
            names=tuple(self.names[place] for place in places) if self.names else (),
            marked=tuple(self.marked[place] for place in places) if self.marked else (),
        )


def targets_from_benchmark(benchmark: Benchmark) -> Targets:
    """Opinions of a benchmark (select its split first)."""
    rows = benchmark.rows
    return Targets(
        benchmark.name,
        "opinions",
        tuple(row.id for row in rows),
        np.array([row.score for row in rows], np.float64),
        tuple(row.group for row in rows),
        tuple(row.subset for row in rows),
        tuple(row.near_training or row.near_duplicate for row in rows),
        benchmark.as_dict(),
        marked=tuple(row.near_training for row in rows),
    )


def distortion_family(ref: ImageRef) -> str:
    """Family of the distortion of an image, ``original`` for none."""
    from pseudo_labels.distort import CATALOGUE

    known = CATALOGUE.get(ref.distortion)
    return known.family if known else ref.distortion or "original"


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
        pool: gives groups and distortions.
        ids: images to judge by, such as the held-out part; all with a label if None. Those without a label are left
            out.
        subset_of: part that an image is reported under.

    Raises:
        PocketiqaError: the store is of another pool, or none of the images has a label.
    """
    if store.spec.pool_digest != pool.digest:
        raise PocketiqaError(f"the labels in {store.folder} are of another pool than {pool.folder}")
    columns = store.labels().select(["id", "view", "status", "score"]).to_pylist()
    scores = {row["id"]: row["score"] for row in columns if row["view"] == FULL and row["status"] == Status.OK}
    wanted = [id for id in (scores if ids is None else ids) if id in scores]
    refs = [pool.by_id(id) for id in wanted]
    stamp = store.spec.stamp
    return Targets(
        f"labels of {stamp.name}",
        "teacher",
        tuple(wanted),
        np.array([scores[id] for id in wanted], np.float64),
        tuple(ref.group or ref.id for ref in refs),
        tuple(subset_of(ref) for ref in refs),
        (False,) * len(wanted),
        {"stamp": stamp.as_dict(), "digest": store.digest, "scale": stamp.scale, "images": len(wanted)},
        tuple(display_name(pool, ref) for ref in refs),
    )


def display_name(pool: Pool, ref: ImageRef) -> str:
    """File name of an image of a pool; of a damaged copy that of its reference, with the distortion and its level."""
    original = pool.by_id(ref.ref_id) if ref.ref_id else ref
    name = addresses.name_of(original.uri)
    return f"{name}, {ref.distortion.replace('_', ' ')} {ref.level:.2g}" if ref.distortion else name
