"""Metrics of a validation, and which of them chooses the checkpoint."""

from typing import cast

import numpy as np
import pytest
import torch
from scipy import stats

from distill.data.examples import Examples, LabelTable, Source
from distill.training.validation import Validator, correlations, level_figures
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool


def test_metrics_agree_with_scipy():
    generator = np.random.default_rng(3)
    predictions, targets = generator.random(40), np.round(generator.random(40), 1)  # with ties
    measured = correlations(predictions, targets)
    assert measured["n"] == 40
    assert measured["srcc"] == pytest.approx(stats.spearmanr(predictions, targets)[0], abs=1e-14)
    assert measured["plcc"] == pytest.approx(stats.pearsonr(predictions, targets)[0], abs=1e-14)
    assert measured["rmse"] == pytest.approx(np.sqrt(np.mean((predictions - targets) ** 2)))


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]), ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5]), ([0.1, 0.2], [0.2, 0.1])],
)
def test_a_correlation_that_does_not_exist_is_none(predictions: list[float], targets: list[float]):
    measured = correlations(np.array(predictions), np.array(targets))
    assert (measured["srcc"], measured["plcc"]) == (None, None)
    assert measured["rmse"] > 0


def test_equal_scores_have_no_error():
    measured = correlations(np.array([0.1, 0.5, 0.9]), np.array([0.1, 0.5, 0.9]))
    assert (measured["n"], measured["rmse"]) == (3, 0.0)
    assert (measured["srcc"], measured["plcc"]) == pytest.approx((1.0, 1.0), abs=1e-15)


def validator(
    targets: list[float], source_of: list[int], selects: list[bool], weight: list[float] | None = None
) -> Validator:
    """Validation of images whose only input is their own index, in batches of two."""
    n = len(targets)
    zeros = np.zeros(n, np.int32)
    examples = Examples(
        source=np.array(source_of, np.int16), row=np.arange(n, dtype=np.int32), target=np.array(targets, np.float32),
        weight=np.array(weight or [1.0] * n, np.float32), flipped=zeros.astype(bool),
        box=np.tile([0.0, 0.0, 1.0, 1.0], (n, 1)),
        shard=zeros - 1, shard_row=zeros, levels=np.tile([-1.0, 0.0, 0.0, np.inf], (n, 1)),
    )  # fmt: skip
    table = LabelTable([], [])
    sources = [Source(f"s{number}", cast(Pool, None), table, selects=chosen) for number, chosen in enumerate(selects)]
    chunks = [np.arange(start, min(start + 2, n)) for start in range(0, n, 2)]
    batches = [(chunk, lambda chunk=chunk: torch.from_numpy(chunk)) for chunk in chunks]
    return Validator(examples, sources, batches, torch.device("cpu"))


def test_each_source_is_measured_alone_and_only_selecting_ones_choose():
    predictions = torch.tensor([0.1, 0.2, 0.3, 0.9, 0.5, 0.1])
    result = validator([0.0, 0.5, 1.0, 0.0, 0.5, 1.0], [0, 0, 0, 1, 1, 1], [True, False]).validate(
        lambda indices: predictions[indices]
    )
    assert [result["sources"][name]["srcc"] for name in ("s0", "s1")] == pytest.approx([1.0, -1.0])
    assert result["score"] == pytest.approx(1.0)
    both = validator([0.0, 0.5, 1.0, 0.0, 0.5, 1.0], [0, 0, 0, 1, 1, 1], [True, True])
    assert both.validate(lambda indices: predictions[indices])["score"] == pytest.approx(0.0, abs=1e-12)


def test_a_student_that_gives_one_score_to_all_counts_nothing():
    result = validator([0.0, 0.5, 1.0], [0, 0, 0], [True]).validate(lambda indices: torch.full((len(indices),), 0.5))
    assert result["score"] == 0.0
    assert result["sources"]["s0"]["srcc"] is None


def test_of_levels_the_order_within_each_list_is_measured():
    columns = [(4, 0), (4, 2), (4, 5), (9, 0), (9, 1), (9, 2), (9, 3), (12, 0), (12, 4)]
    levels = np.array([(*pair, 0.01, np.inf) for pair in columns])
    scores = np.array([0.9, 0.5, 0.1, 0.3, 0.4, 0.5, 0.6, 0.2, 0.1])
    figures = level_figures(scores, levels)
    assert figures == {
        "n": 2,
        "srcc": pytest.approx(0.0, abs=1e-12),
        "plcc": None,
        "rmse": None,
        "above": pytest.approx(1 / 3),
    }
    assert level_figures(scores[7:], levels[7:]) | {"above": 0} == {
        "n": 0, "srcc": None, "plcc": None, "rmse": None, "above": 0,
    }  # fmt: skip


def test_a_validation_part_that_can_choose_nothing_is_refused():
    with pytest.raises(PocketiqaError, match=r"3 images, too few with different labels in \['s0'\].*split.validation"):
        validator([0.5, 0.5, 0.5], [0, 0, 0], [True])


def test_images_that_are_learned_from_by_their_regions_alone_have_no_score_to_validate():
    predictions = torch.tensor([0.1, 0.2, 0.3, 0.9, 0.5])
    weight = [1.0, 1.0, 1.0, 0.0, 0.0]
    made = validator([0.0, 0.5, 1.0, 0.0, 0.0], [0, 0, 0, 0, 1], [True, False], weight)
    result = made.validate(lambda chunk: predictions[chunk])
    assert result["score"] == pytest.approx(1)
    assert result["sources"]["s0"]["n"] == 3
    assert list(result["sources"]) == ["s0"]
