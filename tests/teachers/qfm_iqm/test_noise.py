import itertools
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import start_processes

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.noise import (
    Entries,
    Matches,
    MatchRule,
    Memory,
    NoiseSettings,
    differences,
    find_matches,
    gathered,
    match,
    matched_noise,
    moved_by_noise,
    ring_slots,
    similarities,
    too_alike,
    worst_noise,
)
from tests.teachers.qfm_iqm.tiny_qfm import remembered

ANY_SCORE = MatchRule(matches=3, score_gap=1.0, similarity=0.9)


def test_noise_of_full_scale_replaces_the_features_by_the_matched_ones():
    own, matched = torch.rand(2, 4), torch.rand(2, 3, 4)
    for column in range(3):
        torch.testing.assert_close(own + differences(own, matched, 1.0)[:, column], matched[:, column])
    torch.testing.assert_close(differences(own, matched, 0.25), differences(own, matched, 1.0) / 4)


def test_noise_moves_the_tokens_mean_by_itself():
    _, own, memory = remembered()
    noise = differences(own.features, memory.features[:1][None].expand(3, -1, -1, -1, -1), 0.5)[:, 0]
    torch.testing.assert_close(own.with_noise(noise).features, own.features + noise)
    # Every cell of a level is moved by the same noise.
    moved = own.with_noise(noise).cells - own.cells
    torch.testing.assert_close(moved, noise[:, 0, :, None].expand_as(moved), atol=1e-5, rtol=0)


def test_the_candidate_that_moves_the_score_most_is_taken():
    model, own, memory = remembered()
    target = torch.tensor([0.2, 0.5, 0.8])
    settings = NoiseSettings(scale=1.0, rule=ANY_SCORE)
    noise, matched = matched_noise(
        model.decode, own, score=model.decode(own).score, target=target, memory=memory, settings=settings
    )
    matches = match(own.semantics, target, memory, ANY_SCORE)
    with torch.no_grad():
        plain = model.decode(own).score
        for image in range(3):
            changes = {}
            for row in matches.index[image][matches.valid[image]].tolist():
                one = memory.features[row] - own.features
                changes[float((model.decode(own.with_noise(one)).score - plain)[image].abs())] = one[image]
            assert len(changes) > 1
            torch.testing.assert_close(noise[image], changes[max(changes)])
    assert matched.all()


def test_an_image_without_a_match_gets_no_noise():
    model, own, _ = remembered()
    candidates = torch.rand(3, 2, *own.features.shape[1:])
    valid = torch.tensor([[True, False], [False, False], [True, True]])
    noise = worst_noise(
        model.decode, own, model.decode(own).score, candidates, Matches(torch.zeros(3, 2, dtype=torch.long), valid)
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
    assert torch.equal(score.grad, -noisy.grad)  # a change of both by the same amount has no gradient


def test_features_may_be_as_similar_as_the_scores():
    cosine = torch.tensor([[0.9, 0.2], [0.9, 0.9], [1.0, 1.0]])
    gap = torch.tensor([[0.3, 0.3], [0.1, 0.5], [0.5, 0.5]])
    valid = torch.tensor([[True, True], [True, True], [False, False]])
    torch.testing.assert_close(too_alike(cosine, gap, valid), torch.tensor([0.1, 0.2, 0.0]))


def test_the_very_same_image_is_no_match_of_its_own():
    _, _, memory = remembered()
    rule = MatchRule(matches=20, score_gap=1.0, similarity=0.9)
    matches = match(memory.semantics, memory.score, memory, rule)
    for image in range(len(memory.score)):
        assert image not in matches.index[image][matches.valid[image]].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "noise_weight -1.0: it must be at least 0"),
        ({"scale": 0.0}, "noise_scale 0.0: it must be above 0"),
        ({"memory_length": 0}, "memory_length 0: at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict, message: str):
    with pytest.raises(PocketiqaError, match=message):
        NoiseSettings(**options)


def entries(numbers: list[int]) -> Entries:
    """Images whose every value is their number."""
    column = torch.tensor(numbers, dtype=torch.float32)
    return Entries(column[:, None].expand(-1, 3), column[:, None, None].expand(-1, 2, 2), column)


def oldest_first(memory: Memory) -> list[float]:
    """Scores in order of age, from the ring's counter."""
    scores = memory.entries().score
    return torch.roll(scores, -(int(memory.written) % len(scores))).tolist() if len(scores) else []


@pytest.mark.parametrize("length", [1, 4, 7])
def test_it_holds_the_last_images_as_a_queue_does(length: int):
    memory, queue = Memory(length, 3, (2, 2)), deque(maxlen=length)
    number = 0
    for size in (2, 3, 0, 1, 9, 4):
        new = list(range(number, number + size))
        number += size
        memory.push(entries(new))
        queue.extend(new)
        held = memory.entries()
        assert sorted(held.score.tolist()) == sorted(queue)
        if len(queue) == length:
            assert oldest_first(memory) == list(queue)
        # The same row of all three buffers belongs to the same image.
        assert torch.equal(held.semantics, held.score[:, None].expand(-1, 3))
        assert torch.equal(held.features, held.score[:, None, None].expand(-1, 2, 2))


def test_a_new_memory_is_empty_and_comes_back_from_its_state():
    memory = Memory(4, 3, (2, 2))
    assert len(memory.entries().score) == 0
    memory.push(entries([5, 6, 7, 8, 9]))
    other = Memory(4, 3, (2, 2))
    other.load_state_dict(memory.state_dict())
    other.push(entries([10]))
    assert oldest_first(other) == [7, 8, 9, 10]
    assert oldest_first(memory) == [6, 7, 8, 9]


def test_slots_wrap_around():
    slots, dropped = ring_slots(written=5, new=3, length=4)
    assert (slots.tolist(), dropped) == ([1, 2, 3], 0)
    slots, dropped = ring_slots(written=5, new=6, length=4)
    assert (slots.tolist(), dropped) == ([3, 0, 1, 2], 2)


def test_alone_a_process_gets_its_own_rows():
    rows = torch.rand(3, 2)
    assert gathered(rows) is rows


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    memory = Memory(4, 3, (2, 2))
    memory.push(entries([0, 1] if rank == 0 else [10, 11, 12]))
    torch.save(memory.state_dict(), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_remember_the_same_even_with_batches_of_different_sizes(tmp_path: Path):
    # Forked, because a fresh start imports torch twice; the children only copy small tensors.
    start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    states: list[dict[str, Tensor]] = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    memory = Memory(4, 3, (2, 2))
    memory.load_state_dict(states[0])
    assert oldest_first(memory) == [1, 10, 11, 12]


BATCH, LENGTH, CHANNELS = 7, 60, 5


def data(seed: int) -> tuple[Tensor, Tensor, Entries]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return (
        random(BATCH, CHANNELS),
        random(BATCH),
        Entries(random(LENGTH, CHANNELS), torch.zeros(LENGTH), random(LENGTH)),
    )


def cosine(image: np.ndarray, other: np.ndarray, memory: np.ndarray) -> float:
    """Of two images, standardised by the memory; written out for one pair."""
    a, b = ((one - memory.mean(0)) / memory.std(0) for one in (image, other))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("form", ["quality", "opposite"])
@pytest.mark.parametrize("seed", range(3))
def test_matches_are_those_that_a_search_of_all_pairs_finds(form: str, seed: int):
    semantics, score, memory = data(seed)
    rule = MatchRule(form, matches=4, score_gap=0.1, similarity=0.3)
    matches = match(semantics, score, memory, rule)
    arrays = semantics.double().numpy(), memory.semantics.double().numpy()
    counts = set()
    for image in range(BATCH):
        allowed = []
        for other in range(LENGTH):
            gap = abs(float(score[image] - memory.score[other]))
            similarity = cosine(arrays[0][image], arrays[1][other], arrays[1])
            fits = gap < 0.1 and similarity < 0.3 if form == "quality" else gap >= 0.1 and similarity >= 0.3
            if fits:
                allowed.append((gap if form == "quality" else -similarity, other))
        expected = [other for _, other in sorted(allowed)[:4]]
        assert matches.index[image][matches.valid[image]].tolist() == expected
        assert int(matches.valid[image].sum()) == len(expected)
        counts.add(len(expected))
    assert max(counts) > 0


def test_the_opposite_form_wants_the_opposite_of_both_conditions():
    gaps, cosines = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([[0.9, 0.0, 0.9, 0.0]])
    quality = find_matches(gaps, cosines, MatchRule("quality"))
    opposite = find_matches(gaps, cosines, MatchRule("opposite"))
    assert quality.index[quality.valid].tolist() == [1]
    assert opposite.index[opposite.valid].tolist() == [2]


def test_nothing_matches_where_nothing_may_and_all_where_all_may():
    gap, similarity = torch.rand(3, 6), torch.rand(3, 6)
    none = find_matches(gap + 1, similarity, MatchRule())
    assert not none.valid.any()
    assert none.index.tolist() == [[0] * 4] * 3
    everything = find_matches(gap * 0, similarity * 0, MatchRule(matches=9))
    assert everything.index.tolist() == [list(range(6))] * 3


def test_similarity_does_not_depend_on_the_channels_offsets_and_scales():
    generator = torch.Generator().manual_seed(0)
    own, others = torch.randn(4, 8, generator=generator), torch.randn(50, 8, generator=generator)
    plain = similarities(own, others)
    scale, offset = torch.rand(8, generator=generator) + 0.5, 100 * torch.rand(8, generator=generator)
    torch.testing.assert_close(similarities(own * scale + offset, others * scale + offset), plain, atol=1e-3, rtol=0)
    # Without standardising, the offset would make all of them similar.
    assert plain.min() < -0.3
    assert similarities(others[:3], others).argmax(1).tolist() == [0, 1, 2]


def test_a_constant_channel_has_no_effect():
    others = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    others[:, 2] = 1.0
    assert similarities(others, others).isfinite().all()
    torch.testing.assert_close(
        similarities(others, others), similarities(others[:, [0, 1, 3]], others[:, [0, 1, 3]]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "both"}, "matching 'both': choose quality, opposite"),
        ({"matches": 0}, "matches 0: at least 1"),
        ({"score_gap": 0.0}, "score_threshold 0.0: it must be above 0"),
        ({"similarity": -1.0}, "semantic_threshold -1.0: it must be above -1"),
    ],
)
def test_a_rule_out_of_range_is_refused(options: dict, message: str):
    with pytest.raises(PocketiqaError, match=message):
        MatchRule(**options)


def test_the_number_of_matches_is_the_limit():
    for matches, length in itertools.product((1, 3), (1, 5)):
        limited = find_matches(torch.zeros(2, length), torch.zeros(2, length), MatchRule(matches=matches))
        assert limited.index.shape == (2, min(matches, length))
