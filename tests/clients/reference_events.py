#!/usr/bin/env python3
"""Print the event that every instance of the test EC2 server should become, one JSON object per line.

{"region": …, "instance": ID, "event": {…}}: what boto3 reads, mapped by tests/cases/reference.py. Terminated instances
are mapped like any other; whether they become an event is not this script's to say.
"""

import argparse
import json
import pathlib
import sys

import _aws
import read_ec2

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "cases"))
import reference  # noqa: E402

# For instances without a launch time; the server gives one to each.
OBSERVED_AT = "2000-01-01T00:00:00Z"


def main():
    """Map the regions one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _aws.add_endpoint(parser)
    parser.add_argument("--regions", required=True, type=_aws.region_list, help="names separated by commas")
    args = parser.parse_args()
    for region in args.regions:
        for instance in read_ec2.instances(args.endpoint, region):
            record = json.loads(json.dumps(instance, default=read_ec2.plain))
            event, unreadable = reference.reference(record, {}, OBSERVED_AT, {})
            if unreadable:
                sys.exit(f"reference_events.py: {record['InstanceId']}: unreadable: {', '.join(sorted(unreadable))}")
            print(json.dumps({"region": region, "instance": record["InstanceId"], "event": event}, ensure_ascii=False))


if __name__ == "__main__":
    main()
