"""The student in training, compared with a teacher by score and by features. Adapters are dropped at export."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.training.losses import RegionBatch, feature_error, pool_regions
from students.base import Student

# Where the teacher gives a vector, the student's map is averaged over a grid of this many cells a side.
_VECTOR_GRID = 8


def resample(features: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample the valid part of each map, so that padding plays no part and cells of both models meet.

    Args:
        features: [B, C, h, w] maps of padded images.
        valid: [B, 2], fraction of height and width that is image; the image begins at the top left.
        size: height and width of the result.

    Returns:
        [B, C, *size]: bilinear; maps that are at least twice as fine are averaged first.
    """
    factors = [max(1, given // wanted) for given, wanted in zip(features.shape[-2:], size, strict=True)]
    # Bilinear sampling reads four cells around a point; of a finer map it would leave out all others.
    if max(factors) > 1:
        features = functional.avg_pool2d(features, factors)
    # In the coordinates of grid_sample the map reaches from -1 to 1: x -> fraction * (x + 1) - 1.
    theta = torch.zeros(len(features), 2, 3, dtype=features.dtype, device=features.device)
    theta[:, 0, 0], theta[:, 1, 1] = valid[:, 1], valid[:, 0]
    theta[:, 0, 2], theta[:, 1, 2] = valid[:, 1] - 1, valid[:, 0] - 1
    grid = functional.affine_grid(theta, [len(features), 1, *size], align_corners=False)
    # The points at the edges lie outside the centres of the outer cells: "border" repeats those, zeros would darken
    # them.
    return functional.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)


class FeatureAdapter(nn.Module):
    """Student features [B, C, h, w] -> the shape of the teacher's, by a 1x1 convolution (FitNets' regressor).

    Args:
        channels: channels of the student's map.
        shape: shape of one teacher feature, (C,) or (C, h, w).
    """

    def __init__(self, channels: int, shape: tuple[int, ...]):
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(f"a teacher feature of shape {shape}: (channels,) or (channels, height, width) is needed")
        self._shape = shape
        self.project = nn.Conv2d(channels, shape[0], 1)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """[B, C, h, w] and [B, 2] (see ``resample``) -> [B, *shape]."""
        projected = self.project(features)
        if len(self._shape) == 3:
            return resample(projected, valid, (self._shape[1], self._shape[2]))
        return resample(projected, valid, (_VECTOR_GRID, _VECTOR_GRID)).mean((2, 3))


class TrainedStudent(nn.Module):
    """A student with what training adds to it, in one module, so that one wrapper synchronises all gradients.

    Args:
        student: what is trained.
        adapter: to a teacher's feature, for the feature loss.
        embeds: whether the relational loss needs embeddings.
    """

    def __init__(self, student: Student, adapter: FeatureAdapter | None = None, *, embeds: bool = False):
        super().__init__()
        self.student = student
        self.adapter = adapter
        self._embeds = embeds

    def forward(
        self, pixels: Tensor, valid: Tensor, feature: Tensor | None, regions: RegionBatch | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, tuple[Tensor, Tensor] | None]:
        """Score a batch and its regions, and compare its features.

        Args:
            pixels: uint8 [B, H, W, 3].
            valid: [B, 2], see ``resample``.
            feature: [B, ...] teacher features.
            regions: regions of the batch.

        Returns:
            Score [B]; feature error [B] with an adapter; embedding [B, C] if asked for; quality and importance [R] of
            the regions, if there are any.
        """
        output = self.student(pixels)
        # Under autocast the map may be bfloat16: too coarse for squared differences.
        features = output.features.float()
        error = embedding = None
        if self.adapter is not None and feature is not None:
            error = feature_error(self.adapter(features, valid).float(), feature)
        if self._embeds:
            embedding = resample(features, valid, (_VECTOR_GRID, _VECTOR_GRID)).mean((2, 3))
        pooled = None if regions is None else pool_regions(*output.region_maps, regions)
        return output.score, error, embedding, pooled


def teacher_embedding(feature: Tensor) -> Tensor:
    """Teacher features [B, C] or [B, C, h, w] -> [B, C]."""
    return feature if feature.ndim == 2 else feature.mean((2, 3))
