//! Interfaces: one entry for each address, as OCSF's interface has one only.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::avro::by_place_and_back;
use crate::device::details::{Association, PrivateAddress};
use crate::device::{Instance, Interface, Json};

/// Entries of an instance, at most.
const MAX_ENTRIES: usize = 4096;
/// The longest text that is repeated in each entry of an interface, in bytes.
const MAX_REPEATED_BYTES: usize = 1024;
/// Addresses that are none, at most.
const MAX_REJECTED: usize = 256;

/// OCSF's `network_interface`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(missing_docs)]
pub struct NetworkInterface {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub type_id: i32,
}

by_place_and_back!(NetworkInterface { uid, name, mac, ip, hostname, kind, type_id });

/// Addresses that are none, by the member that has them: OCSF takes none such, but they tell something.
#[derive(Debug, Default)]
pub(super) struct Rejected(BTreeSet<(&'static str, String)>);

impl Rejected {
    /// The address in its one form.
    pub(super) fn ip(&mut self, field: &'static str, text: Option<&str>) -> Option<String> {
        let text = text?;
        match text.parse::<IpAddr>() {
            Ok(ip) => Some(ip.to_string()),
            Err(_) => {
                self.note(field, text);
                None
            }
        }
    }

    /// Six pairs of hexadecimal digits between colons or hyphens.
    pub(super) fn mac(&mut self, field: &'static str, text: Option<&str>) -> Option<String> {
        let text = text?;
        let is_mac = text.len() == 17
            && text.bytes().enumerate().all(|(index, byte)| match index % 3 {
                2 => byte == b':' || byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if !is_mac {
            self.note(field, text);
        }
        is_mac.then(|| text.to_owned())
    }

    fn note(&mut self, field: &'static str, text: &str) {
        self.0.insert((field, text.to_owned()));
        if self.0.len() > MAX_REJECTED {
            // The same ones are kept whatever the order.
            self.0.pop_last();
        }
    }

    /// `[{field, value}]`; `None` where there is none.
    pub(super) fn detail(&self) -> Option<Json> {
        let entry = |(field, value): &(&str, String)| Json::object([("field", field as _), ("value", value as _)]);
        Json::list(self.0.iter().filter_map(entry))
    }
}

/// Interfaces by (card, device index, ID), what is missing last.
pub(super) fn in_order<'d, 'a>(instance: &'d Instance<'a>) -> Vec<&'d Interface<'a>> {
    let mut interfaces: Vec<_> = instance.network_interfaces.items().collect();
    // Of two that are otherwise alike, the record's order must not decide.
    interfaces.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| Json::of(*a).cmp(&Json::of(*b))));
    interfaces
}

/// What interfaces are ordered by: card, device index and ID.
fn place<'d>(interface: &'d Interface<'_>) -> impl Ord + use<'d> {
    let attachment = interface.attachment.known();
    let card = attachment.and_then(|attachment| attachment.network_card_index.known());
    let device = attachment.and_then(|attachment| attachment.device_index.known());
    let id = interface.network_interface_id.text();
    ((card.is_none(), card), (device.is_none(), device), (id.is_none(), id))
}

/// An address and its name.
struct Address {
    ip: String,
    hostname: Option<String>,
}

/// The entries of all interfaces.
pub(super) fn entries(instance: &Instance<'_>, rejected: &mut Rejected) -> Vec<NetworkInterface> {
    in_order(instance).into_iter().flat_map(|interface| entries_of(interface, rejected)).take(MAX_ENTRIES).collect()
}

/// Whether a text is short enough to be repeated in each entry.
pub(super) fn is_shown(text: &str) -> bool {
    text.len() <= MAX_REPEATED_BYTES
}

fn entries_of(interface: &Interface<'_>, rejected: &mut Rejected) -> Vec<NetworkInterface> {
    let text = |member: Option<&str>| member.filter(|text| is_shown(text)).map(str::to_owned);
    let bare = NetworkInterface {
        uid: text(interface.network_interface_id.text()),
        name: text(interface.description.text()),
        mac: rejected.mac("network_interfaces.mac_address", interface.mac_address.text()),
        ip: None,
        hostname: None,
        kind: "Wired".to_owned(),
        type_id: 1,
    };
    let addresses = addresses(interface, rejected);
    if addresses.is_empty() {
        let entry = NetworkInterface { hostname: text(interface.private_dns_name.text()), ..bare };
        let is_told_apart = entry.uid.is_some() || entry.mac.is_some() || entry.hostname.is_some();
        return is_told_apart.then_some(entry).into_iter().collect();
    }
    let entry = |Address { ip, hostname }| NetworkInterface { ip: Some(ip), hostname, ..bare.clone() };
    addresses.into_iter().map(entry).collect()
}

/// Private ones, the primary one first, each followed by the public ones that lead to it; then IPv6.
fn addresses<'d>(interface: &'d Interface<'_>, rejected: &mut Rejected) -> Vec<Address> {
    let mut private: Vec<_> = interface.private_ip_addresses.items().collect();
    let place =
        |address: &&'d PrivateAddress<'_>| (address.primary.known() != Some(&true), address.private_ip_address.text());
    private.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| Json::of(*a).cmp(&Json::of(*b))));
    let own = rejected.ip("network_interfaces.private_ip_address", interface.private_ip_address.text());
    let is_listed = private.iter().any(|address| address.private_ip_address.text().is_some());
    let mut addresses = Addresses::default();
    if !is_listed {
        addresses.add(own.clone(), interface.private_dns_name.text());
    }
    for address in private {
        let field = "network_interfaces.private_ip_addresses.private_ip_address";
        addresses.add(rejected.ip(field, address.private_ip_address.text()), address.private_dns_name.text());
        addresses.add_public(address.association.known(), rejected);
    }
    // The list has them, or should.
    addresses.add(own, interface.private_dns_name.text());
    addresses.add_public(interface.association.known(), rejected);
    let mut ipv6: Vec<_> = interface.ipv6_addresses.items().collect();
    ipv6.sort_by_key(|address| (address.is_primary_ipv6.known() != Some(&true), address.ipv6_address.text()));
    for address in ipv6 {
        addresses.add(rejected.ip("network_interfaces.ipv6_addresses.ipv6_address", address.ipv6_address.text()), None);
    }
    addresses.listed
}

/// Each address once: an interface names its own again in its list.
#[derive(Default)]
struct Addresses {
    listed: Vec<Address>,
    known: BTreeSet<String>,
}

impl Addresses {
    fn add(&mut self, ip: Option<String>, hostname: Option<&str>) {
        let Some(ip) = ip.filter(|ip| self.known.insert(ip.clone())) else { return };
        self.listed.push(Address { ip, hostname: hostname.map(str::to_owned) });
    }

    fn add_public(&mut self, association: Option<&Association<'_>>, rejected: &mut Rejected) {
        let Some(association) = association else { return };
        let public = rejected.ip("network_interfaces.association.public_ip", association.public_ip.text());
        self.add(public, association.public_dns_name.text());
        let owned = association.customer_owned_ip.text();
        self.add(rejected.ip("network_interfaces.association.customer_owned_ip", owned), None);
        self.add(rejected.ip("network_interfaces.association.carrier_ip", association.carrier_ip.text()), None);
    }
}
