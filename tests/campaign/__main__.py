"""``make campaign``: every writing command killed at random moments, and mutants of every accepted format.

``python -m tests.campaign`` writes ``summary.json`` and ``summary.md`` into a folder, prints the tables, and ends with
1 if anything is not as promised. What was done is not done again: a campaign that was stopped goes on, unless the code
has changed since. Files that were read wrongly lie in ``mutants/faults``.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from distill.commands.doctor import machine
from students.latency import machine_name
from tests.campaign.folders import code_digest, start
from tests.campaign.kills import CASES, Outcome, as_record, build_inputs, kill
from tests.campaign.reading import Reading, read_mutants
from tests.campaign.summary import as_markdown, summarised


def main() -> int:
    """Run the campaign; returns the exit status."""
    words = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/campaign"), help="folder for results")
    words.add_argument("--kills", type=int, default=110, help="over all commands together")
    words.add_argument("--mutants", type=int, default=500, help="over all formats together")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--only", nargs="*", default=[], help="names of commands, or 'mutants'")
    given = words.parse_args()
    names = [case.name for case in CASES] + ["mutants"]
    unknown = sorted(set(given.only) - set(names))
    if unknown:
        sys.exit(f"nothing named {', '.join(unknown)}: choose from {', '.join(names)}")
    wanted = given.only or names
    settings = {"seed": given.seed, "kills": given.kills, "mutants": given.mutants, "code": code_digest()}
    folder: Path = given.out.resolve()
    start(folder, settings)
    outcomes = _kill_all(folder, [name for name in wanted if name != "mutants"], given.kills, given.seed)
    readings: list[Reading] = []
    if "mutants" in wanted and given.mutants:
        readings = read_mutants(folder / "mutants", count=given.mutants, seed=given.seed)
    about = settings | {"machine": f"{machine_name()}, {machine()['cores']} cores"}
    summary = summarised(outcomes, readings, about)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "summary.md").write_text(as_markdown(summary))
    print(as_markdown(summary))
    for one in summary["not_as_promised"]:
        print(f"mutant {one['number']} ({one['format']}; {', '.join(one['kinds'])}): {one['status']}: {one['words']}")
    print(f"{'as promised' if summary['as_promised'] else 'NOT as promised'}: {folder / 'summary.json'}")
    return 0 if summary["as_promised"] else 1


def _kill_all(folder: Path, names: list[str], kills: int, seed: int) -> list[Outcome]:
    inputs, outcomes = folder / "inputs", []
    cases = [case for case in CASES if case.name in names]
    for number, case in enumerate(cases):
        record = folder / f"kills-{CASES.index(case):02}.json"
        if not record.exists():
            if not (inputs / "complete").exists():
                shutil.rmtree(inputs, ignore_errors=True)
                build_inputs(inputs)
                (inputs / "complete").touch()
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            # As many for each, and one more for the first of them until all are given out.
            own = kills // len(cases) + (number < kills % len(cases))
            outcome = kill(case, inputs, work, kills=own, seed=seed + CASES.index(case))
            record.write_text(json.dumps(as_record(outcome)))
            print(f"{case.name}: {'as promised' if outcome.as_promised else 'NOT as promised'}", flush=True)
        values = json.loads(record.read_text())
        del values["as_promised"]
        lists = {name: tuple(values[name]) for name in ("differing", "leftovers")}
        outcomes.append(Outcome(**{**values, **lists}))
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
