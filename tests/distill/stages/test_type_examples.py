from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.stages.type_examples import (
    CAUSES,
    CLEAN,
    LEFT_OUT,
    LEVELS,
    PICTURES,
    SIDE_PX,
    TYPE_OF,
    cause_of,
    observe,
    pictures_of,
)
from pseudo_labels.distort.catalogue import CATALOGUE, distort
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from students.damage import NONE, TYPES
from students.runtime import Result, Scorer
from tests.helpers.pools import photograph


def test_every_distortion_is_of_a_type_or_left_out():
    assert set(CAUSES) | set(LEFT_OUT) == set(CATALOGUE)
    assert {cause for causes in CAUSES.values() for cause in causes} | {NONE} == set(TYPE_OF)
    assert set(TYPE_OF.values()) == set(TYPES)


@pytest.mark.parametrize(
    ("distortion", "expected"),
    [
        ("mean_shift", {"dark", "bright"}),
        ("camera_contrast", {"flat", "harsh"}),
        ("camera_colorfulness", {"pale", "garish"}),
    ],
)
def test_the_pixels_say_which_way_it_went(distortion: str, expected: set[str]):
    rgb = photograph("coffee", 96)
    seen = set()
    for number in range(8):
        copy = distort(rgb, distortion, 4, seed=0, image_id=str(number))
        seen.add(cause_of(distortion, rgb, copy))
        grey = copy.astype(float).mean(2)
        if distortion == "camera_contrast":
            assert (cause_of(distortion, rgb, copy) == "harsh") == (grey.std() > rgb.astype(float).mean(2).std())
    assert seen == expected
    assert cause_of("jpeg", rgb, rgb) == "jpeg"


def test_each_photograph_is_shown_whole_in_parts_and_damaged():
    rgb = photograph("coffee", 96)
    pictures = pictures_of(rgb, "coffee")
    assert len(pictures) == PICTURES
    clean = [make() for kind, level, make in pictures if kind == CLEAN]
    assert np.array_equal(clean[0], rgb)
    assert len({part.shape for part in clean}) > 3
    assert all(part.shape[0] * part.shape[1] >= 0.3 * rgb.shape[0] * rgb.shape[1] for part in clean)
    damaged = [(kind, level) for kind, level, _ in pictures if kind != CLEAN]
    assert damaged == [(kind, level) for kind in CAUSES for level in LEVELS]
    kind, level, make = pictures[-1]
    assert np.array_equal(make(), distort(rgb, kind, level, seed=0, image_id="coffee"))
    # By the name alone: the same parts in another run.
    assert all(
        np.array_equal(a(), b()) for (*_, a), (*_, b) in zip(pictures[:7], pictures_of(rgb, "coffee")[:7], strict=True)
    )


class Mean(Scorer):
    """Sees the mean colour and the size alone, and counts what it is shown."""

    def __init__(self):
        self.shown = 0

    def score(self, image: np.ndarray, **_: object) -> Result:  # type: ignore[override]
        self.shown += 1
        empty = np.zeros((1, 1), np.float32)
        return Result(0.5, empty, empty, embedding=np.array([*image.mean((0, 1)), *image.shape[:2]], np.float32))


def test_what_was_seen_is_kept_and_near_duplicates_are_one_scene(tmp_path: Path):
    small = photograph("coffee", 96)[:64, :64]
    large = np.array(Image.fromarray(small).resize((640, 80), Image.Resampling.BICUBIC))
    pictures = {"large": large, "coffee": small, "cat": photograph("cat", 96)[:64, :64]}
    paths = [tmp_path / f"{name}.png" for name in pictures]
    for path, rgb in zip(paths, pictures.values(), strict=True):
        Image.fromarray(rgb).save(path)
    (tmp_path / "small.png").write_bytes(b"")
    words, steps, scorer, folder = [], [], Mean(), tmp_path / "features"

    def look() -> np.ndarray:
        files = [tmp_path / "small.png", *paths]
        seen = observe(scorer, "a", files, folder, progress=lambda *one: steps.append(one), warn=words.append)
        assert len(set(seen.scenes)) == 2
        assert seen.scenes[0] == seen.scenes[PICTURES] != seen.scenes[-1]
        assert seen.embeddings[0, 4] == SIDE_PX
        assert (seen.kinds[0], seen.causes[0], seen.types[0], seen.levels[0]) == (CLEAN, NONE, NONE, 0)
        # A copy is what it is called.
        dark = [at for at, cause in enumerate(seen.causes[:PICTURES]) if cause == "dark" and seen.levels[at] == 5]
        assert all(seen.embeddings[at, :3].sum() < seen.embeddings[0, :3].sum() for at in dark)
        return seen.embeddings

    first = look()
    assert scorer.shown == 3 * PICTURES
    assert "small.png is left out" in words[0]
    assert steps[-1] == (4 * PICTURES, 4 * PICTURES)
    assert np.array_equal(look(), first)
    assert scorer.shown == 3 * PICTURES
    # Another model has seen nothing yet.
    observe(scorer, "b", paths[-1:], folder)
    assert scorer.shown == 4 * PICTURES
    with pytest.raises(PocketiqaError, match="no photograph could be used"):
        observe(scorer, "b", [tmp_path / "small.png"], folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises((OutputConflictError, PocketiqaError)):
        observe(scorer, "b", paths, other)
    assert (other / "mine.txt").exists()
