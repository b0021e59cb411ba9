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

use serde::Serialize;
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// Brings an instance into its canonical form. The result depends neither on the order of its members nor on that of
/// any list in it.
pub fn canonicalise(instance: &mut Map<String, Value>) {
    mask_state_code(instance);
    let root_device = instance.get("RootDeviceName").cloned();
    sort_object(instance, root_device.as_ref().and_then(Value::as_str));
}

/// The value of the raw record: the canonical form as compact JSON.
pub fn to_bytes(mut instance: Map<String, Value>) -> Vec<u8> {
    canonicalise(&mut instance);
    to_json(&instance)
}

/// EC2 uses the high byte for itself and asks that it be ignored.
fn mask_state_code(instance: &mut Map<String, Value>) {
    if let Some(Value::Object(state)) = instance.get_mut("State")
        && let Some(Value::Number(code)) = state.get_mut("Code")
        && let Some(number) = code.as_i64().or(code.as_u64().map(u64::cast_signed))
    {
        *code = (number & 0xFF).into();
    }
}

fn sort_object(object: &mut Map<String, Value>, root_device: Option<&str>) {
    object.sort_keys(); // they are, unless a dependency turns on serde_json's `preserve_order`
    for (name, value) in object {
        sort_value(value, name, root_device);
    }
}

/// Sorts all that is in a value; if this is a list itself, then by the key that goes with its name, and elements of the
/// same key by their JSON.
fn sort_value(value: &mut Value, name: &str, root_device: Option<&str>) {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(object) => return sort_object(object, root_device),
        _ => return,
    };
    for element in list.iter_mut() {
        sort_value(element, "", root_device);
    }
    let order = |a: &Value, b: &Value| key(name, root_device, a).cmp(&key(name, root_device, b));
    list.sort_by(order);
    for same in list.chunk_by_mut(|a, b| order(a, b).is_eq()) {
        if same.len() > 1 {
            same.sort_by_cached_key(to_json);
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
fn key<'v>(list: &str, root_device: Option<&str>, element: &'v Value) -> [Part<'v>; 3] {
    use Part::Missing;
    let text = |member| text(element, member);
    match list {
        "Tags" => [text("Key"), Missing, Missing],
        "SecurityGroups" | "Groups" => [text("GroupId"), text("GroupName"), Missing],
        "NetworkInterfaces" => {
            let card = number(&element["Attachment"], "NetworkCardIndex");
            let device = number(&element["Attachment"], "DeviceIndex");
            [card, device, text("NetworkInterfaceId")]
        }
        "BlockDeviceMappings" => {
            let is_root = root_device.is_some_and(|name| element["DeviceName"] == *name);
            [first(is_root), text("DeviceName"), Missing]
        }
        "PrivateIpAddresses" => {
            let is_primary = element["Primary"] == true;
            [first(is_primary), text("PrivateIpAddress"), Missing]
        }
        "Ipv6Addresses" => {
            let is_primary = element["IsPrimaryIpv6"] == true;
            [first(is_primary), text("Ipv6Address"), Missing]
        }
        _ => [Missing, Missing, Missing],
    }
}

fn text<'v>(element: &'v Value, member: &str) -> Part<'v> {
    element[member].as_str().map_or(Part::Missing, Part::Text)
}

fn number<'v>(element: &Value, member: &str) -> Part<'v> {
    element[member].as_i64().map_or(Part::Missing, Part::Number)
}

fn first<'v>(is_first: bool) -> Part<'v> {
    if is_first { Part::Number(0) } else { Part::Missing }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = serde_json::to_writer(&mut bytes, value);
    debug_assert!(written.is_ok(), "a Vec takes any JSON");
    bytes
}
