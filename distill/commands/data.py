"""Commands that make pools and labels."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.commands.options import (
    ClaimOpen,
    Cluster,
    DecodeWorkers,
    Device,
    GpusPerTask,
    MaxPixels,
    OutFolder,
    OutPlace,
    Overwrite,
    OverwriteFile,
    RayAddress,
    Retries,
    Shard,
    Sharing,
    Student,
    TeacherThreads,
    app,
    choose_one,
    cluster_of,
    complete_benchmark,
    complete_distortion,
    complete_teacher,
)
from distill.terminal import console
from pseudo_labels.defaults import (
    CROP_LARGEST,
    CROP_SMALLEST,
    DECODE_WORKERS,
    DISTORT_WORKERS,
    DISTORTED_PER_IMAGE,
    LABEL_BATCH_SIZE,
    LABEL_THREADS,
    MAX_BAD_FRACTION,
    MAX_FAILED_FRACTION,
    MAX_OUTLIER,
    MAX_PIXELS,
    MIN_CONFIDENCE,
    NEAR_DUPLICATE_DISTANCE,
    SEED,
)


@app.command()
def pool(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Image folder, image, WebDataset .tar, .parquet with image bytes, or a saved dataset.",
        ),
    ],
    out: OutPlace,
    near_duplicate_distance: Annotated[
        int, typer.Option(help="dHash bits, of 64, up to which two images are one scene.")
    ] = NEAR_DUPLICATE_DISTANCE,
    max_bad_fraction: Annotated[float, typer.Option(help="Fail above this fraction of bad files.")] = MAX_BAD_FRACTION,
    max_pixels: MaxPixels = MAX_PIXELS,
    workers: Annotated[int, typer.Option(help="Images decoded at a time.")] = DECODE_WORKERS,
    overwrite: Overwrite = False,
) -> None:
    """List the images of one or more sources: content hash, size, duplicates, scenes, bad files."""
    from distill.terminal.summaries import pool_summary
    from pseudo_labels.images import DecodeLimits
    from pseudo_labels.pool import build_pool

    with console.progress("pool") as report:
        made = build_pool(
            sources,
            out,
            limits=DecodeLimits(max_pixels=max_pixels),
            near_duplicate_distance=near_duplicate_distance,
            max_bad_fraction=max_bad_fraction,
            workers=workers,
            overwrite=overwrite,
            progress=report,
            warn=console.warn,
        )
    console.out.print(pool_summary(made), markup=False)


@app.command()
def distort(
    pool: Annotated[Path | None, typer.Argument(help="Folder of a clean pool.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write (with --preview: a PNG file).")] = None,
    per_image: Annotated[int, typer.Option(help="Distorted versions of each image.")] = DISTORTED_PER_IMAGE,
    seed: Annotated[int, typer.Option(help="Chooses distortions, levels and noise.")] = SEED,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="kadid, camera, all (those two), waterloo (four, far stronger), or one distortion; repeatable.",
            autocompletion=complete_distortion,
        ),
    ] = None,
    max_side: Annotated[int | None, typer.Option(help="Shrink the clean images to this longer side first.")] = None,
    regions: Annotated[
        Path | None,
        typer.Option(help="Folder of regions of the pool: each copy is distorted inside one of them only."),
    ] = None,
    feather_px: Annotated[
        float, typer.Option(help="With --regions: pixels inside the edge along which the distortion grows.")
    ] = 0.0,
    regions_per_copy: Annotated[
        list[int] | None,
        typer.Option(
            help="With --regions: how many regions of a copy are distorted, each by a distortion of its own; "
            "repeatable, and copies take turns.  [default: 1]"
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help=f"Processes.  [default: {DISTORT_WORKERS}]")] = None,
    engine: Cluster = None,
    ray_address: RayAddress = None,
    retries: Retries = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only draw a contact sheet of all distortions.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a synthetic pool: distorted copies that keep the link to their clean reference."""
    from distill.terminal.summaries import pool_summary
    from pseudo_labels.distort import build_synthetic_pool
    from pseudo_labels.distort.synth import ONE_REGION
    from pseudo_labels.pool import Pool
    from pseudo_labels.regions.store import RegionSet

    if preview:
        console.out.print(f"contact sheet: {_draw_contact_sheet(pool, out, overwrite)}", markup=False)
        return
    if pool is None or out is None:
        raise typer.BadParameter("name a pool and an --out folder, or ask for --preview")
    choose_one({"--workers": workers is not None, "--engine": engine is not None})
    cluster = cluster_of(engine, ray_address, retries)
    with console.progress("distort") as report:
        made = build_synthetic_pool(
            Pool.open(pool),
            out,
            per_image=per_image,
            names=names,
            seed=seed,
            max_side=max_side,
            regions=None if regions is None else RegionSet.open(regions),
            regions_per_copy=regions_per_copy or ONE_REGION,
            feather_px=feather_px,
            workers=DISTORT_WORKERS if workers is None else workers,
            cluster=None if cluster is None else partial(cluster.ready, console.warn),
            overwrite=overwrite,
            progress=report,
        )
    console.out.print(pool_summary(made), markup=False)


def _draw_contact_sheet(pool: Path | None, out: Path | None, overwrite: bool) -> Path:
    from pseudo_labels.distort import write_contact_sheet
    from pseudo_labels.images import load
    from pseudo_labels.outputs import new_file
    from pseudo_labels.photos import bundled_photographs
    from pseudo_labels.pool import Pool

    target = out or Path("distortions.png")
    with new_file(target, overwrite=overwrite) as file:
        if pool is None:
            rgb = load(bundled_photographs()["astronaut"])
        else:
            opened = Pool.open(pool)
            rgb = opened.load(opened.ok()[0])
        write_contact_sheet(rgb, file)
    return target


@app.command()
def curate(
    pool: Annotated[Path, typer.Argument(help="Folder of a pool; nothing of it is changed.")],
    out: OutFolder,
    model: Student = None,
    min_score: Annotated[float, typer.Option(help="Leave out images that score lower.")] = 0.0,
    max_score: Annotated[float, typer.Option(help="Leave out images that score higher.")] = 1.0,
    best_of_scene: Annotated[
        bool, typer.Option("--best-of-scene", help="Of near duplicates, keep the one that scores highest.")
    ] = False,
    without_types: Annotated[
        list[str] | None,
        typer.Option(
            "--without-type",
            metavar="TYPE",
            help="Leave out images of which this is the main damage: blur, motion, noise, compression, dark, bright, "
            "contrast, colour, pixelation or none; repeatable.",
        ),
    ] = None,
    max_strength: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Leave out images with a stronger damage, from 0 to 1; with --without-type, only of these types.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weight-by",
            help="scene (near duplicates together weigh as much as one image) or score; repeatable.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Images scored at a time.")] = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an earlier table; its scores are used again if they still fit."),
    ] = False,
) -> None:
    """Scores, damage, near duplicates, bad files, filters and sampling weights of a pool, as columns of a table.

    If it is killed, the same command resumes.
    """
    from distill.data.curated import Filters, curated_summary
    from distill.data.curated import curate as curate_pool
    from pseudo_labels.images import DecodeLimits
    from students.runtime import Scorer

    filters = Filters(
        min_score,
        max_score,
        best_of_scene,
        weights=tuple(weights or ()),
        without_types=tuple(without_types or ()),
        max_strength=max_strength,
    )
    limits = DecodeLimits(max_pixels=max_pixels)
    scorer = Scorer(model, limits=limits)
    with console.progress(f"curate ({scorer.contract.name})") as report:
        curated = curate_pool(
            pool, out, scorer, filters, limits=limits, workers=workers, overwrite=overwrite, progress=report,
            warn=console.warn,
        )  # fmt: skip
    for line in curated_summary(curated):
        console.out.print(line, markup=False)


@app.command()
def label(
    pool: Annotated[Path, typer.Argument(help="Folder of a pool.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="Name of a teacher (see doctor), folder of a fitted one, your own as package.module:function, or a "
            "student: pocket-m, or its .onnx file.",
            autocompletion=complete_teacher,
        ),
    ],
    out: OutPlace,
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
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Leave out images that a fitted teacher has learned from.")
    ] = False,
    crop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help=f"Label a random crop of each image in place of all of it: smallest={CROP_SMALLEST}, "
            f"largest={CROP_LARGEST} (fractions of its sides) and seed={SEED}; repeatable.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images in one forward pass, noted in the store.  "
            f"[default: {LABEL_BATCH_SIZE}, or that of the store in --out]"
        ),
    ] = None,
    device: Device = "auto",
    threads: TeacherThreads = LABEL_THREADS,
    decode_workers: DecodeWorkers = DECODE_WORKERS,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_failed_fraction: Annotated[
        float, typer.Option(help="Leave the store unfinished above this fraction of good images without a label.")
    ] = MAX_FAILED_FRACTION,
    shard: Shard = None,
    claim: ClaimOpen = False,
    engine: Cluster = None,
    ray_address: RayAddress = None,
    gpus_per_task: GpusPerTask = None,
    retries: Retries = None,
    overwrite: Overwrite = False,
) -> None:
    """Let a teacher score a pool. If it is killed or interrupted, the same command resumes where it stopped."""
    from distill.recipe.load import parse_settings, validated
    from distill.recipe.stages import CropSection
    from distill.scoring.student_labels import with_students
    from distill.terminal.summaries import store_summary, unfinished_line
    from pseudo_labels.images import DecodeLimits
    from teachers.label import label as label_pool

    sharing = Sharing(shard, claim, engine, ray_address=ray_address, gpus_per_task=gpus_per_task, retries=retries)
    visible = console.is_main_process()
    name, own_options = with_students(teacher, parse_settings(options or []))
    crops = validated(CropSection, parse_settings(crop), Path("--crop")).crops if crop else None
    with console.progress(f"label ({teacher})", visible=visible) as report:
        store = label_pool(
            pool,
            name,
            out,
            shards=shards,
            features=features,
            options=own_options,
            unseen=unseen,
            crops=crops,
            batch_size=batch_size,
            device=device,
            threads=threads,
            decode_workers=decode_workers,
            limits=DecodeLimits(max_pixels=max_pixels),
            max_failed_fraction=max_failed_fraction,
            overwrite=overwrite,
            share=sharing.chosen(),
            progress=report,
            warn=console.warn,
        )
    if visible:
        console.out.print(store_summary(store) if store.is_complete else unfinished_line(store), markup=False)


@app.command()
def fuse(
    labels: Annotated[list[Path], typer.Argument(metavar="LABELS...", help="Folders of label stores of one pool.")],
    out: OutPlace,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="BENCHMARK",
            help="Ratings of images of the pool, as for evaluate.",
            autocompletion=complete_benchmark,
        ),
    ] = None,
    split: Annotated[
        Literal["validation", "train"] | None,
        typer.Option(help="Part of --on.  [default: validation where there is one, else train]"),
    ] = None,
    calibrate: Annotated[
        Literal["auto", "logistic", "isotonic", "quantile", "none"],
        typer.Option(help="How scales are aligned: quantile and none are the ways without ratings."),
    ] = "auto",
    min_teachers: Annotated[
        int | None, typer.Option(help="Teachers that must have scored a row; 1 allows a single store.  [default: 2]")
    ] = None,
    min_confidence: Annotated[float, typer.Option(help="Drop rows below this confidence, of 0 to 1.")] = MIN_CONFIDENCE,
    max_disagreement: Annotated[
        float | None, typer.Option(help="Drop rows on which the teachers' deviation is more than this, such as 0.15.")
    ] = None,
    outlier_feature: Annotated[
        str | None, typer.Option(help="Drop rows far from all others in this stored feature, [TEACHER/]NAME.")
    ] = None,
    max_outlier: Annotated[float, typer.Option(help="Robust deviations above which a row is far.")] = MAX_OUTLIER,
    carry: Annotated[
        str | None, typer.Option("--features", help="Stored feature to carry over, [TEACHER/]NAME.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of cross-validation and intervals.")] = SEED,
    overwrite: Overwrite = False,
) -> None:
    """Join the labels of several teachers: calibrated on ratings, weighted by expected error, doubtful ones dropped."""
    from distill.stages.fusing import fuse_labels, fusion_summary
    from pseudo_labels.fusion.keep import KeepRule

    rule = KeepRule(min_teachers, min_confidence, max_disagreement, outlier_feature, max_outlier)
    with console.progress("fuse") as report:
        store = fuse_labels(
            labels,
            out,
            on=on,
            split=split,
            calibrate=calibrate,
            rule=rule,
            carry=carry,
            seed=seed,
            overwrite=overwrite,
            progress=report,
        )
    console.out.print(fusion_summary(store), markup=False)


@app.command()
def audit(
    labels: Annotated[
        Path, typer.Argument(help="Folder of a label store, of regions, or of a store of region labels.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Also write the audit as one HTML page.")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Check a store: altered or missing shards, coverage, scores, spread. Exit status 1 on a fault."""
    from distill.terminal.summaries import audit_summary, region_audit_summary
    from pseudo_labels.audit.page import write_audit_page
    from pseudo_labels.audit.region_page import write_region_page
    from pseudo_labels.audit.regions import KINDS, audit_regions
    from pseudo_labels.audit.store import audit_store
    from pseudo_labels.outputs import new_file, read_manifest

    with new_file(out, overwrite=overwrite) as file:
        if read_manifest(labels).kind in KINDS:
            report = audit_regions(labels)
            words, write = region_audit_summary(report), partial(write_region_page, report)
        else:
            report = audit_store(labels)
            words, write = audit_summary(report), partial(write_audit_page, report)
        if out is not None:
            write(file)
    console.out.print(words, markup=False)
    if out is not None:
        console.out.print(f"page: {out}", markup=False)
    if not report.ok:
        raise typer.Exit(1)
