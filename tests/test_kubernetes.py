"""ops/k8s: every object is valid by Kubernetes' own schemas, and says what compose says."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from locks import PROJECT

from serve import create_app

FOLDER = PROJECT / "ops" / "k8s"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
VERSIONS = ("1.31", "1.37")


def objects() -> list[dict[str, Any]]:
    """The objects of all files that the kustomization names."""
    return [one for name in KUSTOMIZATION["resources"]
            for one in yaml.safe_load_all((FOLDER / name).read_text())]  # fmt: skip


def named(one: dict[str, Any]) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


OBJECTS = {named(one): one for one in objects()}


def pods() -> dict[str, dict[str, Any]]:
    """The pod of everything that runs one, by name."""
    found = {}
    for one in OBJECTS.values():
        spec = one["spec"]
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[one["metadata"]["name"]] = spec["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pods()[name]["containers"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_valid_and_has_no_unknown_field(name, version):
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)


@pytest.mark.parametrize("change", [{"replicaz": 2}, {"replicas": "two"}, {"selector": 5}])
def test_the_check_finds_what_is_wrong(change):
    broken = {**OBJECTS["StatefulSet serve"]}
    broken["spec"] = {**broken["spec"], **change}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_kustomize_builds_all_of_it():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has kustomize, is not on this machine")
    done = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    for one in built:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    assert {named(one) for one in built if one["kind"] != "ConfigMap"} == OBJECTS.keys()
    assert {one["metadata"]["namespace"] for one in built} == {"taxi"}
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {
        "taxi-duration:0.1.0", "taxi-duration-workshop:0.1.0", COMPOSE["postgres"]["image"],
    }  # fmt: skip


def test_two_replicas_answer_and_are_asked_where_the_service_answers():
    assert OBJECTS["StatefulSet serve"]["spec"]["replicas"] == 2
    paths = {rule.rule for rule in create_app({"BACKGROUND": False}).url_map.iter_rules()}
    probes = {kind: one["httpGet"] for kind, one in container("serve").items() if "Probe" in kind}
    assert {kind: one["path"] for kind, one in probes.items()} == {
        "startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready",
    }  # fmt: skip
    assert {one["path"] for one in probes.values()} <= paths
    (port,) = container("serve")["ports"]
    assert {one["port"] for one in probes.values()} == {port["name"]}
    assert port["containerPort"] == 9696


def test_turns_of_the_loop_do_not_overlap():
    auto = OBJECTS["CronJob auto"]["spec"]
    assert (auto["concurrencyPolicy"], auto["jobTemplate"]["spec"]["backoffLimit"]) == ("Forbid", 0)
    assert container("auto")["command"] == ["sh", "ops/auto.sh", "--once"]


def test_volumes_are_those_that_are_mounted_and_the_service_cannot_write_what_it_serves():
    for name, pod in pods().items():
        there = {one["name"] for one in pod.get("volumes", [])}
        owner = next(one for one in OBJECTS.values() if one["metadata"]["name"] == name
                     and one["kind"] in ("StatefulSet", "Deployment", "CronJob"))  # fmt: skip
        there |= {one["metadata"]["name"] for one in owner["spec"].get("volumeClaimTemplates", [])}
        assert {one["name"] for one in container(name)["volumeMounts"]} == there
        for one in pod.get("volumes", []):
            if claim := one.get("persistentVolumeClaim"):
                assert f"PersistentVolumeClaim {claim['claimName']}" in OBJECTS
    mounts = {one["name"]: one for one in container("serve")["volumeMounts"]}
    assert mounts["models"]["readOnly"] is mounts["deployment"]["readOnly"] is True
    assert container("serve")["securityContext"]["readOnlyRootFilesystem"] is True
    for claim in ("models", "deployment"):
        spec = OBJECTS[f"PersistentVolumeClaim {claim}"]["spec"]
        assert spec["accessModes"] == ["ReadWriteMany"]


def test_nothing_runs_as_root_or_with_a_token_of_the_cluster():
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container(name)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container(name)["resources"].keys() == {"requests", "limits"}


def test_places_are_those_of_compose():
    (places,) = [one for one in KUSTOMIZATION["configMapGenerator"] if one["name"] == "places"]
    told = dict(line.split("=", 1) for line in places["literals"])
    assert told == {name: COMPOSE["auto"]["environment"][name] for name in told}
    init = (PROJECT / "ops" / "postgres" / "databases.sql").read_text()
    (own,) = [one for one in KUSTOMIZATION["configMapGenerator"] if one["name"] == "postgres-init"]
    assert own["literals"][0].partition("=")[2] in init


def test_secrets_that_are_needed_are_told():
    text = (FOLDER.parent.parent / "docs" / "cloud.md").read_text()
    keys = {
        key["key"]
        for name in pods()
        for one in container(name)["env"]
        if (key := one.get("valueFrom", {}).get("secretKeyRef")) and not key.get("optional")
    }
    assert keys == {"postgres-password"}
    assert "--from-literal=postgres-password=" in text
