"""A student as OpenVINO's own files (``model.xml``, ``model.bin``): the graph as it is, bytes of any size in."""

from importlib import import_module
from pathlib import Path

import numpy as np

from students.engines import OPENVINO, OpenVinoSession
from students.formats.agreement import Run
from students.formats.convert import FloatStudent
from students.formats.form import ANY_SIZE, Form, Settings
from students.preprocess import Preprocess
from students.session import INPUT, OUTPUTS

_FILE = "model.xml"


def write(student: FloatStudent, preprocess: Preprocess, settings: Settings, folder: Path) -> None:
    """Write the graph; see ``Form.write``."""
    openvino = import_module(OPENVINO)
    model = openvino.Core().read_model(student.graph.SerializeToString())
    openvino.save_model(model, str(folder / _FILE), compress_to_fp16=settings.half)


def start(folder: Path) -> Run:
    """Open the files in OpenVINO on the CPU, in float32."""
    session = OpenVinoSession(folder / _FILE, 1, str(folder / _FILE))
    return lambda batch: session.run(OUTPUTS, {INPUT: np.ascontiguousarray(batch)})


FORM = Form(
    write,
    start,
    multiple=lambda student: ANY_SIZE,
    outputs=lambda student: tuple(one.name for one in student.graph.graph.output),
    kind="uint8",
    layout="[N, H, W, 3]",
    distributions=("openvino",),
    whole_embedding=True,
)
