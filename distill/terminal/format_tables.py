"""The forms of students as a table for the terminal, and as a page in Markdown."""

from collections.abc import Sequence
from datetime import date

from rich.table import Table

from students.formats.measured import Measured, Row
from students.formats.registry import FORMATS
from students.formats.timing import Timed

_COLUMNS = (
    *("format", "run by", "file", "SRCC to float", "mean difference (bias)", "largest"),
    *("network, processor time", "of float", "JPEG to score", "of float"),
)
_BUSY = 1.2
"""Processes a core from which on times are said to be those of a busy machine."""

_USE = """
## Use

- `pocketiqa score PHOTOS --model pocket-m-int8` (or `pocket-s-int8`, or a file), `Scorer("pocket-m-int8")`. Made for
  processors that multiply 8 bits without saturating: x86 with VNNI (`avx512_vnni`, `avx_vnni`), ARM with dot
  products; on others it may be slower, and scores may differ by more.
- `pocketiqa score PHOTOS --engine openvino`, `Scorer(model, engine="openvino")`: the same file in OpenVINO (`pip
  install 'pocketiqa[openvino]'`). A test picture is scored by both engines when a model is opened, and a model that
  OpenVINO computes wrongly is refused.
- `pocketiqa export MODEL --format onnx-int8 --calibrate FOLDER --rated csv:RATINGS --out FILE`: a file of your own,
  from a checkpoint or an exported student. The first block and the last convolutions stay in float; biases, and
  stretch and shift of the quality logits, are fitted so that scores stay where they were. Photographs of a test part
  are refused.
- Do not mix scores of the float file and of one in 8 bits in one ranking; populations, intervals and calibrations
  belong to the file that they were made with.
- `pocketiqa export MODEL --format openvino|ncnn|coreml|executorch|litert --out FOLDER` (`--half`: in float16, but for
  executorch and litert): the model's files, and `contract.json` with all that a program must know: `preprocess` (the
  resize, [preprocess.md](preprocess.md)),
  `conversion.input` and `conversion.outputs` (names in order), `calibration`, which the program applies to score and
  quality map, and how closely scores follow (`conversion.agreement`). The resize is the program's in every format;
  normalisation and the weighted mean are in the graph. Names of input and outputs are `rgb`, `score`, `quality_map`,
  `weight_map`, `embedding` (but for OpenVINO, its first numbers: the mean of the fused map; heads that read more are
  left out of the contract); one image at a time, but for OpenVINO.

  | format | files | input | sides |
  |---|---|---|---|
  | openvino | `model.xml`, `model.bin` | uint8 [N, H, W, 3] | any |
  | ncnn | `model.param`, `model.bin` | `Mat::from_pixels(rgb, Mat::PIXEL_RGB, w, h)` | multiples |
  | coreml | `model.mlpackage` | an RGB image, not scaled by Vision | multiples |
  | executorch | `model.pte` (XNNPACK) | uint8 [1, H, W, 3] | multiples |
  | litert | `model.tflite` | uint8 [1, H, W, 3] | those of `preprocess.sizes` |

- "Multiples" are those of the student's largest stride (`preprocess.multiple`: 32 for pocket-m, 16 for pocket-s): each
  side is rounded to the nearest one, which changes the aspect a little and moves scores. `conversion.rounding` says by
  how much; the scores of such a file and of the ONNX file are not for one ranking.
- A LiteRT file has one signature for each of its few sizes, named `HEIGHTxWIDTH` (`conversion.signatures`), all with
  the same weights: those that photographs of 1:1, 4:3, 3:2 and 16:9 become, upright and turned. Every image is resized
  to the one of nearest aspect (`preprocess.sizes`), small ones are enlarged.
- LiteRT's converter needs an older PyTorch than pocketiqa, so it works in an environment of its own: `--environment
  FOLDER` makes it there, once (7 GB on Linux with x86-64, some minutes, by `venv` or `uv`, versions pinned in
  `students/formats/litert.txt`). Without the option it is looked for in `~/.cache/pocketiqa/environments/litert`, or
  below `$POCKETIQA_ENVIRONMENTS`. Running a file takes LiteRT alone (`pip install ai-edge-litert`).
- In Python, `students.formats.packages.Package(FOLDER).score(data)` verifies and runs such a folder, to try it.
- `make formats-check` installs these runtimes and runs their tests; `LONG=1` makes LiteRT's converter too and converts.
- `make int8` makes the files in 8 bits of the package anew, with their cards, after a new float student.
"""


def format_table(measured: Measured) -> Table:
    """One student, a row a format and engine; what could not run here is said below the table (``format_notes``)."""
    table = Table(*_COLUMNS, title=measured.model, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for row in measured.rows:
        if not row.missing:
            table.add_row(*_cells(row))
    return table


def format_notes(measured: Measured) -> list[str]:
    """What could not run here, and on which machine the rest did."""
    missing: dict[str, list[str]] = {}
    for row in measured.rows:
        if row.missing:
            missing.setdefault(row.missing, []).append(f"{row.name} by {row.engine}")
    busy = " (busy machine: trust ratios, not milliseconds)" if measured.load > _BUSY else ""
    absent = [f"not measured: {', '.join(names)}: {reason}" for reason, names in missing.items()]
    return [*absent, f"{measured.machine}; {measured.load:.1f} processes a core{busy}"]


def _cells(row: Row) -> list[str]:
    agreement = row.agreement
    if agreement is None:
        return [row.name, row.engine]
    return [
        row.name,
        row.engine,
        f"{row.size_bytes / 1e6:.2f} MB",
        f"{agreement.srcc:.4f}",
        f"{agreement.mean:.1e} ({agreement.bias:+.1e})" if agreement.mean < 1e-4 else _thousandths(row),
        f"{agreement.largest:.1e}" if agreement.largest < 1e-3 else f"{agreement.largest:.3f}",
        *_time(row.network),
        *_time(row.whole),
    ]


def _time(timed: Timed | None) -> list[str]:
    return ["-", "-"] if timed is None else [f"{timed.median_ms:.1f} ms", f"{timed.ratio:.2f}"]


def _thousandths(row: Row) -> str:
    assert row.agreement is not None
    return f"{row.agreement.mean:.4f} ({row.agreement.bias:+.4f})"


def format_page(results: Sequence[Measured], command: str) -> str:
    """The page as Markdown: what each format is for, and a table for each student.

    Args:
        results: at least one student.
        command: the command that wrote the page.
    """
    lines = [
        "# Formats: the same student for other places",
        "",
        f"Written by `{command}` on {date.today().isoformat()}; run it again on your machine.",
        "",
        "| format | what for | installed by | must keep |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {entry.summary} | `pocketiqa[{entry.extra}]` | {entry.must_keep} |"
        for name, entry in FORMATS.items()
    ]
    for measured in results:
        images = next((row.agreement.images for row in measured.rows if row.agreement), 0)
        lines += ["", f"## {measured.model}", "", f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
        lines += [f"| {' | '.join(_cells(row))} |" for row in measured.rows if not row.missing]
        lines += [
            "",
            f"Float model {measured.digest[:12]}; scores of {images} images, photographs whole and with visible noise, "
            "blur, compression and darkness, in three sizes. Processor time of one thread, all forms in turn in one "
            "process, medians; the network on a square of the student's largest side, then from the bytes of a JPEG of "
            "512x512 pixels to its score.",
            "",
            *[f"- {note}" for note in format_notes(measured)],
        ]
    return "\n".join([*lines, _USE])
