"""A student as a Core ML program (``model.mlpackage``) for Apple's devices: an image in, sides of any length in range.

coremltools writes it on any system; only Apple's run it. Here it is read back and evaluated (``core_ml_program``).
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudo_labels.errors import PocketiqaError
from students.formats.agreement import Run
from students.formats.convert import FloatStudent
from students.formats.core_ml_program import Program
from students.formats.form import Settings
from students.formats.torch_form import TORCH_OUTPUTS, PlanesForm, example, of_torch, rebuild
from students.preprocess import Preprocess
from students.session import INPUT

_FILE = "model.mlpackage"


def write(student: FloatStudent, preprocess: Preprocess, settings: Settings, folder: Path) -> None:
    """Trace the student and convert it; see ``Form.write``.

    Raises:
        PocketiqaError: coremltools does not take it.
    """
    with coremltools_quietly() as tools:
        form = PlanesForm(rebuild(student.graph, student.contract))
        traced = torch.jit.trace(form, example(preprocess.least, planes=True))
        sides = [tools.RangeDim(preprocess.least, preprocess.largest, default=preprocess.largest) for _ in range(2)]
        try:
            program = tools.convert(
                traced,
                convert_to="mlprogram",
                inputs=[tools.ImageType(INPUT, shape=(1, 3, *sides), color_layout=tools.colorlayout.RGB)],
                outputs=[tools.TensorType(name) for name in TORCH_OUTPUTS],
                compute_precision=tools.precision.FLOAT16 if settings.half else tools.precision.FLOAT32,
                minimum_deployment_target=tools.target.iOS16,
            )
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise PocketiqaError(
                f"coremltools could not convert {student.contract.name} ({reason}): take another format"
            ) from error
        program.short_description = "Perceived quality of a photograph, 0 worst, 1 best"
        program.save(str(folder / _FILE))


@contextmanager
def coremltools_quietly() -> Iterator[Any]:
    """The package, quietly: it shows progress, and warns of versions and of parts that only Apple's systems have."""
    logger = logging.getLogger("coremltools")
    before = logger.level
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield import_module("coremltools")
        finally:
            logger.setLevel(before)


def start(folder: Path) -> Run:
    """Read the program back; it is evaluated in torch, in the types that it states."""
    with coremltools_quietly():
        program = Program(folder / _FILE)

    def run(batch: np.ndarray) -> list[np.ndarray]:
        planes = torch.tensor(batch).permute(0, 3, 1, 2).float()
        values = program({INPUT: planes})
        return [values[name].float().numpy() for name in TORCH_OUTPUTS]

    return run


FORM = of_torch(
    write,
    start,
    kind="image",
    layout="[1, 3, H, W]",
    distributions=("torch", "coremltools"),
    most_compared=6,
)
