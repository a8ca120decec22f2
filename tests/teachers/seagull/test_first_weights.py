"""First weights: what they pass on of regions, and that equal seeds give equal ones."""

import numpy as np
import torch

from teachers.seagull.build import build_seagull
from teachers.seagull.extractor import LEVELS, mean_inside
from teachers.seagull.first_weights import drawn_picture, standardise, strengthen
from teachers.seagull.model import VARIANTS, Seagull, build, language_config, preprocess
from tests.helpers.pools import photograph

TINY = VARIANTS["tiny"]


def fresh(*, standard: bool) -> Seagull:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(TINY, language_config(TINY.language)).requires_grad_(False)
    strengthen(model)
    if standard:
        standardise(model, 0)
    return model


@torch.no_grad()
def taken_up(model: Seagull, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """What the extractor takes up of eight boxes in each picture: of each level [regions, width]."""
    side, rng = TINY.extractor.side_px, np.random.default_rng(0)
    levels: list[list[torch.Tensor]] = [[] for _ in LEVELS]
    for picture in pictures:
        maps = model.feature_maps(preprocess(picture, side)[None])
        masks = torch.zeros(8, side, side)
        for mask in masks:
            top, left = rng.integers(0, side - 48, 2)
            mask[top : top + 48, left : left + 48] = 1
        for name, values, level in zip(LEVELS, levels, maps, strict=True):
            values.append(model.extractor.get_submodule(name)(mean_inside(level[0], masks)))
    return [torch.cat(values) for values in levels]


def test_no_level_drowns_the_others():
    """In regions of photographs, though the first weights were made with drawings alone."""
    pictures = [photograph(name) for name in ("astronaut", "coffee", "cat", "rocket")]
    plain, standard = (taken_up(fresh(standard=own), pictures) for own in (False, True))
    spread = [[float(level.std(0).mean()) for level in levels] for levels in (plain, standard)]
    assert max(spread[0]) / min(spread[0]) > 3
    assert max(spread[1]) / min(spread[1]) < 2


def test_drawn_regions_have_deviation_one():
    """On other drawings than those that the weights were made with; the random projection keeps the variance."""
    rng, side = np.random.default_rng(99), TINY.extractor.side_px
    for level in taken_up(fresh(standard=True), [drawn_picture(rng, side) for _ in range(12)]):
        assert 0.5 < float(level.std(0).mean()) < 2


def test_drawings_look_like_photographs_in_brightness_and_slope():
    rng = np.random.default_rng(1)
    pictures = np.stack([drawn_picture(rng, 128) for _ in range(8)])
    assert pictures.dtype == np.uint8
    assert 50 < pictures.mean() < 170
    spectrum = np.abs(np.fft.fft2(pictures.mean(-1) - pictures.mean((1, 2, 3))[:, None, None])).mean(0)
    # Amplitude falls about as one over the frequency, as in photographs (Field 1987): over three octaves to an eighth.
    low, high = spectrum[0, 4:7].mean(), spectrum[0, 32:56].mean()
    assert 3 < low / high < 30


def test_equal_seeds_give_equal_weights():
    first, again = (build_seagull(variant="tiny", pretrained=False, precision="fp32") for _ in range(2))
    assert first.base == again.base
    assert first.base != build_seagull(variant="tiny", pretrained=False, precision="fp32", seed=1).base
