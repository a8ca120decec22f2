"""The public names: what they are, what type checkers see, and what they load."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pocketiqa

ROOT = Path(__file__).parents[2]
NAMES = [
    *("__version__", "Scorer", "Result", "RegionResult", "Population", "score", "build_teacher", "label", "LabelStore"),
    "distill",
    *("evaluate", "load_student", "list_models"),
]


def python(program: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True)


def typed_imports() -> dict[str, tuple[str, str]]:
    """Public name -> module and name there, as the ``TYPE_CHECKING`` block has it."""
    tree = ast.parse((ROOT / "pocketiqa/__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_public_names_are_there():
    assert pocketiqa.__all__ == NAMES
    assert dir(pocketiqa) == sorted(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_what_is_imported_is_what_type_checkers_see(name: str):
    module, attribute = typed_imports()[name]
    assert getattr(pocketiqa, name) is getattr(importlib.import_module(module), attribute)
    assert (ROOT / "pocketiqa/py.typed").is_file()


def test_names_are_imported_when_first_used_and_then_kept():
    done = python(
        "import sys, pocketiqa; before = set(sys.modules)\n"
        "assert not {'numpy', 'students', 'distill', 'teachers', 'pseudo_labels'} & before, before\n"
        "scorer = pocketiqa.Scorer\n"
        "assert 'students.runtime' in sys.modules and vars(pocketiqa)['Scorer'] is scorer\n"
    )
    assert done.returncode == 0, done.stderr


def refusing(*packages: str) -> str:
    """A program's first lines, after which these packages are as good as not installed."""
    return f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"not in the base install: {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def test_scoring_needs_the_base_install_only(tmp_path: Path):
    done = python(
        refusing("torch", "pyarrow", "pydantic", "scipy", "timm", "safetensors", "onnx")
        + "import numpy as np\nfrom pocketiqa import RegionResult, Result, Scorer, __version__, list_models, score\n"
        "image = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)\n"
        "for name in list_models():\n"
        "    assert score(image, name).score == Scorer(name).score(image).score\n"
        "assert isinstance(score(image), Result)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "package"), [("load_student", "torch"), ("LabelStore", "pyarrow")])
def test_names_that_need_more_say_what_to_install(name: str, package: str):
    done = python(
        refusing(package)
        + f"import pocketiqa\ntry:\n    pocketiqa.{name}\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    )
    assert done.stdout.startswith(f"pocketiqa.{name} needs {package}"), done.stderr
    assert done.stdout.endswith("pip install '.[train]'\n")  # this is a clone


def test_version_is_that_of_the_project_whether_installed_or_not():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert pocketiqa.__version__ == project["version"]
    # Without the site packages nothing is installed; the project file remains.
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import pocketiqa; print(pocketiqa.__version__)"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == project["version"], done.stderr


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'Scorrer'; it has __version__, Scorer"):
        pocketiqa.Scorrer  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
