"""What fitting any head on a student's embedding needs: the student with one, sealing, numbers to be stored."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import onnx

from pseudo_labels.files import write_atomic
from students.contract import StudentContract
from students.damage import TypeHead
from students.formats.embedding import with_embedding
from students.formats.sealing import seal, unsealed
from students.heads import FloatArray, halves
from students.pairs import PairHead
from students.runtime import Scorer
from students.session import read_model
from students.shipped import model_path

# Half precision ends at 65504, above one over this.
_LEAST_DEVIATION = 2e-5
Head = TypeVar("Head", PairHead, TypeHead)


@dataclass(frozen=True)
class FittedHead(Generic[Head]):
    """A written file with a head.

    Attributes:
        path: of the file.
        head: what was fitted; ``head.fitted`` says how well it does.
        digest: hex SHA-256 of the model in the file.
    """

    path: Path
    head: Head
    digest: str


@dataclass(frozen=True)
class OpenedStudent:
    """A student that a head is fitted to.

    Attributes:
        name: its path, for errors.
        graph: its graph, with an embedding.
        contract: as its file has it.
        digest: hex SHA-256 of the model in its file.
        scorer: scores by ``graph``, in one view.
    """

    name: str
    graph: onnx.ModelProto
    contract: StudentContract
    digest: str
    scorer: Scorer

    def sealed(self, contract: StudentContract) -> tuple[bytes, str]:
        """The file with another contract, and the hex SHA-256 of the model in it.

        Raises:
            PocketiqaError: a head that the contract keeps does not fit the embedding.
        """
        return seal(self.graph, contract, self.name)


@contextmanager
def opened_student(model: str | None) -> Iterator[OpenedStudent]:
    """Open a student, in float or in 8 bits, which gets an embedding, or the numbers that its embedding lacks.

    Args:
        model: exported file or name.

    Raises:
        PocketiqaError: no such model, or one without features.
    """
    path = model_path(model)
    graph, contract, digest = unsealed(read_model(path), str(path))
    graph = with_embedding(graph, str(path))
    with tempfile.TemporaryDirectory() as folder:
        # As a file, so that photographs take the way that they take in use.
        grown = Path(folder) / "student.onnx"
        write_atomic(grown, seal(graph, contract, str(path))[0])
        yield OpenedStudent(str(path), graph, contract, digest, Scorer(grown, look="quick"))


def standard_of(embeddings: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and scale (one over the deviation) of each number of an embedding, [C] each, in half precision.

    A head is fitted to numbers that are standardised as a reader of its file standardises them.

    Args:
        embeddings: [N, C].
    """
    mean, deviation = embeddings.mean(0), embeddings.std(0)
    scale = 1 / np.maximum(deviation, _LEAST_DEVIATION)
    # What hardly varies is no feature: divided by so little, it would be noise.
    scale[deviation < _LEAST_DEVIATION] = _LEAST_DEVIATION
    return np.array(halves(mean)), np.array(halves(scale))


def rounded(values: Any) -> tuple[float, ...]:
    """Digits beyond these mean nothing, and a file should not depend on the last bit of a library."""
    return tuple(float(f"{value:.5g}") for value in values)
