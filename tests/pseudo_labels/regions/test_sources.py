"""Sources of regions: grid, superpixels, mask files, ground truth of BSDS500; and what is wrong with such files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from skimage.segmentation import slic

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import RegionError, decode
from pseudo_labels.regions.sources import Bsds, Grid, MaskFolder, Proposal, Slic

REF = ImageRef("id", "/photos/bear.jpg", height=10, width=12)


def masks(proposals: list[Proposal], ref: ImageRef = REF) -> np.ndarray:
    assert [proposal.status for proposal in proposals] == [Status.OK] * len(proposals)
    return np.stack([decode(proposal.counts, ref.height, ref.width) for proposal in proposals])


def save_map(path: Path, labels: np.ndarray, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image = image.convert("L")
        image.putpalette([level for number in range(256) for level in (255 - number, 7, number)])
    image.save(path)


def save_truth(path: Path, maps: list[np.ndarray]) -> None:
    truth = np.empty((1, len(maps)), object)
    for index, labels in enumerate(maps):
        truth[0, index] = {"Segmentation": labels.astype(np.uint16)}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": truth})


def test_a_grid_covers_every_pixel_once():
    cells = masks(list(Grid(5, 3).propose(REF, None)))
    assert len(cells) == 15
    assert (cells.sum(0) == 1).all()
    assert cells[0, :3, :2].all()
    tiny = ImageRef("id", "a.png", height=2, width=3)
    assert (masks(list(Grid(8, 8).propose(tiny, None)), tiny).sum(0) == 1).all()


def test_superpixels_are_those_of_scikit_image():
    rgb = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    rgb[:, 6:] //= 4
    labels = slic(rgb, n_segments=6, compactness=5.0, start_label=1, channel_axis=-1)
    regions = masks(list(Slic(6, 5.0).propose(REF, rgb)))
    assert np.array_equal((regions * np.arange(1, len(regions) + 1)[:, None, None]).sum(0), labels)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_each_number_of_a_map_is_a_region(tmp_path: Path, mode: str):
    labels = np.zeros((10, 12), int)
    labels[:4], labels[6:, 3:] = 3, 1000 if mode == "I;16" else 9
    save_map(tmp_path / "bear.png", labels, mode)
    regions = masks(list(MaskFolder(tmp_path).propose(REF, None)))
    assert np.array_equal(regions, [labels == 3, labels > 3])


def test_a_folder_of_masks_gives_a_region_for_each_file_and_a_reason_for_each_bad_one(tmp_path: Path):
    mask = np.zeros((10, 12), int)
    mask[2:5, 2:5] = 255
    save_map(tmp_path / "bear" / "a.png", mask)
    save_map(tmp_path / "bear" / "b.png", np.ones((5, 5)))
    Image.new("RGB", (12, 10)).save(tmp_path / "bear" / "c.png")
    (tmp_path / "bear" / "d.png").write_bytes(b"no picture")
    (tmp_path / "bear" / "e.png").write_bytes(b"")
    first, *others = MaskFolder(tmp_path).propose(REF, None)
    assert np.array_equal(masks([first])[0], mask > 0)
    assert [other.reason for other in others][:2] == [
        "the mask is 5x5, but the image 12x10",
        "c.png is a picture in mode RGB: masks are gray or have a palette",
    ]
    assert [other.status for other in others] == [Status.CORRUPT] * 3 + [Status.EMPTY]


def test_an_image_without_a_file_of_its_name_or_with_two_has_no_regions(tmp_path: Path):
    save_map(tmp_path / "one" / "fox.png", np.ones((10, 12)))
    save_map(tmp_path / "two" / "fox.png", np.ones((10, 12)))
    source = MaskFolder(tmp_path)
    for name, words in (("bear", "no file named bear.png"), ("fox", "2 files named fox.png")):
        with pytest.raises(RegionError, match=words) as caught:
            list(source.propose(ImageRef("id", f"/{name}.jpg", height=10, width=12), None))
        assert caught.value.status == Status.MISSING
    with pytest.raises(PocketiqaError, match="no folder"):
        MaskFolder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PocketiqaError, match=r"holds no .mat"):
        Bsds(tmp_path / "empty")


def test_people_s_regions_are_those_of_the_median_person_or_of_one(tmp_path: Path):
    columns = np.tile(np.arange(12), (10, 1))
    maps = [columns + 1, columns // 6 + 1, columns // 3 + 1, columns // 2 + 1]  # 12, 2, 4 and 6 regions
    save_truth(tmp_path / "test" / "bear.mat", maps)
    assert np.array_equal(masks(list(Bsds(tmp_path).propose(REF, None))), [maps[2] == 1 + n for n in range(4)])
    assert len(list(Bsds(tmp_path, person=1).propose(REF, None))) == 2
    with pytest.raises(RegionError, match="people 0 to 3, but not 9"):
        list(Bsds(tmp_path, person=9).propose(REF, None))
    with pytest.raises(PocketiqaError, match="median or a number"):
        Bsds(tmp_path, person=-1)


def test_ground_truth_that_is_corrupt_or_of_another_size_says_so(tmp_path: Path):
    save_truth(tmp_path / "bear.mat", [np.ones((10, 13))])
    with pytest.raises(RegionError, match="the mask is 13x10, but the image 12x10"):
        list(Bsds(tmp_path).propose(REF, None))
    (tmp_path / "bear.mat").write_bytes((tmp_path / "bear.mat").read_bytes()[:90])
    with pytest.raises(RegionError, match="no ground truth of BSDS"):
        list(Bsds(tmp_path).propose(REF, None))
    savemat(tmp_path / "bear.mat", {"else": 1})
    with pytest.raises(RegionError, match="no ground truth of BSDS"):
        list(Bsds(tmp_path).propose(REF, None))


def test_the_specs_of_folders_follow_the_files(tmp_path: Path):
    save_map(tmp_path / "bear.png", np.ones((10, 12)))
    before = MaskFolder(tmp_path).spec()
    assert MaskFolder(tmp_path).spec() == before
    save_map(tmp_path / "fox.png", np.ones((10, 12)))
    assert MaskFolder(tmp_path).spec() != before


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "3"])
def test_numbers_out_of_range_are_refused(wrong: object):
    for make in (lambda: Grid(wrong), lambda: Grid(3, wrong), lambda: Slic(wrong)):  # type: ignore[arg-type]
        with pytest.raises(PocketiqaError, match="whole number from 1"):
            make()
