"""Masks: COCO's code against pycocotools and numpy, run lengths that lie, boxes at the edge, exact pooling."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import Status
from pseudo_labels.regions.masks import (
    Cells,
    RegionError,
    box_of,
    cell_overlap,
    check_counts,
    covered,
    decode,
    decode_inner,
    encode,
    from_box,
    from_coco,
    grown,
    inner_of,
    overlap,
    runs_of,
    text_of,
)

ROOT = Path(__file__).parents[3]


def random_mask(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2)
    return rng.random((height, width)) < rng.random()


@pytest.mark.parametrize("seed", range(20))
def test_masks_come_back_and_the_runs_are_those_of_the_pixels(seed: int):
    mask = random_mask(seed)
    counts = encode(mask)
    assert np.array_equal(decode(counts, *mask.shape), mask)
    assert check_counts(counts, *mask.shape) == mask.sum()
    column_wise = mask.T.ravel()
    edges = np.flatnonzero(np.diff(column_wise.astype(int))) + 1
    runs = np.diff(np.array([0, *edges, len(column_wise)]))
    assert runs_of(counts).tolist() == ([0] * bool(column_wise[0]) + runs.tolist())


def test_a_mask_of_ones_of_any_type_in_any_memory_order_is_the_same():
    mask = random_mask(3)
    texts = {
        encode(mask),
        encode(mask.astype(np.int64) * 7),
        encode(np.asfortranarray(mask)),
        encode(mask[:, :].copy()),
    }
    assert len(texts) == 1
    with pytest.raises(PocketiqaError, match="array \\[H, W\\]"):
        encode(np.zeros((2, 2, 3)))


LIES = {
    "too few pixels": encode(np.ones((3, 4), bool)),
    "too many pixels": encode(np.ones((40, 50), bool)),
    "another size with as many letters": encode(np.ones((4, 6), bool)),
    "foreign letters": "é~",
    "ends within a number": "o",
    "nothing": "",
    "a huge run": "o" * 11 + "0",
    "negative": encode(np.ones((2, 2), bool)) + "O",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_run_lengths_that_lie_are_refused_before_they_are_decoded(lie: str):
    for read in (lambda: decode(lie, 4, 5), lambda: from_coco({"size": [4, 5], "counts": lie}, 4, 5)):
        with pytest.raises(RegionError) as caught:
            read()
        assert caught.value.status == Status.CORRUPT
        assert str(caught.value) == caught.value.reason


def test_all_forms_of_coco_give_one_mask():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    counts = encode(mask)
    uncompressed = [int(run) for run in runs_of(counts)]
    polygon = [2, 1, 7, 1, 7, 4, 2, 4]
    forms = [counts, counts.encode(), {"size": [6, 8], "counts": counts}, {"size": [6.0, 8], "counts": uncompressed}]
    assert {from_coco(form, 6, 8) for form in [*forms, polygon, [polygon]]} == {counts}
    assert from_box([2, 1, 5, 3], 6, 8) == counts


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"size": [8, 6], "counts": "0"}, "the mask is 6x8, but the image 8x6"),
        ({"size": "x", "counts": "0"}, "of size 'x'"),
        ({"size": [6, 8], "counts": [40, 9]}, "cover 49 pixels"),
        ({"size": [6, 8], "counts": [-1, 49]}, "whole numbers"),
        ({"size": [6, 8], "counts": [1.5, 46.5]}, "whole numbers"),
        ([1, 2, 3, 4], "three points"),
        ([[1, 2, float("nan"), 4, 5, 6]], "finite"),
        ([1, 2, 1e300, 4, 5, 6], "finite"),
        ([1, 2, 40, 4, 5, 6], "up to 32"),
        (7, "int is no mask"),
        (None, "NoneType is no mask"),
        ([], "list is no mask"),
    ],
)
def test_what_is_no_mask_of_the_image_says_why(value: object, words: str):
    with pytest.raises(RegionError, match=words):
        from_coco(value, 6, 8)


def test_boxes_are_cut_at_the_image_and_refused_outside():
    assert box_of(from_box([-3, -2, 5, 4], 6, 8), 6, 8) == (0, 0, 2, 2)
    assert box_of(from_box([6.5, 4.2, 100, 100], 6, 8), 6, 8) == (6, 4, 2, 2)
    assert box_of(from_box([3.9, 2.9, 0.05, 0.05], 6, 8), 6, 8) == (3, 2, 1, 1)
    with pytest.raises(RegionError) as outside:
        from_box([8, 0, 2, 2], 6, 8)
    assert outside.value.status == Status.EMPTY
    for wrong in ([1, 2, 3], [1, 2, 0, 4], [1, 2, -3, 4], [float("nan"), 2, 3, 4], ["a", 2, 3, 4], [1, 2, 3, 4, 5]):
        with pytest.raises(RegionError, match="is no box"):
            from_box(wrong, 6, 8)


def test_overlap_is_intersection_over_union():
    one, other = random_mask(5), random_mask(5)[::-1].copy()
    expected = (one & other).sum() / (one | other).sum()
    given = overlap(encode(one), [encode(other), encode(one)], *one.shape)
    assert given == pytest.approx([expected, 1.0])
    assert overlap(encode(one), [], *one.shape).shape == (0,)
    assert covered(encode(one), encode(other), *one.shape) == pytest.approx((one & other).sum() / one.sum())


def test_boxes_grow_around_their_middle_within_the_image():
    assert grown((50, 40, 10, 20), 100, 200, least=64) == (23, 18, 64, 64)
    assert grown((0, 0, 1, 1), 100, 200, least=64) == (0, 0, 64, 64)
    assert grown((199, 99, 1, 1), 100, 200, least=64) == (136, 36, 64, 64)
    assert grown((5, 5, 80, 10), 50, 70, least=64) == (0, 0, 70, 50)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cells", [(1, 1), (7, 5), (13, 90)])
def test_cells_hold_exactly_the_area_of_the_mask_in_them(seed: int, cells: tuple[int, int]):
    mask = random_mask(seed)
    given = cell_overlap(mask, *cells)
    # Each pixel as ``cells`` parts, which no edge of a cell cuts.
    fine = np.kron(mask, np.ones(cells))
    expected = fine.reshape(cells[0], mask.shape[0], cells[1], mask.shape[1]).mean((1, 3))
    assert given == pytest.approx(expected, abs=1e-12)
    assert given.sum() * mask.size / (cells[0] * cells[1]) == pytest.approx(mask.sum())


def test_cells_of_a_stride_may_reach_beyond_the_image():
    mask = np.ones((20, 40), bool)
    mask[:, :8] = False
    # Half the size, 10 x 20, in cells of 8: the last row of cells has 2 of 8 pixels, the last column 4 of 8.
    given = cell_overlap(mask, 2, 3, resized=(10, 20), stride=8)
    assert given == pytest.approx(np.array([[0.5, 1, 0.5], [0.125, 0.25, 0.125]]))
    # With a stride that divides the image, both forms are one.
    assert np.array_equal(cell_overlap(mask, 5, 10, resized=(20, 40), stride=4), cell_overlap(mask, 5, 10))


def test_large_masks_are_pooled_in_blocks():
    rng = np.random.default_rng(0)
    mask = rng.random((1030, 70)) < 0.3
    assert cell_overlap(mask, 103, 7) == pytest.approx(mask.reshape(103, 10, 7, 10).mean((1, 3)))
    assert not cell_overlap(np.zeros((9, 9), bool), 3, 3).any()


def test_pooling_refuses_what_is_no_mask():
    for wrong in (np.ones((3, 3)), np.ones((2, 3, 3), bool), np.ones((0, 3), bool), [[True]]):
        with pytest.raises(PocketiqaError, match="a bool array"):
            cell_overlap(wrong, 2, 2)  # type: ignore[arg-type]
    with pytest.raises(PocketiqaError, match="at least 1"):
        cell_overlap(np.ones((3, 3), bool), 0, 2)
    with pytest.raises(PocketiqaError, match="stride 0"):
        cell_overlap(np.ones((3, 3), bool), 2, 2, resized=(3, 3))


def test_pooling_needs_numpy_alone():
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pycocotools", "torch", "pyarrow", "scipy", "ijson"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from pseudo_labels.regions.masks import cell_overlap
assert cell_overlap(np.eye(4, dtype=bool), 2, 2).tolist() == [[0.5, 0.0], [0.0, 0.5]]
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["any", "box", "column", "full", "empty"])
def test_run_lengths_are_written_as_pycocotools_writes_them(kind: str):
    from pycocotools import mask as coco

    rng = np.random.default_rng(len(kind))
    for _ in range(60):
        height, width = rng.integers(1, 200, 2).tolist()
        mask = np.zeros((height, width), bool)
        if kind == "any":
            mask = rng.random((height, width)) < rng.random() ** 4
        elif kind == "box":
            top, left = int(rng.integers(height)), int(rng.integers(width))
            mask[top : top + int(rng.integers(1, 200)), left : left + int(rng.integers(1, 200))] = True
        elif kind == "column":
            mask[:, rng.integers(width)] = True
        mask |= kind == "full"
        theirs: Any = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        counts = encode(mask)
        assert counts == theirs["counts"].decode()
        box, inner = decode_inner(counts, height, width)
        assert list(box) == coco.toBbox(theirs).astype(int).tolist()
        assert box_of(counts, height, width) == box
        left, top, wide, tall = box
        assert np.array_equal(inner, mask[top : top + tall, left : left + wide])
        again = inner_of(mask)
        assert again[0] == box
        assert np.array_equal(again[1], inner)
        if kind in ("box", "column", "full"):
            assert from_box(box, height, width) == counts


def test_numbers_of_any_size_come_back():
    bounds = [0, 1, 15, 16, 17, 511, 512, 513, 2**14, 2**19 - 1, 2**19, 2**29]
    runs = np.array([one for pair in zip(bounds, bounds[::-1], strict=True) for one in pair])
    assert runs_of(text_of(runs)).tolist() == runs.tolist()


def test_fractions_are_of_the_part_of_a_cell_in_the_image():
    cells = Cells((20, 40), (2, 3), resized=(10, 20), stride=8)
    assert cells.of_image == pytest.approx(np.array([[1, 1, 0.5], [0.25, 0.25, 0.125]]))
    mask = np.ones((20, 40), bool)
    assert cells.fractions(*inner_of(mask)) == pytest.approx(np.ones((2, 3)))
    mask[:, :8] = False
    assert cells.fractions(*inner_of(mask)) == pytest.approx(np.array([[0.5, 1, 1], [0.5, 1, 1]]))
