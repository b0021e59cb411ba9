"""What the EC2 scripts of this folder share."""

import boto3
from botocore.config import Config


def client(service, endpoint, region):
    """A client of the test EC2 server; it takes any key."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        # Loopback, past any proxy that the environment names.
        config=Config(proxies={}, retries={"mode": "standard"}),
    )


def add_endpoint(parser):
    """The argument that every script takes."""
    parser.add_argument("--endpoint", required=True, help="URL of the EC2 server")


def region_list(text):
    """Argument type: names separated by commas."""
    return [name for name in text.split(",") if name]
