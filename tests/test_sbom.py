"""The bill of materials of the image names every package that is locked for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LOCK = PROJECT / "serve" / "requirements.txt"


def recipe() -> list[str]:
    """The command of `make sbom`, writing to its output."""
    text = (PROJECT / "Makefile").read_text().replace("\\\n", " ")
    command = re.search(r"\$\(BIN\)/cyclonedx-py (.*)", text)[1]
    return command.replace("build/sbom.json", "-").split()


@pytest.mark.long
def test_every_locked_package_of_the_image_stands_in_the_bill_with_its_hashes():
    program = Path(sys.executable).with_name("cyclonedx-py")
    run = [subprocess.run([program, *recipe()], cwd=PROJECT, capture_output=True, check=True)
           for _ in range(2)]  # fmt: skip
    assert run[0].stdout == run[1].stdout  # the same lock gives the same bill
    bill = json.loads(run[0].stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "taxi-duration"
    text = LOCK.read_text()
    locked = set(re.findall(r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;\\]+)", text, re.MULTILINE))
    found = {(one["name"].lower(), one["version"]): one for one in bill["components"]}
    assert found.keys() == locked
    assert {"flask", "numpy", "granian", "pynacl"} <= {name for name, _ in found}
    hashes = {
        entry["content"]
        for one in found.values()
        for reference in one["externalReferences"]
        for entry in reference.get("hashes", [])
    }
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))


def test_ci_makes_the_bill_and_keeps_it():
    assert "\nmake sbom\n" in (PROJECT / ".ci" / "run").read_text()
    workflow = (PROJECT / ".github" / "workflows" / "ci.yml").read_text()
    assert "build/sbom.json" in workflow
