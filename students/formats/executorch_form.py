"""A student as an ExecuTorch program (``model.pte``) for phones: bytes in, computed by XNNPACK, sides free in range."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from students.formats.agreement import Run
from students.formats.convert import FloatStudent
from students.formats.form import Settings
from students.formats.torch_form import exported_program, of_torch
from students.preprocess import Preprocess

_FILE = "model.pte"
_METHOD = "forward"


def write(student: FloatStudent, preprocess: Preprocess, settings: Settings, folder: Path) -> None:
    """Export the student and hand it to XNNPACK; see ``Form.write``.

    Raises:
        PocketiqaError: half precision, or ExecuTorch does not take it.
    """
    if settings.half:  # the command refuses it before (``Format.halves``)
        raise PocketiqaError("the format executorch has no half precision here: leave --half out")
    with _quietly():
        exir = import_module("executorch.exir")
        xnnpack = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        try:
            exported = exported_program(student, preprocess)
            lowered = exir.to_edge_transform_and_lower(exported, partitioner=[xnnpack.XnnpackPartitioner()])
            program = lowered.to_executorch()
        except Exception as error:  # its passes raise whatever their authors raised
            reason = " ".join(str(error).split())[:200]
            raise PocketiqaError(
                f"ExecuTorch could not convert {student.contract.name} ({reason}): take another format"
            ) from error
        write_atomic(folder / _FILE, program.buffer)


@contextmanager
def _quietly() -> Iterator[None]:
    """Its passes log and warn of each other."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def start(folder: Path) -> Run:
    """Open the program in ExecuTorch's runtime for Python."""
    with _quietly():
        runtime = import_module("executorch.runtime").Runtime.get()
        # The program is kept: the method refers to it.
        program = runtime.load_program(folder / _FILE)
        method = program.load_method(_METHOD)

    def run(batch: np.ndarray) -> list[np.ndarray]:
        assert program is not None
        values = method.execute([torch.tensor(batch)])
        # Copies: the next run writes into the same memory.
        return [value.numpy().copy() for value in values]

    return run


FORM = of_torch(
    write,
    start,
    kind="uint8",
    layout="[1, H, W, 3]",
    distributions=("torch", "executorch"),
)
