//! How the AWS CLI prints an invented instance.

use std::fmt::Display;
use std::net::Ipv4Addr;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::catalog::Trait;
use super::machine::{Machine, Phase};

/// 198.18.0.0/15, reserved for benchmarks.
const PUBLIC_NETWORK: u32 = 0xC612_0000;
/// 10.0.0.0/8.
const PRIVATE_NETWORK: u32 = 0x0A00_0000;
/// Where the second volume is attached.
const DATA_DEVICE: &str = "/dev/sdf";

/// Where a fleet is.
pub struct Site {
    seed: u64,
    account: String,
    region: String,
}

impl Site {
    pub fn new(seed: u64, account: &str, region: &str) -> Self {
        Self { seed, account: account.to_owned(), region: region.to_owned() }
    }

    /// A number for something of this site: always the same, and that of nothing else.
    pub fn number(&self, kind: &str, of: impl Display) -> u64 {
        let Self { seed, account, region } = self;
        let hash = blake3::hash(format!("{seed}/{account}/{region}/{kind}/{of}").as_bytes());
        hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// An ID of EC2's form: 17 digits, of which the first has been 0 so far.
    fn id(&self, kind: &str, of: impl Display) -> String {
        format!("{kind}-0{:016x}", self.number(kind, of))
    }

    /// As in `euw1-az1`.
    fn zone_id(&self, zone: u64) -> String {
        let words = [("north", "n"), ("south", "s"), ("east", "e"), ("west", "w"), ("central", "c"), ("-", "")];
        let code = words.iter().fold(self.region.clone(), |code, (long, short)| code.replace(long, short));
        format!("{code}-az{}", zone + 1)
    }

    /// Another one for each number, as long as the network has any; not the same in all sites.
    fn address(&self, network: u32, hosts: u32, number: u64) -> Ipv4Addr {
        let host = number.wrapping_add(self.number("network", network)) as u32;
        Ipv4Addr::from(network | host & (hosts - 1))
    }

    fn private_name(&self, address: Ipv4Addr) -> String {
        let domain = if self.region == "us-east-1" { "ec2" } else { &format!("{}.compute", self.region) };
        format!("ip-{}.{domain}.internal", address.to_string().replace('.', "-"))
    }

    fn public_name(&self, address: Ipv4Addr) -> String {
        let domain = if self.region == "us-east-1" { "compute-1" } else { &format!("{}.compute", self.region) };
        format!("ec2-{}.{domain}.amazonaws.com", address.to_string().replace('.', "-"))
    }
}

impl Machine {
    /// The instance, with its reservation's `OwnerId` and `ReservationId` merged in.
    pub fn describe(&self, site: &Site) -> Map<String, Value> {
        let mut instance = self.constants(site);
        instance.append(&mut self.condition());
        instance.append(&mut match self.phase {
            Phase::Terminated(_) | Phase::Forgotten => members(json!({
                "BlockDeviceMappings": [], "NetworkInterfaces": [], "SecurityGroups": [],
                "PrivateDnsName": "", "PublicDnsName": "",
            })),
            _ => self.belongings(site),
        });
        instance
    }

    /// What stays the same.
    fn constants(&self, site: &Site) -> Map<String, Value> {
        let (role, _, (details, usage_operation, architecture, root_device, _), ..) = *self.kind;
        let (is_mac, is_windows) = (architecture == "arm64_mac", details == "Windows");
        let (is_scaled, is_spot) = (self.is(Trait::Scaled), self.is(Trait::Spot));
        members(json!({
            "InstanceId": site.id("i", self.serial), "OwnerId": site.account,
            "ReservationId": site.id("r", self.serial), "AmiLaunchIndex": 0,
            "ClientToken": format!("terraform-{:016x}", site.number("token", self.serial)),
            "ImageId": site.id("ami", format!("{details}/{architecture}")),
            "Architecture": architecture, "Platform": is_windows.then_some("windows"), "PlatformDetails": details,
            "UsageOperation": usage_operation, "UsageOperationUpdateTime": instant(self.launched),
            "BootMode": if is_mac || is_windows { "uefi" } else { "uefi-preferred" },
            "CurrentInstanceBootMode": "uefi", "EnaSupport": true, "Hypervisor": "xen", "VirtualizationType": "hvm",
            "RootDeviceName": root_device, "RootDeviceType": "ebs",
            "InstanceLifecycle": is_spot.then_some("spot"),
            "SpotInstanceRequestId": is_spot.then(|| format!("sir-{:08x}", site.number("sir", self.serial) as u32)),
            "KeyName": (!is_scaled).then(|| format!("{role}-key")),
            "Monitoring": {"State": if is_scaled { "enabled" } else { "disabled" }},
            "Placement": members(json!({
                "AvailabilityZone": format!("{}{}", site.region, ["a", "b", "c"][self.zone() as usize]),
                "AvailabilityZoneId": site.zone_id(self.zone()), "GroupName": "",
                "HostId": is_mac.then(|| site.id("h", self.serial)),
                "Tenancy": if is_mac { "host" } else { "default" },
            })),
            "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
            "EnclaveOptions": {"Enabled": false}, "HibernationOptions": {"Configured": false},
            "MaintenanceOptions": {"AutoRecovery": "default", "RebootMigration": "default"},
            "NetworkPerformanceOptions": {"BandwidthWeighting": "default"},
            "Operator": {"Managed": false}, "ProductCodes": [],
        }))
    }

    /// What changes with what happens to it.
    fn condition(&self) -> Map<String, Value> {
        let (name, cores, threads) = *self.size;
        let (state, code, reason) = match self.phase {
            Phase::Pending => ("pending", 0, Some("pending")),
            Phase::Running => ("running", 16, None),
            Phase::ShuttingDown => ("shutting-down", 32, Some("Client.UserInitiatedShutdown")),
            Phase::Terminated(_) | Phase::Forgotten => ("terminated", 48, Some("Client.UserInitiatedShutdown")),
            Phase::Stopped => ("stopped", 80, Some("Client.UserInitiatedShutdown")),
        };
        let (is_pending, is_running) = (self.phase == Phase::Pending, self.phase == Phase::Running);
        let transition = self.phase_since.format("User initiated (%F %T GMT)").to_string();
        members(json!({
            "State": {"Code": code, "Name": state},
            "StateReason": reason.map(|reason| json!({
                "Code": reason,
                "Message": if is_pending { reason.to_owned() } else { format!("{reason}: User initiated shutdown") },
            })),
            "StateTransitionReason": if is_pending || is_running { "" } else { &transition },
            "LaunchTime": instant(self.started),
            "InstanceType": name, "EbsOptimized": !name.starts_with('t'),
            "CpuOptions": {"CoreCount": cores, "ThreadsPerCore": threads},
            "MetadataOptions": {
                "State": if is_pending { "pending" } else { "applied" },
                "HttpTokens": if self.is(Trait::Untagged) { "optional" } else { "required" },
                "HttpPutResponseHopLimit": if self.is(Trait::Scaled) { 2 } else { 1 },
                "HttpEndpoint": "enabled", "HttpProtocolIpv6": "disabled", "InstanceMetadataTags": "disabled",
            },
            "Tags": self.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Value>(),
        }))
    }

    /// What a terminated instance has no longer.
    fn belongings(&self, site: &Site) -> Map<String, Value> {
        let (private_ip, public_ip) = (self.private_ip(site, 0), self.public_ip(site));
        let profile = format!("instance-profile/{}", self.kind.0);
        let attached = instant(self.launched + TimeDelta::seconds(1));
        let devices = [self.kind.2.3].into_iter().chain(self.is(Trait::Data).then_some(DATA_DEVICE));
        let volumes = devices.map(|device| {
            let volume = site.id("vol", format!("{}{device}", self.serial));
            let is_root = device != DATA_DEVICE;
            json!({"DeviceName": device, "Ebs": {
                "AttachTime": attached, "DeleteOnTermination": is_root, "Status": "attached", "VolumeId": volume,
            }})
        });
        members(json!({
            "BlockDeviceMappings": volumes.collect::<Value>(),
            "IamInstanceProfile": self.has_profile.then(|| json!({
                "Arn": format!("arn:aws:iam::{}:{profile}", site.account),
                "Id": format!("AIPA{:017}", site.number("profile", &profile) % 10_u64.pow(17)),
            })),
            "Ipv6Address": self.ipv6(site),
            "NetworkInterfaces": (0..self.interfaces.len()).map(|index| self.interface(site, index)).collect::<Value>(),
            "PrivateDnsName": site.private_name(private_ip), "PrivateIpAddress": private_ip,
            "PrivateDnsNameOptions": {
                "HostnameType": "ip-name",
                "EnableResourceNameDnsARecord": false, "EnableResourceNameDnsAAAARecord": false,
            },
            "PublicDnsName": public_ip.map_or(String::new(), |address| site.public_name(address)),
            "PublicIpAddress": public_ip,
            "SecurityGroups": self.groups(site), "SourceDestCheck": true,
            "SubnetId": site.id("subnet", self.zone()), "VpcId": site.id("vpc", ""),
        }))
    }

    fn interface(&self, site: &Site, index: usize) -> Value {
        let of = format!("{}/{index}", self.serial);
        let is_primary = index == 0;
        let (address, ipv6) = (self.private_ip(site, index), self.ipv6(site).filter(|_| is_primary));
        let association = self.public_ip(site).filter(|_| is_primary).map(
            |public| json!({"IpOwnerId": "amazon", "PublicDnsName": site.public_name(public), "PublicIp": public}),
        );
        let mac = site.number("mac", &of).to_be_bytes().map(|byte| format!(":{byte:02x}"));
        json!(members(json!({
            "NetworkInterfaceId": site.id("eni", &of), "InterfaceType": "interface", "OwnerId": site.account,
            "Description": if is_primary { "Primary network interface" } else { "Service network" },
            "Attachment": {
                "AttachmentId": site.id("eni-attach", &of), "AttachTime": instant(self.interfaces[index]),
                "Status": if self.phase == Phase::Pending { "attaching" } else { "attached" },
                "DeleteOnTermination": is_primary, "DeviceIndex": index, "NetworkCardIndex": 0,
            },
            "Association": association, "Groups": self.groups(site), "MacAddress": format!("0a{}", mac[..5].concat()),
            "Ipv6Addresses": ipv6.iter().map(|ip| json!({"Ipv6Address": ip, "IsPrimaryIpv6": false})).collect::<Value>(),
            "PrivateDnsName": site.private_name(address), "PrivateIpAddress": address,
            "PrivateIpAddresses": [members(json!({
                "Association": association, "Primary": true,
                "PrivateDnsName": site.private_name(address), "PrivateIpAddress": address,
            }))],
            "Operator": {"Managed": false}, "SourceDestCheck": true, "Status": "in-use",
            "SubnetId": site.id("subnet", self.zone()), "VpcId": site.id("vpc", ""),
        })))
    }

    fn groups(&self, site: &Site) -> Value {
        self.groups.iter().map(|group| json!({"GroupId": site.id("sg", group), "GroupName": group})).collect()
    }

    fn zone(&self) -> u64 {
        self.serial % 3
    }

    fn private_ip(&self, site: &Site, interface: usize) -> Ipv4Addr {
        site.address(PRIVATE_NETWORK, 1 << 24, self.serial * 4 + interface as u64)
    }

    /// Another one after every start, and none in between.
    fn public_ip(&self, site: &Site) -> Option<Ipv4Addr> {
        let has_one = self.is(Trait::Public) && self.phase == Phase::Running;
        // The odd factor scatters them.
        has_one.then(|| site.address(PUBLIC_NETWORK, 1 << 17, (self.serial * 16 + self.restarts) * 40_503))
    }

    /// Only in the first zone; of the range for documentation.
    fn ipv6(&self, site: &Site) -> Option<String> {
        let host = site.number("ipv6", self.serial);
        let [a, b, c, d] = [48, 32, 16, 0].map(|bits| host >> bits & 0xFFFF);
        (self.zone() == 0).then(|| format!("2001:db8:{:x}:1:{a:x}:{b:x}:{c:x}:{d:x}", site.number("vpc", "") & 0xFFFF))
    }
}

/// The members of an object that have a value: what is not so in an instance, EC2 leaves out.
fn members(object: Value) -> Map<String, Value> {
    let Value::Object(mut members) = object else { return Map::new() };
    members.retain(|_, value| !value.is_null());
    members
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
