import copy
import io
import itertools
import pickle
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.images import DecodeLimits, ImageError, load
from pseudo_labels.parallel import in_order
from pseudo_labels.records import Status
from students.base import score_images
from students.contract import CONTRACT_KEY, Calibration
from students.runtime import Row, Scorer, keep_freed_memory, score
from students.session import CHECKSUM_BYTES, with_checksum
from tests.helpers.encoders import encode, exif_turn, stored_for
from tests.helpers.tiny_students import export_tiny, photographs, tiny_student


def _key(row: Row) -> tuple[str, float | None, Status, str]:
    return row.path, row.score, row.status, row.reason


@pytest.fixture
def mixed_files(photo_files: list[Path], tmp_path: Path) -> list[Path]:
    """Good files between bad ones."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no photograph")
    (tmp_path / "cut.jpg").write_bytes(photo_files[0].read_bytes()[:3000])
    Image.new("RGB", (20, 400)).save(tmp_path / "thin.png")
    bad = [tmp_path / name for name in ("empty.jpg", "text.jpg", "cut.jpg", "thin.png", "nowhere.jpg")]
    return [path for pair in itertools.zip_longest(bad, photo_files * 4) for path in pair if path is not None]


def test_scores_are_those_of_torch(scorer: Scorer, photo_files: list[Path]) -> None:
    expected = score_images(tiny_student(), [load(path) for path in photo_files])
    for path, theirs in zip(photo_files, expected, strict=True):
        ours = scorer.score(path)
        assert ours.score == pytest.approx(float(theirs.score), abs=1e-5)
        np.testing.assert_allclose(ours.quality_map, theirs.quality_map.numpy(), rtol=0, atol=1e-5)
        mean = np.average(ours.quality_map.astype(float), weights=ours.weight_map.astype(float))
        assert ours.score == pytest.approx(mean, abs=1e-6)
        assert ours.quality_map.dtype == np.float32


def test_every_form_of_an_image_gives_the_same_bits(scorer: Scorer, photo_files: list[Path]) -> None:
    path = photo_files[1]
    data = path.read_bytes()
    forms = (path, str(path), data, bytearray(data), memoryview(data), load(path), Image.open(path), path)
    results = [scorer.score(form) for form in forms]
    assert len({result.score for result in results}) == 1
    assert all(np.array_equal(result.quality_map, results[0].quality_map) for result in results)


def test_pillow_images_are_scored_as_their_files_would_be(scorer: Scorer) -> None:
    rgb = photographs()[0]
    turned = encode(stored_for(rgb, 6), "PNG", exif=exif_turn(6))
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 90, np.uint8)])
    for data in (turned, encode(alpha, "PNG"), encode(rgb, "GIF"), encode(rgb[..., 0], "PNG")):
        assert scorer.score(Image.open(io.BytesIO(data))).score == scorer.score(data).score
    assert scorer.score(Image.open(io.BytesIO(turned))).score == scorer.score(rgb).score


def test_pillow_images_meet_the_limits_of_files(tiny_onnx: Path) -> None:
    strict = Scorer(tiny_onnx, limits=DecodeLimits(max_pixels=1000))
    with pytest.raises(ImageError, match="above the limit of 1000") as caught:
        strict.score(Image.new("RGB", (64, 64)))
    assert caught.value.status == Status.TOO_LARGE


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "NoneType"), (3, "int"), (0.5, "float"), (["a.jpg"], "list"), (object(), "object")]
)
def test_what_is_no_image_is_named(scorer: Scorer, value: Any, kind: str) -> None:
    with pytest.raises(PocketiqaError, match=f"^an image is {kind}, but a path, the bytes of an image file, a uint8"):
        scorer.score(value)
    with pytest.raises(PocketiqaError, match=f"^a path is {kind}, but str or Path"):
        list(scorer.score_many([value]))


def test_a_list_of_images_hints_at_score_many(scorer: Scorer) -> None:
    with pytest.raises(PocketiqaError, match=r"list.*Scorer\.score_many"):
        scorer.score(["a.jpg"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("one", ["photo.jpg", Path("photo.jpg")])
def test_one_path_in_place_of_many_is_refused(scorer: Scorer, one: Any) -> None:
    with pytest.raises(PocketiqaError, match=r"one path, 'photo\.jpg', .*give \[path\], or take Scorer\.score"):
        scorer.score_many(one)


@pytest.mark.parametrize("one", [b"\xff\xd8", bytearray(3), np.zeros((64, 64, 3), np.uint8), None, 7])
def test_an_image_in_place_of_many_paths_is_refused(scorer: Scorer, one: Any) -> None:
    with pytest.raises(PocketiqaError, match=rf"paths is {type(one).__name__}, but an iterable of paths"):
        scorer.score_many(one)


def test_an_array_of_paths_is_many(scorer: Scorer, photo_files: list[Path]) -> None:
    (row,) = scorer.score_many(np.array([str(photo_files[0])], dtype=object))  # pyright: ignore[reportArgumentType]
    assert row.score == scorer.score(photo_files[0]).score


def test_a_result_is_shown_in_one_line(scorer: Scorer) -> None:
    result = scorer.score(photographs()[0])
    height, width = result.quality_map.shape
    assert repr(result) == f"Result(score={result.score:.4f}, quality_map and weight_map of {height}x{width} cells)"


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_and_pickles_score_to_the_same_bits(tiny_onnx: Path, photo_files: list[Path], made: Any) -> None:
    first = Scorer(tiny_onnx, threads=2, limits=DecodeLimits(max_pixels=200_000))
    other = made(first)
    assert other.digest == first.digest
    assert other.contract == first.contract
    assert other.score(photo_files[0]).score == first.score(photo_files[0]).score
    with pytest.raises(ImageError, match="above the limit of 200000"):
        other.score(Image.new("RGB", (1000, 1000)))


def test_a_scorer_travels_to_spawned_processes(
    tiny_onnx: Path, photo_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # From a relative path: what travels must not depend on the folder.
    monkeypatch.chdir(tiny_onnx.parent)
    relative = Scorer(tiny_onnx.name)
    monkeypatch.chdir(tiny_onnx.parents[1])
    rows = list(in_order(relative.row, photo_files, 1, processes=True))
    assert [_key(row) for row in rows] == [_key(relative.row(path)) for path in photo_files]
    assert {row.status for row in rows} == {Status.OK}


def test_a_pickle_whose_model_changed_meanwhile_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_onnx.read_bytes())
    scorer = Scorer(path)
    pickled = pickle.dumps(scorer)
    export_tiny(path, metrics={"srcc": 1})
    with pytest.raises(IntegrityError, match=rf"model\.onnx was replaced: .* {scorer.digest[:12]}\.\.\., the file now"):
        pickle.loads(pickled)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="does not end with a pocketiqa"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(PocketiqaError, match=r"no model at .*model\.onnx"):
        pickle.loads(pickled)


def test_score_equals_the_scorers_and_notices_a_new_model(tiny_onnx: Path, photo_files: list[Path], tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_onnx.read_bytes())
    assert score(photo_files[0], path).score == score(photo_files[0], path).score
    assert score(photo_files[0], path).score == Scorer(path).score(photo_files[0]).score
    export_tiny(path, calibration=Calibration(((0.0, 0.0), (0.5, 0.9), (1.0, 1.0))))
    assert score(photo_files[0], path).score == Scorer(path).score(photo_files[0]).score
    assert score(photo_files[0], path).score != Scorer(tiny_onnx).score(photo_files[0]).score
    with pytest.raises(ImageError, match="a side is below the limit of 4000"):
        score(photo_files[0], path, limits=DecodeLimits(min_side=4000))
    with pytest.raises(PocketiqaError, match=r"no model at .*nowhere\.onnx"):
        score(photo_files[0], tmp_path / "nowhere.onnx")


def test_scores_do_not_depend_on_the_batch(scorer: Scorer) -> None:
    batch = np.stack([image[:120, :128] for image in photographs()] * 3)
    together = scorer.infer(batch)[0]
    alone = np.concatenate([scorer.infer(batch[index : index + 1])[0] for index in range(len(batch))])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert np.ptp(alone) > 0.01


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (64, 5000), (1, 1), (2000, 70)])
@pytest.mark.parametrize("kind", ["black", "white", "grey", "noise"])
def test_strange_images_give_scores_in_range_and_the_same_twice(
    scorer: Scorer, kind: str, size: tuple[int, int]
) -> None:
    level = {"black": 0, "white": 255, "grey": 128, "noise": 0}[kind]
    image = np.full((*size, 3), level, np.uint8)
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    one, two = scorer.score(image), scorer.score(image)
    assert 0 <= one.score <= 1
    assert np.isfinite(one.quality_map).all()
    assert one.score == two.score
    assert np.array_equal(one.weight_map, two.weight_map)


def test_calibration_is_applied_to_score_and_map(tmp_path: Path, scorer: Scorer, photo_files: list[Path]) -> None:
    knots = ((0.0, 0.0), (0.5, 0.8), (1.0, 1.0))
    calibrated = Scorer(export_tiny(tmp_path / "c.onnx", calibration=Calibration(knots)).path)
    raw, mapped = scorer.score(photo_files[0]), calibrated.score(photo_files[0])
    xs, ys = zip(*knots, strict=True)
    assert mapped.score == pytest.approx(np.interp(raw.score, xs, ys), abs=1e-6)
    np.testing.assert_allclose(mapped.quality_map, np.interp(raw.quality_map, xs, ys), atol=1e-6)
    assert np.array_equal(mapped.weight_map, raw.weight_map)


def test_bad_images_raise_with_their_status(scorer: Scorer, mixed_files: list[Path]) -> None:
    with pytest.raises(ImageError) as caught:
        scorer.score(mixed_files[0])
    assert caught.value.status == Status.EMPTY
    with pytest.raises(PocketiqaError, match="an image is float32"):
        scorer.score(np.zeros((70, 70, 3), np.float32))


def test_limits_are_respected(tiny_onnx: Path, photo_files: list[Path]) -> None:
    strict = Scorer(tiny_onnx, limits=DecodeLimits(max_pixels=1000))
    (row,) = strict.score_many(photo_files[:1])
    assert (row.status, row.score) == (Status.TOO_LARGE, None)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_one_row_a_path_in_order_whatever_the_workers(scorer: Scorer, mixed_files: list[Path], workers: int) -> None:
    seen: list[tuple[int, int]] = []
    rows = list(scorer.score_many(mixed_files, workers=workers, progress=lambda *now: seen.append(now)))
    assert [row.path for row in rows] == [str(path) for path in mixed_files]
    statuses = {Path(row.path).name: row.status for row in rows if row.status != Status.OK}
    assert statuses == {
        "empty.jpg": Status.EMPTY,
        "text.jpg": Status.NOT_AN_IMAGE,
        "cut.jpg": Status.CORRUPT,
        "thin.png": Status.TOO_SMALL,
        "nowhere.jpg": Status.MISSING,
    }
    assert all((row.score is None) == bool(row.reason) == (row.status != Status.OK) for row in rows)
    # To the last bit the scores of one after the other.
    good = [row for row in rows if row.status == Status.OK]
    assert [row.score for row in good] == [scorer.score(row.path).score for row in good]
    assert seen == [(done, len(rows)) for done in range(1, len(rows) + 1)]


def test_paths_are_read_as_the_work_proceeds(scorer: Scorer, photo_files: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield photo_files[0]

    rows = scorer.score_many(endless(), workers=2)
    first = list(itertools.islice(rows, 20))
    assert {row.score for row in first} == {first[0].score}
    assert taken <= 20 + 2 * 4
    rows.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert list(rows) == []


def test_progress_without_a_length(scorer: Scorer, photo_files: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    list(scorer.score_many(iter(photo_files[:2]), progress=lambda *now: seen.append(now)))
    assert seen == [(1, 0), (2, 0)]


def test_model_without_a_finite_score_gives_a_failed_row(
    tiny_onnx: Path, photo_files: list[Path], tmp_path: Path
) -> None:
    model = onnx.load(tiny_onnx)
    bias = next(item for item in model.graph.initializer if item.name.endswith("heads.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(2, np.nan, np.float32), bias.name))
    (tmp_path / "nan.onnx").write_bytes(with_checksum(model.SerializeToString()))
    (row,) = Scorer(tmp_path / "nan.onnx").score_many(photo_files[:1])
    assert _key(row) == (str(photo_files[0]), None, Status.FAILED, "the model gave no finite score")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((70, 70, 3), np.uint8), r"shape \(70, 70, 3\), but uint8 NxHxWx3"),
        (np.zeros((0, 70, 70, 3), np.uint8), "but uint8 NxHxWx3"),
        (np.zeros((1, 70, 70, 3), np.float32), "float32"),
        (np.zeros((1, 63, 70, 3), np.uint8), "63x70 pixels, but sides of 64"),
    ],
)
def test_unfit_batches_are_refused(scorer: Scorer, batch: np.ndarray, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        scorer.infer(batch)


def test_numbers_out_of_range_are_refused(tiny_onnx: Path, scorer: Scorer) -> None:
    with pytest.raises(PocketiqaError, match="workers is 0"):
        scorer.score_many([], workers=0)
    with pytest.raises(PocketiqaError, match="threads is 0"):
        Scorer(tiny_onnx, threads=0)


def test_altered_models_are_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    data, broken, rng = tiny_onnx.read_bytes(), tmp_path / "broken.onnx", random.Random(1)
    for _ in range(30):
        altered = bytearray(data)
        altered[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        broken.write_bytes(altered)
        with pytest.raises(IntegrityError, match=r"broken\.onnx"):
            Scorer(broken)
        broken.write_bytes(data[: rng.randrange(len(data))])
        with pytest.raises(IntegrityError, match="does not end with a pocketiqa checksum"):
            Scorer(broken)


def test_corrupt_models_with_a_new_checksum_are_an_error_and_no_crash(tiny_onnx: Path, tmp_path: Path) -> None:
    data, broken, rng = tiny_onnx.read_bytes(), tmp_path / "broken.onnx", random.Random(2)
    contents = [data[: rng.randrange(len(data) - 500)] for _ in range(20)] + [b"", b"text", bytes(100)]
    for content in contents:
        broken.write_bytes(with_checksum(content))
        with pytest.raises(PocketiqaError, match=r"broken\.onnx"):
            Scorer(broken)


def test_models_that_are_no_students_are_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_onnx)
    onnx.helper.set_model_props(model, {"author": "someone"})
    (tmp_path / "bare.onnx").write_bytes(with_checksum(model.SerializeToString()))
    with pytest.raises(PocketiqaError, match=r"bare\.onnx holds no student contract"):
        Scorer(tmp_path / "bare.onnx")
    onnx.helper.set_model_props(model, {CONTRACT_KEY: '{"format": 1}'})
    (tmp_path / "poor.onnx").write_bytes(with_checksum(model.SerializeToString()))
    with pytest.raises(PocketiqaError, match="the student contract lacks"):
        Scorer(tmp_path / "poor.onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy")
    other = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    (tmp_path / "other.onnx").write_bytes(with_checksum(other.SerializeToString()))
    with pytest.raises(PocketiqaError, match=r"maps \['x'\] to \['y'\], but a student"):
        Scorer(tmp_path / "other.onnx")


def test_missing_and_unreadable_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match=r"no model at .*nowhere\.onnx: check the path"):
        Scorer(tmp_path / "nowhere.onnx")
    with pytest.raises(PocketiqaError, match="cannot be read"):
        Scorer(tmp_path)


def test_digest_identifies_the_model(tiny_onnx: Path, scorer: Scorer, tmp_path: Path) -> None:
    assert scorer.digest == Scorer(tiny_onnx).digest
    assert scorer.digest != Scorer(export_tiny(tmp_path / "o.onnx", metrics={"srcc": 1}).path).digest


def test_threads_of_the_network_do_not_change_the_score(
    tiny_onnx: Path, scorer: Scorer, photo_files: list[Path]
) -> None:
    two = Scorer(tiny_onnx, threads=2)
    assert two.score(photo_files[0]).score == pytest.approx(scorer.score(photo_files[0]).score, abs=1e-6)


# Page faults of taking and freeing 12 MB a hundred times, as decoding does: pages come anew each time, or once.
_PROGRAM = """
import resource, sys
from students.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(100):
    blocks = [bytearray(1 << 20) for _ in range(12)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, how]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    assert _faults("keep") < _faults("leave") / 4


def test_users_own_tuning_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert keep_freed_memory() is False


def test_a_graph_that_fails_only_when_it_runs_is_refused_in_one_line(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(export_tiny(tmp_path / "a.onnx").path.read_bytes()[:-CHECKSUM_BYTES])
    convolution = next(node for node in reversed(model.graph.node) if node.op_type == "Conv")
    shape = next(own for own in convolution.attribute if own.name == "kernel_shape")
    shape.ints[0] = 1 << 40
    (tmp_path / "b.onnx").write_bytes(with_checksum(model.SerializeToString()))
    with pytest.raises(IntegrityError, match=r"the model 'tiny' cannot be run on 96x64 pixels: .*pocketiqa export"):
        Scorer(tmp_path / "b.onnx").score(np.zeros((64, 96, 3), np.uint8))
