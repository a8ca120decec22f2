import math

import numpy as np
import pytest
import torch

from teachers.qfm_iqm.noise import MatchRule, NoiseSettings, matched_noise
from teachers.qfm_iqm.sensitivity import Sensitivity, noise_sensitivity, sensitivity_among
from tests.teachers.qfm_iqm.tiny_qfm import batch, remembered, tiny

# Everything matches everything but itself, so that few images suffice.
LOOSE = NoiseSettings(scale=1.0, rule=MatchRule(score_gap=1.0, similarity=0.9))
SCORES = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])


def test_sensitivity_is_the_change_of_the_score_and_nan_without_a_match():
    model, own, memory = remembered()
    target = torch.tensor([0.2, 0.5, 5.0])
    settings = NoiseSettings(scale=1.0, rule=MatchRule(score_gap=0.3, similarity=0.9))
    measured = noise_sensitivity(model, own, target, memory, settings)
    with torch.no_grad():
        plain = model.decode(own).score
        noise, _ = matched_noise(model.decode, own, score=plain, target=target, memory=memory, settings=settings)
        change = (model.decode(own.with_noise(noise)).score - plain).abs()
    torch.testing.assert_close(measured.change[:2], change[:2])
    assert measured.change.isnan().tolist() == measured.ungated.isnan().tolist() == [False, False, True]
    assert measured.mean == pytest.approx(float(change[:2].mean()))
    assert measured.change[:2].sum() != measured.ungated[:2].sum()
    larger = noise_sensitivity(model, own, target, memory, NoiseSettings(scale=3.0, rule=settings.rule))
    assert larger.mean > measured.mean > 0


def test_statistics_leave_out_images_without_a_match():
    measured = Sensitivity(
        torch.tensor([0.2, math.nan, 0.4]), torch.tensor([0.5, math.nan, 0.1]), torch.tensor([0.1, 0.5, 0.9])
    )
    assert measured.mean == pytest.approx(0.3)
    assert measured.mean_ungated == pytest.approx(0.3)
    assert measured.deviation == pytest.approx(np.std([0.1, 0.5, 0.9]), abs=1e-6)
    none = Sensitivity(torch.tensor([math.nan]), torch.tensor([math.nan]), torch.tensor([0.5]))
    assert math.isnan(none.mean)
    assert math.isnan(none.mean_ungated)


def test_the_form_of_the_rule_does_not_matter():
    model, own, memory = remembered()
    target = torch.tensor([0.2, 0.5, 0.8])
    quality, opposite = (
        noise_sensitivity(
            model, own, target, memory, NoiseSettings(rule=MatchRule(form, score_gap=0.3, similarity=0.9))
        )
        for form in ("quality", "opposite")
    )
    assert torch.equal(quality.change, opposite.change)
    assert quality.change.isfinite().all()


def test_a_model_with_one_score_for_all_images_has_no_sensitivity(pictures: list[np.ndarray]):
    teacher = tiny()
    with torch.no_grad():
        teacher.model.decoder.head.weight.zero_()
    measured = sensitivity_among(teacher.model, [(batch(teacher, pictures), SCORES)], LOOSE)
    assert measured.change.tolist() == measured.ungated.tolist() == [0.0] * 5
    assert measured.deviation == 0


def test_open_gates_make_no_difference(pictures: list[np.ndarray]):
    teacher = tiny()
    with torch.no_grad():
        teacher.model.decoder.gate.shift.fill_(9.0)  # sigmoid(451) = 1
    measured = sensitivity_among(teacher.model, [(batch(teacher, pictures), SCORES)], LOOSE)
    torch.testing.assert_close(measured.change, measured.ungated)
    assert measured.mean > 0


def test_the_result_does_not_depend_on_the_batches(pictures: list[np.ndarray]):
    teacher = tiny()
    images = batch(teacher, pictures)
    whole = sensitivity_among(teacher.model, [(images, SCORES)], LOOSE)
    single = sensitivity_among(teacher.model, zip(images.split(1), SCORES.split(1), strict=True), LOOSE)
    for name in ("change", "ungated", "score"):
        torch.testing.assert_close(getattr(single, name), getattr(whole, name), atol=1e-5, rtol=0)
    items = [teacher.preprocess(picture, None) for picture in pictures]
    teacher.settings = LOOSE
    torch.testing.assert_close(teacher.sensitivity(items, SCORES.tolist()).change, whole.change, atol=1e-5, rtol=0)
