//! Profile `ocsf` against OCSF's own schema: whatever EC2, or somebody else, sends.

use std::collections::BTreeSet;
use std::io::Write;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rollcall::profile::Profile;
use serde_json::{Value, json};

use crate::support::instances::{any_headers, any_instance, full};
use crate::support::mapper::{Mapper, Told, headers};
use crate::support::python;
use crate::support::schema::{complaints, missing_recommended, timestamps};

/// What DescribeInstances cannot honestly fill.
const NEVER: [&str; 6] = [
    "cloud.account.name",
    "device.image.name",
    "device.interface_name",
    "device.owner",
    "status_code",
    "status_detail",
];
/// What an absent source implies.
const AT_TIMES: [&str; 12] = [
    "cloud.region",
    "device.groups.name",
    "device.groups.uid",
    "device.hostname",
    "device.interface_uid",
    "device.network_interfaces.hostname",
    "device.network_interfaces.ip",
    "device.network_interfaces.mac",
    "device.network_interfaces.name",
    "device.region",
    "metadata.original_time",
    "metadata.tenant_uid",
];

/// The event as Avro has it, without what is null, and with `unmapped` parsed.
fn of_avro(bytes: &[u8]) -> Value {
    let schema = Schema::parse_str(Profile::Ocsf.schema_json()).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let mut event = plain(reader.read_value(&mut &bytes[..]).unwrap());
    event["unmapped"] = serde_json::from_str(event["unmapped"].as_str().unwrap()).unwrap();
    event
}

fn plain(value: Avro) -> Value {
    match value {
        Avro::Union(_, value) => plain(*value),
        Avro::Record(fields) => {
            fields.into_iter().map(|(name, value)| (name, plain(value))).filter(|(_, value)| !value.is_null()).collect()
        }
        Avro::Array(elements) => elements.into_iter().map(plain).collect(),
        Avro::String(text) => text.into(),
        Avro::Int(number) => number.into(),
        Avro::Long(number) => number.into(),
        Avro::Null => Value::Null,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_validates_without_errors_or_warnings_whatever_is_sent(
        records in proptest::collection::vec((any_instance(8), any_headers()), 1..3),
        (last, last_headers) in (prop::option::of(any_instance(3)), any_headers()),
    ) {
        let mut mapper = Mapper::new(Profile::Ocsf);
        let mut told: Vec<_> = records.iter().filter_map(|(value, headers)| mapper.takes(Some(value), headers)).collect();
        told.extend(mapper.takes(last.as_ref(), &last_headers));
        told.extend(mapper.takes(None, &last_headers));
        for Told { json: event, avro, .. } in told {
            prop_assert_eq!(complaints(&event), Vec::<String>::new(), "{}", event);
            let missing = missing_recommended(&event);
            let allowed: BTreeSet<_> = NEVER.iter().chain(&AT_TIMES).map(|path| (*path).to_owned()).collect();
            let more: Vec<_> = missing.difference(&allowed).collect();
            prop_assert!(more.is_empty(), "{:?} {}", more, event);
            prop_assert_eq!(of_avro(&avro), event);
        }
    }
}

#[test]
fn of_a_full_instance_exactly_what_ec2_cannot_tell_is_missing() {
    let event = Mapper::new(Profile::Ocsf).takes(Some(&full()), &headers()).unwrap().json;
    assert_eq!(complaints(&event), Vec::<String>::new());
    let hostname_of_ipv6 = "device.network_interfaces.hostname";
    let expected: BTreeSet<_> = NEVER.iter().copied().chain([hostname_of_ipv6]).map(str::to_owned).collect();
    assert_eq!(missing_recommended(&event), expected);
}

#[test]
fn another_library_finds_the_events_valid_too() {
    let mut runner = TestRunner::deterministic();
    let mut events = tempfile::NamedTempFile::new().unwrap();
    let mut count = 0;
    for _ in 0..100 {
        let (instance, headers) = (any_instance(8), any_headers()).new_tree(&mut runner).unwrap().current();
        let mut mapper = Mapper::new(Profile::Ocsf);
        for told in [mapper.takes(Some(&instance), &headers), mapper.takes(None, &headers)].into_iter().flatten() {
            writeln!(events, "{}", told.json).unwrap();
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
    let file = events.path().to_str().unwrap().to_owned();
    assert_eq!(python::client("validate_ocsf.py", &[&file]).trim(), count.to_string());
    // What is written would do for the next two versions of OCSF, but for their number.
    for version in ["1.7.0", "1.8.0"] {
        let told = python::client("validate_ocsf.py", &[&file, "--as", version]);
        assert_eq!(told.trim(), count.to_string(), "{version}");
    }
    // And it would say so.
    writeln!(events, "{{\"class_uid\": 5001}}").unwrap();
    let complaint = std::panic::catch_unwind(|| python::client("validate_ocsf.py", &[&file]));
    assert!(complaint.is_err());
}

#[test]
fn the_schemas_are_what_the_package_gives() {
    python::client("../data/ocsf/make.py", &["--check"]);
}

/// What holds the longest record, made of as many elements as fit.
fn crowded(member: &str, element: impl Fn(usize) -> Value) -> Value {
    let mut instance = full();
    let mut size = instance.to_string().len();
    let elements = (0..).map(element).take_while(|element| {
        size += element.to_string().len() + 1;
        size < (1 << 20) - 64
    });
    *instance.pointer_mut(member).unwrap() = elements.collect::<Vec<_>>().into();
    instance
}

#[test]
fn the_event_of_the_largest_record_can_still_be_sent() {
    let long = "x".repeat(1 << 19);
    let mut described = crowded(
        "/NetworkInterfaces/0/PrivateIpAddresses",
        |n| json!({"PrivateIpAddress": format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)}),
    );
    let half = described.pointer("/NetworkInterfaces/0/PrivateIpAddresses").unwrap().as_array().unwrap().len() / 2 - 10;
    described.pointer_mut("/NetworkInterfaces/0/PrivateIpAddresses").unwrap().as_array_mut().unwrap().truncate(half);
    described["NetworkInterfaces"][0]["Description"] = json!(long);
    for (what, instance) in [
        (
            "addresses",
            crowded(
                "/NetworkInterfaces/0/PrivateIpAddresses",
                |n| json!({"Primary": false, "PrivateIpAddress": format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)}),
            ),
        ),
        ("a long description", described),
        (
            "addresses that are none",
            crowded("/NetworkInterfaces/0/Ipv6Addresses", |n| json!({"Ipv6Address": format!("{n}")})),
        ),
        ("groups", crowded("/SecurityGroups", |n| json!({"GroupId": format!("{n}")}))),
        ("tags", crowded("/Tags", |n| json!({"Key": format!("{n}")}))),
        ("volumes", crowded("/BlockDeviceMappings", |n| json!({"DeviceName": format!("{n}")}))),
        ("interfaces", crowded("/NetworkInterfaces", |n| json!({"NetworkInterfaceId": format!("{n}")}))),
    ] {
        let mut mapper = Mapper::new(Profile::Ocsf);
        // There and back: what is new and what is gone is told.
        for value in [&instance, &full(), &instance] {
            let told = mapper.takes(Some(value), &headers()).unwrap();
            let size = told.json.to_string().len().max(told.avro.len());
            // Above the largest message that is sent a partition is held.
            assert!(size < (8 << 20) - (64 << 10), "{what}: {size} bytes");
            assert!(told.json["message"].as_str().unwrap().len() < 2100, "{what}");
        }
    }
}

#[test]
fn seconds_for_milliseconds_cannot_slip_in() {
    let event = Mapper::new(Profile::Ocsf).takes(Some(&full()), &headers()).unwrap().json;
    let times = timestamps(&event);
    let expected = ["boot_time", "created_time", "first_seen_time", "last_seen_time", "modified_time"];
    assert_eq!(
        times,
        expected.map(|name| format!("/device/{name}")).into_iter().chain(["/time".to_owned()]).collect::<Vec<_>>()
    );
    for at in times {
        let mut wrong = event.clone();
        let time = wrong.pointer_mut(&at).unwrap();
        // Each has its twin, which says the same instant.
        let ms = time.as_i64().unwrap();
        let twin = event.pointer(&format!("{at}_dt")).unwrap().as_str().unwrap();
        assert_eq!(chrono::DateTime::parse_from_rfc3339(twin).unwrap().timestamp_millis(), ms, "{at}");
        *time = json!(ms / 1000);
        assert!(!complaints(&wrong).is_empty(), "{at} in seconds is not noticed");
    }
}
