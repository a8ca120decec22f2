"""Writes what docs/trust.md and docs/what-it-sees.md show of the shipped students, by one call: ``make trust``.

Its tables are that command's own Markdown, its picture the command's; what the tests mean is that of
``distill.trust.definitions``. Scores are stored in ``runs/trust`` and made once, also after a kill.
"""

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.trust.definitions import DEFINITIONS
from distill.trust.run import trust
from distill.trust.tables import markdown
from students.shipped import NAMES

ROOT = Path(__file__).parents[2]
PAGE, PICTURE, WORK = ROOT / "docs" / "trust.md", ROOT / ".github" / "images" / "trust.png", ROOT / "runs" / "trust"
SEEN = ROOT / "docs" / "what-it-sees.md"
FIGURES, MEANINGS, CAUGHT = "figures", "meanings", "caught"
# Weak, middle, strong.
_STRENGTHS = (1, 3, 5)


def spliced(text: str, block: str, content: str) -> str:
    """The page with other content between the marks of a block.

    Raises:
        ValueError: it has no such block.
    """
    begin, end = (f"<!-- {block}: {word} -->" for word in ("begin", "end"))
    made, found = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.S)
    if found != 1:
        raise ValueError(f"the page has {found} blocks {begin} ... {end}, not one")
    return made


def meanings() -> str:
    """What each test means, as a list."""
    lines = []
    for one in DEFINITIONS.values():
        source = f" ({one.source})" if one.source else ""
        least = "" if one.least is None else f" Asked: at least {one.least:g}."
        lines.append(f"- **{one.title}.** {one.meaning}{least}{source}")
    return "\n".join(lines)


def caught(result: Mapping[str, Any]) -> str:
    """AUROC of clean over damaged by kind, at three strengths, as Markdown; from what ``trust`` gives."""
    models = result["models"]
    names = [f"{model['name']}: weak, middle, strong" for model in models]
    lines = [f"| {' | '.join(['kind', *names])} |", "| --- |" + " --- |" * len(models)]
    for kind in models[0]["auroc"]["effects"]:
        cells = [
            " ".join(f"{model['auroc']['effects'][kind][strength - 1]['value']:.2f}" for strength in _STRENGTHS)
            for model in models
        ]
        lines.append(f"| {' | '.join([kind, *cells])} |")
    strengths = f"Strengths {', '.join(map(str, _STRENGTHS[:-1]))} and {_STRENGTHS[-1]} of five"
    return "\n".join([*lines, "", f"{strengths}; {len(result['photographs'])} photographs, {result['date']}."])


def main() -> None:
    """Run the command and write page and picture."""
    shared = Path(os.environ.get("POCKETIQA_SHARED_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", type=Path, default=shared / "kodak", help="folder of clean photographs")
    parser.add_argument("--brisque", type=Path, default=shared / "anchors" / "brisque")
    parser.add_argument("--first", type=int, default=None, help="only so many photographs")
    parser.add_argument("models", nargs="*", default=list(reversed(NAMES)))
    given = parser.parse_args()
    out = WORK / "trust.html"
    result = trust(
        given.models,
        [given.on],
        out,
        first=given.first,
        brisque=given.brisque,
        picture=out.with_suffix(".png"),
        overwrite=True,
    )
    first = "" if given.first is None else f" --first {given.first}"
    words = f"{' '.join(given.models)} --on {given.on.name} --brisque brisque{first}"
    command = f"    pocketiqa trust {words} --out trust.html --picture trust.png"
    content = f"{command}\n\nof {result['date']}, pocketiqa {result['version']}, gave:\n\n{markdown(result)}"
    text = spliced(PAGE.read_text(encoding="utf-8"), FIGURES, content)
    PAGE.write_text(spliced(text, MEANINGS, meanings()), encoding="utf-8")
    SEEN.write_text(spliced(SEEN.read_text(encoding="utf-8"), CAUGHT, caught(result)), encoding="utf-8")
    PICTURE.write_bytes(out.with_suffix(".png").read_bytes())


if __name__ == "__main__":
    main()
