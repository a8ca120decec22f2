"""Held-out originals against distorted copies, as the exported model scores them."""

from pathlib import Path

import pytest
from PIL import Image

from distill.stages.context import Run, open_run
from distill.stages.demonstration import demonstration_stages, file_names, one_of_each_scene, read_demonstration
from distill.stages.evaluation import held_out
from pseudo_labels.distort import distort
from pseudo_labels.images import load
from pseudo_labels.pool import build_pool
from students.runtime import Scorer
from tests.helpers.pools import write_photographs


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


def test_of_one_scene_the_photograph_that_is_shown_has_its_own_name(tmp_path: Path):
    first, _ = write_photographs(tmp_path / "photographs", images=2)
    Image.open(first).point(lambda value: value * 0.95).save(tmp_path / "photographs" / "0-zz-darker.png")
    run = open_run("tiny", tmp_path / "run", [])
    pool = build_pool([str(tmp_path / "photographs")], run.pool)
    assert [ref.group == pool[0].id for ref in pool] == [True, True, False]
    names = file_names(run)
    assert [names[ref.id] for ref in one_of_each_scene(pool)] == ["0-astronaut", "1-coffee"]
    # Where the first of a scene has no label, the second is shown.
    assert [names[ref.id] for ref in one_of_each_scene(list(pool)[1:])] == ["0-zz-darker", "1-coffee"]
    # Shrunk copies have other ids: they go by their scene.
    assert names[pool[1].group] == "0-astronaut"


@pytest.mark.parametrize(("setting", "count"), [("score=null", 0), ("score.images=2", 1)])
def test_the_stage_is_there_if_the_recipe_has_the_section(setting: str, count: int):
    assert len(demonstration_stages(open_run("tiny", None, [setting]))) == count
