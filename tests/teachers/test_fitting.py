"""What holds of every teacher that can be fitted, on the tiny ones; what is one teacher's own stands in its folder."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pseudo_labels.errors import IntegrityError, PocketiqaError
from teachers.base import stack
from teachers.dp_iqa import DpIqaTeacher, build_dp_iqa
from teachers.fitting import (
    FittableBase,
    FittableTeacher,
    Trained,
    check_fits,
    check_fittable,
    evaluate_frozen,
    read_trained,
    save_trained,
)
from teachers.reference import build_reference
from teachers.sam_iqa import SamIqaTeacher, build_sam_iqa
from tests.helpers import own_teacher

SAID = {"scale": "MOS of a test / 100", "licence": "none"}
Builder = Callable[..., SamIqaTeacher | DpIqaTeacher]


def sam(**options: Any) -> SamIqaTeacher:
    return build_sam_iqa(**{"variant": "tiny", "pretrained": False, "input_side_px": 64, **options})


def dp(**options: Any) -> DpIqaTeacher:
    teacher = build_dp_iqa(**{"variant": "tiny", "pretrained": False, **options})
    if options.get("head") is None:
        with torch.no_grad():
            teacher.model.text_adapter.gamma.fill_(0.1)  # new, it lets next to nothing through
    return teacher


CASES: dict[str, tuple[Builder, dict[str, Any]]] = {
    "sam head": (sam, {}),
    "sam head fr": (sam, {"form": "fr"}),
    "sam neck": (sam, {"trainable": "neck"}),
    "sam all": (sam, {"trainable": "all"}),
    "dp all": (dp, {}),
    "dp head": (dp, {"trainable": "head"}),
}
every_case = pytest.mark.parametrize("case", CASES)


def build(case: str, **others: Any) -> SamIqaTeacher | DpIqaTeacher:
    builder, options = CASES[case]
    return builder(**options, **others)


def items(teacher: FittableTeacher, count: int = 3) -> list[Any]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 2, 9, 7, 3), dtype=np.uint8)
    fine = np.kron(coarse, np.ones((1, 1, 10, 10, 1), np.uint8))
    return [teacher.preprocess(one, other if teacher.needs_reference else None) for one, other in fine]


def step(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Gradients of a loss of one batch; returns the scores."""
    target = torch.linspace(0, 1, len(inputs[0]))
    score, terms = module(inputs, target, torch.ones_like(target))
    assert terms == {}
    (score - target).square().mean().backward()
    return score


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(other[name], gradient, atol=1e-4 * scale + 1e-8, rtol=0, msg=name)


@every_case
def test_fitting_sees_the_score_that_scoring_gives(case: str):
    teacher = build(case)
    assert check_fittable(teacher, case) is teacher
    inputs = stack(items(teacher), "cpu")
    module = teacher.fitting_module().train()
    target = torch.zeros(3)
    score, _ = module(inputs, target, target)
    assert score.dtype == torch.float32
    assert score.requires_grad
    assert not teacher.model.eval().training
    torch.testing.assert_close(score.detach().clamp(0, 1), teacher(items(teacher)).score.clone(), atol=1e-6, rtol=0)


@every_case
def test_gradients_reach_all_that_is_trained_and_nothing_else(case: str):
    teacher = build(case)
    step(teacher.fitting_module().train(), stack(items(teacher), "cpu"))
    gradients_now = gradients(teacher.model)
    assert gradients_now.keys() == teacher.trained_state().keys()
    for name, gradient in gradients_now.items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@every_case
def test_what_is_frozen_stays_in_evaluation_mode(case: str):
    teacher = build(case)
    module = teacher.fitting_module()
    for mode in (True, False):
        module.train(mode)
        assert teacher.model.training == mode
        for name, part in teacher.model.named_modules():
            own = [parameter.requires_grad for parameter in part.parameters()]
            if own:
                assert part.training == (mode and any(own)), name


@every_case
def test_a_frozen_base_is_run_as_in_inference_and_the_gradients_are_as_if_it_were_not(case: str):
    teacher, watched = build(case), build(case)
    inputs = stack(items(teacher), "cpu")
    step(teacher.fitting_module().train(), inputs)
    # The same pass, with everything recorded.
    model = watched.model.requires_grad_(True).train()
    if isinstance(watched, DpIqaTeacher):
        watched.model.encode = watched.model.encode.__wrapped__.__get__(watched.model)  # type: ignore[attr-defined]
    step(watched.fitting_module().train(), inputs)
    recorded = gradients(model)
    base = "vae.encoder.conv_in.weight" if isinstance(teacher, DpIqaTeacher) else "encoder.vit.patch_embed.proj.weight"
    assert base in recorded
    trained = teacher.trained_state()
    same_gradients(gradients(teacher.model), {name: value for name, value in recorded.items() if name in trained})


@every_case
def test_only_a_trained_base_is_run_with_gradients(case: str):
    teacher = build(case)
    base = teacher.model.vae.encoder if isinstance(teacher, DpIqaTeacher) else teacher.model.encoder.vit.patch_embed
    assert isinstance(base, nn.Module)
    seen: list[bool] = []
    base.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    step(teacher.fitting_module().train(), stack(items(teacher), "cpu"))
    assert seen == [case in ("sam neck", "sam all")]


@every_case
def test_the_score_is_not_rounded_by_mixed_precision(case: str):
    teacher = build(case)
    inputs = stack(items(teacher), "cpu")
    module = teacher.fitting_module().train()
    full = step(module, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = step(module, inputs)
    assert mixed.dtype == torch.float32
    assert bool((mixed != mixed.bfloat16().float()).any())
    assert 0 < float((mixed - full).detach().abs().max()) < 1e-2
    for name, gradient in gradients(teacher.model).items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("case", ["sam all", "dp all", "dp head"])
@pytest.mark.parametrize("mixed", [False, True])
def test_checkpointing_keeps_less_and_changes_no_gradient(case: str, mixed: bool):
    both, kept_bytes = [], []
    for checkpointed in (False, True):
        teacher = build(case, checkpoint_blocks=checkpointed)
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            step(teacher.fitting_module().train(), stack(items(teacher), "cpu"))
        both.append(gradients(teacher.model))
        kept_bytes.append(kept)
    assert kept_bytes[1] < kept_bytes[0]
    same_gradients(*both)


@every_case
def test_a_fitted_teacher_comes_back_the_same(case: str, tmp_path: Path):
    path, again = tmp_path / "head.safetensors", tmp_path / "again.safetensors"
    teacher = build(case)
    before = teacher.stamp
    optimiser = torch.optim.SGD(teacher.model.parameters(), lr=0.1)
    for _ in range(2):
        teacher.model.eval()
        teacher(items(teacher))  # scoring in between leaves nothing behind that has no gradient
        step(teacher.fitting_module().train(), stack(items(teacher), "cpu"))
        optimiser.step()
    teacher.model.eval()
    teacher.save_trained(path, **SAID)
    loaded = build(case, head=path)
    assert loaded.stamp.weights == teacher.stamp.weights != before.weights
    assert (loaded.stamp.scale, loaded.stamp.licence) == (SAID["scale"], SAID["licence"])
    assert before.scale.startswith("none")
    assert torch.equal(loaded(items(loaded)).score, teacher(items(teacher)).score)
    loaded.save_trained(again, **SAID)
    assert again.read_bytes() == path.read_bytes()
    low = build(case, head=path, precision="bf16")
    low.model.requires_grad_(False)
    assert low.stamp.weights == teacher.stamp.weights
    assert low.stamp.digest != teacher.stamp.digest


def test_the_head_of_another_teacher_is_refused(tmp_path: Path):
    sam().save_trained(tmp_path / "sam.safetensors", **SAID)
    with pytest.raises(PocketiqaError, match="was fitted for 'sam_iqa', not 'dp_iqa': give a file of that"):
        dp(head=tmp_path / "sam.safetensors")


def test_what_cannot_be_fitted_says_why():
    with pytest.raises(
        PocketiqaError,
        match=r"teacher 'reference' cannot be fitted: \w+ is without model, fitting_module, trained_state, "
        r"save_trained, load_trained; see teachers\.fitting\.FittableTeacher",
    ):
        check_fittable(build_reference(), "reference")
    with pytest.raises(PocketiqaError, match="teacher 'mine' cannot be fitted: Contrast is without model"):
        check_fittable(own_teacher.build(), "mine")
    bare = FittableBase("bare", nn.Linear(2, 1), fitted_with={}, base="", licence="")
    with pytest.raises(PocketiqaError, match="FittableBase is without the interface of a teacher"):
        check_fittable(bare, "bare")
    with pytest.raises(PocketiqaError, match=r"torch\.bfloat16: fit with precision='fp32'"):
        check_fittable(dp(precision="bf16"), "dp_iqa")
    frozen = sam()
    empty = copy.copy(frozen)
    empty.trained_state = dict  # type: ignore[method-assign]
    with pytest.raises(PocketiqaError, match="its trained_state is empty"):
        check_fittable(empty, "sam_iqa")


def test_frozen_parts_stand_still_whatever_they_contain():
    frozen = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).requires_grad_(False)
    mixed = nn.Sequential(nn.BatchNorm1d(2).requires_grad_(False), nn.Dropout(), nn.Linear(2, 1))
    model = nn.Sequential(frozen, mixed).train()
    evaluate_frozen(model)
    assert not any(part.training for part in frozen.modules())
    assert [part.training for part in mixed] == [False, True, True]
    statistics = frozen[1].state_dict()["running_mean"].clone()
    model(torch.randn(5, 2))
    assert torch.equal(frozen[1].state_dict()["running_mean"], statistics)


ENTRY = "pocketiqa.fitted_teacher"
TENSORS = {"head.a": torch.arange(4.0), "head.b": torch.ones(2, 2), "norm.batches": torch.tensor(7)}
TRAINED = Trained(
    teacher="some",
    config={"variant": "tiny", "taps": [1, 2]},
    base="0123456789abcdef",
    tensors=TENSORS,
    scale="MOS of BIQ2021",
    licence="research",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "head.safetensors"
    save_trained(path, TRAINED)
    return path


def test_what_was_written_is_read_and_equal_parts_give_equal_bytes(path: Path):
    trained_part = read_trained(path)
    assert replace(trained_part, tensors={}) == replace(TRAINED, tensors={})
    assert trained_part.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(trained_part.tensors[name], TENSORS[name]) for name in TENSORS)
    data = path.read_bytes()
    save_trained(path, replace(trained_part, tensors=dict(reversed(trained_part.tensors.items()))))
    assert path.read_bytes() == data


def test_lower_precision_is_not_written(tmp_path: Path):
    low = replace(TRAINED, tensors={"a": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(PocketiqaError, match=r"a is torch.bfloat16: fit with precision='fp32'"):
        save_trained(tmp_path / "low.safetensors", low)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_off_is_refused(path: Path, fraction: float):
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(
        IntegrityError, match=r"head.safetensors is cut off .*: give a file that .*fit-teacher"
    ) as caught:
        read_trained(path)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change record and tensors, and leave the digest as it is."""
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()[ENTRY])
    tensors = dict(TENSORS)
    change(record, tensors)
    save_file(tensors, path, {ENTRY: json.dumps(record)})


ALTERED: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], None]] = {
    "scale": lambda record, _: record["head"].update(scale="another"),
    "licence": lambda record, _: record["head"].pop("licence"),
    "option": lambda record, _: record["head"]["config"].update(variant="large"),
    "base": lambda record, _: record["head"].update(base="f" * 64),
    "teacher": lambda record, _: record["head"].update(teacher="other"),
    "value": lambda _, tensors: tensors.update({"head.b": torch.ones(2, 2) + 1e-6}),
    "name": lambda _, tensors: tensors.update({"head.c": tensors.pop("head.b")}),
    "dropped": lambda _, tensors: tensors.__delitem__("head.b"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_head_or_tensor_is_tampering(path: Path, what: str):
    rewrite(path, lambda record, tensors: None)
    assert read_trained(path).scale == TRAINED.scale  # rewriting alone is no change
    rewrite(path, ALTERED[what])
    with pytest.raises(IntegrityError, match=r"head.safetensors was altered, .*: give a file that .*fit-teacher"):
        read_trained(path)


def test_what_is_no_fitted_teacher_is_told_apart(path: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no fitted teacher at .*nowhere: give a file that `pocketiqa fit-teach"):
        read_trained(tmp_path / "nowhere")
    with pytest.raises(PocketiqaError, match=r"no fitted teacher at "):
        read_trained(tmp_path)
    rewrite(path, lambda record, _: record.update(format=9))
    with pytest.raises(PocketiqaError, match="has format 9, but this pocketiqa reads 1 and 2: upgrade pocketiqa"):
        read_trained(path)
    save_file(TENSORS, path)
    with pytest.raises(PocketiqaError, match=r"head.safetensors is no fitted teacher: give a file"):
        read_trained(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": "other"}, "was fitted for 'some', not 'other': give a file of that"),
        (
            {"config": {"variant": "large", "taps": (1, 2)}},
            r"other options \(variant: 'tiny' -> 'large'\): build some as it was",
        ),
        (
            {"base": "fedcba9876543210"},
            r"frozen base 0123456789ab\.\.\., this one is fedcba987654\.\.\.: give the weigh",
        ),
        ({"tensors": {"head.a": torch.ones(4)}}, r"\(it has the foreign head.b, norm.batches\): fit it again"),
        ({"tensors": {**TENSORS, "head.c": torch.ones(1)}}, r"does not fit this version of some \(it lacks head.c\)"),
        ({"tensors": {**TENSORS, "head.b": torch.ones(4)}}, r"it has head.b of shape \[2, 2\] instead of \[4\]"),
    ],
)
def test_a_part_of_another_model_is_refused(path: Path, changed: dict[str, Any], said: str):
    trained = read_trained(path)
    check_fits(trained, TRAINED, path)
    check_fits(trained, replace(TRAINED, config={"variant": "tiny", "taps": (1, 2)}), path)  # as JSON, the same
    with pytest.raises(PocketiqaError, match=said) as caught:
        check_fits(trained, replace(TRAINED, **changed), path)
    assert "\n" not in str(caught.value)
