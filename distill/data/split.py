"""Training, validation and test parts; no scene is in two of them."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from distill.recipe.training import SplitSettings
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_record
from pseudo_labels.records import ImageRef

SPLIT = "split.json"


class Part(StrEnum):
    """What a group of images is used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Split:
    """Which part every image belongs to.

    Attributes:
        parts: part of each image id.
        settings: how the split was drawn.
    """

    parts: Mapping[str, Part]
    settings: SplitSettings

    def count(self, part: Part) -> int:
        """Number of images in ``part``."""
        return sum(own == part for own in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON form: the settings, the counts, and the sorted ids of each part."""
        ids: dict[str, list[str]] = {part.value: [] for part in Part}
        for image_id in sorted(self.parts):
            ids[self.parts[image_id].value].append(image_id)
        return {
            "settings": self.settings.stored(),
            "counts": {name: len(members) for name, members in ids.items()},
            "ids": ids,
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "Split":
        """Inverse of ``as_dict``."""
        parts = {image_id: Part(name) for name, members in record["ids"].items() for image_id in members}
        return Split(parts, SplitSettings(**record["settings"]))


def read_split(run_folder: Path) -> Split:
    """The split that a training run drew.

    Raises:
        PocketiqaError: the folder holds none.
    """
    return Split.from_dict(read_record(run_folder / SPLIT, what="split"))


class _Sets:
    """Disjoint sets of ids and groups (Galler and Fischer 1964); a set is named by its smallest member, groups first.

    Both are numbered: near duplicates are grouped under the id of one of them, so most groups are called like an image,
    and as prefixed names those of a million images would take hundreds of megabytes more.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._parent = array("q")
        self._names: list[str] = []
        self._is_id = bytearray()

    def id(self, name: str) -> int:
        """Number of an image."""
        return self._number(self._ids, name)

    def group(self, name: str) -> int:
        """Number of a group."""
        return self._number(self._groups, name)

    def _number(self, known: dict[str, int], name: str) -> int:
        number = known.setdefault(name, len(self._parent))
        if number == len(self._parent):
            self._parent.append(number)
            self._names.append(name)
            self._is_id.append(known is self._ids)
        return number

    def find(self, number: int) -> int:
        while self._parent[number] != number:
            # Each look shortens the chain, so that long ones of near duplicates stay cheap.
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, first: int, second: int) -> None:
        # The smaller name wins: the name of a set does not depend on the order in which it was joined.
        low, high = sorted((self.find(first), self.find(second)), key=self._order)
        self._parent[high] = low

    def _order(self, number: int) -> tuple[int, str]:
        return self._is_id[number], self._names[number]

    def name(self, number: int) -> str:
        """Name of the set that a number is in."""
        root = self.find(number)
        return f"{'id' if self._is_id[root] else 'group'}:{self._names[root]}"


def join_groups(refs: Iterable[ImageRef]) -> dict[str, str]:
    """Give every image the name of the set of images that must stay together.

    Images stay together that have a common group, or of which one is the reference of the other; one image listed by
    several pools under different groups joins those groups.

    Returns:
        Name of the set by image id.
    """
    sets, nodes = _Sets(), dict[str, int]()
    for ref in refs:
        node = nodes[ref.id] = sets.id(ref.id)
        if ref.group:
            sets.join(node, sets.group(ref.group))
        if ref.ref_id:
            # Also where the reference itself is not learned from: its copies still show one scene.
            sets.join(node, sets.id(ref.ref_id))
    # One string for each set, however many images it has.
    named: dict[str, str] = {}
    return {image_id: named.setdefault(name := sets.name(node), name) for image_id, node in nodes.items()}


def _draw(sizes: Mapping[str, int], order: list[str], wanted: float, most: int) -> list[str]:
    """1 to ``most`` groups from the front of ``order`` that together come close to ``wanted`` images."""
    taken, images = [], 0
    for group in order:
        # A group may overshoot by half of itself: closer than leaving it out.
        if len(taken) < most and images + sizes[group] / 2 <= wanted:
            taken.append(group)
            images += sizes[group]
    # Every group would overshoot by more than that: the smallest, as no part may be empty.
    return taken or [min(order, key=lambda group: sizes[group])]


def split_groups(groups: Mapping[str, str], settings: SplitSettings) -> Split:
    """Draw test, then validation, then leave the rest to training, whole groups at a time.

    The draw follows from the seed and the groups' names alone, not from the order of ``groups``. Each part comes close
    to its fraction of the images, with at least one group; a group larger than twice that goes to training.

    Args:
        groups: group of each image id, from ``join_groups``.
        settings: fractions and seed.

    Raises:
        PocketiqaError: there are fewer groups than parts.
    """
    sizes = Counter(groups.values())
    # The test part first: another fraction of validation leaves it as it is.
    fractions = {Part.TEST: settings.test, Part.VALIDATION: settings.validation}
    fractions = {part: fraction for part, fraction in fractions.items() if fraction > 0}
    if len(sizes) <= len(fractions):
        raise PocketiqaError(
            f"{len(groups)} images in {len(sizes)} groups (scenes) cannot be split into {len(fractions) + 1} parts "
            "without a common group: add photographs of other scenes"
        )
    # A hash for each group: a scene more or less does not change the order of the others, as it would change a shuffle.
    left = sorted(sizes, key=lambda group: hashlib.sha256(f"{settings.seed}:{group}".encode()).digest())
    part_of: dict[str, Part] = {}
    for remaining, (part, fraction) in zip(range(len(fractions), 0, -1), fractions.items(), strict=True):
        # Every later part needs a group too.
        taken = _draw(sizes, left, fraction * len(groups), most=len(left) - remaining)
        part_of |= dict.fromkeys(taken, part)
        left = [group for group in left if group not in part_of]
    return Split({image_id: part_of.get(group, Part.TRAIN) for image_id, group in groups.items()}, settings)
