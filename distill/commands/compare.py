"""The command that judges many models by one benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import Settings, app


@app.command()
def compare(
    comparison: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a comparison that comes with pocketiqa.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the file's]")] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Judge models again that have changed.")] = False,
) -> None:
    """Many models on one benchmark: a table with intervals and milliseconds, and two plots."""
    from distill.comparison.compare import compare as walk

    walk(comparison, out=out, settings=settings, overwrite=overwrite)
