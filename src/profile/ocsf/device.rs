//! The device: OCSF's `device`, with what it embeds.

use serde::{Deserialize, Serialize};

use super::hardware::HwInfo;
use super::instant::Instant;
use super::network::{self, NetworkInterface, Rejected};
use crate::avro::{by_place_and_back, null_if_empty};
use crate::device::{AUTOSCALING_TAG, Instance, NAME_TAG, region_in};
use crate::profile::change::Occurrence;
use crate::profile::os::OsType;
use crate::record::aws_partition_of;

/// OCSF's `device`. The times of its life are stamped on it when it is reported, and absent in what is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    pub type_id: i32,
    pub uid: String,
    pub instance_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_alt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<NetworkInterface>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    pub vendor_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw_info: Option<HwInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_time_dt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time_dt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_time_dt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_time_dt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_time_dt: Option<String>,
}

by_place_and_back!(Device {
    kind, type_id, uid, instance_uid, uid_alt, name, hostname, ip, mac, interface_uid,
    network_interfaces as null_if_empty, groups as null_if_empty, region, subnet_uid, vpc_uid, image, model,
    hypervisor, vendor_name, autoscale_uid, os, hw_info, boot_time, boot_time_dt, created_time, created_time_dt,
    first_seen_time, first_seen_time_dt, last_seen_time, last_seen_time_dt, modified_time, modified_time_dt,
});

/// OCSF's `group`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Group {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
}

by_place_and_back!(Group { uid, name, kind });

/// OCSF's `image`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Image {
    pub uid: String,
}

/// OCSF's `os`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Os {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub type_id: i32,
}

by_place_and_back!(Os { name, kind, type_id });

impl Device {
    pub(super) fn render(
        uid: &str,
        instance: &Instance<'_>,
        region: Option<&str>,
        arn: Option<String>,
        rejected: &mut Rejected,
    ) -> Self {
        let text = |member: Option<&str>| member.map(str::to_owned);
        let public = rejected.ip("public_ip_address", instance.public_ip_address.text());
        let private = rejected.ip("private_ip_address", instance.private_ip_address.text());
        let ipv6 = rejected.ip("ipv6_address", instance.first_ipv6());
        let primary = network::in_order(instance).into_iter().next();
        let model = instance.instance_type.text();
        let is_metal = model.is_some_and(|model| model.contains(".metal"));
        let boot_time = instance.launch_time.known().and_then(Instant::of);
        let created_time = created_time(instance);
        Self {
            kind: if is_metal { "Server" } else { "Virtual" }.to_owned(),
            type_id: if is_metal { 1 } else { 6 },
            uid: uid.to_owned(),
            instance_uid: uid.to_owned(),
            uid_alt: arn,
            name: text(instance.tag(NAME_TAG)),
            hostname: text(instance.public_dns_name.text().or(instance.private_dns_name.text())),
            ip: public.or(private).or(ipv6),
            mac: rejected
                .mac("network_interfaces.mac_address", primary.and_then(|interface| interface.mac_address.text())),
            interface_uid: text(primary.and_then(|interface| interface.network_interface_id.text())),
            network_interfaces: network::entries(instance, rejected),
            groups: groups(instance),
            region: text(region),
            subnet_uid: text(instance.subnet_id.text()),
            vpc_uid: text(instance.vpc_id.text()),
            image: instance.image_id.text().map(|uid| Image { uid: uid.to_owned() }),
            model: text(model),
            hypervisor: text(instance.hypervisor.text()),
            vendor_name: "Amazon Web Services".to_owned(),
            autoscale_uid: text(instance.tag(AUTOSCALING_TAG)),
            os: Os::of(instance),
            hw_info: HwInfo::of(instance),
            boot_time: boot_time.map(Instant::ms),
            boot_time_dt: boot_time.map(Instant::dt),
            created_time: created_time.map(Instant::ms),
            created_time_dt: created_time.map(Instant::dt),
            first_seen_time: None,
            first_seen_time_dt: None,
            last_seen_time: None,
            last_seen_time_dt: None,
            modified_time: None,
            modified_time_dt: None,
        }
    }

    /// Stamps the times of its life.
    pub(super) fn stamp(&mut self, occurrence: &Occurrence<'_>) {
        let [first_seen, last_seen, modified] =
            [occurrence.first_seen, occurrence.last_seen, occurrence.last_change].map(Instant::clamped);
        self.first_seen_time = Some(first_seen.ms());
        self.first_seen_time_dt = Some(first_seen.dt());
        self.last_seen_time = Some(last_seen.ms());
        self.last_seen_time_dt = Some(last_seen.dt());
        self.modified_time = Some(modified.ms());
        self.modified_time_dt = Some(modified.dt());
    }
}

/// The partition of what is a region by its name.
pub(super) fn partition_of(region: &str) -> Option<&'static str> {
    (region_in(region) == Some(region)).then(|| aws_partition_of(region))
}

/// When the primary interface was attached, which stays for life; else the root volume; else the launch.
fn created_time(instance: &Instance<'_>) -> Option<Instant> {
    let interface = || {
        let primary = network::in_order(instance).into_iter().next()?;
        primary.attachment.known()?.attach_time.known().and_then(Instant::of)
    };
    let root = || {
        let name = instance.root_device_name.text()?;
        let volumes = instance.block_device_mappings.items().filter(|device| device.device_name.text() == Some(name));
        volumes.filter_map(|device| device.ebs.known()?.attach_time.known()).min().and_then(Instant::of)
    };
    interface().or_else(root).or_else(|| instance.launch_time.known().and_then(Instant::of))
}

fn groups(instance: &Instance<'_>) -> Vec<Group> {
    let text = |member: Option<&str>| member.map(str::to_owned);
    let mut groups: Vec<_> = instance
        .security_groups
        .items()
        .map(|group| Group {
            uid: text(group.group_id.text()),
            name: text(group.group_name.text()),
            kind: "AWS EC2 Security Group".to_owned(),
        })
        .filter(|group| group.uid.is_some() || group.name.is_some())
        .collect();
    groups.sort_by(|a, b| (a.uid.is_none(), a).cmp(&(b.uid.is_none(), b)));
    groups
}

impl Os {
    /// `None` where nothing tells.
    fn of(instance: &Instance<'_>) -> Option<Self> {
        let os = OsType::of(instance);
        let (name, kind, type_id) = match (instance.platform_details.text(), os) {
            (None, OsType::Unknown) => return None,
            (None, known) => (known.caption(), known.caption(), known.id()),
            // OCSF's own word for 99 may not stand for a source's word.
            (Some("Other"), OsType::Unknown) => ("Other", os.caption(), os.id()),
            (Some(name), OsType::Unknown) => (name, name, 99),
            (Some(name), known) => (name, known.caption(), known.id()),
        };
        Some(Self { name: name.to_owned(), kind: kind.to_owned(), type_id })
    }
}
