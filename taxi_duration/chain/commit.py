"""Which commit of git the code is, or why that is not known."""

from __future__ import annotations

import logging
import os
import subprocess
from typing import NamedTuple

from taxi_duration import environment

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
SECONDS = 20.0  # for one call of git, on a slow disk
# A hook of another repository sets them: git would answer for that one.
OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


class Commit(NamedTuple):
    """The code's commit, `-dirty` when changed since, or `unknown`; `problem` says why."""

    name: str
    problem: str = ""


def git_commit() -> str:
    """Commit of the code, `-dirty` when changed since; `GIT_COMMIT` or `unknown` without git."""
    return find_commit().name


def find_commit() -> Commit:
    """Ask git for the commit; without an answer the setting `GIT_COMMIT` says it.

    A folder within somebody's own repository is no checkout of ours: that commit is not the code's.
    """
    try:
        _git("ls-files", "--error-unmatch", "pipeline.py")
        # `--exclude` keeps tags out: a tag may be moved, a commit cannot.
        commit = _git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except FileNotFoundError:
        problem = "there is no git here"
    except subprocess.CalledProcessError as error:
        problem = _in_words(error.stderr)
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"git cannot be asked ({error})"
    else:
        return Commit(commit)
    given = environment.code_commit()
    return Commit(given) if given else Commit(UNKNOWN, problem)


def told_commit() -> str:
    """Return what `git_commit` does, and log why the card of a model will not name it."""
    name, problem = find_commit()
    if problem:
        log.warning("the card will not name the commit of the code: %s, or set GIT_COMMIT", problem)
    return name


def _git(*words: str) -> str:
    own = {name: value for name, value in os.environ.items() if name not in OF_A_HOOK}
    done = subprocess.run(
        ["git", *words], cwd=environment.PROJECT_ROOT, env={**own, "LC_ALL": "C"},
        capture_output=True, text=True, check=True, timeout=SECONDS,
    )  # fmt: skip
    return done.stdout.strip()


def _in_words(said: str) -> str:
    """What git says, and the remedy where there is one."""
    if "dubious ownership" in said:
        return (
            "another user owns the repository; `git config --global --add safe.directory "
            f"{environment.PROJECT_ROOT}` lets git answer"
        )
    if "not a git repository" in said or "did not match any file" in said:
        return "this folder is no checkout of git; clone the repository"
    return f"git says {' '.join(said.split()) or 'nothing'}; mend that"
