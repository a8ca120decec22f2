from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr

from distill.stages import map_head_fitting
from distill.stages.map_head_fitting import CellFeatures, Heads, fit_heads, scores_of, slopes_of
from pseudo_labels.errors import PocketiqaError
from students.base import score_images
from tests.helpers.tiny_students import photographs, tiny_student


def rho(first: Any, second: Any) -> float:
    result: Any = spearmanr(first, second)
    return float(result.statistic)


START = Heads(np.array([[0.5, -0.3, 0.2, 0.0], [0.1, 0.4, -0.2, 0.3]]), np.array([0.1, -0.2]))


def cells(photographs: int = 80, seed: int = 0) -> CellFeatures:
    """Maps of 6 to 12 cells of four channels, each with a part of its own and one of its photograph's."""
    rng = np.random.default_rng(seed)
    maps = [
        rng.normal(rng.normal(0, 1, 4), 1, (count, 4)).astype(np.float16) for count in rng.integers(6, 13, photographs)
    ]
    return CellFeatures.of(maps)


def test_scores_are_those_of_the_student():
    student = tiny_student()
    outputs = score_images(student, photographs())
    maps = [output.features.flatten(1).T.numpy().astype(np.float16) for output in outputs]
    assert student.heads.bias is not None
    heads = Heads(student.heads.weight.detach().double().numpy()[:, :, 0, 0], student.heads.bias.detach().numpy())
    own = scores_of(CellFeatures.of(maps), heads)
    # The features were rounded to float16.
    assert own == pytest.approx([float(output.score) for output in outputs], abs=1e-3)
    assert Heads.from_dict(heads.as_dict()).weight == pytest.approx(heads.weight)


def test_slopes_are_those_of_torch():
    features = cells(5)
    weight = torch.tensor(START.weight, requires_grad=True)
    bias = torch.tensor(START.bias, requires_grad=True)
    scores, by_weight, by_bias = slopes_of(features, START)
    begin = 0
    for number, count in enumerate(features.counts.tolist()):
        own = torch.tensor(features.values[begin : begin + count].astype(np.float64))
        begin += count
        quality, weights = (own @ weight.T + bias).sigmoid().T
        weights = weights + map_head_fitting.LEAST_WEIGHT
        score = (quality * weights).sum() / weights.sum()
        slopes = torch.autograd.grad(score, (weight, bias))
        assert scores[number] == pytest.approx(score.item(), abs=1e-6)
        assert by_weight[number] == pytest.approx(slopes[0].numpy(), abs=1e-6)
        assert by_bias[number] == pytest.approx(slopes[1].numpy(), abs=1e-6)


def test_the_fit_is_that_of_a_general_optimiser():
    features, rng, penalty = cells(), np.random.default_rng(3), 0.003
    ratings = rng.uniform(0.2, 0.8, 80)
    mean, deviation = features.moments()
    assert mean == pytest.approx(features.values.astype(np.float64).mean(0), abs=1e-4)
    assert deviation == pytest.approx(features.values.astype(np.float64).std(0), abs=1e-4)

    def loss(heads: Heads, multiple: float) -> float:
        changes = (heads.weight - np.array([[multiple], [1.0]]) * START.weight) * deviation
        change = heads.bias[1] + heads.weight[1] @ mean - START.bias[1] - START.weight[1] @ mean
        error = np.mean((scores_of(features, heads) - ratings) ** 2)
        return float(error + penalty * ((changes**2).sum() + change**2))

    def at(values: np.ndarray) -> float:
        return loss(Heads(values[:8].reshape(2, 4), values[8:10]), values[10])

    first = np.concatenate([START.weight.ravel(), START.bias, [1.0]])
    expected = minimize(at, first, method="BFGS", options={"gtol": 1e-7, "eps": 1e-5}).fun
    (fitted,) = fit_heads(features, ratings, START, [penalty])
    best = min(loss(fitted, multiple) for multiple in np.linspace(-2, 2, 4001))
    assert best == pytest.approx(expected, rel=2e-3)


def test_another_taste_is_learned_and_a_large_penalty_keeps_the_order():
    features = cells(200)
    taste = Heads(np.array([[0.0, 0.0, 1.5, -1.0], [0.5, 0.4, -0.2, 0.3]]), np.array([0.4, 0.0]))
    ratings = scores_of(features, taste)
    before = scores_of(features, START)
    fits = fit_heads(features, ratings, START, [1e6, 0.1, 1e-3, 1e-6])
    errors = [np.sqrt(np.mean((scores_of(features, heads) - ratings) ** 2)) for heads in fits]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 < 0.05 < errors[0]
    assert abs(rho(scores_of(features, fits[0]), before)) > 0.99
    # On photographs that it has not seen, too.
    others = cells(200, seed=1)
    assert rho(scores_of(others, fits[-1]), scores_of(others, taste)) > 0.99


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    features = cells(30)
    whole = slopes_of(features, START), features.moments()
    monkeypatch.setattr(map_head_fitting, "_CHUNK_CELLS", 20)
    assert len(list(features.chunks())) > 10
    parts = slopes_of(features, START), features.moments()
    for one, other in zip((*whole[0], *whole[1]), (*parts[0], *parts[1]), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    keep = np.arange(30) % 3 == 0
    assert scores_of(features.take(keep), START) == pytest.approx(scores_of(features, START)[keep], abs=1e-6)


def test_features_beyond_float16_are_refused():
    with pytest.raises(PocketiqaError, match="exceed 65,504"):
        CellFeatures.of([np.array([[np.inf, 0.0]], np.float16)])
