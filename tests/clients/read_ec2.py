#!/usr/bin/env python3
"""Print what DescribeInstances says of every instance, one JSON object per line.

{"region": …, "instance": {…}}, the reservation's OwnerId, ReservationId and RequesterId merged into the instance,
times in ISO 8601.
"""

import argparse
import datetime
import json

import _aws

SHARED = ("OwnerId", "ReservationId", "RequesterId")


def plain(value):
    """What JSON has no type for."""
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value)}")


def instances(endpoint, region, page_size=1000, role=None, key=("test", "test")):
    """Every instance of the region with its reservation's fields."""
    pages = _aws.client("ec2", endpoint, region, role, key).get_paginator("describe_instances")
    for page in pages.paginate(PaginationConfig={"PageSize": page_size}):
        for reservation in page["Reservations"]:
            shared = {key: reservation[key] for key in SHARED if key in reservation}
            for instance in reservation["Instances"]:
                yield {**instance, **shared}


def main():
    """Read the regions one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _aws.add_endpoint(parser)
    parser.add_argument("--regions", required=True, type=_aws.region_list, help="names separated by commas")
    parser.add_argument("--page-size", type=int, default=1000)
    _aws.add_role(parser)
    parser.add_argument("--access-key", default="test", help="for a server that checks it")
    parser.add_argument("--secret-key", default="test")
    args = parser.parse_args()
    key = (args.access_key, args.secret_key)
    for region in args.regions:
        for instance in instances(args.endpoint, region, args.page_size, args.role, key):
            print(json.dumps({"region": region, "instance": instance}, default=plain, ensure_ascii=False))


if __name__ == "__main__":
    main()
