"""Nearest neighbours, scenes and copied scores, on features whose angles are known."""

from math import cos, radians
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.evaluation.targets import Targets
from distill.leakage.compare import TESTED, TRAINED, as_record, compare, parts_of, scenes
from distill.leakage.embeddings import Embeddings
from distill.leakage.extractor import layout_extractor
from distill.leakage.image_sets import ImageSet
from pseudo_labels.errors import PocketiqaError
from tests.helpers.near_duplicate_scenes import COMPASS, at_angles, compass

TESTED_ANGLES = {"a": 10.0, "b": 100.0, "c": 200.0, "d": 300.0}


def test_the_nearest_image_and_its_cosine() -> None:
    compared = compass(TESTED_ANGLES, above=0.95)
    assert compared.index.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(compared.cosine, [cos(radians(angle)) for angle in (10, 10, 20, 30)], atol=1e-6)
    assert compared.is_near_duplicate.tolist() == [True, True, False, False]
    assert compared.near_duplicate_ids == {"a", "b"}
    assert compared.scene_of[TRAINED, "east"] == compared.scene_of[TESTED, "a"]
    assert compared.scene_of[TRAINED, "west"] != compared.scene_of[TESTED, "c"]


def test_scenes_chain_similar_images_and_known_groups() -> None:
    keys = [(TRAINED, "a"), (TRAINED, "b"), (TESTED, "c"), (TESTED, "d"), (TESTED, "e")]
    vectors = np.array([[1, 0], [0, 1], [0, 1], [-1, 0], [0, -1]], np.float32)
    # b and c are alike, c and e have one group; a number of a chain is no name of a group.
    scene_of = scenes(keys, ["0", "", "g", "", "g"], vectors, above=0.9)
    assert scene_of == {
        (TRAINED, "a"): "scene-00000",
        (TRAINED, "b"): "scene-00001",
        (TESTED, "c"): "scene-00001",
        (TESTED, "d"): "scene-00002",
        (TESTED, "e"): "scene-00001",
    }


@pytest.mark.parametrize(("names", "joined"), [(("same", "same"), True), (("one", "other"), False)])
def test_group_names_mean_one_group_only_in_sets_of_one_name(names: tuple[str, str], joined: bool) -> None:
    trained = at_angles(COMPASS, groups={"north": "g"})
    compared = compare(names, trained, at_angles({"a": 225.0}, groups={"a": "g"}), 0.99)
    assert (compared.scene_of[TRAINED, "north"] == compared.scene_of[TESTED, "a"]) is joined


def test_no_scene_is_in_two_parts_and_the_tested_images_stay_the_test_part() -> None:
    scene_of = {(TRAINED, f"t{number}"): f"s{number // 2}" for number in range(20)}
    scene_of |= {(TESTED, "x"): "s0", (TESTED, "y"): "alone"}
    parts = parts_of(scene_of, validation=0.25, seed=3)
    assert {key[1] for key, part in parts.items() if part == "test"} == {"x", "y"}
    assert {key[1] for key, part in parts.items() if part == "near test"} == {"t0", "t1"}
    learned = {part: {scene_of[key] for key in parts if parts[key] == part} for part in ("train", "validation")}
    assert all(learned.values())
    assert not learned["train"] & learned["validation"]
    with pytest.raises(PocketiqaError):
        parts_of({(TRAINED, "t"): "s0", (TESTED, "x"): "s0"}, validation=0.25, seed=3)


def image_set(name: str, embeddings: Embeddings, targets: Targets | None = None) -> ImageSet:
    return ImageSet(name, embeddings.images, digest=name, targets=targets)


def test_a_copied_score_is_evaluated_like_a_prediction() -> None:
    compared, ratings = compass({**TESTED_ANGLES, "e": 80.0}), np.array([0.2, 0.9, 0.5, 0.4, 0.1])
    targets = Targets(
        name="some",
        source="opinions",
        ids=tuple("abcde"),
        scores=ratings,
        groups=tuple("abcde"),
        subsets=("",) * 5,
        near_training=(False, True, True, False, False),
    )
    trained, tested = image_set("trained", compared.trained), image_set("tested", compared.tested, targets)
    record = as_record(compared, trained, tested, layout_extractor(), seed=0)
    copies = [0.9, 0.8, 0.7, 0.6, 0.8]  # of east, north, west, south, north
    expected: Any = spearmanr(copies, ratings)
    assert [image["nearest_score"] for image in record["images"]] == pytest.approx(copies)
    whole = record["copying"]["models"][0]["selections"]["all"]
    assert whole["metrics"]["srcc"]["value"] == pytest.approx(expected.statistic)
    # a, b and e are near duplicates by their features; the benchmark marks b and c.
    assert (record["near"], record["marked"]) == (3, {"marked": 2, "found": 3, "both": 1})
    assert record["scenes"] == {"scenes": 6, "on_both_sides": 2, "largest": 3}


def test_without_scores_there_is_a_reason_instead_of_a_copy() -> None:
    compared = compass(TESTED_ANGLES)
    trained, tested = image_set("trained", compared.trained), image_set("tested", compared.tested)
    record = as_record(compared, trained, tested, layout_extractor(), seed=0)
    assert (record["copying"], record["marked"]) == (None, None)
    assert record["copying_reason"] == "the tested images have no scores to compare copies with"
