"""What a campaign counted, as JSON values and as Markdown tables for ``docs/reliability.md``."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.campaign.kills import Outcome, as_record
from tests.campaign.reading import Reading


def summarised(outcomes: Sequence[Outcome], readings: Sequence[Reading], about: dict[str, Any]) -> dict[str, Any]:
    """Counts of a campaign.

    Args:
        outcomes: one of each command that was killed.
        readings: one of each mutant.
        about: facts for the head, such as seed and machine.
    """
    by_format: dict[str, list[Reading]] = {}
    for reading in readings:
        by_format.setdefault(reading.format, []).append(reading)
    return {
        **about,
        "as_promised": all(one.as_promised for one in (*outcomes, *readings)),
        "kills": [as_record(outcome) for outcome in outcomes],
        "mutants": [_of_format(name, own) for name, own in by_format.items()],
        "not_as_promised": [
            {"number": one.number, "format": one.format, "kinds": one.kinds, "status": one.status, "words": one.words}
            for one in readings
            if not one.as_promised
        ],
    }


def _of_format(name: str, readings: Sequence[Reading]) -> dict[str, Any]:
    return {
        "format": name,
        "mutants": len(readings),
        "statuses": dict(sorted(Counter(one.status for one in readings).items())),
        "not_as_promised": sum(not one.as_promised for one in readings),
        "longest_cpu_s": round(max(one.cpu_s for one in readings), 3),
        "peak_memory_mb": round(max(one.memory_mb for one in readings), 1),
    }


def as_markdown(summary: dict[str, Any]) -> str:
    """The counts as two tables with a line of totals."""
    kills, mutants = summary["kills"], summary["mutants"]
    lines = ["| command | kills | lives | files compared | that differ | left over |", "|---|---|---|---|---|---|"]
    rows = [
        (one["command"], one["kills"], one["lives"], one["files"], len(one["differing"]), len(one["leftovers"]))
        for one in kills
    ]
    lines += [_line(f"`{name}`", *counts) for name, *counts in rows]
    lines.append(_line("**all**", *(sum(column) for column in list(zip(*rows, strict=True))[1:])) if rows else "")
    lines += ["", *(f"Fault: `{one['command']}`: {one['fault'].splitlines()[-1]}" for one in kills if one["fault"]), ""]
    lines.append("| format | mutants | read | refused, with the reason | not as promised | longest, s | peak, MB |")
    lines.append("|---|---|---|---|---|---|---|")
    totals = Counter[str]()
    for one in mutants:
        statuses = dict(one["statuses"])
        read = sum(statuses.pop(status, 0) for status in ("ok", "rows"))
        wrong = one["not_as_promised"]
        totals.update(mutants=one["mutants"], read=read, wrong=wrong)
        good = one["mutants"] - read - wrong
        named = {name: count for name, count in statuses.items() if name not in _WRONG}
        said = f"{good} ({', '.join(f'{count} {name}' for name, count in named.items())})" if good else "0"
        lines.append(
            _line(one["format"], one["mutants"], read, said, wrong)[:-2]
            + f" | {one['longest_cpu_s']:.2f} | {one['peak_memory_mb']:.0f} |"
        )
    if mutants:
        refused = totals["mutants"] - totals["read"] - totals["wrong"]
        longest, peak = (max(one[key] for one in mutants) for key in ("longest_cpu_s", "peak_memory_mb"))
        all_counts = _line("**all**", totals["mutants"], totals["read"], refused, totals["wrong"])
        lines.append(f"{all_counts[:-2]} | {longest:.2f} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


_WRONG = ("exception", "crash", "time limit", "memory limit", "message", "prints")


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
