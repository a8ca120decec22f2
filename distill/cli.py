"""The command line. Each command imports what it needs when it is called, so that ``score`` starts without torch."""

import sys

from distill.commands import changes, comparisons, data, formats, looks, meaning, models, regions, score, serve
from distill.commands.options import app
from distill.terminal import console

# Imported for the commands that they add.
_COMMANDS = (changes, comparisons, data, formats, looks, meaning, models, regions, score, serve)
__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``pocketiqa`` command."""
    sys.exit(console.run_cli(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
