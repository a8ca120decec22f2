"""The forms of students as a table for the terminal, and as a page in Markdown."""

from collections.abc import Sequence
from datetime import date

from rich.table import Table

from students.formats.measured import Measured, Row
from students.formats.registry import FORMATS

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
    agreement, network, whole = row.agreement, row.network, row.whole
    if agreement is None or network is None or whole is None:
        return [row.name, row.engine]
    return [
        row.name,
        row.engine,
        f"{row.size_bytes / 1e6:.2f} MB",
        f"{agreement.srcc:.4f}",
        f"{agreement.mean:.1e} ({agreement.bias:+.1e})" if agreement.mean < 1e-4 else _thousandths(row),
        f"{agreement.largest:.1e}" if agreement.largest < 1e-3 else f"{agreement.largest:.3f}",
        f"{network.median_ms:.1f} ms",
        f"{network.ratio:.2f}",
        f"{whole.median_ms:.1f} ms",
        f"{whole.ratio:.2f}",
    ]


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
    rules = {
        "float": "as torch: every score and map to 1e-4 (--half: 1e-2)",
        "int8": "SRCC to the float scores at least 0.998, mean difference at most 0.005, SRCC with ratings "
        "of people at most 0.003 lower; figures in the contract (`conversion`)",
    }
    lines += [
        f"| {name} | {entry.summary} | `pocketiqa[{entry.extra}]` | {rules[entry.precision]} |"
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
