//! What an operator does not want events about: fields, and tags that change all the time. Like what settles, they never
//! make an event alone, and their values ride on the next.

use serde_json::Value;
use wildmatch::WildMatch;

use super::fold;

/// Fields and tags that never make an event alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    written: Vec<String>,
    fields: Vec<Vec<String>>,
    tags: Vec<String>,
}

impl Ignore {
    /// Paths as `changed` has them, with `[]` for any element of a list, as in `device.network_interfaces[].hostname`;
    /// and patterns of tag keys with `*` and `?`.
    ///
    /// # Errors
    /// With the first path that is none.
    pub fn new(fields: &[String], tags: &[String]) -> Result<Self, String> {
        let parsed = fields.iter().map(|path| parts(path).ok_or_else(|| path.clone())).collect::<Result<_, _>>()?;
        let written = fields.iter().map(|path| format!("field {path}"));
        let written = written.chain(tags.iter().map(|tag| format!("tag {tag}"))).collect();
        Ok(Self { written, fields: parsed, tags: tags.to_vec() })
    }

    /// What is ignored, as it was written; for what must change with it.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Takes it out of a device whose paths begin with `root`.
    pub(super) fn fold(&self, root: &str, device: &mut Value) {
        for path in &self.fields {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            match path.split_first() {
                Some((first, rest)) if *first == root => fold::remove(device, rest),
                _ if root.is_empty() => fold::remove(device, &path),
                _ => {}
            }
        }
        if let Some(Value::Array(tags)) = device.pointer_mut("/unmapped/tags") {
            let patterns: Vec<_> = self.tags.iter().map(|pattern| WildMatch::new(pattern)).collect();
            tags.retain(|tag| !tag["name"].as_str().is_some_and(|name| patterns.iter().any(|p| p.matches(name))));
            if tags.is_empty() {
                fold::remove(device, &["unmapped", "tags"]);
            }
        }
    }
}

fn parts(path: &str) -> Option<Vec<String>> {
    let spread = path.replace("[]", ".*");
    let parts: Vec<_> = spread.split('.').map(str::to_owned).collect();
    let is_name = |part: &String| part == "*" || (!part.is_empty() && !part.contains(['[', ']', '*', ' ']));
    (parts.len() > 1 || !parts[0].is_empty()).then_some(parts).filter(|parts| parts.iter().all(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folded(root: &str, fields: &[&str], tags: &[&str], mut device: Value) -> Value {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Ignore::new(&owned(fields), &owned(tags)).unwrap().fold(root, &mut device);
        device
    }

    #[test]
    fn fields_are_named_as_changes_are() {
        let device = || json!({"ip": "1", "l": [{"a": 1, "b": 2}]});
        assert_eq!(folded("device", &["device.ip", "device.l[].a", "ip"], &[], device()), json!({"l": [{"b": 2}]}));
        assert_eq!(folded("", &["ip"], &[], device()), json!({"l": [{"a": 1, "b": 2}]}));
    }

    #[test]
    fn tags_are_named_by_patterns_of_their_keys() {
        let device = |names: &[&str]| {
            let tags: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"unmapped": {"tags": tags, "x": 1}})
        };
        assert_eq!(folded("", &[], &["heart*", "b?t"], device(&["a", "heartbeat", "bat"])), device(&["a"]));
        assert_eq!(folded("", &[], &["*"], device(&["a"])), json!({"unmapped": {"x": 1}}));
    }

    #[test]
    fn what_is_no_path_is_refused_by_itself() {
        for path in ["", "device.", ".ip", "device.groups[sg-1]", "a b"] {
            assert_eq!(Ignore::new(&[path.to_owned()], &[]), Err(path.to_owned()));
        }
    }
}
