"""``groups.csv``, every image with its scene, and ``split.csv``, a benchmark whose parts share none."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.data.split import Part
from distill.leakage.compare import TESTED, TRAINED, Compared, Key, parts_of
from distill.leakage.image_sets import Image
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic

GROUPS, SPLIT = "groups.csv", "split.csv"
_NO_FILES = "the trained images are no files with scores"


def write_groups(found: Compared, path: Path) -> None:
    """Write the set, id and scene of every image that was compared."""
    rows = [[side, id, scene] for (side, id), scene in found.scene_of.items()]
    write_atomic(path, _csv(["set", "image", "group"], rows))


def write_split(found: Compared, path: Path, *, validation: float, seed: int) -> dict[str, Any]:
    """Write a benchmark to learn from and to be judged by, as ``csv:FILE`` names it.

    Args:
        found: both sets.
        path: of the file; an earlier one is removed where there can be none.
        validation: see ``scenes.parts_of``.
        seed: likewise.

    Returns:
        ``images`` by part, those left out as ``near test``; and ``reason``, why there is no file.
    """
    images: dict[Key, Image] = {(TRAINED, image.sample.id): image for image in found.trained.images}
    images |= {(TESTED, image.sample.id): image for image in found.tested.images}
    usable = {key: image for key, image in images.items() if image.file and image.score == image.score}
    if not any(key[0] == TRAINED for key in usable):
        return _none(path, _NO_FILES)
    try:
        parts = parts_of({key: found.scene_of[key] for key in usable}, validation=validation, seed=seed)
    except PocketiqaError as error:
        return _none(path, str(error))
    rows = []
    for key, image in usable.items():
        if parts[key] in {part.value for part in Part}:
            file = os.path.abspath(image.file)
            rows.append([file, repr(float(image.score)), found.scene_of[key], parts[key], image.subset])
    write_atomic(path, _csv(["image", "mos", "group", "split", "subset"], rows))
    return {"images": dict(Counter(parts.values())), "reason": ""}


def _none(path: Path, reason: str) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    return {"images": {}, "reason": reason}


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")
