"""Compares test images with training images: near duplicates, what copying the neighbour's score gives, and scenes."""

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
COPY = "copy of the nearest trained image"
_NO_TARGETS = "the tested images have no scores to compare copies with"
_NO_SCORES = "the trained images have no scores to copy: name them as a benchmark that has, NAME:FOLDER"

Key = tuple[str, str]
"""A set (``trained`` or ``tested``) and the id of an image in it."""


def scenes(keys: Sequence[Key], known: Sequence[str], vectors: NDArray[np.float32], above: float) -> dict[Key, str]:
    """The scene of every image: a chain of similar images, joined with the groups that are known.

    Args:
        keys: keys of the N images.
        known: known group of each image; empty for none.
        vectors: unit vectors [N, D].
        above: cosine above which two images show one scene.

    Returns:
        Name of the scene by set and id: ``scene-00012``, numbered in the order of their first images.
    """
    # Each image is entered twice, once with each kind of group: ``join_groups`` then joins chains over both kinds. The
    # prefixes keep a number of one kind from being taken for a name of the other.
    nodes: list[ImageRef] = []
    for key, group, label in zip(keys, known, components(vectors, above).tolist(), strict=True):
        nodes.append(ImageRef(_node(key), "", group=f"alike: {label}"))
        nodes.append(ImageRef(_node(key), "", group=group and f"known: {group}"))
    joined = join_groups(nodes)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(joined[_node(key)] for key in keys))}
    return {key: f"scene-{numbers[joined[_node(key)]]:05d}" for key in keys}


def _node(key: Key) -> str:
    return f"{key[0]}: {key[1]}"


def parts_of(scene_of: Mapping[Key, str], *, validation: float, seed: int) -> dict[Key, str]:
    """A part for every image, such that no scene is in two parts.

    The tested images are the test part; trained images that show one of their scenes are left out.

    Args:
        scene_of: scene by set and id, as from ``scenes``.
        validation: fraction of the remaining trained images, by whole scenes.
        seed: seed of the draw of the validation part.

    Returns:
        Part by set and id: ``train``, ``validation``, ``test``, or ``near test`` for an image to leave out.

    Raises:
        PocketiqaError: too few scenes are left to learn from.
    """
    tested_scenes = {scene for (image_set, _), scene in scene_of.items() if image_set == TESTED}
    free = {_node(key): scene for key, scene in scene_of.items() if scene not in tested_scenes}
    # The tested images are the test part already, so no other one is drawn.
    drawn = split_groups(free, SplitSettings(validation=validation, seed=seed)).parts
    parts: dict[Key, str] = {}
    for key in scene_of:
        if key[0] == TESTED:
            parts[key] = Part.TEST.value
        else:
            parts[key] = drawn[_node(key)].value if _node(key) in drawn else "near test"
    return parts


@dataclass(frozen=True)
class Compared:
    """Two sets of images, compared.

    Attributes:
        trained: training images with their features, N.
        tested: test images with their features, M.
        index: position in ``trained`` of the nearest image to each test image [M].
        cosine: cosine of each test image and its nearest neighbour [M], in [-1, 1].
        scene_of: scene of every image, by set and id.
        above: cosine above which two images are near duplicates.
    """

    trained: Embeddings
    tested: Embeddings
    index: NDArray[np.int64]
    cosine: NDArray[np.float32]
    scene_of: Mapping[Key, str]
    above: float

    @property
    def is_near_duplicate(self) -> NDArray[np.bool_]:
        """Whether each test image has a near duplicate among the training images [M]."""
        return self.cosine > self.above

    @property
    def near_duplicate_ids(self) -> set[str]:
        """Ids of the test images that have a near duplicate among the training images."""
        pairs = zip(self.tested.images, self.is_near_duplicate, strict=True)
        return {image.sample.id for image, is_near_duplicate in pairs if is_near_duplicate}


def compare(names: tuple[str, str], trained: Embeddings, tested: Embeddings, above: float) -> Compared:
    """Find the nearest trained image of every tested one, and the scenes of both.

    Args:
        names: names of the training and test set; equal group names mean one group only if the sets have one name.
        trained: at least 2 images with features.
        tested: at least 1 image with features.
        above: cosine above which two images are near duplicates, see ``neighbours.check_above``.

    Raises:
        PocketiqaError: there are fewer images than that.
    """
    # Standardised by the training images alone, see ``standardised``; scenes then use both sets in one space.
    first, second = standardised(trained.vectors, tested.vectors)
    index, cosine = nearest(second, first)
    keys: list[Key] = [(TRAINED, image.sample.id) for image in trained.images]
    keys += [(TESTED, image.sample.id) for image in tested.images]
    # An image without a known group stays without one: an empty name must not join all such images.
    known = [image.group and f"{names[0]}: {image.group}" for image in trained.images]
    known += [image.group and f"{names[1]}: {image.group}" for image in tested.images]
    scene_of = scenes(keys, known, np.concatenate([first, second]), above)
    return Compared(trained=trained, tested=tested, index=index, cosine=cosine, scene_of=scene_of, above=above)


def as_record(
    compared: Compared, trained: ImageSet, tested: ImageSet, by: FeatureExtractor, *, seed: int
) -> dict[str, Any]:
    """The content of ``overlap.json``.

    Args:
        compared: result of ``compare``.
        trained: all training images, also those without features.
        tested: all test images, with targets where there are scores.
        by: the extractor of the features.
        seed: seed of the bootstrap.
    """
    copying, reason = _copying(compared, tested, seed)
    return {
        "kind": KIND,
        "format": FORMAT,
        "by": by.as_dict(),
        "above": compared.above,
        "trained": {"name": trained.name, **compared.trained.coverage()},
        "tested": {"name": tested.name, **compared.tested.coverage()},
        "near": int(compared.is_near_duplicate.sum()),
        "marked": _marked(compared, tested.targets),
        "copying": copying,
        "copying_reason": reason,
        "scenes": _scene_counts(compared),
        "images": _images(compared, tested),
    }


def _images(compared: Compared, tested: ImageSet) -> list[dict[str, Any]]:
    """A row for every tested image, in order; without a cosine where it could not be compared."""
    index_of = {image.sample.id: index for index, image in enumerate(compared.tested.images)}
    rows = []
    for image in tested.images:
        row: dict[str, Any] = {"id": image.sample.id, "name": image.name, "score": _number(image.score)}
        row |= {"nearest": None, "nearest_name": None, "nearest_score": None, "cosine": None, "near": False}
        if (index := index_of.get(image.sample.id)) is not None:
            neighbour = compared.trained.images[compared.index[index]]
            row |= {"nearest": neighbour.sample.id, "nearest_name": neighbour.name}
            row |= {"nearest_score": _number(neighbour.score), "cosine": float(compared.cosine[index])}
            row |= {
                "near": bool(compared.is_near_duplicate[index]),
                "scene": compared.scene_of[TESTED, image.sample.id],
            }
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _copying(compared: Compared, tested: ImageSet, seed: int) -> tuple[dict[str, Any] | None, str]:
    """Evaluation of the neighbour's score as if it were a model's prediction; or None, and the reason."""
    scores = np.array([image.score for image in compared.trained.images], np.float64)[compared.index]
    if tested.targets is None:
        return None, _NO_TARGETS
    if np.isnan(scores).all():
        return None, _NO_SCORES
    statuses = tuple(Status.FAILED if np.isnan(score) else Status.OK for score in scores)
    reasons = tuple("its nearest trained image has no score" if np.isnan(score) else "" for score in scores)
    ids = tuple(image.sample.id for image in compared.tested.images)
    # Near duplicates are passed as overlapping: the ``clean`` selection then shows what copying gives without them.
    copy = Predictions(name=COPY, kind="copy", ids=ids, scores=scores, statuses=statuses, reasons=reasons)
    return evaluate([copy], tested.targets, overlapping=compared.near_duplicate_ids, seed=seed), ""


def _marked(compared: Compared, targets: Targets | None) -> dict[str, int] | None:
    """How the near duplicates agree with those that the benchmark marks itself; None where it marks none."""
    if targets is None or not any(targets.near_training):
        return None
    marked = {id for id, is_marked in zip(targets.ids, targets.near_training, strict=True) if is_marked}
    detected = compared.near_duplicate_ids
    # Keys as in ``overlap.json`` on disk.
    return {"marked": len(marked), "found": len(detected), "both": len(marked & detected)}


def _scene_counts(compared: Compared) -> dict[str, int]:
    """Number of scenes, number of those in both sets, and number of images in the largest."""
    sizes, scenes_in = Counter(compared.scene_of.values()), {TRAINED: set[str](), TESTED: set[str]()}
    for (image_set, _), scene in compared.scene_of.items():
        scenes_in[image_set].add(scene)
    both = scenes_in[TRAINED] & scenes_in[TESTED]
    return {"scenes": len(sizes), "on_both_sides": len(both), "largest": max(sizes.values())}
