"""``pocketiqa score`` as a whole process: one image cold, and a folder with one and two workers."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from distill.stages.export import export_checkpoint
from students.registry import build_student
from students.storage import save_student
from tests.bench.photographs import write_jpegs

COUNT, REPEATS = 1000, 3


def _score(words: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak resident MB of one ``pocketiqa score``."""
    command = [sys.executable, "-m", "distill.cli", "score", *words, "--out", str(folder / "scores.csv")]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--format", "csv"], stderr=subprocess.DEVNULL)
    peak_mb = 0.0
    while process.poll() is None:
        peak_mb = max(peak_mb, _peak_mb(process.pid))
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        sys.exit(f"scoring failed with status {process.returncode}")
    return seconds, peak_mb


def _peak_mb(pid: int) -> float:
    """The peak so far (Linux; 0 elsewhere). What ``wait4`` reports may be the peak of this very bench."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), default=0.0)


def main() -> None:
    """Measure with an untrained pocket-m: weights do not change the time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_student(build_student("pocket-m", seed=0), folder / "student")
        export_checkpoint(folder / "student", folder / "model.onnx")
        jpegs = write_jpegs(folder / "photographs", COUNT, 1024, 768)
        model = ["--model", str(folder / "model.onnx")]
        cold = [_score([str(jpegs[0]), *model], folder)[0] for _ in range(5)]
        print(f"one 1024x768 JPEG, cold start: median {median(cold):.2f} s of 5 (limit 1.0 s)")
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(REPEATS):
            for workers, times in seconds.items():
                taken, peak = _score([str(jpegs[0].parent), *model, "--workers", str(workers)], folder)
                times.append(taken)
                print(f"{COUNT} JPEGs 1024x768, {workers} worker(s): {taken:.1f} s, peak {peak:.0f} MB (limit 400 MB)")
        ratio = median(one / two for one, two in zip(seconds[1], seconds[2], strict=True))
        print(f"2 workers against 1: {ratio:.2f} times faster, median of {REPEATS} pairs (limit 1.7)")
