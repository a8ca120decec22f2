"""Environments of Python for converters that need other versions of packages than pocketiqa itself.

One is made where the user asked for it, with pinned versions, and runs one script in a process of its own. Only files
pass between both.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudo_labels.errors import OutputConflictError, PocketiqaError, WriteError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.outputs import MANIFEST, Claim, claim, exclusively, finish, read_manifest

FOLDER_VARIABLE = "POCKETIQA_ENVIRONMENTS"
_DEFAULT_FOLDER = "~/.cache/pocketiqa/environments"
_KIND = "converter environment"
# Standard error of this process: what pip and uv report is seen while they work.
_STDERR = 2
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Environment:
    """What is to be installed into one.

    Attributes:
        name: what it is for; name of its usual folder.
        packages: what is asked for.
        pins: file with the version of each package that these need, ``NAME==VERSION`` in a line.
        gigabytes: what it takes on the disk, with what else was installed on Linux (x86-64).
    """

    name: str
    packages: tuple[str, ...]
    pins: Path
    gigabytes: float

    @property
    def usual_folder(self) -> Path:
        """Where it is looked for unless the user names a folder: ``$POCKETIQA_ENVIRONMENTS`` or the user's cache."""
        return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT_FOLDER).expanduser() / self.name

    def pinned(self) -> dict[str, str]:
        """Versions by package."""
        lines = self.pins.read_text(encoding="utf-8").splitlines()
        return dict(line.split("==", 1) for line in lines if "==" in line)

    def is_ready(self, folder: Path | None = None) -> bool:
        """Whether one with these pins, for this Python, is whole in ``folder`` (None: in the usual one)."""
        folder = folder or self.usual_folder
        if not (folder / MANIFEST).is_file():
            return False
        manifest = read_manifest(folder)
        return manifest.complete and (manifest.kind, manifest.spec) == (_KIND, self._spec())

    def _spec(self) -> dict[str, str]:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return {"name": self.name, "pins": sha256_bytes(self.pins.read_bytes()), "python": python}

    def make(self, folder: Path) -> None:
        """Make it, which takes minutes; nothing is done if it is there. One that was interrupted is gone on with.

        Raises:
            OutputConflictError: the folder holds something else, or one for other versions.
            WriteError: too little room on the disk.
            PocketiqaError: neither venv nor uv can make it, or a package cannot be had.
        """
        with exclusively(folder):
            try:
                if claim(folder, _KIND, self._spec()) is Claim.DONE:
                    return
            except OutputConflictError as error:
                raise OutputConflictError(
                    f"{folder} holds something else, or an environment for other versions: remove it, or name another "
                    "folder with --environment"
                ) from error
            free = shutil.disk_usage(folder).free
            if free < self.gigabytes * _GIGABYTE:
                raise WriteError(
                    f"{folder} has {free / _GIGABYTE:.1f} GB left, and the environment of {self.name} takes about "
                    f"{self.gigabytes:g}: name a folder on another disk with --environment"
                )
            self._install(folder.absolute())
            finish(folder, {"packages": self.pinned()})

    def _install(self, folder: Path) -> None:
        uv, words = shutil.which("uv"), ["--constraint", str(self.pins), *self.packages]
        tries = [[sys.executable, "-m", "venv", str(folder)]]
        if uv is not None:
            tries.append([uv, "venv", "--allow-existing", "--python", sys.executable, str(folder)])
        for number, making in enumerate(tries):
            if _reported(making):
                continue
            pip = [str(_python(folder)), "-m", "pip", "install"]
            installing = [uv, "pip", "install", "--python", str(_python(folder))] if number and uv else pip
            if _reported([*installing, *words]):
                raise PocketiqaError(
                    f"the packages of the environment of {self.name} could not be installed into {folder} (see above): "
                    "run the same command again once they can be had"
                )
            return
        raise PocketiqaError(
            f"no environment of Python could be made at {folder} (see above): install your system's package of venv "
            "(python3-venv), or uv"
        )

    def run(self, script: Path, words: Sequence[str], *, folder: Path | None, seconds: int) -> str:
        """Run a script in it, alone with its packages.

        Args:
            script: file that imports nothing of ours.
            words: its arguments.
            folder: where it is; None is the usual folder.
            seconds: what it may take.

        Returns:
            Why it failed, the end of what it wrote; empty if it did not.

        Raises:
            PocketiqaError: there is no environment.
        """
        folder = folder or self.usual_folder
        if not self.is_ready(folder):
            raise PocketiqaError(self.missing(folder))
        # -I: neither the folder of the script nor packages of this process can stand in for those of the environment.
        command = [str(_python(folder.absolute())), "-I", str(script), *words]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                env=_quiet(os.environ),
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {seconds} seconds"
        return "" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())[-300:] or "no reason given"

    def missing(self, folder: Path | None = None) -> str:
        """That it is not there, and how to make it."""
        folder = folder or self.usual_folder
        return (
            f"the environment of {self.name}'s converter is not at {folder}: --environment {folder} makes it there "
            f"(about {self.gigabytes:g} GB, some minutes)"
        )


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _reported(words: Sequence[str]) -> int:
    """Exit status of a command that reports to standard error."""
    return subprocess.run(list(words), stdout=_STDERR, check=False).returncode


def _quiet(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process that reports to nobody."""
    return {**variables, "TF_CPP_MIN_LOG_LEVEL": "3"}
