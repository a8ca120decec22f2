"""Held-out originals against distorted copies, as the exported model scores them."""

from pathlib import Path

import pytest

from distill.stages.context import Run, open_run
from distill.stages.demonstration import demonstration_stages, read_demonstration
from distill.stages.evaluation import held_out
from pseudo_labels.distort import distort
from pseudo_labels.images import load
from students.runtime import Scorer


def test_scores_are_those_of_the_files_beside_them(tiny_run: Run):
    scorer = Scorer(tiny_run.model)
    for photograph in read_demonstration(tiny_run):
        assert list(photograph.files) == ["original", "gaussian_blur"]
        for version, file in photograph.files.items():
            assert scorer.score(tiny_run.demonstration / file).score == photograph.scores[version]


def test_copies_are_the_catalogues_distortions_of_a_held_out_original(tiny_run: Run):
    out, section = held_out(tiny_run), tiny_run.recipe.score
    assert section is not None
    (photograph,) = read_demonstration(tiny_run)
    id = Path(photograph.files["original"]).name.removesuffix("-original.png")
    assert id in out.ids
    original = load(tiny_run.demonstration / photograph.files["original"])
    expected = distort(original, "gaussian_blur", section.level, seed=tiny_run.recipe.seed, image_id=id)
    assert (load(tiny_run.demonstration / photograph.files["gaussian_blur"]) == expected).all()


def test_names_are_those_of_the_photographs(tiny_run: Run):
    names = {path.stem for path in (tiny_run.out.parent / "photographs").iterdir()}
    assert {photograph.name for photograph in read_demonstration(tiny_run)} <= names


@pytest.mark.parametrize(("setting", "count"), [("score=null", 0), ("score.images=2", 1)])
def test_the_stage_is_there_if_the_recipe_has_the_section(setting: str, count: int):
    assert len(demonstration_stages(open_run("tiny", None, [setting]))) == count
