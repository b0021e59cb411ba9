//! `unmapped`: what of the record has no home in OCSF, in snake case; and what happened to the device.

use std::iter;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::network::{self, NetworkInterface, Rejected};
use super::{Device, MAX_CHANGE_BYTES, hardware};
use crate::device::details::{Association, BlockDevice};
use crate::device::{Detail, Instance, Interface, Json, Member, Named, replaced, write_members};
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

/// In place of a member: it is not told, or elsewhere.
static NOTHING: Option<Json> = None;

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

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = self.unmapped.json(&text_of([(CHANGE, &self.change as _)]));
        if serializer.is_human_readable() {
            RawValue::from_string(json).map_err(S::Error::custom)?.serialize(serializer)
        } else {
            serializer.serialize_str(&json)
        }
    }
}

impl<'de> Deserialize<'de> for Unmapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|members| Self::of_map(&members))
    }
}

/// Members as they are written in an object.
fn text_of<'m>(members: impl IntoIterator<Item = Named<'m>>) -> String {
    let mut json = Vec::with_capacity(2048);
    write_members(&mut json, members);
    String::from_utf8(json).expect("JSON is UTF-8")
}

impl Unmapped {
    /// Of members in the order of their names.
    fn of<'m>(members: impl Iterator<Item = Named<'m>>) -> Self {
        let mut members = members.filter(|(name, _)| *name != CHANGE).peekable();
        Self { before: text_of(iter::from_fn(|| members.next_if(|(name, _)| *name < CHANGE))), after: text_of(members) }
    }

    fn of_map(members: &Map<String, Value>) -> Self {
        Self::of(members.iter().map(|(name, value)| (name.as_str(), value as _)))
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// The object.
    pub(super) fn to_json(&self) -> String {
        self.json("")
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

    pub(super) fn render(instance: &Instance<'_>, device: &Device, rejected: &Rejected) -> Self {
        let is_shown = hardware::cores(instance).is_some();
        let cpu_options = instance.cpu_options.known().and_then(|options| {
            let shown: Option<Named<'_>> = is_shown.then_some(("core_count", &NOTHING));
            Json::object(replaced(options.members(), shown))
        });
        // EC2 uses the high byte for itself.
        let state = instance.state.known().and_then(|state| {
            let code = state.code.known().map(|code| code & 0xFF);
            Json::object(replaced(state.members(), [("code", &code as _)]))
        });
        let (tags, volumes, interfaces, rejected) =
            (tags(instance), volumes(instance), interfaces(instance), rejected.detail());
        let placement = instance.placement.known().and_then(|placement| Json::object(placement.rest()));
        let Homeless { ipv6_address, private_dns_name, private_ip_address } = Homeless::of(instance, device);
        let others: [Named<'_>; 13] = [
            ("architecture", &instance.architecture),
            ("cpu_options", &cpu_options),
            ("iam_instance_profile", &instance.iam_instance_profile),
            ("ipv6_address", &ipv6_address),
            ("network_interfaces", &interfaces),
            ("placement", &placement),
            ("platform", &instance.platform),
            ("private_dns_name", &private_dns_name),
            ("private_ip_address", &private_ip_address),
            ("rejected", &rejected),
            ("state", &state),
            ("tags", &tags),
            ("volumes", &volumes),
        ];
        Self::of(replaced(instance.rest(), others))
    }

    pub(super) fn set_state(&mut self, name: &str, code: i64) {
        let mut members: Map<String, Value> = serde_json::from_str(&self.to_json()).unwrap_or_default();
        members.insert("state".to_owned(), json!({"code": code, "name": name}));
        *self = Self::of_map(&members);
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
struct Homeless<'d> {
    ipv6_address: Option<String>,
    private_dns_name: Option<&'d str>,
    private_ip_address: Option<String>,
}

impl<'d> Homeless<'d> {
    fn of(instance: &'d Instance<'_>, device: &Device) -> Self {
        let shows = |shown: &dyn Fn(&NetworkInterface) -> Option<&String>, own: Option<&String>, text: &str| {
            device.network_interfaces.iter().filter_map(shown).chain(own).any(|shown| shown == text)
        };
        let ip = |text: Option<&str>| {
            // What does not parse is among the rejected.
            let ip = text?.parse::<std::net::IpAddr>().ok()?.to_string();
            (!shows(&|entry| entry.ip.as_ref(), device.ip.as_ref(), &ip)).then_some(ip)
        };
        let is_homeless = |name: &&str| !shows(&|entry| entry.hostname.as_ref(), device.hostname.as_ref(), name);
        Self {
            ipv6_address: ip(instance.ipv6_address.text()),
            private_dns_name: instance.private_dns_name.text().filter(is_homeless),
            private_ip_address: ip(instance.private_ip_address.text()),
        }
    }
}

/// By key.
fn tags(instance: &Instance<'_>) -> Option<Json> {
    let mut tags: Vec<_> = instance.tags.items().map(|tag| (tag.key.text(), tag.value.text())).collect();
    tags.sort_unstable_by_key(|(key, value)| (key.is_none(), *key, *value));
    Json::list(tags.iter().filter_map(|(key, value)| Json::object([("name", key as _), ("value", value as _)])))
}

/// The root device first, then by name.
fn volumes(instance: &Instance<'_>) -> Option<Json> {
    let root = instance.root_device_name.text();
    let mut volumes: Vec<_> = instance
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
    let members = device.ebs.known().into_iter().flat_map(|volume| volume.members());
    Json::object(replaced(members, [("device_name", &device.device_name as _)]))
}

/// What of the interfaces OCSF's entries do not show.
fn interfaces(instance: &Instance<'_>) -> Option<Json> {
    Json::list(network::in_order(instance).into_iter().filter_map(interface))
}

fn interface(interface: &Interface<'_>) -> Option<Json> {
    let is_shown = interface.description.text().is_some_and(network::is_shown);
    let description: &dyn Detail = if is_shown { &NOTHING } else { &interface.description };
    let mut groups: Vec<_> = interface
        .groups
        .items()
        .filter_map(|group| Some((group.uid.text().is_none(), group.uid.text(), Json::of(group)?)))
        .collect();
    groups.sort_unstable();
    let groups = Json::list(groups.into_iter().map(|(.., group)| group));
    let addresses = addresses(interface);
    let uid: Named<'_> = ("uid", &interface.network_interface_id);
    let others: [Named<'_>; 11] = [
        ("addresses", &addresses),
        ("association", &NOTHING),
        ("description", description),
        ("groups", &groups),
        ("ipv6_addresses", &NOTHING),
        ("mac_address", &NOTHING),
        ("network_interface_id", &NOTHING),
        ("private_dns_name", &NOTHING),
        ("private_ip_address", &NOTHING),
        ("private_ip_addresses", &NOTHING),
        uid,
    ];
    // Without anything else there is nothing to tell.
    Json::object(replaced(interface.members(), others)).filter(|told| Json::object([uid]).as_ref() != Some(told))
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
            let told: [Named<'_>; 3] = [("ip", &ip), ("ip_owner_id", &owner), ("primary", &primary)];
            Some((primary != Some(true), Json::object(told)?))
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
            assert_eq!(unmapped.to_json(), members);
            let stamped = Stamped { unmapped: &unmapped, change: json!({}) };
            assert_eq!(serde_json::to_string(&stamped).unwrap(), with_change);
            assert_eq!(unmapped.is_empty(), members == "{}");
        }
    }
}
