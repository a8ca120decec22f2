"""The recipes for queues and clusters: read by what reads them, and their commands by ours."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from distill.cli import app
from distill.terminal.console import run_cli
from pseudo_labels.store import LabelStore
from tests.helpers.pools import clean_pool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "many-machines"
SCRIPT = FOLDER / "label.sbatch"


def strict(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Schema of an object with these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


TEXT, WHOLE = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
# As Kubernetes documents them (API reference, v1); restricted to what the recipes use.
CONTAINER = strict(
    {
        "name": NAME,
        "image": {"type": "string", "pattern": r"^[a-z0-9./-]+:[\w.-]+$"},
        "command": {"type": "array", "items": TEXT},
        "args": {"type": "array", "items": TEXT},
        "env": {"type": "array", "items": strict({"name": TEXT, "value": {"type": "string"}})},
        "resources": strict({"requests": QUANTITIES, "limits": QUANTITIES}),
        "volumeMounts": {"type": "array", "items": strict({"name": NAME, "mountPath": TEXT})},
    },
    optional=("command", "args", "env"),
)
POD = strict(
    {
        "restartPolicy": {"enum": ["OnFailure", "Never"]},
        "containers": {"type": "array", "items": CONTAINER, "minItems": 1},
        "volumes": {
            "type": "array", "items": strict({"name": NAME, "persistentVolumeClaim": strict({"claimName": NAME})})
        },
    },
    optional=("restartPolicy",),
)  # fmt: skip
TEMPLATE = strict({"spec": POD})
# As KubeRay documents them (API reference, ray.io/v1).
HEAD = strict({"rayStartParams": TEXTS, "template": TEMPLATE})
WORKERS = strict(
    {
        "groupName": NAME, "replicas": WHOLE, "minReplicas": WHOLE, "maxReplicas": WHOLE, "rayStartParams": TEXTS,
        "template": TEMPLATE,
    }
)  # fmt: skip
SPECS = {
    ("batch/v1", "Job"): strict(
        {"completions": WHOLE, "parallelism": WHOLE, "backoffLimit": WHOLE, "template": TEMPLATE}
    ),
    ("ray.io/v1", "RayJob"): strict(
        {
            "entrypoint": TEXT,
            "shutdownAfterJobFinishes": {"type": "boolean"},
            "backoffLimit": WHOLE,
            "rayClusterSpec": strict(
                {"rayVersion": TEXT, "headGroupSpec": HEAD, "workerGroupSpecs": {"type": "array", "items": WORKERS}}
            ),
        }
    ),
}


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


def pods(value: Any) -> list[dict[str, Any]]:
    """Every pod of a manifest, wherever it stands."""
    if isinstance(value, list):
        return [pod for one in value for pod in pods(one)]
    if not isinstance(value, dict):
        return []
    own = [value] if "containers" in value else []
    return own + [pod for one in value.values() for pod in pods(one)]


@pytest.mark.parametrize("name", ["label-job.yaml", "label-rayjob.yaml"])
def test_manifests_are_of_their_kind_and_mount_what_they_claim(name: str):
    read = manifest(name)
    spec = SPECS[read["apiVersion"], read["kind"]]
    schema = strict({"apiVersion": TEXT, "kind": TEXT, "metadata": strict({"name": NAME}), "spec": spec})
    assert [str(error) for error in jsonschema_rs.validator_for(schema).iter_errors(read)] == []
    assert jsonschema_rs.is_valid(schema, read | {"spec": read["spec"] | {"paralelism": 8}}) is False
    found = pods(read)
    assert len(found) == {"label-job.yaml": 1, "label-rayjob.yaml": 2}[name]
    for pod in found:
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]} == volumes


def commands() -> dict[str, list[str]]:
    """The commands of ours in the recipes and on their page, placeholders filled in."""
    container = manifest("label-job.yaml")["spec"]["template"]["spec"]["containers"][0]
    found = {
        "label-job.yaml": [*container["command"], *container["args"]],
        "label-rayjob.yaml": shlex.split(manifest("label-rayjob.yaml")["spec"]["entrypoint"]),
    }
    page = (ROOT / "docs" / "many-machines.md").read_text()
    for number, line in enumerate(re.findall(r"^    (pocketiqa label .*?)(?: +#.*)?$", page, re.M)):
        found[f"page, command {number}"] = shlex.split(line)
    return found


@pytest.mark.parametrize("where", commands())
def test_commands_are_read_by_the_command_line(where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = commands()[where]
    assert words[:2] == ["pocketiqa", "label"]
    pool = str(tmp_path / "none")  # it stops there: everything before was understood
    assert run_cli(app, [words[1], pool, *words[3:]]) == 1
    error = capsys.readouterr().err
    assert f"no pool manifest at {pool}" in error or "ray is not installed" in error


def test_the_slurm_script_labels_a_pool(tmp_path: Path):
    assert subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True).stderr == ""
    directives = re.findall(r"^#SBATCH (--[a-z-]+)=(\S+)$", SCRIPT.read_text(), re.M)
    assert len(directives) == SCRIPT.read_text().count("#SBATCH") - 1  # --requeue has no value
    assert dict(directives)["--array"] == "1-8"
    pool, out = clean_pool(tmp_path, images=2, max_side=80), tmp_path / "labels"
    # The command as it is installed; a folder of its own, for PATH may hold another one.
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "pocketiqa"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m distill.cli "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "PMI_SIZE": "8",
    }  # fmt: skip
    words = ["bash", str(SCRIPT), str(pool.folder), "tests.helpers.own_teacher:build", str(out), "--device", "cpu"]
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert LabelStore.open(out).is_complete
    assert subprocess.run(words[:3], capture_output=True).returncode == 2
