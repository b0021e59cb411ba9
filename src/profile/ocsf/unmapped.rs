//! `unmapped`: what of the record has no home in OCSF, in snake case; and what happened to the device.

use std::collections::BTreeSet;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::network::{self, Rejected};
use super::{Device, MAX_CHANGE_BYTES, hardware};
use crate::device::details::{Association, BlockDevice, Details, Interface};
use crate::device::{Detail, Json, Member, Members, Reading, write_members};
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

/// The member that tells what happened.
const CHANGE: &str = "change";

/// OCSF's `unmapped`: an object in JSON; in Avro, whose types would have to be known, its canonical JSON as text. It is
/// kept as that text: its members whose names precede `change`, and those that follow it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unmapped {
    before: String,
    after: String,
}

/// An [`Unmapped`] with `change`: what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped<'a> {
    unmapped: &'a Unmapped,
    change: Value,
}

impl Serialize for Unmapped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.json(""), serializer)
    }
}

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.unmapped.json(&text_of([(CHANGE, &self.change as &dyn Detail)])), serializer)
    }
}

fn serialize<S: Serializer>(json: String, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        RawValue::from_string(json).map_err(S::Error::custom)?.serialize(serializer)
    } else {
        serializer.serialize_str(&json)
    }
}

impl<'de> Deserialize<'de> for Unmapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        Ok(Self::of(members.iter().map(|(name, value)| (name.as_str(), value as &dyn Detail)).collect()))
    }
}

/// Members as they are written in an object.
fn text_of<'m>(members: impl IntoIterator<Item = (&'m str, &'m dyn Detail)>) -> String {
    let mut json = Vec::with_capacity(2048);
    write_members(&mut json, members);
    String::from_utf8(json).expect("JSON is UTF-8")
}

impl Unmapped {
    fn of(mut members: Members<'_>) -> Self {
        members.remove(CHANGE);
        let after = members.split_off(CHANGE);
        Self { before: text_of(members), after: text_of(after) }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// The object, with that member.
    fn json(&self, change: &str) -> String {
        let mut json = String::with_capacity(self.before.len() + change.len() + self.after.len() + 4);
        json.push('{');
        for members in [&self.before, change, &self.after] {
            if json.len() > 1 && !members.is_empty() {
                json.push(',');
            }
            json.push_str(members);
        }
        json.push('}');
        json
    }

    pub(super) fn render(reading: &Reading<'_>, device: &Device, rejected: &Rejected) -> Self {
        let (instance, nothing) = (&reading.instance, Details::default());
        let details = reading.details.as_ref().unwrap_or(&nothing);
        let mut members: Members<'_> = details.members().collect();
        members.remove("block_device_mappings");
        let mut cpu_options: Option<Members<'_>> = details.cpu_options.known().map(|it| it.members().collect());
        if let Some(options) = cpu_options.as_mut().filter(|_| hardware::cores(details).is_some()) {
            options.remove("core_count");
        }
        // EC2 uses the high byte for itself.
        let code = details.state.known().and_then(|state| state.code.known()).map(|code| code & 0xFF);
        let mut state: Option<Members<'_>> = details.state.known().map(|state| state.members().collect());
        if let Some(state) = &mut state {
            state.insert("code", &code);
        }
        let (tags, volumes, interfaces, rejected) =
            (tags(reading), volumes(details), interfaces(details), rejected.detail());
        let homeless = homeless(reading, device);
        let replaced: [(&str, &dyn Detail); 8] = [
            ("architecture", &instance.architecture),
            ("cpu_options", &cpu_options),
            ("network_interfaces", &interfaces),
            ("platform", &instance.platform),
            ("rejected", &rejected),
            ("state", &state),
            ("tags", &tags),
            ("volumes", &volumes),
        ];
        members.extend(replaced);
        members.extend(homeless.iter().map(|(name, text)| (*name, text as &dyn Detail)));
        Self::of(members)
    }

    pub(super) fn set_state(&mut self, name: &str, code: i64) {
        let mut members: Map<String, Value> = serde_json::from_str(&self.json("")).unwrap_or_default();
        members.insert("state".to_owned(), json!({"code": code, "name": name}));
        *self = Self::of(members.iter().map(|(name, value)| (name.as_str(), value as &dyn Detail)).collect());
    }

    pub(super) fn stamped(&self, occurrence: &Occurrence<'_>) -> Stamped<'_> {
        let mut change = Map::new();
        change.insert("kind".to_owned(), occurrence.change.name().into());
        if let Some(reason) = occurrence.change.reason() {
            change.insert("reason".to_owned(), reason.into());
        }
        if !occurrence.fields.is_empty() {
            change.insert("fields".to_owned(), entries(occurrence.fields, MAX_CHANGE_BYTES).into());
        }
        Stamped { unmapped: self, change: change.into() }
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
fn tags(reading: &Reading<'_>) -> Option<Json> {
    let mut tags: Vec<_> = reading.instance.tags.items().map(|tag| (tag.key.text(), tag.value.text())).collect();
    tags.sort_unstable_by_key(|(key, value)| (key.is_none(), *key, *value));
    Json::list(tags.iter().filter_map(|(key, value)| Json::of(&[("name", key as &dyn Detail), ("value", value)])))
}

/// The root device first, then by name.
fn volumes(details: &Details<'_>) -> Option<Json> {
    let root = details.root_device_name.text();
    let mut volumes: Vec<_> = details
        .block_device_mappings
        .items()
        .filter_map(|device| {
            let name = device.device_name.text();
            let is_root = name.is_some() && name == root;
            Some((!is_root, name.is_none(), name, volume(device)?))
        })
        .collect();
    volumes.sort_unstable();
    Json::list(volumes.into_iter().map(|(.., volume)| volume))
}

fn volume(device: &BlockDevice<'_>) -> Option<Json> {
    let mut members: Members<'_> = device.ebs.known().into_iter().flat_map(|volume| volume.members()).collect();
    members.insert("device_name", &device.device_name);
    Json::of(&members)
}

/// What of the interfaces OCSF's entries do not show.
fn interfaces(details: &Details<'_>) -> Option<Json> {
    Json::list(network::in_order(details).into_iter().filter_map(interface))
}

fn interface(interface: &Interface<'_>) -> Option<Json> {
    let mut members: Members<'_> = interface.members().collect();
    if interface.description.text().is_some_and(network::is_shown) {
        members.remove("description");
    }
    for shown in ["mac_address", "private_dns_name", "private_ip_address", "private_ip_addresses"] {
        members.remove(shown);
    }
    for replaced in ["association", "ipv6_addresses", "network_interface_id"] {
        members.remove(replaced);
    }
    let mut groups: Vec<_> = interface
        .groups
        .items()
        .filter_map(|group| Some((group.uid.text().is_none(), group.uid.text(), Json::of(group)?)))
        .collect();
    groups.sort_unstable();
    let groups = Json::list(groups.into_iter().map(|(.., group)| group));
    let addresses = addresses(interface);
    let uid = &interface.network_interface_id;
    let others: [(&str, &dyn Detail); 3] = [("addresses", &addresses), ("groups", &groups), ("uid", uid)];
    members.extend(others);
    // Without anything else there is nothing to tell.
    Json::of(&members).filter(|told| Json::of(&[("uid", uid as &dyn Detail)]).as_ref() != Some(told))
}

/// Which addresses are primary ones, and who owns those that lead to them.
fn addresses(interface: &Interface<'_>) -> Option<Json> {
    let private = interface.private_ip_addresses.items().map(|address| {
        (address.private_ip_address.text(), address.primary.known().copied(), owner(&address.association))
    });
    // The list says the same of the primary address.
    let is_listed = interface.private_ip_addresses.known().is_some();
    let own = (interface.private_ip_address.text(), None, owner(&interface.association));
    let ipv6 = interface
        .ipv6_addresses
        .items()
        .map(|address| (address.ipv6_address.text(), address.is_primary_ipv6.known().copied(), None));
    let mut told: Vec<_> = private
        .chain((!is_listed).then_some(own))
        .chain(ipv6)
        .filter(|(_, primary, owner)| primary.is_some() || owner.is_some())
        .filter_map(|(ip, primary, owner)| {
            let told: [(&str, &dyn Detail); 3] = [("ip", &ip), ("ip_owner_id", &owner), ("primary", &primary)];
            Some((primary != Some(true), Json::of(&told)?))
        })
        .collect();
    told.sort_unstable();
    Json::list(told.into_iter().map(|(_, address)| address))
}

fn owner<'d>(association: &'d Member<Association<'_>>) -> Option<&'d str> {
    association.known()?.ip_owner_id.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_stands_among_the_members_by_its_name() {
        for (members, with_change) in [
            (r"{}", r#"{"change":{}}"#),
            (r#"{"a":1}"#, r#"{"a":1,"change":{}}"#),
            (r#"{"d":1}"#, r#"{"change":{},"d":1}"#),
            (r#"{"a":1,"b":[],"d":1,"e":"\n"}"#, r#"{"a":1,"b":[],"change":{},"d":1,"e":"\n"}"#),
        ] {
            let unmapped: Unmapped = serde_json::from_str(members).unwrap();
            assert_eq!(serde_json::to_string(&unmapped).unwrap(), members);
            let stamped = Stamped { unmapped: &unmapped, change: json!({}) };
            assert_eq!(serde_json::to_string(&stamped).unwrap(), with_change);
            assert_eq!(unmapped.is_empty(), members == "{}");
        }
    }
}
