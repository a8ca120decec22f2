"""Regions of a validation: the order within pictures and the importance, on whole images as the runtime sees them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.examples import Examples, Source
from distill.data.pixel_cache import build_pixels
from distill.data.regions import RegionReader
from distill.training.batches import RegionShower
from distill.training.region_validation import RegionValidation
from distill.training.validation import Validator
from students.preprocess import Preprocess
from tests.helpers.regions import noisy_quarters

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return noisy_quarters(tmp_path_factory.mktemp("regions"), images=5)


def examples_of(source: Source) -> Examples:
    """All images; none has a score."""
    n = len(source.pool)
    zeros = np.zeros(n, np.int32)
    return Examples(
        source=zeros.astype(np.int16), row=np.arange(n, dtype=np.int32), target=zeros.astype(np.float32),
        weight=zeros.astype(np.float32), flipped=zeros.astype(bool), box=np.tile([0.0, 0.0, 1.0, 1.0], (n, 1)),
        shard=zeros - 1, shard_row=zeros, levels=np.tile([-1.0, 0.0, 0.0, np.inf], (n, 1)),
    )  # fmt: skip


@pytest.fixture
def validation(source: Source, tmp_path: Path) -> RegionValidation:
    cache = build_pixels(source.pool, Preprocess(max_side=96), tmp_path / "pixels")
    reader = RegionReader([source.regions], [(0, row) for row in range(len(source.pool))])
    shower = RegionShower(reader, 48, lambda size: (size[0] // 48, size[1] // 48))
    return RegionValidation(examples_of(source), [cache], shower, batch_size=2)


def strength(pixels: torch.Tensor) -> torch.Tensor:
    """How strongly neighbours differ in each quarter, [B, 2, 2]: the noisy one has the most."""
    differences = (pixels[:, :, 1:].double() - pixels[:, :, :-1].double()).abs().mean(-1)
    rows = [differences[:, :48], differences[:, 48:]]
    return torch.stack([torch.stack([row[..., :47].mean((1, 2)), row[..., 48:].mean((1, 2))], -1) for row in rows], 1)


def test_maps_that_know_the_bad_quarter_are_right_in_all_pictures(validation: RegionValidation):
    result = validation.validate(lambda pixels: (1 / strength(pixels), strength(pixels)), DEVICE)
    assert validation.sources == {0}
    measured = result[0]
    assert measured["n"] == 20
    # Three quarters have equal labels: of a random order among them, this much is reached at least.
    assert measured["within"] > 0.6
    assert measured["importance"] > 0.6
    assert measured["score"] == pytest.approx((measured["within"] + measured["importance"]) / 2)
    reverse = validation.validate(lambda pixels: (strength(pixels), 1 / strength(pixels)), DEVICE)[0]
    assert reverse["within"] == pytest.approx(-measured["within"], abs=1e-6)


def test_maps_that_say_the_same_of_all_count_nothing(validation: RegionValidation):
    def equal(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((len(pixels), 2, 2), 0.5), torch.ones(len(pixels), 2, 2)

    same = validation.validate(equal, DEVICE)
    assert (same[0]["within"], same[0]["importance"], same[0]["score"]) == (0.0, None, 0.0)


def test_a_source_of_regions_alone_chooses_the_checkpoint(validation: RegionValidation, source: Source):
    none = examples_of(source).take(np.zeros(len(source.pool), bool))
    validator = Validator(none, [Source("r", source.pool, source.labels)], [], DEVICE, validation)

    def maps(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 / strength(pixels), strength(pixels)

    record = validator.validate(lambda pixels: pixels, maps)
    assert record["sources"] == {}
    assert record["score"] == record["regions"]["r"]["score"] > 0.6
