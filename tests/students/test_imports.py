"""The runtime needs numpy, Pillow and ONNX Runtime; everything else may be missing."""

import subprocess
import sys
from pathlib import Path

import pytest

# A finder in front of all others refuses every distribution but the three and the standard library.
_PROGRAM = """
import sys

class Refuse:
    ours = {"students", "pseudo_labels"}
    allowed = {"numpy", "PIL", "onnxruntime", "flatbuffers", "google", *ours, *sys.stdlib_module_names}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refuse())
import students.contract, students.latency, students.paths, students.preprocess, students.session
from students.runtime import Scorer
for path in sys.argv[2:]:
    print(Scorer(sys.argv[1]).score(path).score)
"""


@pytest.mark.parametrize("model", ["tiny.onnx", "pocket-m"])
def test_scoring_imports_nothing_else(model: str, tiny_onnx: Path, photo_files: list[Path]) -> None:
    given = str(tiny_onnx) if model == tiny_onnx.name else model
    command = [sys.executable, "-c", _PROGRAM, given, str(photo_files[0])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["torch", "scipy", "pandas", "pyarrow", "onnx", "safetensors"])
def test_the_blocker_blocks(module: str) -> None:
    program = _PROGRAM.replace("from students.runtime import Scorer", f"import {module}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"refused: {module}" in done.stderr
