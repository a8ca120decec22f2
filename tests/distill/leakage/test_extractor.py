"""Features of every kind of model, each against what the model itself gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from distill.leakage.extractor import chosen, edge_layout
from distill.leakage.extractors import open_extractor
from distill.leakage.network_extractors import pooled
from pseudo_labels.errors import PocketiqaError
from students.base import score_images
from students.storage import save_student
from teachers.registry import build_teacher
from tests.helpers.tiny_students import export_tiny, photographs, tiny_student

OWN = "tests.helpers.own_teacher:build"


def test_a_student_and_its_export_describe_alike(tmp_path: Path) -> None:
    student = tiny_student()
    save_student(student, tmp_path / "student", about={"name": "tiny"})
    export_tiny(tmp_path / "tiny.onnx", student)
    for feature in ("backbone", "map"):
        folder = open_extractor(tmp_path, feature=feature)
        exported = open_extractor(tmp_path / "tiny.onnx", feature=feature)
        assert (folder.kind, exported.kind, folder.feature) == ("student", "onnx", feature)
        for image in photographs():
            np.testing.assert_allclose(exported.extract(image, None), folder.extract(image, None), atol=1e-4)
    fused = score_images(student, photographs()[:1])[0].features.mean((1, 2))
    np.testing.assert_allclose(folder.extract(photographs()[0], None), fused, atol=1e-6)
    deepest = open_extractor(tmp_path / "tiny.onnx")
    assert deepest.feature == "backbone"
    assert deepest.identity["digest"] == exported.identity["digest"]


def test_a_backbone_with_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model: Any = timm.create_model("test_efficientnet", num_classes=0).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    options = {"name": "test_efficientnet", "weights": str(tmp_path / "weights.safetensors"), "mean": 0.5, "std": 0.5}
    rgb = photographs()[0][:96, :128]
    with torch.inference_mode():
        batch = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        expected = model.forward_features(batch).mean((2, 3))[0].numpy()
    extractor = open_extractor("backbone", options=options)
    np.testing.assert_allclose(extractor.extract(rgb, None), expected, atol=1e-4)
    assert extractor.feature == "final"
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes())
    moved = open_extractor("backbone", options={**options, "weights": str(tmp_path / "copy.safetensors")})
    assert moved.identity == extractor.identity
    shallow = open_extractor("backbone", options=options, feature="blocks.1")
    assert len(shallow.extract(rgb, None)) < len(expected)


def test_a_teacher_by_its_feature() -> None:
    extractor, teacher, rgb = open_extractor(OWN), build_teacher(OWN), photographs()[0]
    cells = teacher([teacher.preprocess(rgb, None)]).features["cells"]
    np.testing.assert_array_equal(extractor.extract(rgb, None), cells.flatten().numpy())
    assert (extractor.feature, extractor.identity["stamp"]) == ("cells", teacher.stamp.digest)


def test_maps_and_tokens_become_vectors() -> None:
    maps = torch.rand(1, 5, 3, 4)
    np.testing.assert_allclose(pooled(maps), maps[0].mean((1, 2)))
    np.testing.assert_allclose(pooled(maps.flatten(2)), maps[0].flatten(1).mean(0))
    assert pooled(torch.rand(1, 7)).shape == (7,)


def test_edges_by_place_and_direction() -> None:
    upright = np.zeros((128, 128, 3), np.uint8)
    upright[:, 40:] = 255  # brightness changes across: direction 0
    found = edge_layout(upright).reshape(8, 8, 8)
    assert set(np.flatnonzero(found.sum((0, 1)))) == {0}
    assert set(np.flatnonzero(found.sum((0, 2)))) == {2}
    turned = edge_layout(np.ascontiguousarray(upright.transpose(1, 0, 2))).reshape(8, 8, 8)
    assert set(np.flatnonzero(turned.sum((0, 1)))) == {4}
    assert not edge_layout(np.full((80, 90, 3), 77, np.uint8)).any()
    dark = (photographs()[0] * 0.5).astype(np.uint8)
    assert np.corrcoef(edge_layout(dark), edge_layout(photographs()[0]))[0, 1] > 0.98  # measured: 0.991


def test_what_cannot_describe_says_why(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="mine gives no features to compare images by"):
        chosen(None, (), "mine")
    with pytest.raises(PocketiqaError, match="layout has no feature 'colour': choose edges"):
        open_extractor(feature="colour")
    with pytest.raises(PocketiqaError, match="option 'views': layout takes none"):
        open_extractor(options={"views": 3})
    with pytest.raises(PocketiqaError, match="'nothing' is no model"):
        open_extractor("nothing")
    with pytest.raises(PocketiqaError, match=r"lacks --option name=TIMM_MODEL: its options are name, weights"):
        open_extractor("backbone")
    with pytest.raises(PocketiqaError, match="has no option 'wieghts'"):
        open_extractor("backbone", options={"name": "test_efficientnet", "wieghts": "x"})
    with pytest.raises(PocketiqaError, match="weights=None and pretrained=False"):
        open_extractor("backbone", options={"name": "test_efficientnet"})
    with pytest.raises(PocketiqaError, match="no backbone weights at"):
        open_extractor("backbone", options={"name": "test_efficientnet", "weights": str(tmp_path / "gone")})
    with pytest.raises(PocketiqaError, match="mean or std is 'grey'"):
        open_extractor("backbone", options={"name": "test_efficientnet", "weights": "x", "mean": "grey"})
