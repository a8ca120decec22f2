from pathlib import Path

from tests.helpers.campaign import WHOLE, kills
from tests.helpers.killing import kill_and_resume
from tests.helpers.training import texture_pool, texture_store, train_unfinished

# Checkpoints often, so that most lives get further than the one before; validation often, so that "best" moves.
CHANGES = {"steps": 60, "validate_every_steps": 6, "checkpoint_every_steps": 2, "log_every_steps": 3}


def content(out: Path) -> dict[str, bytes]:
    """Every file but the timings, the only one that may tell how often the run was killed."""
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != "timings.jsonl")
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_kills_leave_no_trace_in_the_result(tmp_path: Path):
    pool = texture_pool(tmp_path, scenes=6, versions=3)
    texture_store(tmp_path / "labels", pool)
    arguments = [[str(tmp_path), str(tmp_path / name), CHANGES] for name in ("killed", "unbroken")]
    wanted = kills(30, short=2)
    hits = kill_and_resume(train_unfinished, arguments[0], unbroken_args=arguments[1], kills=wanted, seed=1)
    assert hits == wanted
    killed, unbroken = (content(tmp_path / name) for name in ("killed", "unbroken"))
    assert len([name for name in unbroken if name.endswith(".safetensors")]) >= 3 * 2 + 1
    assert killed.keys() == unbroken.keys()
    assert [name for name in killed if killed[name] != unbroken[name]] == []
    lives = (tmp_path / "killed" / "timings.jsonl").read_text().splitlines()
    # Work was lost and done again; a few kills may fall between the steps that are recorded.
    least = len((tmp_path / "unbroken" / "timings.jsonl").read_text().splitlines())
    assert len(lives) > least if WHOLE else len(lives) >= least
