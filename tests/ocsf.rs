//! Profile `ocsf` against OCSF's own schema: whatever EC2, or somebody else, sends.

use std::collections::BTreeSet;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use proptest::prelude::*;
use rollcall::mapper::decide::{Decision, Rules, decide};
use rollcall::mapper::event;
use rollcall::mapper::state::Devices;
use rollcall::profile::encode::{Encoder, Framing};
use rollcall::profile::{Mapping, Profile};
use rollcall::record::{RawRecord, partition_for};
use serde_json::{Value, json};

use crate::support::instances::{any_headers, any_instance, full};
use crate::support::schema::{complaints, missing_recommended, timestamps};

const ID: &str = "i-0123456789abcdef0";
/// 2026-03-01T00:00:00Z, when every record was written.
const WRITTEN: i64 = 1_772_323_200_000;

/// A mapper without Kafka.
struct Mapper {
    rules: Rules,
    devices: Devices,
    offset: i64,
}

impl Mapper {
    fn new(profile: Profile) -> Self {
        let mapping = Mapping {
            profile,
            labels: vec!["env:prod".to_owned()],
            tenant_uid: Some("acme".to_owned()),
            ..Mapping::default()
        };
        let rules = Rules { mapping, partitions: 12, max_record_bytes: 1 << 20 };
        Self { rules, devices: Devices::default(), offset: 0 }
    }

    /// The event that follows from a record, in JSON and in Avro, and its headers.
    fn takes(&mut self, value: Option<&Value>, headers: &[(&str, String)]) -> Option<Told> {
        let text = value.map(Value::to_string);
        let record = RawRecord {
            partition: partition_for(ID.as_bytes(), 12),
            offset: self.offset,
            timestamp_ms: WRITTEN + self.offset,
            key: Some(ID.as_bytes()),
            value: text.as_deref().map(str::as_bytes),
            headers: headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
        };
        self.offset += 1;
        let emission = match decide(&self.rules, &record, &self.devices, &mut |_| {}) {
            Decision::Emit(emission) => emission,
            Decision::Reject(rejection) => panic!("rejected: {rejection}"),
            Decision::Unchanged | Decision::Same(_) | Decision::Stale => return None,
        };
        let write = |encoder: &Encoder| event::record(&record, &emission, &self.rules, encoder, "raw").unwrap();
        let json = write(&Encoder::json());
        let avro = write(&Encoder::avro(self.rules.mapping.profile, Framing::SingleObject).unwrap());
        self.devices.put(ID, Some(emission.state.clone()));
        Some(Told {
            json: serde_json::from_slice(&json.value.unwrap()).unwrap(),
            avro: avro.value.unwrap()[10..].to_vec(),
            headers: json
                .headers
                .into_iter()
                .map(|(name, value)| (name, String::from_utf8(value.unwrap()).unwrap()))
                .collect(),
        })
    }
}

struct Told {
    json: Value,
    avro: Vec<u8>,
    headers: Vec<(String, String)>,
}

fn headers() -> Vec<(&'static str, String)> {
    [
        ("observed-at", "2026-02-01T00:00:00.123Z"),
        ("sweep-id", "0197-sweep"),
        ("aws-region", "eu-west-1"),
        ("source", "prod"),
        ("source-category", "aws/inventory"),
        ("field.team", "blue"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

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
