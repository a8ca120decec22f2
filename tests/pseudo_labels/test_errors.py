"""Hints on installing, old names, and values in messages."""

import json
import time
from importlib import metadata
from pathlib import Path

import pytest

from pseudo_labels import errors
from pseudo_labels.errors import RenamedWarning, install_command, read_renamed, shown

CLONE = Path(__file__).parents[2]


def test_in_a_clone_the_hint_is_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(CLONE)
    assert install_command("train") == "pip install '.[train]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("train", "teachers") == f"pip install '{CLONE}[train,teachers]'"


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'pocketiqa[train]'"),
        ({"url": "file://{folder}", "dir_info": {}}, "pip install '{folder}[train]'"),
        ({"url": "file:///gone/away", "dir_info": {}}, "pip install 'pocketiqa[train]'"),
        ({"url": "file://{folder}/pocketiqa.whl", "archive_info": {}}, "pip install 'pocketiqa[train]'"),
        (
            {"url": "https://example.org/pocketiqa.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'pocketiqa[train] @ git+https://example.org/pocketiqa.git'",
        ),
    ],
)
def test_in_an_installation_the_hint_repeats_it(
    record: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Real metadata of a distribution, as pip writes it beside an installed package."""
    folder = tmp_path / "a clone"
    (folder / "site" / "pocketiqa-0.1.0.dist-info").mkdir(parents=True)
    (folder / "site" / "pocketiqa-0.1.0.dist-info" / "METADATA").write_text("Name: pocketiqa\nVersion: 0.1.0\n")
    if record is not None:
        text = json.dumps(record).replace("{folder}", str(folder).replace(" ", "%20"))
        (folder / "site" / "pocketiqa-0.1.0.dist-info" / "direct_url.json").write_text(text)
    monkeypatch.syspath_prepend(str(folder / "site"))
    monkeypatch.setattr(errors, "_CLONE", tmp_path)  # an installed package has no project file above it
    assert metadata.distribution("pocketiqa").version == "0.1.0"
    assert install_command("train") == command.replace("{folder}", str(folder))


def test_an_old_name_is_read_with_a_note():
    with pytest.warns(RenamedWarning, match="'old' is called 'new' now"):
        assert read_renamed({"old": 1, "other": 2}, {"old": "new"}) == {"new": 1, "other": 2}


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        [["y"] * 10**5] * 1000,
        {str(number): number for number in range(10**5)},
        10**4000,
        -(7**20_000),
        [1 << 10**6],
        b"z" * 10**6,
        {"a": [{"b": [{"c": [1]}]}]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_in_bounded_length_and_time(value: object) -> None:
    started = time.process_time()
    assert 0 < len(shown(value)) < 600
    assert time.process_time() - started < 1


@pytest.mark.parametrize("value", ["text", 12, -1.5, None, [1, "a"], {"a": 1}, True, 10**39])
def test_a_short_value_is_its_repr(value: object) -> None:
    assert shown(value) == repr(value)
