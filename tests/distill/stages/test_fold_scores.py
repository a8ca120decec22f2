import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.ratings import choose_rated
from distill.recipe.recipe import load_recipe
from distill.stages.fold_scores import check_sources, fold_scores, held_out_rows
from pseudo_labels.errors import PocketiqaError
from students.runtime import Scorer
from tests.helpers.training import texture

SCENES, VERSIONS = 12, 2


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of ratings alone: noisy textures of twelve scenes, of which one subset counts twice."""
    folder = tmp_path_factory.mktemp("folds")
    lines = ["image,mos,group,subset"]
    for scene in range(SCENES):
        for version in range(VERSIONS):
            name = f"{scene}-{version}.png"
            Image.fromarray(texture(scene, 30.0 * version, (72, 80))).save(folder / name)
            lines.append(f"{name},{0.8 - 0.4 * version},scene {scene},{'odd' if scene % 2 else 'even'}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    path = folder / "folds.yaml"
    path.write_text(
        f"""
name: folds
out: {folder / "run"}
sources:
  - {{ratings: "csv:{folder / "ratings.csv"}"}}
  - {{ratings: "csv:{folder / "ratings.csv"}", subsets: [odd], weight: 2}}
distill:
  student: {{name: test_efficientnet}}
  steps: 2
  batch_size: 4
  validate_every_steps: 2
  checkpoint_every_steps: 2
  threads: 1
  images: {{crop_size: 64}}
  split: {{validation: 0.2}}
  optimizer: {{warmup_steps: 1}}
  tracker: none
"""
    )
    return path


def test_what_one_source_learns_from_is_no_other_ones_fold(recipe: Path):
    ratings = recipe.parent / "ratings.csv"
    lines = [line.rsplit(",", 2)[0] for line in ratings.read_text().splitlines()]
    (recipe.parent / "scenes-unknown.csv").write_text("\n".join(lines) + "\n")
    both = [f"csv:{path}" for path in (ratings, ratings.with_name("scenes-unknown.csv"))]
    sources = json.dumps([{"ratings": spec, "without_fold": "1/2"} for spec in both])
    given = load_recipe(str(recipe), [f"sources={sources}"], None)
    held = {row.path for row in held_out_rows(given)}
    assert 0 < len(held) < SCENES * VERSIONS / 2
    for spec in both:
        rows, _ = choose_rated(spec, None, subsets=None, images=None, without_fold="1/2", seed=given.seed)
        assert not held & {row.path for row in rows.rows}


def test_each_photograph_is_scored_by_the_student_that_lacks_its_scene(recipe: Path, tmp_path: Path):
    out, runs = tmp_path / "scores.csv", tmp_path / "runs"
    made = fold_scores(str(recipe), out, runs, folds=2)
    rows = list(csv.DictReader(out.open()))
    assert (made.photographs, made.left_out) == (SCENES * VERSIONS, 0)
    assert len({row["path"] for row in rows}) == SCENES * VERSIONS
    ratings = f"csv:{recipe.parent / 'ratings.csv'}"
    for number in (1, 2):
        own = [row for row in rows if row["fold"] == str(number)]
        learned, _ = choose_rated(ratings, None, subsets=None, images=None, without_fold=f"{number}/2", seed=0)
        assert {row.path for row in learned.rows}.isdisjoint(row["path"] for row in own)
        scorer = Scorer(next((runs / f"fold-{number}").rglob("*.onnx")))
        assert float(own[0]["score"]) == pytest.approx(scorer.score(own[0]["path"]).score, abs=1e-6)
        # Scenes stay whole.
        assert all(len([row for row in own if Path(row["path"]).name.split("-")[0] == name]) == VERSIONS
                   for name in {Path(row["path"]).name.split("-")[0] for row in own})  # fmt: skip
    # The runs are there: the same again trains nothing, and replaces nothing unasked.
    models = {path: path.stat().st_mtime_ns for path in runs.rglob("*.onnx")}
    fold_scores(str(recipe), tmp_path / "again.csv", runs, folds=2)
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*.onnx")} == models
    assert np.std([float(row["score"]) for row in rows]) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['sources=[{ratings: "biq2021:x"}, {pool: p, labels: l}]'], "has labels of a teacher among what"),
        (
            ["levels={names: [all], drops: [{distortions: [all], least: 0.1}]}", "pool={sources: [x]}"],
            "has levels among",
        ),
        (['sources=[{ratings: "biq2021:x", without_fold: 1/5}]'], "has without_fold among what"),
        (["distill.student.init=pocket-s"], "begins from pocket-s, which may have learned"),
    ],
)
def test_what_may_have_seen_a_fold_is_refused(settings: list[str], message: str, recipe: Path):
    with pytest.raises(PocketiqaError, match=message):
        check_sources(load_recipe(str(recipe), settings, None))


def test_one_fold_is_refused(recipe: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match="--folds is 1: 2 or more"):
        fold_scores(str(recipe), tmp_path / "x.csv", tmp_path / "runs", folds=1)
    assert not (tmp_path / "x.csv").exists()


def test_the_project_s_own_recipe_of_ratings_alone_can_be_taken():
    recipe = load_recipe("biq2021_labels_alone", [], None)
    check_sources(recipe)
    with pytest.raises(PocketiqaError, match="levels, labels of a teacher"):
        check_sources(load_recipe("biq2021_pocket_m", [], None))
