"""The teacher that comes with the package: a QFM-IQM that learned from people, see README.md beside this file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teachers.base import Teacher, TeacherBuilder

NAME = "embedded"
FOLDER = Path(__file__).parent


def build_embedded(build: "TeacherBuilder", **options: Any) -> "Teacher":
    """Build it.

    Args:
        build: as ``registry.build_teacher``, which hands itself over so that no circle of imports arises.
        options: options of ``qfm_iqm`` that change speed alone, such as ``precision``; others do not fit the
            weights.

    Raises:
        PocketiqaError: an option that does not fit, or a package that is not installed.
    """
    return build(str(FOLDER), **options)
