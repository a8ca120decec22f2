"""How well a model repeats the labels of held-out scenes, seen whole as in use."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, distributed

from distill.data.examples import Examples, Source
from distill.training.batches import LazyBatch
from distill.training.distributed import world_size
from pseudo_labels.errors import PocketiqaError


def correlations(predictions: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """SRCC, PLCC and RMSE in float64, with n; a correlation is None where one side does not vary."""
    x, y = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        metrics = {"srcc": stats.spearmanr, "plcc": stats.pearsonr} if len(x) > 1 else {}
        values = {name: float(function(x, y)[0]) for name, function in metrics.items()}
    finite = {name: values.get(name) if np.isfinite(values.get(name, np.nan)) else None for name in ("srcc", "plcc")}
    return {"n": len(x), **finite, "rmse": float(np.sqrt(np.mean((x - y) ** 2)))}


class Validator:
    """Scores the validation part; every process takes a share of the batches.

    Args:
        examples: the validation part.
        sources: of the examples.
        batches: indices into ``examples``, and a function that reads what is scored: together each example once.
        device: of the model.

    Raises:
        PocketiqaError: no selecting source has two validation images with different labels.
    """

    def __init__(
        self, examples: Examples, sources: Sequence[Source], batches: Sequence[LazyBatch], device: torch.device
    ):
        self._examples, self._sources, self._batches, self._device = examples, sources, batches, device
        names = [source.name for source in sources if source.selects]
        varied = (len(set(examples.target[examples.source == number].tolist())) > 1 for number in range(len(sources)))
        self._selecting = [
            source.name for source, varies in zip(sources, varied, strict=True) if source.selects and varies
        ]
        if not self._selecting:
            raise PocketiqaError(
                f"the validation part has {len(examples)} images, too few with different labels in {names} to choose "
                "a checkpoint by: raise split.validation or add scenes"
            )

    @torch.inference_mode()
    def _predict(self, score: Callable[[Any], Tensor]) -> np.ndarray:
        rank = distributed.get_rank() if world_size() > 1 else 0
        predictions = torch.zeros(len(self._examples), dtype=torch.float32, device=self._device)
        for number, (indices, load) in enumerate(self._batches):
            if number % world_size() == rank:
                predictions[torch.from_numpy(indices)] = score(load()).float()
        if world_size() > 1:
            distributed.all_reduce(predictions)
        return predictions.cpu().numpy()

    def validate(self, score: Callable[[Any], Tensor]) -> dict[str, Any]:
        """Metrics of each source, and the score that chooses: the mean SRCC of the sources that select.

        Args:
            score: what a batch was read as -> scores [B], with the model in evaluation mode.

        Returns:
            ``score`` in [-1, 1] (a source whose images all get the same score counts 0), and for each of ``sources``
            ``n``, ``srcc``, ``plcc``, ``rmse``.
        """
        predictions = self._predict(score)
        metrics = {}
        for number, source in enumerate(self._sources):
            mine = self._examples.source == number
            if mine.any():
                metrics[source.name] = correlations(predictions[mine], self._examples.target[mine])
        mean = float(np.mean([metrics[name]["srcc"] or 0.0 for name in self._selecting]))
        return {"score": mean, "sources": metrics}
