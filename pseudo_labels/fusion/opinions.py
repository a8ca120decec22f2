"""Human opinions of images of a pool, laid beside what teachers say of the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.fusion.parts import Part
from pseudo_labels.pool import Pool

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Opinions:
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


def find_opinions(
    parts: Sequence[Part],
    spans: Sequence[range],
    scored: NDArray[np.bool_],
    opinions: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
) -> Opinions:
    """The rated rows for which at least one teacher has a score.

    Args:
        parts: of one pool.
        spans: blocks of rows that cover the pool.
        scored: [rows], whether any teacher has a score.
        opinions: in [0, 1] by image id; images that are not in the pool are left out.
        groups: scene by image id; None takes the pool's, and where that is gone each image is its own scene.
    """
    rows: list[int] = []
    ids: list[str] = []
    for span in spans:
        for row, image_id in zip(span, parts[0].rows(span)["id"].to_pylist(), strict=True):
            # A duplicate has its original's id, and no score.
            if scored[row] and image_id in opinions:
                rows.append(row)
                ids.append(image_id)
    if not rows:
        raise PocketiqaError(
            f"none of the {len(opinions)} rated images is among those that the teachers labelled: make the pool of "
            "the rated images and the others together, and label that"
        )
    scenes = groups if groups is not None else _pool_groups(parts[0], set(ids))
    own = tuple(scenes.get(image_id) or image_id for image_id in ids)
    scores = [float(opinions[image_id]) for image_id in ids]
    identity = digest_of([ids, scores, list(own)])
    return Opinions(np.array(rows, np.int64), np.array(scores, np.float64), own, identity)


def _pool_groups(part: Part, ids: set[str]) -> dict[str, str]:
    try:
        pool = Pool.open(part.store.pool_path)
    except PocketiqaError:
        return {}
    if pool.digest != part.store.spec.pool_digest:
        return {}
    return {ref.id: ref.group for ref in pool if ref.id in ids}
