from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from students.formats.photographs import Photographs, RatedPhotographs, evenly
from students.preprocess import Preprocess
from tests.helpers.tiny_students import photographs


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two photographs, and a file that is none."""
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path, image in zip(paths, photographs(), strict=False):
        Image.fromarray(image).save(path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [paths[0], tmp_path / "broken.png", paths[1]]


def test_photographs_are_resized_and_others_passed_over(files: list[Path]):
    preprocess = Preprocess(128)
    inputs = Photographs("mine", files).resized(preprocess, least=2)
    assert len(inputs) == 2
    np.testing.assert_array_equal(inputs[0], preprocess.resize(photographs()[0]))
    with pytest.raises(PocketiqaError, match="mine: 2 of 3 photographs can be used, but 3 are needed"):
        Photographs("mine", files).resized(preprocess, least=3)


def test_ratings_stay_with_their_photographs(files: list[Path]):
    rated = RatedPhotographs("mine", [(path, float(index)) for index, path in enumerate(files)])
    pairs = list(rated.inputs(Preprocess(128)))
    assert [rating for _, rating in pairs] == [0.0, 2.0]
    assert [batch.shape[0] for batch, _ in pairs] == [1, 1]


def test_evenly_takes_first_and_last_and_what_lies_between():
    assert evenly(range(100), 5) == [0, 25, 50, 74, 99]
    assert evenly(range(3), 5) == [0, 1, 2]
    assert evenly([], 5) == []
    # Of things that come in fives, each kind: a fixed step of five would take one kind alone.
    assert {item % 5 for item in evenly(range(320), 64)} == {0, 1, 2, 3, 4}
