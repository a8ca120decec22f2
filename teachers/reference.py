"""The full-reference teacher: five metrics on one scale, their mean as score and their disagreement as uncertainty.

It labels synthetic pools, where the clean image is known, and needs neither weights nor ratings. The metrics
(all computed by ``piq``) see different things:

- FSIMc: phase congruency, gradient and chroma. Zhang, Zhang, Mou, Zhang, IEEE TIP 20(8), 2011.
- VIF, pixel domain: information kept, by natural scene statistics. Sheikh, Bovik, IEEE TIP 15(2), 2006.
- GMSD: deviation of gradient similarity. Xue, Zhang, Mou, Bovik, IEEE TIP 23(2), 2014.
- HaarPSI: Haar wavelet coefficients and chroma. Reisenhofer, Bosse, Kutyniok, Wiegand, Signal Processing: IC 61, 2018.
- MDSI: deviation of gradient and chromaticity similarity. Nafchi, Shahkolaei, Hedjam, Cheriet, IEEE Access 4, 2016.

**One scale.** Each metric has its own range and direction, and bends differently between them. A monotone curve (see
``teachers.reference_curves``) turns each into the fraction of a declared calibration pool, KADID-10k's 25 distortions
in their 5 levels on the Kodak photographs, that this image surpasses. All five metrics then have the same distribution
over that pool, so that they can be averaged and compared; and because KADID's levels were chosen to look evenly spaced,
equal fractions are about equal visible steps. An image equal to its reference scores exactly 1 with spread 0.

**Uncertainty.** The spread is the (population) standard deviation over the metrics. Where they disagree, such as VIF
and the others on raised contrast, at most some of them can be right.
"""

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import piq
import torch
from PIL import Image
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.records import TeacherStamp
from teachers.base import TeacherOutput
from teachers.reference_knots import KNOTS

VERSION = 1
MIN_SIDE_PX = 64  # VIF filters at four scales and needs 41

# Distorted and clean image, [B, 3, H, W] in [0, 1], to [B].
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fsim": lambda x, y: piq.fsim(x, y, reduction="none"),
    "vif": lambda x, y: piq.vif_p(x, y, reduction="none"),
    "gmsd": lambda x, y: piq.gmsd(x, y, reduction="none"),
    "haarpsi": lambda x, y: piq.haarpsi(x, y, reduction="none"),
    "mdsi": lambda x, y: piq.mdsi(x, y, reduction="none"),
}


def common_scale(values: Tensor, knots: Sequence[float]) -> Tensor:
    """Piecewise linear monotone map of a metric to [0, 1].

    Args:
        values: [B], of the metric.
        knots: the values that map to 0, 1/n, 2/n, ..., 1; strictly rising or strictly falling. Beyond them the end's
            score holds.

    Returns:
        [B] in float64, so that the bend points do not blur the fifth decimal.
    """
    sign = 1.0 if knots[-1] > knots[0] else -1.0
    # ``searchsorted`` needs rising positions: knots of a metric that falls with quality are negated, as its values are.
    positions = torch.tensor([sign * knot for knot in knots], dtype=torch.float64, device=values.device)
    signed = (sign * values.double()).clamp(positions[0], positions[-1])
    # At the first knot ``searchsorted`` gives 0: the piece that begins there is meant.
    right = torch.searchsorted(positions, signed).clamp(1, len(knots) - 1)
    step = (signed - positions[right - 1]) / (positions[right] - positions[right - 1])
    return (right - 1 + step) / (len(knots) - 1)


class ReferenceTeacher:
    """Full-reference metrics as a teacher (see the module).

    Args:
        metrics: names of ``METRICS``, each once.
        max_side: both images are shrunk alike until the longer side is at most this (but no side below 64); None
            compares them as they are.
    """

    needs_reference = True
    feature_names = ("metrics",)

    def __init__(self, metrics: Sequence[str], max_side: int | None):
        self.metrics = tuple(metrics)
        self.max_side = max_side
        self.device = torch.device("cpu")
        knots = {name: list(KNOTS[name]) for name in self.metrics}
        options = {"metrics": list(self.metrics), "max_side": max_side, "piq": metadata.version("piq")}
        self.stamp = TeacherStamp(
            name="reference",
            version=VERSION,
            # The knots are its weights: with others this is another teacher.
            weights=digest_of(knots),
            options=options,
            # Part of the stamp, and so of the digests of existing labels: the words must not change.
            scale="share of KADID-10k's distortions on Kodak photographs that the image surpasses; 1 = its reference",
            licence="no weights; curves fitted on the Kodak PhotoCD photographs (unrestricted use)",
        )

    def to(self, device: torch.device | str) -> "ReferenceTeacher":
        """Compute on this device from now on."""
        self.device = torch.device(device)
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Image and reference as uint8 [3, H, W].

        Raises:
            PocketiqaError: there is no reference, the sizes differ, or a side is below 64 pixels.
        """
        if reference is None:
            raise PocketiqaError("a full-reference teacher needs the clean image")
        if image.shape != reference.shape:
            sizes = (f"{array.shape[1]}x{array.shape[0]}" for array in (image, reference))
            raise PocketiqaError("the image is {}, but its reference {}".format(*sizes))
        if min(image.shape[:2]) < MIN_SIDE_PX:
            raise PocketiqaError(
                f"{image.shape[1]}x{image.shape[0]} pixels: the metrics need {MIN_SIDE_PX} on each side"
            )
        pair = (_shrunk(array, self.max_side) for array in (image, reference))
        first, second = (torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))) for array in pair)
        return first, second

    def __call__(self, batch: list[tuple[Tensor, Tensor]]) -> TeacherOutput:
        """Score, spread (None with one metric) and, as feature ``metrics`` [B, M], each metric on the common scale."""
        single = torch.stack([self._measure(*pair) for pair in batch])
        spread = single.std(1, correction=0) if len(self.metrics) > 1 else None
        return TeacherOutput(single.mean(1), spread, {"metrics": single})

    def _measure(self, image: Tensor, reference: Tensor) -> Tensor:
        """The metrics of one pair on the common scale, [M].

        One pair at a time: in a batch, vector instructions begin and end elsewhere, and the last digit of a score would
        depend on its neighbours. On a CPU batches are not faster either.
        """
        if torch.equal(image, reference):
            # Equal images are 1 by definition; computed, some metrics would stop a rounding error short of it.
            return torch.ones(len(self.metrics), dtype=torch.float64)
        x, y = (tensor[None].to(self.device).float() / 255 for tensor in (image, reference))
        return torch.cat([common_scale(METRICS[name](x, y), KNOTS[name]) for name in self.metrics]).cpu()


def _shrunk(rgb: np.ndarray, max_side: int | None) -> np.ndarray:
    height, width = rgb.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return rgb
    scale = min(1.0, max(max_side / max(height, width), MIN_SIDE_PX / min(height, width)))
    # A box filter has no negative lobes, so it adds no halo that a metric could see. Without ``reducing_gap``, which
    # would shrink by a whole number first, each pixel is the plain mean of those under it.
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX, reducing_gap=None))


def build_reference(*, metrics: Sequence[str] | str | None = None, max_side: int | None = None) -> ReferenceTeacher:
    """Build the full-reference teacher.

    Args:
        metrics: which metrics, as a list or a text with commas; None means all of ``METRICS``.
        max_side: working size in pixels, at least 64; None is the images' own.

    Raises:
        PocketiqaError: an unknown metric, none or one twice, or a size below 64.
    """
    names: Any = metrics.split(",") if isinstance(metrics, str) else (tuple(METRICS) if metrics is None else metrics)
    names = [str(name).strip() for name in names]
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names or len(set(names)) < len(names):
        raise PocketiqaError(f"metrics {names}: choose one or more of {', '.join(METRICS)}, each once")
    if max_side is not None and (not isinstance(max_side, int) or max_side < MIN_SIDE_PX):
        raise PocketiqaError(f"max_side {max_side!r}: give a whole number of pixels, at least {MIN_SIDE_PX}")
    return ReferenceTeacher(names, max_side)
