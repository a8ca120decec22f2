"""``make bench``: the numbers of the README, measured on this machine and printed with it.

``python -m tests.bench [NAME...]`` runs all benches or the named ones. Each prints its own lines; none is a test.
"""

import importlib
import platform
import sys
from pathlib import Path

from distill.doctor import installed_versions, machine

BENCHES = ("labelling", "scoring", "brisque", "loader")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Run the benches that are named, or all."""
    names = sys.argv[1:] or list(BENCHES)
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        sys.exit(f"no bench named {', '.join(unknown)}: choose from {', '.join(BENCHES)}")
    here, versions = machine(), installed_versions()
    print(f"machine: {_processor()}, {here['cores']} cores, {here['system']}, Python {here['python']}")
    print("versions: " + ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "pillow", "timm")))
    for name in names:
        print(f"\n== {name} ==", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main()
