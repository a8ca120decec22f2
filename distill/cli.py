"""The command line. Each command imports what it needs when it is called, so that ``score`` starts without torch."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from distill import console

app = typer.Typer(
    help="Turn giant image-quality teachers into pocket-size models, and score photographs with them.\n\n"
    "The way through: pool, distort, label, distill, evaluate, export, score. "
    "`pocketiqa run quickstart` walks all of it. Add --debug to any command for the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start over: remove what --out holds from an earlier run.")
]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file that --out names.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write; the same command again resumes it.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
]


@app.command()
def pool(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Image folder, image, WebDataset .tar, .parquet with image bytes, or a saved dataset.",
        ),
    ],
    out: OutFolder,
    near_distance: Annotated[int, typer.Option(help="dHash bits, of 64, up to which two images are one scene.")] = 4,
    max_bad_share: Annotated[float, typer.Option(help="Fail when more than this share of files is bad.")] = 0.5,
    max_pixels: Annotated[int, typer.Option(help="Refuse images with more pixels than this.")] = 100_000_000,
    workers: Annotated[int, typer.Option(help="Images decoded at a time.")] = 2,
    overwrite: Overwrite = False,
) -> None:
    """List the images of one or more sources: content hash, size, duplicates, scenes, bad files."""
    from distill.summaries import pool_summary
    from pseudo_labels.images import DecodeLimits
    from pseudo_labels.pool import build_pool

    with console.progress("pool") as report:
        made = build_pool(
            sources,
            out,
            limits=DecodeLimits(max_pixels=max_pixels),
            near_distance=near_distance,
            max_bad_share=max_bad_share,
            workers=workers,
            overwrite=overwrite,
            progress=report,
        )
    console.out.print(pool_summary(made), markup=False)


@app.command()
def distort(
    pool: Annotated[Path | None, typer.Argument(help="Folder of a clean pool.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write (with --preview: a PNG file).")] = None,
    per_image: Annotated[int, typer.Option(help="Distorted versions of each image.")] = 25,
    seed: Annotated[int, typer.Option(help="Chooses distortions, levels and noise.")] = 0,
    names: Annotated[
        list[str] | None, typer.Option("--only", help="kadid, camera, all, or one distortion; repeatable.")
    ] = None,
    max_side: Annotated[int | None, typer.Option(help="Shrink the clean images to this longer side first.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    preview: Annotated[bool, typer.Option("--preview", help="Only draw a contact sheet of all distortions.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a synthetic pool: distorted copies that keep the link to their clean reference."""
    from distill.summaries import pool_summary
    from pseudo_labels.distort import build_synthetic_pool
    from pseudo_labels.pool import Pool

    if preview:
        console.out.print(f"contact sheet: {_draw_contact_sheet(pool, out, overwrite)}", markup=False)
        return
    if pool is None or out is None:
        raise typer.BadParameter("name a pool and an --out folder, or ask for --preview")
    with console.progress("distort") as report:
        made = build_synthetic_pool(
            Pool.open(pool),
            out,
            per_image=per_image,
            names=names,
            seed=seed,
            max_side=max_side,
            workers=workers,
            overwrite=overwrite,
            progress=report,
        )
    console.out.print(pool_summary(made), markup=False)


def _draw_contact_sheet(pool: Path | None, out: Path | None, overwrite: bool) -> Path:
    from pseudo_labels.distort import write_contact_sheet
    from pseudo_labels.images import load
    from pseudo_labels.outputs import refuse_existing
    from pseudo_labels.photos import bundled_photographs
    from pseudo_labels.pool import Pool

    target = out or Path("distortions.png")
    refuse_existing(target, overwrite=overwrite)
    if pool is None:
        rgb = load(bundled_photographs()["astronaut"])
    else:
        opened = Pool.open(pool)
        rgb = opened.load(opened.ok()[0])
    write_contact_sheet(rgb, target)
    return target


@app.command()
def label(
    pool: Annotated[Path, typer.Argument(help="Folder of a pool.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="Name of a teacher (see doctor), folder of a fitted one, or your own as package.module:function."
        ),
    ],
    out: OutFolder,
    shards: Annotated[
        int | None, typer.Option(help="Parts of the store, each committed whole.  [default: by size]")
    ] = None,
    features: Annotated[bool, typer.Option("--features", help="Store the teacher's features too, in fp16.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Option of the teacher, such as 'views={crops: 5, flips: true}'; repeatable.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in one forward pass.")] = 8,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of the teacher; the same number gives the same bytes.")] = 1,
    decode_workers: Annotated[int, typer.Option(help="Images decoded ahead at a time.")] = 2,
    max_failed_share: Annotated[
        float, typer.Option(help="Leave the store unfinished when more than this share of good images gets no label.")
    ] = 0.5,
    overwrite: Overwrite = False,
) -> None:
    """Let a teacher score a pool. Killed or interrupted, the same command goes on where it stopped."""
    from distill.recipe_values import parse_settings
    from distill.summaries import store_summary
    from teachers.label import label as label_pool

    visible = console.is_main_process()
    with console.progress(f"label ({teacher})", visible=visible) as report:
        store = label_pool(
            pool,
            teacher,
            out,
            shards=shards,
            features=features,
            options=parse_settings(options or []),
            batch_size=batch_size,
            device=device,
            threads=threads,
            decode_workers=decode_workers,
            max_failed_share=max_failed_share,
            overwrite=overwrite,
            progress=report,
            warn=console.warn,
        )
    if visible:
        console.out.print(store_summary(store), markup=False)


@app.command()
def audit(
    labels: Annotated[Path, typer.Argument(help="Folder of a label store.")],
    out: Annotated[Path | None, typer.Option("--out", help="Also write the audit as one HTML page.")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Check a label store: altered or missing shards, coverage, scores, spread. Exit status 1 on a fault."""
    from distill.summaries import audit_summary
    from pseudo_labels.audit import audit_store
    from pseudo_labels.audit_page import write_audit_page
    from pseudo_labels.outputs import refuse_existing

    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    report = audit_store(labels)
    console.out.print(audit_summary(report), markup=False)
    if out is not None:
        write_audit_page(report, out)
        console.out.print(f"page: {out}", markup=False)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def distill(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes with pocketiqa.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the recipe's]")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the student of a recipe from labels that exist. Killed, the same command goes on."""
    from distill.pipeline import distill_only

    distill_only(recipe, out=out, settings=settings or [], overwrite=overwrite)


@app.command("fit-teacher")
def fit_teacher(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe with a section 'fit'.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the recipe's]")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Fit a teacher to the opinion scores of people. Killed, the same command goes on."""
    from distill.pipeline import fit_only

    fit_only(recipe, out=out, settings=settings or [], overwrite=overwrite)


@app.command()
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help=".onnx file, student folder, label store, fitted teacher, or teacher name."
        ),
    ],
    on: Annotated[
        str, typer.Option("--on", metavar="BENCHMARK", help="NAME:FOLDER such as koniq10k:/data/koniq, or csv:FILE.")
    ],
    split: Annotated[
        str | None, typer.Option(help="test, validation, train or all.  [default: test where there is one, else all]")
    ] = None,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option("--trained-on", help="Pool the student learned from, to find overlap; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="For teachers: auto (a GPU if there is one), cpu, cuda, ...")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="Also write the numbers as JSON.")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Judge models by human opinions: SRCC, PLCC, KRCC, RMSE, each with n and an interval.

    Exit status 1 if a model could not score a single image.
    """
    from distill.benchmarking import evaluate_on
    from distill.summaries import coverage_lines, evaluation_tables
    from pseudo_labels.outputs import refuse_existing

    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    with console.progress("evaluate") as report:
        result = evaluate_on(models, on, split=split, trained_on=trained_on or [], device=device, progress=report)
    for table in evaluation_tables(result):
        console.out.print(table)
    if out is not None:
        out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    for line in coverage_lines(result):
        console.warn(line)
    if any(model["coverage"]["scored"] == 0 for model in result["models"]):
        raise typer.Exit(1)


@app.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A training folder, its student folder, or DP-IQA's published student (.pth, .safetensors)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Real images for the parity check.  [default: bundled]")
    ] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Export a student to ONNX with its contract inside; refused unless it scores as the original does."""
    from distill.exporting import export_checkpoint
    from distill.summaries import export_summary

    report = export_checkpoint(checkpoint, out, images=images or [], overwrite=overwrite)
    console.out.print(export_summary(report), markup=False)


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Images and folders.")],
    model: Annotated[Path | None, typer.Option(help="An exported .onnx student.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into subfolders too.")] = False,
    workers: Annotated[int, typer.Option(help="Images scored at a time.")] = 1,
    file_format: Annotated[str, typer.Option("--format", help="table, csv, jsonl or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option("--out", help="File to write.  [default: standard output]")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Score photographs from 0 (worst) to 1 (best) on the CPU. Exit status 1 if any has no score."""
    from distill.scoring import score_paths

    tally = score_paths(
        paths, model, recursive=recursive, workers=workers, file_format=file_format, out=out, overwrite=overwrite
    )
    if tally.scored < tally.rows:
        console.err.print(f"{tally.rows - tally.scored} of {tally.rows} images have no score; see status and reason")
        raise typer.Exit(1)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes with pocketiqa.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the recipe's]")] = None,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo the stages whose settings or inputs changed, and only these.")
    ] = False,
) -> None:
    """Walk all stages of a recipe, from photographs to report; unchanged ones are skipped."""
    from distill.pipeline import run_recipe

    run_recipe(recipe, out=out, settings=settings or [], overwrite=overwrite)


@app.command()
def doctor() -> None:
    """Show versions, devices, and which teachers can run here and what the others miss."""
    from distill.summaries import doctor_tables

    for table in doctor_tables():
        console.out.print(table)


def main() -> None:
    """Entry point of the ``pocketiqa`` command."""
    sys.exit(console.run_cli(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
