#!/usr/bin/env python3
"""Change instances of the test EC2 server; print their states as JSON, {"INSTANCE": "STATE"}.

edit_ec2.py … --action tag --instance i-1 i-2 --tag Name=web --tag Team=x
edit_ec2.py … --action untag --instance i-1 --tag Name
edit_ec2.py … --action set-groups --instance i-1 --group sg-1 sg-2
"""

import argparse
import json

import _aws


def edit(ec2, args):
    """Carry out the action."""
    pairs = [tag.partition("=") for tag in args.tag]
    if args.action == "stop":
        ec2.stop_instances(InstanceIds=args.instance)
    elif args.action == "start":
        ec2.start_instances(InstanceIds=args.instance)
    elif args.action == "terminate":
        ec2.terminate_instances(InstanceIds=args.instance)
    elif args.action == "tag":
        ec2.create_tags(Resources=args.instance, Tags=[{"Key": key, "Value": value} for key, _, value in pairs])
    elif args.action == "untag":
        # A key without a value removes the tag whatever its value.
        ec2.delete_tags(Resources=args.instance, Tags=[{"Key": key} for key, _, _ in pairs])
    else:
        for instance in args.instance:
            set_groups(ec2, instance, args.group)


def set_groups(ec2, instance, groups):
    """Change the groups of an instance. AWS changes its primary network interface with it, moto does not."""
    ec2.modify_instance_attribute(InstanceId=instance, Groups=groups)
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    for interface in found["NetworkInterfaces"]:
        if interface["Attachment"]["DeviceIndex"] == 0:
            name = interface["NetworkInterfaceId"]
            ec2.modify_network_interface_attribute(NetworkInterfaceId=name, Groups=groups)


def main():
    """Edit, then say what the states are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _aws.add_endpoint(parser)
    _aws.add_role(parser)
    parser.add_argument("--region", required=True)
    actions = ["stop", "start", "terminate", "tag", "untag", "set-groups"]
    parser.add_argument("--action", required=True, choices=actions)
    parser.add_argument("--instance", required=True, nargs="+")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY[=VALUE]")
    parser.add_argument("--group", nargs="+", default=[])
    args = parser.parse_args()
    if args.action in ("tag", "untag") and not args.tag:
        parser.error(f"--action {args.action} needs --tag")
    if args.action == "set-groups" and not args.group:
        parser.error("--action set-groups needs --group")

    ec2 = _aws.client("ec2", args.endpoint, args.region, args.role)
    edit(ec2, args)
    reservations = ec2.describe_instances(InstanceIds=args.instance)["Reservations"]
    found = [instance for reservation in reservations for instance in reservation["Instances"]]
    print(json.dumps({instance["InstanceId"]: instance["State"]["Name"] for instance in found}))


if __name__ == "__main__":
    main()
