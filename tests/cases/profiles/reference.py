#!/usr/bin/env python3
"""The contract of the profiles ocsf and cse once more, independently of the program.

reference.py            check every file in this folder: exits 1 on a difference
reference.py --write    write what the contract gives into the files, for a human to read before it is committed

Only what the cases need is here: members are of their types, or strings where they are not.
"""

import datetime
import ipaddress
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
EARLIEST_MS, LATEST_MS = 100_000_000_000, 253_402_300_799_999


def meaningful(value):
    """Without null, empty text, empty lists and empty objects."""
    if isinstance(value, dict):
        members = {name: meaningful(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if member not in (None, "", [], {})} or None
    if isinstance(value, list):
        return [element for element in map(meaningful, value) if element not in (None, "", [], {})] or None
    return None if value == "" else value


def instant(text):
    """Milliseconds, or None."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.timezone.utc)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    ms = (at - epoch) // datetime.timedelta(milliseconds=1)
    return ms if 99_964_800_000 <= ms <= LATEST_MS else None


def text_of(ms):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds") + "Z"


def timed(target, name, ms):
    if ms is not None and ms >= EARLIEST_MS:
        target[name], target[name + "_dt"] = ms, text_of(ms)


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def snaked(value):
    """Names in snake case, instants in one form, lists in the order of their JSON."""
    if isinstance(value, dict):
        return {snake(name): text_of(instant(member)) if name.endswith("Time") and instant(member) else snaked(member)
                for name, member in value.items()}
    if isinstance(value, list):
        return sorted(map(snaked, value), key=lambda element: json.dumps(element, sort_keys=True, separators=(",", ":")))
    return value


class Rejected:
    """Addresses that are none."""

    def __init__(self):
        self.found = set()

    def ip(self, field, text):
        if text is None:
            return None
        try:
            return str(ipaddress.ip_address(text)) if "%" not in text else self._no(field, text)
        except ValueError:
            return self._no(field, text)

    def mac(self, field, text):
        if text is None or re.fullmatch(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", text):
            return text
        return self._no(field, text)

    def _no(self, field, text):
        self.found.add((field, text))

    def listed(self):
        return [{"field": field, "value": value} for field, value in sorted(self.found)] or None


def last_first(value):
    """Sorts what is missing last."""
    return (value is None, value if value is not None else 0)


def sorted_interfaces(record):
    def key(interface):
        attachment = interface.get("Attachment", {})
        uid = interface.get("NetworkInterfaceId")
        return (last_first(attachment.get("NetworkCardIndex")), last_first(attachment.get("DeviceIndex")), uid is None, uid or "")
    return sorted(record.get("NetworkInterfaces", []), key=key)


def operating_system(record):
    details, low = record.get("PlatformDetails"), record.get("PlatformDetails", "").lower()
    if record.get("Architecture", "").endswith("_mac"):
        kind = ("macOS", 300)
    elif "windows" in low:
        kind = ("Windows", 100)
    elif any(word in low for word in ("linux", "unix", "red hat", "suse", "ubuntu", "debian")):
        kind = ("Linux", 200)
    elif "macos" in low or re.search(r"\bmac\b", low):
        kind = ("macOS", 300)
    elif low.startswith("sql server"):
        kind = ("Linux", 200)
    elif record.get("Platform", "").lower() == "windows":
        kind = ("Windows", 100)
    elif details is None:
        return None
    else:
        kind = ("Unknown", 0) if details == "Other" else (details, 99)
    return {"name": details or kind[0], "type": kind[0], "type_id": kind[1]}


def entries(record, rejected):
    """One for each address."""
    found = []
    for interface in sorted_interfaces(record):
        base = {"type": "Wired", "type_id": 1}
        base |= {name: interface[member] for name, member in (("uid", "NetworkInterfaceId"), ("name", "Description")) if member in interface}
        if mac := rejected.mac("network_interfaces.mac_address", interface.get("MacAddress")):
            base["mac"] = mac
        addresses = {}

        def add(field, text, hostname):
            ip = rejected.ip("network_interfaces." + field, text)
            if ip and ip not in addresses:
                addresses[ip] = hostname

        def add_public(association):
            add("association.public_ip", association.get("PublicIp"), association.get("PublicDnsName"))
            add("association.customer_owned_ip", association.get("CustomerOwnedIp"), None)
            add("association.carrier_ip", association.get("CarrierIp"), None)

        private = interface.get("PrivateIpAddresses", [])
        for address in sorted(private, key=lambda a: (a.get("Primary") is not True, a.get("PrivateIpAddress", ""))):
            add("private_ip_addresses.private_ip_address", address.get("PrivateIpAddress"), address.get("PrivateDnsName"))
            add_public(address.get("Association", {}))
        add("private_ip_address", interface.get("PrivateIpAddress"), interface.get("PrivateDnsName"))
        add_public(interface.get("Association", {}))
        ipv6 = interface.get("Ipv6Addresses", [])
        for address in sorted(ipv6, key=lambda a: (a.get("IsPrimaryIpv6") is not True, a.get("Ipv6Address", ""))):
            add("ipv6_addresses.ipv6_address", address.get("Ipv6Address"), None)
        for ip, hostname in addresses.items():
            found.append(base | {"ip": ip} | ({"hostname": hostname} if hostname else {}))
        if not addresses:
            entry = base | ({"hostname": interface["PrivateDnsName"]} if "PrivateDnsName" in interface else {})
            if entry.keys() & {"uid", "mac", "hostname"}:
                found.append(entry)
    return found


def interface_details(record):
    told = []
    shown = {"Description", "MacAddress", "PrivateDnsName", "PrivateIpAddress", "PrivateIpAddresses", "Association",
             "Ipv6Addresses", "NetworkInterfaceId"}
    for interface in sorted_interfaces(record):
        detail = snaked({name: member for name, member in interface.items() if name not in shown})
        addresses = [{"ip": a.get("PrivateIpAddress"), "primary": a.get("Primary"), "ip_owner_id": a.get("Association", {}).get("IpOwnerId")}
                     for a in interface.get("PrivateIpAddresses", [])]
        if "PrivateIpAddresses" not in interface:
            owner = interface.get("Association", {}).get("IpOwnerId")
            addresses.append({"ip": interface.get("PrivateIpAddress"), "primary": None, "ip_owner_id": owner})
        addresses += [{"ip": a.get("Ipv6Address"), "primary": a.get("IsPrimaryIpv6"), "ip_owner_id": None} for a in interface.get("Ipv6Addresses", [])]
        addresses = [{n: v for n, v in a.items() if v is not None} for a in addresses]
        addresses = [a for a in addresses if a.keys() & {"primary", "ip_owner_id"}]
        addresses.sort(key=lambda a: (a.get("primary") is not True, json.dumps(a, sort_keys=True)))
        if "groups" in detail:
            groups = [{"uid": g.get("group_id"), "name": g.get("group_name")} for g in detail["groups"]]
            detail["groups"] = sorted(({n: v for n, v in g.items() if v} for g in groups), key=lambda g: ("uid" not in g, g.get("uid", "")))
        if detail or addresses:
            if "NetworkInterfaceId" in interface:
                detail["uid"] = interface["NetworkInterfaceId"]
            told.append(detail | ({"addresses": addresses} if addresses else {}))
    return told


HOMES = {"InstanceId", "OwnerId", "ImageId", "InstanceType", "LaunchTime", "SubnetId", "VpcId", "Hypervisor", "PlatformDetails",
         "PublicDnsName", "PrivateDnsName", "PublicIpAddress", "PrivateIpAddress", "Ipv6Address", "Tags", "SecurityGroups",
         "NetworkInterfaces", "BlockDeviceMappings", "State", "CpuOptions", "Placement"}


def ocsf(record, headers, observed_at):
    """The event `created`."""
    rejected = Rejected()
    uid, placement = record["InstanceId"], record.get("Placement", {})
    zone = placement.get("AvailabilityZone")
    prefix = re.match(r"[a-z]{2,4}(-[a-z]+)+-\d+", zone or "")
    region = headers.get("aws-region") or (prefix and prefix.group())
    account = record.get("OwnerId") or headers.get("aws-account")
    partition = region and ("aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws")
    tags = sorted(((t.get("Key"), t.get("Value")) for t in record.get("Tags", [])), key=lambda t: (t[0] is None, t[0] or "", t[1] or ""))
    tag = lambda key: next((value for name, value in tags if name == key and value), None)  # noqa: E731
    interfaces = sorted_interfaces(record)
    primary = interfaces[0] if interfaces else {}
    is_metal = ".metal" in record.get("InstanceType", "")
    device = {"type": "Server" if is_metal else "Virtual", "type_id": 1 if is_metal else 6, "uid": uid, "instance_uid": uid,
              "vendor_name": "Amazon Web Services"}
    first_ipv6 = record.get("Ipv6Address") or next(iter(sorted(
        (a["Ipv6Address"] for a in primary.get("Ipv6Addresses", []) if "Ipv6Address" in a))), None)
    ips = [rejected.ip("public_ip_address", record.get("PublicIpAddress")), rejected.ip("private_ip_address", record.get("PrivateIpAddress")),
           rejected.ip("ipv6_address", first_ipv6)]
    groups = [{"uid": g.get("GroupId"), "name": g.get("GroupName"), "type": "AWS EC2 Security Group"} for g in record.get("SecurityGroups", [])]
    groups.sort(key=lambda g: (g["uid"] is None, g["uid"] or "", g["name"] or ""))
    architecture = {"i386": ("x86", 1, 32), "x86_64": ("x86", 1, 64), "x86_64_mac": ("x86", 1, 64), "arm64": ("ARM", 2, 64),
                    "arm64_mac": ("ARM", 2, 64)}.get(record.get("Architecture"), (record.get("Architecture"), 99, None))
    hw_info = dict(zip(("cpu_architecture", "cpu_architecture_id", "cpu_bits"), architecture)) if "Architecture" in record else {}
    hw_info["cpu_cores"] = record.get("CpuOptions", {}).get("CoreCount")
    device |= {
        "uid_alt": f"arn:{partition}:ec2:{region}:{account}:instance/{uid}" if partition and account else None,
        "name": tag("Name"), "hostname": record.get("PublicDnsName") or record.get("PrivateDnsName"),
        "ip": next((ip for ip in ips if ip), None), "mac": rejected.mac("network_interfaces.mac_address", primary.get("MacAddress")),
        "interface_uid": primary.get("NetworkInterfaceId"), "network_interfaces": entries(record, rejected), "groups": groups,
        "region": region, "subnet_uid": record.get("SubnetId"), "vpc_uid": record.get("VpcId"),
        "image": {"uid": record.get("ImageId")}, "model": record.get("InstanceType"), "hypervisor": record.get("Hypervisor"),
        "autoscale_uid": tag("aws:autoscaling:groupName"), "os": operating_system(record), "hw_info": hw_info,
    }
    launched = instant(record.get("LaunchTime"))
    timed(device, "boot_time", launched)
    roots = [v.get("Ebs", {}).get("AttachTime") for v in record.get("BlockDeviceMappings", [])
             if v.get("DeviceName") and v["DeviceName"] == record.get("RootDeviceName")]
    for created in (primary.get("Attachment", {}).get("AttachTime"), *roots, record.get("LaunchTime")):
        if instant(created) and instant(created) >= EARLIEST_MS:
            timed(device, "created_time", instant(created))
            break
    seen = instant(observed_at)
    for name in ("first_seen_time", "last_seen_time", "modified_time"):
        timed(device, name, seen)
    cloud = {"provider": "AWS", "account": {"uid": account, "type": "AWS Account", "type_id": 10} if account else None,
             "region": region, "zone": zone, "cloud_partition": partition}
    unmapped = snaked({name: member for name, member in record.items() if name not in HOMES})
    if state := record.get("State"):
        unmapped["state"] = snaked(state) | ({"code": state["Code"] & 0xFF} if "Code" in state else {})
    unmapped["placement"] = snaked({n: m for n, m in placement.items() if n != "AvailabilityZone"})
    unmapped["cpu_options"] = snaked({n: m for n, m in record.get("CpuOptions", {}).items() if n != "CoreCount"})
    unmapped["tags"] = [{"name": key, "value": value} for key, value in tags]
    volumes = [({"device_name": v.get("DeviceName")} | snaked(v.get("Ebs", {}))) for v in record.get("BlockDeviceMappings", [])]
    root = record.get("RootDeviceName")
    volumes.sort(key=lambda v: (v["device_name"] is None or v["device_name"] != root, v["device_name"] is None, v["device_name"] or ""))
    unmapped |= {"volumes": volumes, "network_interfaces": interface_details(record), "rejected": rejected.listed()}
    shown = {entry.get("ip") for entry in device["network_interfaces"]} | {device["ip"]}
    names = {entry.get("hostname") for entry in device["network_interfaces"]} | {device["hostname"]}
    for name, member in (("private_ip_address", "PrivateIpAddress"), ("ipv6_address", "Ipv6Address")):
        ip = Rejected().ip("", record.get(member))
        unmapped[name] = ip if ip not in shown else None
    unmapped["private_dns_name"] = record.get("PrivateDnsName") if record.get("PrivateDnsName") not in names else None
    unmapped["change"] = {"kind": "created"}
    return meaningful({
        "activity_id": 2, "activity_name": "Collect", "category_uid": 5, "category_name": "Discovery", "class_uid": 5001,
        "class_name": "Device Inventory Info", "type_uid": 500102, "type_name": "Device Inventory Info: Collect", "severity_id": 1,
        "severity": "Informational", "status_id": 1, "status": "Success", "time": seen, "time_dt": text_of(seen), "timezone_offset": 0,
        "message": f"{uid} created", "cloud": cloud, "device": device, "unmapped": unmapped,
        "observables": observables(meaningful(device), cloud),
        "metadata": {
            "version": "1.6.0", "profiles": ["cloud", "datetime", "host"], "log_name": "DescribeInstances",
            "log_provider": "ec2.amazonaws.com", "original_time": headers.get("observed-at"), "correlation_uid": headers.get("sweep-id"),
            "product": {"name": "AWS EC2", "uid": "ec2", "vendor_name": "AWS", "version": "2016-11-15"},
            # A hash: that it is there and stable is shown elsewhere.
            "uid": "*", "sequence": 1, "labels": ["inventory:created", *labels(headers)],
        },
    })


def labels(headers):
    named = [f"{name}:{headers[name]}" for name in ("source", "source-category") if name in headers]
    return named + [f"{name[6:]}:{value}" for name, value in sorted(headers.items()) if name.startswith("field.")]


def observables(device, cloud):
    found = []

    def add(name, type_id, kind, value):
        entry = {"name": name, "type": kind, "type_id": type_id, "value": value}
        if value and entry not in found:
            found.append(entry)

    add("cloud.account.uid", 35, "Account Object: uid", (cloud["account"] or {}).get("uid"))
    for group in device.get("groups", []):
        add("device.groups.uid", 33, "Group Object: uid", group.get("uid"))
    add("device.hostname", 1, "Hostname", device.get("hostname"))
    add("device.ip", 2, "IP Address", device.get("ip"))
    add("device.mac", 3, "MAC Address", device.get("mac"))
    for interface in device.get("network_interfaces", []):
        add("device.network_interfaces.hostname", 1, "Hostname", interface.get("hostname"))
        add("device.network_interfaces.ip", 2, "IP Address", interface.get("ip"))
        add("device.network_interfaces.mac", 3, "MAC Address", interface.get("mac"))
    add("device.uid", 47, "Device Object: uid", device["uid"])
    return found


def cse(record, headers):
    """The record."""
    account = record.get("OwnerId") or headers.get("aws-account")
    fields = {name[6:]: value for name, value in headers.items() if name.startswith("field.")}
    return meaningful({
        "ip": record.get("PublicIpAddress") or record.get("PrivateIpAddress"),
        "hostname": record.get("PublicDnsName") or record.get("PrivateDnsName"),
        "uniqueId": f"{account}-{record['InstanceId']}" if account else record["InstanceId"],
        "_siemVendor": "Amazon", "_siemProduct": "AWS EC2 Inventory", "_siemDataType": "Inventory",
        "_source": headers.get("source"), "_sourceCategory": headers.get("source-category"), "fields": fields,
    })


def main():
    """Check, or write."""
    wrong = 0
    for path in sorted(HERE.glob("[0-9]*.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        source = json.loads((HERE.parent / path.name).read_text(encoding="utf-8"))
        record, headers = meaningful(source["record"]), case["headers"]
        expected = {"ocsf": ocsf(record, headers, headers["observed-at"]), "cse": cse(record, headers)}
        if "--write" in sys.argv:
            path.write_text(json.dumps({"headers": headers, **expected}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        elif {name: case.get(name) for name in expected} != expected:
            wrong += 1
            print(f"{path.name} differs")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
