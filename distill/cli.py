"""The command line. Each command imports what it needs when it is called, so that ``score`` starts without torch."""

import sys

from distill.commands import (
    best,
    browser,
    changes,
    comparisons,
    data,
    formats,
    looks,
    meaning,
    models,
    regions,
    score,
    serve,
    trust,
    types,
)
from distill.commands.options import app
from distill.terminal import console

# Imported for the commands that they add.
_COMMANDS = (
    best, browser, changes, comparisons, data, formats, looks, meaning, models, regions, score, serve, trust,
    types,
)  # fmt: skip
__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``pocketiqa`` command."""
    sys.exit(console.run_cli(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
