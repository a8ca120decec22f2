"""A store of region labels of an invented teacher, and a manifest of regions, to audit."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pseudo_labels.records import Status, TeacherStamp
from pseudo_labels.regions.masks import encode
from pseudo_labels.regions.store import Region, RegionLabel, RegionLabelStore, RegionSet, region_id

SHARDS, IMAGES = 4, 8
COUNTS = encode(np.eye(6, 8, dtype=bool))
QUALITY = np.random.default_rng(0).uniform(0, 1, (IMAGES, 3))


def labels_in(folder: Path, *, finish: bool = True, constant: bool = False) -> RegionLabelStore:
    """Three regions an image: the third of each even image has no level word, the last image no region at all."""
    stamp = TeacherStamp("judge <b>", 1, "none", {"side": 96}, scale="0 worst, 1 best")
    spec = {"rows": IMAGES, "shards": SHARDS, "teacher": stamp.as_dict(), "mode": "regions", "scale_importance": False}
    store = RegionLabelStore.claim(folder, spec, pool_path=folder.parent / "pool")
    for index in range(SHARDS):
        rows: list[RegionLabel] = []
        for image in store.shard_rows(index):
            for number in range(3):
                row = RegionLabel(f"image{image}", f"r{number}", quality=0.5 if constant else QUALITY[image, number])
                row = replace(row, type="blur" if number else "noise", quality_std=0.1)
                if number == 2 and image % 2 == 0:
                    reason = f"the answer {image} has no level word"
                    row = RegionLabel(row.image, row.region, Status.FAILED, reason, confidence=0.0)
                if image == IMAGES - 1:
                    row = RegionLabel(row.image, "", Status.MISSING, "the manifest has no region of this image")
                    rows += [replace(row, confidence=0.0)] if number == 0 else []
                else:
                    rows.append(row)
        store.write_rows(index, rows)
    if finish:
        store.finish()
    return store


def regions_in(folder: Path) -> RegionSet:
    spec = {"rows": 2, "shards": 2, "source": "boxes", "options": {"high": 5}, "limits": {"min_area": 0.1}}
    store = RegionSet.claim(folder, spec, pool_path=folder.parent / "pool")
    region = Region(
        "a", region_id(COUNTS, 6, 8), height=6, width=8, counts=COUNTS, box_width=6, box_height=6, area=0.125,
        source="boxes", level="part",
    )  # fmt: skip
    store.write_rows(0, [region, replace(region, region="other", area=0.5, quality=0.25, distortion="blur")])
    store.write_rows(1, [Region("b", status=Status.DROPPED, reason="0.01 of the image: outside 0.1 to 0.95")])
    store.finish()
    return store
