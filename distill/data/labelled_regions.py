"""Labelled regions as a teacher of regions learns them: what is known of each, its mask and its picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from distill.data.examples import Source
from distill.data.regions import ImageRegions
from distill.data.split import join_groups
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.records import ImageRef
from pseudo_labels.regions.masks import decode
from teachers.seagull.language import UNDISTORTED
from teachers.seagull.tuning import RegionLabels, type_of


@dataclass(frozen=True)
class LabelledRegion:
    """A region to learn from.

    Attributes:
        image: id of its picture; regions of a picture have the same.
        group: scene of the picture; scenes are never in two parts of the split.
        mask: gives the mask, bool [H, W].
        labels: what is known of it.
        name: identifies mask and labels in the record of the run, such as the id of the region.
    """

    image: str
    group: str
    mask: Callable[[], np.ndarray]
    labels: RegionLabels
    name: str


@dataclass(frozen=True)
class RegionExamples:
    """Labelled regions, with the pixels of their pictures.

    Attributes:
        regions: all of them, of all parts.
        pixels: id of a picture -> uint8 RGB [H, W, 3].
        about: what they are, as JSON values, for the record of the run.
    """

    regions: Sequence[LabelledRegion]
    pixels: Callable[[str], np.ndarray]
    about: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Of all that is learned but the pixels."""
        return digest_of([[region.image, region.group, region.name, str(region.labels)] for region in self.regions])


def region_examples(sources: Sequence[Source]) -> RegionExamples:
    """The labelled regions of all sources; of an image that several sources have, all of its regions.

    Args:
        sources: each with ``regions``.

    Raises:
        PocketiqaError: a source has no labels of regions.
    """
    without = [source.name for source in sources if source.regions is None]
    if without or not sources:
        raise PocketiqaError(
            f"source {', '.join(without) or '(none)'} has no labels of regions: give pool, regions and region_labels, "
            "made by pocketiqa label-regions"
        )
    # A function: thousands of pictures would not fit in memory.
    place: dict[str, tuple[Source, int]] = {}
    labelled = []
    for source in sources:
        table = source.regions
        assert table is not None, "checked above"
        for row in table.rows:
            regions, ref = table.at(row), source.pool[row]
            if regions is not None:
                place.setdefault(ref.id, (source, row))
                labelled.append((ref, regions))
    scenes = join_groups(ref for ref, _ in labelled)

    def pixels(image: str) -> np.ndarray:
        source, row = place[image]
        return source.pool.load(source.pool[row])

    made = [region for ref, regions in labelled for region in _regions_of(ref, regions, scenes[ref.id])]
    return RegionExamples(made, pixels, {"sources": [_described(source) for source in sources]})


def _described(source: Source) -> dict[str, Any]:
    table = source.regions
    assert table is not None, "checked by the caller"
    return {
        "name": source.name,
        "pool": source.pool.digest,
        "regions": table.digest,
        "teacher": table.teacher.as_dict(),
    }


def _regions_of(ref: ImageRef, regions: ImageRegions, scene: str) -> list[LabelledRegion]:
    return [
        LabelledRegion(
            ref.id, scene, partial(decode, counts, regions.height, regions.width), labels_of(regions, number), name
        )
        for number, (name, counts) in enumerate(zip(regions.names, regions.counts, strict=True))
    ]


def labels_of(regions: ImageRegions, number: int) -> RegionLabels:
    """What is known of a region, in SEAGULL's words.

    A region that the labels call untouched (severity 0) has the type ``none`` and no severity: the mildest of the five
    words would say that it is distorted.
    """
    severity = float(regions.severity[number])
    untouched = severity == 0
    return RegionLabels(
        quality=float(regions.quality[number]),
        importance=float(regions.importance[number]),
        severity=float("nan") if untouched else severity,
        type=UNDISTORTED if untouched else type_of(regions.types[number]),
    )
