from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from distill.training.checkpoint import Checkpoints, RunState, load_optimizer, load_tensors, optimizer_tensors
from pseudo_labels.errors import IntegrityError, PocketiqaError


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"student": {"w": torch.full((3, 2), float(step))}, "optimizer": {"w.step": torch.tensor(float(step))}}


def saved(folder: Path, *steps: int, best: int | None = None) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints", "run-a")
    for step in steps:
        known = best if best is not None and best <= step else None
        checkpoints.save(RunState(step, step * 4, step * 100, known, 0.5), tensors(step))
    return checkpoints


def test_the_newest_comes_back_as_it_was(tmp_path: Path):
    latest, notes = saved(tmp_path, 10, 20).latest()
    assert notes == []
    assert latest is not None
    assert latest.progress == RunState(20, 80, 2000, None, 0.5)
    assert torch.equal(latest.tensors["student"]["w"], torch.full((3, 2), 20.0))


def test_the_last_two_and_the_best_are_kept(tmp_path: Path):
    assert saved(tmp_path, 10, 20, 30, 40, best=10).steps() == [10, 30, 40]


def test_a_best_that_only_the_one_before_knows_is_kept_too(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20, best=10)
    checkpoints.save(RunState(30, 120, 3000, 30, 0.9), tensors(30))
    assert checkpoints.steps() == [10, 20, 30]


def test_equal_states_give_equal_bytes(tmp_path: Path):
    for name in "ab":
        saved(tmp_path / name, 10)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


@pytest.mark.parametrize("distortion", ["cut", "missing", "no progress", "cut progress"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, distortion: str):
    checkpoints = saved(tmp_path, 10, 20)
    student, progress = (checkpoints.path(20) / name for name in ("student.safetensors", "progress.json"))
    if distortion == "cut":
        student.write_bytes(student.read_bytes()[:-5])
    elif distortion == "missing":
        student.unlink()
    elif distortion == "no progress":
        progress.unlink()
    else:
        progress.write_bytes(progress.read_bytes()[:40])
    latest, notes = checkpoints.latest()
    assert latest is not None
    assert latest.progress.step == 10
    assert len(notes) == 1
    assert "step-00000020 is incomplete" in notes[0]
    with pytest.raises(PocketiqaError, match="step-00000020 is incomplete"):
        checkpoints.load(20)


def test_every_flipped_bit_of_a_tensor_file_is_refused(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    path = checkpoints.path(20) / "student.safetensors"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(IntegrityError, match=r"student\.safetensors was altered \(its SHA-256"):
            checkpoints.latest()


def test_edited_progress_is_refused(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    path = checkpoints.path(20) / "progress.json"
    path.write_bytes(path.read_bytes().replace(b'"best_score": 0.5', b'"best_score": 0.9'))
    with pytest.raises(IntegrityError, match=r"progress\.json was altered \(its own digest"):
        checkpoints.latest()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    saved(tmp_path, 10)
    with pytest.raises(IntegrityError, match="other settings"):
        Checkpoints(tmp_path / "checkpoints", "run-b").latest()


def test_leftovers_of_a_killed_writer_are_removed_and_never_read(tmp_path: Path):
    checkpoints = saved(tmp_path, 10)
    leftover = checkpoints.folder / ".step-00000020.123.staged"
    leftover.mkdir()
    (leftover / "student.safetensors").write_bytes(b"half")
    assert checkpoints.steps() == [10]
    checkpoints.clean(10)
    assert not leftover.exists()
    latest, _ = checkpoints.latest()
    assert latest is not None
    assert latest.progress.step == 10


def test_what_lies_beyond_the_checkpoint_in_use_is_removed(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    checkpoints.clean(10)
    assert checkpoints.steps() == [10]


def test_nothing_saved_yet_is_no_error(tmp_path: Path):
    assert Checkpoints(tmp_path / "none", "r").latest() == (None, [])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def test_optimizer_and_channels_last_model_resume_to_the_last_bit():
    unbroken = net()
    train(unbroken, torch.optim.AdamW(unbroken.parameters(), lr=0.1), range(6))

    first = net()
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.1)
    train(first, optimizer, range(3))
    contiguous = {name: value.contiguous() for name, value in first.state_dict().items()}
    weights = safetensors.torch.load(safetensors.torch.save(contiguous))
    moments = {
        name: value.contiguous() for name, value in optimizer_tensors(optimizer, first.named_parameters()).items()
    }

    second = net()
    load_tensors(second, weights)
    resumed = torch.optim.AdamW(second.parameters(), lr=0.1)
    load_optimizer(resumed, second.named_parameters(), moments)
    layouts = [
        (state["exp_avg"].stride(), parameter.stride())
        for parameter, state in ((parameter, resumed.state[parameter]) for parameter in second.parameters())
    ]
    assert all(moment == parameter for moment, parameter in layouts)
    train(second, resumed, range(3, 6))
    for name, value in unbroken.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_moments_go_to_the_device_of_their_parameter_and_the_step_count_stays():
    # A device that is not the CPU and is there on every machine.
    named = {name: nn.Parameter(torch.zeros(shape, device="meta")) for name, shape in (("one", ()), ("w", (2, 3)))}
    optimizer = torch.optim.AdamW(named.values())
    moments = {f"{name}.exp_avg": torch.ones(parameter.shape) for name, parameter in named.items()}
    counts = {f"{name}.step": torch.tensor(3.0) for name in named}
    load_optimizer(optimizer, named.items(), moments | counts)
    for parameter in named.values():
        state = optimizer.state[parameter]
        assert (state["exp_avg"].device.type, state["exp_avg"].shape) == ("meta", parameter.shape)
        assert (state["step"].device.type, state["step"].item()) == ("cpu", 3.0)


def test_foreign_tensors_are_refused_by_name():
    model = net()
    with pytest.raises(IntegrityError, match="does not fit the model"):
        load_tensors(model, {"other": torch.zeros(1)})
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(IntegrityError, match="'other'"):
        load_optimizer(optimizer, model.named_parameters(), {"other.exp_avg": torch.zeros(1)})
