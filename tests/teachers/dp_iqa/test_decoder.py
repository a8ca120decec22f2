import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.base_weights import official_name
from teachers.dp_iqa.decoder import DecoderSizes, QualityDecoder
from tests.teachers.dp_iqa.official import by_hand

SIZES = DecoderSizes(width=16, reduction=4, narrow=(12, 10, 8), hidden=9, map_side=16)
CHANNELS = (20, 18, 14, 10)


@pytest.fixture
def decoder() -> QualityDecoder:
    torch.manual_seed(5)
    return QualityDecoder(CHANNELS, SIZES).eval()


@pytest.fixture
def taps() -> list[torch.Tensor]:
    torch.manual_seed(6)
    return [torch.randn(3, count, side, side) for count, side in zip(CHANNELS, (4, 8, 16, 16), strict=True)]


def test_scores_and_maps_are_those_of_the_fact_sheet(decoder: QualityDecoder, taps: list[torch.Tensor]):
    weights = {official_name(f"decoder.{name}"): value for name, value in decoder.state_dict().items()}
    with torch.no_grad():
        score, feature_map = by_hand(weights, taps)
        quality = decoder(taps)
    torch.testing.assert_close(quality.feature_map, feature_map, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(quality.score, score, atol=1e-6, rtol=1e-5)
    assert tuple(quality.feature_map.shape) == (3, 8, 16, 16)
    assert feature_map.min() == 0 < feature_map.max()


def test_the_tail_scores_a_feature_map_alone(decoder: QualityDecoder, taps: list[torch.Tensor]):
    with torch.no_grad():
        quality = decoder(taps)
        assert torch.equal(decoder.score_map(quality.feature_map).score, quality.score)


def test_the_score_is_computed_in_full_precision_under_autocast(decoder: QualityDecoder, taps: list[torch.Tensor]):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        quality = decoder(taps)
    with torch.no_grad():
        exact = decoder.score_map(quality.feature_map)
    assert quality.feature_map.dtype == quality.score.dtype == torch.float32
    assert torch.equal(quality.score, exact.score)


def test_another_number_of_taps_is_decoded_too():
    decoder = QualityDecoder((20, 14, 10), SIZES)
    taps = [torch.randn(1, 20, 4, 4), torch.randn(1, 14, 8, 8), torch.randn(1, 10, 8, 8)]
    assert tuple(decoder(taps).score.shape) == (1,)
    with pytest.raises(PocketiqaError, match=r"have \[20, 14\] channels, but the decoder was built for \[20, 14, 10\]"):
        decoder(taps[:2])
