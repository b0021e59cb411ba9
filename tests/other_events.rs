//! The profiles `ocsf` and `cse` through the program and Apache Kafka, read back by the clients of others; the sister of
//! `events`, which goes through the profile `sekoia`.

use serde_json::{Value, json};

use crate::support::instances::full;
use crate::support::kafka::{TestTopics, flush, producer, send};
use crate::support::mapper::ID;
use crate::support::schema::complaints;
use crate::support::stages::{Told, map_all, told, told_with_registry, without_absent};
use crate::support::{python, server};

/// The life of a device in three records, mapped by two mappers one after the other: the second knows it from the state
/// topic only.
fn life(settings: &Value) -> TestTopics {
    let topics = TestTopics::create(3);
    let producer = producer();
    let mut config = topics.config();
    config["mapper"]["labels"] = json!(["env:prod"]);
    config["mapper"]["tenant_uid"] = json!("acme");
    for (name, value) in settings.as_object().unwrap() {
        match name.as_str() {
            "registry" => config["registry"] = json!({"url": value}),
            _ => config["mapper"][name] = value.clone(),
        }
    }
    let mut stopped = full();
    stopped["State"] = json!({"Code": 80, "Name": "stopped"});
    stopped["PublicIpAddress"] = json!("203.0.113.9");
    let sent = |second: &str, value: Option<&Value>| {
        let observed_at = format!("2026-02-01T00:00:{second}.000Z");
        let headers = [
            ("observed-at", observed_at.as_str()),
            ("sweep-id", "0197-sweep"),
            ("aws-region", "eu-west-1"),
            ("source", "prod"),
            ("source-category", "aws/inventory"),
            ("field.team", "blue"),
        ];
        let value = value.map(Value::to_string);
        send(&producer, &topics.name("raw"), Some(ID.as_bytes()), value.as_deref().map(str::as_bytes), &headers, None);
        flush(&producer);
    };
    sent("01", Some(&full()));
    map_all(&topics, &config);
    sent("02", Some(&stopped));
    sent("03", None);
    map_all(&topics, &config);
    topics
}

fn schema_file(profile: &str) -> String {
    format!("{}/schemas/{profile}.avsc", env!("CARGO_MANIFEST_DIR"))
}

/// `created`, `updated` and `removed`, by their headers.
fn the_three(told: Vec<Told>) -> [Told; 3] {
    let three: [Told; 3] = told.try_into().unwrap_or_else(|told: Vec<_>| panic!("{} events", told.len()));
    let changes = three.each_ref().map(|event| event.headers["change"].as_str());
    assert_eq!(changes, ["created", "updated", "removed"]);
    assert_eq!(three.each_ref().map(|event| event.headers["revision"].as_str()), ["1", "2", "3"]);
    for event in &three {
        assert_eq!(event.headers["labels"], r#"["env:prod"]"#);
    }
    three
}

fn check_ocsf(told: Vec<Told>) {
    let [created, updated, removed] = the_three(told).map(|event| {
        assert_eq!(event.headers["profile"], "ocsf");
        let mut value = event.value;
        // In Avro it is text.
        if let Some(text) = value["unmapped"].as_str() {
            value["unmapped"] = serde_json::from_str(text).unwrap();
        }
        let value = without_absent(value);
        assert_eq!(complaints(&value), Vec::<String>::new());
        value
    });
    assert_eq!((&created["activity_id"], &created["type_uid"]), (&json!(2), &json!(500_102)));
    assert_eq!(created["unmapped"]["change"], json!({"kind": "created"}));
    assert_eq!(created["time"], 1_769_904_001_000_i64);
    assert_eq!(created["metadata"]["correlation_uid"], "0197-sweep");
    assert_eq!(created["metadata"]["tenant_uid"], "acme");
    let fields = json!([
        {"path": "device.ip", "from": "203.0.113.1", "to": "203.0.113.9"},
        {"path": "unmapped.state.code", "from": 16, "to": 80},
        {"path": "unmapped.state.name", "from": "running", "to": "stopped"},
    ]);
    assert_eq!(updated["unmapped"]["change"], json!({"kind": "updated", "fields": fields}));
    assert_eq!(updated["message"], format!("{ID} updated: device.ip, unmapped.state.code, unmapped.state.name"));
    assert_eq!(updated["device"]["first_seen_time"], created["time"]);
    assert_eq!((&removed["activity_id"], &removed["type_uid"]), (&json!(99), &json!(500_199)));
    assert_eq!(removed["activity_name"], "Removed");
    assert_eq!(removed["unmapped"]["change"], json!({"kind": "removed", "reason": "absent"}));
    // The last known device, as it was last seen.
    assert_eq!(
        (&removed["device"]["ip"], &removed["unmapped"]["state"]["name"]),
        (&json!("203.0.113.9"), &json!("stopped"))
    );
    assert_eq!(removed["device"]["last_seen_time"], updated["time"]);
    assert_eq!(removed["device"]["modified_time"], removed["time"]);
}

fn check_cse(told: Vec<Told>) {
    let ips = the_three(told).map(|event| {
        let value = without_absent(event.value);
        for (name, expected) in [("_siemVendor", "Amazon"), ("_source", "prod"), ("_sourceCategory", "aws/inventory")] {
            assert_eq!((&value[name], event.headers[name].as_str()), (&json!(expected), expected));
        }
        assert_eq!((&value["fields"], event.headers["team"].as_str()), (&json!({"team": "blue"}), "blue"));
        assert_eq!(value["uniqueId"], format!("012345678901-{ID}"));
        value["ip"].clone()
    });
    assert_eq!(ips, ["203.0.113.1", "203.0.113.9", "203.0.113.9"].map(Value::from));
}

#[test]
fn ocsf_events_come_out_in_avro_as_the_registry_describes_it() {
    let topics = life(&json!({"profile": "ocsf", "encoding": "avro", "registry": server("REGISTRY")}));
    check_ocsf(told_with_registry(&topics));
}

#[test]
fn ocsf_events_come_out_in_avro_that_names_its_schema_itself() {
    let topics = life(&json!({"profile": "ocsf", "encoding": "avro"}));
    check_ocsf(told(&topics, &["--schema", &schema_file("ocsf")]));
}

#[test]
fn ocsf_events_come_out_in_json_and_another_library_finds_them_valid() {
    let topics = life(&json!({"profile": "ocsf", "encoding": "json"}));
    let events = told(&topics, &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: String = events.iter().map(|event| format!("{}\n", event.value)).collect();
    std::fs::write(file.path(), lines).unwrap();
    assert_eq!(python::client("validate_ocsf.py", &[file.path().to_str().unwrap()]).trim(), "3");
    check_ocsf(events);
}

#[test]
fn cse_records_come_out_in_every_encoding() {
    let registry = server("REGISTRY");
    check_cse(told_with_registry(&life(&json!({"profile": "cse", "encoding": "avro", "registry": registry}))));
    check_cse(told(&life(&json!({"profile": "cse", "encoding": "avro"})), &["--schema", &schema_file("cse")]));
    check_cse(told(&life(&json!({"profile": "cse", "encoding": "json"})), &[]));
}
