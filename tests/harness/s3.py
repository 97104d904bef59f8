"""A server that speaks S3 and holds signatures against keys: moto's, in a process of its own.

`python -m tests.harness.s3` ends when nobody holds its standard input any more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BUCKET", "OBJECTS", "REGION", "S3", "s3"]

BUCKET = "pages"
OBJECTS = {
    "a": b"first",
    "empty": b"",
    "inner/b c+d%20é.txt": b"odd",
    "large": bytes(range(256)) * 12_000,
}
REGION = "eu-central-1"
READING = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}], "Version": "2012-10-17"}


@dataclass(frozen=True, slots=True)
class S3:
    """Where it is, and who may read there."""

    url: str
    key: str
    secret: str


@contextmanager
def s3() -> Generator[S3]:
    """One that has `OBJECTS` in `BUCKET`, and gives them to nobody but the holder of the key."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.s3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin, process.stdout:
        yield S3(**json.loads(process.stdout.readline()))


def _serve() -> None:
    # Only in the process of its own: they are slow to import, and warn.
    import boto3
    from moto import settings
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"

    def client(service: str) -> Any:
        keys = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
        return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)

    users, objects = client("iam"), client("s3")
    users.create_user(UserName="reader")
    users.put_user_policy(UserName="reader", PolicyName="reading", PolicyDocument=json.dumps(READING))
    made = users.create_access_key(UserName="reader")["AccessKey"]
    objects.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for name, content in OBJECTS.items():
        objects.put_object(Bucket=BUCKET, Key=name, Body=content)
    # From here on every request has to be signed by a key that it knows.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    print(json.dumps({"url": url, "key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve()
