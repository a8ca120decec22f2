import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.fusion.ensemble import Ensemble
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status, confidence
from pseudo_labels.store import LabelStore
from tests.helpers.fusing import (
    BAD,
    ROWS,
    FloatArray,
    fuse_folder,
    invented_pool,
    make_stores,
    ratings_of,
    rho,
    seen,
    teacher_store,
    truth,
)
from tests.helpers.killing import kill_and_resume
from tests.helpers.labelling import shard_bytes

NAN = math.nan
FRESH = np.arange(120, ROWS)  # rows without ratings


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return invented_pool(tmp_path_factory.mktemp("pool") / "pool")


@pytest.fixture
def make(pool: Pool, tmp_path: Path) -> Callable[..., Path]:
    return make_stores(pool, tmp_path)


def scores_of(store: LabelStore) -> FloatArray:
    return store.labels()["score"].to_numpy().astype(np.float64)


def agreement_of(scores: FloatArray, rows: np.ndarray = FRESH) -> float:
    rows = rows[np.isfinite(scores[rows])]
    return rho(scores[rows], truth()[rows])


def test_the_better_teacher_weighs_more_and_together_they_beat_each_alone(pool: Pool, make: Any, tmp_path: Path):
    noisy = {"steady": seen(0.15, 1), "shaky": seen(0.2, 2), "wild": seen(0.3, 3)}
    store = fuse([make(scores, name) for name, scores in noisy.items()], tmp_path / "out", ratings=ratings_of(pool))
    report = read_fusion_report(store.folder)
    weights = {teacher["name"]: teacher["weight"] for teacher in report.teachers}
    assert weights["steady"] > weights["shaky"] > weights["wild"] > 0.02
    assert sum(weights.values()) == pytest.approx(1)
    fused = agreement_of(scores_of(store))
    assert fused > max(agreement_of(scores) for scores in noisy.values()) + 0.02
    # The calibration undid the teachers' common scale (0.2 to 0.8): the labels are on that of the ratings.
    error = scores_of(store)[FRESH] - truth()[FRESH]
    assert abs(error.mean()) < 0.03
    assert report.labelled["fused"]["srcc"] > max(own["srcc"] for own in report.labelled["teachers"].values())


def test_a_perfect_teacher_outweighs_a_noisy_one(pool: Pool, make: Any, tmp_path: Path):
    noisy = seen(0.2, 1)
    store = fuse([make(seen(0, 0), "perfect"), make(noisy, "noisy")], tmp_path / "out", ratings=ratings_of(pool))
    weights = {teacher["name"]: teacher["weight"] for teacher in read_fusion_report(store.folder).teachers}
    assert weights["perfect"] > 0.9
    assert agreement_of(scores_of(store)) > max(0.99, agreement_of(noisy))


def test_every_row_is_what_numpy_makes_of_the_report(pool: Pool, make: Any, tmp_path: Path):
    """The documented formulas, from the JSON alone, row by row."""
    first, second = seen(0.1, 1), seen(0.2, 2)
    first[50], second[60] = NAN, NAN
    spreads = np.random.default_rng(5).uniform(0.02, 0.2, ROWS)
    folders = [make(first, "a", spreads=spreads), make(second, "b", shards=3)]
    store = fuse(folders, tmp_path / "out", ratings=ratings_of(pool), rule=KeepRule(min_teachers=1))
    ensemble = read_fusion_report(store.folder).ensemble
    table = store.labels().to_pylist()
    columns = [LabelStore.open(folder).labels() for folder in folders]
    for row in (0, 50, 60, 130, 239):
        mapped, variances = [], []
        for part, calibration in zip(columns, ensemble["calibrations"], strict=True):
            map, expected = MonotoneMapOf(calibration["map"]), calibration["expected"]
            score, own = part["score"][row].as_py(), part["score_std"][row].as_py()
            mapped.append(map(score))
            extra = expected["typical_extra"] if math.isnan(own) else map.spread(score, own) ** 2
            variances.append(expected["base_gain"] + expected["extra_gain"] * extra)
        there = np.isfinite(mapped)
        m, v = np.array(mapped)[there], np.array(variances)[there]
        correlation, total = np.array(ensemble["errors"]["correlation"]), ensemble["errors"]["variance"]
        covariance = correlation[np.ix_(there, there)] * np.sqrt(np.outer(v, v))
        w = np.ones(1)
        if len(v) == 2:  # no bound is met here: the normal equations, with the ridge
            w = np.linalg.solve(covariance + total - v - v[:, None] + 0.05 * np.diag(total - v), total - v)
            assert (w > 0).all()
            assert (w < 1).all()
            w /= w.sum()
        spread = ensemble["expected"]
        extra = (w * (m - w @ m) ** 2).sum() if there.sum() > 1 else spread["typical_extra"]
        std = math.sqrt(spread["base_gain"] * (w @ covariance @ w) + spread["extra_gain"] * extra)
        assert table[row]["score"] == pytest.approx(MonotoneMapOf(ensemble["last"])(float(w @ m)), abs=1e-6)
        assert table[row]["score_std"] == pytest.approx(std, rel=1e-5)
        assert table[row]["confidence"] == pytest.approx(1 / (1 + (std / 0.1) ** 2), rel=1e-5)


class MonotoneMapOf:
    """A map of the report, without the code that made it."""

    def __init__(self, map: dict[str, Any]):
        self._form, self._values = map["form"], map["values"]

    def __call__(self, x: float) -> float:
        if self._form == "knots":
            curve = np.interp(x, self._values["x"], self._values["y"])
        else:
            low, high, middle, width = (self._values[name][0] for name in ("low", "high", "middle", "width"))
            curve = low + (high - low) / (1 + math.exp(-(x - middle) / width))
        return float(0.999 * curve + 0.001 * x) if not math.isnan(x) else NAN

    def spread(self, x: float, s: float) -> float:
        low, high = max(0.0, x - s), min(1.0, x + s)
        return s * (self(high) - self(low)) / (high - low)


def test_expected_errors_are_those_found_on_other_images(tmp_path: Path):
    """Labels of low confidence are really worse, and the stated deviation is the true one on average."""
    pool = invented_pool(tmp_path / "pool", rows=2000, scenes=500)
    generator = np.random.default_rng(6)
    hard = generator.choice([0.03, 0.25], 2000)
    folders = []
    for name in "abc":
        scores = np.clip(truth(2000) + generator.normal(0, hard), 0, 1)
        folders.append(teacher_store(tmp_path / name, pool, scores, name=name).folder)
    store = fuse(folders, tmp_path / "out", ratings=ratings_of(pool, range(800)))
    assert Ensemble.from_dict(read_fusion_report(store.folder).ensemble).expected.extra_gain > 0
    table = store.labels().to_pandas().iloc[800:]
    squared = (table["score"] - truth(2000)[800:]) ** 2
    assert math.sqrt(squared.mean()) == pytest.approx(math.sqrt((table["score_std"] ** 2).mean()), rel=0.2)
    sure = table["confidence"] > table["confidence"].median()
    assert squared[~sure].mean() > 2 * squared[sure].mean()


def test_the_order_of_the_stores_changes_nothing(pool: Pool, make: Any, tmp_path: Path):
    folders = [make(seen(0.1 + 0.05 * at, at), f"t{at}", shards=at + 2) for at in range(3)]
    first = fuse(folders, tmp_path / "one", ratings=ratings_of(pool))
    second = fuse([folders[2], folders[0], folders[1]], tmp_path / "two", ratings=ratings_of(pool))
    assert shard_bytes(first.folder) == shard_bytes(second.folder)
    assert first.digest == second.digest
    assert read_fusion_report(first.folder) == read_fusion_report(second.folder)


def test_the_store_says_what_made_it_and_bad_rows_keep_their_reason(pool: Pool, make: Any, tmp_path: Path):
    first, second = seen(0.1, 1), seen(0.1, 2)
    first[3], first[4], second[4] = NAN, NAN, NAN
    store = fuse([make(first, "a"), make(second, "b")], tmp_path / "out", ratings=ratings_of(pool))
    rows = store.labels().to_pylist()
    assert (rows[BAD]["status"], rows[BAD]["reason"]) == ("corrupt", "cut off")
    assert (rows[4]["status"], rows[4]["reason"]) == ("failed", "no answer")
    assert rows[3]["status"] == Status.DROPPED
    assert rows[3]["reason"].startswith("a score from 1 of the teachers, 2 are needed (fused score 0.")
    assert [row["id"] for row in rows] == [ref.id for ref in pool]
    assert store.is_complete
    assert store.pool_path == pool.folder.resolve()
    stamp = store.spec.stamp
    assert (stamp.name, stamp.licence) == ("fused", "licence of a / licence of b")
    assert [part["labels"] for part in stamp.options["parts"]] == [
        LabelStore.open(tmp_path / name).digest for name in "ab"
    ]
    report = read_fusion_report(store.folder)
    assert (report.rows, report.kept, report.dropped) == (ROWS, ROWS - 3, {"no_score": 2, "teachers": 1})
    assert store.manifest.content["status"] == {"corrupt": 1, "dropped": 1, "failed": 1, "ok": ROWS - 3}
    assert report.examples["teachers"][0]["row"] == 3
    both = np.isfinite(first) & np.isfinite(second) & (np.arange(ROWS) != BAD)
    assert report.pairs[0]["n"] == both.sum()
    assert report.pairs[0]["srcc"] == pytest.approx(rho(first[both], second[both]), abs=1e-6)
    assert len(report.pairs[0]["points"]) == both.sum()


def test_the_keep_rule_drops_with_a_reason_and_the_digest_follows_it(pool: Pool, make: Any, tmp_path: Path):
    """Ten rows on which the teachers contradict each other, and ten with features far from all others."""
    first, second = seen(0.05, 1), seen(0.05, 2)
    first[200:210], second[200:210] = 0.25, 0.75
    features = {"map": np.random.default_rng(7).normal(size=(ROWS, 8, 2, 2))}
    features["map"][220:230] += 40 * np.random.default_rng(8).normal(size=(10, 8, 1, 1))
    folders = [make(first, "a", features=features), make(second, "b", shards=2)]
    rule = KeepRule(max_disagreement=0.2, outlier_feature="map", max_outlier=5.0)
    store = fuse(folders, tmp_path / "out", ratings=ratings_of(pool), rule=rule, carry="map")
    rows = store.labels().to_pylist()
    dropped = {row for row, label in enumerate(rows) if label["status"] == Status.DROPPED}
    assert dropped == {*range(200, 210), *range(220, 230)}
    assert all("the teachers disagree by 0." in rows[row]["reason"] for row in range(200, 210))
    assert all("deviations from the usual in 'map', more than 5" in rows[row]["reason"] for row in range(220, 230))
    report = read_fusion_report(store.folder)
    assert report.dropped == {"no_score": 1, "disagreement": 10, "outlier": 10}
    assert {example["row"] for example in report.examples["disagreement"]} <= set(range(200, 210))
    # The feature goes along, row by row, but not that of rows that are not kept.
    joined = np.concatenate([store.shard_features(index)["map"] for index in range(store.spec.shards)])
    expected = features["map"].astype(np.float16)
    expected[[*dropped, BAD]] = 0
    assert (joined == expected).all()
    lax = fuse(folders, tmp_path / "lax", ratings=ratings_of(pool), rule=KeepRule(min_confidence=0.01))
    assert lax.spec.stamp.digest != store.spec.stamp.digest


def test_low_confidence_is_dropped(pool: Pool, make: Any, tmp_path: Path):
    spreads = np.random.default_rng(4).uniform(0.02, 0.2, ROWS)
    folders = [make(seen(0.1, 1), "a", spreads=spreads), make(seen(0.2, 2), "b")]
    everything = fuse(folders, tmp_path / "all", ratings=ratings_of(pool))
    weights = everything.labels()["confidence"].to_numpy()
    limit = float(np.quantile(weights[weights > 0], 0.4))
    kept = fuse(folders, tmp_path / "out", ratings=ratings_of(pool), rule=KeepRule(min_confidence=limit))
    status = np.array(kept.labels()["status"].to_pylist())
    assert (status[weights >= limit] == "ok").all()
    assert (status[(weights < limit) & (weights > 0)] == "dropped").all()
    same = status == "ok"
    assert (scores_of(kept)[same] == scores_of(everything)[same]).all()


def test_a_row_without_the_carried_feature_is_dropped(pool: Pool, make: Any, tmp_path: Path):
    first = seen(0.1, 1)
    first[100] = NAN
    folders = [make(first, "a", features={"map": np.ones((ROWS, 4))}), make(seen(0.1, 2), "b")]
    rule = KeepRule(min_teachers=1)
    store = fuse(folders, tmp_path / "out", ratings=ratings_of(pool), rule=rule, carry="a/map")
    assert "feature is carried over has none" in store.labels()["reason"][100].as_py()
    assert scores_of(fuse(folders, tmp_path / "without", ratings=ratings_of(pool), rule=rule))[100] > 0


def test_one_store_is_calibrated_if_asked(pool: Pool, make: Any, tmp_path: Path):
    folder = make(seen(0.1, 1), "only")
    with pytest.raises(PocketiqaError, match=r"only .*only to fuse: name at least two label stores"):
        fuse([folder], tmp_path / "out", ratings=ratings_of(pool))
    store = fuse([folder], tmp_path / "out", ratings=ratings_of(pool), rule=KeepRule(min_teachers=1))
    mapped, raw = scores_of(store), seen(0.1, 1)
    known = np.isfinite(mapped)
    assert rho(mapped[known], raw[known]) == pytest.approx(1)
    assert np.abs(mapped - truth())[known].mean() < 0.7 * np.abs(raw - truth())[known].mean()


@pytest.mark.parametrize("method", ["quantile", "none"])
def test_without_opinions_teachers_are_joined_only_if_asked(method: str, pool: Pool, make: Any, tmp_path: Path):
    first, second = seen(0.1, 1), seen(0.1, 2) ** 3
    folders = [make(first, "a"), make(second, "b")]
    with pytest.raises(PocketiqaError, match=r"'auto' needs ratings .* --calibrate quantile .* or --calibrate none"):
        fuse(folders, tmp_path / "out")
    with pytest.raises(PocketiqaError, match=f"'{method}' uses no ratings, but 120 were given"):
        fuse(folders, tmp_path / "out", calibrate=method, ratings=ratings_of(pool))
    store = fuse(folders, tmp_path / "out", calibrate=method)
    known = np.arange(ROWS) != BAD
    mean = (first + second) / 2
    if method == "none":
        assert scores_of(store)[known] == pytest.approx(mean[known], abs=1e-6)
    else:
        assert agreement_of(scores_of(store)) > agreement_of(mean)
        ranks = np.argsort(np.argsort(first[known])) + np.argsort(np.argsort(second[known]))
        assert rho(scores_of(store)[known], ranks) > 0.99
    assert store.labels()["confidence"].to_numpy().max() <= confidence(0.1)
    assert read_fusion_report(store.folder).labelled == {}


def test_the_same_call_again_changes_nothing_and_mends_what_is_damaged(pool: Pool, make: Any, tmp_path: Path):
    folders, ratings = [make(seen(0.1, 1), "a"), make(seen(0.2, 2), "b")], ratings_of(pool)
    seen_steps: list[tuple[int, int]] = []
    store = fuse(folders, tmp_path / "out", ratings=ratings, progress=lambda *step: seen_steps.append(step))
    assert seen_steps == [(done, 10) for done in range(1, 11)]
    before, times = shard_bytes(store.folder), [path.stat().st_mtime_ns for path in store.folder.rglob("*.parquet")]
    digest = store.digest
    again = fuse(folders, tmp_path / "out", ratings=ratings)
    assert [path.stat().st_mtime_ns for path in store.folder.rglob("*.parquet")] == times
    (again.shard_folder(2) / "labels.parquet").write_bytes(b"damaged")
    shutil.rmtree(again.shard_folder(4))
    assert fuse(folders, tmp_path / "out", ratings=ratings).digest == digest
    assert shard_bytes(store.folder) == before
    with pytest.raises(OutputConflictError, match=r"keep\.min_confidence: 0\.0 -> 0\.1"):
        fuse(folders, tmp_path / "out", ratings=ratings, rule=KeepRule(min_confidence=0.1))
    other = fuse(folders, tmp_path / "out", ratings=ratings, rule=KeepRule(min_confidence=0.1), overwrite=True)
    assert other.digest != digest


def test_six_kills_leave_the_bytes_of_an_unbroken_run(pool: Pool, tmp_path: Path):
    (tmp_path / "in").mkdir()
    shutil.copytree(pool.folder, tmp_path / "in" / "pool")
    features = {"map": np.random.default_rng(9).normal(size=(ROWS, 8))}
    teacher_store(tmp_path / "in" / "a", pool, seen(0.1, 1), name="a", features=features, shards=24)
    teacher_store(tmp_path / "in" / "b", pool, seen(0.2, 2), name="b")
    broken, peaceful = tmp_path / "broken", tmp_path / "peaceful"
    names = ["scipy.optimize"]
    source = str(tmp_path / "in")
    hits = kill_and_resume(
        fuse_folder, [source, str(broken)], unbroken_args=[source, str(peaceful)], kills=6, preload=names
    )
    assert hits == 6
    assert shard_bytes(broken) == shard_bytes(peaceful)
    assert LabelStore.open(broken).digest == LabelStore.open(peaceful).digest
    assert (broken / "fusion.json").read_bytes() == (peaceful / "fusion.json").read_bytes()
