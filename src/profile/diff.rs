//! What differs between two devices, by the paths of the event.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Where every path begins.
const ROOT: &str = "device";

/// Paths that never make an event alone: they follow other changes, or move without one.
const QUIET: [&str; 1] = ["device.created_time"];

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// As in `device.ip`, or `device.groups[sg-1]` for an element of a list, which is named by its `uid`.
    pub path: String,
    /// Before; null where it was absent.
    pub from: Value,
    /// After; null where it is absent.
    pub to: Value,
}

impl FieldChange {
    /// Whether this difference may be an event by itself.
    pub fn is_loud(&self) -> bool {
        !QUIET.contains(&self.path.as_str())
    }
}

/// All differences between two rendered devices, in the order of their paths.
pub fn diff(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare(ROOT, before, after, &mut changes);
    changes
}

fn compare(path: &str, before: &Value, after: &Value, changes: &mut Vec<FieldChange>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => {
            let members: BTreeMap<_, _> = before.iter().chain(after).collect();
            for name in members.into_keys() {
                let of = |object: &serde_json::Map<_, _>| object.get(name).cloned().unwrap_or_default();
                compare(&format!("{path}.{name}"), &of(before), &of(after), changes);
            }
        }
        (Value::Array(_), Value::Array(_)) | (Value::Array(_), Value::Null) | (Value::Null, Value::Array(_)) => {
            match (by_identity(before), by_identity(after)) {
                (Some(before), Some(after)) => {
                    let elements: BTreeMap<_, _> = before.iter().chain(&after).collect();
                    for uid in elements.into_keys() {
                        let of = |list: &BTreeMap<&str, &Value>| list.get(uid).copied().cloned().unwrap_or_default();
                        compare(&format!("{path}[{uid}]"), &of(&before), &of(&after), changes);
                    }
                }
                // Without identities only the list as a whole can be named.
                _ => changes.push(change(path, before, after)),
            }
        }
        _ => changes.push(change(path, before, after)),
    }
}

fn change(path: &str, from: &Value, to: &Value) -> FieldChange {
    FieldChange { path: path.to_owned(), from: from.clone(), to: to.clone() }
}

/// The elements by their `uid`; `None` where one has none, or two have the same.
fn by_identity(list: &Value) -> Option<BTreeMap<&str, &Value>> {
    let elements = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let named: BTreeMap<_, _> =
        elements.iter().filter_map(|element| Some((element.get("uid")?.as_str()?, element))).collect();
    (named.len() == elements.len()).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(before: Value, after: Value) -> Vec<String> {
        diff(&before, &after).into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn equal_devices_do_not_differ() {
        assert!(diff(&json!({"a": [{"uid": "x"}]}), &json!({"a": [{"uid": "x"}]})).is_empty());
    }

    #[test]
    fn members_that_come_go_or_change_are_named_with_before_and_after() {
        let changes =
            diff(&json!({"ip": "1", "os": {"name": "a"}, "x": 1}), &json!({"ip": "2", "os": {"name": "a"}, "y": 2}));
        assert_eq!(
            serde_json::to_value(changes).unwrap(),
            json!([
                {"path": "device.ip", "from": "1", "to": "2"},
                {"path": "device.x", "from": 1, "to": null},
                {"path": "device.y", "from": null, "to": 2},
            ])
        );
    }

    #[test]
    fn list_elements_are_named_by_identity_not_by_index() {
        let before = json!({"groups": [{"uid": "sg-1", "name": "a"}, {"uid": "sg-2", "name": "b"}]});
        let after = json!({"groups": [{"uid": "sg-0", "name": "n"}, {"uid": "sg-2", "name": "c"}]});
        assert_eq!(paths(before, after), ["device.groups[sg-0]", "device.groups[sg-1]", "device.groups[sg-2].name"]);
    }

    #[test]
    fn a_list_that_appears_or_goes_is_its_elements() {
        assert_eq!(paths(json!({}), json!({"groups": [{"uid": "sg-1"}]})), ["device.groups[sg-1]"]);
        assert_eq!(paths(json!({"groups": [{"uid": "sg-1"}]}), json!({})), ["device.groups[sg-1]"]);
    }

    #[test]
    fn a_list_without_identities_differs_as_a_whole() {
        assert_eq!(paths(json!({"groups": [{"name": "a"}]}), json!({"groups": [{"name": "b"}]})), ["device.groups"]);
        assert_eq!(
            paths(json!({"g": [{"uid": "x", "n": 1}, {"uid": "x", "n": 2}]}), json!({"g": [{"uid": "x", "n": 1}]})),
            ["device.g"]
        );
    }

    #[test]
    fn created_time_is_quiet() {
        let changes = diff(&json!({"created_time": 1, "ip": "a"}), &json!({"created_time": 2, "ip": "b"}));
        let loud: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.is_loud())).collect();
        assert_eq!(loud, [("device.created_time", false), ("device.ip", true)]);
    }
}
