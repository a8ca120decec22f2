import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import efficientnet_b0, efficientnet_b7

from pseudo_labels.errors import PocketiqaError
from students.config import StudentConfig
from students.contract import StudentContract
from students.dp_iqa_b7 import CONFIG, DpIqaB7, load_official_student
from students.export import export_onnx
from students.model import score_images
from students.preprocess import Preprocess
from students.runtime import Scorer
from tests.helpers.tiny_students import photographs


def settle(features: nn.Module) -> nn.Module:
    """Give batch normalisation the statistics of photographs, or nothing is left of them behind the last layer."""
    features.eval()  # stochastic depth would leave out blocks
    for module in features.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 1.0
    with torch.no_grad():
        features(photograph_batch().permute(0, 3, 1, 2) / 255)
        for module in features.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                # Channels that are nearly constant here would turn rounding into noise on other images.
                module.running_var.clamp_(min=float(module.running_var.mean()))
    return features.eval()


def photograph_batch() -> Tensor:
    """Parts of photographs, uint8 [18, 64, 64, 3]."""
    parts = [image[y : y + 64, x : x + 64] for image in photographs() for y in (0, 60, 120) for x in (20, 140)]
    return torch.from_numpy(np.stack(parts))


@pytest.fixture(scope="module")
def features() -> nn.Module:
    torch.manual_seed(0)
    return settle(efficientnet_b7(weights=None).features)


@pytest.fixture(scope="module")
def state(features: nn.Module) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the published one, made without the code under test."""
    torch.manual_seed(0)
    layers = {
        "conv_transpose": nn.ConvTranspose2d(2560, 8, 3, stride=2),
        "fc1": nn.Linear(8 * 64 * 64, 512),
        "fc2": nn.Linear(512, 512),
        "fc3": nn.Linear(512, 1),
    }
    state = {f"base_model.features.{name}": value for name, value in features.state_dict().items()}
    state |= {
        f"{layer}.{name}": value.detach() for layer in layers for name, value in layers[layer].state_dict().items()
    }
    state["fc3.bias"] += 0.5
    return state


def test_parameters_and_multiply_accumulates_are_those_of_the_fact_sheet():
    with torch.device("meta"):
        student = DpIqaB7().eval()
        image = torch.empty(1, 512, 512, 3, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = student(image)
    assert sum(value.numel() for value in student.parameters()) == 81_012_185
    assert counter.get_total_flops() / 2e9 == pytest.approx(27, rel=0.01)
    assert tuple(output.features.shape) == (1, 8, 64, 64)


def test_the_published_checkpoint_computes_what_the_fact_sheet_says(state: dict[str, Tensor], features: nn.Module):
    student = load_official_student({f"module.{name}": value for name, value in state.items()}, max_side=64)
    rgb = photograph_batch()
    with torch.no_grad():
        found = student(rgb)
        maps = functional.conv_transpose2d(
            features(rgb.permute(0, 3, 1, 2) / 255),
            state["conv_transpose.weight"],
            state["conv_transpose.bias"],
            stride=2,
            padding=1,
            output_padding=1,
        )
        maps = maps.relu().repeat_interleave(16, 2).repeat_interleave(16, 3)
        x = maps.reshape(len(maps), -1)
        for name in ("fc1", "fc2", "fc3"):
            x = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
            x = x if name == "fc3" else x.relu()
    assert not student.training
    assert 0 < float(x.min()) < float(x.max()) - 1e-4 < 1
    assert float(maps.std(0).max()) > 1e-3
    torch.testing.assert_close(found.features, maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.score, x[:, 0], rtol=0, atol=2e-6)
    torch.testing.assert_close((found.quality_map * found.weight_map).mean((1, 2)), found.score)


@pytest.mark.parametrize(
    ("missing", "extra", "said"),
    [
        ("fc2.bias", {}, "lacks 'fc2.bias'"),
        ("base_model.features.0.0.weight", {}, "lacks 'base_model.features.0.0.weight'"),
        ("", {"classifier.1.bias": torch.ones(1)}, "has the foreign 'classifier.1.bias'"),
        ("", {"fc3.bias": torch.ones(2)}, "has another shape of 'fc3.bias'"),
    ],
)
def test_all_but_the_very_entries_is_refused(
    state: dict[str, Tensor], missing: str, extra: dict[str, Tensor], said: str
):
    changed = {name: value for name, value in state.items() if name != missing} | extra
    with pytest.raises(PocketiqaError, match=rf"is not the student of DP-IQA's authors: it {re.escape(said)};"):
        load_official_student(changed)


def test_the_counters_of_batches_may_be_missing(state: dict[str, Tensor]):
    few = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(few) < len(state)
    assert load_official_student(few).fc1.weight is not None


def test_files_that_are_no_checkpoint_are_refused_in_one_line(tmp_path: Path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run-by-pickle",))

    torch.save({"fc1.weight": Malicious()}, tmp_path / "evil.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    torch.save({"fc1.weight": torch.ones(99)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-100])
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    for name, said in (
        ("evil.pth", "was refused, it is no checkpoint of tensors alone"),
        ("other.pth", "holds no tensors by name"),
        ("cut.pth", "is cut off or damaged"),
        ("cut.safetensors", "is cut off or damaged"),
        ("nowhere.pth", "the file does not exist"),
    ):
        with pytest.raises(PocketiqaError, match=said) as caught:
            load_official_student(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert not (tmp_path / "run-by-pickle").exists()


def test_input_of_another_type_is_refused():
    with torch.device("meta"):
        student = DpIqaB7()
    with pytest.raises(PocketiqaError, match=r"float32 of shape \(1, 3, 64, 64\), but uint8"):
        student(torch.zeros(1, 3, 64, 64))


def test_the_preset_is_a_configuration_like_others():
    assert StudentConfig.from_dict(CONFIG.as_dict()) == CONFIG
    assert CONFIG.preprocess == Preprocess(max_side=512)


def raw_score(student: DpIqaB7, image: np.ndarray) -> float:
    """Before it is clamped."""
    features = score_images(student, [image])[0].features
    with torch.no_grad():
        hidden = student.fc2(student.fc1(features.flatten()).relu()).relu()
        return float(student.fc3(hidden))


def test_it_is_exported_and_scored_like_any_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the backbone's little sister: B7 itself exports too (parity 1.3e-8), but takes 3 GB."""
    monkeypatch.setattr("students.dp_iqa_b7.efficientnet_b7", efficientnet_b0)
    monkeypatch.setattr("students.dp_iqa_b7._FEATURES", 1280)
    torch.manual_seed(1)
    student = DpIqaB7(replace(CONFIG, preprocess=Preprocess(max_side=64))).eval()
    images = photographs()
    settle(student.base_model["features"])
    with torch.no_grad():
        student.fc3.weight.mul_(0.2)
        student.fc3.bias.add_(0.5 - raw_score(student, images[0]))  # away from the ends, where scores are clamped
    contract = StudentContract(
        name="dp-iqa-b7",
        student=student.config.as_dict(),
        preprocess=student.config.preprocess,
        scale="none",
        parameters=1,
        macs=1,
        code_version="0",
    )
    report = export_onnx(student, contract, tmp_path / "b7.onnx", images=images[:1])
    assert report.parity.worst <= 1e-4
    scorer = Scorer(tmp_path / "b7.onnx")
    expected_scores = score_images(student, images)
    assert len({float(expected.score) for expected in expected_scores}) == len(images)
    for image, expected in zip(images, expected_scores, strict=True):
        assert scorer.score(image).score == pytest.approx(float(expected.score), abs=1e-4)
