from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.trust.attack import LABELS, attacked
from students.base import Normalise, Student, StudentOutput, check_batch
from students.preprocess import Preprocess
from tests.helpers.tiny_students import TINY, photographs, tiny_student


class Weighted(Student):
    """Its score is a weighted sum of its pixels: the best attack is known."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.config = replace(TINY, preprocess=Preprocess(64, 64))
        self.normalise = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        self.weights = nn.Parameter(weights)

    def forward(self, rgb: Tensor) -> StudentOutput:
        check_batch(rgb)
        score = (self.normalise(rgb) * self.weights).mean((1, 2, 3))
        return StudentOutput(score, *[score[:, None, None]] * 3)


def test_of_a_linear_score_every_method_finds_the_best_change():
    weights = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    signs = weights.sign().permute(1, 2, 0).numpy()
    made = dict(attacked(Weighted(weights), rgb, "picture"))
    assert tuple(made) == LABELS
    for epsilon in (2, 4):
        best = np.clip(rgb + epsilon * signs, 0, 255).astype(np.uint8)
        assert np.array_equal(made[f"fgsm {epsilon}"], best)
        assert np.array_equal(made[f"pgd {epsilon}"], best)
        assert not np.array_equal(made[f"random {epsilon}"], best)


def test_no_pixel_moves_farther_than_it_may_and_the_student_stays_as_it_was():
    student = tiny_student().eval().requires_grad_(False)
    rgb = np.ascontiguousarray(photographs()[1][:64, :64])

    def score(picture: np.ndarray) -> float:
        with torch.no_grad():
            return float(student(torch.from_numpy(picture)[None]).score[0])

    before = score(rgb)
    made = dict(attacked(student, rgb, "coffee"))
    for label, picture in made.items():
        assert picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - rgb).max() == int(label.split()[1])
    assert score(made["pgd 4"]) > score(made["random 4"])
    assert score(made["pgd 4"]) > before
    assert score(rgb) == before
    again = dict(islice(attacked(student, rgb, "coffee"), 3))
    assert all(np.array_equal(made[label], picture) for label, picture in again.items())


class Deaf(Weighted):
    """Normalises its pixels by itself, where no gradient can be taken."""

    def forward(self, rgb: Tensor) -> StudentOutput:
        score = (rgb.float() * self.weights.sum()).mean((1, 2, 3))
        return StudentOutput(score, *[score[:, None, None]] * 3)


def test_a_student_without_a_gradient_says_so():
    with pytest.raises(RuntimeError, match="normalise"):
        next(attacked(Deaf(torch.ones(3, 64, 64)), np.zeros((64, 64, 3), np.uint8), "black"))
