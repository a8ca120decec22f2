from pathlib import Path

import pytest
import yaml

from distill.comparison.config import load_comparison
from distill.recipe import recipe as recipe_module
from distill.recipe.recipe import find_recipe, load_recipe, recipe_folders
from distill.study.cells import cells_of
from distill.study.config import load_study
from pseudo_labels.errors import PocketiqaError, RenamedWarning
from tests.helpers.shared import shared_data

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
STUDIES = [path for path in FILES if "arms" in yaml.safe_load(path.read_text())]
COMPARISONS = [path for path in FILES if "rows" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_and_study_is_valid_short_and_says_its_command(path: Path, monkeypatch: pytest.MonkeyPatch):
    text = path.read_text()
    if path in STUDIES:
        monkeypatch.setenv("POCKETIQA_SHARED_DATA", str(shared_data()))
        cells_of(load_study(str(path)))
    elif path in COMPARISONS:
        load_comparison(str(path), [])
    else:
        load_recipe(str(path))
    assert len(text.splitlines()) <= 70
    command = "study" if path in STUDIES else "compare" if path in COMPARISONS else "run"
    assert text.startswith(f"# pocketiqa {command} {path.stem}")
    assert "Cost:" in text
    assert "Expected:" in text


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_no_study_that_comes_along_reads_a_test_part(path: Path):
    text = path.read_text()
    assert "split: validation" in text
    assert "split: test" not in text
    assert "split: all" not in text


def test_a_recipe_is_found_by_name_and_by_path(tmp_path: Path):
    copy = tmp_path / "mine.yaml"
    copy.write_bytes((CONFIGS / "tiny.yaml").read_bytes())
    assert find_recipe("tiny") == recipe_folders()[0] / "tiny.yaml"
    assert load_recipe(str(copy)) == load_recipe("tiny")


def test_the_checkout_wins_over_an_installed_copy_of_its_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipe_module.sysconfig, "get_path", lambda _: str(tmp_path))
    installed = tmp_path / "share/pocketiqa/configs"
    installed.mkdir(parents=True)
    for name in ("tiny", "other"):
        (installed / f"{name}.yaml").write_text("older: true")
    assert find_recipe("tiny") == CONFIGS / "tiny.yaml"
    assert find_recipe("other") == installed / "other.yaml"


def test_beside_installed_packages_no_recipe_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packages = tmp_path / "site-packages"
    (packages / "configs").mkdir(parents=True)
    (packages / "configs" / "foreign.yaml").write_text("of: others")
    monkeypatch.setattr(recipe_module, "__file__", str(packages / "distill/recipe/recipe.py"))
    with pytest.raises(PocketiqaError, match="no recipe 'foreign'"):
        find_recipe("foreign")


def test_a_study_is_not_a_recipe():
    with pytest.raises(PocketiqaError, match=r"is a study of many runs: walk it with 'pocketiqa study ablation'"):
        load_recipe("ablation")


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_a_comparison_is_not_a_recipe(path: Path):
    with pytest.raises(PocketiqaError, match=f"is a comparison of many models: make it with 'pocketiqa compare {path}"):
        load_recipe(str(path))


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(PocketiqaError, match=r"no recipe 'quikstart'.*tiny.*did you mean 'quickstart'"):
        find_recipe("quikstart")


def _write(tmp_path: Path, **changes: object) -> str:
    tree = yaml.safe_load((CONFIGS / "tiny.yaml").read_text())
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return str(path)


def test_settings_and_out_replace_values(tmp_path: Path):
    recipe = load_recipe("tiny", ["distill.steps=17", "pool.sources=[a, b]"], tmp_path / "x")
    assert recipe.distill
    assert (recipe.distill.steps, recipe.pool and recipe.pool.sources, recipe.out) == (17, ["a", "b"], tmp_path / "x")


@pytest.mark.parametrize("name", ["near_distance", "near_duplicate_distance"])
def test_settings_replace_a_value_under_an_old_name(tmp_path: Path, name: str):
    path = _write(tmp_path, pool={"sources": ["a"], "near_distance": 2})
    with pytest.warns(RenamedWarning):
        recipe = load_recipe(path, [f"pool.{name}=3"])
    assert recipe.pool
    assert recipe.pool.near_duplicate_distance == 3


def test_a_bare_no_is_a_precision_and_not_a_truth_value():
    recipe = load_recipe("tiny", ["distill.mixed_precision=no"])
    assert recipe.distill
    assert recipe.distill.mixed_precision == "no"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["distil.steps=1"], r"unknown key 'distil'; did you mean 'distill'"),
        (["distill.stepz=1"], r"unknown key 'distill.stepz'; did you mean 'steps'"),
        (["distort.per_image=0"], r"distort.per_image = 0: .*greater than or equal to 1"),
        (["label.teacher=null"], r"'label' names no teacher: add label.teacher, or a section 'fit'"),
        (["distill=null"], r"'score' needs the section 'distill'"),
        (["distill=null", "score=null"], r"nothing learns: add 'distill' for a student, or 'fit' for a teacher"),
        (["fit.sources=[]", "fit.teacher=x"], r"'fit' has nothing to learn from: give it 'sources'"),
        (
            ["fit.sourcez=[]", "fit.teacher=x", "fit.sources=[{ratings: a}]"],
            r"unknown key 'fit.sourcez'; did you mean 'sources'",
        ),
        (["name=a/b"], r"name = 'a/b'"),
    ],
)
def test_a_wrong_key_or_value_is_named(settings: list[str], message: str):
    with pytest.raises(PocketiqaError, match=message):
        load_recipe("tiny", settings)


def test_stages_that_lack_their_input_are_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="'distort' needs the section 'pool'"):
        load_recipe(_write(tmp_path, pool=None, label=None))
    with pytest.raises(PocketiqaError, match="nothing to learn from"):
        load_recipe(_write(tmp_path, label=None))


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1", "\xff"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(PocketiqaError, match=r"broken\.yaml"):
        load_recipe(str(path))
