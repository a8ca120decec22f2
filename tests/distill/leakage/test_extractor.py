"""The edge layout, on pictures whose edges are known, and what all extractors have in common."""

import numpy as np
import pytest
import torch

from distill.leakage.extractor import FeatureExtractor, chosen, edge_layout, extraction_threads, layout_extractor
from pseudo_labels.errors import PocketiqaError
from tests.helpers.tiny_students import photographs


def test_edges_by_position_and_direction() -> None:
    upright = np.zeros((128, 128, 3), np.uint8)
    upright[:, 40:] = 255  # brightness changes across: direction 0
    edges = edge_layout(upright).reshape(8, 8, 8)
    assert set(np.flatnonzero(edges.sum((0, 1)))) == {0}
    assert set(np.flatnonzero(edges.sum((0, 2)))) == {2}
    turned = edge_layout(np.ascontiguousarray(upright.transpose(1, 0, 2))).reshape(8, 8, 8)
    assert set(np.flatnonzero(turned.sum((0, 1)))) == {4}
    assert not edge_layout(np.full((80, 90, 3), 77, np.uint8)).any()
    dark = (photographs()[0] * 0.5).astype(np.uint8)
    assert np.corrcoef(edge_layout(dark), edge_layout(photographs()[0]))[0, 1] > 0.98  # measured: 0.991


def test_the_first_feature_is_taken_unless_one_is_named() -> None:
    assert chosen(None, ("deep", "shallow"), "mine") == "deep"
    assert chosen("shallow", ("deep", "shallow"), "mine") == "shallow"
    with pytest.raises(PocketiqaError, match="mine has no feature 'colour': choose deep, shallow"):
        chosen("colour", ("deep", "shallow"), "mine")
    with pytest.raises(PocketiqaError, match="mine gives no features to compare images by"):
        chosen(None, (), "mine")


def test_threads_of_torch_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    teacher = FeatureExtractor("some", "teacher", "map", {}, layout_extractor().extract)
    with extraction_threads(teacher, before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    # The layout does not run in torch.
    with extraction_threads(layout_extractor(), before + 1):
        assert torch.get_num_threads() == before
    with pytest.raises(PocketiqaError, match="threads is 0: give 1 or more"), extraction_threads(teacher, 0):
        pass
