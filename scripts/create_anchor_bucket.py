"""Make the anchor's bucket, with Object Lock on: ``create_anchor_bucket.py ENDPOINT BUCKET``.

Object Lock can only be switched on when a bucket is made. A bucket that exists is checked: without the lock, anchored
checkpoints could be deleted, so that is an error. No default retention is set; the anchor asks for it on each object.
Credentials come from the environment, as boto3 reads them.
"""

from __future__ import annotations

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

_EXISTS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


def main(endpoint: str, bucket: str) -> int:
    """Make or check the bucket; the exit status is 1 if it has no Object Lock."""
    path_style = Config(s3={"addressing_style": "path"})  # type: ignore[no-untyped-call]  # botocore has no types
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=path_style)  # type: ignore[no-untyped-call]
    try:
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _EXISTS:
            raise
    try:
        answer = s3.get_object_lock_configuration(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ObjectLockConfigurationNotFoundError":
            raise
        answer = {}
    if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
        print(f"the bucket {bucket} exists without Object Lock: name another for the anchor", file=sys.stderr)
        return 1
    print(f"the bucket {bucket} has Object Lock")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
