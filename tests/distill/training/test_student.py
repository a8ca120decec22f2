import json
import logging
import math
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy import stats

from distill.data.examples import LabelTable, Source
from distill.data.split import Part, Split
from distill.recipe.training import TrainConfig
from distill.stages.export import export_checkpoint
from distill.training.environment import interruption
from distill.training.history import read_history
from distill.training.loop import InterruptedRunError, NonFiniteError
from distill.training.student import TrainResult, configured_student, region_map_size, train
from distill.training.validation import correlations
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.pool import Pool
from pseudo_labels.regions.masks import cell_overlap
from pseudo_labels.store import LabelStore
from students.base import score_images
from students.config import RegionHeadConfig
from students.registry import build_student
from students.runtime import Scorer
from students.storage import load_student
from tests.helpers.regions import noisy_quarters
from tests.helpers.tiny_students import TINY, export_tiny, photographs, settle
from tests.helpers.tmpfs import small_disk
from tests.helpers.training import (
    level_source,
    score_of,
    stop_at,
    texture_pool,
    texture_store,
    tiny_config,
    train_folder,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pool = texture_pool(folder)
    features = {"map": np.random.default_rng(0).normal(size=(len(pool), 5, 3, 3)).astype(np.float32)}
    texture_store(folder / "labels", pool, features=features)
    return folder


@pytest.fixture
def source(data: Path) -> Source:
    return Source("textures", Pool.open(data / "pool"), LabelStore.open(data / "labels"))


def run(source: Source, out: Path, **changes: Any) -> TrainResult:
    return train(tiny_config(**changes), [source], out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "student" / "student.safetensors")


def files(out: Path) -> dict[str, bytes]:
    """Everything that must not depend on how often a run was interrupted."""
    kept = [*(out / "checkpoints").rglob("*"), *(out / "student").rglob("*")]
    kept += [out / name for name in ("history.jsonl", "split.json", "manifest.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept if path.is_file()}


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train_folder(str(data), str(out), {})
    return out


def test_sixteen_images_are_learned_by_heart(tmp_path: Path):
    pool = texture_pool(tmp_path, scenes=10, versions=2)
    generator = np.random.default_rng(4)
    table = LabelTable([ref.id for ref in pool], generator.random(20))
    result = run(
        Source("random", pool, table), tmp_path / "run", steps=90, batch_size=16, split__validation=0.2,
        images__crop_size=80, images__horizontal_flip=False, validate_every_steps=90, checkpoint_every_steps=90,
        optimizer__learning_rate=1e-2, keep="last",
    )  # fmt: skip
    split = Split.from_dict(json.loads((tmp_path / "run" / "split.json").read_text()))
    learned = [ref for ref in pool if split.parts[ref.id] == Part.TRAIN]
    assert len(learned) == 16
    outputs = score_images(load_student(result.student_folder), [pool.load(ref) for ref in learned])
    target = dict(zip(table.ids, table.scores, strict=True))
    scores = np.array([output.score.item() for output in outputs])
    value = correlations(scores, np.array([target[ref.id] for ref in learned]))["srcc"]
    assert value > 0.9  # three seeds: 0.94 to 0.98; an untrained student has -0.2


def test_noise_is_recognised_on_scenes_never_seen(source: Source, tmp_path: Path):
    result = run(source, tmp_path / "run", steps=40, validate_every_steps=20, losses__ranking=0.5)
    assert result.validation["score"] > 0.85  # of 8 images; three seeds: 0.93 to 0.98
    assert result.validation["sources"]["textures"]["n"] == 8


def test_the_run_folder_tells_what_happened(unbroken: Path, source: Source):
    records = read_history(unbroken / "history.jsonl")
    assert [(r["step"], r["kind"]) for r in records] == [
        (2, "train"), (3, "validation"), (4, "train"), (6, "train"), (6, "validation"),
    ]  # fmt: skip
    assert records[0].keys() >= {"loss", "score", "plcc", "gradient_norm", "learning_rate", "images_seen"}
    assert records[0]["loss"] == pytest.approx(records[0]["score"] + 0.5 * records[0]["plcc"])
    assert records[-1]["images_seen"] == 48
    split = Split.from_dict(json.loads((unbroken / "split.json").read_text()))
    groups = {part: {ref.group for ref in source.pool if split.parts[ref.id] == part} for part in Part}
    assert len(groups[Part.TRAIN]) == 6
    assert len(groups[Part.VALIDATION]) == 2
    assert not groups[Part.TRAIN] & groups[Part.VALIDATION]
    about = json.loads((unbroken / "student" / "student.json").read_text())["about"]
    assert about["teachers"][0]["name"] == "texture"
    assert about["data"][0]["pool"] == source.pool.digest
    assert not (unbroken / "pixels").exists()
    assert not any(
        "teacher" in path.name or path.suffix in (".pt", ".pth", ".pkl", ".bin") for path in unbroken.rglob("*")
    )


def test_validation_scores_are_those_of_the_saved_student(unbroken: Path, source: Source):
    result = train(tiny_config(), [source], unbroken)
    split = Split.from_dict(json.loads((unbroken / "split.json").read_text()))
    held = [ref for ref in source.pool if split.parts[ref.id] == Part.VALIDATION]
    outputs = score_images(load_student(result.student_folder), [source.pool.load(ref) for ref in held])
    scores = [output.score.item() for output in outputs]
    value = result.validation["sources"]["textures"]
    assert value["srcc"] == pytest.approx(stats.spearmanr(scores, [score_of(ref) for ref in held])[0], abs=1e-9)
    assert value["plcc"] == pytest.approx(stats.pearsonr(scores, [score_of(ref) for ref in held])[0], abs=1e-4)


@pytest.mark.parametrize(("x", "y"), [([0.5] * 4, [1, 2, 3, 4]), ([1, 2, 3, 4], [0.5] * 4), ([1], [2])])
def test_correlations_of_what_does_not_vary_are_none(x: list[float], y: list[float]):
    metrics = correlations(np.array(x, float), np.array(y, float))
    assert (metrics["srcc"], metrics["plcc"], metrics["n"]) == (None, None, len(x))


def test_a_finished_run_is_returned_without_work(unbroken: Path, source: Source):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    first, again = train(tiny_config(), [source], unbroken), train(tiny_config(threads=2), [source], unbroken)
    assert first == again
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")} == before


def test_the_best_on_validation_becomes_the_student_unless_the_last_is_wanted(source: Source, tmp_path: Path):
    changes = {"steps": 16, "validate_every_steps": 2, "optimizer__learning_rate": 0.02, "ema_decay": 0.0}
    best = run(source, tmp_path / "best", **changes)
    last = run(source, tmp_path / "last", keep="last", **changes)
    validations = [r for r in read_history(tmp_path / "best" / "history.jsonl") if r["kind"] == "validation"]
    first_best = max(validations, key=lambda record: (record["score"], -record["step"]))
    assert best.step == first_best["step"] < last.step == 16
    assert best.validation["score"] == first_best["score"] >= last.validation["score"]
    ema = load_file(tmp_path / "best" / "checkpoints" / f"step-{best.step:08d}" / "ema.safetensors")
    assert all(torch.equal(ema[name], value) for name, value in weights(tmp_path / "best").items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_to_the_same_bytes(
    source: Source, unbroken: Path, tmp_path: Path, number: signal.Signals
):
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(
        InterruptedRunError, match=rf"{number.name} at step 3 of 6.*step-00000003.*run the same command"
    ):
        train(tiny_config(), [source], tmp_path / "run", progress=stop_at(3, number))
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert (tmp_path / "run" / "checkpoints" / "step-00000003" / "progress.json").exists()
    seen: list[tuple[int, int]] = []
    result = train(tiny_config(), [source], tmp_path / "run", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 6), (5, 6), (6, 6)]
    assert result.step == train(tiny_config(), [source], unbroken).step
    assert files(tmp_path / "run") == files(unbroken)


def test_training_outside_the_main_thread_works_without_signal_handlers(source: Source, unbroken: Path, tmp_path: Path):
    thread = threading.Thread(target=run, args=(source, tmp_path / "run"))
    thread.start()
    thread.join()
    assert files(tmp_path / "run") == files(unbroken)


def interrupted(source: Source, out: Path, at: int = 5, **changes: Any) -> Path:
    with pytest.raises(InterruptedRunError):
        train(tiny_config(**changes), [source], out, progress=stop_at(at))
    return out / "checkpoints"


def test_a_torn_checkpoint_is_passed_over_with_a_note(source: Source, unbroken: Path, tmp_path: Path):
    newest = interrupted(source, tmp_path / "run") / "step-00000005" / "ema.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    result = run(source, tmp_path / "run")
    assert len(result.notes) == 1
    assert "step-00000005 is incomplete" in result.notes[0]
    assert files(tmp_path / "run") == files(unbroken)


def test_a_tampered_checkpoint_is_refused_with_the_reason(source: Source, tmp_path: Path):
    newest = interrupted(source, tmp_path / "run") / "step-00000005" / "student.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"step-00000005/student\.safetensors was altered \(its SHA-256"):
        run(source, tmp_path / "run")


def test_a_history_that_was_cut_is_refused(source: Source, tmp_path: Path):
    interrupted(source, tmp_path / "run")
    os.truncate(tmp_path / "run" / "history.jsonl", 10)
    with pytest.raises(IntegrityError, match=r"history\.jsonl has 10 bytes"):
        run(source, tmp_path / "run")


def test_another_recipe_or_other_labels_are_refused_until_overwritten(source: Source, tmp_path: Path):
    interrupted(source, tmp_path / "run")
    with pytest.raises(OutputConflictError, match=r"optimizer\.learning_rate: 0\.003 -> 0\.001"):
        run(source, tmp_path / "run", optimizer__learning_rate=1e-3)
    other = Source("textures", source.pool, LabelTable([ref.id for ref in source.pool], np.linspace(0, 1, 32)))
    with pytest.raises(OutputConflictError, match="sources"):
        run(other, tmp_path / "run")
    result = train(tiny_config(steps=3), [other], tmp_path / "run", overwrite=True)
    assert result.step == 3


def test_images_that_vanish_in_the_middle_of_a_run_are_named(data: Path, tmp_path: Path):
    pool = texture_pool(tmp_path / "own", scenes=8)
    source = Source("textures", pool, texture_store(tmp_path / "labels", pool))
    interrupted(source, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "pixels")
    path = Path(pool[0].uri)
    path.rename(tmp_path / "away.png")
    with pytest.raises(OutputConflictError, match=r"no longer those .*'textures: image missing': 1"):
        run(source, tmp_path / "run")


def test_an_image_that_is_gone_from_the_start_is_skipped_and_counted(tmp_path: Path):
    pool = texture_pool(tmp_path, scenes=8)
    source = Source("textures", pool, texture_store(tmp_path / "labels", pool))
    Path(pool[4].uri).unlink()
    assert run(source, tmp_path / "run").skipped == {"textures: image missing": 1}


def test_accumulated_micro_batches_train_like_the_whole_batch(source: Source, tmp_path: Path):
    """Exact for losses that do not compare images, with frozen norms; PLCC compares within a micro-batch."""
    changes = {"losses__plcc": 0.0, "freeze_batch_norm": True, "log_every_steps": 1}
    run(source, tmp_path / "whole", **changes)
    run(source, tmp_path / "parts", accumulation_steps=4, **changes)
    losses = [
        [record["loss"] for record in read_history(tmp_path / name / "history.jsonl") if record["kind"] == "train"]
        for name in ("whole", "parts")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)  # measured 2e-7
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_rows_of_no_confidence_do_not_matter_and_others_count_by_it(source: Source, tmp_path: Path):
    """Half of the labels are wrong: with little confidence in them the student follows the other half."""
    ids = [ref.id for ref in source.pool]
    right = np.array([score_of(ref) for ref in source.pool])
    wrong = np.arange(32) % 2 == 1
    scores = np.where(wrong, 0.9 - right, right).clip(0, 1)
    values = []
    for number, confidence in enumerate((0.02, 1.0)):
        table = LabelTable(ids, scores, np.where(wrong, confidence, 1.0))
        truth = Source("truth", source.pool, LabelTable(ids, right), weight=0.0)
        predicted = Source("labels", source.pool, table, selects=False)
        result = train(
            tiny_config(steps=40, optimizer__learning_rate=5e-3, validate_every_steps=40, losses__plcc=0.2),
            [predicted, truth], tmp_path / str(number),
        )  # fmt: skip
        values.append(result.validation["sources"]["truth"]["srcc"])
    assert values[0] > 0.8  # three seeds: 0.98
    assert values[0] > values[1] + 0.3  # three seeds: -0.93 to 0.15 for the second


def test_feature_and_relational_losses_learn_from_cached_features(source: Source, tmp_path: Path):
    changes = {
        "images": {"crop_size": None, "horizontal_flip": False},
        "losses": {"feature": 1.0, "relational": 0.5, "feature_name": "map"},
        "log_every_steps": 1, "steps": 30, "validate_every_steps": 30, "checkpoint_every_steps": 15,
    }  # fmt: skip
    interrupted(source, tmp_path / "run", at=15, **changes)
    assert (tmp_path / "run" / "checkpoints" / "step-00000015" / "adapters.safetensors").exists()
    run(source, tmp_path / "run", **changes)
    run(source, tmp_path / "unbroken", **changes)
    assert files(tmp_path / "run") == files(tmp_path / "unbroken")
    records = [record for record in read_history(tmp_path / "run" / "history.jsonl") if record["kind"] == "train"]
    assert records[0]["feature"] == pytest.approx(1, abs=0.4)  # standardised features, untrained adapter
    assert np.mean([r["feature"] for r in records[-5:]]) < 0.97 * np.mean([r["feature"] for r in records[:5]])
    assert all(math.isfinite(record["relational"]) for record in records)
    assert not any("adapter" in name for name in weights(tmp_path / "run"))


def test_frozen_parts_stay_as_they_start(source: Source, tmp_path: Path):
    frozen = ["backbone.conv_stem", "backbone.bn1", "backbone.blocks.0"]
    run(source, tmp_path / "run", student__freeze=frozen, keep="last")
    run(source, tmp_path / "more", student__freeze=frozen, keep="last", steps=9)
    one, other = weights(tmp_path / "run"), weights(tmp_path / "more")
    for name, value in one.items():
        if name.startswith(tuple(f"{part}." for part in frozen)):
            torch.testing.assert_close(value, other[name], rtol=0, atol=0)
    assert any((value != other[name]).any() for name, value in one.items() if name.startswith("backbone.blocks.1."))


def test_bfloat16_trains_on_the_cpu_and_leaves_no_trace_for_the_next_run(
    source: Source, unbroken: Path, tmp_path: Path
):
    result = run(source, tmp_path / "bf16", mixed_precision="bf16")
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(tmp_path / "bf16").values())
    assert math.isfinite(result.validation["score"])
    run(source, tmp_path / "after")
    assert files(tmp_path / "after") == files(unbroken)


def test_training_leaves_the_callers_random_numbers_and_threads_alone(source: Source, tmp_path: Path):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    run(source, tmp_path / "run", threads=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_a_full_disk_leaves_the_last_checkpoint_valid(data: Path, unbroken: Path, tmp_path: Path):
    with small_disk(tmp_path / "disk", kib=2048) as disk:
        out = disk / "run"
        with pytest.raises(StorageFullError, match="no space left"):
            train_folder(str(data), str(out), {})
        assert (out / "checkpoints" / "step-00000002" / "progress.json").exists()
        assert not (out / "student").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        train_folder(str(data), str(out), {})
        assert files(out) == files(unbroken)


def test_a_second_signal_acts_as_it_did_before():
    # A suite that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruption() as asked:
            signal.raise_signal(signal.SIGINT)
            assert asked.wish == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(source: Source, tmp_path: Path):
    with pytest.raises(NonFiniteError, match=r"at step \d+.*(score|gradient)") as caught:
        run(source, tmp_path / "run", optimizer__learning_rate=1e30, losses__score_kind="mse")
    assert "lower optimizer.learning_rate" in str(caught.value)
    saved = list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert all(torch.isfinite(v).all() for path in saved for v in load_file(path / "student.safetensors").values())


def test_tensorboard_gets_the_numbers(source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    caplog.set_level(logging.ERROR)
    run(source, tmp_path / "run", tracker="tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "trackers" / "pocketiqa"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    records = [r for r in read_history(tmp_path / "run" / "history.jsonl") if r["kind"] == "train"]
    assert [step for step, _ in losses] == [2, 4, 6]
    np.testing.assert_allclose([value for _, value in losses], [r["loss"] for r in records], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tracker": "clipboard"}, "tracker 'clipboard' is unknown: choose none or one of .*tensorboard"),
        ({"mixed_precision": "fp16"}, "needs a GPU"),
        ({"images__crop_size": 128}, "crop_size 128 is above the student's max_side 96"),
        ({"student__name": "mobilenetv4_conv_smal"}, "mobilenetv4_conv_small"),
        ({"student__init": "nowhere.safetensors"}, "no backbone weights at nowhere"),
        ({"student__freeze": ["backbone.blocks.7"]}, r"freeze names 'backbone.blocks.7', but .* backbone.conv_stem, "),
        ({"split__validation": 0.9, "split__test": 0.05, "split__seed": 1}, None),
        ({"losses": {"feature": 1.0, "feature_name": "mop"}, "images": {"crop_size": None, "horizontal_flip": False}},
         r"no source has the feature 'mop': \['map'\]"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_before_training(
    source: Source, tmp_path: Path, changes: dict[str, Any], message: str | None
):
    if message is None:
        assert run(source, tmp_path / "run", **changes).step > 0
        return
    with pytest.raises(PocketiqaError, match=message):
        run(source, tmp_path / "run", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 3}, "stepz"),
        ({"losses__plc": 3}, "plc"),
        ({"batch_size": 6, "accumulation_steps": 4}, "batch_size 6 .* accumulation_steps 4"),
        ({"optimizer__warmup_steps": 6}, "warmup_steps 6 must be fewer than steps 6"),
        ({"losses": {"score": 0, "plcc": 0}}, "every loss has weight 0"),
        ({"losses__feature": 1.0}, "feature_name"),
        ({"losses": {"feature": 1.0, "feature_name": "map"}}, "images.crop_size to null"),
        ({"split": {"validation": 0.6, "test": 0.4}}, "nothing to train on"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        tiny_config(**changes)


def test_a_validation_part_that_cannot_choose_is_refused(source: Source, tmp_path: Path):
    constant = LabelTable([ref.id for ref in source.pool], [0.5] * 32)
    with pytest.raises(PocketiqaError, match=r"8 images, too few with different labels in \['same'\]"):
        run(Source("same", source.pool, constant), tmp_path / "run")


def test_the_default_recipe_is_valid():
    assert TrainConfig().student.name == "pocket-m"


def test_the_order_of_levels_is_learned_where_nothing_has_a_label(source: Source, tmp_path: Path):
    ordered = level_source(tmp_path / "levels", source.pool)
    # The labels of the other source are the same for all levels: they say nothing of noise.
    ids = [ref.id for ref in source.pool]
    scenes = [0.4 + 0.02 * int(ref.group.removeprefix("scene")) for ref in source.pool]
    result = train(
        tiny_config(
            steps=40, batch_size=16, losses__level_ranking=5.0, optimizer__learning_rate=1e-2, keep="last",
            validate_every_steps=40, checkpoint_every_steps=40, images__crop_size=None,
        ),
        [replace(source, labels=LabelTable(ids, scenes)), ordered], tmp_path / "run",
    )  # fmt: skip
    figures = result.validation["sources"]["levels"]
    assert figures["n"] == 2  # a quarter of eight scenes, a list each
    assert figures["srcc"] > 0.85  # one exchange of neighbours among both lists of four makes 0.9
    assert figures["above"] == 0
    # It chooses no checkpoint: the score is that of the labels alone.
    assert result.validation["score"] == (result.validation["sources"]["textures"]["srcc"] or 0.0)


def test_a_run_with_levels_resumes_to_the_same_bytes(source: Source, tmp_path: Path):
    sources = [source, level_source(tmp_path / "levels", source.pool, weight=1.5)]
    changes = {"losses__level_ranking": 1.0, "steps": 8, "accumulation_steps": 2, "batch_size": 12}
    train(tiny_config(**changes), sources, tmp_path / "whole")
    with pytest.raises(PocketiqaError):
        train(tiny_config(**changes), sources, tmp_path / "broken", progress=stop_at(5))
    train(tiny_config(**changes), sources, tmp_path / "broken")
    assert files(tmp_path / "whole") == files(tmp_path / "broken")
    other = [source, level_source(tmp_path / "levels", source.pool, weight=1.5, least=0.05)]
    with pytest.raises(OutputConflictError):  # another margin is another run
        train(tiny_config(**changes), other, tmp_path / "whole")


def test_levels_need_a_loss_and_the_loss_needs_levels(source: Source, tmp_path: Path):
    ordered = level_source(tmp_path / "levels", source.pool)
    with pytest.raises(PocketiqaError, match=r"no loss looks at it: give losses\.level_ranking a weight"):
        train(tiny_config(), [source, ordered], tmp_path / "run")
    with pytest.raises(PocketiqaError, match=r"losses\.level_ranking is 1\.0, but no source has an order of levels"):
        train(tiny_config(losses__level_ranking=1.0), [source], tmp_path / "run")
    live = {"live__teacher": "tests.helpers.own_teacher:build", "losses__level_ranking": 1.0}
    with pytest.raises(PocketiqaError, match="a live teacher would score the copies"):
        train(tiny_config(**live), [source, ordered], tmp_path / "run")


@pytest.fixture(scope="module")
def region_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return noisy_quarters(tmp_path_factory.mktemp("regions"))


def maps_of_quarters(student_folder: Path, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Quality and importance of the quarters of each image, [N, 4], in the order of the labels."""
    student, measured = load_student(student_folder), []
    for row, ref in enumerate(source.pool):
        regions = source.regions.at(row) if source.regions else None
        assert regions is not None
        output = score_images(student, [source.pool.load(ref)])[0]
        quality, weight = (one.numpy() for one in output.region_maps)
        for mask in regions.masks():
            cells = cell_overlap(mask, *quality.shape, resized=mask.shape, stride=student.config.region_stride) * weight
            measured.append(((quality * cells).sum() / cells.sum(), cells.sum() / weight.sum()))
    quality, importance = np.array(measured).T.reshape(2, -1, 4)
    return quality, importance


def test_regions_are_learned_by_heart_beside_the_scores_of_other_images(
    source: Source, region_source: Source, tmp_path: Path
):
    result = train(
        tiny_config(
            steps=40, images__crop_size=None, losses__region_ranking=5.0, losses__region_quality=1.0,
            losses__region_importance=1.0, optimizer__learning_rate=1e-2, validate_every_steps=40, keep="last",
            student__max_side=96, checkpoint_every_steps=40, split__validation=0.2,
        ),
        [source, region_source], tmp_path / "run",
    )  # fmt: skip
    terms = [record for record in read_history(result.folder / "history.jsonl") if record["kind"] == "train"]
    assert {"score", "plcc", "region_quality", "region_importance", "region_ranking"} <= set(terms[0])
    assert terms[-1]["region_ranking"] < 0.5 * terms[0]["region_ranking"]
    quality, importance = maps_of_quarters(result.student_folder, region_source)
    bad = np.array([np.argmin(region_source.regions.at(row).quality) for row in range(12)])  # type: ignore[union-attr]
    assert (quality.argmin(1) == bad).mean() >= 0.9
    assert (importance.argmax(1) == bad).mean() >= 0.9


def test_a_run_with_regions_resumes_to_the_same_bytes(source: Source, region_source: Source, tmp_path: Path):
    changes = {"losses__region_quality": 1.0, "images__crop_size": 64}
    train(tiny_config(**changes), [source, region_source], tmp_path / "whole")
    with pytest.raises(PocketiqaError):
        train(tiny_config(**changes), [source, region_source], tmp_path / "broken", progress=stop_at(4))
    train(tiny_config(**changes), [source, region_source], tmp_path / "broken")
    assert files(tmp_path / "whole") == files(tmp_path / "broken")


COLOURS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_a_region_head_alone_is_trained_and_no_score_moves(region_source: Source, tmp_path: Path):
    region_source = replace(region_source, selects=True)
    start = export_tiny(
        tmp_path / "start.onnx", settle(build_student(replace(TINY, **COLOURS), seed=1)), metrics={"a": 1}
    )
    changes = {
        "steps": 60, "images__crop_size": None, "losses__score": 0.0, "losses__plcc": 0.0,
        "losses__region_ranking": 5.0, "losses__region_quality": 1.0, "losses__region_importance": 1.0,
        "optimizer__learning_rate": 1e-2, "validate_every_steps": 30, "checkpoint_every_steps": 30,
        "student": {
            "name": TINY.backbone, "head_width": TINY.head_width, "max_side": 128, "init": start.path, **COLOURS,
            "freeze": ["backbone", "neck", "heads"], "regions": {"levels": (4, 8, 16), "width": 16},
        },
        "split__validation": 0.2,
    }  # fmt: skip
    result = train(tiny_config(**changes), [region_source], tmp_path / "run")
    # No source has scores: the checkpoint is chosen by regions.
    chosen = result.validation["regions"][region_source.name]
    assert result.validation["sources"] == {}
    assert result.validation["score"] == pytest.approx((chosen["within"] + chosen["importance"]) / 2)
    assert chosen["n"] == 4 * 2
    quality, importance = maps_of_quarters(result.student_folder, region_source)
    bad = np.array([np.argmin(region_source.regions.at(row).quality) for row in range(12)])  # type: ignore[union-attr]
    assert (quality.argmin(1) == bad).mean() >= 0.9
    assert (importance.argmax(1) == bad).mean() >= 0.9
    # What scores was not trained: the same bits, in torch and in the file.
    student, first = (
        load_student(result.student_folder),
        build_student(replace(TINY, **COLOURS), init=start.path).eval(),
    )
    trained = student.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in first.state_dict().items())
    exported = export_checkpoint(result.folder, tmp_path / "headed.onnx")
    before, after = Scorer(start.path), Scorer(exported.path)
    for image in photographs():
        assert before.score(image).score == after.score(image).score
    # What the contract said of scores still stands; what was learned of regions joins it.
    assert after.contract.metrics == {"a": 1}
    assert after.contract.scale == before.contract.scale
    assert after.contract.regions is not None
    assert after.contract.regions["metrics"]["validation"] == result.validation["regions"]
    assert [entry["name"] for entry in after.contract.data] == [region_source.name]
    resumed = train(tiny_config(**changes), [region_source], tmp_path / "run")
    assert resumed.step == result.step


def test_maps_of_regions_that_nothing_trains_are_refused():
    with pytest.raises(ValidationError, match=r"student\.regions has maps that no loss trains"):
        tiny_config(student={"name": TINY.backbone, "regions": {}})


def test_losses_of_regions_need_regions_and_importance_the_whole_image(source: Source, tmp_path: Path):
    with pytest.raises(PocketiqaError, match="no training image has a labelled region"):
        run(source, tmp_path / "run", losses__region_quality=1.0)
    with pytest.raises(ValidationError, match=r"set images\.crop_size to null"):
        tiny_config(losses__region_importance=1.0)


@pytest.mark.parametrize("pad_type", ["", "same"])
def test_the_size_of_the_map_is_that_of_the_network(pad_type: str):
    student = configured_student(tiny_config(student__pad_type=pad_type).student)
    for size in ((64, 64), (65, 97), (127, 71)):
        maps = build_student(student).eval()(torch.zeros(1, *size, 3, dtype=torch.uint8)).quality_map
        assert region_map_size(student, size) == tuple(maps.shape[1:])
        headed = replace(student, regions=RegionHeadConfig((8, 16), 8, 4))
        rows, columns = region_map_size(headed, size)
        assert rows in (size[0] // 8, -(-size[0] // 8))
        assert columns in (size[1] // 8, -(-size[1] // 8))
