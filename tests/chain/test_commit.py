"""The commit in cards and runs, in checkouts of every kind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from commands import PROJECT

from taxi_duration import environment
from taxi_duration.chain.commit import find_commit, git_commit
from taxi_duration.chain.run import new_run
from taxi_duration.chain.run_settings import check_settings


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty folder in place of the project's; git looks into none above it."""
    folder = tmp_path / "taxi"
    folder.mkdir()
    monkeypatch.setattr(environment, "PROJECT_ROOT", folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return folder


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def checkout(root) -> Path:
    """A repository with one commit, at the root."""
    (root / "pipeline.py").write_text("print('taxi')\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "All there is")
    return root


def test_commit_is_the_whole_one_of_the_project():
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no git checkout")
    assert len(git_commit().removesuffix("-dirty")) == 40


def test_checkout_changed_since_is_dirty(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert find_commit() == (head, "")
    (checkout / "pipeline.py").write_text("print('changed')\n")
    assert git_commit() == f"{head}-dirty"


def test_detached_head_and_moved_tags_change_nothing(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    git(checkout, "tag", "-a", "v1.0", "-m", "a release")
    git(checkout, "checkout", "-q", "--detach")
    assert git_commit() == head


def test_shallow_clone_knows_its_commit(checkout, tmp_path, monkeypatch):
    (checkout / "more.txt").write_text("more")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "More")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{checkout}", "shallow")
    monkeypatch.setattr(environment, "PROJECT_ROOT", tmp_path / "shallow")
    assert git_commit() == git(checkout, "rev-parse", "HEAD")


def test_folder_without_git_is_unknown_and_said_so_once_a_run(root, home, caplog):
    assert find_commit() == (
        "unknown", "this folder is no checkout of git; clone the repository"
    )  # fmt: skip
    new_run(check_settings("2021-01", "2021-02"))
    assert [r.message for r in caplog.records if "commit" in r.message] == [
        "the card will not name the commit of the code: this folder is no checkout of git; clone "
        "the repository, or set GIT_COMMIT"
    ]


def test_setting_names_the_commit_where_git_does_not(root, home, caplog, monkeypatch):
    monkeypatch.setenv("GIT_COMMIT", "abc123")
    assert new_run(check_settings("2021-01", "2021-02")).read()["git_commit"] == "abc123"
    assert "commit" not in caplog.text


def test_git_that_is_not_installed_is_said(root, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit() == ("unknown", "there is no git here")


def test_repository_without_a_commit_is_unknown(root):
    git(root, "init", "-q")
    (root / "pipeline.py").write_text("print('taxi')\n")
    git(root, "add", "-A")
    assert find_commit().name == "unknown"
    assert find_commit().problem.startswith("git says fatal: ")


def test_repository_of_another_user_is_unknown_with_the_way_out(checkout, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own, for its tests
    name, problem = find_commit()
    assert name == "unknown"
    assert f"`git config --global --add safe.directory {checkout}`" in problem


def test_commit_of_a_repository_around_the_project_is_not_the_codes(checkout, monkeypatch):
    inner = checkout / "downloads" / "taxi"
    inner.mkdir(parents=True)
    (inner / "pipeline.py").write_text("print('unpacked here')\n")
    monkeypatch.setattr(environment, "PROJECT_ROOT", inner)
    assert git_commit() == "unknown"
    git(checkout, "add", "-A")  # kept in it, it is that repository's
    git(checkout, "commit", "-qm", "Keep a copy")
    assert git_commit() == git(checkout, "rev-parse", "HEAD")


def test_hook_of_another_repository_does_not_change_it(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "pipeline.py").write_text("print('of somebody else')\n")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "Another")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    found = git_commit()
    monkeypatch.delenv("GIT_DIR")
    assert found == git(checkout, "rev-parse", "HEAD")
