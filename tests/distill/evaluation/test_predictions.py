"""One path for every kind of model: the same pixels, the same scores as each model gives by itself."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.evaluation.benchmarks import Benchmark, load_benchmark
from distill.evaluation.predictions import (
    Predictions,
    Predictor,
    check_model,
    kind_of,
    open_predictor,
    predict,
    predict_samples,
)
from distill.evaluation.samples import Sample, benchmark_samples, pool_samples
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import load
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec
from students.base import score_images
from students.runtime import Scorer
from students.storage import save_student
from teachers.registry import build_teacher
from tests.helpers.pools import clean_pool, synthetic_pool, write_photographs
from tests.helpers.tiny_students import export_tiny, tiny_student

OWN = "tests.helpers.own_teacher:build"


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Three photographs, one that is no image, one that is not there."""
    photographs = write_photographs(tmp_path / "photos", images=3)
    (tmp_path / "photos" / "text.jpg").write_text("not an image")
    lines = [f"photos/{path.name},0.{number + 1}" for number, path in enumerate(photographs)]
    (tmp_path / "mos.csv").write_text("\n".join(["image,mos", *lines, "photos/text.jpg,0.5", "photos/gone.png,0.6"]))
    return load_benchmark(f"csv:{tmp_path / 'mos.csv'}")


def test_student_and_exported_student_score_as_they_do_alone(tmp_path: Path, benchmark: Benchmark) -> None:
    student = tiny_student()
    save_student(student, tmp_path / "run" / "student", about={"name": "tiny"})
    export_tiny(tmp_path / "tiny.onnx", student)
    images = [load(row.path) for row in benchmark.rows[:3]]
    torch_scores = [float(output.score) for output in score_images(student, images)]
    scorer = Scorer(tmp_path / "tiny.onnx")

    samples = benchmark_samples(benchmark)
    folder = predict(tmp_path / "run", samples)
    exported = predict(tmp_path / "tiny.onnx", samples, workers=2)
    assert folder.scores[:3] == pytest.approx(torch_scores)
    assert exported.scores[:3] == pytest.approx([scorer.score(image).score for image in images])
    assert (folder.kind, folder.name) == ("student", "tiny")
    assert (exported.kind, exported.name) == ("onnx", "tiny")
    assert exported.about["digest"] == scorer.digest
    assert np.ptp(folder.scores[:3]) > 0.01


def test_a_bad_image_gives_a_row_and_stops_nothing(tmp_path: Path, benchmark: Benchmark) -> None:
    export_tiny(tmp_path / "tiny.onnx")
    seen = []
    predictions = predict(
        tmp_path / "tiny.onnx", benchmark_samples(benchmark), progress=lambda *step: seen.append(step)
    )
    assert predictions.ids == tuple(row.id for row in benchmark.rows)
    assert predictions.statuses == (Status.OK, Status.OK, Status.OK, Status.NOT_AN_IMAGE, Status.MISSING)
    assert np.isnan(predictions.scores[3:]).all()
    assert all(predictions.reasons[3:])
    assert not any(predictions.reasons[:3])
    assert seen == [(done, 5) for done in range(1, 6)]


def test_own_teacher_scores_as_it_does_alone(benchmark: Benchmark) -> None:
    teacher = build_teacher(OWN)
    alone = [float(teacher([teacher.preprocess(load(row.path), None)]).score[0]) for row in benchmark.rows[:3]]
    predictions = predict(OWN, benchmark_samples(benchmark), name="mine")
    assert predictions.scores[:3] == pytest.approx(alone)
    assert (predictions.kind, predictions.name) == ("teacher", "mine")
    assert predictions.about["stamp"]["name"] == "contrast"


def test_what_a_teacher_refuses_or_cannot_score_is_a_row(benchmark: Benchmark) -> None:
    samples = benchmark_samples(benchmark)[:1]
    refused = predict(OWN, samples, options={"refuse_wide": 10})
    assert refused.statuses == (Status.FAILED,)
    assert "too wide for me" in refused.reasons[0]
    silent = predict("tests.helpers.own_teacher:always_nan", samples)
    assert silent.statuses == (Status.FAILED,)
    assert "no finite score" in silent.reasons[0]


def test_memory_that_runs_out_on_an_image_is_a_row(benchmark: Benchmark) -> None:
    predictions = predict(OWN, benchmark_samples(benchmark), options={"memory_images": 0})
    assert set(predictions.statuses[:3]) == {Status.FAILED}
    assert all("out of memory on an image of" in reason for reason in predictions.reasons[:3])


def test_reference_teacher_gets_the_clean_image_of_the_pool(tmp_path: Path) -> None:
    pool = synthetic_pool(tmp_path, images=1, per_image=3, names=("gaussian_blur", "jpeg"))
    predictions = predict("reference", pool_samples(pool))
    by_id = dict(zip(predictions.ids, predictions.scores, strict=True))
    original = next(ref for ref in pool.ok() if not ref.ref_id)
    assert len(by_id) == 4
    # Nothing is nearer to the reference than the reference itself.
    assert by_id[original.id] == max(by_id.values())
    assert by_id[original.id] > 0.95


def test_a_missing_reference_is_a_row_with_its_reason(benchmark: Benchmark) -> None:
    first = benchmark_samples(benchmark)[0]
    missing = benchmark_samples(benchmark)[4].read
    predictions = predict("reference", [first, Sample("with a lost reference", first.read, missing)])
    assert predictions.statuses == (Status.NO_REFERENCE, Status.NO_REFERENCE)
    assert "there is none" in predictions.reasons[0]
    assert "the clean reference cannot be used" in predictions.reasons[1]


@pytest.fixture
def store(tmp_path: Path) -> tuple[LabelStore, Pool]:
    """Labels of three photographs; the second has none."""
    pool = clean_pool(tmp_path / "labelled", images=3)
    stamp = TeacherStamp("hand", 1, "none")
    made = LabelStore.create(tmp_path / "labels", StoreSpec(stamp, pool.digest, 3, 2), pool_path=pool.folder)
    labels = [PseudoLabel(ref.id, ref.uri, ref.sha256, score=0.2 + 0.3 * at) for at, ref in enumerate(pool)]
    labels[1] = PseudoLabel(pool[1].id, pool[1].uri, pool[1].sha256, status=Status.FAILED, reason="no finite score")
    for index in range(2):
        rows = made.shard_rows(index)
        made.write_shard(index, labels[rows.start : rows.stop])
    made.finish()
    return made, pool


def test_label_store_gives_its_labels_by_id(store: tuple[LabelStore, Pool]) -> None:
    labels, pool = store
    predictions = predict(labels.folder, pool_samples(pool))
    assert (predictions.kind, predictions.name) == ("labels", "hand")
    assert predictions.scores == pytest.approx([0.2, np.nan, 0.8], nan_ok=True)
    assert predictions.statuses[1] == Status.FAILED
    assert predictions.reasons[1] == "no finite score"


def test_label_store_knows_a_file_by_its_content(
    tmp_path: Path, store: tuple[LabelStore, Pool], benchmark: Benchmark
) -> None:
    # The benchmark holds the same photographs under other names, and two files the store never saw.
    labels, _ = store
    Image.fromarray(np.full((80, 80, 3), 9, np.uint8)).save(tmp_path / "photos" / "text.jpg")
    predictions = predict(labels.folder, benchmark_samples(benchmark))
    assert predictions.scores[:3] == pytest.approx([0.2, np.nan, 0.8], nan_ok=True)
    assert predictions.statuses[3:] == (Status.MISSING, Status.MISSING)
    assert "holds no label of this image" in predictions.reasons[3]


def test_a_byte_duplicate_in_the_pool_does_not_hide_the_score_of_its_original(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    photographs = tmp_path / "photos"
    (photographs / "text.jpg").unlink()
    (photographs / "z.png").write_bytes((photographs / "0-astronaut.png").read_bytes())
    pool = build_pool([str(photographs)], tmp_path / "pool")
    assert [ref.status for ref in pool] == [Status.OK] * 3 + [Status.DUPLICATE]
    assert pool[0].id == pool[3].id
    made = LabelStore.create(
        tmp_path / "labels", StoreSpec(TeacherStamp("hand", 1, "none"), pool.digest, 4, 1), pool_path=pool.folder
    )
    labels = [PseudoLabel(ref.id, ref.uri, ref.sha256, score=0.2 + 0.3 * at) for at, ref in enumerate(pool.ok())]
    labels[1] = PseudoLabel(pool[1].id, pool[1].uri, pool[1].sha256, status=Status.FAILED, reason="first")
    double = pool[3]
    labels.append(PseudoLabel(double.id, double.uri, double.sha256, status=double.status, reason=double.reason))
    made.write_shard(0, labels)
    made.finish()
    own = predict(made.folder, pool_samples(pool))
    by_content = predict(made.folder, benchmark_samples(benchmark)[:3])
    for predictions in (own, by_content):
        assert predictions.scores == pytest.approx([0.2, np.nan, 0.8], nan_ok=True)
        assert predictions.reasons == ("", "first", "")


def test_a_store_cannot_score_new_images(store: tuple[LabelStore, Pool]) -> None:
    with pytest.raises(PocketiqaError, match="is a label store"):
        open_predictor(store[0].folder)


def test_changed_files_of_a_pool_are_not_scored(tmp_path: Path) -> None:
    pool = clean_pool(tmp_path, images=2)
    samples = pool_samples(pool)
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "photographs" / "0-astronaut.png")
    assert predict(OWN, samples).statuses == (Status.CHANGED, Status.OK)
    assert [sample.id for sample in pool_samples(pool, [pool[1].id])] == [pool[1].id]


def test_a_shipped_student_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    predictor = open_predictor("pocket-s")
    assert (kind_of("pocket-s"), predictor.name) == ("onnx", "pocket-s")
    assert predictor.about["digest"] == Scorer("pocket-s").digest


def test_what_is_no_model_is_refused_with_all_kinds_of_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for model in (tmp_path / "notes.txt", tmp_path / "nowhere", "refrence"):
        with pytest.raises(PocketiqaError, match=r"is no model: give an exported \.onnx file.*reference"):
            kind_of(model)


def test_two_samples_of_one_id_are_refused(benchmark: Benchmark) -> None:
    first = benchmark_samples(benchmark)[0]
    with pytest.raises(PocketiqaError, match="same id"):
        predict(OWN, [first, first])


def test_images_come_in_order_and_only_a_few_are_read_ahead() -> None:
    waiting, most = 0, 0

    def read(number: int) -> bytes:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        stored = io.BytesIO()
        Image.fromarray(np.full((80, 80, 3), number, np.uint8)).save(stored, "PNG")
        return stored.getvalue()

    def score(rgb: np.ndarray, _: np.ndarray | None) -> float:
        nonlocal waiting
        waiting -= 1
        return float(rgb[0, 0, 0]) / 255

    samples = [Sample(str(number), lambda number=number: read(number)) for number in range(60)]
    predictions = predict_samples(Predictor("mean", {}, score), "teacher", samples, workers=3)
    assert predictions.scores == pytest.approx(np.arange(60) / 255)
    assert most <= 12


def test_predictions_travel_as_json_and_align() -> None:
    statuses = (Status.OK, Status.CORRUPT)
    predictions = Predictions(
        "m",
        "onnx",
        ids=("a", "b"),
        scores=np.array([0.5, np.nan]),
        statuses=statuses,
        reasons=("", "cut"),
        about={"k": 1},
    )
    again = Predictions.from_dict(predictions.as_dict())
    assert predictions.as_dict()["scores"] == [0.5, None]
    assert again.as_dict() == predictions.as_dict()
    aligned = predictions.aligned(("c", "a"))
    assert aligned.scores == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert aligned.statuses == (Status.MISSING, Status.OK)
    assert "not run on this image" in aligned.reasons[0]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("referense", {}, "'referense' is no model"),
        ("reference", {"metric": "fsim"}, "its options are: metrics"),
        ("no_such_module:build", {}, "needs the module 'no_such_module'"),
        ("qfm_iqm", {}, "lacks 2 things"),
    ],
)
def test_a_model_that_cannot_be_opened_is_refused_in_a_moment(model: str, options: dict[str, Any], words: str):
    with pytest.raises(PocketiqaError, match=words):
        check_model(model, options)
    check_model("pocket-s")
    check_model("reference")
