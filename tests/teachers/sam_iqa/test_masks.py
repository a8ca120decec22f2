"""Masks of a tiny random SAM: against segment-anything's own generator and predictor, prompts, options, files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.utils.amg import build_point_grid

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.make import Limits, build_regions
from pseudo_labels.regions.masks import decode
from pseudo_labels.regions.sources import Proposal
from teachers.sam_iqa import masks as sam_masks
from teachers.sam_iqa.masks import SamSource, build_sam, load_sam
from teachers.sam_iqa.variants import VARIANTS
from tests.helpers.pools import clean_pool

LIVELY: dict[str, Any] = {"variant": "tiny", "device": "cpu", "points_per_side": 6, "min_iou": -99.0}


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A checkpoint whose masks depend on the prompt, which those of freshly drawn weights hardly do."""
    tensors = torch.load(checkpoint, weights_only=True)
    for name, value in tensors.items():
        if name.startswith("mask_decoder") and value.ndim >= 2:
            value *= 3
        if "point_embeddings" in name or "mask_tokens" in name:
            value *= 4
    path = tmp_path_factory.mktemp("sam") / "lively.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.kron(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))


REF = ImageRef("id", "a.png", height=90, width=120)


def masks(proposals: list[Proposal]) -> list[np.ndarray]:
    assert {proposal.status for proposal in proposals} <= {Status.OK}
    return [decode(proposal.counts, 90, 120) for proposal in proposals]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_automatic_masks_are_those_of_segment_anything(lively: Path, rgb: np.ndarray):
    """All but those near a threshold: the coarse filter has other boxes and stabilities in the second digit."""
    options: dict[str, Any] = LIVELY | {"min_stability": 0.5, "stability_offset": 0.1, "max_box_overlap": 0.95}
    low, full = (masks(SamSource(lively, filter=how, **options).propose(REF, rgb)) for how in ("low", "full"))
    assert low
    assert full
    assert iou(low[0], full[0]) > 0.99
    assert min(max(iou(mask, other) for other in full) for mask in low) > 0.9


def test_masks_come_by_falling_trust_and_the_filters_bound_them(lively: Path, rgb: np.ndarray):
    options: dict[str, Any] = LIVELY | {
        "min_stability": 0.0,
        "stability_offset": 0.01,
        "max_box_overlap": 1.0,
        "points_at_once": 5,
    }
    everything = SamSource(lively, **options).propose(REF, rgb)
    # Without filters: three masks for each of 36 points, but those without a pixel.
    assert 80 <= len(everything) <= 108
    stable = SamSource(lively, **{**options, "stability_offset": 1.0, "min_stability": 0.4}).propose(REF, rgb)
    assert 0 < len(stable) < len(everything)
    assert SamSource(lively, **{**options, "min_iou": 99.0}).propose(REF, rgb) == []
    assert 0 < len(SamSource(lively, **{**options, "max_box_overlap": 0.5}).propose(REF, rgb)) < len(everything)
    # By the predictor of segment-anything, one point at a time.
    sam = load_sam("tiny", lively)
    predictor = SamPredictor(sam)
    predictor.set_image(rgb)
    best, trust = np.zeros((90, 120), bool), -99.0
    for point in build_point_grid(6) * [120, 90]:
        own, ious, _ = predictor.predict(point[None], np.ones(1))
        for mask, value in zip(own, ious, strict=True):
            if value > trust and mask.any():
                best, trust = np.asarray(mask), float(value)
    assert iou(decode(everything[0].counts, 90, 120), best) > 0.99


def test_points_in_masks_of_earlier_points_may_be_left_out(
    lively: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    options: dict[str, Any] = LIVELY | {"min_stability": 0.0, "max_box_overlap": 1.0, "points_at_once": 6}
    every = SamSource(lively, **options).propose(REF, rgb)
    # No mask of these random weights is small: none answers for other points.
    source = SamSource(lively, **options, skip_covered=True)
    assert source.propose(REF, rgb) == every
    monkeypatch.setattr(sam_masks, "_COVERING", 1.0)
    some = source.propose(REF, rgb)
    assert 3 <= len(some) < len(every) / 2
    # What the first batch gave is there whole; it is the first row of points.
    first = SamSource(lively, **{**options, "points_per_side": 6}).propose(REF, rgb)
    assert {one.counts for one in some} <= {one.counts for one in first}
    assert source.spec() != SamSource(lively, **options).spec()


def test_random_points_follow_seed_and_id(lively: Path, rgb: np.ndarray):
    options: dict[str, Any] = LIVELY | {"prompts": "points", "points": 9, "min_stability": 0.0, "max_box_overlap": 1.0}
    first, again = (SamSource(lively, **options).propose(REF, rgb) for _ in range(2))
    assert first == again
    assert 0 < len(first) <= 9
    assert {one.level for one in first} == {"part"}
    other = SamSource(lively, **{**options, "seed": 1})
    assert other.propose(REF, rgb) != first
    assert SamSource(lively, **options).propose(ImageRef("jd", "a.png", height=90, width=120), rgb) != first
    assert other.spec() != SamSource(lively, **options).spec()


def test_objects_come_from_boxes_and_bad_boxes_are_refusals(tmp_path: Path, lively: Path):
    pool = clean_pool(tmp_path, images=1, max_side=96)
    boxes = [[10, 10, 40, 40], [500, 0, 3, 3], [30, 20, 50, 60]]
    (tmp_path / "boxes.json").write_text(json.dumps({"0-astronaut": boxes}))
    options: dict[str, Any] = LIVELY | {"prompts": "boxes", "boxes": tmp_path / "boxes.json"}
    source = SamSource(lively, **options)
    ref = pool[0]
    with source.opened(pool.ok(), tmp_path):
        first, outside, third = source.propose(ref, pool.load(ref))
    predictor = SamPredictor(load_sam("tiny", lively))
    predictor.set_image(pool.load(ref))
    for proposal, box in ((first, boxes[0]), (third, boxes[2])):
        corners = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
        expected = np.asarray(predictor.predict(box=corners, multimask_output=False)[0][0])
        assert iou(decode(proposal.counts, ref.height, ref.width), expected) > 0.999
        assert proposal.level == "object"
    assert outside.status == Status.EMPTY
    strict = SamSource(lively, **{**options, "min_iou": 99.0})
    with strict.opened(pool.ok(), tmp_path):
        assert "at least 99 is needed" in strict.propose(ref, pool.load(ref))[0].reason


def test_a_manifest_by_sam_resumes_and_names_the_checkpoint(tmp_path: Path, lively: Path, checkpoint: Path):
    pool = clean_pool(tmp_path, images=2, max_side=96)
    options: dict[str, Any] = LIVELY | {"min_stability": 0.0, "max_box_overlap": 1.0, "points_per_side": 2}

    def run(weights: Path, out: str) -> Any:
        return build_regions(
            Pool.open(pool.folder), SamSource(weights, **options), tmp_path / out, limits=Limits(0, 1), shards=2
        )

    first = run(lively, "first")
    assert first.manifest.content["images"] == 2
    first.discard(1)
    assert run(lively, "first").digest == run(lively, "second").digest
    with pytest.raises(PocketiqaError, match=r"options\.checkpoint"):
        run(checkpoint, "first")


def test_bf16_gives_nearly_the_same_first_mask(lively: Path, rgb: np.ndarray):
    options: dict[str, Any] = LIVELY | {"min_stability": 0.0, "max_box_overlap": 1.0, "points_per_side": 2}
    single = masks(SamSource(lively, **options).propose(REF, rgb))
    half = masks(SamSource(lively, precision="bf16", **options).propose(REF, rgb))
    assert max(iou(single[0], mask) for mask in half) > 0.7
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_whole_model_has_the_official_size(name: str):
    with torch.device("meta"):
        sam = build_sam(VARIANTS[name])
    # Sizes of the official builders (segment_anything 1.0), as ``sam_model_registry`` makes them.
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        official = sam_model_registry[name]()
    shapes = {key: value.shape for key, value in sam.state_dict().items()}
    assert shapes == {key: value.shape for key, value in official.state_dict().items()}


def test_a_checkpoint_of_another_model_or_a_corrupt_one_is_refused(tmp_path: Path, lively: Path):
    with pytest.raises(PocketiqaError, match="no SAM weights at"):
        SamSource(tmp_path / "none.pth")
    with pytest.raises(PocketiqaError, match="does not fit SAM vit_b"):
        SamSource(lively, variant="vit_b")
    torch.save({"image_encoder.a": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(PocketiqaError, match="does not fit SAM tiny"):
        SamSource(tmp_path / "foreign.pth", variant="tiny")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(PocketiqaError, match="does not hold SAM's tensors"):
        SamSource(tmp_path / "list.pth", variant="tiny")
    (tmp_path / "cut.pth").write_bytes(lively.read_bytes()[:5000])
    with pytest.raises(PocketiqaError, match=r"cut\.pth"):
        SamSource(tmp_path / "cut.pth", variant="tiny")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompts": "text"}, "choose automatic, boxes, points"),
        ({"filter": "none"}, "choose low, full"),
        ({"prompts": "boxes"}, "belong together"),
        ({"boxes": "a.json"}, "belong together"),
        ({"filter": "full", "prompts": "points"}, "for automatic masks"),
        ({"points_per_side": 0}, "from 1 to 1000"),
        ({"precision": "int4"}, "choose fp32, bf16"),
        ({"variant": "vit_z"}, "unknown SAM variant"),
    ],
)
def test_options_out_of_range_are_refused(lively: Path, wrong: dict[str, Any], words: str):
    with pytest.raises(PocketiqaError, match=words):
        SamSource(lively, **{**LIVELY, **wrong})
