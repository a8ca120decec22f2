"""The application, options of several commands, and the words that a shell completes for them."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from pseudo_labels.errors import PocketiqaError, shown

if TYPE_CHECKING:
    from teachers.on_ray import RayCluster
    from teachers.sharing import Share

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Commands in the order of the work.
_ORDER = (
    *("score", "best", "undo", "compare-folders", "frames", "run", "pool", "regions", "distort", "curate"),
    *("fit-teacher", "label", "label-regions", "fuse", "audit", "distill", "export"),
    *("fit-look", "fit-pairs", "fit-types", "formats", "evaluate"),
    *("population", "intervals", "fold-scores", "coverage", "calibrate", "adapt"),
    *("overlap", "stress", "trust", "compare", "study", "serve", "web", "doctor"),
)


# Options that name what is written; those of one command alone with its name.
_OUTPUTS = {"--out", "--page", "--gallery", "--copy-to", "--move-to", "--link-to", "--picture", "--map"}
_OUTPUTS_OF = {
    "trust": {"--scores"}, "fit-types": {"--features"}, "fold-scores": {"--runs"}, "export": {"--environment"},
}  # fmt: skip
# Commands whose --out may be in an object store (``pseudo_labels.remote``).
_INTO_STORES = ("pool", "regions", "label", "label-regions", "fuse", "export")


class _WorkOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; addresses are refused where it cannot write them, before anything is done."""
        name, command, rest = super().resolve_command(ctx, args)
        refuse_addresses(name or "", rest)
        return name, command, rest


def refuse_addresses(command: str, words: Sequence[str]) -> None:
    """Refuse addresses such as ``s3://bucket/x`` as outputs of commands that write local files alone.

    Here and not where they are written: as a path, of which the slashes are folded, an address looks like the local
    folder ``s3:``.

    Args:
        command: name of the command.
        words: what follows it on the command line.

    Raises:
        PocketiqaError: an output is an address.
    """
    outputs = _OUTPUTS | _OUTPUTS_OF.get(command, set())
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        option, is_joined, value = word.partition("=")
        value = value if is_joined else following
        if option not in outputs or not _ADDRESS.match(value):
            continue
        if option != "--out" or command not in _INTO_STORES:
            raise PocketiqaError(
                f"{option}: {shown(value)} is an address, and {command} writes local paths alone: name one and copy it "
                f"there (addresses are taken by --out of {', '.join(_INTO_STORES)})"
            )
        # A folder of this name is what earlier versions made of an address; a path could mean both.
        scheme = value.partition("//")[0]
        if os.path.lexists(scheme):
            raise PocketiqaError(
                f"{option}: beside {shown(value)} there is a local file or folder {scheme!r}, which earlier "
                "versions made of such an address: rename or remove it, or run the command in another folder"
            )


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
Recursive = Annotated[bool, typer.Option("--recursive", help="Look into subfolders too.")]
Format = Literal["table", "csv", "jsonl", "json", "parquet"]
ImageFormat = Annotated[
    Format | None,
    typer.Option("--format", help="How each image is written.  [default: by the ending of --out, else table]"),
]
NoType = Annotated[
    bool,
    typer.Option("--no-type", help="Without type and strength, which say what is wrong where the model tells it."),
]
ExcelSafe = Annotated[
    bool, typer.Option("--excel-safe", help="CSV: put ' before cells that a spreadsheet would take for a formula.")
]
RowsFile = Annotated[
    Path | None,
    typer.Option(
        "--out", help="File to write: .txt (table), .csv, .jsonl, .json or .parquet.  [default: standard output]"
    ),
]
OutPlace = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder to write, or an address such as s3://bucket/name; the same command again resumes it."
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


Student = Annotated[
    str | None,
    typer.Option(
        help="An exported .onnx student, or pocket-m, -s or -l.  [default: pocket-m, which comes along]",
        autocompletion=complete_student,
    ),
]


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
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="N/M",
        help="One of M processes without a launcher, such as the tasks of a Slurm array: label every M-th shard from "
        "the N-th on. The last process to end finishes the store.",
    ),
]
ClaimOpen = Annotated[
    bool,
    typer.Option(
        "--claim",
        help="One of any number of processes: label whatever shards no other process holds, until the store is done.",
    ),
]


Cluster = Annotated[
    Literal["ray"] | None,
    typer.Option(
        "--engine",
        help="ray: the workers of a Ray cluster work, a shard is a task; lost ones are done again elsewhere.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Address of the cluster, such as 10.0.0.1:6379.  [default: the variable RAY_ADDRESS, else a local cluster "
        "is started]"
    ),
]
GpusPerTask = Annotated[
    float | None,
    typer.Option(help="With --engine ray: GPUs of a worker, such as 0.5.  [default: 1 where there are any]"),
]
Retries = Annotated[
    int | None, typer.Option(help="With --engine ray: how often a task that failed is tried again.  [default: 3]")
]


@dataclass(frozen=True)
class Sharing:
    """The options of a command that say how its shards are divided among processes.

    Attributes:
        shard: ``N/M``.
        claim: whether open shards are claimed.
        engine: ``ray``.
        ray_address: for the engine, as the others.
        gpus_per_task: see there.
        retries: see there.
    """

    shard: str | None
    claim: bool
    engine: str | None
    ray_address: str | None
    gpus_per_task: float | None
    retries: int | None

    def chosen(self) -> "Share":
        """What the options ask for.

        Raises:
            PocketiqaError: they do not go together, or cannot be read.
        """
        from teachers.sharing import OpenShards, Part, Ranks

        ways = {"--shard": self.shard is not None, "--claim": self.claim, "--engine": self.engine is not None}
        choose_one(ways)
        cluster = cluster_of(self.engine, self.ray_address, self.retries, gpus_per_task=self.gpus_per_task)
        if cluster is not None:
            return cluster
        return OpenShards() if self.claim else Ranks() if self.shard is None else Part.parse(self.shard)


def choose_one(ways: Mapping[str, bool]) -> None:
    """Refuse more than one way to share the work.

    Args:
        ways: options, and whether each was given.

    Raises:
        PocketiqaError: several were.
    """
    asked = [name for name, given in ways.items() if given]
    if len(asked) > 1:
        raise PocketiqaError(f"{' and '.join(asked)} are ways to share the work: choose one")


def cluster_of(
    engine: str | None, ray_address: str | None, retries: int | None, *, gpus_per_task: float | None = None
) -> "RayCluster | None":
    """The cluster that the options of a command ask for; None without ``--engine``.

    Raises:
        PocketiqaError: an option is for a cluster, and there is none; or its value cannot be used.
    """
    if engine is None:
        of_engine = {"--ray-address": ray_address, "--gpus-per-task": gpus_per_task, "--retries": retries}
        alone = [name for name, value in of_engine.items() if value is not None]
        if alone:
            raise PocketiqaError(f"{alone[0]} is for a cluster: add --engine ray")
        return None
    from teachers.on_ray import DEFAULT_RETRIES, RayCluster

    return RayCluster(ray_address, gpus_per_task, DEFAULT_RETRIES if retries is None else retries)


Device = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...", autocompletion=complete_device)
]
