//! `unmapped`: what of the record has no home in OCSF, in snake case; and what happened to the device.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::network::{self, Rejected};
use super::{Device, MAX_CHANGE_BYTES, hardware};
use crate::device::details::{BlockDevice, Details, Interface};
use crate::device::{Detail as _, Reading};
use crate::profile::change::Occurrence;
use crate::profile::diff::entries;
use crate::profile::fold::Quiet;

/// What settles, or follows another change. Attach times, identities and options are not among them.
pub(super) const QUIET: &Quiet = &[
    &["unmapped", "state", "code"],
    &["unmapped", "state_reason"],
    &["unmapped", "state_transition_reason"],
    &["unmapped", "metadata_options", "state"],
    &["unmapped", "volumes", "*", "status"],
    &["unmapped", "network_interfaces", "*", "status"],
    &["unmapped", "network_interfaces", "*", "attachment", "status"],
    &["unmapped", "secondary_interfaces", "*", "status"],
    &["unmapped", "secondary_interfaces", "*", "attachment", "status"],
    &["unmapped", "usage_operation_update_time"],
    &["unmapped", "capacity_reservation_id"],
    &["unmapped", "capacity_reservation_specification"],
    &["unmapped", "placement", "host_id"],
    &["unmapped", "placement", "group_id"],
    &["unmapped", "placement", "group_name"],
];

/// OCSF's `unmapped`: an object in JSON; in Avro, whose types would have to be known, its canonical JSON as text.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Unmapped(Map<String, Value>);

impl Serialize for Unmapped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            serializer.serialize_str(&Value::Object(self.0.clone()).to_string())
        }
    }
}

impl Unmapped {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn render(reading: &Reading<'_>, device: &Device, rejected: Rejected) -> Self {
        let (instance, nothing) = (&reading.instance, Details::default());
        let details = reading.details.as_ref().unwrap_or(&nothing);
        let Some(Value::Object(mut members)) = details.detail().or_else(|| Some(json!({}))) else {
            return Self::default();
        };
        if hardware::cores(details).is_some() {
            drop_member(&mut members, "cpu_options", "core_count");
        }
        if let Some(code) = members.get_mut("state").and_then(|state| state.get_mut("code")) {
            // EC2 uses the high byte for itself.
            *code = code.as_i64().map_or(Value::Null, |number| (number & 0xFF).into());
        }
        members.remove("block_device_mappings");
        let replaced = [
            ("architecture", instance.architecture.detail()),
            ("platform", instance.platform.detail()),
            ("tags", tags(reading)),
            ("volumes", volumes(details)),
            ("network_interfaces", interfaces(details)),
            ("rejected", rejected.into_detail()),
        ];
        for (name, value) in replaced {
            match value {
                Some(value) => drop(members.insert(name.to_owned(), value)),
                None => drop(members.remove(name)),
            }
        }
        for (name, value) in homeless(reading, device) {
            members.insert(name.to_owned(), value.into());
        }
        Self(members)
    }

    pub(super) fn set_state(&mut self, name: &str, code: i64) {
        self.0.insert("state".to_owned(), json!({"code": code, "name": name}));
    }

    /// With `change`: what happened.
    pub(super) fn stamped(&self, occurrence: &Occurrence<'_>) -> Self {
        let mut change = Map::new();
        change.insert("kind".to_owned(), occurrence.change.name().into());
        if let Some(reason) = occurrence.change.reason() {
            change.insert("reason".to_owned(), reason.into());
        }
        if !occurrence.fields.is_empty() {
            change.insert("fields".to_owned(), entries(occurrence.fields, MAX_CHANGE_BYTES).into());
        }
        let mut members = self.0.clone();
        members.insert("change".to_owned(), change.into());
        Self(members)
    }
}

/// Makes of a word on the way the word that it leads to.
pub(super) fn settle(inventory: &mut Value) {
    let Some(state) = inventory.pointer_mut("/unmapped/monitoring/state") else { return };
    let settled = match state.as_str() {
        Some("pending") => "enabled",
        Some("disabling") => "disabled",
        _ => return,
    };
    *state = settled.into();
}

/// Removes a member of a member, and that where it has no other.
fn drop_member(members: &mut Map<String, Value>, object: &str, name: &str) {
    if let Some(Value::Object(inner)) = members.get_mut(object) {
        inner.remove(name);
        if inner.is_empty() {
            members.remove(object);
        }
    }
}

/// Names and addresses of the instance that neither the device nor its interfaces show.
fn homeless(reading: &Reading<'_>, device: &Device) -> Vec<(&'static str, String)> {
    let instance = &reading.instance;
    let interfaces = || device.network_interfaces.iter();
    let ips: BTreeSet<_> = interfaces().filter_map(|entry| entry.ip.as_deref()).chain(device.ip.as_deref()).collect();
    let names: BTreeSet<_> =
        interfaces().filter_map(|entry| entry.hostname.as_deref()).chain(device.hostname.as_deref()).collect();
    let mut found = Vec::new();
    for (name, text) in
        [("private_ip_address", instance.private_ip_address.text()), ("ipv6_address", instance.ipv6_address.text())]
    {
        // What does not parse is among the rejected.
        let ip = text.and_then(|text| text.parse::<std::net::IpAddr>().ok()).map(|ip| ip.to_string());
        found.extend(ip.filter(|ip| !ips.contains(ip.as_str())).map(|ip| (name, ip)));
    }
    let private = instance.private_dns_name.text().filter(|name| !names.contains(name));
    found.extend(private.map(|name| ("private_dns_name", name.to_owned())));
    found
}

/// By key.
fn tags(reading: &Reading<'_>) -> Option<Value> {
    let mut tags: Vec<_> = reading
        .instance
        .tags
        .items()
        .map(|tag| (tag.key.text(), tag.value.text()))
        .filter(|tag| *tag != (None, None))
        .collect();
    tags.sort_unstable_by_key(|(key, value)| (key.is_none(), *key, *value));
    let detail = |(key, value): (Option<&str>, Option<&str>)| {
        let members = [("name", key), ("value", value)];
        members.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?)))).collect::<Value>()
    };
    (!tags.is_empty()).then(|| tags.into_iter().map(detail).collect())
}

/// The root device first, then by name.
fn volumes(details: &Details<'_>) -> Option<Value> {
    let root = details.root_device_name.text();
    let mut devices: Vec<(&BlockDevice<'_>, Value)> =
        details.block_device_mappings.items().filter_map(|device| Some((device, volume(device)?))).collect();
    devices.sort_by_cached_key(|(device, volume)| {
        let name = device.device_name.text();
        let is_root = name.is_some() && name == root;
        (!is_root, name.is_none(), name.map(str::to_owned), volume.to_string())
    });
    (!devices.is_empty()).then(|| devices.into_iter().map(|(_, volume)| volume).collect())
}

fn volume(device: &BlockDevice<'_>) -> Option<Value> {
    let mut members = match device.ebs.detail() {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    if let Some(name) = device.device_name.detail() {
        members.insert("device_name".to_owned(), name);
    }
    (!members.is_empty()).then(|| members.into())
}

/// What of the interfaces OCSF's entries do not show.
fn interfaces(details: &Details<'_>) -> Option<Value> {
    let told: Vec<_> = network::in_order(details).into_iter().filter_map(interface).collect();
    (!told.is_empty()).then(|| told.into())
}

fn interface(interface: &Interface<'_>) -> Option<Value> {
    let Some(Value::Object(mut members)) = interface.detail() else { return None };
    if interface.description.text().is_some_and(network::is_shown) {
        members.remove("description");
    }
    for shown in ["mac_address", "private_dns_name", "private_ip_address", "private_ip_addresses"] {
        members.remove(shown);
    }
    for replaced in ["association", "ipv6_addresses", "network_interface_id"] {
        members.remove(replaced);
    }
    if let Some(Value::Array(groups)) = members.get_mut("groups") {
        let id = |group: &Value| group["uid"].as_str().map(str::to_owned);
        groups.sort_by_cached_key(|group| (id(group).is_none(), id(group), group.to_string()));
    }
    // Without anything else there is nothing to tell.
    if members.is_empty() && addresses(interface).is_none() {
        return None;
    }
    if let Some(uid) = interface.network_interface_id.detail() {
        members.insert("uid".to_owned(), uid);
    }
    if let Some(addresses) = addresses(interface) {
        members.insert("addresses".to_owned(), addresses);
    }
    Some(members.into())
}

/// Which addresses are primary ones, and who owns those that lead to them.
fn addresses(interface: &Interface<'_>) -> Option<Value> {
    let owner = |association: &crate::device::Member<crate::device::details::Association<'_>>| {
        association.known().and_then(|association| association.ip_owner_id.detail())
    };
    let private = interface.private_ip_addresses.items().map(|address| {
        [
            ("ip", address.private_ip_address.detail()),
            ("primary", address.primary.detail()),
            ("ip_owner_id", owner(&address.association)),
        ]
    });
    let own = [
        ("ip", interface.private_ip_address.detail()),
        ("primary", None),
        ("ip_owner_id", owner(&interface.association)),
    ];
    // The list says the same of the primary address.
    let own = interface.private_ip_addresses.known().is_none().then_some(own);
    let ipv6 = interface.ipv6_addresses.items().map(|address| {
        [("ip", address.ipv6_address.detail()), ("primary", address.is_primary_ipv6.detail()), ("ip_owner_id", None)]
    });
    let mut told: Vec<_> = private
        .chain(own)
        .chain(ipv6)
        .filter(|[_, primary, owner]| primary.1.is_some() || owner.1.is_some())
        .filter_map(crate::device::object_of)
        .collect();
    told.sort_by_cached_key(|address| (address["primary"] != true, address.to_string()));
    (!told.is_empty()).then(|| told.into())
}
