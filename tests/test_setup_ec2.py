"""setup_ec2.sh, in a sandbox: commands that would change the machine are stubs that take notes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = PROJECT / "setup_ec2.sh"

NOTE = 'echo "$(basename "$0") $*" >>"$CALLS"\n'
STUBS = {
    "sudo": 'while [ "${1#-}" != "$1" ]; do [ "$1" = -u ] && shift; shift; done; exec "$@"',
    "uname": 'echo "${MACHINE:-x86_64}"',
    "getent": 'echo "someone:x:1000:1000::$SOMEONES_HOME:/bin/bash"',
    "id": 'case "$*" in -u) echo 1000;; -un) echo someone;; -nG*) cat "$STATE/groups";; esac',
    "dpkg-query": 'grep -qx "${@: -1}" "$STATE/packages" && printf installed',
    "apt-get": f"""{NOTE}[ "$1" = install ] || exit 0
for word in "$@"; do
  case "$word" in -*|install) ;; *) echo "$word" >>"$STATE/packages";; esac
done""",
    "curl": f"""{NOTE}while [ $# -gt 1 ]; do
  [ "$1" = -o ] && echo "from the net" >"$2"
  shift
done""",
    "gpg": 'echo "fpr:::::::::${KEY:-9DC858229FC7DD38854AE2D88D81803C0EBFCD88}:"',
    "sha256sum": """[ "$1" != --check ] && exec /usr/bin/sha256sum "$@"
read -r digest file; echo "check $digest" >>"$CALLS"; exit "${BAD_DIGEST:-0}" """,
    "systemctl": NOTE,
    "usermod": f'{NOTE}echo "someone docker" >"$STATE/groups"',
    # The installer of Miniforge is run by bash; everything else that bash runs is real.
    "bash": f"""case "$1" in */miniforge.sh) ;; *) exec /bin/bash "$@";; esac
{NOTE}mkdir -p "$4/bin" && cp "$CONDA" "$4/bin/conda" """,
}
# What the installer leaves behind; it makes an environment with a pip.
CONDA = f"""#!/bin/bash
{NOTE}bin=$(dirname "$0")/../envs/taxi-duration/bin
mkdir -p "$bin" && printf '#!/bin/bash\\necho "pip $*" >>"$CALLS"\\n' >"$bin/pip"
chmod +x "$bin/pip"
"""
RELEASE = 'ID={name}\nVERSION_ID="{version}"\nVERSION_CODENAME={codename}\n'


class Sandbox:
    """A root folder, a home, and commands that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home, self.state = folder / "root", folder / "home", folder / "state"
        for made in (self.root / "etc", self.home, self.state, folder / "bin"):
            made.mkdir(parents=True)
        self.calls_file = folder / "calls"
        (self.state / "groups").write_text("someone\n")
        (self.state / "packages").touch()
        self.be("ubuntu", "24.04", "noble")
        for name, body in STUBS.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)
        self.conda = folder / "conda"
        self.conda.write_text(CONDA)
        self.conda.chmod(0o755)
        self.path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def be(self, name: str, version: str, codename: str) -> None:
        """Be another release."""
        content = RELEASE.format(name=name, version=version, codename=codename)
        (self.root / "etc" / "os-release").write_text(content)

    def run(
        self, *args: str, script: Path = SCRIPT, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script; `calls` then has what this run called."""
        self.calls_file.write_text("")
        settings = {
            "PATH": self.path, "DESTDIR": str(self.root), "CALLS": str(self.calls_file),
            "STATE": str(self.state), "SOMEONES_HOME": str(self.home),
            "CONDA": str(self.conda), **env,
        }  # fmt: skip
        keep = {name: value for name, value in os.environ.items() if name != "SUDO_USER"}
        return subprocess.run(
            ["/bin/bash", str(script), *args], env={**keep, **settings}, check=False,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        """Commands of the last run that would have changed the machine."""
        return self.calls_file.read_text().splitlines()

    def files(self) -> dict[str, bytes]:
        """All files of the root and the home, by name."""
        found = {}
        for top in (self.root, self.home, self.state):
            files = (path for path in sorted(top.rglob("*")) if path.is_file())
            found |= {str(path): path.read_bytes() for path in files}
        return found


@pytest.fixture
def sandbox(tmp_path) -> Sandbox:
    return Sandbox(tmp_path)


def test_a_fresh_machine_gets_everything(sandbox):
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    installed = (sandbox.state / "packages").read_text().split()
    assert {"docker-ce", "docker-compose-plugin", "make", "gcc"} <= set(installed)
    assert "usermod -aG docker someone" in sandbox.calls
    assert "systemctl enable --now docker.service" in sandbox.calls
    assert any(call.startswith("conda env create") for call in sandbox.calls)
    assert "systemctl restart taxi-jupyter.service" in sandbox.calls


def test_a_second_run_changes_nothing(sandbox):
    sandbox.run()
    before = sandbox.files()
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    assert sandbox.files() == before
    assert sandbox.calls == [
        "systemctl enable --now docker.service",
        "systemctl enable taxi-jupyter.service",
        "systemctl start taxi-jupyter.service",
    ]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(sandbox):
    before = sandbox.files()
    done = sandbox.run("--dry-run")
    assert done.returncode == 0, done.stderr
    assert sandbox.files() == before
    assert sandbox.calls == []
    assert "would run: sudo apt-get update" in done.stdout
    assert "would run: sudo usermod -aG docker someone" in done.stdout


def test_a_run_that_broke_off_is_finished_by_the_next(sandbox):
    assert sandbox.run(BAD_DIGEST="1").returncode == 1
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    assert (sandbox.home / "miniforge3/envs/taxi-duration/.taxi-setup").exists()


def test_a_changed_lock_file_updates_the_environment(sandbox):
    sandbox.run()
    (sandbox.home / "miniforge3/envs/taxi-duration/.taxi-setup").write_text("older\n")
    sandbox.run()
    assert any(call.startswith("conda env update") for call in sandbox.calls)


def test_an_installer_with_another_digest_is_not_run(sandbox):
    done = sandbox.run(BAD_DIGEST="1")
    assert "another SHA-256" in done.stderr
    assert not any(call.startswith("bash") for call in sandbox.calls)


def test_a_repository_with_another_key_is_not_used(sandbox):
    done = sandbox.run(KEY="0" * 40)
    assert done.returncode == 1
    assert "is not 9DC8" in done.stderr
    assert "docker-ce" not in (sandbox.state / "packages").read_text()


@pytest.mark.parametrize(
    ("name", "version", "codename", "machine", "arch"),
    [
        ("ubuntu", "22.04", "jammy", "x86_64", "amd64"),
        ("ubuntu", "22.04", "jammy", "aarch64", "arm64"),
        ("ubuntu", "24.04", "noble", "aarch64", "arm64"),
        ("debian", "12", "bookworm", "x86_64", "amd64"),
        ("debian", "13", "trixie", "aarch64", "arm64"),
    ],
)
def test_docker_comes_for_the_release_and_the_processor(
    sandbox, name, version, codename, machine, arch
):
    sandbox.be(name, version, codename)
    done = sandbox.run(MACHINE=machine)
    assert done.returncode == 0, done.stderr
    source = (sandbox.root / "etc/apt/sources.list.d/docker.list").read_text()
    assert f"arch={arch} signed-by=/etc/apt/keyrings/docker.asc" in source
    address = f"https://download.docker.com/linux/{name}"
    assert f" {address} {codename} stable" in source
    assert any(f"{address}/gpg" in call for call in sandbox.calls)
    assert any(f"Linux-{machine}.sh" in call for call in sandbox.calls)


@pytest.mark.parametrize(
    ("name", "release", "machine", "said"),
    [
        ("ubuntu", "20.04", "x86_64", "this is ubuntu 20.04"),
        ("ubuntu", "24.04", "riscv64", "this is a riscv64"),
        ("debian", "11", "x86_64", "this is debian 11"),
        ("debian", "24.04", "x86_64", "this is debian 24.04"),
        ("fedora", "12", "x86_64", "this is fedora 12"),
    ],
)
def test_another_machine_is_refused_before_anything_is_done(sandbox, name, release, machine, said):
    sandbox.be(name, release, "other")
    done = sandbox.run(MACHINE=machine)
    assert done.returncode == 1
    assert said in done.stderr
    assert sandbox.calls == []


def test_jupyter_listens_on_this_machine_alone_with_a_secret_token(sandbox):
    sandbox.run()
    unit = (sandbox.root / "etc/systemd/system/taxi-jupyter.service").read_text()
    token = sandbox.root / "etc/taxi-duration/jupyter.env"
    secret = token.read_text().strip().removeprefix("JUPYTER_TOKEN=")
    assert "--ip=127.0.0.1" in unit
    assert "User=someone" in unit
    assert len(secret) == 48
    assert secret not in unit
    assert token.stat().st_mode & 0o777 == 0o600


def test_unit_names_a_project_in_an_odd_folder_as_systemd_reads_it(tmp_path):
    project = tmp_path / "my projects" / "é #1 100%"
    project.mkdir(parents=True)
    for name in ("setup_ec2.sh", "environment.yml", "requirements.txt"):
        shutil.copy(PROJECT / name, project)
    sandbox = Sandbox(tmp_path / "box")
    done = sandbox.run(script=project / "setup_ec2.sh")
    assert done.returncode == 0, done.stderr
    unit = (sandbox.root / "etc/systemd/system/taxi-jupyter.service").read_text()
    # systemd takes the rest of the line, with %% for %; the notebooks lie in it.
    assert f"WorkingDirectory={str(project).replace('%', '%%')}\n" in unit
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(start.removeprefix("ExecStart="))[-1] == "--notebook-dir=notebooks"
    assert (sandbox.home / "miniforge3/envs/taxi-duration/.taxi-setup").exists()
    assert f"pip install --quiet --no-deps --no-build-isolation -e {project}" in sandbox.calls


def test_an_unknown_option_is_refused(sandbox):
    done = sandbox.run("--everything")
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine")
    done = subprocess.run(["shellcheck", SCRIPT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
