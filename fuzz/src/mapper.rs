//! A mapper of one partition in memory, which doubts all that it does.

use std::sync::LazyLock;

use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::decide::{Decision, Emission, Rules, decide};
use rollcall::mapper::event;
use rollcall::mapper::state::Devices;
use rollcall::profile::encode::{Encoder, Framing};
use rollcall::profile::{Mapping, Profile};
use rollcall::record::RawRecord;
use rollcall::tail::decode::{Decoded, Decoder};
use serde_json::Value;

use super::parts;

const ID: &str = "i-1";

/// What a mapper of one profile needs and takes long to make.
struct Tools {
    rules: Rules,
    changelog: Changelog,
    json: Encoder,
    avro: Encoder,
}

static TOOLS: LazyLock<[Tools; 3]> = LazyLock::new(|| Profile::ALL.map(Tools::new));
static DECODER: LazyLock<Decoder> = LazyLock::new(Decoder::default);

impl Tools {
    fn new(profile: Profile) -> Self {
        let mapping = Mapping {
            profile,
            labels: vec!["env:prod".to_owned()],
            tenant_uid: Some("acme".to_owned()),
            ..Mapping::default()
        };
        Self {
            rules: Rules::new(mapping, 1, 1 << 20),
            changelog: Changelog::new(profile).expect("an embedded schema"),
            json: Encoder::json(),
            avro: Encoder::avro(profile, Framing::SingleObject).expect("an embedded schema"),
        }
    }
}

/// The changelogs of all profiles.
pub fn changelogs() -> impl Iterator<Item = &'static Changelog> {
    TOOLS.iter().map(|tools| &tools.changelog)
}

pub struct Mapper {
    tools: &'static Tools,
    devices: Devices,
    records: i64,
}

/// A record as it may lie on the raw topic.
pub fn record<'a>(value: Option<&'a [u8]>, headers: Vec<(&'a str, Option<&'a [u8]>)>) -> RawRecord<'a> {
    RawRecord { partition: 0, offset: 0, timestamp_ms: 1_780_000_000_000, key: Some(ID.as_bytes()), value, headers }
}

impl Mapper {
    /// One of each profile.
    pub fn all() -> impl Iterator<Item = Self> {
        TOOLS.iter().map(|tools| Self { tools, devices: Devices::default(), records: 0 })
    }

    /// Takes a record that is written as text: headers, then the value.
    pub fn takes_text(&mut self, text: &[u8]) {
        let mut headers = Vec::new();
        let mut value = text;
        while let Some(line) = value.strip_prefix(b"#") {
            let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
            let mut sides = parts(&line[..end], b"=").into_iter();
            if let Some(Ok(name)) = sides.next().map(std::str::from_utf8) {
                headers.push((name, sides.next()));
            }
            value = line.get(end + 1..).unwrap_or_default();
        }
        // A key that is the instance's, or hardly any record would be mapped.
        let id =
            serde_json::from_slice(value).ok().and_then(|value: Value| Some(value["InstanceId"].as_str()?.to_owned()));
        let id = id.unwrap_or_else(|| ID.to_owned());
        let record = record(Some(value).filter(|value| !value.is_empty()), headers);
        self.takes(&RawRecord { key: Some(id.as_bytes()), ..record });
    }

    /// Takes the next record of the partition.
    pub fn takes(&mut self, record: &RawRecord<'_>) {
        self.records += 1;
        let record = RawRecord { offset: self.records, ..record.clone() };
        let decision = self.decides(&record);
        assert_eq!(
            format!("{decision:?}"),
            format!("{:?}", self.decides(&record)),
            "the same record, decided otherwise"
        );
        match decision {
            Decision::Unchanged | Decision::Stale | Decision::Reject(_) => {}
            Decision::Same(known) => self.devices.learn(key_of(&record), known),
            Decision::Emit(emission) => self.emits(&record, *emission),
        }
        let again = self.decides(&record);
        assert!(!matches!(again, Decision::Emit(_)), "the same record once more is an event: {again:?}");
    }

    fn decides(&self, record: &RawRecord<'_>) -> Decision {
        decide(&self.tools.rules, record, &self.devices, &mut |_| {})
    }

    fn emits(&mut self, record: &RawRecord<'_>, mut emission: Emission) {
        if let Some(rendering) = emission.state.present() {
            let device = self.tools.rules.mapping.device_from_json(&rendering.device).expect("a device can be read");
            assert_eq!(device, emission.device);
        }
        let mut written = |encoder: &Encoder| {
            let event = event::record(record, &mut emission, &self.tools.rules, encoder, "raw")
                .expect("an event can be written");
            event.value.expect("an event has a value")
        };
        let json: Value = serde_json::from_slice(&written(&self.tools.json)).expect("an event is JSON");
        match DECODER.decode(Some(&written(&self.tools.avro))) {
            Ok(Decoded::Value(mut avro)) => {
                // An object of any form, which Avro has no type for.
                if let Some(unmapped) = avro.get_mut("unmapped").filter(|unmapped| unmapped.is_string()) {
                    *unmapped = unmapped.as_str().and_then(|text| serde_json::from_str(text).ok()).expect("JSON");
                }
                assert_eq!(without_absent(avro), without_absent(json), "Avro and JSON differ");
            }
            other => panic!("an event cannot be read: {other:?}"),
        }
        let state = &emission.state;
        let encoded = self.tools.changelog.encode(state).expect("a state can be written");
        assert_eq!(self.tools.changelog.decode(&encoded).as_ref(), Ok(state), "written and read");
        let key = key_of(record);
        self.devices.put(key, Some(state.clone()));
        assert_eq!(self.devices.get(key).as_ref(), Some(state), "packed and unpacked");
        self.devices.settle();
    }
}

fn key_of<'a>(record: &RawRecord<'a>) -> &'a str {
    record.key.and_then(|key| std::str::from_utf8(key).ok()).expect("without a key a record is rejected")
}

/// In JSON an absent member is left out; in Avro it is null, or empty.
fn without_absent(value: Value) -> Value {
    let is_absent = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(list) => list.into_iter().map(without_absent).collect(),
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !is_absent(value))
            .map(|(name, value)| (name, without_absent(value)))
            .collect(),
        leaf => leaf,
    }
}
