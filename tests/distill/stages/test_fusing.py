import math
from pathlib import Path

import numpy as np
import pytest

from distill.data.examples import Source, collect
from distill.data.pixel_cache import build_pixels
from distill.stages.fusing import fuse_labels, fusion_summary
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from students.preprocess import Preprocess
from tests.helpers.fusing import teacher_store
from tests.helpers.training import score_of, texture_pool


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of textures, two noisy teachers, and a table of ratings with a train and a test part."""
    folder = tmp_path_factory.mktemp("data")
    pool = texture_pool(folder, scenes=10, versions=4, sizes=((64, 64),))
    generator = np.random.default_rng(0)
    truth = np.array([score_of(ref) for ref in pool])
    for name, noise in (("near", 0.05), ("far", 0.15)):
        scores = np.clip(truth + generator.normal(0, noise, len(pool)), 0, 1)
        scores[39] = math.nan
        teacher_store(folder / name, pool, scores, name=name, features={f"{name}-map": np.ones((len(pool), 4, 2, 2))})
    lines = [
        f"{ref.uri},{score_of(ref) * 4 + 1},{ref.group},{'test' if row >= 32 else 'train'}"
        for row, ref in enumerate(pool)
    ]
    lines.append("gone.png,3,elsewhere,train")
    (folder / "ratings.csv").write_text("\n".join(["image,mos,group,split", *lines]))
    return folder


def benchmark(data: Path) -> str:
    return f"csv:{data / 'ratings.csv'}?scale=1:5"


@pytest.fixture(scope="module")
def fused(data: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    out = tmp_path_factory.mktemp("fused") / "labels"
    rule = KeepRule(max_disagreement=0.5)
    return fuse_labels([data / "near", data / "far"], out, on=benchmark(data), rule=rule, carry="near-map")


def test_only_the_train_part_calibrates_and_its_scale_is_mapped(fused: LabelStore, data: Path):
    report = read_fusion_report(fused.folder)
    assert [(own["n"], own["groups"]) for own in report.ensemble["calibrations"]] == [(32, 8), (32, 8)]
    truth = np.array([score_of(ref) for ref in Pool.open(data / "pool")])
    scores = fused.labels()["score"].to_numpy()
    assert np.abs(scores - truth)[:39].mean() < 0.06
    weights = {teacher["name"]: teacher["weight"] for teacher in report.teachers}
    assert weights["near"] > 2 * weights["far"]


def test_training_learns_from_a_fused_store_as_from_any_other(fused: LabelStore, data: Path, tmp_path: Path):
    pool = Pool.open(data / "pool")
    cache = build_pixels(pool, Preprocess(max_side=64), tmp_path / "cache")
    examples = collect([Source("fused", pool, fused)], [cache], feature="near-map")
    assert examples.skipped == {"fused: label failed": 1}
    table = fused.labels()
    assert examples.examples.target == pytest.approx(table["score"].to_numpy()[:39])
    assert examples.examples.weight == pytest.approx(table["confidence"].to_numpy()[:39])
    assert (examples.examples.shard >= 0).all()


def test_the_summary_tells_weights_agreement_and_what_was_dropped(fused: LabelStore):
    text = fusion_summary(fused)
    assert "39 of 40 rows kept; dropped: 1 for no_score" in text
    assert "near: weight 0." in text
    assert "far and near: SRCC 0." in text
    assert "fused, on held-out ratings: SRCC 0.9" in text


def test_summaries_without_ratings_say_so(data: Path, tmp_path: Path):
    for method, words in (("none", "scores as they are"), ("quantile", "aligned by quantiles, without ratings")):
        assert words in fusion_summary(fuse_labels([data / "near", data / "far"], tmp_path / method, calibrate=method))


def test_the_test_part_is_refused(data: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match="nothing is calibrated on the test part of ratings"):
        fuse_labels([data / "near", data / "far"], tmp_path / "out", on=benchmark(data), split="test")
    with pytest.raises(PocketiqaError, match="split 'train' of no benchmark: name the benchmark with --on"):
        fuse_labels([data / "near", data / "far"], tmp_path / "out", split="train", calibrate="none")
