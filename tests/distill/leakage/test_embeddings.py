"""Features of a set: computed once, cached in parts, and a reason for every image without."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.evaluation.samples import Sample
from distill.leakage.embeddings import embed
from distill.leakage.extractor import FeatureExtractor
from distill.leakage.image_sets import Image as SetImage
from distill.leakage.image_sets import ImageSet
from distill.leakage.neighbours import NotComparableError
from pseudo_labels.errors import PocketiqaError


def png(level: int) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(stored, "PNG")
    return stored.getvalue()


def image_set(*contents: bytes, digest: str = "d") -> ImageSet:
    samples = [Sample(str(number), lambda content=content: content) for number, content in enumerate(contents)]
    return ImageSet("some", tuple(SetImage(sample, f"{sample.id}.png", "") for sample in samples), digest)


class Levels:
    """Counts its calls; the feature is the grey level and its square."""

    def __init__(self) -> None:
        self.calls = 0

    def extractor(self, version: int = 1) -> FeatureExtractor:
        return FeatureExtractor("levels", "layout", "level", {"version": version}, self.extract)

    def extract(self, rgb: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        self.calls += 1
        level = float(rgb[0, 0, 0])
        if level == 13:
            raise PocketiqaError("no thirteen")
        return np.array([level, np.nan if level == 99 else level**2], np.float32)


def test_features_are_in_order_and_every_other_image_has_a_reason(tmp_path: Path) -> None:
    steps: list[int] = []
    images = image_set(png(3), b"no image", png(13), png(99), png(7))
    embeddings = embed(images, Levels().extractor(), tmp_path / "features", step=steps.append)
    assert [image.sample.id for image in embeddings.images] == ["0", "4"]
    np.testing.assert_array_equal(embeddings.vectors, np.array([[3, 9], [7, 49]], np.float32))
    assert [(id, status) for id, status, _ in embeddings.without] == [
        ("1", "not_an_image"),
        ("2", "failed"),
        ("3", "failed"),
    ]
    assert embeddings.without[1][2] == "no thirteen"
    assert "not finite" in embeddings.without[2][2]
    coverage = embeddings.coverage()
    assert (coverage["images"], coverage["compared"]) == (5, 2)
    assert coverage["without"] == {"failed": 2, "not_an_image": 1}
    assert sum(steps) == 5


def test_cached_features_are_used_again_unless_images_model_or_file_changed(tmp_path: Path) -> None:
    levels, folder, images = Levels(), tmp_path / "features", image_set(png(3), png(7))
    first = embed(images, levels.extractor(), folder)
    again = embed(images, levels.extractor(), folder)
    assert levels.calls == 2
    np.testing.assert_array_equal(again.vectors, first.vectors)
    part = folder / "part-00000.npz"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    embed(images, levels.extractor(), folder)
    assert levels.calls == 4
    embed(images, levels.extractor(version=2), folder)
    assert levels.calls == 6
    embed(image_set(png(5), png(7), digest="other"), levels.extractor(version=2), folder)
    assert levels.calls == 8


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PocketiqaError, match="no features manifest at"):
        embed(image_set(png(3)), Levels().extractor(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_features_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotComparableError, match="levels has features for none of the 1 images of some, such as 0:"):
        embed(image_set(b"no image"), Levels().extractor(), tmp_path / "none")
    single = FeatureExtractor("one", "layout", "f", {}, lambda rgb, _: np.ones(1, np.float32))
    with pytest.raises(PocketiqaError, match=r"feature 'f' of one has 1 numbers for 0\.png: at least 2"):
        embed(image_set(png(3)), single, tmp_path / "single")
    growing = FeatureExtractor("grows", "layout", "f", {}, lambda rgb, _: np.ones(int(rgb[0, 0, 0]), np.float32))
    with pytest.raises(PocketiqaError, match="has 3 numbers for one image and 7 for another"):
        embed(image_set(png(3), png(7)), growing, tmp_path / "growing")
