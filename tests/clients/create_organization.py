#!/usr/bin/env python3
"""Create an AWS Organization in the test EC2 server; print its IDs as JSON.

create_organization.py … --ou prod --ou prod/web --account web=prod/web --account old=prod --suspend old

{"organization": …, "root": …, "management": ACCOUNT, "ous": {PATH: ID}, "accounts": {NAME: ACCOUNT}}. An account is
NAME=OU, or NAME alone for one directly under the root. For a server of the test's own: it has one organization.
"""

import argparse
import json

import _aws


def create(client, args):
    """Create everything; return the IDs."""
    organization = client.create_organization(FeatureSet="ALL")["Organization"]
    root = client.list_roots()["Roots"][0]["Id"]
    ous = {}
    for path in args.ou:
        parent, _, name = path.rpartition("/")
        parent_id = ous[parent] if parent else root
        unit = client.create_organizational_unit(ParentId=parent_id, Name=name)["OrganizationalUnit"]
        ous[path] = unit["Id"]
    accounts = {}
    for entry in args.account:
        name, _, path = entry.partition("=")
        status = client.create_account(AccountName=name, Email=f"{name}@example.com")["CreateAccountStatus"]
        accounts[name] = status["AccountId"]
        if path:
            client.move_account(AccountId=accounts[name], SourceParentId=root, DestinationParentId=ous[path])
    for name in args.suspend:
        client.close_account(AccountId=accounts[name])
    return {
        "organization": organization["Id"],
        "root": root,
        "management": organization["MasterAccountId"],
        "ous": ous,
        "accounts": accounts,
    }


def main():
    """Create, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _aws.add_endpoint(parser)
    parser.add_argument("--ou", action="append", default=[], metavar="PATH", help="parents before children")
    parser.add_argument("--account", action="append", default=[], metavar="NAME[=OU]")
    parser.add_argument("--suspend", action="append", default=[], metavar="NAME")
    args = parser.parse_args()
    print(json.dumps(create(_aws.client("organizations", args.endpoint, "us-east-1"), args)))


if __name__ == "__main__":
    main()
