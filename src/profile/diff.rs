//! What differs between two devices, by the paths of the event.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Members that together tell the elements of a list apart, in the order in which they are tried.
pub type Identities = [&'static [&'static str]];

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

/// How deep objects are looked into by [`contrast`]: a device's members, and theirs.
const DEPTH: usize = 2;

/// Two devices in canonical JSON, without the members that are the same text in both. Most of a device is, and is not even
/// parsed then. Lists that differ stay whole. What is no JSON is null.
pub fn contrast(before: &str, after: &str) -> [Value; 2] {
    contrast_to(DEPTH, before, after)
}

fn contrast_to(depth: usize, before: &str, after: &str) -> [Value; 2] {
    let parsed = |json: &str| serde_json::from_str(json).unwrap_or_default();
    if depth == 0 {
        return [parsed(before), parsed(after)];
    }
    let members = |json| serde_json::from_str::<BTreeMap<Name<'_>, &RawValue>>(json).ok();
    let (Some(before_members), Some(mut after_members)) = (members(before), members(after)) else {
        return [parsed(before), parsed(after)];
    };
    let (mut old, mut new) = (Map::new(), Map::new());
    for (name, before) in before_members {
        let Some(after) = after_members.remove(&name) else {
            old.insert(name.0.into_owned(), parsed(before.get()));
            continue;
        };
        if before.get() != after.get() {
            let [before, after] = contrast_to(depth - 1, before.get(), after.get());
            old.insert(name.0.clone().into_owned(), before);
            new.insert(name.0.into_owned(), after);
        }
    }
    new.extend(after_members.into_iter().map(|(name, after)| (name.0.into_owned(), parsed(after.get()))));
    [old.into(), new.into()]
}

/// The name of a member, where it lies.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// All differences between two rendered devices, in the order of their paths, which begin with `root`.
pub fn diff(root: &str, identities: &Identities, before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare(root, identities, before, after, &mut changes);
    changes
}

/// The differences as `{path, from, to}`, as many as fit into `limit` bytes of JSON, and how many were left out.
pub fn entries(fields: &[FieldChange], limit: usize) -> Vec<Value> {
    let entries = fields.iter().map(|FieldChange { path, from, to }| json!({"path": path, "from": from, "to": to}));
    capped(entries, limit, |left_out| json!({"left_out": left_out}))
}

/// As many elements as fit into `limit` bytes of JSON, and where some do not, a note of how many.
pub fn capped(
    elements: impl ExactSizeIterator<Item = Value>,
    limit: usize,
    note: impl Fn(usize) -> Value,
) -> Vec<Value> {
    let total = elements.len();
    let mut size = 0;
    let mut kept: Vec<_> = elements
        .take_while(|element| {
            size += element.to_string().len() + 1;
            size <= limit
        })
        .collect();
    if kept.len() < total {
        kept.push(note(total - kept.len()));
    }
    kept
}

fn compare(path: &str, identities: &Identities, before: &Value, after: &Value, changes: &mut Vec<FieldChange>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => {
            let members: BTreeMap<_, _> = before.iter().chain(after).collect();
            for name in members.into_keys() {
                let [before, after] = [before, after].map(|object| object.get(name).unwrap_or(&Value::Null));
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(&path, identities, before, after, changes);
            }
        }
        (Value::Array(_), Value::Array(_)) | (Value::Array(_), Value::Null) | (Value::Null, Value::Array(_)) => {
            let named = identities.iter().find_map(|by| Some([by_identity(by, before)?, by_identity(by, after)?]));
            match named {
                Some([before, after]) => {
                    let elements: BTreeMap<_, _> = before.iter().chain(&after).collect();
                    for name in elements.into_keys() {
                        let [before, after] = [&before, &after].map(|list| *list.get(name).unwrap_or(&&Value::Null));
                        compare(&format!("{path}[{name}]"), identities, before, after, changes);
                    }
                }
                // Without identities only the list as a whole can be named.
                None => changes.push(change(path, before, after)),
            }
        }
        _ => changes.push(change(path, before, after)),
    }
}

fn change(path: &str, from: &Value, to: &Value) -> FieldChange {
    FieldChange { path: path.to_owned(), from: from.clone(), to: to.clone() }
}

/// The elements by what tells them apart, the first of which each must have; `None` where one has it not, or two have the
/// same.
fn by_identity<'v>(members: &[&str], list: &'v Value) -> Option<BTreeMap<String, &'v Value>> {
    let (first, others) = members.split_first()?;
    let elements = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut named = BTreeMap::new();
    for element in elements {
        let mut name = element.get(first)?.as_str()?.to_owned();
        for text in others.iter().filter_map(|member| element.get(member)?.as_str()) {
            name.push(' ');
            name.push_str(text);
        }
        named.insert(name, element);
    }
    (named.len() == elements.len()).then_some(named)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample;

    use super::*;
    use crate::profile::fold;

    const UID: &[&str] = &["uid"];
    const UID_AND_IP: &[&str] = &["uid", "ip"];
    const IDENTITIES: &Identities = &[UID, UID_AND_IP];

    fn paths(before: Value, after: Value) -> Vec<String> {
        diff("device", IDENTITIES, &before, &after).into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn equal_devices_do_not_differ() {
        assert!(paths(json!({"a": [{"uid": "x"}]}), json!({"a": [{"uid": "x"}]})).is_empty());
    }

    #[test]
    fn members_that_come_go_or_change_are_named_with_before_and_after() {
        let before = json!({"ip": "1", "os": {"name": "a"}, "x": 1});
        let changes = diff("device", &[], &before, &json!({"ip": "2", "os": {"name": "a"}, "y": 2}));
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
    fn elements_that_one_member_does_not_tell_apart_are_named_by_the_next_identity() {
        let before = json!({"n": [{"uid": "eni-1", "ip": "10.0.0.1"}]});
        let after = json!({"n": [{"uid": "eni-1", "ip": "10.0.0.1", "x": 1}, {"uid": "eni-1", "ip": "10.0.0.2"}]});
        assert_eq!(paths(before, after), ["device.n[eni-1 10.0.0.1].x", "device.n[eni-1 10.0.0.2]"]);
    }

    #[test]
    fn without_a_root_paths_begin_with_their_member() {
        assert_eq!(diff("", &[], &json!({"ip": 1}), &json!({"ip": 2}))[0].path, "ip");
    }

    /// What a device becomes when the changes are made to it, by their paths alone. Elements of lists are told apart `by` these.
    fn with_changes(by: &[&str], before: &Value, changes: &[FieldChange]) -> Value {
        let mut device = before.clone();
        for change in changes {
            set(by, &mut device, change.path.strip_prefix("device").unwrap(), &change.to);
        }
        device
    }

    fn set(by: &[&str], value: &mut Value, path: &str, to: &Value) {
        if path.is_empty() {
            *value = to.clone();
        } else if let Some(path) = path.strip_prefix('[') {
            let (name, rest) = path.split_once(']').unwrap();
            if value.is_null() {
                *value = json!([]);
            }
            let list = value.as_array_mut().unwrap();
            let named = |element: &Value| {
                let parts: Vec<_> = by.iter().filter_map(|member| element.get(member)?.as_str()).collect();
                parts.join(" ") == name
            };
            let mut element = list.iter().position(named).map_or(Value::Null, |at| list.remove(at));
            set(by, &mut element, rest, to);
            list.push(element);
        } else {
            let path = path.strip_prefix('.').unwrap();
            let end = path.find(['.', '[']).unwrap_or(path.len());
            set(by, &mut value[&path[..end]], &path[end..], to);
        }
    }

    /// Without what is absent, lists in one order: as far as devices are compared.
    fn essence(value: &Value) -> Value {
        match value {
            Value::Array(list) => {
                let mut list: Vec<_> = list.iter().filter(|element| !element.is_null()).map(essence).collect();
                list.sort_by_cached_key(Value::to_string);
                list.into()
            }
            Value::Object(members) => {
                let is_there = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
                let members = members.iter().map(|(name, value)| (name.clone(), essence(value)));
                members.filter(|(_, value)| is_there(value)).collect()
            }
            leaf => leaf.clone(),
        }
    }

    /// Lists of elements that have names, that have not, and that have the same.
    fn any_device() -> impl Strategy<Value = Value> {
        let word = || sample::select(["x", "y", "z"].as_slice()).prop_map(Value::from);
        let object =
            |value| btree_map(sample::select(["a", "b", "ip", "uid"].as_slice()).prop_map(str::to_owned), value, 0..4);
        let value = prop_oneof![word(), (0..3).prop_map(Value::from)].prop_recursive(3, 24, 4, move |inner| {
            let named = (word(), object(inner.clone().boxed())).prop_map(|(uid, mut members)| {
                members.insert("uid".to_owned(), uid);
                json!(members)
            });
            prop_oneof![
                object(inner.clone().boxed()).prop_map(|members| json!(members)),
                vec(named, 0..4).prop_map(Value::from),
                vec(inner, 0..3).prop_map(Value::from)
            ]
        });
        btree_map(sample::select(["a", "b", "c"].as_slice()).prop_map(str::to_owned), value, 0..4)
            .prop_map(|members| json!(members))
    }

    #[test]
    fn what_is_the_same_is_left_out_of_a_contrast_and_lists_that_differ_stay_whole() {
        let before = json!({"a": {"b": {"x": 1, "y": 1}, "same": 1}, "l": [1, 2], "gone": [], "same": [{"x": 1}]});
        let after = json!({"a": {"b": {"x": 2, "y": 1}, "same": 1}, "l": [1, 3], "new": null, "same": [{"x": 1}]});
        assert_eq!(
            contrast(&before.to_string(), &after.to_string()),
            [
                json!({"a": {"b": {"x": 1, "y": 1}}, "l": [1, 2], "gone": []}),
                json!({"a": {"b": {"x": 2, "y": 1}}, "l": [1, 3], "new": null})
            ]
        );
        assert_eq!(contrast("7", "{"), [json!(7), Value::Null]);
    }

    const QUIET: &[&[&str]] = &[&["a"], &["b", "a"], &["b", "ip", "uid"], &["c", "*", "b"]];

    proptest! {
        #[test]
        fn devices_are_equal_without_what_is_quiet_where_their_contrast_is(before in any_device(), after in any_device()) {
            let mut contrast = contrast(&before.to_string(), &after.to_string());
            let mut whole = [before, after];
            for device in whole.iter_mut().chain(&mut contrast) {
                fold::without(device, QUIET);
            }
            prop_assert_eq!(whole[0] == whole[1], contrast[0] == contrast[1], "{:?}", whole);
        }

        #[test]
        fn the_differences_make_the_one_device_the_other(before in any_device(), after in any_device()) {
            for by in [UID, UID_AND_IP] {
                let changes = diff("device", &[by], &before, &after);
                let [old, new] = contrast(&before.to_string(), &after.to_string());
                prop_assert_eq!(&diff("device", &[by], &old, &new), &changes);
                prop_assert_eq!(essence(&with_changes(by, &before, &changes)), essence(&after), "{:?}", changes);
                for change in changes {
                    prop_assert_ne!(change.from, change.to, "{}", change.path);
                }
            }
        }
    }
}
