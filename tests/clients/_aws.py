"""What the EC2 scripts of this folder share."""

import boto3
from botocore.config import Config


def client(service, endpoint, region, role=None, key=("test", "test")):
    """A client of the test EC2 server, which takes any key; with a role, in the account of that role."""
    credentials = {"AccessKeyId": key[0], "SecretAccessKey": key[1], "SessionToken": None}
    if role:
        sts = client("sts", endpoint, region, key=key)
        credentials = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        # Loopback, past any proxy that the environment names.
        config=Config(proxies={}, retries={"mode": "standard"}),
    )


def add_endpoint(parser):
    """The argument that every script takes."""
    parser.add_argument("--endpoint", required=True, help="URL of the EC2 server")


def add_role(parser):
    """The argument of scripts that work in other accounts too."""
    parser.add_argument("--role", metavar="ARN", help="work in the account of this role (default: the server's own)")


def region_list(text):
    """Argument type: names separated by commas."""
    return [name for name in text.split(",") if name]
