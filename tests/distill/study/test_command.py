"""Studies that really run: whole, with a run that fails, with one that is killed, on what is left of a benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.load import apply_settings
from distill.study import run_study
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool
from tests.helpers.campaign import WHOLE
from tests.helpers.shared import shared_data
from tests.helpers.studies import DYING, rated_textures, study_tree, write_study

TINY = "label_efficiency_tiny"
SEED = "axes.seed={0: {seed: 0, fit.seed: 0, distill.seed: 0}}"
RATED = "[{ratings: 'biq2021:$POCKETIQA_SHARED_DATA/biq2021', images: 16}]"
# The suite makes one point of the curve, a campaign both.
SETTINGS = [SEED] if WHOLE else [SEED, f"axes.labels={{16: {{fit.sources: {RATED}, sources: {RATED}}}}}"]
LABELS = ["8", "16"] if WHOLE else ["16"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rated_textures(tmp_path_factory.mktemp("rated"))


def result_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "study.json").read_text())


def stamps(out: Path) -> dict[str, int]:
    """When the manifest of everything that is done was written, but for the study's own."""
    paths = [path for path in out.glob("*/**/manifest.json") if read_manifest(path.parent).complete]
    return {str(path): path.stat().st_mtime_ns for path in paths}


def scores(out: Path, cell: str) -> list[float]:
    return json.loads((out / cell / "judged/predictions.json").read_text())["scores"]


def test_what_fails_or_is_killed_is_told_and_resumed(tmp_path: Path, benchmark: str, capfd: pytest.CaptureFixture[str]):
    arms = {
        "alone": {"pool": None, "label": None},
        "broken": {"label.options": {"memory": 1}},
        "killed": {
            "label.teacher": DYING,
            "label.options": {"marker": str(tmp_path / "marker")},
            "label.batch_size": 1,
        },
        "more": {"label.batch_size": 1},
    }
    changes = {"arms": arms, "axes": {"seed": {"0": {}}}, "recipe.label.shards": 3}
    name = write_study(tmp_path / "study.yaml", apply_settings(study_tree(benchmark), changes))
    out = tmp_path / "out"
    with pytest.raises(
        PocketiqaError, match=r"2 of 4 runs failed, such as broken-seed0: .*teacher .*memory.*tries these"
    ):
        run_study(name, out=out)
    values_of = {run["name"]: run for run in result_of(out)["runs"]}
    assert {run: values_of[run]["state"] for run in values_of} == {
        "alone-seed0": "done", "broken-seed0": "failed", "killed-seed0": "failed", "more-seed0": "done",
    }  # fmt: skip
    assert "ended by SIGKILL" in values_of["killed-seed0"]["reason"]
    assert "killed-seed0 failed: its process was ended by SIGKILL" in " ".join(capfd.readouterr().err.split())
    before = stamps(out)
    run_study(name, out=out, only="[!b]*")
    assert {path: stamp for path, stamp in stamps(out).items() if path in before} == before
    states = {run["name"]: run for run in result_of(out)["runs"]}
    assert states["broken-seed0"]["state"] == "failed"  # it was not tried again
    killed = states["killed-seed0"]
    assert (killed["state"], killed["reason"], killed["stages"]["label"]["resumed"]) == ("done", "", True)
    # The teacher that was killed says what the other says: nothing of the interruption is left.
    assert scores(out, "killed-seed0") == scores(out, "more-seed0") != scores(out, "alone-seed0")


def test_a_benchmark_is_pooled_without_what_people_said(tmp_path: Path, benchmark: str):
    out = tmp_path / "out"
    run_study(write_study(tmp_path / "study.yaml", study_tree(benchmark)), out=out, only="more-seed1")
    (pool,) = map(Pool.open, out.glob("shared/pool-*/pool"))
    (part,) = map(Pool.open, out.glob("shared/part-*"))
    (rated,) = map(Pool.open, out.glob("shared/pool-*/rated/0-csv"))
    # 6 scenes of 3 pictures train or validate, half of them train; people have rated 6 pictures of these.
    assert (len(part), len(rated), len(pool)) == (9, 6, 3)
    assert {ref.id for ref in pool} == {ref.id for ref in part} - {ref.id for ref in rated}
    states = {run["name"]: run["state"] for run in result_of(out)["runs"]}
    assert states == {"alone-seed0": "to do", "more-seed0": "to do", "alone-seed1": "to do", "more-seed1": "done"}
    recipe = (out / "more-seed1" / "recipe.yaml").read_text()
    assert recipe.startswith(f"# pocketiqa study {tmp_path / 'study.yaml'} --out {out} --only more-seed1\n")


def test_nothing_left_to_label_is_an_error(tmp_path: Path, benchmark: str):
    tree = apply_settings(study_tree(benchmark), {"recipe.sources": [{"ratings": benchmark}]})
    with pytest.raises(PocketiqaError, match=r"cover all of csv:.*nothing is left to be labelled"):
        run_study(write_study(tmp_path / "study.yaml", tree), out=tmp_path / "out", only="more-seed0")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, benchmark: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    with pytest.raises(PocketiqaError, match="is not empty and was not written by pocketiqa"):
        run_study(write_study(tmp_path / "study.yaml", study_tree(benchmark)), out=tmp_path / "out")


def test_the_tiny_study_shows_a_curve_of_real_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("POCKETIQA_SHARED_DATA", str(shared_data()))
    run_study(TINY, out=tmp_path, settings=SETTINGS)
    result = result_of(tmp_path)
    assert [run["state"] for run in result["runs"]] == ["done"] * 2 * len(LABELS)
    assert [row["values"]["labels"] for row in result["rows"]] == LABELS
    assert {row["arms"][arm]["n"] for row in result["rows"] for arm in ("alone", "pseudo")} == {1}
    assert all(row["differences"]["pseudo"]["low"] is not None for row in result["rows"])
    assert result["goal"]["met"] in (True, False)
    assert result["target"]["n"] == 32
    fitted = [run for run in result["runs"] if run["arm"] == "pseudo"]
    assert all(
        list(run["stages"]) == sorted(["fit", "pool", "label", "distill", "export", "evaluate"]) for run in fitted
    )
    assert all(run["peak_memory_bytes"] > 100e6 and run["seconds"] > 0 for run in result["runs"])
    page = (tmp_path / "study.html").read_text()
    assert ("SRCC over labels" in page) == WHOLE  # of one point there is no curve
    assert "http" not in page
    assert "pseudo-labels16-seed0" in capsys.readouterr().out
    before = stamps(tmp_path)
    assert before
    run_study(TINY, out=tmp_path, settings=SETTINGS, only="alone-*")
    assert stamps(tmp_path) == before
    assert result_of(tmp_path)["rows"] == result["rows"]


def test_the_ablation_tells_how_far_matched_noise_moves_each_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("POCKETIQA_SHARED_DATA", str(shared_data()))
    few = '[{ratings: "biq2021:$POCKETIQA_SHARED_DATA/biq2021?validation=0.01", images: 16}]'
    settings = [
        f"recipe.fit.sources={few}", f"recipe.evaluate={few.replace('images: 16', 'split: validation')}",
        "recipe.fit.options.square_px=96", "recipe.fit.options.cells=2", "recipe.fit.options.halvings=0",
        f"recipe.fit.options.cache={tmp_path / 'features'}", "recipe.fit.images.max_side=96", "recipe.fit.steps=2",
        "recipe.fit.batch_size=8", "recipe.fit.validate_every_steps=2", "recipe.fit.optimizer.warmup_steps=0",
        "axes.seed={0: {seed: 0}}", "arms={plain: {fit.options.noise_weight: 0}, noise: {}}",
    ]  # fmt: skip
    run_study("ablation", out=tmp_path / "out", settings=settings)
    (row,) = result_of(tmp_path / "out")["rows"]
    moved = row["sensitivity"]
    assert moved["arms"].keys() == {"plain", "noise"}
    assert all(one["change"] > 0 and one["suppressed"] == 0 for one in moved["arms"].values())
    value = moved["differences"]["noise"]
    assert value["low"] <= value["difference"] <= value["high"]
    assert 5 < value["n"] <= 32
    page = (tmp_path / "out" / "study.html").read_text()
    assert "Moved by matched noise" in page
    assert "channels closed" in capsys.readouterr().out
    # The frozen backbone saw each image once: 16 to fit to and 32 for the evaluation, for both teachers.
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) == 16 + 32
