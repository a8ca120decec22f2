"""Groups made of what looks alike, and a split that keeps them whole."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.neighbours import components
from distill.split import Part, join_groups, split_groups
from distill.training.loop_config import SplitSettings
from pseudo_labels.records import ImageRef

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
