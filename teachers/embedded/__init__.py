"""The teacher that comes with the package: a QFM-IQM that learned from people, see README.md beside this file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teachers.base import Teacher, TeacherBuilder

NAME = "embedded"
FOLDER = Path(__file__).parent


def build_embedded(build: "TeacherBuilder", **options: Any) -> "Teacher":
    """Build the embedded teacher.

    Args:
        build: as ``registry.build_teacher``, which hands itself over so that no circle of imports arises.
        options: options of ``qfm_iqm`` that the weights do not depend on, such as ``precision`` and ``cache``; the
            weights do not fit a teacher with others.

    Raises:
        PocketiqaError: an option that does not fit, or a package that is not installed.
    """
    return build(str(FOLDER), **options)
