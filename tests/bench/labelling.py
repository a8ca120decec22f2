"""What the labelling loop costs beside the teacher's own forward passes, with a teacher of 50 ms an image."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pseudo_labels.pool import build_pool
from pseudo_labels.records import TeacherStamp
from teachers.base import TeacherOutput
from teachers.label import label
from tests.bench.photographs import write_jpegs

IMAGES, BATCH, MS_PER_IMAGE = 400, 8, 50.0


class FiftyMilliseconds:
    """A teacher that multiplies matrices on one core until 50 ms an image are over."""

    stamp = TeacherStamp("bench", 1, "none")
    needs_reference = False
    feature_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.seconds = 0.0
        self._matrix = torch.randn(256, 256) / 16

    def to(self, device: str | torch.device) -> "FiftyMilliseconds":
        """Stays on the CPU, whatever the device."""
        del device
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> torch.Tensor:
        """[3, 384, 384] in [0, 1], resized as a real teacher would."""
        del reference
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return torch.nn.functional.interpolate(pixels, (384, 384), mode="bilinear", antialias=True)[0]

    def __call__(self, batch: list[torch.Tensor]) -> TeacherOutput:
        """Mean brightness, after the time is over."""
        started = time.perf_counter()
        state = self._matrix
        while time.perf_counter() - started < len(batch) * MS_PER_IMAGE / 1000:
            state = torch.tanh(state @ self._matrix)
        self.seconds += time.perf_counter() - started
        return TeacherOutput(torch.stack([item.mean() for item in batch]), None, {})


TEACHERS: list[FiftyMilliseconds] = []


def build() -> FiftyMilliseconds:
    """Builder for the registry; keeps the teacher so that its own seconds can be read."""
    TEACHERS.append(FiftyMilliseconds())
    return TEACHERS[-1]


def main() -> None:
    """Label 400 JPEGs of 1024x768 and compare the whole with the forward passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "photographs", IMAGES, 1024, 768)
        build_pool([str(folder / "photographs")], folder / "pool", near_duplicate_distance=0)
        started = time.perf_counter()
        label(folder / "pool", "tests.bench.labelling:build", folder / "labels", batch_size=BATCH, threads=1)
        whole = time.perf_counter() - started
    bare = TEACHERS[-1].seconds
    print(f"labelling {IMAGES} JPEGs 1024x768: {whole:.1f} s, of which forward {bare:.1f} s")
    print(f"overhead: {100 * (whole / bare - 1):.1f} % (limit 5 %)")
