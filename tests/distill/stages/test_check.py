"""A recipe is checked whole: every fault is named before the first stage runs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.cli import app
from distill.stages.check import check_fits, check_run, check_student
from distill.stages.context import Run, open_run
from distill.stages.data import BUNDLED
from distill.terminal.console import run_cli
from pseudo_labels.errors import PocketiqaError

FIT = (
    "{teacher: qfm_iqm, options: {backbone: test_efficientnet, pretrained: false, head: new}, sources: [{ratings: R}]}"
)


@pytest.fixture
def ratings(tmp_path: Path) -> str:
    """A benchmark whose images need not be there: only its table is read."""
    file = tmp_path / "rated.csv"
    rows = [f"{number}.png,0.{number},{'test' if number > 6 else 'train'}" for number in range(1, 9)]
    file.write_text("\n".join(["image,mos,split", *rows]))
    return f"csv:{file}"


def faults(check: Callable[[Run], None], tmp_path: Path, *settings: str) -> str:
    """What the check says of the tiny recipe with these changes; nothing may have been written."""
    out = tmp_path / "run"
    run = open_run("tiny", out, settings)
    try:
        check(run)
    except PocketiqaError as error:
        return str(error)
    finally:
        assert not out.exists()
    return ""


@pytest.mark.parametrize("recipe", ["tiny", "quickstart"])
def test_recipes_that_come_along_have_no_fault(recipe: str, tmp_path: Path):
    check_run(open_run(recipe, tmp_path, []))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["label.teacher=referense"], "label.teacher: unknown teacher 'referense': choose"),
        (["label.options={metric: fsim}"], "label.teacher: teacher 'reference': .*'metric'; its options are: metrics"),
        (["label.teacher=no_such_module:build"], "needs the module 'no_such_module'"),
        (["label.teacher=anchored", "label.options={base: referense}"], "unknown teacher 'referense'"),
        (["label.teacher=anchored", "label.options={base: dp_iqa}"], "dp_iqa"),
        (["label.options={views: {crop: 5}}"], "views: unknown crop"),
        (["distort=null"], "label.teacher: teacher 'reference' compares .* add the section 'distort'"),
        (["levels={drops: [{distortions: [blurr]}]}"], "levels.drops: unknown distortion 'blurr': did you mean"),
        (["levels={per_image: 31}"], "levels.per_image: 31 copies of each photograph are fewer than two of each of 31"),
        (
            ["levels={names: [blur], drops: [{distortions: [noise]}]}", "distill.losses={level_ranking: 1}"],
            "levels.drops: none of the distortions gaussian_blur, lens_blur, motion_blur is named",
        ),
        (["levels={}"], "distill: there is an order of levels, but no loss looks at it: give losses.level_ranking"),
        (["distill.losses={level_ranking: 1}"], "distill: losses.level_ranking is 1.0, but no source has an order"),
        (["sources=[{pool: nowhere, drops: [{distortions: [all]}]}]"], "sources.0..pool: .*nowhere"),
        (["label.unseen=true"], "label.unseen: reference does not say which images"),
        (["distill.student.name=mobilenetv4_conv_smal"], "distill.student: .*did you mean"),
        (["distill.student.name=mobilevit_xxs", "distill.student.levels=null"], "could be trained, but not exported"),
        (["distill.student.levels=[3]"], r"distill.student: levels is \[3\]"),
        (["distill.student.init=/nowhere/weights.safetensors"], "distill.student.init: there is no file /nowhere"),
        (["distill.student.freeze=[backbone.bloks]"], "distill.student.freeze: freeze names 'backbone.bloks'"),
        (["distill.optimizer.learning_rate_multipliers={bakbone.: 2}"], "distill: .*begins with 'bakbone.'"),
        (["distill.images.crop_size=512"], "distill.images: crop_size 512 is above"),
        (["distill.mixed_precision=fp16", "distill.device=cpu"], "distill: mixed_precision 'fp16' needs a GPU"),
        (["distill.tracker=tensorbord"], "distill: tracker 'tensorbord' is unknown"),
        (["distill.live={teacher: referense}"], "distill.live.teacher: unknown teacher"),
        (
            ["distill.images.crop_size=null", "distill.losses={feature: 1, feature_name: metrics}"],
            "distill.losses.feature_name: no source has the feature 'metrics', .*: none at all; set label.features",
        ),
        (["distort.names=[gausian_blur]"], "distort.names: unknown distortion 'gausian_blur': did you mean"),
        (["score.distortions=[jpg]"], "score.distortions: unknown distortion 'jpg'"),
        (["score.distortions=[kadid]"], "score.distortions: 'kadid' is a group"),
        (["pool.sources=[/nowhere/photographs]"], r"pool.sources\[0\]: there is no file or folder '/nowhere/photo"),
        (["pool.sources=['koniq10k:/nowhere']"], r"pool.sources\[0\]: benchmark koniq10k: /nowhere is not a folder"),
        (["pool.sources=['$NOT_SET_AT_ALL/x']"], r"pool.sources\[0\]: the variable \$NOT_SET_AT_ALL"),
        (["evaluate=[{ratings: 'csv:/nowhere.csv'}]"], r"evaluate\[0\]: .*/nowhere.csv"),
        (["sources=[{ratings: 'koniq:/data'}]"], r"sources\[0\]: benchmark 'koniq:/data' is not of the form"),
        (["sources=[{pool: /no/pool, labels: /no/labels}]"], r"\(1\) sources\[0\].pool: .*\(2\) sources\[0\].labels: "),
    ],
)
def test_every_part_is_checked(settings: list[str], words: str, tmp_path: Path):
    said = faults(check_run, tmp_path, *settings)
    assert re.search(words, said), said


def test_parts_of_a_benchmark_are_checked_without_its_images(ratings: str, tmp_path: Path):
    assert faults(check_run, tmp_path, f"evaluate=[{{ratings: '{ratings}'}}]") == ""
    for section, words in (
        ("split: validation", "no split 'validation'"),
        ("subsets: [indoor]", "subsets is ['indoor']"),
        ("images: 99", "images is 99"),
        ("without_fold: 9/5", "without_fold is '9/5'"),
    ):
        assert words in faults(check_run, tmp_path, f"sources=[{{ratings: '{ratings}', {section}}}]")
    fuse = [f"teachers={{one: {FIT}, two: {FIT}}}".replace("R}", f"'{ratings}'}}"), "label={}", "score=null"]
    said = faults(check_run, tmp_path, *fuse, f"fuse={{ratings: '{ratings}', split: test}}")
    assert "fuse.ratings: nothing is calibrated on the test part" in said


def test_all_faults_come_at_once_and_equal_ones_once(ratings: str, tmp_path: Path):
    two = f"teachers={{one: {FIT}, two: {FIT}}}".replace("R}", "'csv:/nowhere.csv'}")
    said = faults(check_run, tmp_path, two, "label={}", "fuse={}", "score=null", "distill.student.name=no_backbone")
    assert "has 2 faults: (1) teachers.one.sources[0], teachers.two.sources[0]: " in said
    assert "(2) distill.student: timm has no backbone 'no_backbone'" in said
    assert "\n" not in said


def test_a_teacher_that_cannot_be_fitted_is_noticed(ratings: str, tmp_path: Path):
    fit = f"fit={{teacher: reference, sources: [{{ratings: '{ratings}'}}]}}"
    assert "fit.teacher: teacher 'reference' cannot be fitted" in faults(check_fits, tmp_path, fit)
    good = "fit=" + FIT.replace("R}", f"'{ratings}'}}")
    assert faults(check_fits, tmp_path, good, "label.teacher=referense") == ""  # the labels are another command's
    assert faults(check_student, tmp_path, good, "label.teacher=referense") == ""


SEAGULL = "variant: tiny, pretrained: false, precision: fp32, head: new"


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ("{teacher: seagull, options: {%s, lora_rank: 4}, sources: S}", "fit.sources[0].pool: "),
        ("{teacher: seagull, options: {%s}, sources: S}", "fit.options.lora_rank: 0, by which nothing learns"),
        ("{teacher: qfm_iqm, options: {backbone: test_efficientnet, pretrained: false}, sources: S}",
         "fit.teacher: teacher 'qfm_iqm' does not learn from regions: fit seagull"),
        ("{teacher: seagull, options: {%s, lora_rnk: 4}, sources: S}", "'lora_rnk'; its options are: variant"),
        ("{teacher: seagull, options: {%s, lora_rank: 4}}", "'fit' has nothing to learn from: give it 'sources', or"),
        ("{teacher: seagull, sources: S, losses: {plcc: 0}}", "fit.losses is of ratings"),
        ("{teacher: seagull, sources: [{pool: /p, labels: /l, regions: /r, region_labels: /rl}]}", "mixes regions"),
        ("{teacher: seagull, sources: [{pool: /p, regions: /r, region_labels: /rl, weight: 2}]}", "has a weight"),
        ("{teacher: qfm_iqm, sources: [{pool: /p, labels: /l}], exports: [merged]}", "fit.exports is of teachers that"),
    ],
)  # fmt: skip
def test_a_fitting_to_regions_is_checked(fit: str, words: str, tmp_path: Path):
    source = "[{pool: /no/pool, regions: /no/regions, region_labels: /no/labels}]"
    fit = "fit=" + fit.replace("%s", SEAGULL).replace("sources: S", f"sources: {source}")
    less = ("pool=null", "distort=null", "label=null", "distill=null", "score=null")
    try:
        said = faults(check_run, tmp_path, fit, *less)
    except PocketiqaError as error:  # of the recipe itself
        said = str(error)
    assert words in said
    assert "\n" not in said


def test_what_the_run_itself_makes_need_not_be_there(tmp_path: Path):
    own = f"sources=[{{pool: {tmp_path}/run/pool, labels: {tmp_path}/run/merged-labels}}]"
    assert faults(check_run, tmp_path, own, f"distill.student.init={tmp_path}/run/merged") == ""


def test_the_recipe_that_makes_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    said = faults(check_run, tmp_path, "distill.student.init=runs/biq2021_teacher/merged")
    assert said.endswith("(what is missing is made by: pocketiqa run biq2021_teacher)")


def test_a_folder_that_cannot_be_written_is_noticed(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PocketiqaError, match=r"out: .*file is a file, but a folder is needed"):
        check_run(open_run("tiny", tmp_path / "file" / "run", []))


def test_a_run_into_an_object_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As ``out: s3://bucket/run`` in a recipe; on the command line, ``commands.options`` refuses it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PocketiqaError, match="out: s3://bucket/run is an address, and only local paths"):
        check_run(open_run("tiny", Path("s3://bucket/run"), []))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "fit-teacher", "distill"])
def test_no_stage_of_a_command_runs_before_the_check(
    command: str, ratings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    changes: dict[str, Any] = {
        "run": ["label.teacher=referense"],
        "fit-teacher": ["fit={teacher: referense, sources: [{ratings: 'csv:x'}]}"],
        "distill": ["label=null", "pool=null", "distort=null", "score=null", "sources=[{ratings: 'csv:/nowhere'}]"],
    }
    words = [part for setting in changes[command] for part in ("--set", setting)]
    assert run_cli(app, [command, "tiny", "--out", str(tmp_path / "run"), *words]) == 1
    printed = capsys.readouterr()
    assert "recipe 'tiny-student'" in printed.err
    assert printed.out == ""
    assert not (tmp_path / "run").exists()


def test_bundled_photographs_are_no_path(tmp_path: Path):
    assert faults(check_run, tmp_path, f"pool.sources=['{BUNDLED}']") == ""
