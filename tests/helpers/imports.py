"""Which of our modules a file imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = {
    "pseudo_labels": set(),
    "teachers": {"pseudo_labels"},
    "students": {"pseudo_labels"},
    "distill": {"pseudo_labels", "teachers", "students"},
    "pocketiqa": {"pseudo_labels", "teachers", "students", "distill"},
}
FILES = sorted(file for package in LAYERS for file in (ROOT / package).rglob("*.py"))
NAMES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def modules_imported(file: Path) -> set[str]:
    """Our modules that a file imports, wherever in the file, also for type checkers alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (below & set(NAMES)) or {node.module}
    return names & set(NAMES)
