"""Tested images beside trained ones: who is near whom, what copying the neighbour gives, which scenes they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.data.split import Part, join_groups, split_groups
from distill.evaluation.evaluate import evaluate
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.leakage.embeddings import Embeddings
from distill.leakage.extractor import FeatureExtractor
from distill.leakage.image_sets import ImageSet
from distill.leakage.neighbours import components, nearest, standardised
from distill.leakage.record import FORMAT, KIND
from distill.recipe.training import SplitSettings
from pseudo_labels.records import ImageRef, Status

TRAINED, TESTED = "trained", "tested"
Key = tuple[str, str]
"""A set (``trained`` or ``tested``) and the id of an image in it."""


def scenes(keys: Sequence[Key], known: Sequence[str], vectors: NDArray[np.float32], above: float) -> dict[Key, str]:
    """The scene of every image: a chain of similar images, joined with the groups that are known.

    Args:
        keys: of the images, N.
        known: group of each, such that equal names mean one group; empty for none.
        vectors: unit vectors [N, D].
        above: cosine above which two images are of one scene.

    Returns:
        Name of the scene by set and id: ``scene-00012``, numbered in the order of their first images.
    """
    nodes: list[ImageRef] = []
    for key, group, label in zip(keys, known, components(vectors, above).tolist(), strict=True):
        nodes.append(ImageRef(_node(key), "", group=f"alike: {label}"))
        nodes.append(ImageRef(_node(key), "", group=group and f"known: {group}"))
    joined = join_groups(nodes)
    numbers = {name: at for at, name in enumerate(dict.fromkeys(joined[_node(key)] for key in keys))}
    return {key: f"scene-{numbers[joined[_node(key)]]:05d}" for key in keys}


def _node(key: Key) -> str:
    return f"{key[0]}: {key[1]}"


def parts_of(scene_of: Mapping[Key, str], *, validation: float, seed: int) -> dict[Key, str]:
    """A part for every image, such that no scene is in two: ``test`` is what was tested, whatever else shows it is out.

    Args:
        scene_of: of ``scenes``.
        validation: share of the images that can be learned from; whole scenes.
        seed: of that draw.

    Returns:
        ``train``, ``validation``, ``test``, or ``near test`` for an image to leave out, by set and id.

    Raises:
        PocketiqaError: too few scenes are left to learn from.
    """
    shown = {scene for (side, _), scene in scene_of.items() if side == TESTED}
    free = {_node(key): scene for key, scene in scene_of.items() if scene not in shown}
    drawn = split_groups(free, SplitSettings(validation=validation, seed=seed)).parts
    found: dict[Key, str] = {}
    for key in scene_of:
        if key[0] == TESTED:
            found[key] = Part.TEST.value
        else:
            found[key] = drawn[_node(key)].value if _node(key) in drawn else "near test"
    return found


COPY = "copy of the nearest trained image"
_NOT_JUDGED = "the tested images have no scores to compare copies with"
_NO_SCORES = "the trained images have no scores to copy: name them as a benchmark that has, NAME:FOLDER"


@dataclass(frozen=True)
class Compared:
    """Two sets of images, compared.

    Attributes:
        trained: with features.
        tested: likewise.
        index: position in ``trained`` of the nearest image to each of ``tested``.
        cosine: of both, in [-1, 1].
        scene_of: scene of every image, by set and id.
        above: cosine above which two images are near.
    """

    trained: Embeddings
    tested: Embeddings
    index: NDArray[np.int64]
    cosine: NDArray[np.float32]
    scene_of: Mapping[Key, str]
    above: float

    @property
    def near(self) -> NDArray[np.bool_]:
        """Which of ``tested`` have a near neighbour."""
        return self.cosine > self.above


def compare(names: tuple[str, str], trained: Embeddings, tested: Embeddings, above: float) -> Compared:
    """Find the nearest trained image of every tested one, and the scenes of both.

    Args:
        names: of the two sets; groups of equal names are one group only in sets of one name.
        trained: at least 2 images.
        tested: at least 1.
        above: see ``neighbours.check_above``.

    Raises:
        PocketiqaError: fewer images than that.
    """
    first, second = standardised(trained.vectors, tested.vectors)
    index, cosine = nearest(second, first)
    keys: list[Key] = [(TRAINED, image.sample.id) for image in trained.images]
    keys += [(TESTED, image.sample.id) for image in tested.images]
    known = [image.group and f"{names[0]}: {image.group}" for image in trained.images]
    known += [image.group and f"{names[1]}: {image.group}" for image in tested.images]
    scene_of = scenes(keys, known, np.concatenate([first, second]), above)
    return Compared(trained, tested, index, cosine, scene_of, above)


def as_record(
    found: Compared, trained: ImageSet, tested: ImageSet, by: FeatureExtractor, *, seed: int
) -> dict[str, Any]:
    """The content of ``overlap.json``.

    Args:
        found: of ``compare``.
        trained: all images that were to be compared.
        tested: likewise, with targets.
        by: described them.
        seed: of the bootstrap.
    """
    copying, reason = _copying(found, tested, seed)
    return {
        "kind": KIND,
        "format": FORMAT,
        "by": by.as_dict(),
        "above": found.above,
        "trained": {"name": trained.name, **found.trained.coverage()},
        "tested": {"name": tested.name, **found.tested.coverage()},
        "near": int(found.near.sum()),
        "marked": _marked(found, tested.targets),
        "copying": copying,
        "copying_reason": reason,
        "scenes": _scene_counts(found),
        "images": _images(found, tested),
    }


def _images(found: Compared, tested: ImageSet) -> list[dict[str, Any]]:
    """A row for every tested image, in order; without a cosine where it could not be compared."""
    at = {image.sample.id: position for position, image in enumerate(found.tested.images)}
    rows = []
    for image in tested.images:
        row: dict[str, Any] = {"id": image.sample.id, "name": image.name, "score": _number(image.score)}
        row |= {"nearest": None, "nearest_name": None, "nearest_score": None, "cosine": None, "near": False}
        if (place := at.get(image.sample.id)) is not None:
            neighbour = found.trained.images[found.index[place]]
            row |= {"nearest": neighbour.sample.id, "nearest_name": neighbour.name}
            row |= {"nearest_score": _number(neighbour.score), "cosine": float(found.cosine[place])}
            row |= {"near": bool(found.near[place]), "scene": found.scene_of[TESTED, image.sample.id]}
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _copying(found: Compared, tested: ImageSet, seed: int) -> tuple[dict[str, Any] | None, str]:
    """The neighbour's score judged like the score of a model, or why it cannot be."""
    scores = np.array([image.score for image in found.trained.images], np.float64)[found.index]
    if tested.targets is None:
        return None, _NOT_JUDGED
    if np.isnan(scores).all():
        return None, _NO_SCORES
    statuses = tuple(Status.FAILED if np.isnan(score) else Status.OK for score in scores)
    reasons = tuple("its nearest trained image has no score" if np.isnan(score) else "" for score in scores)
    ids = tuple(image.sample.id for image in found.tested.images)
    copy = Predictions(COPY, "copy", ids, scores, statuses, reasons)
    near = {id for id, is_near_duplicate in zip(ids, found.near, strict=True) if is_near_duplicate}
    return evaluate([copy], tested.targets, overlapping=near, seed=seed), ""


def _marked(found: Compared, targets: Targets | None) -> dict[str, int] | None:
    """How the near images agree with those that the benchmark marks as near itself; None where it marks none."""
    if targets is None or not any(targets.near_training):
        return None
    marked = {id for id, is_marked in zip(targets.ids, targets.near_training, strict=True) if is_marked}
    ids = [image.sample.id for image in found.tested.images]
    near = {id for id, is_near_duplicate in zip(ids, found.near, strict=True) if is_near_duplicate}
    return {"marked": len(marked), "found": len(near), "both": len(marked & near)}


def _scene_counts(found: Compared) -> dict[str, int]:
    """How many scenes there are, how many are on both sides, and how many images the largest has."""
    sizes, sides = Counter(found.scene_of.values()), {TRAINED: set[str](), TESTED: set[str]()}
    for (side, _), scene in found.scene_of.items():
        sides[side].add(scene)
    both = sides[TRAINED] & sides[TESTED]
    return {"scenes": len(sizes), "on_both_sides": len(both), "largest": max(sizes.values())}
