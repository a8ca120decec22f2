"""Training and evaluation images from pools and benchmarks: which images, with which scores and digests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.targets import Targets
from distill.leakage.image_sets import (
    Image,
    ImageSet,
    evaluation_image_set,
    joined,
    pool_image_set,
    shown_by,
    training_image_set,
)
from pseudo_labels.errors import PocketiqaError
from tests.helpers.near_duplicate_scenes import at_angles, write_ratings
from tests.helpers.pools import clean_pool, synthetic_pool


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    rows = [("a.png", 0.2, "train", "g1", "day"), ("b.png", 0.4, "test", "g2", ""), ("c.png", 0.6, "test", "g3", "")]
    return write_ratings(tmp_path, "mine", rows, "image,mos,split,group,subset")


def test_the_train_and_the_test_part_of_a_benchmark(tmp_path: Path, benchmark: str) -> None:
    trained, tested = training_image_set(benchmark), evaluation_image_set(benchmark)
    assert (trained.name, trained.ids, tested.ids) == ("mine", ("a.png",), ("b.png", "c.png"))
    image = trained.images[0]
    assert (image.name, image.group, image.score, image.subset) == ("a.png", "g1", 0.2, "day")
    assert image.file == str(tmp_path / "a.png")
    assert tested.targets is not None
    assert tested.targets.ids == tested.ids
    assert tested.scores.tolist() == [0.4, 0.6]
    assert evaluation_image_set(benchmark, "train").ids == ("a.png",)
    assert len(evaluation_image_set(benchmark, "all").ids) == 3


def test_the_digest_changes_with_the_scores_and_with_the_files(tmp_path: Path, benchmark: str) -> None:
    first = evaluation_image_set(benchmark)
    assert evaluation_image_set(benchmark).digest == first.digest
    (tmp_path / "b.png").write_bytes(b"there now")
    with_file = evaluation_image_set(benchmark)
    assert with_file.digest != first.digest
    labels = tmp_path / "mine.csv"
    labels.write_text(labels.read_text().replace("0.4", "0.5"))
    assert evaluation_image_set(benchmark).digest != with_file.digest


def test_one_image_stands_for_a_photograph_and_its_distorted_copies(tmp_path: Path) -> None:
    pool = synthetic_pool(tmp_path, images=2, per_image=2)
    images = training_image_set(str(pool.folder))
    originals = [ref.id for ref in pool if not ref.ref_id]
    assert list(images.ids) == originals
    assert np.isnan(images.scores).all()
    # Where the original is not included, its first copy stands for it.
    copies = [ref for ref in pool if ref.ref_id == originals[0]]
    some = pool_image_set(pool, {copies[0].id: 0.3}, ids={ref.id for ref in copies}, name="copies")
    assert (some.name, some.ids, some.scores.tolist()) == ("copies", (copies[0].id,), [0.3])
    assert {shown_by(ref) for ref in copies} == {originals[0]}
    assert shown_by(pool.by_id(originals[1])) == originals[1]


def test_targets_of_a_pool_give_scores_and_follow_the_images(tmp_path: Path) -> None:
    pool = clean_pool(tmp_path, images=3)
    ids = (pool[2].id, pool[0].id)
    targets = Targets(
        name="held out",
        source="teacher",
        ids=ids,
        scores=np.array([0.7, 0.1]),
        groups=ids,
        subsets=("", ""),
        near_training=(False, False),
    )
    images = pool_image_set(pool, ids=set(ids), targets=targets)
    assert images.ids == (pool[0].id, pool[2].id)
    assert images.scores.tolist() == [0.1, 0.7]
    assert images.targets is not None
    assert images.targets.ids == images.ids
    assert images.targets.scores.tolist() == [0.1, 0.7]
    assert images.images[0].file.endswith(images.images[0].name)


def test_an_image_in_two_sets_counts_once_as_in_the_first() -> None:
    def image_set(name: str, score: float, *ids: str) -> ImageSet:
        images = at_angles(dict.fromkeys(ids, 0.0)).images
        return ImageSet(name, tuple(replace(image, score=score) for image in images), digest=f"digest of {name}")

    one, other = image_set("one", 0.1, "a", "b"), image_set("other", 0.9, "b", "c")
    both = joined([one, other])
    assert (both.name, both.ids, both.scores.tolist()) == ("one and other", ("a", "b", "c"), [0.1, 0.1, 0.9])
    assert len({both.digest, joined([other, one]).digest, one.digest}) == 3
    assert isinstance(both.images[0], Image)


def test_what_is_no_image_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="'/nowhere' is neither the folder of a pool"):
        training_image_set("/nowhere")
    only_train = write_ratings(tmp_path, "parts", [("a.png", 0.5, "train")], "image,mos,split")
    with pytest.raises(PocketiqaError, match="benchmark parts has no split 'test': known splits: train"):
        evaluation_image_set(only_train)
