import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import efficientnet_b7

from distill.training.adapters import FeatureAdapter
from pseudo_labels.errors import PocketiqaError
from students.complexity import measure_complexity
from students.config import dp_iqa_b7_config
from students.dp_iqa_b7 import DpIqaB7, load_official_student
from students.registry import build_student
from tests.helpers.little_b7 import photograph_batch, settle, settled_student, take_b0


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


@pytest.fixture(scope="module")
def weightless() -> DpIqaB7:
    with torch.device("meta"):
        return DpIqaB7(dp_iqa_b7_config()).eval()


def test_parameters_and_multiply_accumulates_are_those_of_the_fact_sheet(weightless: DpIqaB7):
    cost = measure_complexity(weightless)
    assert (cost.parameters, cost.height, cost.width) == (81_012_185, 512, 512)
    assert cost.macs / 1e9 == pytest.approx(27, rel=0.01)
    output = weightless(torch.empty(1, 512, 384, 3, dtype=torch.uint8, device="meta"))
    assert tuple(output.features.shape) == (1, 8, 64, 64)


def test_the_published_checkpoint_computes_what_the_fact_sheet_states(state: dict[str, Tensor], features: nn.Module):
    student = load_official_student({f"module.{name}": value for name, value in state.items()}, max_side=64)
    rgb = photograph_batch()
    with torch.no_grad():
        output = student(rgb)
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
    torch.testing.assert_close(output.features, maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.score, x[:, 0], rtol=0, atol=2e-6)
    torch.testing.assert_close((output.quality_map * output.weight_map).mean((1, 2)), output.score)


@pytest.mark.parametrize(
    ("missing", "extra", "message"),
    [
        ("fc2.bias", {}, "lacks fc2.bias"),
        ("base_model.features.0.0.weight", {}, "lacks base_model.features.0.0.weight"),
        ("", {"classifier.1.bias": torch.ones(1)}, "has the foreign classifier.1.bias"),
        ("", {"fc3.bias": torch.ones(2)}, "has fc3.bias of shape [2] instead of [1]"),
    ],
)
def test_missing_unknown_and_misshapen_entries_are_refused(
    state: dict[str, Tensor], missing: str, extra: dict[str, Tensor], message: str
):
    changed = {name: value for name, value in state.items() if name != missing} | extra
    with pytest.raises(PocketiqaError, match=rf"is not the student of DP-IQA's authors: it {re.escape(message)};"):
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
    for name, message in (
        ("evil.pth", "was refused: it holds more than tensors"),
        ("other.pth", "holds the entries epoch, not tensors by name"),
        ("cut.pth", "is cut off or corrupt"),
        ("cut.safetensors", "is cut off or corrupt"),
        ("nowhere.pth", "the file does not exist"),
    ):
        with pytest.raises(PocketiqaError, match=message) as caught:
            load_official_student(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert not (tmp_path / "run-by-pickle").exists()


def test_input_of_another_type_is_refused(weightless: DpIqaB7):
    with pytest.raises(PocketiqaError, match=r"float32 of shape \(1, 3, 64, 64\), but uint8"):
        weightless(torch.zeros(1, 3, 64, 64))


def test_equal_seeds_give_equal_students_that_say_about_a_half(monkeypatch: pytest.MonkeyPatch):
    take_b0(monkeypatch)
    first, again, other = (build_student("dp-iqa-b7", max_side=64, seed=seed).eval() for seed in (1, 1, 2))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(other.get_parameter("fc1.weight"), first.get_parameter("fc1.weight"))
    with torch.no_grad():
        assert first(photograph_batch()).score.numpy() == pytest.approx(0.5, abs=0.1)


def test_only_in_training_a_score_may_leave_its_range_and_has_a_gradient(monkeypatch: pytest.MonkeyPatch):
    take_b0(monkeypatch)
    student = settled_student()
    torch.nn.init.constant_(student.fc3.bias, 3.0)
    batch = photograph_batch()[:4]
    with torch.no_grad():
        assert student(batch).score.tolist() == [1.0] * 4
    score = student.train()(batch).score
    score.sum().backward()
    assert float(score.detach().min()) > 1.5
    assert float(student.get_parameter("base_model.features.0.0.weight").grad.abs().max()) > 0  # pyright: ignore


def test_its_features_meet_the_map_of_dp_iqa_cell_by_cell(monkeypatch: pytest.MonkeyPatch):
    """No resampling lies between them and a teacher's map [8, 64, 64] in distillation."""
    take_b0(monkeypatch)
    student = settled_student()
    adapter = FeatureAdapter(student.config.head_width, (8, 64, 64))
    with torch.no_grad():
        adapter.project.weight.copy_(torch.eye(8)[:, :, None, None])
        torch.nn.init.zeros_(adapter.project.bias)  # pyright: ignore
        features = student(photograph_batch()[:2]).features
        torch.testing.assert_close(adapter(features, torch.ones(2, 2)), features, rtol=0, atol=1e-4)
    assert float(features.std()) > 1e-3
