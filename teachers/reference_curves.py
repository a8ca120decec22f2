"""Fit the curves of ``teachers.reference``: how each metric is distributed over a declared calibration pool.

    python -m teachers.reference_curves FOLDER_WITH_KODAK teachers/reference_knots.py

The module with the knots is named, not written by ``>``: the shell would empty it first, and this command imports it.

The pool: each photograph of the folder (in the order of names), shrunk to a longer side of 512 pixels, about the size
of KADID-10k's images, under KADID-10k's 25 distortions in their 5 levels. A metric's knots are its quantiles over those
of the 125 n pairs that it finds worse than perfect, from the worst to the best in 32 steps; the last knot is its value
for equal images. The curve through them maps the metric to the fraction of the pool that is surpassed. With Kodak's 24
photographs: 3,000 pairs, about 10 minutes on one core.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pseudo_labels.distort import distort, groups
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from pseudo_labels.images import load
from pseudo_labels.parallel import Progress

# With Kodak's 3,000 pairs about 94 lie between two knots: more steps would follow chance, fewer would bend less.
STEPS = 32
# The whole levels, which KADID-10k's authors chose; the levels between them are interpolated.
LEVELS = (1, 2, 3, 4, 5)
LONGER_SIDE_PX = 512
PERFECT = {"fsim": 1.0, "vif": 1.0, "gmsd": 0.0, "haarpsi": 1.0, "mdsi": 0.0}

Metrics = Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]


def fit_curves(
    photographs: Iterable[tuple[str, np.ndarray]],
    metrics: Metrics,
    *,
    progress: Progress | None = None,
) -> dict[str, list[float]]:
    """Knots of each metric.

    Args:
        photographs: name (from which the random numbers of the distortions follow) and uint8 [H, W, 3] of each clean
            image.
        metrics: as ``teachers.reference.METRICS``.
        progress: called with the number of photographs done and 0, for their number is not known.

    Returns:
        Metric to ``STEPS + 1`` values, from score 0 to score 1, strictly monotone.

    Raises:
        PocketiqaError: the pool is too small or too uniform for the quantiles to differ.
    """
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for done, (name, photograph) in enumerate(photographs, start=1):
        for distorted in _kadid(photograph, name):
            for metric, value in _measure(metrics, distorted, photograph).items():
                values[metric].append(value)
        if progress:
            progress(done, 0)
    return {metric: _knots(metric, np.array(curve)) for metric, curve in values.items()}


def _kadid(photograph: np.ndarray, name: str) -> Iterator[np.ndarray]:
    for distortion in groups()["kadid"]:
        for level in LEVELS:
            # The seed is fixed: the knots can be computed again from the photographs alone.
            yield distort(photograph, distortion, level, seed=0, image_id=name)


@torch.inference_mode()
def _measure(metrics: Metrics, distorted: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    x, y = (torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255 for rgb in (distorted, clean))
    return {name: float(metric(x, y)) for name, metric in metrics.items()}


def _knots(metric: str, values: np.ndarray) -> list[float]:
    perfect = PERFECT[metric]
    sign = 1.0 if metric not in ("gmsd", "mdsi") else -1.0
    # Pairs that a metric finds perfect are left out. They would put several knots at the perfect value, and the curve
    # could not rise strictly there.
    worse = sign * values[sign * values < sign * perfect]
    knots = (
        # Six digits: float32, in which the metrics are computed, holds about seven.
        [float(f"{sign * value:.6g}") for value in np.quantile(worse, np.arange(STEPS) / STEPS)] if len(worse) else []
    )
    knots.append(perfect)
    if len(knots) <= STEPS or (np.diff(np.array(knots) * sign) <= 0).any():
        raise PocketiqaError(
            f"{len(worse)} pairs are too few or too alike to fit the curve of {metric}: add photographs"
        )
    return knots


def calibration_photographs(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of each PNG of a folder in the order of names, the longer side at most 512 pixels."""
    for path in sorted(folder.glob("*.png")):
        image = Image.fromarray(load(path))
        image.thumbnail((LONGER_SIDE_PX, LONGER_SIDE_PX), Image.Resampling.LANCZOS)
        yield path.stem, np.asarray(image)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m teachers.reference_curves", description="Fit the curves.")
    parser.add_argument("folder", type=Path, help="Photographs as PNG files.")
    parser.add_argument("out", type=Path, help="Module with the knots; replaced at the end, or left as it is.")
    arguments = parser.parse_args()
    # Imported late, because that module needs the knots that an earlier run of this command wrote.
    from teachers.reference import METRICS

    knots = fit_curves(calibration_photographs(arguments.folder), METRICS)
    lines = ['"""Constants written by ``teachers.reference_curves``; see there for the command."""', "", "# fmt: off"]
    lines.append("KNOTS: dict[str, tuple[float, ...]] = {")
    for metric, values in knots.items():
        rows = [", ".join(map(repr, values[i : i + 8])) for i in range(0, len(values), 8)]
        lines += [f'    "{metric}": (', *(f"        {row}," for row in rows), "    ),"]
    write_atomic(arguments.out, "\n".join([*lines, "}", ""]).encode())


if __name__ == "__main__":
    # Another number of threads adds up in another order, which can change the last digit of a knot.
    torch.set_num_threads(1)
    try:
        _main()
    except PocketiqaError as error:
        raise SystemExit(str(error)) from error
