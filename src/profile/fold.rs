//! What never makes an event alone: members that follow other changes, or move without one. The compared form of a
//! device is the emitted one without them; their values ride on the next event.

use serde_json::Value;

/// A member by the names that lead to it; `*` is any element of a list.
pub type Quiet = [&'static [&'static str]];

/// Takes the members out of `value`, and what is empty without them.
pub fn without(value: &mut Value, quiet: &Quiet) {
    for path in quiet {
        remove(value, path);
    }
}

/// Takes out one member.
pub fn remove(value: &mut Value, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    match value {
        Value::Array(elements) if *first == "*" => elements.iter_mut().for_each(|element| remove(element, rest)),
        Value::Object(members) if rest.is_empty() => drop(members.remove(*first)),
        Value::Object(members) => {
            let Some(member) = members.get_mut(*first) else { return };
            remove(member, rest);
            // An object of nothing but quiet members may come and go.
            if member.as_object().is_some_and(serde_json::Map::is_empty) {
                members.remove(*first);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quiet_members_are_taken_out_wherever_they_lie() {
        let mut value =
            json!({"a": {"x": 1, "y": 2}, "b": {"x": 1}, "l": [{"s": {"x": 1}}, {"k": 1, "s": {"x": 2}}, 7]});
        without(&mut value, &[&["a", "x"], &["b", "x"], &["l", "*", "s", "x"], &["none", "x"], &["a", "y", "z"]]);
        assert_eq!(value, json!({"a": {"y": 2}, "l": [{}, {"k": 1}, 7]}));
    }
}
