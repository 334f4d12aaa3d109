"""ops/cloudformation.yaml: free of faults, and made and deleted for real against moto's server."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
import yaml
from locks import PROJECT
from s3_server import moto_server

TEMPLATE = PROJECT / "ops" / "cloudformation.yaml"
REGION, STACK, HERE = "us-east-1", "taxi", "203.0.113.7/32"
REPOSITORY = "https://git.example.org/taxi-duration.git"

pytestmark = pytest.mark.slow  # moto's server takes seconds to start


def test_cfn_lint_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-c", "import cfnlint.runner.cli as c; c.main()", TEMPLATE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:taxi"


def for_moto() -> str:
    """The template without what moto cannot make: Canonical's list of images, and secrets."""
    text = re.sub(r"/aws/service/canonical/\S+", "image", TEMPLATE.read_text())
    return text.replace("!Ref DatabasePassword", SECRET)


class Cloud:
    """An account of a server: clients, and what a stack of ours needs there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.ec2 = self.client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            self.ec2.create_subnet(
                VpcId=self.vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"{REGION}{'ab'[i]}"
            )["Subnet"]["SubnetId"]
            for i in (0, 1)
        ]
        self.ec2.create_key_pair(KeyName="mine")
        image = self.ec2.register_image(Name="image")["ImageId"]
        self.client("ssm").put_parameter(Name="image", Value=image, Type="String")

    def client(self, service: str) -> Any:
        return boto3.client(
            service, REGION, endpoint_url=self.address,
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip

    def create(self, **changes: str) -> None:
        """Make the stack."""
        parameters = {
            "Repository": REPOSITORY, "SshFrom": HERE, "KeyName": "mine", "Vpc": self.vpc,
            "Subnet": self.subnets[0], "Image": "image", **changes,
        }  # fmt: skip
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK, TemplateBody=for_moto(), Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value}
                        for key, value in parameters.items()],
        )  # fmt: skip
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
        )

    def delete(self) -> None:
        """Delete it."""
        cloudformation = self.client("cloudformation")
        cloudformation.delete_stack(StackName=STACK)
        cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
        )

    def outputs(self) -> dict[str, str]:
        (stack,) = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    def machines(self) -> list[dict[str, Any]]:
        """Instances that are not terminated."""
        reservations = self.ec2.describe_instances()["Reservations"]
        found = [instance for one in reservations for instance in one["Instances"]]
        return [one for one in found if one["State"]["Name"] not in ("terminated", "shutting-down")]

    def things(self) -> dict[str, set[str]]:
        """Names of all that a stack may leave behind."""
        groups = self.ec2.describe_security_groups()["SecurityGroups"]
        templates = self.ec2.describe_launch_templates()["LaunchTemplates"]
        iam, rds = self.client("iam"), self.client("rds")
        return {
            "machines": {one["InstanceId"] for one in self.machines()},
            "groups": {one["GroupId"] for one in groups},
            "plans": {one["LaunchTemplateId"] for one in templates},
            "buckets": {one["Name"] for one in self.client("s3").list_buckets()["Buckets"]},
            "roles": {one["RoleName"] for one in iam.list_roles()["Roles"]},
            "profiles": {one["InstanceProfileName"]
                         for one in iam.list_instance_profiles()["InstanceProfiles"]},
            "databases": {one["DBInstanceIdentifier"]
                          for one in rds.describe_db_instances()["DBInstances"]},
        }  # fmt: skip

    def role(self) -> dict[str, Any]:
        """Statements of the machine's role, by their Sid."""
        iam = self.client("iam")
        (machine,) = self.machines()
        profile = machine["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        (role,) = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
        name = role["RoleName"]
        assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
        policies = [
            iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"]
            for one in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        # moto writes a document of CloudFormation in Python's quotes, which YAML has too.
        policies = [yaml.safe_load(one) if isinstance(one, str) else one for one in policies]
        return {one["Sid"]: one for policy in policies for one in policy["Statement"]}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server of the module's own; it knows no images, of which it would read hundreds.

    That takes a second, in every account.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        with moto_server() as address:
            yield address


@pytest.fixture
def cloud(server) -> Cloud:
    """An empty account."""
    requests.post(f"{server}/moto-api/reset", timeout=30).raise_for_status()
    return Cloud(server)


def gate(cloud: Cloud, name: str = "Gate") -> dict[str, Any]:
    """A security group; moto makes it, but puts nothing into it."""
    groups = cloud.ec2.describe_security_groups()["SecurityGroups"]
    (found,) = [one for one in groups if one["GroupName"].startswith(f"{STACK}-{name}-")]
    return found


def started(cloud: Cloud) -> str:
    """The script that the machine runs when it is made."""
    (machine,) = cloud.machines()
    found = cloud.ec2.describe_instance_attribute(
        InstanceId=machine["InstanceId"], Attribute="userData"
    )
    return base64.b64decode(found["UserData"]["Value"]).decode()


def test_stack_is_made_and_deleted_without_remains(cloud):
    before = cloud.things()
    cloud.create()
    made = {name: len(there - before[name]) for name, there in cloud.things().items()}
    assert made == {
        "machines": 1, "groups": 1, "plans": 1, "buckets": 1, "roles": 1, "profiles": 1,
        "databases": 0,
    }  # fmt: skip
    cloud.delete()
    assert cloud.things() == before


def test_only_ssh_from_the_address_comes_in(cloud):
    cloud.create()
    group = gate(cloud)
    (way,) = group["IpPermissions"]
    assert (way["IpProtocol"], way["FromPort"], way["ToPort"]) == ("tcp", 22, 22)
    assert [one["CidrIp"] for one in way["IpRanges"]] == [HERE]
    assert (way["Ipv6Ranges"], way["UserIdGroupPairs"]) == ([], [])


@pytest.mark.parametrize("world", ["0.0.0.0/0", "10.0.0.0/8", "203.0.113.7", "::/0"])
def test_the_whole_world_is_refused(world):
    pattern = re.search(r"SshFrom:.*?AllowedPattern: (\S+)", TEMPLATE.read_text(), re.DOTALL)[1]
    assert re.fullmatch(pattern, HERE)
    assert not re.fullmatch(pattern, world)


def test_role_reaches_the_bucket_alone(cloud):
    cloud.create()
    bucket = cloud.outputs()["Bucket"]
    arn = f"arn:aws:s3:::{bucket}"
    assert {sid: (one["Effect"], one["Action"], one["Resource"])
            for sid, one in cloud.role().items()} == {
        "List": ("Allow", "s3:ListBucket", arn),
        "ReadMonths": ("Allow", "s3:GetObject", f"{arn}/months/*"),
        "KeepArtifactsAndScores": (
            "Allow", ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
            [f"{arn}/mlflow/*", f"{arn}/scored/*"],
        ),
    }  # fmt: skip


def test_machine_sets_itself_up_and_starts_compose(cloud):
    cloud.create(Revision="v1.2.3")
    script = started(cloud)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert f"--branch 'v1.2.3' '{REPOSITORY}'" in script
    assert "./setup_ec2.sh\n" in script
    assert f"MLFLOW_ARTIFACTS=s3://{cloud.outputs()['Bucket']}/mlflow\n" in script
    assert "secret=''\n" in script
    assert script.rstrip().endswith("docker compose up -d --build")
    (machine,) = cloud.machines()
    (disk,) = machine["BlockDeviceMappings"]
    (volume,) = cloud.ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["Encrypted"]) == (40, True)


def test_database_is_reached_by_the_machine_alone(cloud):
    before = cloud.things()
    cloud.create(Database="yes", DatabaseSubnets=",".join(cloud.subnets))
    (database,) = cloud.client("rds").describe_db_instances()["DBInstances"]
    assert (database["PubliclyAccessible"], database["StorageEncrypted"]) == (False, True)
    (way,) = gate(cloud, "DatabaseGate")["IpPermissions"]
    assert (way["FromPort"], way["IpRanges"]) == (5432, [])
    assert [one["GroupId"] for one in way["UserIdGroupPairs"]] == [gate(cloud)["GroupId"]]
    assert cloud.role()["ReadItsPassword"]["Resource"] == SECRET
    script = started(cloud)
    assert f"secret='{SECRET}'" in script
    assert f"\"$password\" '{cloud.outputs()['DatabaseAddress']}' >>.env" in script
    cloud.delete()
    assert cloud.things() == before


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The template as plain values, for what moto's CloudFormation leaves out."""

    class Plain(yaml.SafeLoader):
        """Reads `!Ref x` as ("Ref", "x"), and lists and maps behind such a tag as nodes."""

    Plain.add_multi_constructor("!", lambda loader, tag, node: (tag, node.value))
    return yaml.load(TEMPLATE.read_text(), Plain)


def test_database_is_on_only_by_request(template):
    assert template["Parameters"]["Database"]["Default"] == "no"
    optional = {name for name, one in template["Resources"].items() if "Condition" in one}
    assert optional == {name for name in template["Resources"] if "Database" in name}


def test_machine_lies_behind_its_gate_and_asks_only_for_months_and_packages(template):
    (group,) = template["Resources"]["Machine"]["Properties"]["SecurityGroupIds"]
    assert group == ("Ref", "Gate")
    ways = template["Resources"]["Gate"]["Properties"]["SecurityGroupEgress"]
    assert {(one["IpProtocol"], one["FromPort"], one["ToPort"]) for one in ways} == {
        ("tcp", 80, 80), ("tcp", 443, 443),
    }  # fmt: skip
    options = template["Resources"]["Plan"]["Properties"]["LaunchTemplateData"]["MetadataOptions"]
    assert options["HttpTokens"] == "required"


def test_bucket_is_for_nobody_else_and_over_tls(template):
    store = template["Resources"]["Store"]["Properties"]
    assert set(store["PublicAccessBlockConfiguration"].values()) == {True}
    assert store["VersioningConfiguration"] == {"Status": "Enabled"}
    (encrypted,) = store["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encrypted == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    policy = template["Resources"]["StorePolicy"]["Properties"]["PolicyDocument"]
    (statement,) = policy["Statement"]
    assert (statement["Effect"], statement["Condition"]) == (
        "Deny", {"Bool": {"aws:SecureTransport": "false"}},
    )  # fmt: skip
