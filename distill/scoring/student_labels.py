"""A student as a teacher of ``pocketiqa label``: the scores of a large pool in shards, by any number of machines.

Stores that ``curate`` makes have the same scores; here any process may make any shard, as of a teacher.
"""

from collections.abc import Mapping
from typing import Any

from pseudo_labels.errors import PocketiqaError
from students.runtime import Scorer
from students.shipped import ALL_NAMES, model_path
from teachers.plain import PlainTeacher, plain_teacher

_BUILDER = f"{__name__}:student"


def student(model: str | None = None) -> PlainTeacher:
    """Builder of the teacher (``distill.scoring.student_labels:student``).

    It scores decoded pixels: a JPEG of more than 8 megapixels, which ``score`` may read at half its scale for a second
    look, is looked at whole.

    Args:
        model: as for ``students.runtime.Scorer``.

    Raises:
        PocketiqaError: there is no such student.
    """
    scorer = Scorer(model)
    contract = scorer.contract
    return plain_teacher(
        lambda rgb: scorer.score(rgb).score,
        name=contract.name,
        weights=scorer.digest,
        licence="as its model card states",
    )


def with_students(teacher: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of a teacher as ``teachers.registry`` knows them, where a student was named.

    Args:
        teacher: a student that comes with the package, its ``.onnx`` file, or any teacher.
        options: of the teacher.

    Raises:
        PocketiqaError: options of a student, which has none, or no such file.
    """
    if teacher not in ALL_NAMES and not teacher.endswith(".onnx"):
        return teacher, dict(options)
    if "model" in options:
        raise PocketiqaError(f"teacher {teacher!r} is a student itself: leave out the option 'model'")
    path = model_path(teacher)
    if not path.is_file():
        raise PocketiqaError(f"no student at {path}: give its .onnx file, or one of {', '.join(ALL_NAMES)}")
    # By name where it has one: other machines have the package elsewhere.
    return _BUILDER, {**options, "model": teacher if teacher in ALL_NAMES else str(path.absolute())}
