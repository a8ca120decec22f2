"""Rated photographs of which some tested ones show a trained scene again, from another place and in another light."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.pools import PHOTOGRAPHS, photograph

TRAINED = PHOTOGRAPHS[:6]
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
