"""Photographs of a given size for the benches: the bundled ones, cropped, resized and varied."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pseudo_labels.images import load
from pseudo_labels.photos import bundled_photographs


def photographs(count: int, width: int, height: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """``count`` different RGB arrays [height, width, 3], cut at random from the bundled photographs."""
    generator = np.random.default_rng(seed)
    originals = [Image.fromarray(load(path)) for path in bundled_photographs().values()]
    for index in range(count):
        original = originals[index % len(originals)]
        scale = generator.uniform(0.6, 1.0)
        box_width, box_height = original.width * scale, original.height * scale
        left = generator.uniform(0, original.width - box_width)
        top = generator.uniform(0, original.height - box_height)
        box = (left, top, left + box_width, top + box_height)
        yield np.asarray(original.resize((width, height), Image.Resampling.BICUBIC, box=box))


def write_jpegs(folder: Path, count: int, width: int, height: int, *, quality: int = 90) -> list[Path]:
    """The same as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, rgb in enumerate(photographs(count, width, height)):
        paths.append(folder / f"{index:05d}.jpg")
        Image.fromarray(rgb).save(paths[-1], quality=quality)
    return paths
