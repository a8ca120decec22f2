"""How well a student knows the regions of validation images while it learns: what chooses a checkpoint by regions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from distill.data.examples import Examples
from distill.data.pixel_cache import PixelCache
from distill.evaluation.regions import within_pictures
from distill.training.batches import RegionShower, crop_pixels, labelled_crop
from distill.training.distributed import world_size
from distill.training.losses import RegionBatch, pool_regions
from pseudo_labels.metrics.correlation import srcc, undefined

MapsOf = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images uint8 [B, H, W, 3] -> quality and weight map [B, h, w]."""


class RegionValidation:
    """Regions of whole validation images, as the runtime sees them; every process takes every world-th batch.

    Args:
        examples: the validation part.
        caches: pixels of each source.
        shower: labelled regions.
        batch_size: images of one size that are computed together.
    """

    def __init__(
        self, examples: Examples, caches: Sequence[PixelCache], shower: RegionShower, batch_size: int
    ):  # fmt: skip
        self._examples, self._caches, self._shower = examples, caches, shower
        rows = zip(examples.source.tolist(), examples.row.tolist(), strict=True)
        labelled = [index for index, (source, row) in enumerate(rows) if shower.reader.has_regions(source, row)]
        by_size: dict[tuple[int, int], list[int]] = {}
        for index in labelled:
            crop = labelled_crop(examples, caches, index)
            by_size.setdefault((crop.height, crop.width), []).append(index)
        self._batches = [
            (size, own[start : start + batch_size])
            for size, own in by_size.items()
            for start in range(0, len(own), batch_size)
        ]
        self.sources = {int(examples.source[index]) for index in labelled}
        """Numbers of the sources that have any."""

    def _regions(self, size: tuple[int, int], chosen: Sequence[int]) -> RegionBatch:
        crops = [labelled_crop(self._examples, self._caches, index) for index in chosen]
        return self._shower.of(self._examples, self._caches, crops, size)

    @torch.inference_mode()
    def validate(self, maps: MapsOf, device: torch.device) -> dict[int, dict[str, Any]]:
        """Metrics by number of the source.

        Args:
            maps: the model, in evaluation mode.
            device: of the model.

        Returns:
            ``n`` regions; ``within``: mean SRCC of the quality within each picture; ``importance``: SRCC over all
            regions whose image says something of it; and ``score``, the mean of the two. A metric that is undefined is
            None, and counts 0.
        """
        rank = distributed.get_rank() if world_size() > 1 else 0
        columns: list[list[np.ndarray]] = [[] for _ in range(6)]
        for number, (size, chosen) in enumerate(self._batches):
            regions = self._regions(size, chosen)
            predicted = torch.zeros(2, len(regions.image), dtype=torch.float64, device=device)
            if number % world_size() == rank:
                crops = [labelled_crop(self._examples, self._caches, index) for index in chosen]
                pixels = np.stack([crop_pixels(self._examples, self._caches, crop) for crop in crops])
                moved = RegionBatch(*(value.to(device) for value in regions))
                pooled = pool_regions(*maps(torch.from_numpy(pixels).to(device)), moved)
                predicted += torch.stack(pooled).double()
            if world_size() > 1:
                # Each region has a value in one process and 0 in the others: the sum is exact.
                distributed.all_reduce(predicted)
            index = np.asarray(chosen)[regions.image.numpy()]
            known = regions.importance_weight.numpy() > 0
            values = (index, regions.quality.numpy(), regions.importance.numpy(), known, *predicted.cpu().numpy())
            for column, part in zip(columns, values, strict=True):
                column.append(part)
        if not self._batches:
            return {}
        index, quality, importance, known, given, given_importance = (np.concatenate(column) for column in columns)
        source = self._examples.source[index]
        return {
            number: _metrics(
                index[source == number],
                (given[source == number], quality[source == number]),
                tuple(values[(source == number) & known] for values in (given_importance, importance)),
            )
            for number in sorted(self.sources)
        }


def _metrics(
    image: np.ndarray, quality: tuple[np.ndarray, np.ndarray], importance: tuple[np.ndarray, ...]
) -> dict[str, Any]:
    within = within_pictures(*quality, image)
    given, target = importance
    order = None if undefined(given, target) else float(srcc(given, target))
    return {"n": len(image), "within": within, "importance": order, "score": ((within or 0.0) + (order or 0.0)) / 2}
