"""The squared error that a label is expected to have, learned from labels whose errors are known."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# How much of the expected error may follow what varies from image to image; never all, as a label without any
# disagreement is still not the truth.
_SHARES = np.linspace(0.0, 0.9, 10)
_LEAST_VARIANCE = 1e-6  # a thousandth of the scale: no label is surer


@dataclass(frozen=True)
class ExpectedError:
    """Expected squared error of a label: ``base_gain * base + extra_gain * extra``.

    Attributes:
        base_gain: of what is known without looking at the image.
        extra_gain: of what the image adds: a teacher's own variance, or the disagreement of teachers; 0 where that
            does not foretell errors.
        typical_extra: stands in where the image's own is not known.
    """

    base_gain: float
    extra_gain: float
    typical_extra: float = 0.0

    def __call__(self, base: ArrayLike, extra: ArrayLike) -> FloatArray:
        """Expected squared error, above 0; NaN in ``extra`` means not known."""
        known = np.nan_to_num(np.asarray(extra, np.float64), nan=self.typical_extra)
        return np.maximum(self.base_gain * np.asarray(base, np.float64) + self.extra_gain * known, _LEAST_VARIANCE)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ExpectedError":
        """Inverse of ``as_dict``."""
        return cls(**record)


def fit_expected_error(base: ArrayLike, extra: ArrayLike, squared_error: ArrayLike) -> ExpectedError:
    """Fit both gains to known errors.

    With e normal of variance ``s ((1 - t) base + t extra mean(base) / mean(extra))``, s is in closed form for each t,
    and t is the mean of 0, 0.1, ..., 0.9, each weighted by its likelihood: few images leave it in the middle, many
    decide. On average over the images the expected error is then the error found: a teacher's own spread is not
    counted on top of it.

    Args:
        base: [N], above 0.
        extra: [N], at least 0; NaN where it is not known.
        squared_error: [N], of held-out images.
    """
    base, extra, squared_error = (np.asarray(values, np.float64) for values in (base, extra, squared_error))
    known = np.isfinite(extra)
    typical = float(extra[known].mean()) if known.any() else 0.0
    filled = np.where(known, extra, typical)
    ratio = float(base.mean()) / typical if typical > 0 else 0.0
    share = _likely_share(base, filled * ratio, squared_error) if ratio else 0.0
    _, scale = _fit(base, filled * ratio, squared_error, share)
    return ExpectedError(_plain(scale * (1 - share)), _plain(scale * share * ratio), _plain(typical))


def _likely_share(base: FloatArray, extra: FloatArray, squared_error: FloatArray) -> float:
    deviances = np.array([_fit(base, extra, squared_error, share)[0] for share in _SHARES])
    likelihood = np.exp(-(deviances - deviances.min()) / 2)
    return float(np.average(_SHARES, weights=likelihood))


def _fit(base: FloatArray, extra: FloatArray, squared_error: FloatArray, share: float) -> tuple[float, float]:
    """Deviance, but for a constant, and scale."""
    shape = np.maximum((1 - share) * base + share * extra, 1e-12)
    scale = max(float(np.mean(squared_error / shape)), 1e-12)
    return float(np.sum(np.log(scale * shape))), scale


def _plain(value: float) -> float:
    return float(f"{value:.10g}")  # part of digests, see ``monotone``
