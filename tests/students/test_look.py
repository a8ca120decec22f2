import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import load
from students.export import with_look
from students.look import Head, SecondLook, choose_look, most_texture, parts, size_within
from students.preprocess import shrink
from students.runtime import Scorer, score
from students.session import CHECKSUM_BYTES
from tests.helpers.tiny_students import photographs

LOOK = SecondLook(Head(0.2, 0.5, 0.4, 0.1), crop_side=64, texture=2, spread=2, pixels=60_000, from_pixels=20_000)


@pytest.fixture(scope="module")
def looking(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student with a second look."""
    out = tmp_path_factory.mktemp("look") / "looking.onnx"
    out.write_bytes(with_look(tiny_onnx.read_bytes(), LOOK, "tiny"))
    return out


def large() -> np.ndarray:
    """A photograph of 320x256 that was enlarged to 640x512, 0.33 megapixels."""
    return np.array(Image.fromarray(photographs()[0]).resize((640, 512)))


def test_a_quick_look_is_that_of_the_file_without_one_to_the_bit(looking: Path, scorer: Scorer) -> None:
    quick = Scorer(looking)
    assert quick.look == "quick"
    assert quick.contract.look == LOOK
    for image in (large(), *photographs()):
        assert quick.score(image).score == scorer.score(image).score
        np.testing.assert_array_equal(quick.score(image).quality_map, scorer.score(image).quality_map)


def test_a_close_look_joins_the_whole_and_its_crops_by_the_head(looking: Path, scorer: Scorer) -> None:
    image = large()
    height, width = size_within(512, 640, LOOK.pixels)
    assert height * width == pytest.approx(LOOK.pixels, rel=0.01)
    crops = scorer.infer(LOOK.crops(image))[0]
    assert len(crops) == 5
    whole = scorer.score(image).score
    logits = np.log(crops.astype(np.float64) / (1 - crops))
    joined = 0.2 + 0.5 * np.log(whole / (1 - whole)) + 0.4 * logits.mean() + 0.1 * logits.max()
    close = Scorer(looking, look="close").score(image)
    assert close.score == pytest.approx(1 / (1 + np.exp(-joined)), abs=1e-6)
    assert abs(close.score - whole) > 1e-3
    assert score(image, looking, look="close").score == close.score
    assert score(image, looking).score == whole
    # Records of what quick scores mean are not those of close ones.
    quick = Scorer(looking).model
    assert (quick.name, quick.sha256) == ("tiny", Scorer(looking).digest)
    assert Scorer(looking, look="close").model.name == "tiny (close look)"
    assert Scorer(looking, look="close").model.sha256 != quick.sha256
    assert pickle.loads(pickle.dumps(Scorer(looking, look="close"))).score(image).score == close.score


def test_the_second_look_gains_weight_with_the_size(looking: Path, scorer: Scorer) -> None:
    close = Scorer(looking, look="close")
    small = np.ascontiguousarray(photographs()[0][:128, :150])
    assert close.score(small).score == scorer.score(small).score
    assert [LOOK.weight(*size) for size in ((100, 200), (200, 300), (4000, 3000))] == [0.0, 1.0, 1.0]
    assert LOOK.weight(150, 231) == pytest.approx(0.5, abs=0.01)


def test_a_file_is_decoded_once_and_scored_like_its_pixels(
    looking: Path, photo_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, quick = Scorer(looking, look="close"), Scorer(looking)
    rgb = np.asarray(Image.open(photo_files[0]))
    # Of a file only the picture that crops are cut from is left.
    whole = close.score(shrink(rgb, LOOK.size(*rgb.shape[:2]))).score
    assert close.score(photo_files[0]).score == pytest.approx(whole, abs=1e-6)
    # A JPEG of four times the pixels is decoded at half its scale.
    double = tmp_path / "double.jpg"
    Image.fromarray(rgb).resize((2 * rgb.shape[1], 2 * rgb.shape[0])).save(double, quality=95)
    assert load(double, resizer=LOOK).shape[:2] == LOOK.size(*load(double).shape[:2])
    assert close.score(double).score == pytest.approx(close.score(load(double)).score, abs=0.02)
    # The quick look has the pixels of the whole file, to the bit.
    assert quick.score(double).score == quick.score(load(double)).score
    # As for pictures of more than 64 megapixels, which are reduced to what crops are cut from while they are decoded.
    monkeypatch.setattr("pseudo_labels.limits.REDUCE_ABOVE", 1000)
    assert close.score(photo_files[0]).score == pytest.approx(whole, abs=0.01)


def test_texture_is_looked_for_and_windows_do_not_overlap() -> None:
    rgb = np.full((300, 400, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rgb[32:96, 256:320] = noise
    rgb[192:256, 16:80] = noise // 2
    assert most_texture(rgb, (64, 64), 2) == [(32, 256), (192, 16)]
    every = most_texture(rgb, (64, 64), 99)
    assert len(every) >= 12
    assert not any(abs(a[0] - b[0]) < 64 and abs(a[1] - b[1]) < 64 for i, a in enumerate(every) for b in every[:i])
    assert replace(LOOK, texture=0, spread=3).crops(rgb).shape == (4, 64, 64, 3)


def test_crops_of_slender_and_odd_pictures_stay_inside() -> None:
    for shape in ((65, 3001, 3), (1001, 65, 3), (333, 501, 3), (20, 90, 3)):
        crops = LOOK.crops(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))
        assert crops.ndim == 4
        assert 1 <= len(crops) <= 5
        assert crops.shape[1:3] == (64, 64)


def test_no_part_that_gets_better_lowers_the_score() -> None:
    crops = np.array([0.2, 0.5, 0.9])
    before = LOOK.head(0.5, crops)
    for better in (np.array([0.3, 0.5, 0.9]), np.array([0.2, 0.6, 0.9]), np.array([0.2, 0.5, 1.0])):
        assert LOOK.head(0.5, better) >= before
    assert 0 < LOOK.head(0.0, np.zeros(3)) < LOOK.head(1.0, np.ones(3)) < 1
    assert parts(0.5, crops)[0] == 0


def test_the_graph_stays_as_it_is(looking: Path, tiny_onnx: Path) -> None:
    before, after = (onnx.load_from_string(path.read_bytes()[:-CHECKSUM_BYTES]) for path in (tiny_onnx, looking))
    assert before.graph == after.graph
    again = with_look(looking.read_bytes(), None, "looking")
    assert again == tiny_onnx.read_bytes()


def test_a_file_without_a_second_look_refuses_a_close_one_with_the_next_step(tiny_onnx: Path, looking: Path) -> None:
    with pytest.raises(PocketiqaError, match=r"'tiny' has no second look: .*pocketiqa fit-look"):
        Scorer(tiny_onnx, look="close")
    with pytest.raises(PocketiqaError, match="unknown look 'near': choose one of quick, close"):
        Scorer(looking, look="near")
    assert choose_look(None, replace(LOOK, default=True), "x") == "close"
    assert choose_look("quick", replace(LOOK, default=True), "x") == "quick"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_side": 8}, "look.crop_side is 8"),
        ({"texture": 0, "centre": 0, "spread": 0}, "number of crops is 0"),
        ({"texture": 64}, "number of crops is 67"),
        ({"pixels": 20_000}, "look.pixels is 20000, but an integer from 40000"),
        ({"head": {"bias": 0, "whole": -1, "mean": 0, "best": 0}}, "look.head.whole is -1"),
        ({"head": {"bias": "0", "whole": 1, "mean": 0, "best": 0}}, "look.head.bias is '0'"),
        ({"head": 3}, "head of looks is int"),
        ({"default": 1}, "look.default must be"),
        ({"views": 3}, "unknown field 'views'"),
    ],
)
def test_unfit_records_are_refused(change: dict, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        SecondLook.from_dict({**LOOK.as_dict(), **change})
    assert SecondLook.from_dict(LOOK.as_dict()) == LOOK
