"""A real S3 server with Object Lock on 127.0.0.1: versitygw if it was built (it needs Go), else moto; it says which."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from scripts.versitygw import BINARY

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"


@dataclass(frozen=True)
class S3Server:
    name: str
    endpoint: str

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5),
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.client().list_buckets()
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server {server.name} did not start") from None
            time.sleep(0.1)
        else:
            return


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    port = _free_port()
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    if BINARY.is_file():
        buckets, versions = folder / "buckets", folder / "versions"
        buckets.mkdir()
        versions.mkdir()
        name = "versitygw"
        address = f"127.0.0.1:{port}"
        command = [str(BINARY), "--port", address, "--quiet", "posix", "--versioning-dir", str(versions), str(buckets)]
    else:
        name = "moto"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    sys.stderr.write(f"S3 server of the tests: {name}\n")
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        server = S3Server(name, f"http://127.0.0.1:{port}")
        _wait(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
