"""Scores to evaluate against: ratings of a benchmark, and labels of a teacher."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, Scale
from distill.evaluation.targets import Targets, display_name, targets_from_benchmark, targets_from_labels
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec
from tests.helpers.pools import synthetic_pool

ROWS = (
    BenchmarkRow("a.png", "/a.png", 2.0, 0.25, group="g1", split="test", subset="night"),
    BenchmarkRow("b.png", "/b.png", 5.0, 1.0, group="g1", split="test", subset="day", near_training=True),
    BenchmarkRow("c.png", "/c.png", 1.0, 0.0, group="g2", split="test", near_duplicate=True),
)


@pytest.fixture
def targets() -> Targets:
    return targets_from_benchmark(
        Benchmark("some", ROWS, Scale(1, 5), citation="a paper", licence="free", split_origin="published")
    )


def test_ratings_become_targets(targets: Targets) -> None:
    assert (targets.name, targets.source, targets.ids) == ("some", "opinions", ("a.png", "b.png", "c.png"))
    assert targets.scores.tolist() == [0.25, 1.0, 0.0]
    assert (targets.groups, targets.subsets) == (("g1", "g1", "g2"), ("night", "day", ""))
    # Both the marks of the benchmark and the near duplicates that were detected leave the headline.
    assert targets.near_training == (False, True, True)
    assert targets.marked == (False, True, False)
    assert targets.about["images"] == 3


def test_a_part_keeps_every_column_in_the_order_of_the_ids(targets: Targets) -> None:
    part = replace(targets, names=("A", "B", "C")).part(["c.png", "a.png"])
    assert (part.ids, part.scores.tolist(), part.names) == (("c.png", "a.png"), [0.0, 0.25], ("C", "A"))
    assert (part.groups, part.subsets) == (("g2", "g1"), ("", "night"))
    assert (part.near_training, part.marked) == ((True, False), (False, False))
    with pytest.raises(PocketiqaError, match=r"targets 'some' have no score for 'd\.png'"):
        targets.part(["a.png", "d.png"])
    with pytest.raises(PocketiqaError, match="targets 'some' hold no images"):
        targets.part([])


def test_columns_that_do_not_fit_together_are_refused(targets: Targets) -> None:
    with pytest.raises(PocketiqaError, match="hold no images"):
        Targets("x", "opinions", ids=(), scores=np.array([]), groups=(), subsets=(), near_training=())
    with pytest.raises(PocketiqaError, match="belong together"):
        replace(targets, ids=("a.png", "a.png", "c.png"))
    with pytest.raises(PocketiqaError, match="belong together"):
        replace(targets, scores=np.zeros(2))
    with pytest.raises(PocketiqaError, match="1 names for 3 images"):
        replace(targets, names=("one",))


def test_labels_as_targets_know_scenes_and_distortions(tmp_path: Path) -> None:
    pool = synthetic_pool(tmp_path, images=2, per_image=4, names=("gaussian_blur", "jpeg"))
    stamp = TeacherStamp("hand", 1, "none", scale="0 worst, 1 best")
    spec = StoreSpec(stamp, pool.digest, len(pool), 1)
    store = LabelStore.create(tmp_path / "labels", spec, pool_path=pool.folder)
    labels = [PseudoLabel(ref.id, ref.uri, ref.sha256, score=0.05 * at) for at, ref in enumerate(pool)]
    labels[3] = replace(labels[3], status=Status.FAILED, reason="x", score=float("nan"))
    store.write_shard(0, labels)
    store.finish()

    targets = targets_from_labels(store, pool)
    assert targets.source == "teacher"
    assert targets.ids == tuple(ref.id for at, ref in enumerate(pool) if at != 3)
    assert targets.scores == pytest.approx([0.05 * at for at in range(len(pool)) if at != 3])
    assert len(set(targets.groups)) == 2
    assert set(targets.subsets) == {"original", "blur", "compression"}
    assert any("gaussian blur" in name for name in targets.names)
    some = targets_from_labels(store, pool, [pool[5].id, pool[3].id, pool[1].id], subset_of=lambda ref: "")
    assert some.ids == (pool[5].id, pool[1].id)
    with pytest.raises(PocketiqaError, match="of another pool"):
        targets_from_labels(store, synthetic_pool(tmp_path / "other", images=1, per_image=1))


def test_a_distorted_copy_is_named_by_its_original_and_its_distortion(tmp_path: Path) -> None:
    pool = synthetic_pool(tmp_path, images=1, per_image=1, names=("gaussian_blur",))
    original, copy = sorted(pool, key=lambda ref: bool(ref.ref_id))
    assert display_name(pool, original) == "0-astronaut.png"
    assert display_name(pool, copy) == f"0-astronaut.png, gaussian blur {copy.level:.2g}"
