"""``make bench``: the numbers of the README, measured on this machine and printed with it.

``python -m tests.bench [NAME...]`` runs the named benches, or all but the long one, ``teachers``. Each prints its own
lines; none is a test.
"""

import importlib
import sys

from distill.commands.doctor import installed_versions, machine
from students.latency import machine_name

BENCHES = ("labelling", "scoring", "brisque", "loader", "features")
LONG = ("teachers", "serving")  # make bench-teachers, make bench-serving


def main() -> None:
    """Run the benches that are named, or all but the long ones."""
    names = sys.argv[1:] or list(BENCHES)
    unknown = sorted(set(names) - {*BENCHES, *LONG})
    if unknown:
        sys.exit(f"no bench named {', '.join(unknown)}: choose from {', '.join(BENCHES + LONG)}")
    here, versions = machine(), installed_versions()
    print(f"machine: {machine_name()}, {here['cores']} cores, {here['system']}, Python {here['python']}")
    print("versions: " + ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "pillow", "timm")))
    for name in names:
        print(f"\n== {name} ==", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main()
