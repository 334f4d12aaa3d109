"""What is deployed: whether a service started now would answer, and with which model."""

from __future__ import annotations

from collections.abc import Iterator

from taxi_duration import environment
from taxi_duration.doctor.examination import NOTE, OK, PROBLEM, Finding, one_line
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, DeploymentError
from taxi_duration.live.deployment import read_deployment


def look_at_deployment(name: str) -> Iterator[Finding]:
    """Whether deployment.json says who serves, and each bundle is whole, signed and readable."""
    try:
        deployment = read_deployment()
    except DeploymentError as error:
        found, _, remedy = one_line(error).rpartition("; ")
        yield Finding(name, PROBLEM, found, remedy)
        return
    if deployment is None:
        yield Finding(name, NOTE, "nothing is deployed",
                      "`make run`, or `python pipeline.py promote NAME:VERSION`")  # fmt: skip
        return
    for role in ("champion", "challenger"):
        if (version := getattr(deployment, role)) is not None:
            yield _bundle(name, role, version)


def _bundle(name: str, role: str, version: Version) -> Finding:
    from taxi_duration.model.bundle import CARD_FILE, MODEL_FILE, load_bundle

    key, folder = environment.signing_key(), version.folder
    pull = f"`python pipeline.py pull {version.ref}`"
    missing = [file for file in (MODEL_FILE, CARD_FILE) if not (folder / file).exists()]
    if missing:
        return Finding(name, PROBLEM, f"{role} {version.ref}: {' and '.join(missing)} not in "
                       f"{folder}", f"{pull}, or MODELS_DIR names the right place")  # fmt: skip
    try:
        _, card = load_bundle(folder, key, version.ref)
    except (BundleError, OSError) as error:
        sign = "sign" in str(error)
        return Finding(name, PROBLEM, f"{role} {version.ref}: {one_line(error)}",
                       "the MODEL_SIGNING_KEY it was signed with, or unset it" if sign
                       else f"move {folder} away, then {pull}; or `rollback`")  # fmt: skip
    digest = card["model_sha256"]
    if digest != version.sha256:
        return Finding(name, PROBLEM, f"{role} {version.ref} is sha256:{digest[:12]} in models/, "
                       f"deployed is {version.sha256[:12]}",
                       f"move {folder} away, then {pull}")  # fmt: skip
    signed = "signed" if key else "digest checked, no signature asked for"
    return Finding(name, OK, f"{role} {version.ref} (sha256:{digest[:12]}) is readable, {signed}")
