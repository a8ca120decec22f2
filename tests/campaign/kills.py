"""Kill every command that writes, at random moments, and compare what is left with an unbroken run.

Each life is the command line itself, in a process of its own. The unbroken run is made at the very path of the broken
one and then moved aside, so that paths that a result names are no difference.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from distill.cli import app
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import load
from students.session import read_model, verify_checksum
from tests.helpers.encoders import picture
from tests.helpers.killing import kill_and_resume
from tests.helpers.videos import write_video

# What differs between any two runs: seconds and memory, and the report, which prints them.
# And the journal of moves, which says how many runs there were.
MEASURED_FILES = ("timings.jsonl", "pocketiqa-undo.jsonl")
MEASURED_FOLDERS = ("report",)
EARLIER = b"an earlier file that must be whole until it is replaced\n"
_HALF_OF_LIVES = 2
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Case:
    """A command that is killed.

    Attributes:
        name: of the command.
        words: its arguments; ``{in}`` is the folder of the inputs, ``{out}`` what is written.
        file: name of the file that it writes, in a folder of its own; empty where it writes a folder.
        resumes: whether it uses what a killed run of its own left; the others begin anew.
        imports: modules that are imported before the first life; the commands themselves import late.
        copied: what the command changes in its place, from where to where; copied before the unbroken life and again
            before the first broken one. ``{work}`` is a folder of this case.
        statuses: exit statuses that a life may end with.
    """

    name: str
    words: tuple[str, ...]
    imports: tuple[str, ...]
    file: str = ""
    resumes: bool = True
    copied: tuple[str, str] = ("", "")
    statuses: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Outcome:
    """What was counted of one command.

    Attributes:
        command: its name.
        kills: lives that were ended by SIGKILL.
        lives: lives in all, those in peace included.
        files: files of the unbroken run that were compared.
        differing: names of files whose bytes differ, or that only one of the two has.
        leftovers: names of private files and folders after the last life.
        seconds: of the whole.
        fault: what went wrong besides, such as a torn file under its final name; empty if nothing did.
    """

    command: str
    kills: int
    lives: int
    files: int
    differing: tuple[str, ...]
    leftovers: tuple[str, ...]
    seconds: float
    fault: str = ""

    @property
    def as_promised(self) -> bool:
        """Whether nothing differs, nothing is left over and nothing failed."""
        return not (self.differing or self.leftovers or self.fault) and self.files > 0


_DISTORTIONS = ("--only", "jpeg", "--only", "white_noise", "--only", "darken", "--only", "pixelate")
_RECIPE = """
name: campaign
seed: 0
pool: {{sources: ["{photographs}"]}}
distort: {{names: [jpeg, white_noise], per_image: 2, max_side: 96}}
label: {{teacher: reference, shards: 3, batch_size: 2}}
distill:
  student: {{name: test_efficientnet, levels: [4, 8, 16], head_width: 8, max_side: 96}}
  steps: 16
  batch_size: 8
  validate_every_steps: 4
  checkpoint_every_steps: 2
  log_every_steps: 2
  threads: 1
  images: {{crop_size: 64}}
  split: {{validation: 0.25, test: 0.25}}
  optimizer: {{warmup_steps: 2}}
  tracker: none
evaluate: [{{ratings: "csv:{few}", near_duplicate_cosine: null}}]
score: {{images: 1, distortions: [jpeg]}}
"""
_LEARN = """
name: campaign
seed: 0
sources: [{{pool: "{synthetic}", labels: "{labels}"}}]
distill:
  student: {{name: test_efficientnet, levels: [4, 8, 16], head_width: 8, max_side: 96}}
  steps: 40
  batch_size: 8
  validate_every_steps: 8
  checkpoint_every_steps: 4
  log_every_steps: 4
  ema_decay: 0.9
  threads: 1
  images: {{crop_size: 64}}
  split: {{validation: 0.25, test: 0.25}}
  optimizer: {{warmup_steps: 2}}
  tracker: none
"""
_FIT = """
name: campaign
seed: 0
fit:
  teacher: "tests.helpers.fitting:build"
  options: {{dropout: 0.3, extra: 0.5, norm: true}}
  sources: [{{ratings: "csv:{rated}"}}]
  steps: 40
  batch_size: 8
  ema_decay: 0.9
  validate_every_steps: 8
  checkpoint_every_steps: 4
  log_every_steps: 4
  device: cpu
  threads: 1
  images: {{crop_size: 64}}
  split: {{validation: 0.25}}
  optimizer: {{learning_rate: 2.0e-2, warmup_steps: 2}}
  tracker: none
"""
_TEACHER = "tests.helpers.fitting"
_SCORE = ("score", "{in}/photographs", "--out", "{out}", "--model", "{in}/student.onnx")
_BEST = ("best", *_SCORE[1:])
_ROWS = "distill.scoring.score_paths"
_BY = ("--model", "{in}/student.onnx")
_RATED = ("{in}/rated.csv", "--out", "{out}", "--model", "{in}/student.onnx")
_MEANING = ("distill.scoring.meaning_records",)
_LABEL = ("label", "{in}/synthetic", "--teacher", "reference", "--out", "{out}", "--device", "cpu")
CASES = (
    Case("pool", ("pool", "{in}/photographs", "--out", "{out}"), ("pseudo_labels.pool",), resumes=False),
    Case(
        "distort",
        ("distort", "{in}/pool", "--out", "{out}", "--per-image", "3", *_DISTORTIONS),
        ("pseudo_labels.distort",),
    ),
    Case(
        "label",
        (*_LABEL, "--shards", "12", "--features", "--batch-size", "2"),
        ("teachers.label", "teachers.reference", "pandas"),
    ),
    Case(
        "fuse",
        ("fuse", "{in}/labels", "{in}/other", "--out", "{out}", "--calibrate", "quantile"),
        ("distill.stages.fusing", "scipy.optimize"),
    ),
    Case("fit-teacher", ("fit-teacher", "{in}/fit.yaml", "--out", "{out}"), ("distill.stages.fitting", _TEACHER)),
    Case("distill", ("distill", "{in}/learn.yaml", "--out", "{out}"), ("distill.stages.student", "timm")),
    Case(
        "export",
        ("export", "{in}/student", "--out", "{out}"),
        ("distill.stages.export", "onnx", "timm"),
        file="student.onnx",
        resumes=False,
    ),
    # ``formats --page`` has no entry: its page holds times, so that no two runs give the same bytes. Nor has ``web``:
    # it needs what npm brings, and writes as ``score --gallery DIR`` does.
    Case(
        "export --format",
        ("export", "pocket-s", "--format", "onnx-w8", "--card", "--out", "{out}"),
        ("distill.stages.converting", "onnx"),
        file="small.onnx",
        resumes=False,
    ),
    Case(
        "fit-look",
        ("fit-look", "{in}/few", "--model", "{in}/student.onnx", "--out", "{out}", "--min-pixels", "5000"),
        ("distill.stages.second_look", "teachers.reference", "onnx"),
        file="looking.onnx",
        resumes=False,
    ),
    Case(
        "fit-pairs",
        ("fit-pairs", "{in}/few", "--ratings", "csv:{in}/scenes.csv", "--model", "{in}/student.onnx", "--out", "{out}"),
        ("distill.stages.pair_fitting", "onnx"),
        file="paired.onnx",
        resumes=False,
    ),
    Case(
        "run", ("run", "{in}/recipe.yaml", "--out", "{out}"), ("distill.stages.pipeline", "teachers.reference", "timm")
    ),
    Case("score --out --resume", (*_SCORE, "--resume"), (_ROWS,), file="scores.csv"),
    Case("score --out", _SCORE, (_ROWS, "pyarrow.parquet"), file="scores.parquet", resumes=False),
    Case(
        "score --move-to",
        ("score", "{work}/source", "--move-to", "{out}", "--model", "{in}/student.onnx"),
        (_ROWS,),
        copied=("{in}/photographs", "{work}/source"),
        statuses=(0, 1),  # 1 if a killed life had moved all of them
    ),
    Case("score --copy-to", ("score", "{in}/photographs", "--copy-to", "{out}", *_BY), (_ROWS,)),
    Case(
        "score --gallery DIR",
        ("score", "{in}/photographs", "--gallery", "{out}", *_BY),
        (_ROWS,),
    ),
    Case(
        "score --gallery FILE",
        ("score", "{in}/photographs", "--gallery", "{out}", *_BY),
        (_ROWS,),
        file="page.html",
        resumes=False,
    ),
    Case(
        "score --xmp",
        ("score", "{out}", "--xmp", *_BY),
        (_ROWS,),
        copied=("{in}/photographs", "{out}"),
    ),
    Case("best --out", _BEST, ("distill.scoring.best",), file="groups.json", resumes=False),
    Case(
        "best --page",
        ("best", "{in}/photographs", "--page", "{out}", "--model", "{in}/student.onnx"),
        ("distill.scoring.best",),
        file="page.html",
        resumes=False,
    ),
    Case(
        "population",
        ("population", "{in}/photographs", "--out", "{out}", "--model", "{in}/student.onnx"),
        _MEANING,
        file="mine.json",
        resumes=False,
    ),
    Case("intervals", ("intervals", *_RATED, "--domain", "pictures"), _MEANING, file="intervals.json", resumes=False),
    Case("calibrate", ("calibrate", *_RATED), _MEANING, file="calibration.json", resumes=False),
    Case(
        "curate",
        ("curate", "{in}/synthetic", "--out", "{out}", "--model", "{in}/student.onnx"),
        ("distill.data.curated",),
    ),
    Case(
        "compare-folders --out",
        ("compare-folders", "{in}/photographs", "{in}/changed", "--model", "{in}/student.onnx", "--out", "{out}"),
        ("distill.scoring.before_after",),
        file="changes.json",
        resumes=False,
    ),
    Case(
        "trust",
        ("trust", *_BY[1:], "--on", "{in}/few", "--test", "views", "--scores", "{work}/scores", "--out", "{out}"),
        ("distill.trust.run",),
        file="page.html",
        resumes=False,  # its scores are used again, but its files begin anew
    ),
    Case(
        "frames",
        ("frames", "{in}/clip.mkv", "--every", "1f", "--model", "{in}/student.onnx", "--out", "{out}"),
        ("distill.scoring.frames", "av"),
    ),
    Case(
        "evaluate --out",
        ("evaluate", "{in}/student.onnx", "--on", "csv:{in}/rated.csv", "--out", "{out}"),
        ("distill.stages.benchmark", "distill.terminal.summaries"),
        file="evaluation.json",
        resumes=False,
    ),
)
BY_NAME = {case.name: case for case in CASES}


def pocketiqa(*words: object, statuses: tuple[int, ...] = (0,)) -> None:
    """The command line.

    Raises:
        RuntimeError: it ended with another status.
    """
    status = console.run_cli(app, [*map(str, words)])
    if status not in statuses:
        raise RuntimeError(f"pocketiqa {' '.join(map(str, words))} ended with {status}")


def write_photographs(folder: Path, count: int, width: int = 96, height: int = 80) -> None:
    """``count`` scenes in three formats, and a file that is no image among them."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 4 * (number % 6), (height, width, 3))
        rgb = np.clip(picture(number, width, height) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(rgb).save(folder / f"{number:03}.{('png', 'jpg', 'webp')[number % 3]}")


def write_rated(photographs: Path, file: Path) -> None:
    """Ratings of the photographs, 0 to 1."""
    names = sorted(path.name for path in photographs.iterdir())
    rows = [f"{photographs.name}/{name},{1 - (number % 6) / 6:.3f}\n" for number, name in enumerate(names)]
    file.write_text("image,mos\n" + "".join(rows))


def write_scenes(rated: Path, file: Path) -> None:
    """The same ratings, two neighbours being one scene."""
    head, *rows = rated.read_text().splitlines()
    lines = [f"{head},group", *(f"{row},{number // 2}" for number, row in enumerate(rows))]
    file.write_text("\n".join(lines) + "\n")


def write_recipes(folder: Path) -> None:
    """Recipes that walk all stages over the photographs in ``folder/few``, fit a teacher, and train a student."""
    write_rated(folder / "few", folder / "rated-few.csv")
    names = {"photographs": folder / "few", "few": folder / "rated-few.csv", "rated": folder / "rated.csv"}
    names |= {"synthetic": folder / "synthetic", "labels": folder / "labels"}
    for name, text in (("recipe", _RECIPE), ("fit", _FIT), ("learn", _LEARN)):
        (folder / f"{name}.yaml").write_text(text.format(**names))


def build_inputs(folder: Path, photographs: int = 48) -> None:
    """All that the commands of ``CASES`` read, made by these very commands."""
    write_photographs(folder / "photographs", photographs)
    write_photographs(folder / "changed", photographs, 88, 72)
    write_photographs(folder / "few", 6)
    write_video(folder / "clip.mkv", frames=photographs)
    write_rated(folder / "photographs", folder / "rated.csv")
    write_scenes(folder / "rated.csv", folder / "scenes.csv")
    pocketiqa("pool", folder / "few", "--out", folder / "pool")
    synthetic = folder / "synthetic"
    pocketiqa("distort", folder / "pool", "--out", synthetic, "--per-image", "3", "--workers", 1, *_DISTORTIONS)
    for name, teacher in (("labels", "reference"), ("other", "tests.helpers.own_teacher:build")):
        pocketiqa("label", synthetic, "--teacher", teacher, "--out", folder / name, "--device", "cpu", "--shards", 12)
    write_recipes(folder)
    pocketiqa("distill", folder / "learn.yaml", "--out", folder / "learned", "--set", "distill.steps=3")
    shutil.copytree(folder / "learned" / "training", folder / "student")
    pocketiqa("export", folder / "student", "--out", folder / "student.onnx")


def command_of(case: Case, inputs: Path, work: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """One life of a command as JSON values, see ``live``."""
    out = work / "out" / case.file

    def filled(word: str) -> str:
        return word.replace("{in}", str(inputs)).replace("{out}", str(out)).replace("{work}", str(work))

    words = [filled(word) for word in case.words]
    for setting in settings:
        words += ["--set", setting]
    return {"words": words, "work": str(work), "out": str(out), "is_file": bool(case.file), "resumes": case.resumes,
            "copied": [filled(word) for word in case.copied], "statuses": case.statuses}  # fmt: skip


def live(life: dict[str, Any], unbroken: bool) -> None:
    """One life: the command line, which must end with 0.

    The first broken life moves the unbroken result aside. A command that writes one file without resuming finds in
    turn nothing and an earlier file, which it is asked to replace.
    """
    work, out, words = Path(life["work"]), Path(life["out"]), list(life["words"])
    with open(work / "lives", "ab", buffering=0) as log:
        log.write(b"%d\n" % os.getpid())
    aside = work / "unbroken"
    folder = out.parent if life["is_file"] else out
    begins = unbroken or not aside.exists()
    if not unbroken and begins:
        os.rename(folder, aside)
    source, copy = life["copied"]
    if begins and source:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
    if not life["resumes"]:
        _forget(out, life["is_file"])
        if life["is_file"]:
            lives = (work / "lives").read_bytes().count(b"\n")
            if not unbroken and lives % _HALF_OF_LIVES:
                out.parent.mkdir(exist_ok=True)
                out.write_bytes(EARLIER)
            words += ["--overwrite"]
    pocketiqa(*words, statuses=tuple(life["statuses"]))


def _forget(out: Path, is_file: bool) -> None:
    """Remove a finished result under its final name, not what killed lives left beside it."""
    if is_file:
        out.unlink(missing_ok=True)
    else:
        (out / "manifest.json").unlink(missing_ok=True)
        for path in out.glob("[!.]*"):
            path.unlink()


def inspect(life: dict[str, Any], _unbroken: bool) -> None:
    """After a kill: what has a final name is whole.

    Raises:
        AssertionError: it is not.
    """
    out, aside = Path(life["out"]), Path(life["work"]) / "unbroken"
    if life["is_file"]:
        if out.exists():
            assert out.read_bytes() in (EARLIER, (aside / out.name).read_bytes()), f"{out} is torn"
        return
    for path in out.rglob("*") if out.exists() else ():
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts):
            fault = torn(path)
            assert not fault, f"{path} is torn: {fault}"


def torn(path: Path) -> str:
    """Why a file is not whole, judged by its own format; empty if it is, or if the format does not say."""
    whole: dict[str, Callable[[], object]] = {
        ".json": lambda: json.loads(path.read_bytes()),
        ".parquet": lambda: pq.ParquetFile(path).read(use_threads=False),
        ".png": lambda: _check_png(path),
        ".safetensors": lambda: _check_safetensors(path),
        ".onnx": lambda: verify_checksum(read_model(path), str(path)),
    }
    try:
        whole.get(path.suffix, lambda: None)()
    except (PocketiqaError, ValueError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _check_png(path: Path) -> None:
    load(path)
    if not path.read_bytes().endswith(_PNG_END):  # which a picture can do without
        raise ValueError("the end is lost")


def _check_safetensors(path: Path) -> None:
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    ends = [tensor["data_offsets"][1] for name, tensor in json.loads(data[8 : 8 + header]).items() if name[:2] != "__"]
    if len(data) != 8 + header + max(ends, default=0):
        raise ValueError("the tensors do not end with the file")


def is_measured(name: Path) -> bool:
    """Whether a file holds what no two runs have in common: times, or which row was made in which life (``score``)."""
    return name.name in MEASURED_FILES or name.parts[0] in MEASURED_FOLDERS or name.suffix == ".rows"


def contents(folder: Path) -> dict[str, bytes]:
    """Name and bytes of every file below a folder; of measured ones the name alone."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(name): b"" if is_measured(name) else (folder / name).read_bytes() for name in names}


def leftovers(folder: Path) -> list[str]:
    """Private files and folders below a folder, but for the record that ``score --resume`` is asked to leave."""
    hidden = (path for path in folder.rglob(".*") if not path.name.endswith(".rows"))
    return sorted(str(path.relative_to(folder)) for path in hidden)


def kill(
    case: Case,
    inputs: Path,
    work: Path,
    *,
    kills: int,
    seed: int = 0,
    limit_s: float = 1200,
    settings: Sequence[str] = (),
    target: Callable[..., Any] | str = "tests.campaign.kills:live",
) -> Outcome:
    """Kill one command ``kills`` times, let it end, and compare.

    Args:
        case: the command.
        inputs: folder that ``build_inputs`` filled.
        work: empty folder for this.
        kills: how many lives are killed.
        seed: of the moments.
        limit_s: for the whole.
        settings: of a recipe, as for ``--set``.
        target: one life.
    """
    work.mkdir(parents=True, exist_ok=True)
    start, life = time.monotonic(), command_of(case, inputs, work, settings)
    done = partial(Outcome, case.name)
    try:
        hits = kill_and_resume(
            target,
            [life, False],
            unbroken_args=[life, True],
            kills=kills,
            seed=seed,
            preload=case.imports,
            limit_s=limit_s,
            after_kill="tests.campaign.kills:inspect",
        )
    except RuntimeError as error:
        return done(0, _lives(work), 0, (), (), time.monotonic() - start, str(error))
    broken, whole = contents(work / "out"), contents(work / "unbroken")
    differing = sorted(name for name in {*broken, *whole} if broken.get(name) != whole.get(name))
    left = tuple(leftovers(work / "out"))
    fault = "" if hits == kills else f"only {hits} of {kills} lives could be killed"
    return done(hits, _lives(work), len(whole), tuple(differing), left, time.monotonic() - start, fault)


def _lives(work: Path) -> int:
    log = work / "lives"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def as_record(outcome: Outcome) -> dict[str, Any]:
    """JSON values of an outcome."""
    return {**asdict(outcome), "as_promised": outcome.as_promised}
