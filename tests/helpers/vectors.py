"""Vectors of the resize before a student: ``python -m tests.helpers.vectors`` writes ``tests/vectors/resize.json``.

Inputs are formulas, so that any language makes them without reading a picture; docs/preprocess.md states them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from students.preprocess import Preprocess
from tests.helpers.imports import ROOT

PATH = Path(ROOT) / "tests/vectors/resize.json"
# Pattern, height, width, max_side, min_side: each exercises another step or edge of the specification.
CASES = {
    "untouched": ("noise", 90, 120, 288, 64),
    "halved": ("noise", 192, 256, 128, 64),
    "photograph": ("waves", 768, 1024, 288, 64),
    "portrait": ("noise", 1024, 768, 288, 64),
    "one pixel less": ("noise", 289, 200, 288, 64),
    "half-way, down": ("waves", 129, 256, 128, 64),
    "half-way, up": ("waves", 131, 256, 128, 64),
    "blocks of pixels": ("noise", 600, 800, 128, 64),
    "cut blocks": ("noise", 601, 803, 128, 64),
    "factors that differ": ("waves", 1500, 400, 96, 64),
    "down first": ("noise", 700, 150, 120, 64),
    "slender": ("noise", 64, 1500, 384, 64),
    "grows": ("noise", 40, 50, 384, 64),
    "grows in one direction": ("waves", 12, 350, 119, 64),
    "one pixel": ("noise", 1, 1, 384, 64),
    "one row": ("waves", 1, 900, 128, 64),
    "large": ("waves", 1500, 2000, 288, 64),
}


def pattern(name: str, height: int, width: int) -> np.ndarray:
    """The input of a vector: uint8 [height, width, 3]."""
    if name == "noise":
        value = np.arange(height * width * 3, dtype=np.uint64) * 2654435761 % 2**32
        value = (value ^ value >> 15) * 2246822519 % 2**32
        return (value >> 24).astype(np.uint8).reshape(height, width, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    return np.stack([3 * x + 2 * y + (x * y >> 7), x + 5 * y, x * x + y >> 6], axis=-1).astype(np.uint8)


def vector(name: str) -> dict[str, Any]:
    """The record of a case, as the file has it."""
    kind, height, width, max_side, min_side = CASES[name]
    result = Preprocess(max_side, min_side).resize(pattern(kind, height, width))
    return {
        "name": name,
        "input": {"pattern": kind, "height": height, "width": width},
        "max_side": max_side,
        "min_side": min_side,
        "output": {
            "height": result.shape[0],
            "width": result.shape[1],
            "first_bytes": result.reshape(-1)[:24].tolist(),
            "sha256": hashlib.sha256(result.tobytes()).hexdigest(),
        },
    }


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(vector(name)) for name in CASES)
    PATH.write_text(f"[\n{lines}\n]\n")
