//! OCSF's own schema, and what of its recommended attributes an event leaves out. `tests/data/ocsf/README.md` tells more.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// As the package gives it.
static OFFICIAL: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::validator_for(&parsed(include_str!("../data/ocsf/inventory_info-1.6.0.schema.json"))).unwrap()
});
/// With what OCSF's validator warns of.
static STRICT_SCHEMA: LazyLock<Value> =
    LazyLock::new(|| parsed(include_str!("../data/ocsf/inventory_info-1.6.0.strict.json")));
static STRICT: LazyLock<Validator> = LazyLock::new(|| jsonschema::validator_for(&STRICT_SCHEMA).unwrap());

/// Every error and warning.
pub fn complaints(event: &Value) -> Vec<String> {
    let of = |validator: &Validator| -> Vec<_> {
        validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path)).collect()
    };
    [of(&OFFICIAL), of(&STRICT)].concat()
}

/// The paths of recommended attributes that are absent where their object is present.
pub fn missing_recommended(event: &Value) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    walk("", event, &STRICT_SCHEMA, &mut |path, name, requirement, value| {
        if requirement == "recommended" && value.is_none() {
            missing.insert(joined(path, name));
        }
    });
    missing
}

/// The paths of all timestamps of an event, as pointers.
pub fn timestamps(event: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect("", event, &STRICT_SCHEMA, &mut found);
    found
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn definition(schema: &Value) -> Option<&'static Value> {
    let name = schema["$ref"].as_str()?.strip_prefix("#/$defs/")?;
    STRICT_SCHEMA["$defs"].get(name)
}

/// Sees an attribute: the path of its object, its name, whether it is required, and its value.
type See<'s> = dyn FnMut(&str, &str, &str, Option<&Value>) + 's;

fn walk(path: &str, value: &Value, schema: &Value, see: &mut See<'_>) {
    for (name, attribute) in schema["properties"].as_object().unwrap() {
        let member = value.get(name);
        see(path, name, attribute["x-ocsf-requirement"].as_str().unwrap(), member);
        let path = joined(path, name);
        match (member, definition(attribute), definition(&attribute["items"])) {
            (Some(object), Some(schema), _) => walk(&path, object, schema, see),
            (Some(Value::Array(list)), _, Some(schema)) => {
                list.iter().for_each(|element| walk(&path, element, schema, see));
            }
            _ => {}
        }
    }
}

fn collect(at: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    for (name, attribute) in schema["properties"].as_object().unwrap() {
        let Some(member) = value.get(name) else { continue };
        let at = format!("{at}/{name}");
        if attribute.get("minimum").is_some() && attribute["type"] == "integer" {
            found.push(at.clone());
        }
        if let Some(schema) = definition(attribute) {
            collect(&at, member, schema, found);
        }
    }
}
