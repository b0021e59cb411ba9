//! The Avro schemas: every part is documented, and whoever reads with the last release's can read what this one writes,
//! and the other way round.

use std::path::Path;

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use rollcall::profile::Profile;
use serde_json::Value;

/// The schemas as they were last released: copied there with each release, never altered.
const LAST_RELEASE: &str = "0.1.0";

#[test]
fn schemas_evolve_compatibly_from_the_last_release() {
    for profile in Profile::ALL {
        let path = format!("schemas/released/{LAST_RELEASE}/{}.avsc", profile.name());
        let released = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
        let released = Schema::parse_str(&released).unwrap();
        let now = Schema::parse_str(profile.schema_json()).unwrap();
        let compatible = SchemaCompatibility::mutual_read(&released, &now);
        assert!(compatible.is_ok(), "{path}: {}", compatible.unwrap_err());
    }
}

#[test]
fn a_field_without_a_default_would_be_noticed() {
    let now = Schema::parse_str(Profile::Cse.schema_json()).unwrap();
    let mut changed: Value = serde_json::from_str(Profile::Cse.schema_json()).unwrap();
    changed["fields"].as_array_mut().unwrap().push(serde_json::json!({"name": "new", "type": "string"}));
    let changed = Schema::parse_str(&changed.to_string()).unwrap();
    assert!(SchemaCompatibility::mutual_read(&now, &changed).is_err());
}

#[test]
fn every_record_and_field_is_documented() {
    fn check(path: &str, schema: &Value) {
        match schema {
            Value::Array(branches) => branches.iter().for_each(|branch| check(path, branch)),
            Value::Object(_) if schema["type"] == "record" => {
                assert!(!schema["doc"].as_str().unwrap_or_default().is_empty(), "{path} has no documentation");
                for field in schema["fields"].as_array().unwrap() {
                    let path = format!("{path}.{}", field["name"].as_str().unwrap());
                    assert!(!field["doc"].as_str().unwrap_or_default().is_empty(), "{path} has no documentation");
                    check(&path, &field["type"]);
                }
            }
            Value::Object(_) => check(path, &schema["items"]),
            _ => {}
        }
    }
    for profile in Profile::ALL {
        check(profile.name(), &serde_json::from_str(profile.schema_json()).unwrap());
    }
}
