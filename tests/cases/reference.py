#!/usr/bin/env python3
"""Second opinion on the profile `sekoia`: the mapping contract once more, as small as it goes, to check the cases here.

    python3 reference.py                    checks every case; exits 1 and prints each difference
    python3 reference.py 004-….json …       checks these only
    python3 reference.py --print CASE       prints what the reference makes of a case

It follows the contract, not the program, and shares nothing with it. Where it had to interpret: README.md.
"""
import datetime
import difflib
import json
import pathlib
import re
import sys

TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
                  r"(?:[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?)?")
UNIX_DAY = datetime.date(1970, 1, 1).toordinal()
EARLIEST, LATEST = 99964800, 253402300799  # 1973-03-03T00:00:00Z, 9999-12-31T23:59:59Z


def epoch(text):
    """Whole seconds since 1970, floored by leaving the fraction out; ValueError where there is no such time."""
    match = TIME.fullmatch(text)
    if not match:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    sign, offset_hours, offset_minutes = match.group(7), int(match.group(8) or 0), int(match.group(9) or 0)
    if hour > 23 or minute > 59 or second > 59 or offset_hours > 23 or offset_minutes > 59:
        raise ValueError(text)
    days = datetime.date(year, month, day).toordinal() - UNIX_DAY
    offset = (offset_hours * 60 + offset_minutes) * (-60 if sign == "-" else 60)
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset
    if not EARLIEST <= seconds <= LATEST:
        raise ValueError(text)
    return seconds


def iso(seconds):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return moment.isoformat(timespec="seconds") + "Z"


def is_absent(value):
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def prune(value):
    """The value without anything that counts as absent, at any depth."""
    if isinstance(value, dict):
        value = {key: prune(member) for key, member in value.items()}
        return {key: member for key, member in value.items() if not is_absent(member)}
    if isinstance(value, list):
        return [member for member in map(prune, value) if not is_absent(member)]
    return value


class Reader:
    """An object of the record, read by type; what has the wrong one is absent, and its path noted."""

    def __init__(self, members, errors, path=""):
        self.members, self.errors, self.path = members, errors, path

    def get(self, name, kind):
        value = self.members.get(name)
        if is_absent(value):
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.errors.add(self.path + name)
            return None
        return value

    def text(self, name):
        return self.get(name, str)

    def time(self, name):
        text = self.text(name)
        try:
            return None if text is None else epoch(text)
        except ValueError:
            self.errors.add(self.path + name)
            return None

    def object(self, name):
        return Reader(self.get(name, dict) or {}, self.errors, self.path + name + ".")

    def objects(self, name):
        """The list's elements in the record's order; an unreadable or absent one keeps its place, as an empty object."""
        readers = []
        for element in self.get(name, list) or []:
            if not is_absent(element) and not isinstance(element, dict):
                self.errors.add(self.path + name + "[]")
                element = None
            readers.append(Reader(element or {}, self.errors, self.path + name + "[]."))
        return readers


def by(*values):
    """A sort key over members that may be missing, texts by their UTF-8 bytes."""
    return tuple((value is None, value.encode() if isinstance(value, str) else value or 0) for value in values)


def operating_system(details, architecture, platform):
    text = (details or "").lower()
    if (architecture or "").endswith("_mac"):
        kind = "macOS"
    elif "windows" in text:
        kind = "Windows"
    elif any(word in text for word in ("linux", "unix", "red hat", "suse", "ubuntu", "debian")):
        kind = "Linux"
    elif "macos" in text or re.search(r"\bmac\b", text):
        kind = "macOS"
    elif text.startswith("sql server"):
        kind = "Linux"
    elif (platform or "").lower() == "windows":
        kind = "Windows"
    else:
        kind = "Unknown"
    return {"name": details or "Unknown", "type": kind,
            "type_id": {"Windows": 100, "Linux": 200, "macOS": 300, "Unknown": 0}[kind]}


def interfaces(record):
    """The rendered interfaces, and the primary one's first IPv6 address."""
    found = []
    for one in record.objects("NetworkInterfaces"):
        attachment = one.object("Attachment")
        card, index = attachment.get("NetworkCardIndex", int), attachment.get("DeviceIndex", int)
        rendered = {"uid": one.text("NetworkInterfaceId"), "mac": one.text("MacAddress"),
                    "ip": one.text("PrivateIpAddress"), "hostname": one.text("PrivateDnsName")}
        description = one.text("Description")
        addresses = [(address.get("IsPrimaryIpv6", bool) is not True, address.text("Ipv6Address"))
                     for address in one.objects("Ipv6Addresses")]
        addresses = sorted(address for address in addresses if address[1])
        if any(rendered.values()):
            rendered.update(name=description or "Primary network interface", type="Wired", type_id=1)
            found.append((by(card, index, rendered["uid"]), rendered, addresses))
    found.sort(key=lambda interface: interface[0])
    first_ipv6 = found[0][2][0][1] if found and found[0][2] else None
    return [rendered for _, rendered, _ in found], first_ipv6


def reference(raw, headers, observed_at, options):
    """The event, and the set of the paths that could not be read."""
    errors = set()
    record = Reader(raw, errors)
    uid, image, state = record.text("InstanceId"), record.text("ImageId"), record.object("State").text("Name")
    launch, observed = record.time("LaunchTime"), epoch(observed_at)

    volumes = record.objects("BlockDeviceMappings")
    attached = volumes[0].object("Ebs").time("AttachTime") if volumes else None
    created = launch if attached is None else attached
    time = next(moment for moment in (launch, created, observed) if moment is not None)
    if options.get("time") == "observed":
        time = observed

    tags = sorted((tag for tag in ((one.text("Key"), one.text("Value")) for one in record.objects("Tags")) if all(tag)),
                  key=lambda tag: by(*tag))
    first_value = lambda key: next((value for name, value in tags if name == key), None)

    groups = [{"uid": one.text("GroupId"), "name": one.text("GroupName")} for one in record.objects("SecurityGroups")]
    groups.sort(key=lambda group: by(group["uid"], group["name"]))

    network_interfaces, interface_ipv6 = interfaces(record)
    addresses = [record.text("PublicIpAddress"), record.text("PrivateIpAddress"), record.text("Ipv6Address"), interface_ipv6]
    names = [record.text("PublicDnsName"), record.text("PrivateDnsName"), uid]
    account = record.text("OwnerId") or headers.get("aws-account")

    device = {
        "type": "Server", "type_id": 1, "vendor_name": "Amazon Web Services", "uid": uid,
        "hostname": next(filter(None, names)),
        "name": first_value("Name") or uid,
        "ip": next(filter(None, addresses), None),
        "os": operating_system(record.text("PlatformDetails"), record.text("Architecture"), record.text("Platform")),
        "network_interfaces": network_interfaces,
        "groups": groups,
        "region": record.object("Placement").text("AvailabilityZone"),
        "subnet": record.text("SubnetId"), "domain": record.text("VpcId"),
        "hypervisor": record.text("Hypervisor"), "model": record.text("InstanceType"),
        "boot_time": None if launch is None else iso(launch), "created_time": created,
        "is_managed": bool(prune(record.get("IamInstanceProfile", dict))),
        "autoscale_uid": first_value("aws:autoscaling:groupName"),
        "image_id": image, "state": state,
        "desc": ", ".join(label + value for label, value in (("AMI: ", image), ("State: ", state)) if value),
        "org": {"uid": account, "name": "AWS Account " + account} if account else None,
    }
    event = {
        "activity_id": 2, "activity_name": "Collect", "category_uid": 5, "category_name": "Discovery",
        "class_uid": 5001, "class_name": "Device Inventory Info", "type_uid": 500102,
        "type_name": "Device Inventory Info: Collect", "severity_id": 1, "severity": "Informational", "time": time,
        "metadata": {"product": {"name": "AWS EC2", "version": "N/A"}, "version": "1.6.0"}, "device": device,
    }
    return prune(event), errors


def shown(value):
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()


def faults(path):
    """What is wrong with one case file, as lines."""
    text = path.read_text(encoding="utf-8")
    case = json.loads(text)
    if set(case) != {"title", "record", "headers", "observed_at", "options", "event", "field_errors"}:
        return ["members: " + ", ".join(case)]
    lines = []
    if text != json.dumps(case, indent=2, ensure_ascii=False) + "\n":
        lines.append("not printed with two spaces, unescaped, one newline at the end")
    if shown(prune(case["event"])) != shown(case["event"]):
        lines.append("the expected event holds empty values")
    event, errors = reference(case["record"], case["headers"], case["observed_at"], case["options"])
    expected, found = (shown({"event": one, "field_errors": sorted(paths)})
                       for one, paths in ((case["event"], case["field_errors"]), (event, errors)))
    return lines + list(difflib.unified_diff(expected, found, "case", "reference", lineterm="", n=2))


def main(arguments):
    here = pathlib.Path(__file__).resolve().parent
    if arguments[:1] == ["--print"]:
        case = json.loads(pathlib.Path(arguments[1]).read_text(encoding="utf-8"))
        event, errors = reference(case["record"], case["headers"], case["observed_at"], case["options"])
        print("\n".join(shown({"event": event, "field_errors": sorted(errors)})))
        return 0
    paths = [pathlib.Path(argument) for argument in arguments] or sorted(here.glob("[0-9]*.json"))
    differing = 0
    for path in paths:
        lines = faults(path)
        if lines:
            differing += 1
            print("\n".join([path.name] + lines) + "\n")
    print(f"{len(paths)} cases, {differing} differ")
    return 1 if differing or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
