"""The layers of the house: who may import whom, what must start without torch, and what must never be there."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.imports import FILES, LAYERS, NAMES, ROOT, modules_imported


def imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FOLDERS = (
    *(
        "distill",
        "distill/commands",
        "distill/browser",
        "distill/serving",
        "distill/trust",
        "distill/scoring",
        "distill/study",
        "distill/comparison",
        "distill/stages",
        "distill/report",
    ),
    *("distill/stress", "distill/leakage", "distill/training", "distill/data", "distill/evaluation"),
    *("distill/recipe", "distill/html", "distill/terminal"),
)
"""Folders of ``distill``, from the command line down: each may import those behind it (``docs/architecture.md``)."""

BORDER = {
    "pocketiqa/__init__.py",  # the public face imports what a name needs when it is asked for
    "distill/commands/best.py",
    "distill/commands/browser.py",
    "distill/commands/changes.py",
    "distill/commands/comparisons.py",  # commands import what they need when they are called,
    "distill/commands/data.py",  # so that --help and score start without torch
    "distill/commands/doctor.py",
    "distill/commands/formats.py",
    "distill/commands/looks.py",
    "distill/commands/meaning.py",
    "distill/commands/models.py",
    "distill/commands/options.py",  # what a shell completes
    "distill/commands/regions.py",
    "distill/commands/score.py",
    "distill/commands/serve.py",
    "distill/commands/trust.py",
    "distill/commands/types.py",
    "distill/scoring/inputs.py",  # tables need pyarrow
    "distill/evaluation/predictions.py",  # an exported student is evaluated without torch
    "distill/evaluation/targets.py",
    "distill/leakage/extractor.py",
    "distill/leakage/extractors.py",  # as are features without a network
    "distill/stages/evaluation.py",  # what teachers of regions need is imported for them alone
    "distill/stages/fitting.py",
    "distill/terminal/summaries.py",
    "students/registry.py",  # torchvision is imported for the published student alone
    "students/storage.py",
    "teachers/embedded/__init__.py",
    "teachers/fitted_folder.py",
    "teachers/reference_curves.py",
    "teachers/registry.py",  # teachers are listed without torch
}
"""The border of torch: the only files that import ours inside a function or for type checkers alone."""


def test_no_module_imports_itself_through_others():
    """Peel off the modules that import nothing of what is left; what cannot be peeled off is a circle."""
    left = {name: modules_imported(file) - {name} for name, file in NAMES.items()}
    while True:
        free = {name for name, imports in left.items() if not imports & set(left)}
        if not free:
            break
        left = {name: imports for name, imports in left.items() if name not in free}
    assert sorted(left) == []


def test_no_arrow_of_distill_runs_back_up():
    level = {folder: number for number, folder in enumerate(FOLDERS)}

    def level_of(file: Path) -> int:
        return level["/".join(file.relative_to(ROOT).parent.parts[:2])]

    for name, file in NAMES.items():
        if name.startswith("distill."):
            above = [other for other in modules_imported(file) if other.startswith("distill.")]
            assert [other for other in above if level_of(NAMES[other]) < level_of(file)] == [], name


def test_only_the_border_of_torch_imports_late():
    late = set()
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            ours = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LAYERS
            if ours and node not in tree.body:
                late.add(str(file.relative_to(ROOT)))
    assert late == BORDER


def test_no_call_has_more_than_five_positional_arguments():
    """But of functions that are not ours, where the order is the interface (``functional.conv2d``, ``struct.pack``)."""
    foreign = {"functional.conv2d", "tag"}  # ``tag`` takes the children of an element
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) not in foreign:
                given = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
                assert len(given) <= 5, f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}"


def test_the_rooms_are_neither_too_many_nor_too_small():
    """A number of lines for each file, and not a number of files: the house grows with what it can do."""
    lines = [line for file in FILES for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert 110 <= len(lines) / len(FILES) <= 180


def test_modules_have_a_test_of_their_own():
    large = [file for file in FILES if len(file.read_text().splitlines()) > 60 and file.name != "__init__.py"]
    bare = [
        str(file.relative_to(ROOT))
        for file in large
        if not (ROOT / "tests" / file.relative_to(ROOT).with_name(f"test_{file.name}")).exists()
    ]
    assert len(bare) <= 0.1 * len(large), bare


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


# Write files by themselves: the writers, what is appended to, what is staged, and folders for a moment.
WRITERS = {
    "pseudo_labels/files.py",
    "pseudo_labels/outputs.py",
    "pseudo_labels/object_cache.py",  # entries are staged, then renamed
    "distill/scoring/resuming.py",  # appends, under the lock of the output
    "pseudo_labels/moves.py",  # appends, under the lock of the folder; and moves files of users
    "distill/training/history.py",  # appends
    "distill/study/cells.py",  # in a temporary folder
    "distill/stages/measuring.py",
    "teachers/qfm_iqm/weight_average.py",
    "teachers/fitted_folder.py",  # copies into a staged folder
}
IN_MEMORY = {"data", "buffer", "sink", "stored"}
"""Names of what is written to in memory."""


def test_every_file_is_written_by_the_writers():
    """Whole or not at all: by ``write_atomic``, ``new_file`` or into a ``staged`` folder."""
    for file in FILES:
        if str(file.relative_to(ROOT)) in WRITERS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert not _writes_a_file(node), f"{file}:{node.lineno} {ast.unparse(node)}"


def _writes_a_file(call: ast.Call) -> bool:
    words = ast.unparse(call)
    if "staged" in words or "os.devnull" in words:
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    target = ast.unparse(call.args[0]) if call.args else ""
    if name in ("write_text", "write_bytes", "copyfile", "copy2", "save_file", "to_csv", "to_parquet", "rename"):
        return True
    if name == "open":
        modes = [argument.value for argument in call.args[1:2] if isinstance(argument, ast.Constant)]
        return any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes)
    if name in ("savefig", "savez") or (name == "write_table" and len(call.args) > 1):
        return not ({target, *map(ast.unparse, call.args[1:2])} & IN_MEMORY)
    return name == "save" and isinstance(call.func, ast.Attribute) and target in ("path", "out", "file")


def test_configs_and_tests_are_no_packages():
    assert not list((ROOT / "configs").rglob("*.py"))
    assert not list((ROOT / "tests").rglob("__init__.py"))


BASE = {"numpy", "PIL", "onnxruntime", "typer", "rich", "ijson"}
HEAVY = ("torch", "torchvision", "timm", "accelerate", "datasets", "scipy", "pyarrow", "skimage", "sklearn", "pydantic",
         "yaml", "onnx", "matplotlib", "pandas", "fsspec", "safetensors", "imagehash", "piq",
         "pycocotools")  # fmt: skip


BASE_INSTALL = [
    *("students.runtime", "students.regions", "pseudo_labels.images", "pseudo_labels.regions.masks", "pocketiqa"),
    *("students.meaning.thresholds", "students.meaning.own_scale", "students.meaning.intervals"),
    "distill.scoring.meaning_records",
    *("pseudo_labels.regions.readers", "distill.cli", "distill.scoring.score_paths", "distill.scoring.scored_regions"),
    *("distill.scoring.before_after", "distill.scoring.best", "distill.scoring.frames"),
]


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
