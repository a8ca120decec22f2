"""Hints on installing, and old names."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from pseudo_labels import errors
from pseudo_labels.errors import RenamedWarning, install_command, read_renamed

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
