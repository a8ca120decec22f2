import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.matching import MatchRule, find_matches, match, similarities
from teachers.qfm_iqm.memory import Entries

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
    found = match(semantics, score, memory, rule)
    arrays = semantics.double().numpy(), memory.semantics.double().numpy()
    counts = set()
    for image in range(BATCH):
        allowed = []
        for other in range(LENGTH):
            gap = abs(float(score[image] - memory.score[other]))
            alike = cosine(arrays[0][image], arrays[1][other], arrays[1])
            fits = gap < 0.1 and alike < 0.3 if form == "quality" else gap >= 0.1 and alike >= 0.3
            if fits:
                allowed.append((gap if form == "quality" else -alike, other))
        expected = [other for _, other in sorted(allowed)[:4]]
        assert found.index[image][found.valid[image]].tolist() == expected
        assert int(found.valid[image].sum()) == len(expected)
        counts.add(len(expected))
    assert max(counts) > 0


def test_the_opposite_form_wants_the_opposite_of_both_conditions():
    gaps, cosines = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([[0.9, 0.0, 0.9, 0.0]])
    quality = find_matches(gaps, cosines, MatchRule("quality"))
    opposite = find_matches(gaps, cosines, MatchRule("opposite"))
    assert quality.index[quality.valid].tolist() == [1]
    assert opposite.index[opposite.valid].tolist() == [2]


def test_nothing_matches_where_nothing_may_and_all_where_all_may():
    gap, alike = torch.rand(3, 6), torch.rand(3, 6)
    none = find_matches(gap + 1, alike, MatchRule())
    assert not none.valid.any()
    assert none.index.tolist() == [[0] * 4] * 3
    everything = find_matches(gap * 0, alike * 0, MatchRule(matches=9))
    assert everything.index.tolist() == [list(range(6))] * 3


def test_similarity_does_not_depend_on_the_channels_offsets_and_scales():
    generator = torch.Generator().manual_seed(0)
    own, others = torch.randn(4, 8, generator=generator), torch.randn(50, 8, generator=generator)
    plain = similarities(own, others)
    scale, offset = torch.rand(8, generator=generator) + 0.5, 100 * torch.rand(8, generator=generator)
    torch.testing.assert_close(similarities(own * scale + offset, others * scale + offset), plain, atol=1e-3, rtol=0)
    # Without standardising, the offset would make all of them alike.
    assert plain.min() < -0.3
    assert similarities(others[:3], others).argmax(1).tolist() == [0, 1, 2]


def test_a_channel_that_never_changes_tells_nothing():
    others = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    others[:, 2] = 1.0
    assert similarities(others, others).isfinite().all()
    torch.testing.assert_close(
        similarities(others, others), similarities(others[:, [0, 1, 3]], others[:, [0, 1, 3]]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "near"}, "matching 'near': choose quality, opposite"),
        ({"matches": 0}, "matches 0: at least 1"),
        ({"score_gap": 0.0}, "score_threshold 0.0: it must be above 0"),
        ({"similarity": -1.0}, "semantic_threshold -1.0: it must be above -1"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(options: dict, message: str):
    with pytest.raises(PocketiqaError, match=message):
        MatchRule(**options)


def test_the_number_of_matches_is_the_limit():
    for matches, length in itertools.product((1, 3), (1, 5)):
        found = find_matches(torch.zeros(2, length), torch.zeros(2, length), MatchRule(matches=matches))
        assert found.index.shape == (2, min(matches, length))
