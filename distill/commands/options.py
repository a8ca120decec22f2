"""The application, and options that several commands share."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# Commands in the order of the work.
_ORDER = (
    *("score", "run", "pool", "regions", "distort", "fit-teacher", "label", "label-regions", "fuse", "audit"),
    *("distill", "export", "evaluate"),
    *("overlap", "stress", "compare", "study", "doctor"),
)


class _WorkOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=_WorkOrder,
    help="Turn giant image-quality teachers into pocket-size models, and score photographs with them.\n\n"
    "The way through: pool, distort, fit-teacher, label, fuse, distill, evaluate, export, score. "
    "`pocketiqa run quickstart` walks all of it. Add --debug to any command for the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pocketiqa {version('pocketiqa')}")
        raise typer.Exit


@app.callback()
def pocketiqa(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and end.")
    ] = False,
) -> None:
    """Options of the command itself, before the name of a subcommand."""


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start over: remove what --out holds from an earlier run.")
]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file that --out names.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write; the same command again resumes it.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
]
