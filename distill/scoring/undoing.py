"""``pocketiqa undo``: files that were moved go back."""

from pathlib import Path

from distill.terminal import console
from distill.terminal.console import shown
from pseudo_labels.moves import journal_of, undo

_SHOWN = 5


def undo_moves(where: Path, *, last: bool = False, dry_run: bool = False) -> bool:
    """Move back what the journal of a folder names, and say what was done.

    Args:
        where: the folder, or its journal.
        last: only the last run.
        dry_run: only say it.

    Returns:
        Whether all files are back, or would be.

    Raises:
        PocketiqaError: there is no journal.
    """
    journal_of(where)  # before a bar is shown
    with console.progress("undo", visible=not dry_run) as report:
        result = undo(where, last=last, dry_run=dry_run, progress=report)
    for one in result.back if dry_run else ():
        console.err.print(f"would move {shown(str(one.target))} back to {shown(str(one.source))}")
    count = len(result.back)
    files = "1 file" if count == 1 else f"{count} files"
    console.err.print(f"dry run: {files} would be moved back" if dry_run else f"{files} moved back")
    for one, reason in result.refused[:_SHOWN]:
        console.warn(f"{shown(str(one.target))} stays: {shown(reason)} ({shown(str(one.source))})")
    if len(result.refused) > _SHOWN:
        console.warn(f"and {len(result.refused) - _SHOWN} more stay")
    return not result.refused
