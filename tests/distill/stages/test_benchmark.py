"""Models of any kind on one benchmark: names, splits, leakage, progress."""

from pathlib import Path

import pytest

from distill.stages.benchmark import evaluate_on, shifted
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import build_pool
from tests.helpers.pools import write_photographs
from tests.helpers.tiny_students import export_tiny


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rated photographs: two for training, two for testing."""
    folder = tmp_path_factory.mktemp("rated")
    paths = write_photographs(folder / "photographs", images=4)
    lines = [f"{path},{number / 4},{'train' if number < 2 else 'test'}" for number, path in enumerate(paths)]
    (folder / "rated.csv").write_text("\n".join(["image,mos,split", *lines]))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same exported student under two paths."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "b").mkdir()
    first = export_tiny(folder / "tiny.onnx").path
    second = Path(folder / "b" / "tiny.onnx")
    second.write_bytes(first.read_bytes())
    return [str(first), str(second)]


def test_the_test_part_is_the_default_and_names_are_kept_apart(rated: Path, models: list[str]):
    steps: list[tuple[int, int]] = []
    result = evaluate_on(models, f"csv:{rated / 'rated.csv'}", progress=lambda *at: steps.append(at))
    assert [one["name"] for one in result["models"]] == [f"tiny ({model})" for model in models]
    assert [one["coverage"]["images"] for one in result["models"]] == [2, 2]
    assert (steps[-1], "overlap" in result, "near" in result) == ((4, 4), False, False)


def test_splits_and_names_are_chosen(rated: Path, models: list[str]):
    result = evaluate_on(models[:1], f"csv:{rated / 'rated.csv'}", split="all", names=["mine"])
    assert (result["models"][0]["name"], result["models"][0]["coverage"]["images"]) == ("mine", 4)
    with pytest.raises(PocketiqaError, match="validation"):
        evaluate_on(models[:1], f"csv:{rated / 'rated.csv'}", split="validation")


def test_images_that_were_trained_on_are_counted_and_left_out(rated: Path, models: list[str], tmp_path: Path):
    seen = sorted((rated / "photographs").iterdir())[3]
    pool = build_pool([str(seen)], tmp_path / "pool")
    result = evaluate_on(models[:1], f"csv:{rated / 'rated.csv'}", trained_on=[pool.folder])
    assert (result["overlap"]["tested"], result["overlap"]["same_file"]) == (2, 1)
    assert result["selections"][result["headline"]]["n"] == 1


def test_unknown_models_and_benchmarks_are_named(rated: Path):
    with pytest.raises(PocketiqaError, match=r"nowhere\.onnx"):
        evaluate_on(["nowhere.onnx"], f"csv:{rated / 'rated.csv'}")
    with pytest.raises(PocketiqaError, match=r"gone\.csv"):
        evaluate_on(["pocket-s"], "csv:gone.csv")


def test_progress_of_a_part_is_that_of_the_whole():
    steps: list[tuple[int, int]] = []
    part = shifted(lambda *at: steps.append(at), 10, 30)
    assert part is not None
    part(5, 10)
    assert steps == [(15, 30)]
    assert shifted(None, 0, 1) is None


def test_all_models_are_checked_before_the_first_is_evaluated(tmp_path: Path):
    """The benchmark is not even read: its file is not there."""
    with pytest.raises(PocketiqaError, match="'referense' is no model"):
        evaluate_on(["pocket-s", "referense"], f"csv:{tmp_path / 'nowhere.csv'}")
