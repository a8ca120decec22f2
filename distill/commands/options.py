"""The application, options of several commands, and the words that a shell completes for them."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

# Commands in the order of the work.
_ORDER = (
    *("score", "undo", "compare-folders", "frames", "run", "pool", "regions", "distort", "curate", "fit-teacher"),
    *("label", "label-regions", "fuse", "audit", "distill", "export", "fit-look", "formats", "evaluate"),
    *("population", "intervals", "calibrate"),
    *("overlap", "stress", "compare", "study", "serve", "doctor"),
)


class _WorkOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=_WorkOrder,
    help="Turn giant image-quality teachers into pocket-size models, and score photographs with them.\n\n"
    "The way through: pool, distort, fit-teacher, label, fuse, distill, export, evaluate, score. "
    "`pocketiqa run quickstart` walks all of it. Add --debug to any command for the traceback of an error.",
    no_args_is_help=True,
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
MaxPixels = Annotated[int, typer.Option(help="Refuse images with more pixels than this.")]
Format = Literal["table", "csv", "jsonl", "json", "parquet"]
RowsFile = Annotated[
    Path | None,
    typer.Option(
        "--out", help="File to write: .txt (table), .csv, .jsonl, .json or .parquet.  [default: standard output]"
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write; the same command again resumes it.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
]


Split = Literal["test", "validation", "train", "all"]

_DEVICES = ("auto", "cpu", "cuda")
# The key that only such a file has at its top, see ``recipe.load_recipe``.
_STUDY, _COMPARISON = re.compile(r"^arms:", re.M), re.compile(r"^rows:", re.M)


def complete_teacher(incomplete: str) -> list[str]:
    """Names of the teachers that come with pocketiqa."""
    from teachers.registry import TEACHERS

    return _beginning(TEACHERS, incomplete)


def complete_student(incomplete: str) -> list[str]:
    """Names of the exported students that come with pocketiqa."""
    from students.shipped import ALL_NAMES

    return _beginning(ALL_NAMES, incomplete)


def complete_model(incomplete: str) -> list[str]:
    """Names of models that can be evaluated: exported students and teachers."""
    return [*complete_student(incomplete), *complete_teacher(incomplete)]


def complete_engine(incomplete: str) -> list[str]:
    """Names of what can compute a student."""
    from students.engines import ENGINES

    return _beginning(ENGINES, incomplete)


def complete_format(incomplete: str) -> list[str]:
    """Names of the formats in which a student can be written."""
    from students.formats.registry import FORMATS

    return _beginning(FORMATS, incomplete)


def complete_distortion(incomplete: str) -> list[str]:
    """Groups and names of distortions."""
    try:
        from pseudo_labels.distort.catalogue import groups
    except ModuleNotFoundError:  # only the base install
        return []
    known = groups()
    return _beginning([*known, *dict.fromkeys(name for names in known.values() for name in names)], incomplete)


def complete_benchmark(incomplete: str) -> list[str]:
    """Beginnings of ``NAME:FOLDER``."""
    try:
        from distill.evaluation.benchmarks import BENCHMARKS
    except ModuleNotFoundError:
        return []
    return _beginning([f"{name}:" for name in BENCHMARKS], incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Names of the recipes that come with pocketiqa."""
    return _beginning([name for name, kind in _yaml_files() if kind == "recipe"], incomplete)


def complete_study(incomplete: str) -> list[str]:
    """Names of the studies that come with pocketiqa."""
    return _beginning([name for name, kind in _yaml_files() if kind == "study"], incomplete)


def complete_comparison(incomplete: str) -> list[str]:
    """Names of the comparisons that come with pocketiqa."""
    return _beginning([name for name, kind in _yaml_files() if kind == "comparison"], incomplete)


def complete_device(incomplete: str) -> list[str]:
    """Devices that every machine may have; ``cuda:1`` and so on are typed."""
    return _beginning(_DEVICES, incomplete)


def _yaml_files() -> list[tuple[str, str]]:
    """Name and kind of every YAML file that comes with pocketiqa; nothing where recipes cannot be read."""
    try:
        from distill.recipe.recipe import known_recipes
    except ModuleNotFoundError:
        return []
    kinds = []
    for name, file in known_recipes().items():
        text = file.read_text(encoding="utf-8")
        kinds.append((name, "study" if _STUDY.search(text) else "comparison" if _COMPARISON.search(text) else "recipe"))
    return kinds


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


TeacherThreads = Annotated[int, typer.Option(help="CPU threads of the teacher; the same number gives the same bytes.")]
DecodeWorkers = Annotated[int, typer.Option(help="Images decoded ahead at a time.")]
Device = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...", autocompletion=complete_device)
]
