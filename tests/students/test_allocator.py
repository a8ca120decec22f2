import platform
import subprocess
import sys
from pathlib import Path

import pytest

from students.allocator import keep_freed_memory

# Page faults of taking and freeing 12 MB a hundred times, as decoding does: pages come anew each time, or once.
_PROGRAM = """
import resource, sys
from students.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(100):
    blocks = [bytearray(1 << 20) for _ in range(12)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, how]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    assert _faults("keep") < _faults("leave") / 4


def test_users_own_tuning_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert keep_freed_memory() is False
