"""The last stage before the report: the CPU runtime scores held-out originals and visibly distorted copies."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from distill.recipe.stages import ScoreSection
from distill.stages.context import Run, Stage, make_once
from distill.stages.evaluation import held_out
from distill.stages.student import label_sources
from pseudo_labels import addresses
from pseudo_labels.distort import distort
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, read_record, sha256_file, write_atomic
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from students.runtime import Scorer

KIND = "demonstration"
SCORES = "scores.json"


@dataclass(frozen=True)
class Photograph:
    """One original with the scores of its copies.

    Attributes:
        name: name of the file, for people.
        files: name of each version to its PNG; ``original`` first.
        scores: name of each version to its score in [0, 1].
    """

    name: str
    files: dict[str, str]
    scores: dict[str, float]


def demonstration_stages(run: Run) -> list[Stage]:
    """One stage, if the recipe asks for it."""
    if run.recipe.score is None:
        return []
    return [Stage("score", run.demonstration, partial(_demonstrate, run, run.recipe.score))]


def _demonstrate(run: Run, section: ScoreSection, overwrite: bool, report: Progress) -> str:
    spec = {"model": sha256_file(run.model), "settings": section.stored(), "seed": run.recipe.seed}
    make_once(run.demonstration, KIND, spec, partial(_make, run, section, report), overwrite=overwrite)
    photographs = read_demonstration(run)
    pairs = [(p.scores["original"], score) for p in photographs for n, score in p.scores.items() if n != "original"]
    lower = sum(original > distorted for original, distorted in pairs)
    return f"{lower} of {len(pairs)} distorted copies score below their original"


def _make(run: Run, section: ScoreSection, report: Progress, folder: Path) -> dict[str, Any]:
    out = held_out(run)
    originals = one_of_each_scene(ref for ref in map(out.pool.by_id, out.ids) if not ref.ref_id)
    files: list[tuple[ImageRef, str, Path]] = []
    for ref in originals[: section.images]:
        rgb = out.pool.load(ref)
        versions = {"original": rgb}
        for name in section.distortions:
            versions[name] = distort(rgb, name, section.level, seed=run.recipe.seed, image_id=ref.id)
        for name, pixels in versions.items():
            # PNG, for a lossy file would add a distortion of its own; the lowest compression, which is written fastest.
            path = folder / f"{ref.id}-{name}.png"
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, "PNG", compress_level=1)
            write_atomic(path, data.getvalue())
            files.append((ref, name, path))
    if not files:
        raise PocketiqaError("no held-out original to demonstrate with: raise distill.split.test, or drop 'score'")
    # The written files are scored, not the arrays in memory: whoever scores them again gets these numbers.
    rows = Scorer(run.model).score_many([path for *_, path in files], progress=report)
    names, photographs = file_names(run), dict[str, dict[str, Any]]()
    for (ref, name, path), row in zip(files, rows, strict=True):
        if row.status != Status.OK:
            # An error, not a gap: these files were made a moment ago, so the model or the disk is at fault.
            raise PocketiqaError(f"{path} has no score ({row.status}): {row.reason}")
        # Versions are a list: canonical JSON sorts the keys of a mapping, and the original must stay the first.
        called = names.get(ref.id) or names.get(ref.group, ref.id)
        entry = photographs.setdefault(ref.id, {"name": called, "versions": []})
        entry["versions"].append({"name": name, "file": path.name, "score": row.score})
    write_atomic(folder / SCORES, checksummed_json({"photographs": list(photographs.values())}))
    return {"photographs": len(photographs), "sha256": sha256_file(folder / SCORES)}


def one_of_each_scene(refs: Iterable[ImageRef]) -> list[ImageRef]:
    """The first image of each scene, in order: several of one scene would show the same thing twice."""
    first: dict[str, ImageRef] = {}
    for ref in refs:
        first.setdefault(ref.group, ref)
    return list(first.values())


def file_names(run: Run) -> dict[str, str]:
    """Names of the files that the photographs came from, by id and by scene (whose name is the id of its first)."""
    pool = Pool.open(run.pool) if run.recipe.pool is not None else label_sources(run)[0].pool
    photographs = [(ref, Path(addresses.name_of(ref.uri)).stem) for ref in pool.ok() if not ref.ref_id]
    # By scene too: copies that were shrunk have other ids than the photographs. Reversed, so that of several
    # photographs of one scene the first, which is the one that is shown, gives the name.
    by_scene = {ref.group: name for ref, name in reversed(photographs)}
    return by_scene | {ref.id: name for ref, name in photographs}


def read_demonstration(run: Run) -> list[Photograph]:
    """The photographs and scores that the stage wrote."""
    records = read_record(run.demonstration / SCORES, what="scores of the demonstration")
    if isinstance(records, dict):  # earlier versions wrote the bare list
        records = records["photographs"]
    return [
        Photograph(
            record["name"],
            {version["name"]: version["file"] for version in record["versions"]},
            {version["name"]: version["score"] for version in record["versions"]},
        )
        for record in records
    ]
