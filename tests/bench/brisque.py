"""pocket-m against OpenCV's BRISQUE: decode to score of 512x512 JPEGs on one core, in turn in one process."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2

from distill.stages.export import export_checkpoint
from students.registry import POCKET_PRESETS, build_student
from students.runtime import Scorer, keep_freed_memory
from students.storage import save_student
from tests.bench.photographs import write_jpegs

COUNT = 100


def _brisque() -> Callable[[Path], object]:
    root = os.environ.get("POCKETIQA_SHARED_DATA") or str(Path(__file__).parents[2] / "../shared/data")
    folder = Path(root) / "anchors" / "brisque"
    if not folder.exists():
        sys.exit(
            "the BRISQUE model files are missing: set POCKETIQA_SHARED_DATA to the folder that holds anchors/brisque"
        )
    files = (str(folder / "brisque_model_live.yml"), str(folder / "brisque_range_live.yml"))
    predictor = cv2.quality.QualityBRISQUE.create(*files)

    def compute(path: Path) -> object:
        pixels = cv2.imread(str(path))
        if pixels is None:
            sys.exit(f"OpenCV cannot read {path}")
        return predictor.compute(pixels)  # pyright: ignore[reportCallIssue, reportArgumentType] - OpenCV's stubs know UMat only

    return compute


def main() -> None:
    """Alternate the models image by image, so that a slow moment of the machine hits all of them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    keep_freed_memory()  # as Scorer.score_many does; it serves OpenCV in this process just as well
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models: dict[str, Callable[[Path], object]] = {"BRISQUE": _brisque()}
        for preset in POCKET_PRESETS:
            save_student(build_student(preset, seed=0), folder / preset)
            export_checkpoint(folder / preset, folder / f"{preset}.onnx")
            models[preset] = Scorer(folder / f"{preset}.onnx", threads=1).score
        times: dict[str, list[float]] = {model: [] for model in models}
        for index, path in enumerate(write_jpegs(folder / "photographs", COUNT, 512, 512)):
            for model, predictor in models.items():
                started = time.perf_counter()
                predictor(path)
                if index >= 5:  # the first calls warm caches and memory
                    times[model].append(1000 * (time.perf_counter() - started))
    for model, measured in times.items():
        measured.sort()
        print(
            f"{model:>9}: median {median(measured):.1f} ms, p95 {measured[int(0.95 * len(measured))]:.1f} ms "
            f"(n={len(measured)})"
        )
