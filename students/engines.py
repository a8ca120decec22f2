"""What computes a student: ONNX Runtime, or OpenVINO where it is installed, which reads the same file.

The file is verified and its graph bounded in ``students.session`` before either sees it, and ONNX Runtime opens it in
any case, to read the contract.
"""

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.parallel import usable_cores

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
ENGINES = (ONNX_RUNTIME, OPENVINO)


class Session(Protocol):
    """What can run a graph, from several threads at a time; ``onnxruntime.InferenceSession`` is one."""

    def run(self, output_names: Sequence[str], input_feed: dict[str, np.ndarray]) -> Sequence[Any]:
        """Values of the outputs, in the order of their names."""
        ...


def missing_of(engine: str) -> list[str]:
    """Distributions that an engine needs and this machine lacks; each has the name of its engine."""
    return [engine] if find_spec(engine) is None else []


def check_engine(engine: str) -> str:
    """Return ``engine`` if it is known and installed.

    Raises:
        PocketiqaError: it is not.
    """
    if engine not in ENGINES:
        raise PocketiqaError(f"engine {engine!r} is not known: choose one of {', '.join(ENGINES)}")
    if missing_of(engine):
        raise PocketiqaError(
            f"the engine {engine} is not installed: pip install 'pocketiqa[{engine}]', or leave it out"
        )
    return engine


class OpenVinoSession:
    """A student in OpenVINO on the CPU, in float32, as fast as it allows without touching the other cores.

    Attributes:
        version: version of OpenVINO.
    """

    def __init__(self, model: bytes, threads: int, name: str):
        """Compile a model.

        Args:
            model: serialised ONNX, verified already.
            threads: number of threads of one run.
            name: name of the model in an error.

        Raises:
            IntegrityError: OpenVINO does not accept it.
        """
        # Imported where it is asked for: it is an extra.
        import openvino

        self.version: str = openvino.__version__
        streams = max(1, usable_cores() // threads)
        options = {
            # Half precision, which it would choose by itself on some processors, moves scores by up to 0.006.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads * streams,
            # Runs of several threads of the caller, of which one alone would wait for the others.
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(core.read_model(model), "CPU", options)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise IntegrityError(f"{name} is not a model that OpenVINO can load: {reason}") from error
        # A request holds the maps of a run in work, so each thread of the caller has its own.
        self._local = threading.local()

    def run(self, output_names: Sequence[str], input_feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Values of the outputs, copied out of OpenVINO's memory."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        results = request.infer(input_feed)
        return [np.array(results[self._compiled.output(name)]) for name in output_names]


def start_engine(engine: str, model: bytes, threads: int, name: str) -> Session:
    """Another engine than ONNX Runtime, ready to run.

    Raises:
        PocketiqaError: it is not known, not installed, or does not accept the model.
    """
    check_engine(engine)
    return OpenVinoSession(model, threads, name)
