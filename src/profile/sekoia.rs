//! Profile `sekoia`: the same events as Sekoia's AWS devices connector (OCSF 1.6.0, class 5001).
//!
//! Authority: that product's documentation page, its mapping table before its sample; departures are listed in
//! `docs/mapping.md`. The shapes below are the event as it is written, member for member, in JSON and in Avro
//! (`schemas/sekoia.avsc`). An absent member is left out of JSON and null in Avro.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::TimeField;
use super::os::OsType;
use crate::avro::{by_place, by_place_and_back};
use crate::device::{AUTOSCALING_TAG, Instance, Interface, Member, NAME_TAG};

/// The event, around a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)] // The members are OCSF's; schemas/sekoia.avsc describes each.
pub struct Event<'a> {
    pub activity_id: i32,
    pub activity_name: &'static str,
    pub category_name: &'static str,
    pub category_uid: i32,
    pub class_name: &'static str,
    pub class_uid: i32,
    pub type_name: &'static str,
    pub type_uid: i64,
    pub severity: &'static str,
    pub severity_id: i32,
    /// Epoch seconds.
    pub time: i64,
    pub metadata: Metadata,
    pub device: &'a Device,
}

by_place!(Event<'_> {
    activity_id, activity_name, category_name, category_uid, class_name, class_uid, type_name, type_uid, severity,
    severity_id, time, metadata, device,
});

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Metadata {
    pub product: Product,
    pub version: &'static str,
}

by_place!(Metadata { product, version });

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Product {
    pub name: &'static str,
    pub version: &'static str,
}

by_place!(Product { name, version });

/// What the profile renders of an instance. A difference in here is a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Device {
    pub uid: String,
    pub name: String,
    pub hostname: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub type_id: i32,
    pub vendor_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The availability zone: that is what the page says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    pub is_managed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale_uid: Option<String>,
    /// ISO 8601, UTC, whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_time: Option<String>,
    /// Epoch seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
    pub os: Os,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<NetworkInterface>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<Organization>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
}

by_place_and_back!(Device {
    uid,
    name,
    hostname,
    kind,
    type_id,
    vendor_name,
    ip,
    model,
    image_id,
    state,
    region,
    subnet,
    domain,
    hypervisor,
    is_managed,
    autoscale_uid,
    boot_time,
    created_time,
    os,
    network_interfaces,
    groups,
    org,
    desc
});

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct NetworkInterface {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub type_id: i32,
}

by_place_and_back!(NetworkInterface { uid, name, ip, hostname, mac, kind, type_id });

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Group {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

by_place_and_back!(Group { uid, name });

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct Organization {
    pub uid: String,
    pub name: String,
}

by_place_and_back!(Organization { uid, name });

impl Device {
    /// Renders an instance. `uid` is its ID, `account` the account that was swept, for an instance that does not tell
    /// its owner.
    pub fn render(uid: &str, instance: &Instance<'_>, account: Option<&str>) -> Self {
        let launched = instance.launch_time.known();
        let state = instance.state_name();
        let image = instance.image_id.text();
        let text = |member: Option<&str>| member.map(str::to_owned);
        Self {
            uid: uid.to_owned(),
            name: instance.tag(NAME_TAG).unwrap_or(uid).to_owned(),
            hostname: instance.public_dns_name.text().or(instance.private_dns_name.text()).unwrap_or(uid).to_owned(),
            kind: "Server".to_owned(),
            type_id: 1,
            vendor_name: "Amazon Web Services".to_owned(),
            ip: text(
                (instance.public_ip_address.text().or(instance.private_ip_address.text()))
                    .or_else(|| instance.first_ipv6()),
            ),
            model: text(instance.instance_type.text()),
            image_id: text(image),
            state: text(state),
            region: text(instance.availability_zone()),
            subnet: text(instance.subnet_id.text()),
            domain: text(instance.vpc_id.text()),
            hypervisor: text(instance.hypervisor.text()),
            is_managed: instance.iam_instance_profile.known().is_some(),
            autoscale_uid: text(instance.tag(AUTOSCALING_TAG)),
            boot_time: launched.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)),
            created_time: instance.first_attach_time().or(launched).map(DateTime::timestamp),
            os: Os::of(instance),
            network_interfaces: instance.interfaces_in_order().into_iter().filter_map(NetworkInterface::of).collect(),
            groups: groups(instance),
            org: instance
                .account(account)
                .map(|account| Organization { uid: account.to_owned(), name: format!("AWS Account {account}") }),
            desc: describe(image, state),
        }
    }

    /// The same device in another state: how a terminated instance is reported, by its last known device.
    pub fn in_state(mut self, state: &str) -> Self {
        self.desc = describe(self.image_id.as_deref(), Some(state));
        self.state = Some(state.to_owned());
        self
    }

    /// The event that reports this device, as seen at `observed_at`.
    pub fn event(&self, observed_at: DateTime<Utc>, time: TimeField) -> Event<'_> {
        let launched = || {
            let boot_time = DateTime::parse_from_rfc3339(self.boot_time.as_deref()?).ok()?;
            Some(boot_time.timestamp())
        };
        let time = match time {
            TimeField::Launched => launched().or(self.created_time),
            TimeField::Observed => None,
        };
        Event {
            activity_id: 2,
            activity_name: "Collect",
            category_name: "Discovery",
            category_uid: 5,
            class_name: "Device Inventory Info",
            class_uid: 5001,
            type_name: "Device Inventory Info: Collect",
            type_uid: 500_102,
            severity: "Informational",
            severity_id: 1,
            time: time.unwrap_or(observed_at.timestamp()),
            metadata: Metadata { product: Product { name: "AWS EC2", version: "N/A" }, version: "1.6.0" },
            device: self,
        }
    }
}

/// Only the half that is known; `None` where neither is.
fn describe(image: Option<&str>, state: Option<&str>) -> Option<String> {
    match (image, state) {
        (Some(image), Some(state)) => Some(format!("AMI: {image}, State: {state}")),
        (Some(image), None) => Some(format!("AMI: {image}")),
        (None, Some(state)) => Some(format!("State: {state}")),
        (None, None) => None,
    }
}

fn groups(instance: &Instance<'_>) -> Vec<Group> {
    let mut groups: Vec<_> = instance
        .security_groups
        .items()
        .map(|group| Group {
            uid: group.group_id.text().map(str::to_owned),
            name: group.group_name.text().map(str::to_owned),
        })
        .filter(|group| group.uid.is_some() || group.name.is_some())
        .collect();
    groups.sort_by(|a, b| (a.uid.is_none(), a).cmp(&(b.uid.is_none(), b)));
    groups
}

impl NetworkInterface {
    /// `None` for an interface without anything that tells it from another.
    fn of(interface: &Interface<'_>) -> Option<Self> {
        let text = |member: &Member<_>| member.known().map(|text: &std::borrow::Cow<'_, str>| text.to_string());
        let rendered = Self {
            uid: text(&interface.network_interface_id),
            name: interface.description.text().unwrap_or("Primary network interface").to_owned(),
            ip: text(&interface.private_ip_address),
            hostname: text(&interface.private_dns_name),
            mac: text(&interface.mac_address),
            kind: "Wired".to_owned(),
            type_id: 1,
        };
        let telling = [&rendered.uid, &rendered.ip, &rendered.hostname, &rendered.mac];
        telling.iter().any(|member| member.is_some()).then_some(rendered)
    }
}

impl Os {
    fn of(instance: &Instance<'_>) -> Self {
        let os = OsType::of(instance);
        Self {
            name: instance.platform_details.text().unwrap_or("Unknown").to_owned(),
            kind: os.caption().to_owned(),
            type_id: os.id(),
        }
    }
}
