"""The teacher that comes with the package: a QFM-IQM that learned from people, see README.md beside this file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teachers.base import Teacher

NAME = "embedded"
FOLDER = Path(__file__).parent


def build_embedded(**options: Any) -> "Teacher":
    """Build it.

    Args:
        options: of ``qfm_iqm`` that change speed alone, such as ``precision``; others do not fit what was learned.

    Raises:
        PocketiqaError: an option that does not fit, or a package that is not installed.
    """
    from teachers.registry import build_teacher

    return build_teacher(str(FOLDER), **options)
