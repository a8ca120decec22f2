"""A student for ncnn (``model.param``, ``model.bin``), converted by pnnx: sides of any multiple of its strides.

ncnn turns bytes into planes of floats by ``Mat.from_pixels``; normalisation and the weighted mean are in the graph.
"""

import re
import subprocess
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from students.formats.agreement import Run
from students.formats.convert import FloatStudent
from students.formats.form import Settings
from students.formats.torch_form import TORCH_OUTPUTS, PlanesForm, example, of_torch, rebuild
from students.preprocess import Preprocess
from students.session import INPUT

_PARAM, _BIN = "model.param", "model.bin"
# pnnx's names, and what stands in their place.
_BLOBS = {"in0": INPUT} | {f"out{number}": name for number, name in enumerate(TORCH_OUTPUTS)}
_SECONDS = 600


def write(student: FloatStudent, preprocess: Preprocess, settings: Settings, folder: Path) -> None:
    """Trace the student and convert it; see ``Form.write``.

    Raises:
        PocketiqaError: pnnx does not take it.
    """
    pnnx = import_module("pnnx")
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # Tracing announces its deprecation; it is what pnnx reads.
        warnings.simplefilter("ignore")
        least = preprocess.least
        traced: Any = torch.jit.trace(PlanesForm(rebuild(student.graph, student.contract)), example(least, planes=True))
        traced.save(f"{temporary}/student.pt")
        words = [pnnx.EXEC_PATH, "student.pt", f"fp16={int(settings.half)}"]
        # Two sizes: what differs between them is left open.
        words += [
            f"{name}=[1,3,{side},{2 * side}]f32" for name, side in (("inputshape", least), ("inputshape2", 2 * least))
        ]
        done = subprocess.run(words, cwd=temporary, capture_output=True, text=True, timeout=_SECONDS, check=False)
        graph, weights = Path(temporary, "student.ncnn.param"), Path(temporary, "student.ncnn.bin")
        if done.returncode or not (graph.is_file() and weights.is_file()):
            reason = " ".join((done.stdout + done.stderr).split())[-200:]
            raise PocketiqaError(f"pnnx could not convert {student.contract.name} ({reason}): take another format")
        text = re.sub(r"\b(in0|out\d)\b", lambda match: _BLOBS[match.group()], graph.read_text(encoding="ascii"))
        write_atomic(folder / _PARAM, text.encode())
        write_atomic(folder / _BIN, weights.read_bytes())


def start(folder: Path) -> Run:
    """Open the files in ncnn on the CPU, in float32.

    Raises:
        PocketiqaError: ncnn does not read them.
    """
    ncnn = import_module("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = 1
    # On ARM ncnn computes in half precision unless it is told not to, which moves scores.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(folder / _PARAM)) or net.load_model(str(folder / _BIN)):
        raise PocketiqaError(f"ncnn does not read {folder}: convert the student with another version of pnnx")

    def run(batch: np.ndarray) -> list[np.ndarray]:
        pixels = np.ascontiguousarray(batch[0])
        height, width = pixels.shape[:2]
        extractor = net.create_extractor()
        extractor.input(INPUT, ncnn.Mat.from_pixels(pixels, ncnn.Mat.PixelType.PIXEL_RGB, width, height))
        values = [np.array(extractor.extract(name)[1]) for name in TORCH_OUTPUTS]
        # The score is a vector of one; ncnn has no batch.
        return [value if name == "score" else value[None] for name, value in zip(TORCH_OUTPUTS, values, strict=True)]

    return run


FORM = of_torch(
    write,
    start,
    kind="image",
    layout="[3, H, W]",
    distributions=("torch", "pnnx", "ncnn"),
)
