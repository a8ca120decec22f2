from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill.stress.odd_images import BATCH, Outputs, odd_images, odd_pictures
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("onnx") / "tiny.onnx").path


class Spoiled(Scorer):
    """A real student whose outputs are changed."""

    def __init__(self, path: Path, spoil: Callable[[Outputs], Outputs]):
        super().__init__(path)
        self._spoil = spoil

    def infer(self, batch: np.ndarray) -> Outputs:
        return self._spoil(super().infer(batch))


def test_a_sound_student_passes(tiny: Path):
    odd = odd_images(Scorer(tiny), Scorer(tiny))
    assert (odd.out_of_range, odd.unrepeatable) == (0, 0)
    assert odd.batch_difference <= 1e-5
    assert [one.name for one in odd.images] == list(odd_pictures())
    assert len({one.score for one in odd.images}) == 5
    for one, picture in zip(odd.images, odd_pictures().values(), strict=True):
        assert one.score == pytest.approx(Scorer(tiny).score(picture).score, abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
@pytest.mark.parametrize("output", [0, 1])
def test_a_value_out_of_range_is_caught(tiny: Path, value: float, output: int):
    def spoil(outputs: Outputs) -> Outputs:
        outputs[output].flat[0] = value
        return outputs

    spoiled = Spoiled(tiny, spoil)
    assert odd_images(spoiled, spoiled).out_of_range == 5


def test_only_finite_is_asked_of_weights(tiny: Path):
    def spoil(outputs: Outputs) -> Outputs:
        return outputs[0], outputs[1], outputs[2] * 100

    assert odd_images(Spoiled(tiny, spoil), Scorer(tiny)).out_of_range == 0
    odd = odd_images(Spoiled(tiny, lambda outputs: (*outputs[:2], outputs[2] * np.inf)), Scorer(tiny))
    assert odd.out_of_range == 5


def test_one_bit_between_runs_is_caught(tiny: Path):
    def nudge(outputs: Outputs) -> Outputs:
        outputs[2].flat[-1] = np.nextafter(outputs[2].flat[-1], np.float32(9))
        return outputs

    odd = odd_images(Scorer(tiny), Spoiled(tiny, nudge))
    assert (odd.unrepeatable, odd.out_of_range) == (5, 0)


def test_a_dependence_on_the_batch_is_caught(tiny: Path):
    def mixed(outputs: Outputs) -> Outputs:
        return outputs[0] + np.float32(0.001 * (len(outputs[0]) == BATCH)), *outputs[1:]

    assert odd_images(Spoiled(tiny, mixed), Scorer(tiny)).batch_difference == pytest.approx(0.001, abs=2e-5)


def test_no_number_is_no_agreement(tiny: Path):
    spoiled = Spoiled(tiny, lambda outputs: (outputs[0] * np.float32("nan"), *outputs[1:]))
    assert not odd_images(spoiled, spoiled).batch_difference <= 1e-4


def test_the_pictures_are_what_they_are_called():
    pictures = odd_pictures()
    assert {picture.shape for picture in pictures.values()} == {(384, 512, 3)}
    assert [np.unique(pictures[name]).tolist() for name in ("grey card", "black", "white")] == [[119], [0], [255]]
    assert 0.02 < (pictures["text"] < 128).mean() < 0.3
    assert pictures["noise"].std() == pytest.approx(256 / 12**0.5, rel=0.01)
