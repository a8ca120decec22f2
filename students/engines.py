"""What computes a student: ONNX Runtime, or OpenVINO where it is installed, which reads the same file.

The file is verified and its graph bounded in ``students.session`` before either sees it, and ONNX Runtime opens it in
any case, to read the contract.
"""

import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pseudo_labels.errors import IntegrityError, PocketiqaError

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

    def __init__(self, model: bytes | Path, threads: int, name: str):
        """Compile a model.

        Args:
            model: serialised ONNX, verified already; or a file of OpenVINO's own (.xml, its weights beside it).
            threads: number of threads of one run.
            name: name of the model in an error.

        Raises:
            IntegrityError: OpenVINO does not accept it.
        """
        # Imported where it is asked for: it is an extra.
        openvino = import_module(OPENVINO)

        self.version: str = openvino.__version__
        self._options = {
            # Half precision, which it would choose by itself on some processors, moves scores by up to 0.006.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            # With two streams OpenVINO 2026.4.1 mixes up weights that are stored in 8 bits: scores of onnx-w8 rise by
            # 0.35. With one, runs would wait for each other: so each thread of the caller has a model of its own.
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._core, self._local = openvino.Core(), threading.local()
        try:
            self._model = self._core.read_model(model)
            self._own()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise IntegrityError(f"{name} is not a model that OpenVINO can load: {reason}") from error

    def _own(self) -> Any:
        """The compiled model of the thread that calls."""
        compiled = getattr(self._local, "compiled", None)
        if compiled is None:
            compiled = self._local.compiled = self._core.compile_model(self._model, "CPU", self._options)
        return compiled

    def run(self, output_names: Sequence[str], input_feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Values of the outputs, copied out of OpenVINO's memory."""
        compiled = self._own()
        results = compiled(input_feed)
        return [np.array(results[compiled.output(name)]) for name in output_names]


def start_engine(engine: str, model: bytes, threads: int, name: str) -> Session:
    """Another engine than ONNX Runtime, ready to run.

    Raises:
        PocketiqaError: it is not known, not installed, or does not accept the model.
    """
    check_engine(engine)
    return OpenVinoSession(model, threads, name)


def check_scores(engine: str, session: Session, reference: Session, *, feed: str, output: str, limit: float) -> None:
    """Refuse an engine that computes a model wrongly, on one picture with structure and noise.

    Not for show: see the number of streams above.

    Args:
        engine: its name, for the error.
        session: the engine with the model.
        reference: ONNX Runtime with the same model.
        feed: name of the input.
        output: name of the score.
        limit: largest accepted difference of the score.

    Raises:
        PocketiqaError: it differs by more.
    """
    rows, columns = np.mgrid[:96, :128]
    noise = np.random.default_rng(0).normal(0, 12, (96, 128, 3))
    waves = 110 + 80 * (np.sin(rows / 7) * np.cos(columns / 5))[..., None]
    picture = {feed: np.clip(waves + noise, 0, 255).astype(np.uint8)[None]}
    ours, theirs = (float(np.asarray(one.run([output], picture)[0])[0]) for one in (reference, session))
    if not abs(ours - theirs) <= limit:
        raise PocketiqaError(
            f"{engine} computes this model wrongly: it scores a test picture {theirs:.4f}, ONNX Runtime {ours:.4f}; "
            f"take the engine {ONNX_RUNTIME}, or the float file of the student"
        )
