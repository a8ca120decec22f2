"""A recipe that fits SEAGULL to the regions that it makes itself, as a user runs it, and what becomes of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.cli import app
from distill.data.split import Part, read_split
from distill.stages.context import open_run
from distill.terminal import console
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.regions.store import RegionLabelStore, RegionSet
from teachers.registry import build_teacher
from teachers.seagull.teacher import SeagullTeacher
from tests.helpers.pools import write_photographs


def pocketiqa(*words: object, settings: tuple[str, ...] = ()) -> int:
    set_words = [word for setting in settings for word in ("--set", setting)]
    return console.run_cli(app, [*map(str, words), *set_words])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The recipe on small photographs, so that it takes seconds."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, images=6, max_side=96)
    return (
        f'pool.sources=["{folder}"]', "regions.by=grid:2x2", "regions.per_image=1", "fit.steps=2",
        "fit.validate_every_steps=2", "fit.batch_size=4", "fit.options.most_tokens=4",
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "seagull"
    assert pocketiqa("run", "seagull_tiny", "--out", folder, settings=settings) == 0
    return folder


def test_every_stage_runs_and_is_skipped_the_second_time(
    out: Path, settings: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    made = ("pool", "regions", "region-copies", "region-copy-labels", "fit", "fit-export", "region-evaluation")
    for folder in made:
        assert json.loads((out / folder / "manifest.json").read_text())["complete"], folder
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert pocketiqa("run", "seagull_tiny", "--out", out, settings=settings) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("unchanged, skipped") == len(made)
    assert str(out / "region-evaluation" / "regions.json") in printed.replace(" ", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_the_evaluation_is_of_held_out_scenes_by_the_fitted_teacher(out: Path):
    """Against the teacher asked by its folder, region by region."""
    record = json.loads((out / "region-evaluation" / "regions.json").read_text())
    assert record["part"] == "test"
    pool, regions = Pool.open(out / "region-copies"), RegionSet.open(out / "regions")
    labels = {(row.image, row.region): row for row in RegionLabelStore.open(out / "region-copy-labels").rows()}
    parts, teacher = read_split(out / "fit").parts, build_teacher(str(out / "fit" / "teacher"))
    assert isinstance(teacher, SeagullTeacher)
    given, wanted = [], []
    for ref in pool:
        if parts.get(ref.id) == Part.TEST:
            own = regions.regions_of(ref.ref_id or ref.id)
            for region, score in zip(
                own, teacher.score_regions(pool.load(ref), [one.mask() for one in own]), strict=True
            ):
                given.append(np.nan_to_num(score.quality, nan=0.5))
                wanted.append(labels[ref.id, region.region].quality)
    (figures,) = record["sources"].values()
    assert figures["regions"] == len(given) == record["answers"]["regions"]
    expected = float(spearmanr(given, wanted).statistic)  # type: ignore[attr-defined]
    value = figures["quality"]["models"]["teacher"]["srcc"]["value"]
    assert value == pytest.approx(expected) if np.isfinite(expected) else value is None
    assert set(figures["quality"]["models"]) == {"teacher", "area"}


def test_the_exports_are_read_by_others_and_score_alike(out: Path):
    adapters = {path.name for path in (out / "fit-export" / "adapters").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.safetensors"} <= adapters
    fitted = build_teacher(str(out / "fit" / "teacher"))
    options = {"variant": "tiny", "precision": "fp32", "most_tokens": 4}
    merged = build_teacher("seagull", **options, weights=out / "fit-export" / "merged")
    assert isinstance(fitted, SeagullTeacher)
    assert isinstance(merged, SeagullTeacher)
    pool = Pool.open(out / "pool")
    image = pool.load(pool[0])
    mask = np.zeros(image.shape[:2], bool)
    mask[:40, :40] = True
    (one,), (other,) = (teacher.score_regions(image, [mask]) for teacher in (fitted, merged))
    assert one.answers["quality"] == other.answers["quality"]


def test_a_fitted_folder_and_the_merged_export_label_regions(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Few steps teach no sentences, so that there are answers without a level word: rows with a status, none lost."""
    words = ("label-regions", out / "region-copies", "--regions", out / "regions", "--max-failed-fraction", 1)
    folders = (
        (out / "fit" / "teacher", ()),
        ("seagull", ("variant=tiny", "precision=fp32", "most_tokens=4", f"weights={out / 'fit-export' / 'merged'}")),
    )
    for number, (teacher, options) in enumerate(folders):
        given = [word for option in options for word in ("--option", option)]
        labels = tmp_path / f"labels{number}"
        assert pocketiqa(*words, "--teacher", teacher, *given, "--device", "cpu", "--out", labels) == 0
        rows = [row for row in RegionLabelStore.open(labels).rows() if row.region]
        assert len(rows) == 3 * len(Pool.open(out / "region-copies"))
        for row in rows:
            assert row.status in (Status.OK, Status.FAILED)
            assert (0 <= row.quality <= 1) if row.status == Status.OK else "has no level word" in row.reason
        assert pocketiqa("audit", labels) == 0
    assert "without fault" in capsys.readouterr().out


def test_a_checkpoint_that_is_incomplete_or_of_another_family_is_one_line(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("label-regions", out / "pool", "--regions", out / "regions", "--out", tmp_path / "labels")
    (shard,) = (out / "fit-export" / "merged").glob("model-*.safetensors")
    for spoil, said in (
        (
            lambda folder: (folder / shard.name).unlink(),
            f"lacks {shard.name} of the 1 files that model.safetensors.index",
        ),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llava"}'),
            "of the type 'llava', not 'sea",
        ),
    ):
        folder = tmp_path / said[:5]
        shutil.copytree(out / "fit-export" / "merged", folder)
        spoil(folder)
        options = ("--option", "variant=tiny", "--option", f"weights={folder}")
        assert pocketiqa(*words, "--teacher", "seagull", *options) == 1
        # Beside the bar of the progress.
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert said in line
        assert not (tmp_path / "labels").exists()


def test_fit_teacher_names_what_must_run_before(
    out: Path, settings: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert pocketiqa("fit-teacher", "seagull_tiny", "--out", tmp_path / "run", settings=settings) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "learns from regions that are not made yet" in error
    assert "run `pocketiqa run seagull_tiny" in error
    # Of the earlier stages alone, it fits the same teacher.
    again = tmp_path / "again"
    for folder in ("pool", "regions", "region-copies", "region-copy-labels"):
        shutil.copytree(out / folder, again / folder)
    assert pocketiqa("fit-teacher", "seagull_tiny", "--out", again, settings=settings) == 0
    assert "pocketiqa label-regions POOL --regions REGIONS --teacher" in " ".join(capsys.readouterr().out.split())
    file = Path("fit/teacher/fitted.safetensors")
    assert (again / file).read_bytes() == (out / file).read_bytes()
    assert (again / "fit-export" / "merged" / "config.json").is_file()
    assert open_run("seagull_tiny", again, settings).recipe.fits_own_regions


def test_regions_of_another_run_are_sources(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The third way beside ``run``: regions that were made and labelled before."""

    def source(labels: str) -> str:
        return (
            f'fit.sources=[{{pool: "{out}/region-copies", regions: "{out}/regions", region_labels: "{out}/{labels}"}}]'
        )

    less = ("pool=null", "regions=null", "fit.exports=[]", "fit.steps=2", "fit.options.most_tokens=4")
    settings = (*less, source("region-copy-labels"))
    assert pocketiqa("fit-teacher", "seagull_tiny", "--out", tmp_path / "run", settings=settings) == 0
    seen = (tmp_path / "run" / "fit" / "teacher" / "seen.txt").read_text().split()
    assert set(seen) <= {ref.id for ref in Pool.open(out / "region-copies")}
    settings = (*less, source("nowhere"))
    assert pocketiqa("fit-teacher", "seagull_tiny", "--out", tmp_path / "none", settings=settings) == 1
    assert "fit.sources[0].region_labels" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()
