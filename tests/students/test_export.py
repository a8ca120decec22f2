import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from students.base import Student
from students.config import StudentConfig
from students.contract import CONTRACT_KEY, StudentContract
from students.export import (
    MAX_HALF_DIFFERENCE,
    ExportReport,
    check_trainable,
    compare,
    draft_contract,
    export_onnx,
    halve_weights,
    parity_cases,
)
from students.model import PocketStudent
from students.preprocess import Preprocess
from students.registry import build_student
from students.runtime import Scorer
from tests.helpers.tiny_students import TINY, export_tiny, photographs, settle, tiny_student

SIZES = [(64, 64), (65, 97), (384, 64), (131, 383), (100, 100), (255, 127), (200, 301)]


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _batch(height: int, width: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("pad_type", ["", "same"])
def test_file_repeats_torch_at_any_size_and_batch(pad_type: str, tmp_path: Path) -> None:
    student = tiny_student(replace(TINY, pad_type=pad_type))
    session = _session(export_tiny(tmp_path / "s.onnx", student).path)
    for size in SIZES:
        for count in (1, 2, 5):
            batch = _batch(*size, count)
            with torch.inference_mode():
                expected = student(torch.from_numpy(batch))
            outputs = session.run(["score", "quality_map", "weight_map"], {"rgb": batch})
            for ours, theirs in zip(expected[:3], outputs, strict=True):
                # Worst seen 2e-5: the images are noise.
                np.testing.assert_allclose(np.asarray(theirs), ours.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "megabytes"), [("pocket-s", 3), ("pocket-m", 10), ("pocket-l", 13)])
def test_new_presets_export_within_the_limit(name: str, megabytes: int, tmp_path: Path) -> None:
    report = export_tiny(tmp_path / "p.onnx", build_student(name))
    assert report.parity.worst <= 1e-4
    assert report.size_bytes < 1e6 * megabytes


def test_report_and_contract_hold_what_was_measured(tmp_path: Path) -> None:
    report = export_tiny(tmp_path / "s.onnx", teachers=[{"name": "reference"}], metrics={"srcc": 0.5})
    contract = report.contract
    assert report.size_bytes == report.path.stat().st_size
    assert contract.parity is not None
    assert contract.parity["limit"] == 1e-4
    assert contract.parity["score"] == report.parity.score > 0
    # Two photographs whole, and three odd sizes of them in batches of one and three.
    assert report.parity.cases == 2 + 3 * 2
    assert report.parity.images == 2 + 3 * 4
    assert (65, 97) in report.parity.sizes
    assert (128, 128) in report.parity.sizes
    assert contract.teachers == ({"name": "reference"},)
    assert contract.student["backbone"] == "test_efficientnet"


def test_contract_is_read_by_onnx_and_by_onnxruntime(tiny_onnx: Path) -> None:
    by_runtime = _session(tiny_onnx).get_modelmeta().custom_metadata_map[CONTRACT_KEY]
    by_onnx = {entry.key: entry.value for entry in onnx.load(tiny_onnx).metadata_props}[CONTRACT_KEY]
    assert by_runtime == by_onnx
    assert StudentContract.from_json(by_runtime).as_dict() == json.loads(by_runtime)


def test_graph_is_valid_and_folded(tmp_path: Path) -> None:
    student = tiny_student(replace(TINY, pad_type="same"))
    model = onnx.load(export_tiny(tmp_path / "s.onnx", student).path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Pad", "Dropout"}
    assert [item.name for item in model.graph.input] == ["rgb"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_export_leaves_the_student_as_it_was(tmp_path: Path) -> None:
    student = tiny_student().train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    export_tiny(tmp_path / "s.onnx", student)
    assert all(module.training for module in student.modules())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_equal_students_give_equal_bytes_without_paths_of_the_machine(tiny_onnx: Path, tmp_path: Path) -> None:
    data = export_tiny(tmp_path / "again.onnx").path.read_bytes()
    assert data == tiny_onnx.read_bytes()
    for private in (str(Path(__file__).parents[2]), str(tmp_path), os.path.expanduser("~") + "/"):
        assert private.encode() not in data
    assert not re.search(rb"\.py\b", data)


def test_too_strict_a_limit_refuses_and_leaves_the_earlier_file(tmp_path: Path) -> None:
    student, out = tiny_student(), tmp_path / "s.onnx"
    contract = draft_contract(student, name="tiny", scale="none")
    out.write_bytes(b"earlier")
    with pytest.raises(PocketiqaError, match=r"refused: ONNX Runtime differs from torch by .*, the limit is 1e-12"):
        export_onnx(student, contract, out, images=photographs(), max_difference=1e-12)
    assert out.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [out]


def test_file_of_another_student_is_refused(tiny_onnx: Path) -> None:
    other = settle(build_student(TINY, seed=2))
    with pytest.raises(PocketiqaError, match="the export was refused: ONNX Runtime differs from torch by 0"):
        compare(other, tiny_onnx.read_bytes(), parity_cases(other, photographs()), 1e-4)


def test_student_that_gives_nan_is_refused(tmp_path: Path) -> None:
    student = tiny_student()
    with torch.no_grad():
        student.heads.weight[0, 0] = float("nan")
    with pytest.raises(PocketiqaError, match="differs from torch by nan"):
        export_tiny(tmp_path / "s.onnx", student)
    assert list(tmp_path.iterdir()) == []


def test_contract_of_another_student_and_no_images_are_refused(tmp_path: Path) -> None:
    student = tiny_student()
    other = draft_contract(build_student(replace(TINY, head_width=4)), name="other", scale="none")
    with pytest.raises(PocketiqaError, match="the contract describes a test_efficientnet that is not this student"):
        export_onnx(student, other, tmp_path / "s.onnx", images=photographs())
    own = replace(draft_contract(student, name="own", scale="none"), preprocess=Preprocess(96))
    with pytest.raises(PocketiqaError, match="not this student"):
        export_onnx(student, own, tmp_path / "s.onnx", images=photographs())
    own = draft_contract(student, name="own", scale="none")
    with pytest.raises(PocketiqaError, match="give at least one photograph"):
        export_onnx(student, own, tmp_path / "s.onnx", images=[])


@pytest.fixture
def calm() -> PocketStudent:
    """The tiny student with small logits: random layers magnify rounding as trained ones do not."""
    student = tiny_student()
    with torch.no_grad():
        student.heads.weight *= 0.05
    return student


def _export_half(student: Student, out: Path) -> ExportReport:
    contract = draft_contract(student, name="tiny", scale="none")
    return export_onnx(student, contract, out, images=photographs()[:2], half=True)


def test_half_stores_weights_in_float16_with_checksum_and_contract(calm: Student, tmp_path: Path) -> None:
    whole, half = export_tiny(tmp_path / "whole.onnx", calm), _export_half(calm, tmp_path / "half.onnx")
    contract = Scorer(half.path).contract
    assert Scorer(half.path).digest == half.digest != whole.digest
    # All but what is measured of the file is the same.
    assert replace(contract, parity=None) == replace(whole.contract, parity=None)
    assert contract.parity is not None
    assert contract.parity["limit"] == MAX_HALF_DIFFERENCE
    model = onnx.load(half.path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {one.name: one.data_type for one in model.graph.initializer}
    stored = [node.input[0] for node in model.graph.node if node.name.endswith(".to_float32")]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(stored) == len(convolutions) == list(kinds.values()).count(onnx.TensorProto.FLOAT16)
    assert all(kinds[node.input[2]] == onnx.TensorProto.FLOAT for node in convolutions)  # biases
    saved = whole.size_bytes - half.size_bytes
    # Two bytes for each number of a kernel; a cast costs about 100.
    assert saved == pytest.approx(2 * _kernel_numbers(whole.path), abs=150 * len(stored))


def _kernel_numbers(path: Path) -> int:
    graph = onnx.load(path).graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    return sum(int(np.prod(one.dims)) for one in graph.initializer if one.name in kernels)


def test_half_computes_in_float32_with_rounded_weights_and_casts_only_at_load(calm: Student, tmp_path: Path) -> None:
    whole, half = export_tiny(tmp_path / "whole.onnx", calm), _export_half(calm, tmp_path / "half.onnx")
    rounded = onnx.load(whole.path)
    kernels = {node.input[1] for node in rounded.graph.node if node.op_type == "Conv"}
    for one in rounded.graph.initializer:
        if one.name in kernels:
            values = onnx.numpy_helper.to_array(one).astype(np.float16).astype(np.float32)
            one.CopyFrom(onnx.numpy_helper.from_array(values, one.name))
    onnx.save(rounded, tmp_path / "rounded.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(half.path, options, providers=["CPUExecutionProvider"])
    batch = _batch(96, 128, 2)
    for ours, theirs in zip(
        session.run(None, {"rgb": batch}), _session(tmp_path / "rounded.onnx").run(None, {"rgb": batch}), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    assert not [node for node in optimised.node if node.name.endswith(".to_float32")]
    assert onnx.TensorProto.FLOAT16 not in {one.data_type for one in optimised.initializer}


def test_weights_that_float16_cannot_reach_stay_as_they_are(calm: Student, tmp_path: Path) -> None:
    graph = onnx.load(export_tiny(tmp_path / "s.onnx", calm).path)
    name = next(node.input[1] for node in graph.graph.node if node.op_type == "Conv")
    big = next(one for one in graph.graph.initializer if one.name == name)
    big.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(big) * np.float32(1e8), name))
    before = graph.SerializeToString()
    untouched = next(one for one in halve_weights(graph).graph.initializer if one.name == name)
    assert untouched == big
    assert graph.SerializeToString() == before


def test_a_student_that_rounding_changes_is_refused_in_half_with_the_next_step(tmp_path: Path) -> None:
    student = tiny_student()
    with torch.no_grad():
        student.heads.weight *= 50
    out = tmp_path / "s.onnx"
    with pytest.raises(PocketiqaError, match=r"the limit is 0\.01 .*export it without --half"):
        export_onnx(
            student,
            draft_contract(student, name="tiny", scale="none"),
            out,
            images=photographs()[:2],
            max_difference=0.1,
            half=True,
        )
    assert not out.exists()


@pytest.mark.parametrize("name", ["test_efficientnet", "dla34"])
def test_a_backbone_that_can_be_trained_and_exported_is_accepted(name: str):
    before = torch.get_rng_state()
    check_trainable(StudentConfig(name))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_backbone_whose_export_fails_is_refused_before_it_is_trained(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(PocketiqaError, match=r"mobilevit_xxs could be trained, but not exported .*: choose another"):
        check_trainable(StudentConfig("mobilevit_xxs"))
    assert capfd.readouterr().err == ""  # ONNX Runtime prints nothing beside the message
    with pytest.raises(PocketiqaError, match="gives no pyramid"):
        check_trainable(StudentConfig("swin_tiny_patch4_window7_224"))


def test_a_backbone_that_fails_in_a_training_step_is_refused(monkeypatch: pytest.MonkeyPatch):
    def fail(model: PocketStudent, rgb: torch.Tensor) -> Any:
        if model.training and rgb.shape[1] % 2:
            raise RuntimeError("sizes of tensors must match")
        return forward(model, rgb)

    forward = PocketStudent.forward
    monkeypatch.setattr(PocketStudent, "forward", fail)
    with pytest.raises(PocketiqaError, match="test_resnet cannot be trained on images of any size"):
        check_trainable(StudentConfig("test_resnet"))


def test_padding_is_exported_for_any_size(tmp_path: Path):
    student = build_student(StudentConfig("hrnet_w18_small", levels=(8, 32), map_stride=32, head_width=8))
    contract = draft_contract(student, name="padded", scale="none")
    photograph = np.random.default_rng(3).integers(0, 256, (201, 131, 3), dtype=np.uint8)
    report = export_onnx(student, contract, tmp_path / "padded.onnx", images=[photograph])
    assert report.parity.worst < 1e-5
    assert (65, 97) in report.parity.sizes


def test_export_and_trial_take_one_thread_and_give_the_others_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two threads on two busy cores made an export of a second take 37."""
    used: set[int] = set()

    def watched(model: PocketStudent, rgb: torch.Tensor) -> Any:
        used.add(torch.get_num_threads())
        return forward(model, rgb)

    forward, before = PocketStudent.forward, torch.get_num_threads()
    student, contract = tiny_student(), draft_contract(tiny_student(), name="tiny", scale="none")
    monkeypatch.setattr(PocketStudent, "forward", watched)
    torch.set_num_threads(before + 1)
    try:
        export_onnx(student, contract, tmp_path / "tiny.onnx", images=photographs()[:1])
        check_trainable(StudentConfig("test_efficientnet", levels=(8, 16)))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert used == {1}
