#!/usr/bin/env python3
"""Fill the test EC2 server with varied instances; print a JSON summary.

The same seed makes the same choices (the IDs are the server's own and differ). Every region also gets the oddities that
tests look for, as long as --count leaves room: no tags, a Name in many scripts, characters that XML must escape, a
terminated and a stopped instance, two network interfaces, an instance profile, a second volume, a launch of several.
"""

import argparse
import collections
import json
import random

import _aws
from botocore.exceptions import ClientError

ARM_TYPES = ["c7g.medium", "t4g.nano"]
TYPES = ["t3.micro", "t3.large", "m5.large", "m6i.2xlarge", "c5.xlarge", "r5.xlarge", "i3.large", *ARM_TYPES]
NAMES = [
    "web-{n}",
    "db-{n}.internal.example.com",
    "サーバー-{n} 東京",
    "größe & \"quote\" <{n}> 'single'",
    "наблюдатель {n} 🛰",
    "  spaces around {n}  ",
    "]]> {n} &amp;",
    "x" * 250 + "{n:05}",
]
TAGS = {
    "Environment": ["production", "staging", ""],
    "Team": ["détection", "R&D", "<none>"],
    "cost:center": ["0042", "7"],
    "Owner/E-mail": ["ops+alerts@example.com"],
    "名前": ["値"],
}
PROFILES = ["web", "team/backup"]


def make_profiles(endpoint, role):
    """Create the instance profiles (IAM is one for all regions); return their names."""
    iam = _aws.client("iam", endpoint, "us-east-1", role)
    names = []
    for full in PROFILES:
        path, _, name = full.rpartition("/")
        try:
            iam.create_instance_profile(InstanceProfileName=name, Path=f"/{path}/" if path else "/")
        except iam.exceptions.EntityAlreadyExistsException:
            pass
        names.append(name)
    return names


class Region:
    """One region's network, and the launches into it."""

    def __init__(self, endpoint, name, role, seed, profiles):
        self.ec2 = _aws.client("ec2", endpoint, name, role)
        self.random = random.Random(f"{seed}/{name}")
        self.profiles = profiles
        self.subnets = sorted(subnet["SubnetId"] for subnet in self.ec2.describe_subnets()["Subnets"])
        vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        self.groups = [self._group(vpc, f"rollcall-{purpose}") for purpose in ("web", "db", "admin", "backup")]
        self.images = collections.defaultdict(list)
        for image in sorted(self.ec2.describe_images()["Images"], key=lambda image: image["ImageId"]):
            self.images[image["Architecture"]].append(image)
        self.states = collections.Counter()
        self.ids = []
        self.skipped = set()

    def _group(self, vpc, name):
        found = self.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [name]}])["SecurityGroups"]
        if found:
            return found[0]["GroupId"]
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]

    def _tags(self, number, kind):
        if kind == "untagged":
            return []
        # The first launches take the names in turn, so that a small fleet has every oddity.
        name = NAMES[number % len(NAMES)] if number < len(NAMES) else self.random.choice(NAMES)
        tags = [{"Key": "Name", "Value": name.format(n=number)}] if kind != "unnamed" else []
        for key in sorted(self.random.sample(sorted(TAGS), self.random.randrange(len(TAGS) + 1))):
            tags.append({"Key": key, "Value": self.random.choice(TAGS[key])})
        return tags

    def launch(self, number, count):
        """Launch `count` instances at once; they share a reservation, as those of an auto-scaling group do."""
        kind = ("tagged", "untagged", "tagged", "unnamed", "tagged", "tagged")[number % 6]
        machine = self.random.choice(TYPES)
        image = self.random.choice(self.images["arm64" if machine in ARM_TYPES else "x86_64"])
        request = {
            "ImageId": image["ImageId"],
            "InstanceType": machine,
            "MinCount": count,
            "MaxCount": count,
            "SubnetId": self.random.choice(self.subnets),
            "SecurityGroupIds": self.random.sample(self.groups, self.random.randint(1, 3)),
            "EbsOptimized": self.random.random() < 0.3,
            "Monitoring": {"Enabled": self.random.random() < 0.3},
        }
        if tags := self._tags(number, kind):
            request["TagSpecifications"] = [{"ResourceType": "instance", "Tags": tags}]
        if number % 5 == 2:
            request["IamInstanceProfile"] = {"Name": self.random.choice(self.profiles)}
        if number % 4 == 1:
            data = {"VolumeSize": self.random.choice([8, 100, 2000]), "VolumeType": "gp3"}
            request["BlockDeviceMappings"] = [
                {"DeviceName": image["RootDeviceName"], "Ebs": {"VolumeSize": 8, "DeleteOnTermination": True}},
                {"DeviceName": "/dev/sdf", "Ebs": data},
            ]
        ids = [instance["InstanceId"] for instance in self.ec2.run_instances(**request)["Instances"]]
        self.ids += ids
        if number % 7 == 3:
            self._attach_interface(ids[0], request["SubnetId"])
        if count > 1:
            self._try(
                "aws:* tags",
                self.ec2.create_tags,
                Resources=ids,
                Tags=[{"Key": "aws:autoscaling:groupName", "Value": f"asg-{number}"}],
            )
        self._settle(number, ids)

    def _attach_interface(self, instance, subnet):
        group = self.random.choice(self.groups)
        interface = self.ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]
        self.ec2.attach_network_interface(
            NetworkInterfaceId=interface["NetworkInterfaceId"], InstanceId=instance, DeviceIndex=1
        )

    def _settle(self, number, ids):
        """Stop or terminate some."""
        state = {4: "stopped", 5: "terminated"}.get(number % 10, "running")
        if state == "stopped":
            self.ec2.stop_instances(InstanceIds=ids)
        elif state == "terminated":
            self.ec2.terminate_instances(InstanceIds=ids)
        self.states[state] += len(ids)

    def _try(self, what, call, **arguments):
        """Some servers refuse what AWS reserves to itself: then go without, and say so in the summary."""
        try:
            call(**arguments)
        except ClientError:
            self.skipped.add(what)

    def fill(self, count):
        """Launch `count` instances; return what is there now."""
        number = 0
        while len(self.ids) < count:
            self.launch(number, min(3 if number % 6 == 2 else 1, count - len(self.ids)))
            number += 1
        return {"instances": count, **self.states, "skipped": sorted(self.skipped), "ids": self.ids}


def main():
    """Fill the regions one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _aws.add_endpoint(parser)
    parser.add_argument("--regions", required=True, type=_aws.region_list, help="names separated by commas")
    parser.add_argument("--count", required=True, type=int, help="instances per region")
    parser.add_argument("--seed", type=int, default=1)
    _aws.add_role(parser)
    args = parser.parse_args()
    profiles = make_profiles(args.endpoint, args.role)
    regions = {name: Region(args.endpoint, name, args.role, args.seed, profiles) for name in args.regions}
    summary = {name: region.fill(args.count) for name, region in regions.items()}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
