import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from tests.helpers.fusing import ROWS, FloatArray, invented_pool, make_stores, ratings_of, rho, seen, teacher_store

NAN = np.nan


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return invented_pool(tmp_path_factory.mktemp("pool") / "pool")


@pytest.fixture
def make(pool: Pool, tmp_path: Path) -> Callable[..., Path]:
    return make_stores(pool, tmp_path)


def constant(_: FloatArray) -> FloatArray:
    return np.full(ROWS, 0.4)


def reversed_(scores: FloatArray) -> FloatArray:
    return 1 - scores


def sparse(scores: FloatArray) -> FloatArray:
    return np.where(np.arange(ROWS) < 19, scores, NAN)


def silent(_: FloatArray) -> FloatArray:
    return np.full(ROWS, NAN)


@pytest.mark.parametrize(
    ("change", "with_ratings", "without"),
    [
        (constant, "'odd' is constant: its 239 scores of the pool", "'odd' is constant"),
        (
            reversed_,
            "'odd' is reversed: SRCC -0.* with the ratings",
            "'odd' is reversed: its mean SRCC with the 2 oth",
        ),
        (sparse, "'odd' has scores for 18 images with ratings", "'odd' has at most 18 scored images in common"),
        (silent, "'odd' has no score for any of 240 images", "'odd' has no score"),
    ],
)
def test_a_degenerate_teacher_is_refused_by_name(
    change: Callable[[FloatArray], FloatArray], with_ratings: str, without: str, pool: Pool, make: Any, tmp_path: Path
):
    folders = [make(seen(0.1, 1), "good"), make(change(seen(0.1, 2)), "odd"), make(seen(0.1, 3), "fine")]
    with pytest.raises(PocketiqaError, match=with_ratings):
        fuse(folders, tmp_path / "out", ratings=ratings_of(pool))
    with pytest.raises(PocketiqaError, match=without):
        fuse(folders, tmp_path / "out", calibrate="none")
    assert not (tmp_path / "out").exists()


def test_quantiles_need_images_that_all_teachers_scored(make: Any, tmp_path: Path):
    halves = np.where(np.arange(ROWS) < 125, seen(0.1, 1), NAN), np.where(np.arange(ROWS) > 110, seen(0.1, 2), NAN)
    folders = [make(halves[0], "a"), make(halves[1], "b"), make(seen(0.1, 3), "c")]
    with pytest.raises(PocketiqaError, match="14 images have a score from all of a, b, c: at least 20 are needed"):
        fuse(folders, tmp_path / "out", calibrate="quantile")


def test_two_that_contradict_each_other_are_both_named(make: Any, tmp_path: Path):
    folders = [make(seen(0.1, 1), "a"), make(1 - seen(0.1, 2), "b")]
    with pytest.raises(PocketiqaError, match=r"'a' and 'b' contradict each other: SRCC -0\.\d\d \(n=239\)"):
        fuse(folders, tmp_path / "out", calibrate="none")


def test_stores_that_do_not_belong_together_are_refused(pool: Pool, make: Any, tmp_path: Path):
    one, two = make(seen(0.1, 1), "one"), make(seen(0.1, 2), "two")
    out, ratings = tmp_path / "out", ratings_of(pool)
    other = invented_pool(tmp_path / "pool", salt="other")
    foreign = teacher_store(tmp_path / "foreign", other, seen(0.1, 3), name="foreign").folder
    with pytest.raises(PocketiqaError, match=r"foreign are of another pool than those in .*one"):
        fuse([one, foreign], out, ratings=ratings)
    flipped = make(seen(0.1, 3), "flipped", view="flip")
    with pytest.raises(PocketiqaError, match=r"row 0 of .* is of the view 'f\w+', but of 'f\w+' in"):
        fuse([one, flipped], out, ratings=ratings)
    copied = shutil.copytree(one, tmp_path / "copied")
    with pytest.raises(PocketiqaError, match="hold the same labels"):
        fuse([one, two, copied], out, ratings=ratings)
    unfinished = make(seen(0.1, 3), "unfinished", finish=False)
    with pytest.raises(PocketiqaError, match="unfinished is not finished"):
        fuse([one, unfinished], out, ratings=ratings)
    with pytest.raises(PocketiqaError, match="no labels to fuse"):
        fuse([], out, ratings=ratings)
    path = LabelStore.open(two).shard_folder(3) / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"shard 3 of .*two was altered"):
        fuse([one, two], out, ratings=ratings)
    assert not out.exists()


def test_two_settings_of_one_teacher_are_told_apart(pool: Pool, tmp_path: Path):
    stores = [teacher_store(tmp_path / str(at), pool, seen(0.1, at), name="same") for at in range(2)]
    report = read_fusion_report(fuse([s.folder for s in stores], tmp_path / "out", ratings=ratings_of(pool)).folder)
    expected = {f"same-{store.digest[:8]}" for store in stores}
    assert {teacher["name"] for teacher in report.teachers} == expected


def test_rules_and_features_that_cannot_be_are_refused(pool: Pool, make: Any, tmp_path: Path):
    features = {"map": np.ones((ROWS, 4))}
    folders = [make(seen(0.1, 1), "a", features=features), make(seen(0.1, 2), "b", features=features)]
    out, ratings = tmp_path / "out", ratings_of(pool)
    for change, named in [
        ({"min_teachers": 0}, "min_teachers is 0"),
        ({"min_confidence": 1.5}, "min_confidence is 1.5"),
        ({"max_disagreement": 0.0}, "max_disagreement is 0.0"),
        ({"max_outlier": -1.0}, "max_outlier is -1.0"),
    ]:
        with pytest.raises(PocketiqaError, match=named):
            replace(KeepRule(), **change)
    with pytest.raises(PocketiqaError, match="min_teachers is 3, but 2 label stores"):
        fuse(folders, out, ratings=ratings, rule=KeepRule(min_teachers=3))
    with pytest.raises(PocketiqaError, match="'map' is stored by several teachers: choose one of a/map, b/map"):
        fuse(folders, out, ratings=ratings, carry="map")
    with pytest.raises(PocketiqaError, match="'depth' is not stored: choose one of a/map, b/map"):
        fuse(folders, out, ratings=ratings, rule=KeepRule(outlier_feature="depth"))
    with pytest.raises(PocketiqaError, match="'map' is the same for most images"):
        fuse(folders, out, ratings=ratings, rule=KeepRule(outlier_feature="a/map"))
    with pytest.raises(PocketiqaError, match=r"nothing is kept of 240 rows \(1 for no_score, 239 for confidence\)"):
        fuse(folders, out, ratings=ratings, rule=KeepRule(min_confidence=1.0))
    with pytest.raises(PocketiqaError, match="none of the 1 rated images is among those"):
        fuse(folders, out, ratings={"elsewhere": 0.5})
    with pytest.raises(PocketiqaError, match="'magic' is not known: choose one of auto, logistic, isotonic, quantile"):
        fuse(folders, out, calibrate="magic")
    assert not out.exists()


def test_teachers_that_together_tell_nothing_of_the_ratings_are_refused(pool: Pool, make: Any, tmp_path: Path):
    """Noise that by chance has an SRCC just above 0 is not reversed; the joint score is flat all the same."""
    ratings = ratings_of(pool, range(60))
    rated = [row for row, ref in enumerate(pool) if ref.id in ratings]
    described = [ratings[pool[row].id] for row in rated]
    rng, folders = np.random.default_rng(0), []
    while len(folders) < 3:
        drawn = rng.uniform(size=ROWS)
        if 0.0 < rho(drawn[rated], described) < 0.02:
            folders.append(make(drawn, f"noise{len(folders)}"))
    with pytest.raises(PocketiqaError, match=r"noise0, noise1, noise2 together do not follow the ratings"):
        fuse(folders, tmp_path / "out", ratings=ratings)
    assert not (tmp_path / "out").exists()
