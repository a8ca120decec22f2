"""Small pools of real photographs, made in a moment: those that scikit-image ships inside its package."""

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.pool import Pool, build_pool

# Colour photographs of different scenes, in a fixed order; none is downloaded.
PHOTOGRAPHS = ("astronaut", "coffee", "cat", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")


def photograph(name: str, max_side: int = 128) -> np.ndarray:
    """A photograph as uint8 [H, W, 3], shrunk to a longer side of ``max_side`` pixels, but no side below 64."""
    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    scale = min(1.0, max(max_side / max(image.size), 64 / min(image.size)))
    return np.array(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS))


def write_photographs(folder: Path, *, images: int = 4, max_side: int = 128) -> list[Path]:
    """The first ``images`` photographs as PNG files ``<number>-<name>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(PHOTOGRAPHS[:images]):
        paths.append(folder / f"{number}-{name}.png")
        Image.fromarray(photograph(name, max_side)).save(paths[-1])
    return paths


def clean_pool(folder: Path, *, images: int = 4, max_side: int = 128) -> Pool:
    """A pool of photographs; the files are in ``folder/photographs``, the pool in ``folder/clean``."""
    write_photographs(folder / "photographs", images=images, max_side=max_side)
    return build_pool([str(folder / "photographs")], folder / "clean")


def synthetic_pool(
    folder: Path,
    *,
    images: int = 3,
    per_image: int = 8,
    max_side: int = 96,
    names: tuple[str, ...] | None = None,
    seed: int = 0,
) -> Pool:
    """Photographs and distorted copies of them: ``folder/synthetic``, made from ``clean_pool`` in the same folder."""
    clean = clean_pool(folder, images=images, max_side=max_side)
    return build_synthetic_pool(clean, folder / "synthetic", per_image=per_image, names=names, seed=seed)
