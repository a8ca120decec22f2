"""What each format beyond ONNX has to offer: how it is written, and how its own runtime runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from students.formats.agreement import Run
from students.formats.convert import FloatStudent
from students.preprocess import Preprocess

ANY_SIZE = 1
# Longer over shorter side of photographs: square, of most cameras, of films, of phones.
_ASPECTS = ((1, 1), (4, 3), (3, 2), (16, 9))


@dataclass(frozen=True)
class Settings:
    """How a format is to be written.

    Attributes:
        half: weights in float16.
        environment: folder of the converter's environment (``environments``); None is the usual one. For formats whose
            converter has one.
    """

    half: bool = False
    environment: Path | None = None


def usual_sizes(preprocess: Preprocess) -> tuple[tuple[int, int], ...]:
    """Heights and widths that photographs of usual aspects become, upright and turned.

    Args:
        preprocess: resize of a student, any size allowed.
    """
    large = 100 * preprocess.largest
    upright = {preprocess.size(large * longer, large * shorter) for longer, shorter in _ASPECTS}
    return tuple(sorted(upright | {(width, height) for height, width in upright}))


@dataclass(frozen=True)
class Form:
    """A format as functions; packages of others are imported when these are called.

    Attributes:
        write: writes the files of a student into an empty folder: the student, its resize with sides rounded as
            ``multiple`` says (with the only sizes, if they are fixed), the settings, the folder.
        start: opens what ``write`` wrote, with one thread; images one at a time, uint8 [1, H, W, 3].
        multiple: what the sides of images must be multiples of, in pixels, for a student.
        outputs: names of the outputs in their order, for a student.
        kind: type of the input: ``uint8``, or ``image`` where the runtime turns bytes into its own type.
        layout: shape of the input, such as ``[1, H, W, 3]``.
        distributions: packages that wrote and ran it, whose versions the contract states.
        whole_embedding: whether the output ``embedding`` has all numbers of the ONNX file's, not its first part alone,
            the mean of the fused map.
        fixed_sizes: whether its runtime takes no other sizes than those that were written.
        pinned: versions of packages of the converter's environment, which the contract states too.
        most_compared: largest number of photographs that scores are compared on.
    """

    write: Callable[[FloatStudent, Preprocess, Settings, Path], None]
    start: Callable[[Path], Run]
    multiple: Callable[[FloatStudent], int]
    outputs: Callable[[FloatStudent], tuple[str, ...]]
    kind: str
    layout: str
    distributions: tuple[str, ...]
    whole_embedding: bool = False
    fixed_sizes: bool = False
    pinned: Callable[[], Mapping[str, str]] = dict
    most_compared: int = 24
