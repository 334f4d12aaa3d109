"""What other runs made: read from their run.json, and verified by digest before it is used."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.run import RUN_FILE, Run
from taxi_duration.errors import ContentError, PipelineError
from taxi_duration.files import atomic_path, read_json, sha256_file
from taxi_duration.live.audit import audit_lines

# What notebooks leave in a run's folder besides themselves, for each other and for people.
RESULTS = ("candidates/*/model.bin", "candidates/*/card.json", "leaderboard.json", "plots/*.png")


@dataclass(frozen=True)
class Made:
    """What a notebook of another run made.

    Args:
        folder: of that run.
        info: its run.json.
        entry: the notebook's entry there, with `depends_on`, `made` and `sha256`.
        files: digests of all that it made, by name in the folder; the executed notebook too.
    """

    folder: Path
    info: dict[str, Any]
    entry: dict[str, Any]
    files: dict[str, str]

    @property
    def run_id(self) -> str:
        """The run that executed the notebook, which may have handed it on."""
        return self.entry.get("taken_from", self.folder.name)

    def problem(self, names: list[str] | None = None) -> str | None:
        """Say which file is not as it was made; None when all are.

        Args:
            names: of the files to look at, besides run.json; all when None.
        """
        vouched = _vouched(self.folder.name)
        for name in [*(names or self.files), RUN_FILE]:
            try:
                found = sha256_file(self.folder / name)
            except (OSError, ContentError) as error:
                return f"{name} of run {self.folder.name} cannot be read: {error}"
            if {self.files.get(name), vouched.get(name)} - {None, found}:
                return f"{name} of run {self.folder.name} was changed"
        return None

    def copy(self, run: Run) -> None:
        """Copy what it made into another run's folder.

        Raises:
            PipelineError: a file is another one than it was a moment ago.
        """
        for name, sha256 in self.files.items():
            copy_file(self.folder / name, run.folder / name, sha256)


def copy_file(source: Path, target: Path, sha256: str) -> None:
    """Copy a file.

    Raises:
        PipelineError: it has another digest than it had a moment ago.
    """
    with atomic_path(target) as part:
        shutil.copyfile(source, part)
        if sha256_file(part) != sha256:
            raise PipelineError(f"{source} is changed by somebody while it is read")


def made_by_others(run: Run, name: str | None = None) -> Iterator[Made]:
    """Yield what notebooks of other runs made, the newest run first.

    Args:
        name: of the notebook; every one when None.
    """
    for folder in sorted(environment.runs_dir().glob("*/"), reverse=True):
        if folder.name == run.run_id:
            continue
        try:
            info = read_json(folder / RUN_FILE)
            yield from [
                Made(folder, info, entry, {f"{known}.ipynb": entry["sha256"], **entry["made"]})
                for known, entry in info["notebooks"].items()
                if name in (None, known)
                and "depends_on" in entry
                and all(map(_is_result, entry["made"]))
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # of no run, of an older release, or damaged: nothing is taken from it


def digests_of(run: Run) -> dict[str, str]:
    """Return the digests of the results that lie in a run's folder, by name."""
    paths = [path for pattern in RESULTS for path in sorted(run.folder.glob(pattern))]
    return {path.relative_to(run.folder).as_posix(): sha256_file(path) for path in paths}


def _is_result(name: str) -> bool:
    """Whether a name is that of a result as a run leaves it, and leads nowhere else."""
    path = PurePosixPath(name)
    return any(path.match(p) and len(path.parts) == len(Path(p).parts) for p in RESULTS)


def _vouched(run_id: str) -> dict[str, str]:
    """Digests of a finished run's files as the audit trail has them; empty for any other run."""
    for line in audit_lines():
        if line.record.get("what") == f"finish run {run_id}":
            return line.record["sha256"]
    return {}
