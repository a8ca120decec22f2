"""The layers of the house: who may import whom, what must start without torch, and what must never be there."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    "pseudo_labels": set(),
    "teachers": {"pseudo_labels"},
    "students": {"pseudo_labels"},
    "distill": {"pseudo_labels", "teachers", "students"},
    "pocketiqa": {"pseudo_labels", "teachers", "students", "distill"},
}
FILES = sorted(file for package in LAYERS for file in (ROOT / package).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_no_layer_imports_one_above_it():
    for file in FILES:
        package = file.relative_to(ROOT).parts[0]
        ours = {name.split(".")[0] for name in imported(file)} & set(LAYERS)
        assert ours <= LAYERS[package] | {package}, file


# Reads tensors that others saved, for teachers and students alike; nothing else in its package may import it.
TORCH_IN_LAYER_0 = ROOT / "pseudo_labels/tensor_files.py"


def test_pseudo_labels_imports_no_torch():
    for file in FILES:
        if file.relative_to(ROOT).parts[0] == "pseudo_labels" and file != TORCH_IN_LAYER_0:
            names = set(imported(file))
            assert "torch" not in {name.split(".")[0] for name in names}, file
            assert "pseudo_labels.tensor_files" not in names, file


def test_no_pickle_is_read_or_written():
    for file in FILES:
        names = {name.split(".")[0] for name in imported(file)}
        assert not names & {"dill", "cloudpickle", "joblib", "shelve", "marshal"}, file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                # torch refuses unsafe files with this error, which is told to the user.
                assert node.attr == "UnpicklingError", f"{file}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save", "np.load"):
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                safe = words.get("weights_only") == "True" or words.get("allow_pickle") == "False"
                assert safe, f"{file}:{node.lineno}"


def test_configs_and_tests_are_no_packages():
    assert not list((ROOT / "configs").rglob("*.py"))
    assert not list((ROOT / "tests").rglob("__init__.py"))


BASE = {"numpy", "PIL", "onnxruntime", "typer", "rich"}
HEAVY = ("torch", "torchvision", "timm", "accelerate", "datasets", "scipy", "pyarrow", "skimage", "sklearn", "pydantic",
         "yaml", "onnx", "matplotlib", "pandas", "fsspec", "safetensors", "imagehash", "piq")  # fmt: skip


BASE_INSTALL = ["students.runtime", "pseudo_labels.images", "distill.cli", "distill.commands.scoring", "pocketiqa"]


@pytest.mark.parametrize("module", BASE_INSTALL)
def test_the_base_install_suffices(module: str):
    # An import of anything heavy fails, as it would where only the base dependencies are installed.
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"not in the base install: {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
import {module}
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
