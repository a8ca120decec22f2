"""Image sets with known near duplicates: photographs that show a trained scene again, and features at known angles."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distill.evaluation.samples import Sample
from distill.evaluation.targets import Targets
from distill.leakage.compare import Compared, as_record, compare
from distill.leakage.embeddings import Embeddings
from distill.leakage.extractor import layout_extractor
from distill.leakage.image_sets import Image as SetImage
from distill.leakage.image_sets import ImageSet
from tests.helpers.pools import PHOTOGRAPHS, photograph

TRAINED = PHOTOGRAPHS[:6]
# Four directions around the origin: their mean is 0 and their deviations are equal, so that standardising keeps angles.
COMPASS = {"east": 0.0, "north": 90.0, "west": 180.0, "south": 270.0}
AGAIN, NEW = ("astronaut", "coffee", "cat"), ("immunohistochemistry",)


def shot_again(rgb: np.ndarray) -> np.ndarray:
    """The same scene nearer by a tenth and darker: no hash of the file, and other bytes."""
    height, width = rgb.shape[:2]
    cut = Image.fromarray(rgb).crop((width // 20, height // 20, width - width // 20, height - height // 20))
    return (np.asarray(cut.resize((width, height), Image.Resampling.LANCZOS)) * 0.8).astype(np.uint8)


def write_ratings(folder: Path, name: str, rows: Sequence[Sequence[object]], columns: str = "image,mos") -> str:
    """A CSV file of ratings, as a benchmark is named."""
    lines = [columns, *(",".join(map(str, row)) for row in rows)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"csv:{folder / f'{name}.csv'}"


def rated_scenes(folder: Path) -> tuple[str, str]:
    """Benchmarks of six trained and four tested photographs, of which the first three show trained scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    trained, tested = [], []
    for number, name in enumerate(TRAINED):
        Image.fromarray(photograph(name, 160)).save(folder / f"{name}.png")
        trained.append((f"{name}.png", f"0.{number + 2}"))
    for number, name in enumerate((*AGAIN, *NEW)):
        rgb = photograph(name, 160)
        Image.fromarray(shot_again(rgb) if name in AGAIN else rgb).save(folder / f"again-{name}.jpg", quality=85)
        tested.append((f"again-{name}.jpg", f"0.{number + 2}5"))
    return write_ratings(folder, "trained", trained), write_ratings(folder, "tested", tested)


def at_angles(degrees: Mapping[str, float], *, groups: Mapping[str, str] | None = None, folder: str = "") -> Embeddings:
    """Embeddings of small pictures, whose features are unit vectors at known angles.

    Args:
        degrees: angle of each image, by id; the score falls from 0.9 by 0.1 per image.
        groups: known scene of an image, by id.
        folder: where the images are files; none are if empty.
    """
    images = []
    for number, id in enumerate(degrees):
        stored = io.BytesIO()
        Image.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)).save(stored, "PNG")
        sample = Sample(id, stored.getvalue)
        file = f"{folder}/{id}.png" if folder else ""
        images.append(SetImage(sample, f"{id}.png", (groups or {}).get(id, ""), 0.9 - 0.1 * number, file=file))
    radians = [math.radians(angle) for angle in degrees.values()]
    vectors = np.array([[math.cos(angle), math.sin(angle)] for angle in radians], np.float32)
    return Embeddings(tuple(images), vectors, without=())


def compass(tested: Mapping[str, float], *, above: float = 0.95, folder: str = "") -> Compared:
    """The four trained directions compared with tested images at these angles."""
    trained = at_angles(COMPASS, folder=folder)
    return compare(("trained", "tested"), trained, at_angles(tested, folder=folder), above)


def compass_record(tested: Mapping[str, float]) -> dict[str, Any]:
    """The content of ``overlap.json`` for ``compass``, where the tested images are rated by their own scores."""
    compared = compass(tested)
    images = compared.tested.images
    targets = Targets(
        name="tested",
        source="opinions",
        ids=tuple(image.sample.id for image in images),
        scores=np.array([image.score for image in images]),
        groups=tuple(image.sample.id for image in images),
        subsets=("",) * len(images),
        near_training=(False,) * len(images),
    )
    trained_set = ImageSet("trained", compared.trained.images, digest="trained")
    tested_set = ImageSet("tested", images, digest="tested", targets=targets)
    record = as_record(compared, trained_set, tested_set, layout_extractor(), seed=0)
    return record | {"split": {"images": {}, "reason": "the trained images are no files with scores"}}
