"""Distillation losses: pure functions of whole-batch tensors; ``total_loss`` adds what the recipe asks for.

Weights of rows (label confidence) are relative: only the losses that compare rows with each other normalise by their
sum. The score and feature losses divide by the number of rows instead, so that their gradient is a plain mean and
accumulates over micro-batches and processes without error; the data therefore scales confidences to a mean of 1. Those
of a live teacher keep their scale, and these two losses shrink in proportion to them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distill.recipe.training import LossSettings, MarginKind, ScoreKind, ScoreLossSettings

# Targets closer than this (in units of the score) have no order worth learning.
_MIN_SPREAD = 1e-6
# A batch of predictions with less spread than this is treated as if it had it: the correlation's gradient grows with
# one over the spread, and the first steps of a student that gives every image the same score must not explode.
_MIN_PREDICTED_SPREAD = 1e-3
Terms = dict[str, Tensor]
_Recipe = Mapping[str, tuple[float, Callable[[], Tensor]]]


@dataclass(frozen=True)
class LossInputs:
    """One batch, over all processes.

    Attributes:
        prediction: [B] student scores.
        target: [B] labels in [0, 1].
        weight: [B] confidence of each label, at least 0; see ``batches.Batch``.
        feature_error: [B] mean squared difference to the teacher's feature, from ``feature_error``.
        feature_weight: [B] like ``weight``, 0 for rows without a teacher feature.
        student_embedding: [B, D] pooled student features.
        teacher_embedding: [B, E] pooled teacher features.
        regions: errors of the regions of each image, from ``region_errors``.
        levels: [B, 4] as ``Examples.levels``.
    """

    prediction: Tensor
    target: Tensor
    weight: Tensor
    feature_error: Tensor | None = None
    feature_weight: Tensor | None = None
    student_embedding: Tensor | None = None
    teacher_embedding: Tensor | None = None
    regions: "RegionErrors | None" = None
    levels: Tensor | None = None


class RegionBatch(NamedTuple):
    """Regions of a batch, on a device; see ``data.regions.RegionArrays``."""

    overlap: Tensor
    image: Tensor
    quality: Tensor
    importance: Tensor
    weight: Tensor
    importance_weight: Tensor
    inside: Tensor


class RegionErrors(NamedTuple):
    """Costs of the regions of each image: [B] each, 0 for an image without regions.

    Attributes:
        quality: mean error of the quality of its regions.
        importance: mean error of their importance.
        ranking: mean cost of its pairs of regions, by quality and by importance.
    """

    quality: Tensor
    importance: Tensor
    ranking: Tensor


def score_loss(prediction: Tensor, target: Tensor, weight: Tensor, kind: ScoreKind, delta: float) -> Tensor:
    """Weighted squared or Huber error, divided by the number of rows.

    Huber (1964), scaled by 1 / ``delta`` so that its slope far away is 1 whatever ``delta``.
    """
    if kind == "mse":
        return (weight * (prediction - target).square()).mean()
    return (weight * functional.huber_loss(prediction, target, reduction="none", delta=delta)).mean() / delta


def pool_regions(quality_map: Tensor, weight_map: Tensor, regions: RegionBatch) -> tuple[Tensor, Tensor]:
    """Quality and importance of regions, as the maps of the student say them.

    Args:
        quality_map: [B, h, w].
        weight_map: [B, h, w], positive.
        regions: regions of these images.

    Returns:
        [R] mean of the quality map inside the mask, weighted by the weight map, and [R] fraction of the weights of the
        image that lies inside the mask, as at run time; both 0 for a region that is not shown.
    """
    inside = weight_map[regions.image] * regions.overlap
    mass = inside.sum((1, 2))
    total = (weight_map * regions.inside).sum((1, 2))[regions.image]
    quality = (quality_map[regions.image] * inside).sum((1, 2)) / mass.clamp_min(torch.finfo(mass.dtype).tiny)
    return quality, mass / total


def region_errors(pooled: tuple[Tensor, Tensor], regions: RegionBatch, options: LossSettings) -> RegionErrors:
    """Compare regions with their labels, image by image: sums over images then do not depend on other processes.

    Args:
        pooled: quality and importance of the regions, from ``pool_regions``.
        regions: the same regions, with their labels.
        options: kind of the regression, and margin of the ranking.
    """
    images = len(regions.inside)
    columns = (
        (pooled[0], regions.quality, regions.weight),
        (pooled[1], regions.importance, regions.importance_weight),
    )
    errors, ranking = [], regions.inside.new_zeros(images)
    number = torch.bincount(regions.image, minlength=images).clamp_min(1)
    for prediction, target, weight in columns:
        # One row a region: the mean over the regions of an image is taken below.
        if options.score_kind == "mse":
            error = (prediction - target).square()
        else:
            error = functional.huber_loss(prediction, target, reduction="none", delta=options.huber_delta)
            error = error / options.huber_delta
        errors.append(_by_image(weight * error, regions.image, images) / number)
        ranking = ranking + _ranking_by_image(
            prediction, target, weight, regions.image, images=images, margin=options.region_margin
        )
    return RegionErrors(*errors, ranking=ranking)


def _by_image(values: Tensor, image: Tensor, images: int) -> Tensor:
    return values.new_zeros(images).index_add(0, image, values)


def plcc_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - weighted Pearson correlation, in [0, 2]; 0 without gradient where the targets do not vary.

    Constant predictions have no correlation: they cost 1, with a finite gradient that pulls them apart in the right
    order.
    """
    # The smallest float above 0: where no row has a weight, all fractions are 0 and not 0 / 0.
    fraction = weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
    centred_target = target - (fraction * target).sum()
    target_variance = (fraction * centred_target.square()).sum()
    # Not 0.0 alone: backward() needs a result that depends on the predictions.
    if target_variance <= _MIN_SPREAD**2:
        return prediction.sum() * 0.0
    centred = prediction - (fraction * prediction).sum()
    variance = (fraction * centred.square()).sum()
    covariance = (fraction * centred * centred_target).sum()
    return 1.0 - covariance / (variance.clamp_min(_MIN_PREDICTED_SPREAD**2) * target_variance).sqrt()


def ranking_loss(prediction: Tensor, target: Tensor, weight: Tensor, margin: float, kind: MarginKind) -> Tensor:
    """Margin ranking over all pairs whose targets differ, each weighted by the product of its rows' weights.

    A pair costs max(0, m - (p_i - p_j)) where target i is the better one. The margin m never asks for more than the
    targets themselves differ: min(|t_i - t_j|, limit), with ``limit`` = ``margin`` times the standard deviation of the
    batch's targets (``relative``) or ``margin`` itself, in units of the score (``fixed``).

    Returns:
        The weighted mean over pairs; 0 where no pair differs.
    """
    difference = target[:, None] - target[None, :]
    # correction=0: the deviation of a single image is 0 then, and not NaN.
    limit = margin * target.std(correction=0) if kind == "relative" else margin
    # Of (i, j) and (j, i) only the one whose first image is the better: each pair counts once.
    better = difference > _MIN_SPREAD
    pair_weight = weight[:, None] * weight[None, :] * better
    cost = functional.relu(difference.clamp(max=limit) - (prediction[:, None] - prediction[None, :]))
    return (pair_weight * cost).sum() / pair_weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def _ranking_by_image(
    prediction: Tensor, target: Tensor, weight: Tensor, image: Tensor, *, images: int, margin: float
) -> Tensor:
    """As ``ranking_loss`` with a fixed margin, over the pairs of regions of each image: [B]."""
    difference = target[:, None] - target[None, :]
    pair_weight = weight[:, None] * weight[None, :] * ((difference > _MIN_SPREAD) & (image[:, None] == image[None, :]))
    cost = functional.relu(difference.clamp(max=margin) - (prediction[:, None] - prediction[None, :]))
    total = _by_image(pair_weight.sum(1), image, images)
    return _by_image((pair_weight * cost).sum(1), image, images) / total.clamp_min(torch.finfo(weight.dtype).tiny)


def level_ranking_loss(prediction: Tensor, levels: Tensor) -> Tensor:
    """Order of the levels of a distortion, over all pairs of pictures of one list: a hinge on either side.

    A pair costs max(0, d least - (p_i - p_j)) + max(0, (p_i - p_j) - d most), where picture j is d levels worse than i:
    the score must fall by at least ``least`` for each level, and by at most ``most``.

    Args:
        prediction: [B] scores.
        levels: [B, 4], see ``data.examples.Examples``.

    Returns:
        The mean over pairs; 0 where there is none.
    """
    listed, level, least, most = levels.unbind(1)
    together = (listed[:, None] == listed[None, :]) & (listed[:, None] >= 0)
    # The pairs are picked, not masked: no limit is infinite, and infinity times 0 is not a number.
    better, worse = torch.nonzero(together & (level[:, None] < level[None, :]), as_tuple=True)
    further = level[worse] - level[better]
    drop = prediction[better] - prediction[worse]
    cost = functional.relu(further * least[better] - drop) + functional.relu(drop - further * most[better])
    # Not 0.0 alone: backward() needs a result that depends on the predictions.
    return cost.mean() if len(cost) else prediction.sum() * 0.0


def feature_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of each row: [B, ...] and [B, ...] -> [B] (Romero et al. 2015, FitNets, equation 3)."""
    return (student - teacher).square().flatten(1).mean(1)


def _scaled_distances(rows: Tensor, pairs: tuple[Tensor, Tensor], fraction: Tensor) -> Tensor:
    # The root's gradient is infinite at 0; equal rows contribute a distance of (almost) 0 without a gradient.
    squared = (rows[pairs[0]] - rows[pairs[1]]).square().sum(1)
    distance = squared.clamp_min(torch.finfo(rows.dtype).tiny ** 0.5).sqrt()
    mean = (fraction * distance).sum()
    return distance / mean.clamp_min(torch.finfo(rows.dtype).eps)


def relational_loss(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Distance-wise relational distillation (Park et al. 2019, RKD-D, equations 6 to 8).

    Distances between all pairs of rows, divided by their mean, are compared by a Huber loss (delta 1); pairs weigh the
    product of their rows' weights.

    Args:
        student: [B, D] embeddings.
        teacher: [B, E] embeddings; the widths may differ.
        weight: [B]; rows with weight 0 take no part.

    Returns:
        The weighted mean over pairs; 0 with fewer than two weighted rows or where the teacher's rows are all equal.
    """
    index = torch.triu_indices(len(student), len(student), offset=1, device=student.device)
    pairs = (index[0], index[1])
    pair_weight = weight[pairs[0]] * weight[pairs[1]]
    if pair_weight.sum() <= 0:
        return student.sum() * 0.0
    fraction = pair_weight / pair_weight.sum()
    wanted = _scaled_distances(teacher, pairs, fraction)
    if (fraction * wanted).sum() < 0.5:  # the mean of scaled distances is 1 unless all distances vanish
        return student.sum() * 0.0
    cost = functional.huber_loss(_scaled_distances(student, pairs, fraction), wanted, reduction="none", delta=1.0)
    return (fraction * cost).sum()


def score_loss_of(batch: LossInputs, options: ScoreLossSettings) -> tuple[Tensor, Terms]:
    """Weighted sum of the losses on scores with a weight above 0.

    Returns:
        The total, and each computed term before its weight.
    """
    return _weighted_sum(batch, _score_terms(batch, options))


def total_loss(batch: LossInputs, options: LossSettings) -> tuple[Tensor, Terms]:
    """Weighted sum of the losses on scores, features, regions and levels with a weight above 0.

    Args:
        batch: what the losses compare, over all processes.
        options: weights and constants.

    Returns:
        The total, and each computed term before its weight.

    Raises:
        ValueError: a loss on features, regions or levels has a weight, but the batch brings none.
    """
    features: _Recipe = {
        "feature": (options.feature, lambda: _feature_term(batch)),
        "relational": (options.relational, lambda: _relational_term(batch)),
    }
    regions: _Recipe = {
        "region_quality": (options.region_quality, lambda: _region_errors(batch).quality.mean()),
        "region_importance": (options.region_importance, lambda: _region_errors(batch).importance.mean()),
        "region_ranking": (options.region_ranking, lambda: _region_errors(batch).ranking.mean()),
    }
    levels: _Recipe = {"level_ranking": (options.level_ranking, lambda: _level_term(batch))}
    return _weighted_sum(batch, {**_score_terms(batch, options), **features, **regions, **levels})


def _weighted_sum(batch: LossInputs, recipe: _Recipe) -> tuple[Tensor, Terms]:
    terms = {name: compute() for name, (weight, compute) in recipe.items() if weight > 0}
    # Every parameter gets a gradient, of 0 where no loss looks at the score: DistributedDataParallel expects one from
    # each. A score that is NaN makes the total NaN, too.
    total = batch.prediction.sum() * 0.0
    for name, term in terms.items():
        total = total + recipe[name][0] * term
    return total, terms


def _score_terms(batch: LossInputs, options: ScoreLossSettings) -> _Recipe:
    return {
        "score": (
            options.score,
            lambda: score_loss(batch.prediction, batch.target, batch.weight, options.score_kind, options.huber_delta),
        ),
        "plcc": (options.plcc, lambda: plcc_loss(batch.prediction, batch.target, batch.weight)),
        "ranking": (
            options.ranking,
            lambda: ranking_loss(batch.prediction, batch.target, batch.weight, options.margin, options.margin_kind),
        ),
    }


def _region_errors(batch: LossInputs) -> RegionErrors:
    if batch.regions is None:
        raise ValueError("a loss on regions has a weight, but the batch has no regions")
    return batch.regions


def _level_term(batch: LossInputs) -> Tensor:
    if batch.levels is None:
        raise ValueError("the loss on levels has a weight, but the batch has no levels")
    return level_ranking_loss(batch.prediction, batch.levels)


def _feature_term(batch: LossInputs) -> Tensor:
    if batch.feature_error is None or batch.feature_weight is None:
        raise ValueError("the feature loss has a weight, but the batch has no feature_error and feature_weight")
    return (batch.feature_weight * batch.feature_error).mean()


def _relational_term(batch: LossInputs) -> Tensor:
    if batch.student_embedding is None or batch.teacher_embedding is None or batch.feature_weight is None:
        raise ValueError("the relational loss has a weight, but the batch has no embeddings and feature_weight")
    return relational_loss(batch.student_embedding, batch.teacher_embedding, batch.feature_weight)
