"""The big teachers in full size with random weights: parameters, GMACs, memory and time on the CPU, rate on a GPU.

On the CPU one image is scored in fp32. On a GPU, where there is one, the teacher runs in bf16 with the batch that gives
the most images a second, plain and compiled, and its rate is set against that of a large matrix product on this card.

``python -m tests.bench.teachers [--tiny]``: with ``--tiny`` the small twins take every step of this bench on the CPU,
the search for a batch and ``torch.compile`` included; their figures mean nothing.
"""

import sys

import torch

from tests.bench.teacher_cases import FULL, TINY, Case, Cost, count
from tests.bench.teacher_run import Run, run_apart

# One image in GMACs, measured on the authors' modules.
_AUTHORS_GMACS = {
    "dp_iqa-sd15-512": {
        "whole": 1157,
        "autoencoder's encoder": 558,
        "U-Net": 461,
        "decoder": 105,
        "image adapter": 30,
    },
}
_COUNTED_BATCH = 8


def main() -> None:
    """Measure the full sizes."""
    seconds = {}
    for case in FULL:
        cost = _print_cost(case)
        run = run_apart(case, "cpu")
        _print_run(case, cost, run)
        if torch.cuda.is_available():
            run = _on_device(case, "cuda")
        seconds[case.name] = run.forward_s / run.batch
    if not torch.cuda.is_available():
        print("no GPU here: images a second in bf16 and the fraction of its matrix rate were not measured")
    words = " ".join(f"{name}={value:.4g}" for name, value in seconds.items())
    print(f'cached or live, with these seconds: TEACHER_SECONDS="{words}" python -m tests.bench features')


def _rehearse() -> None:
    for case in TINY:
        _print_cost(case)
        _on_device(case, "cpu")


def _print_cost(case: Case) -> Cost:
    """What follows from the shapes; returns it for one image."""
    one, many = count(case), count(case, _COUNTED_BATCH)
    authors = _AUTHORS_GMACS.get(case.name, {})
    print(f"{case.name}: {one.parameters:,} parameters, of which {one.trained:,} are trained by default", flush=True)
    for part, macs in one.macs.items():
        beside = f"; the authors' {authors[part]}" if part in authors else ""
        each = many.macs[part] / _COUNTED_BATCH / 1e9
        print(f"  {part}: {macs / 1e9:.5g} GMACs for one image, {each:.5g} each in a batch of {_COUNTED_BATCH}{beside}")
    return one


def _on_device(case: Case, device: str) -> Run:
    """Plain with the best batch, then compiled with the same; returns the faster one."""
    plain = run_apart(case, device, batch=None)
    cost = count(case, plain.batch)
    _print_run(case, cost, plain)
    compiled = run_apart(case, device, batch=plain.batch, compiled=True)
    _print_run(case, cost, compiled)
    return min(plain, compiled, key=lambda run: run.forward_s)


def _print_run(case: Case, cost: Cost, run: Run) -> None:
    """One run; ``cost`` is that of its batch."""
    how = f"{run.precision}, {'compiled' if run.compiled else 'eager'}, {run.threads} CPU thread(s), batch {run.batch}"
    print(f"  {run.hardware}: {how}")
    print(
        f"    memory: {run.loaded_bytes / 1e9:.2f} GB for the libraries, {run.built_bytes / 1e9:.2f} GB once built "
        f"(in {run.build_s:.1f} s), peak while scoring {run.peak_bytes / 1e9:.2f} GB"
    )
    matrix = run.matrix_flops_per_s
    for part, seconds in {"whole": run.forward_s, case.goal_part: run.goal_part_s}.items():
        reached = 2 * cost.macs[part] / seconds
        with_goal = run.precision == "bf16" and part == case.goal_part
        print(
            f"    {part}: {seconds:.4g} s a batch, {run.batch / seconds:.4g} images/s, {reached / 1e12:.4g} TFLOP/s, "
            f"{100 * reached / matrix:.0f} % of this hardware's {matrix / 1e12:.4g} at matrix products"
            + (f" (goal {100 * case.goal_fraction:.0f} %)" if with_goal else ""),
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["--tiny"]:
        _rehearse()
    else:
        main()
