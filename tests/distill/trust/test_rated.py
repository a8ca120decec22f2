from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.leakage.image_sets import evaluation_image_set
from distill.trust.models import open_models
from distill.trust.rated import clustered, coverage, with_ratings
from distill.trust.store import ScoreStore
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import Status
from students.meaning.intervals import Intervals, Spread
from students.meaning.model_record import ModelName
from tests.distill.trust.conftest import DARKNESS, Compared

NAME = ModelName("tiny", "b" * 64)


def test_intervals_hold_as_many_ratings_as_are_counted():
    rng = np.random.default_rng(0)
    scores, ratings = rng.random(40), rng.random(40)
    ids, groups = (tuple(f"{word}{at}" for at in range(40)) for word in ("i", "g"))
    subsets = ("left",) * 15 + ("right",) * 25
    targets = Targets("rated", "opinions", ids, ratings, groups, subsets, (False,) * 40)
    made = Predictions("tiny", "onnx", ids, scores, (Status.OK,) * 40, ("",) * 40)
    record = Intervals(NAME, "tests", 10, 10, Spread((0.0, 1.0), (1.0, 2.0)), {80: 0.1, 95: 0.3})
    rows = {(row["part"], row["level"]): row for row in coverage(record, made, targets)}
    assert set(rows) == {(part, level) for part in ("all", "left", "right") for level in (80, 95)}
    inside = np.abs(scores - ratings) <= 0.3 * (1 + scores)
    assert rows["all", 95]["coverage"]["value"] == pytest.approx(inside.mean())
    assert rows["right", 95]["coverage"]["value"] == pytest.approx(inside[15:].mean())
    assert rows["left", 80]["n"] == 15
    whole = rows["all", 95]["coverage"]
    assert whole["low"] <= whole["value"] <= whole["high"]


def test_clusters_are_those_of_the_content():
    rng = np.random.default_rng(0)
    sizes, middles = (50, 30, 20), rng.normal(size=(3, 16))
    vectors = np.concatenate(
        [middle + 0.01 * rng.normal(size=(n, 16)) for n, middle in zip(sizes, middles, strict=True)]
    )
    ids = [f"{kind}-{at}" for kind, n in enumerate(sizes) for at in range(n)]
    found = clustered(ids, vectors.astype(np.float32))
    for cluster in found:
        assert len({id.split("-")[0] for id in cluster.ids}) == 1
        assert len(cluster.examples) == 3
        assert set(cluster.examples) <= set(cluster.ids)
    assert [len(cluster.ids) for cluster in found] == sorted((len(cluster.ids) for cluster in found), reverse=True)
    assert clustered(ids[:39], vectors[:39].astype(np.float32)) == []


def test_ratings_are_compared_model_by_model(compared: Compared):
    ratings = compared.result["ratings"]
    assert (ratings["n"], ratings["clusters"], ratings["contents"]) == (3, [], None)
    assert [model["name"] for model in ratings["evaluation"]["models"]] == ["tiny", "darkness"]
    # The record beside the model's file is read without being named.
    (held,) = ratings["intervals"]
    assert (held["model"], held["record"]) == ("tiny", "tests")
    assert [part["coverage"]["value"] for part in held["parts"] if part["level"] == 95] == [1]


def test_a_record_of_another_model_is_refused(compared: Compared, tmp_path: Path):
    record = Intervals(NAME, "tests", 10, 10, Spread(), {80: 0.1, 95: 0.3})
    (tmp_path / "other.json").write_bytes(record.to_bytes())
    models, rated = open_models([DARKNESS]), evaluation_image_set(compared.words["ratings"])
    with (
        ScoreStore.opened(tmp_path / "scores") as store,
        pytest.raises(PocketiqaError, match=r"other\.json is of tiny.*no exported student is compared"),
    ):
        with_ratings(models, rated, store, intervals=[tmp_path / "other.json"], progress=lambda *now: None)
