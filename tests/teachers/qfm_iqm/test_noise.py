import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.contrast import too_alike
from teachers.qfm_iqm.matching import Matches, MatchRule, match
from teachers.qfm_iqm.memory import Entries
from teachers.qfm_iqm.model import QfmIqm
from teachers.qfm_iqm.noise import NoiseSettings, differences, matched_noise, moved_by_noise, worst_noise
from teachers.qfm_iqm.sensitivity import noise_sensitivity
from teachers.qfm_iqm.tokens import Tokens
from tests.teachers.qfm_iqm.tiny_qfm import batch, picture, tiny

ANY_SCORE = MatchRule(matches=3, score_gap=1.0, similarity=0.9)


def remembered(count: int = 12) -> tuple[QfmIqm, Tokens, Entries]:
    """A tiny model, tokens of three images, and a memory of others."""
    teacher = tiny()
    with torch.no_grad():
        own = teacher.model.encode(batch(teacher, [picture(seed) for seed in range(3)]))
        others = teacher.model.encode(batch(teacher, [picture(seed) for seed in range(10, 10 + count)]))
    scores = torch.linspace(0, 0.9, count)
    return teacher.model, own, Entries(others.semantics, others.features, scores)


def test_noise_of_full_scale_puts_the_matched_image_in_place():
    own, matched = torch.rand(2, 4), torch.rand(2, 3, 4)
    for place in range(3):
        torch.testing.assert_close(own + differences(own, matched, 1.0)[:, place], matched[:, place])
    torch.testing.assert_close(differences(own, matched, 0.25), differences(own, matched, 1.0) / 4)


def test_noise_moves_the_tokens_mean_by_itself():
    _, own, memory = remembered()
    noise = differences(own.features, memory.features[:1][None].expand(3, -1, -1, -1, -1), 0.5)[:, 0]
    torch.testing.assert_close(own.with_noise(noise).features, own.features + noise)
    # Every cell of a level is moved alike.
    moved = own.with_noise(noise).cells - own.cells
    torch.testing.assert_close(moved, noise[:, 0, :, None].expand_as(moved), atol=1e-5, rtol=0)


def test_the_candidate_that_moves_the_score_most_is_taken():
    model, own, memory = remembered()
    target = torch.tensor([0.2, 0.5, 0.8])
    settings = NoiseSettings(scale=1.0, rule=ANY_SCORE)
    noise, matched = matched_noise(model.judge, own, model.judge(own).score, target, memory, settings)
    matches = match(own.semantics, target, memory, ANY_SCORE)
    with torch.no_grad():
        plain = model.judge(own).score
        for image in range(3):
            changes = {}
            for row in matches.index[image][matches.valid[image]].tolist():
                one = memory.features[row] - own.features
                changes[float((model.judge(own.with_noise(one)).score - plain)[image].abs())] = one[image]
            assert len(changes) > 1
            torch.testing.assert_close(noise[image], changes[max(changes)])
    assert matched.all()


def test_an_image_without_a_match_gets_no_noise():
    model, own, _ = remembered()
    candidates = torch.rand(3, 2, *own.features.shape[1:])
    valid = torch.tensor([[True, False], [False, False], [True, True]])
    noise = worst_noise(
        model.judge, own, model.judge(own).score, candidates, Matches(torch.zeros(3, 2, dtype=torch.long), valid)
    )
    assert torch.equal(noise[0], candidates[0, 0])
    assert not noise[1].any()
    assert noise[2].any()


def test_the_loss_of_moved_scores_is_zero_where_nothing_moves_or_matches():
    score = torch.tensor([0.5, 0.5, 0.5, 0.5], requires_grad=True)
    noisy = torch.tensor([0.5, 0.55, 0.9, 0.9], requires_grad=True)
    loss = moved_by_noise(score, noisy, torch.tensor([True, True, True, False]))
    # Smooth L1 with beta 0.1: d^2 / 0.2 below, |d| - 0.05 above.
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.0125, 0.35, 0.0]))
    loss.sum().backward()
    assert score.grad is not None
    assert noisy.grad is not None
    assert torch.equal(score.grad, -noisy.grad)  # what moves both alike is left alone


def test_features_may_be_as_alike_as_the_scores_are_near():
    cosine = torch.tensor([[0.9, 0.2], [0.9, 0.9], [1.0, 1.0]])
    gap = torch.tensor([[0.3, 0.3], [0.1, 0.5], [0.5, 0.5]])
    valid = torch.tensor([[True, True], [True, True], [False, False]])
    torch.testing.assert_close(too_alike(cosine, gap, valid), torch.tensor([0.1, 0.2, 0.0]))


def test_sensitivity_is_the_change_of_the_score_and_nan_without_a_match():
    model, own, memory = remembered()
    target = torch.tensor([0.2, 0.5, 5.0])
    settings = NoiseSettings(scale=1.0, rule=MatchRule(score_gap=0.3, similarity=0.9))
    found = noise_sensitivity(model, own, target, memory, settings)
    with torch.no_grad():
        plain = model.judge(own).score
        noise, _ = matched_noise(model.judge, own, plain, target, memory, settings)
        change = (model.judge(own.with_noise(noise)).score - plain).abs()
    torch.testing.assert_close(found.change[:2], change[:2])
    assert found.change.isnan().tolist() == found.ungated.isnan().tolist() == [False, False, True]
    assert found.mean == pytest.approx(float(change[:2].mean()))
    assert found.change[:2].sum() != found.ungated[:2].sum()
    larger = noise_sensitivity(model, own, target, memory, NoiseSettings(scale=3.0, rule=settings.rule))
    assert larger.mean > found.mean > 0


def test_the_very_same_image_is_no_match_of_its_own():
    _, _, memory = remembered()
    rule = MatchRule(matches=20, score_gap=1.0, similarity=0.9)
    found = match(memory.semantics, memory.score, memory, rule)
    for image in range(len(memory.score)):
        assert image not in found.index[image][found.valid[image]].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "noise_weight -1.0: it must be at least 0"),
        ({"scale": 0.0}, "noise_scale 0.0: it must be above 0"),
        ({"memory_length": 0}, "memory_length 0: at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(PocketiqaError, match=message):
        NoiseSettings(**options)
