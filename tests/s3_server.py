"""An S3 server of a test's own: moto, on a free port of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def moto_server() -> Iterator[str]:
    """Yield the address of a server of all of AWS that moto plays; stopped at the end."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_bucket(name: str) -> Iterator[Callable[[], list[str]]]:
    """Point S3 clients, also of child processes, to an empty bucket; yield what lists its keys."""
    import boto3

    with moto_server() as address, pytest.MonkeyPatch.context() as patch:
        for setting, value in {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(setting, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=name)
        pages = client.get_paginator("list_objects_v2").paginate
        yield lambda: [o["Key"] for page in pages(Bucket=name) for o in page.get("Contents", ())]
