import pytest
import torch
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.base_weights import official_name
from teachers.dp_iqa.decoder import DecoderSizes, QualityDecoder

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


def by_hand(
    weights: dict[str, torch.Tensor], taps: list[torch.Tensor], map_side: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder once more, written down from the fact sheet, with the published names."""

    def excite(x: torch.Tensor, name: str) -> torch.Tensor:
        hidden = torch.relu(x.mean((2, 3)) @ weights[f"{name}.fc.0.weight"].T)
        return x * torch.sigmoid(hidden @ weights[f"{name}.fc.2.weight"].T)[..., None, None]

    def convolve(x: torch.Tensor, name: str, padding: int) -> torch.Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    coarsest, coarse, fine, finest = (
        functional.interpolate(tap, size=(map_side, map_side), mode="bicubic", align_corners=False) for tap in taps
    )
    maps = [
        excite(convolve(tap, f"QFD.conv{number}", 1), f"QFD.se{number}")
        for number, tap in enumerate((finest, fine, coarse, coarsest), start=1)
    ]
    x = excite(convolve(torch.cat(maps, 1), "QFD.fuse_conv", 1), "QFD.se_fuse")
    for number in (1, 2, 3):
        x = convolve(x, f"QFD.conv_score{number}", 0).clamp(min=0)
    y = x.reshape(len(x), -1)
    for number in (1, 2, 3):
        y = y @ weights[f"QFD.fc{number}.weight"].T + weights[f"QFD.fc{number}.bias"]
        y = y.clamp(min=0) if number < 3 else y
    return y[:, 0], x


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
