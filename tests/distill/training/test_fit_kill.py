from pathlib import Path

from tests.helpers.campaign import kills
from tests.helpers.fit_runs import STATEFUL, files, fit_unfinished
from tests.helpers.killing import kill_and_resume
from tests.helpers.training import texture_pool

# Everything that a fitting keeps in a checkpoint; and checkpoints often, so that most lives get further than the last.
CHANGES = {
    "steps": 40, "validate_every_steps": 5, "checkpoint_every_steps": 2, "log_every_steps": 3, **STATEFUL,
}  # fmt: skip


def test_kills_leave_no_trace_in_the_fitted_teacher(tmp_path: Path):
    texture_pool(tmp_path, scenes=6, versions=3)
    arguments = [[str(tmp_path), str(tmp_path / name), CHANGES] for name in ("killed", "unbroken")]
    wanted = kills(6, short=2)
    hits = kill_and_resume(fit_unfinished, arguments[0], unbroken_args=arguments[1], kills=wanted, seed=3)
    assert hits == wanted
    killed, unbroken = (files(tmp_path / name) for name in ("killed", "unbroken"))
    names = {Path(name).name for name in unbroken}
    assert names >= {f"{name}.safetensors" for name in ("teacher", "average", "beside", "optimizer", "fitted")}
    assert killed.keys() == unbroken.keys()
    assert [name for name in killed if killed[name] != unbroken[name]] == []
