"""First weights of a model that nothing was learned with: random, but so that learning begins at once.

With the first weights that torch gives, embeddings of all regions are nearly alike: what the vision tower says of
photographs is mostly the same for all, and each linear layer shrinks the rest.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from teachers.seagull.extractor import LEVELS, mean_inside
from teachers.seagull.model import Seagull, preprocess

_HEAD_SCALE = 4.0
_PICTURES, _REGIONS = 24, 4
_SLOPE = 0.8
"""Octaves of drawn pictures fall with this power of their frequency, nearly as those of photographs do (with 1)."""
_LEAST_DEVIATION = 1e-2  # of a channel: one that is nearly constant is not blown up
_STREAM = 23  # keeps the random numbers of the drawings apart from all others of a seed


@torch.no_grad()
def strengthen(model: Seagull) -> None:
    """Let random weights pass on what differs between regions, and let adapters make one word likely.

    The first weights that torch gives a linear layer shrink its input to a third of its variance and add a constant:
    after several layers, embeddings of all regions are nearly alike. The last layer's rows point anywhere and stay
    frozen: only if they are long can one of them win, as in a trained model.
    """
    for part in (model.extractor, model.projector):
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
    model.language.lm_head.weight.mul_(_HEAD_SCALE)


@torch.no_grad()
def standardise(model: Seagull, seed: int) -> None:
    """Give what masks cover mean 0 and deviation 1 in each channel, over drawn pictures; the layers take it up.

    First weights from data, as Krähenbühl et al. 2016 (arXiv 1511.06856) have them; drawn data, so that a teacher is
    the same wherever it is built. Otherwise the level with the largest values drowns the others.
    """
    side = model.sizes.extractor.side_px
    rng = np.random.default_rng([seed, _STREAM])
    covered: list[list[Tensor]] = [[] for _ in LEVELS]
    for _ in range(_PICTURES):
        maps = model.feature_maps(preprocess(drawn_picture(rng, side), side)[None])
        masks = torch.from_numpy(_boxes(rng, side))
        for values, level in zip(covered, maps, strict=True):
            values.append(mean_inside(level[0].float(), masks))
    for name, values in zip(LEVELS, covered, strict=True):
        together = torch.cat(values)
        layer = model.extractor.get_submodule(name)
        assert isinstance(layer, nn.Linear), "what takes up a level is linear"
        layer.weight.div_(together.std(0) + _LEAST_DEVIATION)
        layer.bias.sub_(layer.weight @ together.mean(0))


def drawn_picture(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Noise in octaves, with colours: uint8 [side_px, side_px, 3], of the brightness and contrast of photographs."""
    picture = np.zeros((side_px, side_px, 3), np.float32)
    cells = 2
    while cells <= side_px:
        grey, colour = rng.normal(size=(cells, cells, 1)), rng.normal(size=(cells, cells, 3))
        octave = ((grey + 0.4 * colour) / cells**_SLOPE).astype(np.float32)
        channels = [
            Image.fromarray(np.ascontiguousarray(octave[..., channel])).resize(
                (side_px, side_px), Image.Resampling.BICUBIC
            )
            for channel in range(3)
        ]
        picture += np.stack([np.asarray(channel) for channel in channels], -1)
        cells *= 2
    contrast, brightness = rng.uniform(0.12, 0.28), rng.uniform(0.3, 0.6)
    values = (picture - picture.mean()) / picture.std() * contrast + brightness
    return (values.clip(0, 1) * 255).astype(np.uint8)


def _boxes(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Masks of boxes, float32 [_REGIONS, side_px, side_px]."""
    masks = np.zeros((_REGIONS, side_px, side_px), np.float32)
    for mask in masks:
        height, width = rng.integers(side_px // 5, side_px // 2, 2)
        top, left = rng.integers(0, side_px - height), rng.integers(0, side_px - width)
        mask[top : top + height, left : left + width] = 1
    return masks
