"""``groups.csv``, every image with its scene, and ``split.csv``, a benchmark without a scene in two parts."""

import csv
import io
import math
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


def write_groups(compared: Compared, path: Path) -> None:
    """Write the set, id and scene of every image that was compared."""
    rows = [[image_set, id, scene] for (image_set, id), scene in compared.scene_of.items()]
    write_atomic(path, _csv(["set", "image", "group"], rows))


def write_split(compared: Compared, path: Path, *, validation: float, seed: int) -> dict[str, Any]:
    """Write a benchmark to train and evaluate on, to be used as ``csv:FILE``.

    Args:
        compared: both image sets with their scenes.
        path: path of the file; an earlier file is removed where none can be written.
        validation: fraction of the validation part, see ``compare.parts_of``.
        seed: seed of the draw of the validation part.

    Returns:
        ``images``, the number of images by part, those left out as ``near test``; and ``reason``, why there is no file.
    """
    images: dict[Key, Image] = {(TRAINED, image.sample.id): image for image in compared.trained.images}
    images |= {(TESTED, image.sample.id): image for image in compared.tested.images}
    # A benchmark needs a path and a rating for every image.
    usable = {key: image for key, image in images.items() if image.file and not math.isnan(image.score)}
    if not any(key[0] == TRAINED for key in usable):
        return _none(path, _NO_FILES)
    try:
        parts = parts_of({key: compared.scene_of[key] for key in usable}, validation=validation, seed=seed)
    except PocketiqaError as error:
        return _none(path, str(error))
    rows = []
    for key, image in usable.items():
        if parts[key] in {part.value for part in Part}:
            # A relative path would be read relative to the folder of ``split.csv``; ``repr`` keeps all digits.
            file = os.path.abspath(image.file)
            rows.append([file, repr(float(image.score)), compared.scene_of[key], parts[key], image.subset])
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
