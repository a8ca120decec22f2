"""The command line. Each command imports what it needs when it is called, so that ``score`` starts without torch."""

import sys

from distill import console
from distill.commands import compare, data, models, overlap, stress
from distill.commands.options import app

__all__ = ["app", "compare", "data", "main", "models", "overlap", "stress"]


def main() -> None:
    """Entry point of the ``pocketiqa`` command."""
    sys.exit(console.run_cli(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
