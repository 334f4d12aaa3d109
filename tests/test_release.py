"""The release: which tags fit, what the workflow publishes, and hooks that run offline."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from locks import PROJECT

WORKFLOW = PROJECT / ".github" / "workflows" / "release.yml"
JOBS = yaml.safe_load(WORKFLOW.read_text())["jobs"]
FILES = ("pyproject.toml", "compose.yaml", "ops/k8s/kustomization.yaml", "CHANGELOG.md")


@pytest.fixture(scope="module")
def release():
    """The script .ci/release.py."""
    spec = importlib.util.spec_from_file_location("release", PROJECT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ready(tmp_path):
    """Files that are ready for the release 1.2.3."""
    own = re.search(r'^version = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.M)[1]
    for name in FILES:
        text = (PROJECT / name).read_text()
        if name == "CHANGELOG.md":
            text = (
                "# Changes\n\n## Unreleased\n\n## 1.2.3 (2026-11-30)\n\n- New.\n\n"
                "## 1.2.2 (2026-01-01)\n\n- Old.\n"
            )
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace(own, "1.2.3"))
    return tmp_path


def test_notes_are_the_lines_of_the_version_alone(release, ready):
    assert release.notes("v1.2.3", ready) == "- New.\n"


def change(name, old, new):
    def apply(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return apply


@pytest.mark.parametrize(
    ("broken", "tag", "said"),
    [
        (lambda _: None, "1.2.3", "1.2.3 is not v1.2.3"),
        (lambda _: None, "v1.2", "v1.2 is not"),
        (lambda _: None, "v1.2.3-rc1", "is not v1.2.3"),
        (lambda _: None, "v1.2.2", "pyproject.toml says 1.2.3, not 1.2.2"),
        (change("compose.yaml", "taxi-duration:${RELEASE:-1.2.3}", "taxi-duration:${RELEASE:-1}"),
         "v1.2.3", "compose.yaml says 1, 1.2.3, not 1.2.3"),
        (change("ops/k8s/kustomization.yaml", "newTag", "tag"), "v1.2.3", "says nothing"),
        (change("CHANGELOG.md", "- New.", ""), "v1.2.3", "CHANGELOG.md has no lines"),
        (change("CHANGELOG.md", " (2026-11-30)", ""), "v1.2.3", "CHANGELOG.md has no lines"),
    ],
)  # fmt: skip
def test_a_tag_that_does_not_fit_is_refused(release, ready, broken, tag, said):
    broken(ready)
    with pytest.raises(ValueError, match=re.escape(said)):
        release.notes(tag, ready)


def test_all_files_name_one_version_now(release):
    own = release._own_version(PROJECT)
    for name, rule in release.NAMED.items():
        assert set(re.findall(rule, (PROJECT / name).read_text())) == {own}


def test_the_script_ends_with_an_error_where_the_tag_does_not_fit():
    done = subprocess.run(
        [sys.executable, PROJECT / ".ci" / "release.py", "v9.9.9"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "error: pyproject.toml says" in done.stderr


# --- the workflow -------------------------------------------------------------------------------


def script(job: str) -> str:
    return "\n".join(step.get("run", "") for step in JOBS[job]["steps"])


def test_it_runs_on_a_version_tag_alone_and_writes_only_where_it_publishes():
    text = yaml.safe_load(WORKFLOW.read_text())
    assert text[True] == {"push": {"tags": ["v*.*.*"]}}  # YAML reads `on` as true
    assert text["permissions"] == {"contents": "read"}
    assert {name: job.get("permissions") for name, job in JOBS.items()} == {
        "notes": None,
        "images": {"contents": "read", "packages": "write"},
        "publish": {"contents": "write", "packages": "write"},
    }


def test_nothing_is_published_before_it_was_asked_and_its_tag_fits():
    assert (JOBS["images"]["needs"], JOBS["publish"]["needs"]) == ("notes", "images")
    text = script("images")
    assert text.index("localhost:9696/predict") < text.index("publish taxi-duration")
    assert ".ci/release.py" in script("notes")


def test_both_images_are_built_for_both_processors_with_sbom_and_provenance():
    matrix = JOBS["images"]["strategy"]["matrix"]["include"]
    assert {one["platform"] for one in matrix} == {"linux/amd64", "linux/arm64"}
    assert "--sbom=true --provenance=mode=max" in script("images")
    published = re.findall(r"^ *publish (taxi-[\w-]+)", script("images"), re.MULTILINE)
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    ours = {
        re.search(r"(taxi-[\w-]+):", one["image"])[1] for one in services.values() if "build" in one
    }
    assert set(published) == ours


def test_compose_pulls_where_a_registry_is_named_and_can_build():
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    for one in services.values():
        if "build" in one:
            assert one["image"].startswith("${IMAGES:-}taxi-duration")
            assert "pull_policy" not in one  # by default: pull, and build where that fails


# --- hooks --------------------------------------------------------------------------------------

HOOKS = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]


def test_hooks_download_nothing():
    assert [one["repo"] for one in HOOKS] == ["local"]
    assert {hook["language"] for one in HOOKS for hook in one["hooks"]} == {"system"}


@pytest.mark.long
def test_hooks_pass_here_and_find_what_is_wrong(tmp_path):
    """In a clone whose .venv is ours: a commit of good files passes, one of bad files does not."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{PROJECT}", clone], check=True)
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(PROJECT / name, clone / name)
    (clone / ".venv").symlink_to(PROJECT / ".venv")
    bad = {
        "taxi_duration/bad.py": "import os\nx = 'y'\n",
        "notebooks/bad.ipynb": '{"cells": [{"cell_type": "code", "execution_count": 1, "metadata":'
        ' {}, "outputs": [], "source": []}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        "ops/bad.sh": "#!/bin/sh\necho $1\n",
    }

    def run(*files: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "pre_commit", "run", "--files", *files]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(words, cwd=clone, env=env, capture_output=True, text=True)

    good = run("serve/app.py", "setup_ec2.sh", "notebooks/01_read_data.ipynb")
    assert good.returncode == 0, good.stdout
    for name, text in bad.items():
        (clone / name).write_text(text)
    found = run(*bad)
    assert found.returncode == 1
    failed = set(re.findall(r"hook id: ([\w-]+)", found.stdout))
    wanted = {"ruff-check", "ruff-format", "nbstripout", "imports"}
    assert wanted <= failed, found.stdout
    assert shutil.which("shellcheck") is None or "shellcheck" in failed
