//! A mapper without Kafka: one device, its state, and the events that follow.

use rollcall::mapper::decide::{Decision, Rules, decide};
use rollcall::mapper::event;
use rollcall::mapper::state::Devices;
use rollcall::profile::encode::{Encoder, Framing};
use rollcall::profile::{Mapping, Profile};
use rollcall::record::{RawRecord, partition_for};
use serde_json::Value;

/// The instance's.
pub const ID: &str = "i-0123456789abcdef0";
/// 2026-03-01T00:00:00Z, when every record was written.
const WRITTEN: i64 = 1_772_323_200_000;

/// A mapper without Kafka.
pub struct Mapper {
    pub rules: Rules,
    devices: Devices,
    offset: i64,
}

impl Mapper {
    pub fn new(profile: Profile) -> Self {
        let mapping = Mapping {
            profile,
            labels: vec!["env:prod".to_owned()],
            tenant_uid: Some("acme".to_owned()),
            ..Mapping::default()
        };
        let rules = Rules::new(mapping, 12, 1 << 20);
        Self { rules, devices: Devices::default(), offset: 0 }
    }

    /// The event that follows from a record, in JSON and in Avro, and its headers.
    pub fn takes(&mut self, value: Option<&Value>, headers: &[(&str, String)]) -> Option<Told> {
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
        let mut emission = match decide(&self.rules, &record, &self.devices, &mut |_| {}) {
            Decision::Emit(emission) => emission,
            Decision::Reject(rejection) => panic!("rejected: {rejection}"),
            Decision::Unchanged | Decision::Same(_) | Decision::Stale => return None,
        };
        let mut write = |encoder: &Encoder| event::record(&record, &mut emission, &self.rules, encoder, "raw").unwrap();
        let json = write(&Encoder::json());
        let avro = write(&Encoder::avro(self.rules.mapping.profile, Framing::SingleObject).unwrap());
        self.devices.put(ID, Some(emission.state.clone()));
        Some(Told {
            json: serde_json::from_slice(&json.value.unwrap()).unwrap(),
            avro: avro.value.unwrap()[10..].to_vec(),
            headers: json
                .headers
                .into_iter()
                .map(|(name, value)| (name.into_owned(), String::from_utf8(value.unwrap()).unwrap()))
                .collect(),
        })
    }
}

/// An event.
pub struct Told {
    pub json: Value,
    /// The Avro datum, without its header.
    pub avro: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

/// The headers of a sweep of eu-west-1.
pub fn headers() -> Vec<(&'static str, String)> {
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
