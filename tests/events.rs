//! The events as others see them: every case of the mapping contract goes through the program and Apache Kafka, and is
//! read back by Confluent's client, fastavro and kcat.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use chrono::{DateTime, SecondsFormat};
use rollcall::profile::MAPPING_VERSION;
use serde_json::{Value, json};

use crate::support::cases::cases;
use crate::support::kafka::{Read, TestTopics, flush, producer, read_committed, send};
use crate::support::stages::{Told, map_all, told, told_with_registry, without_absent};
use crate::support::{python, server};

const PARTITIONS: i32 = 3;
const SCHEMA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/sekoia.avsc");
/// A case whose record has a source for every member of the event.
const FULL: &str = "003-static-keys-structure";
/// A case whose record is an instance ID and nothing else.
const MINIMAL: &str = "004-minimal-record";

#[test]
fn every_case_comes_out_in_avro_as_the_registry_describes_it() {
    let settings = json!({"encoding": "avro", "registry": server("REGISTRY")});
    check(&settings, |topics| {
        assert_wire_format(topics, &confluent_header(topics));
        told_with_registry(topics)
    });
}

#[test]
fn every_case_comes_out_in_avro_that_names_its_schema_itself() {
    check(&json!({"encoding": "avro"}), |topics| {
        assert_wire_format(topics, &[0xC3, 0x01]);
        told(topics, &["--schema", SCHEMA_FILE])
    });
}

#[test]
fn every_case_comes_out_in_json() {
    check(&json!({"encoding": "json"}), |topics| {
        let events = told_by_kcat(topics);
        for event in &events {
            assert_eq!(without_absent(event.value.clone()), event.value, "{}: an absent member is left out", event.key);
        }
        events
    });
}

#[test]
fn what_is_absent_is_null_in_avro_and_a_list_of_nothing_is_empty() {
    let topics = map_case(MINIMAL, json!({"encoding": "avro", "registry": server("REGISTRY")}));
    let device = &told_with_registry(&topics)[0].value["device"];
    let absent =
        "autoscale_uid boot_time created_time desc domain hypervisor image_id ip model org region state subnet";
    for name in absent.split(' ') {
        assert_eq!(device.get(name), Some(&Value::Null), "{name}");
    }
    for name in ["groups", "network_interfaces"] {
        assert_eq!(device.get(name), Some(&json!([])), "{name}");
    }
}

#[test]
fn the_registry_has_the_schema_with_the_documentation_of_every_field() {
    let topics = map_case(MINIMAL, json!({"encoding": "avro", "registry": server("REGISTRY")}));
    let schema = registered(&topics)["schema"].take();
    let mut documented = Vec::new();
    collect_docs("", &schema, &mut documented);
    let undocumented: Vec<_> = documented.iter().filter(|(_, doc)| doc.trim().is_empty()).collect();
    assert!(undocumented.is_empty(), "without documentation: {undocumented:?}");
    // All three levels were looked at.
    let paths: BTreeSet<_> = documented.iter().map(|(path, _)| path.as_str()).collect();
    for path in [".time", ".device.ip", ".device.os.type_id", ".device.network_interfaces.mac", ".device.groups.uid"] {
        assert!(paths.contains(path), "no {path} in {paths:?}");
    }
}

#[test]
fn every_member_of_the_vendors_structure_is_in_the_event_of_a_full_instance() {
    let topics = map_case(FULL, json!({"encoding": "json"}));
    let event = told_by_kcat(&topics).pop().expect("an event").value;
    let structure = structure(include_str!("data/sekoia-static-keys-structure.txt"));
    compare("", &structure, &event);
    // Nor anything else, but for what only the newer page's sample has.
    let [expected, found] = [&structure, &event].map(|value| {
        let mut paths = BTreeSet::new();
        collect_paths("", value, &mut paths);
        paths
    });
    let more: Vec<_> = found.difference(&expected).collect();
    assert_eq!(more, [".device.image_id", ".device.state"]);
}

// === Cases through the program ===

/// Sends every case through the program, by a mapper with `settings`, and compares what `read` makes of the events.
fn check(settings: &Value, read: impl Fn(&TestTopics) -> Vec<Told>) {
    let (observed, launched): (Vec<_>, Vec<_>) =
        cases().into_iter().partition(|(_, case)| case["options"]["time"] == "observed");
    assert!(!observed.is_empty());
    let mut wrong = Vec::new();
    for (time, cases) in [("observed", observed), ("launched", launched)] {
        let mut settings = settings.clone();
        settings["time"] = json!(time);
        let topics = map_cases(&cases, settings);
        let events = read(&topics);
        let raw = read_committed(&topics.name("raw"));
        for (name, case) in &cases {
            if let Err(difference) = compare_case(case, &events, &raw, &topics) {
                wrong.push(format!("{name}: {}\n{difference}", case["title"]));
            }
        }
        let expected = cases.iter().filter(|(_, case)| !is_terminated(case)).count();
        if events.len() != expected {
            wrong.push(format!("{} events of {expected} with time {time}", events.len()));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// Topics on which `rollcall map` has mapped these cases.
fn map_cases(cases: &[(String, Value)], mut settings: Value) -> TestTopics {
    let topics = TestTopics::create(PARTITIONS);
    let producer = producer();
    for (_, case) in cases {
        let mut headers = vec![("observed-at", case["observed_at"].as_str().unwrap())];
        let others = case["headers"].as_object().unwrap();
        headers.extend(others.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        let record = case["record"].to_string();
        send(&producer, &topics.name("raw"), Some(id(case).as_bytes()), Some(record.as_bytes()), &headers, None);
    }
    flush(&producer);
    let mut config = topics.config();
    if let Some(url) = settings.as_object_mut().unwrap().remove("registry") {
        config["registry"] = json!({"url": url});
    }
    for (name, value) in settings.as_object().unwrap() {
        config["mapper"][name] = value.clone();
    }
    map_all(&topics, &config);
    topics
}

fn map_case(name: &str, settings: Value) -> TestTopics {
    let case = cases().into_iter().find(|(case, _)| case == name).unwrap();
    map_cases(&[case], settings)
}

fn compare_case(case: &Value, events: &[Told], raw: &[Read], topics: &TestTopics) -> Result<(), String> {
    let id = id(case);
    let found: Vec<_> = events.iter().filter(|event| event.key == id).collect();
    let event = match found[..] {
        // What was terminated before anybody saw it never was.
        [] if is_terminated(case) => return Ok(()),
        [event] if !is_terminated(case) => event,
        _ => return Err(format!("  {} events", found.len())),
    };
    let value = without_absent(event.value.clone());
    if value != case["event"] {
        return Err(format!("  expected {}\n  came out {value}", case["event"]));
    }
    let record = raw.iter().find(|record| record.key() == id).unwrap();
    let observed_at = DateTime::parse_from_rfc3339(case["observed_at"].as_str().unwrap()).unwrap().to_utc();
    let headers = [
        ("change", "created".to_owned()),
        ("mapping-version", MAPPING_VERSION.to_string()),
        ("observed-at", observed_at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        ("profile", "sekoia".to_owned()),
        ("raw-offset", record.offset.to_string()),
        ("raw-partition", record.partition.to_string()),
        ("raw-topic", topics.name("raw")),
        ("revision", "1".to_owned()),
    ];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if event.headers != headers {
        return Err(format!("  expected {headers:?}\n  came out {:?}", event.headers));
    }
    Ok(())
}

fn id(case: &Value) -> &str {
    case["record"]["InstanceId"].as_str().unwrap()
}

fn is_terminated(case: &Value) -> bool {
    case["record"]["State"]["Name"] == "terminated"
}

// === What others read ===

/// The events as kcat prints them; their values are text there.
fn told_by_kcat(topics: &TestTopics) -> Vec<Told> {
    let output = Command::new(server("KCAT"))
        .args(["-C", "-q", "-J", "-e", "-o", "beginning", "-b", &server("KAFKA"), "-t", &topics.name("events")])
        .output()
        .unwrap();
    assert!(output.status.success(), "kcat failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let told = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap();
        let headers: Vec<String> = serde_json::from_value(message["headers"].clone()).unwrap();
        let pairs: BTreeMap<_, _> = headers.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        assert_eq!(2 * pairs.len(), headers.len(), "a header twice: {headers:?}");
        Told {
            partition: message["partition"].as_i64().unwrap() as i32,
            offset: message["offset"].as_i64().unwrap(),
            key: message["key"].as_str().unwrap().to_owned(),
            headers: pairs,
            value: serde_json::from_str(message["payload"].as_str().unwrap()).unwrap(),
        }
    };
    lines.lines().map(told).collect()
}

/// `id`, `version` and `schema` of the events topic's subject.
fn registered(topics: &TestTopics) -> Value {
    let subject = format!("{}-value", topics.name("events"));
    python::lines("read_schema.py", &["--registry", &server("REGISTRY"), "--subject", &subject]).remove(0)
}

/// A zero byte and the ID of the schema, as Confluent's wire format has it.
fn confluent_header(topics: &TestTopics) -> Vec<u8> {
    let id = registered(topics)["id"].as_u64().unwrap() as u32;
    [&[0], id.to_be_bytes().as_slice()].concat()
}

fn assert_wire_format(topics: &TestTopics, header: &[u8]) {
    for event in read_committed(&topics.name("events")) {
        let value = event.value.as_deref().unwrap();
        assert!(value.starts_with(header), "{}: {:02x?}", event.key(), &value[..header.len()]);
    }
}

/// The path and the documentation of every field of a record schema.
fn collect_docs(path: &str, schema: &Value, found: &mut Vec<(String, String)>) {
    match schema {
        Value::Array(union) => union.iter().for_each(|branch| collect_docs(path, branch, found)),
        Value::Object(schema) if schema["type"] == "record" => {
            let doc = |of: &serde_json::Map<String, Value>| {
                of.get("doc").and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            found.push((path.to_owned(), doc(schema)));
            for field in schema["fields"].as_array().unwrap() {
                let path = format!("{path}.{}", field["name"].as_str().unwrap());
                found.push((path.clone(), doc(field.as_object().unwrap())));
                collect_docs(&path, &field["type"], found);
            }
        }
        Value::Object(schema) if schema["type"] == "array" => collect_docs(path, &schema["items"], found),
        _ => {}
    }
}

// === The vendor's structure ===

/// The page's structure as JSON. What has no quotes there, as in `true|false`, becomes text that begins with a `=`.
fn structure(page: &str) -> Value {
    let quoted = page.lines().map(|line| {
        let Some((name, value)) = line.split_once(": ") else { return line.to_owned() };
        let (value, comma) = value.strip_suffix(',').map_or((value, ""), |value| (value, ","));
        let is_json = value.starts_with(['{', '[']) || serde_json::from_str::<Value>(value).is_ok();
        if is_json { line.to_owned() } else { format!("{name}: \"={value}\"{comma}") }
    });
    serde_json::from_str(&quoted.collect::<String>()).unwrap()
}

/// Every member that `structure` names must be in `event`, with the value or of the type given there.
fn compare(path: &str, structure: &Value, event: &Value) {
    match (structure, event) {
        (Value::Object(members), Value::Object(event)) => {
            for (name, member) in members {
                let path = format!("{path}.{name}");
                compare(&path, member, event.get(name).unwrap_or_else(|| panic!("no {path}")));
            }
        }
        (Value::Array(elements), Value::Array(events)) => {
            assert_eq!(elements.len(), events.len(), "{path}");
            elements.iter().zip(events).for_each(|(element, event)| compare(&format!("{path}[]"), element, event));
        }
        (Value::String(pattern), value) => assert!(fits(pattern, value), "{path} is {value}, expected {pattern}"),
        (constant, value) => assert_eq!(constant, value, "{path}"),
    }
}

/// Whether a value is what the page describes.
fn fits(pattern: &str, value: &Value) -> bool {
    match pattern.strip_prefix('=').unwrap_or(pattern) {
        // In quotes or not: in the tables of both pages it is a number.
        "<unix_timestamp>" => value.is_i64(),
        "<launch_time_iso>" => value.as_str().is_some_and(|text| DateTime::parse_from_rfc3339(text).is_ok()),
        _ if pattern.starts_with('=') => {
            let text = value.to_string();
            pattern[1..].split('|').any(|choice| choice == text)
        }
        choices if choices.contains('|') => choices.split('|').any(|choice| value == choice),
        text => value.as_str().is_some_and(|value| fits_text(text, value)),
    }
}

/// Whether a text has what the page has around its `<placeholders>`, and something in their places.
fn fits_text(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('<') else { return pattern == text };
    let Some((_, after)) = rest.split_once('>') else { return false };
    let Some(text) = text.strip_prefix(before) else { return false };
    text.char_indices()
        .skip(1)
        .map(|(end, _)| end)
        .chain([text.len()])
        .any(|end| end > 0 && fits_text(after, &text[end..]))
}

/// The paths of all members that are neither an object nor a list.
fn collect_paths(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| collect_paths(&format!("{path}.{name}"), member, found));
        }
        Value::Array(elements) => {
            elements.iter().for_each(|element| collect_paths(&format!("{path}[]"), element, found))
        }
        _ => drop(found.insert(path.to_owned())),
    }
}
