"""A student for LiteRT (``model.tflite``) on Android, iOS and small boards: bytes in, one signature for each size.

Its converter needs another version of PyTorch, so it runs in an environment of its own (``environments``), which gets
the student's operations as JSON and its weights. The file is run here by LiteRT's runtime.
"""

import json
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from students.formats import litert_converter
from students.formats.agreement import Run
from students.formats.aten_graph import described
from students.formats.convert import FloatStudent
from students.formats.form import Settings
from students.formats.registry import LITERT
from students.formats.torch_form import TORCH_OUTPUTS, exported_program, of_torch
from students.preprocess import Preprocess
from students.session import INPUT

_SECONDS = 1800


def write(student: FloatStudent, preprocess: Preprocess, settings: Settings, folder: Path) -> None:
    """Describe the student and have it converted; see ``Form.write``.

    Raises:
        PocketiqaError: half precision, no environment, or the converter does not take it.
    """
    if settings.half:  # the command refuses it before (``Format.halves``)
        raise PocketiqaError("the format litert has no half precision here: leave --half out")
    record, tensors = described(exported_program(student, preprocess))
    record |= {"names": list(TORCH_OUTPUTS), "sizes": [list(size) for size in preprocess.sizes]}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_atomic(work / litert_converter.GRAPH, json.dumps(record).encode())
        write_atomic(work / litert_converter.WEIGHTS, save(tensors))
        script = Path(litert_converter.__file__)
        reason = LITERT.run(script, [temporary], folder=settings.environment, seconds=_SECONDS)
        if reason:
            raise PocketiqaError(
                f"LiteRT's converter could not convert {student.contract.name} ({reason}): take another format"
            )
        write_atomic(folder / litert_converter.MODEL, (work / litert_converter.MODEL).read_bytes())


def start(folder: Path) -> Run:
    """Open the file in LiteRT's runtime on the CPU."""
    runtime = import_module("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(str(folder / litert_converter.MODEL), num_threads=1)
    names = interpreter.get_signature_list()

    # Each has tensors of its own, which are made when it is first asked for.
    @cache
    def runner(name: str) -> Any:
        if name not in names:
            raise PocketiqaError(f"{folder} holds no signature for {name} pixels: it has {', '.join(names)}")
        return interpreter.get_signature_runner(name)

    def run(batch: np.ndarray) -> list[np.ndarray]:
        _, height, width, _ = batch.shape
        values = runner(f"{height}x{width}")(**{INPUT: batch})
        return [np.array(values[name]) for name in TORCH_OUTPUTS]

    return run


FORM = of_torch(
    write,
    start,
    kind="uint8",
    layout="[1, H, W, 3]",
    distributions=("torch", "ai-edge-litert"),
    fixed_sizes=True,
    pinned=lambda: {name: LITERT.pinned()[name] for name in ("litert-torch", "litert-converter")},
)
