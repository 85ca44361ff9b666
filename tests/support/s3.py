"""S3 servers on 127.0.0.1: versitygw if it was built (it needs Go), else moto, which only imitates; it says which."""

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

from ledger.errors import DependencyError, StorageError
from ledger.s3 import S3Bucket
from scripts.versitygw import BINARY

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"


@dataclass(frozen=True)
class S3Server:
    name: str
    endpoint: str

    def client(self, *, attempts: int = 1, read_seconds: float = 10) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": attempts},
                connect_timeout=5,
                read_timeout=read_seconds,
            ),
        )

    def make_bucket(self, name: str, *, locks: bool = False) -> None:
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)

    def bucket(self, name: str, failure: type[DependencyError] = StorageError, *, client: Any = None) -> S3Bucket:
        """Return a bucket as the stores see it; through ``client`` if one is given."""
        role = "the tile bucket" if failure is StorageError else "the anchor bucket"
        return S3Bucket(client or self.client(), name, role=role, failure=failure)

    def settings(self) -> dict[str, str]:
        """Return environment variables with which boto3 finds its credentials."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


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
def s3_server(folder: Path, *, imitated: bool = False) -> Iterator[S3Server]:
    """Start a server with its data in a folder; ``imitated`` asks for moto in any case."""
    port = _free_port()
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    if BINARY.is_file() and not imitated:
        buckets, versions = folder / "buckets", folder / "versions"
        buckets.mkdir()
        versions.mkdir()
        name = "versitygw"
        address = f"127.0.0.1:{port}"
        command = [str(BINARY), "--port", address, "--quiet", "posix", "--versioning-dir", str(versions), str(buckets)]
    else:
        name = "moto"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    imitation = " (an imitation: its locks and races are not those of S3)" if name == "moto" else ""
    sys.stderr.write(f"S3 server of the tests: {name}{imitation}\n")
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        server = S3Server(name, f"http://127.0.0.1:{port}")
        _wait(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
