use super::*;
use crate::config::check;
use crate::config::{Collector, Config};
use serde_json::{Value, json};

/// A source with these keys beside its name and kind, or what is wrong with it.
fn read(name: &str, keys: Value) -> Result<Source, String> {
    let mut written = json!({"name": name, "simulated": {}});
    written.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let source: Source = serde_json::from_value(written).map_err(|error| error.to_string())?;
    let collector = Collector { sources: vec![source.clone()], ..Collector::default() };
    let faults = check::faults(&Config { collector, ..Config::default() });
    if faults.is_empty() { Ok(source) } else { Err(format!("{faults:?}")) }
}

#[track_caller]
fn refused(name: &str, keys: Value, parts: &[&str]) {
    let error = read(name, keys).unwrap_err();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn a_source_reads_back_as_it_was() {
    let source = read(
        "all of it",
        json!({
            "description": "a", "category": "b", "fields": {"c": "d"}, "polling_interval": 600, "give_up_after": "1h",
            "siem_forward": false, "rules": [{"mask": {"field": "Tags[*]"}}],
        }),
    )
    .unwrap();
    assert_eq!(serde_json::from_value::<Source>(serde_json::to_value(&source).unwrap()).unwrap(), source);
}

#[test]
fn the_time_between_sweeps_is_a_duration_or_whole_minutes() {
    let interval = |keys| read("a", keys).unwrap().interval;
    assert_eq!(interval(json!({})), Duration::from_secs(300));
    assert_eq!(interval(json!({"interval": "10s"})), Duration::from_secs(10));
    assert_eq!(interval(json!({"polling_interval": 600})), Duration::from_secs(36_000));
    assert_eq!(interval(json!({"polling_interval": 10_080})), WEEK);
    refused("a", json!({"interval": "5m", "polling_interval": 5}), &["interval and polling_interval"]);
    refused("a", json!({"polling_interval": 0}), &["polling_interval", "0", "1 to 10080"]);
    refused("a", json!({"polling_interval": 10_081}), &["polling_interval", "10081"]);
    refused("a", json!({"polling_interval": u64::MAX}), &["polling_interval"]);
    refused("a", json!({"interval": "9s"}), &["sources.0.interval", "9s", "10s to 7days"]);
    refused("a", json!({"interval": "8d"}), &["sources.0.interval"]);
}

#[test]
fn giving_up_takes_ninety_minutes_unless_told_otherwise() {
    assert_eq!(read("a", json!({})).unwrap().give_up_after, Duration::from_secs(5400));
    assert_eq!(read("a", json!({"give_up_after": "1s"})).unwrap().give_up_after, Duration::from_secs(1));
    refused("a", json!({"give_up_after": "25h"}), &["sources.0.give_up_after", "1s to 1day"]);
    refused("a", json!({"give_up_after": "0s"}), &["sources.0.give_up_after"]);
}

#[test]
fn records_are_for_a_siem_unless_the_source_says_otherwise() {
    for (keys, forwarded, field) in [
        (json!({}), true, None),
        (json!({"siem_forward": true}), true, None),
        (json!({"siem_forward": false}), false, Some("false")),
        (json!({"fields": {"_siemForward": true}}), true, Some("true")),
        (json!({"fields": {"_siemForward": "false"}, "siem_forward": false}), false, Some("false")),
    ] {
        let source = read("a", keys.clone()).unwrap();
        assert_eq!(source.siem_forward(), forwarded, "{keys}");
        assert_eq!(source.fields.get("_siemForward").map(String::as_str), field, "{keys}");
    }
    refused("a", json!({"fields": {"_siemForward": true}, "siem_forward": false}), &["contradict"]);
    refused("a", json!({"fields": {"_siemForward": "yes"}}), &["_siemForward", "yes", "true or false"]);
}

#[test]
fn names_are_fit_to_be_parts_of_keys_and_headers() {
    refused("", json!({}), &["sources.0.name", "empty"]);
    refused("aws/inventory", json!({}), &["sources.0.name", "aws/inventory", "slash"]);
    refused("a\nb", json!({}), &["sources.0.name", "control character"]);
    refused("a", json!({"fields": {"": "x"}}), &["sources.0.fields"]);
    refused("a", json!({"fields": {"b\u{7}": "x"}}), &["sources.0.fields", "control"]);
    assert!(read("AWS Inventory, ünïcode", json!({"fields": {"team name": 5}})).is_ok());
}

#[test]
fn a_hash_needs_a_key_of_sixteen_bytes() {
    let hash = json!([{"hash": {"field": "PrivateIpAddress"}}]);
    refused("a", json!({"rules": hash}), &["collector.hash_key", "is not set", "\\\"a\\\""]);
    let faults = |key: &str| {
        let source = json!({"name": "a", "simulated": {}, "rules": hash});
        let collector = serde_json::from_value(json!({"hash_key": key, "sources": [source]})).unwrap();
        check::faults(&Config { collector, ..Config::default() })
    };
    assert_eq!(faults("0123456789abcdef"), []);
    let short = format!("{:?}", faults("0123456789abcde"));
    assert!(short.contains("collector.hash_key") && short.contains("15 bytes"), "{short}");
    assert!(!short.contains("0123456789"), "{short}");
}

#[test]
fn a_rule_that_is_refused_names_its_place() {
    let written = json!({"name": "a", "simulated": {}, "rules": [{"hash": {"field": "KeyName"}}, {"mask": {"field": "InstanceId"}}]});
    let error = serde_path_to_error::deserialize::<_, Source>(&written).unwrap_err();
    assert_eq!(error.path().to_string(), "rules[1].mask.field");
    assert!(error.to_string().contains("key of the record"), "{error}");
}
