import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from distill.data.examples import Source
from distill.training.checkpoint import Checkpoints
from distill.training.history import read_history
from distill.training.loop import NonFiniteError
from distill.training.teacher import fit_teacher
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool
from tests.helpers import fitting
from tests.helpers.fit_runs import checkpoint, files, fitted, interrupted, ratings, run, small_config
from tests.helpers.training import texture_pool

Memory = Callable[[int], None]
APART: dict[str, Any] = {"losses": {"score_kind": "mse", "plcc": 0}, "accumulation_steps": 2, "keep": "last"}
"""Micro-batches of four images, each of which costs what it costs alone."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("data")
    texture_pool(folder)
    return ratings(Pool.open(folder / "pool"))


@pytest.fixture(params=["forward", "backward"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Sets how many images training has memory for; more fail at once, or with half of the gradient added."""
    forward, most = fitting.SmallNet.forward, [1000]

    def fail(_gradient: torch.Tensor | None = None) -> None:
        raise torch.OutOfMemoryError("tried to allocate too much")

    def fail_later(net: fitting.SmallNet, inputs: tuple[torch.Tensor]) -> None:
        def fail_behind_it(_gradient: torch.Tensor) -> None:
            assert net.last.weight.grad is not None
            fail()

        inputs[0].register_hook(fail_behind_it)

    def greedy(net: fitting.SmallNet, images: torch.Tensor) -> Any:
        if not net.training or len(images) <= most[0]:
            return forward(net, images)
        if request.param == "forward":
            fail()
        handle = net.last.register_forward_pre_hook(lambda _layer, inputs: fail_later(net, inputs))
        try:
            return forward(net, images)
        finally:
            handle.remove()

    monkeypatch.setattr(fitting.SmallNet, "forward", greedy)
    return lambda images: most.__setitem__(0, images)


def part_images(out: Path, step: int) -> int | None:
    run_digest = digest_of(read_manifest(out).spec)
    return Checkpoints(out / "checkpoints", run_digest).load(step).progress.part_images


def test_smaller_parts_give_the_same_weights_and_the_run_says_so(source: Source, tmp_path: Path, memory: Memory):
    run(source, tmp_path / "whole", **APART)
    memory(3)
    said: list[str] = []
    fit_teacher(small_config(**APART), [source], tmp_path / "parts", warn=said.append)
    assert said == [
        "out of memory at step 1: going on with 2 images at a time, which gives the same gradient up to rounding"
    ]
    whole, parts = (read_history(tmp_path / name / "history.jsonl") for name in ("whole", "parts"))
    assert parts[0] == {"kind": "memory", "step": 1, "images_seen": 8, "part_images": 2}
    assert part_images(tmp_path / "parts", 6) == 2
    assert part_images(tmp_path / "whole", 6) is None
    losses = [[record["loss"] for record in records if record["kind"] == "train"] for records in (whole, parts)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name, value in fitted(tmp_path / "whole").items():  # worst: 4e-7
        torch.testing.assert_close(fitted(tmp_path / "parts")[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_parts_of_unequal_size_weigh_what_they_hold(source: Source, tmp_path: Path, memory: Memory):
    settings = {**APART, "batch_size": 14, "steps": 2, "optimizer__warmup_steps": 1, "checkpoint_every_steps": 1}
    run(source, tmp_path / "whole", **settings)
    memory(3)  # 7 images are 3, 3 and 1
    run(source, tmp_path / "parts", **settings)
    assert part_images(tmp_path / "parts", 2) == 3
    for name, value in checkpoint(tmp_path / "whole", 1, "optimizer").items():
        torch.testing.assert_close(
            checkpoint(tmp_path / "parts", 1, "optimizer")[name], value, rtol=1e-4, atol=1e-6, msg=name
        )


def test_a_resumed_run_goes_on_in_the_same_parts(source: Source, tmp_path: Path, memory: Memory):
    def less_and_less(done: int, _: int) -> None:
        memory({1: 1000, 2: 3, 3: 1}.get(done, 1))

    fit_teacher(small_config(**APART), [source], tmp_path / "unbroken", progress=less_and_less)
    records = read_history(tmp_path / "unbroken" / "history.jsonl")
    values = [(record["step"], record["part_images"]) for record in records if record["kind"] == "memory"]
    assert values == [(3, 2), (4, 1)]
    memory(3)
    interrupted(source, tmp_path / "run", 1, **APART)
    assert part_images(tmp_path / "run", 1) == 2
    memory(1000)
    run(source, tmp_path / "run", **APART)
    memory(3)
    run(source, tmp_path / "again", **APART)
    assert files(tmp_path / "run") == files(tmp_path / "again")


@pytest.mark.parametrize(
    ("changes", "most", "message"),
    [
        ({"losses__plcc": 0.5}, 2, r"at step 1 with micro-batches of 4 images: set accumulation_steps to 4 \(and"),
        ({"losses__ranking": 0.5}, 2, "with micro-batches of 4 images: set accumulation_steps to 4"),
        ({"options__norm": True}, 2, "with micro-batches of 4 images: set accumulation_steps to 4"),
        ({"options__extra": 0.5}, 2, "with micro-batches of 4 images: set accumulation_steps to 4"),
        ({}, 0, r"out of memory at step 1 with one image at a time: .* mixed_precision bf16"),
    ],
)
def test_where_parts_would_change_the_gradient_or_do_not_help_the_run_ends(
    source: Source, tmp_path: Path, memory: Memory, changes: dict[str, Any], most: int, message: str
):
    memory(most)
    with pytest.raises(PocketiqaError, match=message):
        run(source, tmp_path / "run", **{**APART, **changes})


def test_a_gradient_that_overflows_under_a_scaler_ends_no_run(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """fp16 needs a GPU; here the norm of one step, as its scaler lets it pass, is infinite on the CPU."""
    norms = iter([1.0, math.inf, math.inf, math.inf, 2.0, 4.0])
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(next(norms)))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    monkeypatch.setattr(Accelerator, "scaler", property(lambda _: scaler, lambda *_: None), raising=False)
    run(source, tmp_path / "run", **APART)
    records = [one for one in read_history(tmp_path / "run" / "history.jsonl") if one["kind"] == "train"]
    assert [one.get("gradient_norm") for one in records] == [1.0, None, 3.0]
    assert all(math.isfinite(one["loss"]) for one in records)


def test_without_a_scaler_it_does(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(NonFiniteError, match="gradient is not finite at step 1"):
        run(source, tmp_path / "run", **APART)


def test_validation_takes_less_at_a_time(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = run(source, tmp_path / "whole", **APART)
    predictor, refused = fitting.SmallTeacher.__call__, list[int]()

    def greedy(teacher: fitting.SmallTeacher, batch: list[Any]) -> Any:
        if len(batch) > 1:
            refused.append(len(batch))
            raise MemoryError
        return predictor(teacher, batch)

    monkeypatch.setattr(fitting.SmallTeacher, "__call__", greedy)
    again = run(source, tmp_path / "again", **APART)
    assert max(refused) == 4
    assert again.validation["score"] == pytest.approx(whole.validation["score"], abs=1e-6)


def test_a_slow_step_is_named_with_the_remedy(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    forward, passes, said = fitting.SmallNet.forward, [0], list[str]()

    def slow_at_last(net: fitting.SmallNet, images: torch.Tensor) -> Any:
        passes[0] += net.training
        if net.training and passes[0] == 8:
            time.sleep(3.0)
        return forward(net, images)

    monkeypatch.setattr(fitting.SmallNet, "forward", slow_at_last)
    monkeypatch.setattr("distill.training.history._SLOW", 3.0)  # a busy machine makes the first steps slow as well
    fit_teacher(small_config(steps=8), [source], tmp_path / "run", warn=said.append)
    assert len(said) == 1
    assert said[0].startswith("step 8 took 3")
    assert "'threads: 1'" in said[0]
