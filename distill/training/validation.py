"""How well a model predicts the labels of held-out scenes, on whole images as in use."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from distill.data.examples import Examples, Source
from distill.training.batches import LazyBatch
from distill.training.distributed import world_size
from distill.training.region_validation import MapsOf, RegionValidation
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.correlation import METRICS, falling_srcc


def correlations(predictions: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """SRCC, PLCC and RMSE in float64, with n; a correlation that is undefined, as of two images, is None."""
    values = {name: METRICS[name](predictions, targets) for name in ("srcc", "plcc", "rmse")}
    return {"n": len(predictions)} | {name: value if np.isfinite(value) else None for name, value in values.items()}


def level_figures(predictions: np.ndarray, levels: np.ndarray) -> dict[str, Any]:
    """How well scores follow the levels of distortions.

    Args:
        predictions: float [N] scores of pictures of lists.
        levels: float [N, 4], see ``data.examples.Examples``.

    Returns:
        ``n``: number of lists of at least three pictures; ``srcc``: mean over these of the SRCC between level and
        falling score, None where there is none; ``above``: fraction of all lists of which the last picture scores above
        the first one; ``plcc`` and ``rmse``: None, as there are no scores to compare with.
    """
    starts = np.flatnonzero(np.diff(levels[:, 0], prepend=-1.0))
    lists = list(zip(np.split(predictions, starts)[1:], np.split(levels[:, 1], starts)[1:], strict=True))
    orders = [falling_srcc(scores, own) for scores, own in lists if len(scores) > 2]
    above = [bool(scores[-1] > scores[0]) for scores, _ in lists]
    mean = float(np.mean(orders)) if orders else None
    return {"n": len(orders), "srcc": mean, "plcc": None, "rmse": None, "above": float(np.mean(above))}


class Validator:
    """Scores the validation part; every process takes every world-th batch.

    Args:
        examples: examples of the validation part.
        sources: sources of the examples.
        batches: indices into ``examples``, and a function that reads the model's input; each example is in one batch.
        device: device of the model.
        regions: regions of validation images, if they are learned.

    Raises:
        PocketiqaError: no selecting source has two validation images with different labels, or regions.
    """

    def __init__(
        self, examples: Examples, sources: Sequence[Source], batches: Sequence[LazyBatch], device: torch.device,
        regions: RegionValidation | None = None,
    ):  # fmt: skip
        self._examples, self._sources, self._batches, self._device = examples, sources, batches, device
        self._regions = regions
        names = [source.name for source in sources if source.selects]
        # A source with equal labels has no correlation: it would count 0 in every validation and choose nothing.
        varied = (len(set(examples.target[self._mine(number)].tolist())) > 1 for number in range(len(sources)))
        self._selecting = [
            source.name for source, varies in zip(sources, varied, strict=True) if source.selects and varies
        ]
        by_region = set() if regions is None else regions.sources
        self._selecting_regions = [
            source.name for number, source in enumerate(sources) if source.selects and number in by_region
        ]
        if not self._selecting and not self._selecting_regions:
            raise PocketiqaError(
                f"the validation part has {len(examples)} images, too few with different labels in {names} to choose "
                "a checkpoint by: raise split.validation or add scenes"
            )

    def _mine(self, number: int) -> np.ndarray:
        """Examples of a source; those without confidence are learned from by their regions alone, and have no score."""
        return (self._examples.source == number) & (self._examples.weight > 0)

    @torch.inference_mode()
    def _predict(self, score: Callable[[Any], Tensor]) -> np.ndarray:
        rank = distributed.get_rank() if world_size() > 1 else 0
        # float32 whatever the precision of the model: bfloat16 would make ties, which SRCC feels.
        predictions = torch.zeros(len(self._examples), dtype=torch.float32, device=self._device)
        for number, (indices, load) in enumerate(self._batches):
            if number % world_size() == rank:
                predictions[torch.from_numpy(indices)] = score(load()).float()
        if world_size() > 1:
            # Each position has a score in one process and 0 in the others: the sum is exact.
            distributed.all_reduce(predictions)
        return predictions.cpu().numpy()

    def validate(self, score: Callable[[Any], Tensor], maps: MapsOf | None = None) -> dict[str, Any]:
        """Metrics of each source, and the score that chooses: the mean over the sources that select.

        Args:
            score: input of a batch -> scores [B], with the model in evaluation mode.
            maps: images uint8 [B, H, W, 3] -> quality and weight map [B, h, w] that regions are read from; needed with
                regions.

        Returns:
            ``score`` in [-1, 1]: the mean of the SRCC of each selecting source with scores (0 where its images all get
            the same score), and of ``score`` of each with regions; for each of ``sources`` ``n``, ``srcc``, ``plcc``,
            ``rmse``, or, of one whose order of levels is learned, see ``level_figures``; and with regions, for each of
            the sources that have them, ``regions``: see ``RegionValidation.validate``.
        """
        predictions = self._predict(score) if len(self._examples) else np.zeros(0)
        metrics = {}
        for number, source in enumerate(self._sources):
            mine = self._mine(number)
            if source.levels is not None:
                mine = self._examples.source == number
                if mine.any():
                    metrics[source.name] = level_figures(predictions[mine], self._examples.levels[mine])
            elif mine.any():
                metrics[source.name] = correlations(predictions[mine], self._examples.target[mine])
        # None counts 0: a model that scores all images of a source alike must not gain by it.
        chosen = [metrics[name]["srcc"] or 0.0 for name in self._selecting]
        if self._regions is None or maps is None:
            return {"score": float(np.mean(chosen)), "sources": metrics}
        of_regions = self._regions.validate(maps, self._device)
        regions = {self._sources[number].name: values for number, values in of_regions.items()}
        chosen += [regions[name]["score"] for name in self._selecting_regions]
        return {"score": float(np.mean(chosen)), "sources": metrics, "regions": regions}
