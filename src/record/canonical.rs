//! The one form of an instance: equal instances give equal bytes.
//!
//! EC2 returns the elements of a response, nested lists included, in any order, and does change it from call to call.
//! The mapper compares raw records by their bytes, so what is the same must be written the same: members in
//! alphabetical order, and lists in a fixed one, for none of them has an order that means anything to EC2. Where there
//! is an order that reads well, a list gets that one (see `key`); any other is sorted by what its elements look like in
//! JSON.
//!
//! Nothing is added or dropped, and nothing is taken for granted: records may come from a file that somebody has
//! edited.

use serde_json::{Map, Value};

mod instance;
mod node;
#[cfg(test)]
mod tests;

pub use instance::Instance;
pub use node::{Members, Name, Node, member, sort_by_name, to_map};

/// The value of the raw record: the canonical form as compact JSON. It depends neither on the order of the instance's
/// members nor on that of any list in it.
pub fn to_bytes(instance: Map<String, Value>) -> Vec<u8> {
    write(node::members_of(&instance))
}

/// The same, of an instance as it was decoded; members of one name are merged by now.
pub fn write(mut instance: Members<'_>) -> Vec<u8> {
    mask_state_code(&mut instance);
    let root_device = node::member(&instance, "RootDeviceName").and_then(Node::as_str).map(str::to_owned);
    sort_members(&mut instance, root_device.as_deref());
    let mut bytes = Vec::with_capacity(4096);
    node::write_members(&instance, &mut bytes);
    bytes.shrink_to_fit();
    bytes
}

/// EC2 uses the high byte for itself and asks that it be ignored.
fn mask_state_code(instance: &mut Members<'_>) {
    if let Some(Node::Object(state)) = node::member_mut(instance, "State")
        && let Some(Node::Number(code)) = node::member_mut(state, "Code")
        && let Some(number) = code.as_i64().or(code.as_u64().map(u64::cast_signed))
    {
        *code = (number & 0xFF).into();
    }
}

fn sort_members(members: &mut Members<'_>, root_device: Option<&str>) {
    node::sort_by_name(members);
    for (name, value) in members {
        match value {
            Node::List(list) => sort_list(list, name.known(), root_device),
            Node::Object(members) => sort_members(members, root_device),
            _ => {}
        }
    }
}

/// Sorts a list, by the key that goes with its name, and elements of the same key by their JSON; before that, all that
/// is in it.
fn sort_list(list: &mut [Node<'_>], name: &str, root_device: Option<&str>) {
    for element in list.iter_mut() {
        match element {
            Node::List(list) => sort_list(list, "", root_device),
            Node::Object(members) => sort_members(members, root_device),
            _ => {}
        }
    }
    if list.len() < 2 {
        return;
    }
    let order = |a: &Node<'_>, b: &Node<'_>| key(name, root_device, a).cmp(&key(name, root_device, b));
    list.sort_by(order);
    for same in list.chunk_by_mut(|a, b| order(a, b).is_eq()) {
        if same.len() > 1 {
            same.sort_by_cached_key(Node::to_json);
        }
    }
}

/// A part of a key. What is missing, or of a type that it should not be, comes last.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'v> {
    Number(i64),
    Text(&'v str),
    Missing,
}

/// What the elements of a list are ordered by: what EC2 tells them apart by, the main one first.
fn key<'v>(list: &str, root_device: Option<&str>, element: &'v Node<'_>) -> [Part<'v>; 3] {
    use Part::Missing;
    let text = |member| text(element, member);
    match list {
        "Tags" => [text("Key"), Missing, Missing],
        "SecurityGroups" | "Groups" => [text("GroupId"), text("GroupName"), Missing],
        "NetworkInterfaces" => {
            let card = number(element.get("Attachment"), "NetworkCardIndex");
            let device = number(element.get("Attachment"), "DeviceIndex");
            [card, device, text("NetworkInterfaceId")]
        }
        "BlockDeviceMappings" => {
            let is_root = root_device.is_some() && root_device == element.get("DeviceName").and_then(Node::as_str);
            [first(is_root), text("DeviceName"), Missing]
        }
        "PrivateIpAddresses" => {
            let is_primary = element.is_true("Primary");
            [first(is_primary), text("PrivateIpAddress"), Missing]
        }
        "Ipv6Addresses" => {
            let is_primary = element.is_true("IsPrimaryIpv6");
            [first(is_primary), text("Ipv6Address"), Missing]
        }
        _ => [Missing, Missing, Missing],
    }
}

fn text<'v>(element: &'v Node<'_>, member: &str) -> Part<'v> {
    element.get(member).and_then(Node::as_str).map_or(Part::Missing, Part::Text)
}

fn number<'v>(element: Option<&Node<'_>>, member: &str) -> Part<'v> {
    element.and_then(|element| element.get(member)?.as_i64()).map_or(Part::Missing, Part::Number)
}

fn first<'v>(is_first: bool) -> Part<'v> {
    if is_first { Part::Number(0) } else { Part::Missing }
}
