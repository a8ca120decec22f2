import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import stats
from torch import Tensor

from distill.data.examples import Source
from distill.data.split import Part, read_split
from distill.training.history import read_history
from distill.training.teacher import fit_teacher
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef
from teachers.fitted_folder import read_fitted_folder, read_seen
from teachers.registry import build_teacher
from tests.helpers import fitting
from tests.helpers.fit_runs import STATEFUL, checkpoint, files, fit_folder, fitted, ratings, run, same, small_config
from tests.helpers.fitting import base_filters
from tests.helpers.training import score_of, texture_pool

SAM = {
    "teacher": "sam_iqa", "options": {"variant": "tiny", "pretrained": False, "head": "new", "input_side_px": 64},
    "steps": 2, "validate_every_steps": 2, "batch_size": 4, "optimizer__warmup_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    texture_pool(folder)
    return folder


@pytest.fixture
def source(data: Path) -> Source:
    return ratings(Pool.open(data / "pool"))


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    fit_folder(str(data), str(out), STATEFUL)
    return out


@pytest.mark.parametrize("changes", [{}, SAM], ids=["no head", "new head"])
def test_a_teacher_in_the_current_folder_is_not_the_one_that_is_continued(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
):
    (tmp_path / "teacher.json").write_text("{}")
    (tmp_path / "seen.txt").write_text("ffff\n")
    monkeypatch.chdir(tmp_path)
    result = run(source, tmp_path / "run", **changes)
    assert read_seen(str(result.teacher)) == {ref.id for ref in source.pool}


def test_images_of_the_earlier_fitting_stay_known(source: Source, tmp_path: Path):
    first = run(source, tmp_path / "first")
    (first.teacher / "seen.txt").write_text("ffff\n")
    again = run(source, tmp_path / "again", teacher=str(first.teacher))
    assert read_seen(str(again.teacher)) == {"ffff", *(ref.id for ref in source.pool)}


def held_out(source: Source, out: Path) -> list[ImageRef]:
    split = read_split(out)
    return [ref for ref in source.pool if split.parts[ref.id] == Part.VALIDATION]


def predicted(teacher: fitting.SmallTeacher, source: Source, refs: list[ImageRef]) -> np.ndarray:
    """Scores of whole images, one by one."""
    return np.array([teacher([teacher.preprocess(source.pool.load(ref), None)]).score.item() for ref in refs])


def test_noise_is_recognised_on_scenes_never_seen(source: Source, tmp_path: Path):
    result = run(source, tmp_path / "run", steps=60, validate_every_steps=60, log_every_steps=10, options__seed=1)
    refs = held_out(source, tmp_path / "run")
    truth = [score_of(ref) for ref in refs]
    before = predicted(fitting.build(seed=1), source, refs)
    after = predicted(fitting.build(head=result.teacher / "fitted.safetensors"), source, refs)
    assert result.validation["score"] > 0.8  # at most 0.976: some ratings are equal; three seeds: 0.976
    value = result.validation["sources"]["textures"]
    assert value["srcc"] == pytest.approx(stats.spearmanr(after, truth)[0], abs=1e-9)
    assert value["plcc"] == pytest.approx(stats.pearsonr(after, truth)[0], abs=1e-5)
    assert np.sqrt(np.mean((after - truth) ** 2)) < 0.4 * np.sqrt(np.mean((before - truth) ** 2))
    losses = [record["loss"] for record in read_history(tmp_path / "run" / "history.jsonl") if "loss" in record]
    assert losses[-1] < 0.1 * losses[0]


def test_the_run_folder_tells_what_happened(unbroken: Path, data: Path):
    records = read_history(unbroken / "history.jsonl")
    assert [(r["step"], r["kind"]) for r in records] == [
        (2, "train"), (3, "validation"), (4, "train"), (6, "train"), (6, "validation"),
    ]  # fmt: skip
    first = records[0]
    assert first["loss"] == pytest.approx(first["score"] + 0.5 * first["plcc"] + first["apart"])
    assert records[-1]["images_seen"] == 48
    record = json.loads((unbroken / "teacher" / "teacher.json").read_text())
    manifest = json.loads((unbroken / "manifest.json").read_text())
    assert record["teacher"] == fitting.NAME
    assert record["options"] == STATEFUL["options"]
    assert record["fitted"] == manifest["content"]["teacher"]
    assert record["about"]["data"][0]["pool"] == Pool.open(data / "pool").digest
    assert record["about"]["validation"] == manifest["content"]["validation"]
    assert not (unbroken / "pixels").exists()
    assert not any(path.suffix in (".pt", ".pth", ".pkl", ".bin") for path in unbroken.rglob("*"))


def test_the_best_on_validation_is_kept_unless_the_last_is_wanted(source: Source, tmp_path: Path):
    # So fast that validation goes up and down.
    changes = {"steps": 10, "validate_every_steps": 1, "optimizer__learning_rate": 1.0}
    best = run(source, tmp_path / "best", **changes)
    last = run(source, tmp_path / "last", keep="last", **changes)
    validations = [r for r in read_history(tmp_path / "best" / "history.jsonl") if r["kind"] == "validation"]
    first_best = max(validations, key=lambda record: (record["score"], -record["step"]))
    assert best.step == first_best["step"] < last.step == 10
    assert best.validation["score"] == first_best["score"] > last.validation["score"]
    for name, step in (("best", best.step), ("last", 10)):
        assert same(fitted(tmp_path / name), checkpoint(tmp_path / name, step, "teacher"))


def test_rates_go_by_the_names_of_the_teachers_own_network(source: Source, tmp_path: Path):
    run(source, tmp_path / "run", optimizer__rates={"mix.": 0.0}, keep="last")
    first = fitting.build().trained_state()
    equal = {name: torch.equal(value, first[name]) for name, value in fitted(tmp_path / "run").items()}
    assert equal == {"mix.weight": True, "mix.bias": True, "last.weight": False, "last.bias": False}
    with pytest.raises(PocketiqaError, match=r"no trained parameter begins with 'base\.'; there are last\., mix\."):
        run(source, tmp_path / "refused", optimizer__rates={"base.": 0.1})


def test_averaged_weights_are_validated_and_kept_while_present_ones_go_on(source: Source, tmp_path: Path):
    present: list[dict[str, Tensor]] = []
    changes = {
        "options__norm": True, "ema_decay": 0.12, "keep": "last", "checkpoint_every_steps": 1,
        "optimizer__learning_rate": 0.3,
    }  # fmt: skip
    result = fit_teacher(
        small_config(**changes), [source], tmp_path / "run",
        progress=lambda step, _: present.append(checkpoint(tmp_path / "run", step, "teacher")),
    )  # fmt: skip
    run(source, tmp_path / "plain", **{**changes, "ema_decay": 0})
    assert same(present[-1], fitted(tmp_path / "plain"))
    assert not list((tmp_path / "plain").rglob("average.safetensors"))
    average = {name: value.double() for name, value in present[0].items()}
    for number, weights in enumerate(present[1:], start=2):
        kept = min(0.12, (1 - 1 / number) ** 7.94)  # EDM2, section 3.1
        for name, value in weights.items():
            average[name] = kept * average[name] + (1 - kept) * value if value.is_floating_point() else value.double()
    for name, value in fitted(tmp_path / "run").items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6, msg=name)
    refs = held_out(source, tmp_path / "run")
    truth = np.array([score_of(ref) for ref in refs])
    rmse = {}
    for name in ("run", "plain"):
        teacher = fitting.build(head=tmp_path / name / "teacher" / "fitted.safetensors", norm=True)
        rmse[name] = np.sqrt(np.mean((predicted(teacher, source, refs) - truth) ** 2))
    assert result.validation["sources"]["textures"]["rmse"] == pytest.approx(rmse["run"], abs=1e-6)
    assert abs(rmse["run"] - rmse["plain"]) > 1e-3


@pytest.mark.parametrize(("changes", "frozen"), [(STATEFUL, "base.1.running_mean"), (SAM, "encoder.vit.pos_embed")])
def test_only_what_is_trained_changes_and_is_kept(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], frozen: str
):
    built: list[Any] = []

    def spy(name: str, **options: Any) -> Any:
        built.append(build_teacher(name, **options))
        before.update({key: value.clone() for key, value in built[0].model.state_dict().items()})
        return built[0]

    before: dict[str, Tensor] = {}
    monkeypatch.setattr("distill.training.teacher.build_teacher", spy)
    result = run(source, tmp_path / "run", **changes)
    teacher = built[0]
    after, trained = teacher.model.state_dict(), set(teacher.trained_state())
    unchanged = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert frozen in unchanged
    assert unchanged == after.keys() - trained
    for step in {result.step, small_config(**changes).steps}:
        assert checkpoint(tmp_path / "run", step, "teacher").keys() == trained
        for path in (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").glob("*.safetensors"):
            assert not [name for name in load_file(path) if name.removeprefix("model.").startswith(frozen[:5])]
    assert fitted(tmp_path / "run").keys() == trained
    with safe_open(result.teacher / "fitted.safetensors", framework="pt") as file:
        (head,) = file.metadata().values()
    assert json.loads(head)["head"]["base"] == teacher.base
    assert not teacher.model.training


def test_the_fitted_part_is_refused_on_another_base(source: Source, tmp_path: Path):
    np.save(tmp_path / "other.npy", base_filters(1))
    result = run(source, tmp_path / "run", scale="MOS of textures", licence="mine")
    name, options = read_fitted_folder(str(result.teacher))
    stamp = build_teacher(name, **options).stamp
    assert (stamp.scale, stamp.licence) == ("MOS of textures", "mine")
    with pytest.raises(PocketiqaError, match=r"fitted on the frozen base .* give the weights that it was fitted on"):
        build_teacher(name, **options, weights=tmp_path / "other.npy")


def test_accumulated_micro_batches_begin_like_the_whole_batch(source: Source, tmp_path: Path):
    for parts in (1, 4):
        run(
            source, tmp_path / str(parts), accumulation_steps=parts, losses={"score_kind": "mse", "plcc": 0},
            log_every_steps=1, checkpoint_every_steps=1, steps=2, optimizer__warmup_steps=1,
        )  # fmt: skip
    whole, parted = (read_history(tmp_path / name / "history.jsonl")[0] for name in ("1", "4"))
    assert parted["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    gradients = [checkpoint(tmp_path / name, 1, "optimizer") for name in ("1", "4")]
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_bfloat16_trains_on_the_cpu_and_the_weights_stay_full(source: Source, unbroken: Path, tmp_path: Path):
    run(source, tmp_path / "bf16", mixed_precision="bf16", **STATEFUL)
    assert {value.dtype for value in fitted(tmp_path / "bf16").values()} == {torch.float32, torch.int64}
    rounded = checkpoint(tmp_path / "bf16", 6, "teacher")["mix.weight"]
    assert bool((rounded != rounded.bfloat16().float()).any())
    assert not same(fitted(tmp_path / "bf16"), fitted(unbroken))
    run(source, tmp_path / "after", **STATEFUL)
    assert files(tmp_path / "after") == files(unbroken)


def test_a_fitted_folder_can_be_fitted_on(source: Source, tmp_path: Path):
    first = run(source, tmp_path / "first", options__norm=True, keep="last")
    second = run(
        source, tmp_path / "second", teacher=str(first.teacher), keep="last", optimizer__learning_rate=1e-12
    )  # fmt: skip
    for name, value in fitted(tmp_path / "second").items():
        if name.split(".")[-1] in ("weight", "bias"):
            torch.testing.assert_close(value, fitted(tmp_path / "first")[name], rtol=0, atol=1e-9)
    name, options = read_fitted_folder(str(second.teacher))
    assert (name, options["norm"]) == (fitting.NAME, True)


def test_a_fitted_folder_finds_its_files_from_anywhere(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    np.save(tmp_path / "here" / "base.npy", base_filters(1))
    monkeypatch.chdir(tmp_path / "here")
    result = run(source, tmp_path / "run", options__weights="base.npy")
    stamp = build_teacher(str(result.teacher)).stamp
    monkeypatch.chdir(tmp_path / "there")
    assert build_teacher(str(result.teacher)).stamp == stamp
    assert read_fitted_folder(str(result.teacher))[1]["weights"] == str(tmp_path / "here" / "base.npy")
    run(source, tmp_path / "again", options__weights=str(tmp_path / "here" / "base.npy"))
    assert files(tmp_path / "again") == files(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "reference"}, "teacher 'reference' cannot be fitted: .* is without model"),
        ({**SAM, "options__trainable": "all", "options__precision": "bf16"}, "bfloat16: fit with precision='fp32'"),
        ({"teacher": "dp_iqa", "options": {"variant": "tiny", "pretrained": False, "precision": "bf16"}},
         "bfloat16: fit with precision='fp32'"),
        ({"options__views": {"crops": 3}}, r"views are for labelling.*drop fit\.options\.views"),
        ({"options": {"sides": 3}}, "'sides'.* its options are: head, weights, side_px"),
        ({"options__head": "nowhere.safetensors"}, "no fitted teacher at nowhere"),
    ],
)  # fmt: skip
def test_a_teacher_that_cannot_be_fitted_is_refused_before_anything_is_written(
    source: Source, tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(PocketiqaError, match=message):
        run(source, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_names_the_step_and_what_to_set(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As torch says it on a GPU; raised by the network itself when it is given more than two images."""
    forward = fitting.SmallNet.forward

    def greedy(net: fitting.SmallNet, images: torch.Tensor) -> Any:
        if net.training and len(images) > 2:
            raise torch.OutOfMemoryError("tried to allocate too much")
        return forward(net, images)

    monkeypatch.setattr(fitting.SmallNet, "forward", greedy)
    settings: dict[str, Any] = {"steps": 2, "batch_size": 8, "optimizer__warmup_steps": 1}
    assert small_config().losses.plcc > 0  # which compares images: smaller parts would change it
    with pytest.raises(PocketiqaError, match=r"at step 1 with micro-batches of 4 images: set accumulation_steps to 4"):
        run(source, tmp_path / "large", **settings, accumulation_steps=2)
    run(source, tmp_path / "small", **settings, accumulation_steps=4)
