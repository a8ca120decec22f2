"""The frozen backbone, the statistics of its maps, and the two regressions on them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from teachers.kernel_ridge.solve import scene_folds, solve, squared_distances
from teachers.launch import full_precision
from teachers.qfm_iqm.backbone import Backbone, CachedSummaries
from teachers.qfm_iqm.sizes import BackboneConfig, maps_by_size
from teachers.qfm_iqm.tokens import mean_and_deviation

FOLDS = 5
"""Folds of scenes by which the strength of the regularisation is chosen."""
_LEAST_DEVIATION = 1e-6  # of a feature over the photographs; constant ones are left as they are


class KernelRidge(nn.Module):
    """Backbone, statistics and regressions.

    What is solved are parameters, so that it is saved, moved and identified like the weights of any teacher; they have
    no gradient that would be of use. D is the number of statistics, N that of the rated photographs.

    Args:
        config: sizes.
        backbone: backbone of the config, weights loaded.
        photographs: N of the file that is to be loaded; 0 for a model that is not solved yet.

    Attributes:
        summary_cache: cache of statistics; None computes them each time.
    """

    summary_cache: CachedSummaries | None = None

    def __init__(self, config: BackboneConfig, backbone: Backbone, photographs: int = 0):
        super().__init__()
        if backbone.fixed_px and config.halvings:
            height, width = backbone.fixed_px
            raise PocketiqaError(f"{config.backbone} takes {width}x{height} pixels only: choose halvings=0")
        self.config, self.backbone = config, backbone.requires_grad_(False)
        size = 2 * sum(backbone.channels) * (1 + config.halvings)
        self.centre, self.deviation = _solved(torch.zeros(size)), _solved(torch.ones(size))
        self.slope = _solved(torch.zeros(size))
        self.support, self.dual = _solved(torch.zeros(photographs, size)), _solved(torch.zeros(photographs))
        self.middle, self.gamma = _solved(torch.full((1,), 0.5)), _solved(torch.zeros(1))

    def summarise(self, rgb: Tensor) -> Tensor:
        """Uint8 RGB [B, 3, H, W] to statistics [B, D], from the cache where there is one."""
        return self._statistics(rgb) if self.summary_cache is None else self.summary_cache.of(rgb, self._statistics)

    def _statistics(self, rgb: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for maps in maps_by_size(self.backbone, self.config.halvings, rgb):
            with full_precision(rgb.device.type):
                parts += [mean_and_deviation(one).flatten(1) for one in maps]
        return torch.cat(parts, 1)

    def predict(self, statistics: Tensor) -> Tensor:
        """Scores [B] of statistics [B, D], not clamped: the mean of both regressions."""
        with full_precision(statistics.device.type):
            points = (statistics - self.centre) / self.deviation
            linear = points @ self.slope
            lengths = (points**2).sum(1)[:, None] + (self.support**2).sum(1)[None]
            distances = (lengths - 2 * points @ self.support.T).clamp_min(0)
            gaussian = torch.exp(-self.gamma * distances) @ self.dual
            return self.middle + (linear + gaussian) / 2

    def forward(self, rgb: Tensor) -> Tensor:
        """Score uint8 RGB images [B, 3, H, W]; [B], not clamped."""
        return self.predict(self.summarise(rgb))

    def solve(
        self, statistics: np.ndarray, target: np.ndarray, weight: np.ndarray, groups: Sequence[str], seed: int
    ) -> np.ndarray:
        """Fit both regressions; see ``fitting.SolvableTeacher.solve``."""
        values = statistics.astype(np.float64)
        centre = values.mean(0)
        deviation = values.std(0)
        deviation[deviation < _LEAST_DEVIATION] = 1.0
        points = (values - centre) / deviation
        middle = float(np.average(target, weights=weight))
        folds = scene_folds(groups, FOLDS, seed)
        # The length of a point, in the mean; by it both kernels have 1 on their diagonal.
        length = max(float((points**2).sum(1).mean()), _LEAST_DEVIATION)
        linear = solve(points @ points.T / length, target - middle, weight, folds)
        distances = squared_distances(points, points)
        # The usual rule of thumb for the width of a Gaussian kernel: the median distance.
        typical = float(np.median(distances[np.triu_indices(len(points), 1)])) if len(points) > 1 else 1.0
        gamma = 0.5 / (typical or 1.0)
        gaussian = solve(np.exp(-gamma * distances), target - middle, weight, folds)
        slope = points.T @ linear.dual / length
        self._take({"centre": centre, "deviation": deviation, "slope": slope, "support": points, "dual": gaussian.dual})
        self._take({"middle": np.array([middle]), "gamma": np.array([gamma])})
        return np.clip(middle + (linear.unseen + gaussian.unseen) / 2, 0, 1)

    def _take(self, solved: dict[str, np.ndarray]) -> None:
        for name, value in solved.items():
            setattr(self, name, _solved(torch.from_numpy(value.astype(np.float32)).to(self.slope.device)))


def _solved(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value)
