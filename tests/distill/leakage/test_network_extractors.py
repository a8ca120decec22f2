"""Features of students, exported students, backbones and teachers, each against the features of the model itself."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from distill.leakage.extractors import open_extractor
from distill.leakage.network_extractors import pooled
from students.base import score_images
from students.storage import save_student
from teachers.registry import build_teacher
from tests.helpers.tiny_students import export_tiny, photographs, tiny_student

OWN = "tests.helpers.own_teacher:build"


def test_a_student_and_its_export_have_equal_features(tmp_path: Path) -> None:
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
