import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.draws import Draws, folds_of, fraction_above_zero, interval


def test_groups_are_drawn_whole() -> None:
    groups = [f"scene {at // 3 if at < 60 else at}" for at in range(90)]
    counts = np.concatenate(list(Draws.of(90, groups, resamples=50).counts()))
    for group in set(groups):
        members = [at for at, own in enumerate(groups) if own == group]
        assert (counts[:, members] == counts[:, members[:1]]).all()
    # As many groups as there are, on average as many images.
    assert counts.sum(axis=1).mean() == pytest.approx(90, rel=0.05)


def test_too_few_groups_have_no_interval() -> None:
    bounds = interval(np.linspace(0, 1, 100), 4)
    assert np.isnan(bounds.low)
    assert "4 groups, at least 5" in bounds.reason
    assert bounds.as_dict() == {"low": None, "high": None, "interval_reason": bounds.reason}


def test_share_above_zero_counts_ties_half() -> None:
    assert fraction_above_zero(np.array([1.0, -1.0, 0.0, 0.0, np.nan])) == 0.5
    assert np.isnan(fraction_above_zero(np.array([np.nan])))


def test_mistakes_are_refused() -> None:
    with pytest.raises(PocketiqaError, match="2 groups for 3 images"):
        Draws.of(3, ["a", "b"])
    with pytest.raises(PocketiqaError, match="0 resamples"):
        Draws.of(3, resamples=0)


def test_folds_keep_groups_whole_and_depend_on_no_order() -> None:
    groups = [f"scene {at // 3}" for at in range(300)]
    folds = folds_of(groups, 5, seed=1)
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3, 4]
    assert np.bincount(folds).tolist() == [60] * 5
    of_group = dict(zip(groups, folds.tolist(), strict=True))
    assert [of_group[group] for group in groups] == folds.tolist()
    order = np.random.default_rng(0).permutation(300)
    assert folds_of([groups[at] for at in order], 5, seed=1).tolist() == folds[order].tolist()
    assert folds_of(groups, 5, seed=2).tolist() != folds.tolist()
