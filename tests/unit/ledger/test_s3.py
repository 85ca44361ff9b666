"""Credentials of a bucket: each way of naming them, and refusals that do not quote them."""

from __future__ import annotations

import pytest

from ledger.errors import ConfigError, StorageError
from ledger.s3 import S3Bucket, open_bucket

SECRET = "swordfish-4711"


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def opened(credentials: str) -> tuple[str, str, str | None]:
    bucket = open_bucket("b", role="the bucket", failure=StorageError, endpoint=None, credentials=credentials)
    assert isinstance(bucket, S3Bucket)
    found = bucket._client._request_signer._credentials
    return found.access_key, found.secret_key, found.token


def test_credentials_come_from_variables_with_a_prefix(monkeypatch):
    monkeypatch.setenv("LOG_S3_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("LOG_S3_SECRET_ACCESS_KEY", SECRET)
    assert opened("env:LOG_S3") == ("key", SECRET, None)
    monkeypatch.setenv("LOG_S3_SESSION_TOKEN", "token")
    assert opened("env:LOG_S3") == ("key", SECRET, "token")


def test_credentials_come_from_a_file(tmp_path):
    path = tmp_path / "credentials"
    path.write_text(f"[default]\naws_access_key_id = key\naws_secret_access_key = {SECRET}%\n")
    assert opened(f"file:{path}") == ("key", f"{SECRET}%", None)


def test_credentials_come_from_a_profile(tmp_path, monkeypatch):
    path = tmp_path / "credentials"
    path.write_text(f"[anchor]\naws_access_key_id = key\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    assert opened("profile:anchor") == ("key", SECRET, None)


def test_without_a_name_boto3_finds_its_own(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert opened("") == ("key", SECRET, None)


@pytest.mark.parametrize(
    "credentials", ["profile:nobody", "env:NOBODY", "env:", "file:", "profile:", f"vault:{SECRET}", SECRET]
)
def test_credentials_that_are_not_there_are_refused_without_being_quoted(credentials):
    with pytest.raises(ConfigError) as caught:
        opened(credentials)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[other]\naws_access_key_id = key\n",
        f"[default]\naws_access_key_id = {SECRET}\n",
        f"{SECRET} without a section",
        "\x00\xff",
    ],
)
def test_a_file_without_credentials_is_refused_without_being_quoted(tmp_path, text):
    path = tmp_path / "credentials"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        opened(f"file:{path}")
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        opened(f"file:{tmp_path / 'none'}")


def test_a_bucket_opens_without_asking_the_server():
    open_bucket("b", role="the bucket", failure=StorageError, endpoint="http://127.0.0.1:9")
