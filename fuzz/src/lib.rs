//! What is promised of foreign bytes, a function for each kind of them: no panic, no hang, and that what comes out holds.
//!
//! Two call them: the targets of cargo-fuzz (`fuzz_targets`, by `./dev fuzz`), which search for bytes that break a promise,
//! and the test suite (`tests/fuzz.rs`), which brings the bytes that are kept in `corpus`, and those with some damage.

#![forbid(unsafe_code)]

mod mapper;
mod terminal;

use std::sync::{LazyLock, Mutex, PoisonError};

use mapper::Mapper;
use rollcall::collector::ledger::record::{Key, Record};
use rollcall::collector::{file, xml};
use rollcall::config::{self, Override, import};
use rollcall::mapper::state::Devices;
use rollcall::profile::Profile;
use rollcall::record::canonical::{Instance, to_bytes};
use rollcall::record::dump::DumpedRecord;
use rollcall::registry::difference::differences;
use rollcall::tail::Topic;
use rollcall::tail::decode::{Decoded, Decoder};
use serde_json::{Map, Value};

/// Panics where a promise is broken.
pub type Promise = fn(&[u8]);

/// Every target by its name, which is that of its corpus too.
pub const TARGETS: [(&str, Promise); 7] = [
    ("avro", avro),
    ("config", config),
    ("dump", dump),
    ("ec2_xml", ec2_xml),
    ("raw_record", raw_record),
    ("registry", registry),
    ("state_record", state_record),
];

/// The ID by which the decoder knows the schema of profile `sekoia`, as if a registry had told it.
const SCHEMA_ID: u32 = 1;

/// Records of the raw topic, mapped one after another in every profile: `#NAME=VALUE` a line is a header, the rest the value,
/// an empty line ends a record, and one without a value is a tombstone.
pub fn raw_record(bytes: &[u8]) {
    for mut mapper in Mapper::all() {
        parts(bytes, b"\n\n").into_iter().take(8).for_each(|record| mapper.takes_text(record));
    }
}

/// The body of an answer of EC2.
pub fn ec2_xml(bytes: &[u8]) {
    match (xml::decode_raw(bytes), xml::decode(bytes)) {
        (Ok(raw), Ok(page)) => {
            assert_eq!(raw.next_token, page.next_token);
            assert_eq!(raw.instances.len(), page.instances.len());
            for (raw, members) in raw.instances.into_iter().zip(page.instances) {
                assert_eq!(raw.json, to_bytes(members), "the two ways to a raw record differ");
                let written: Map<String, Value> = serde_json::from_slice(&raw.json).expect("a raw record is JSON");
                assert_eq!(Instance::of_map(&written), raw, "a raw record is its own canonical form");
            }
        }
        (Err(raw), Err(members)) => assert_eq!(raw.to_string(), members.to_string()),
        (raw, members) => panic!("one is a page: {:?} {:?}", raw.err(), members.err()),
    }
    let _ = (xml::decode_tags(bytes), xml::decode_images(bytes), xml::decode_regions(bytes));
}

/// A configuration in YAML, and after a line `%` what overrides it: variables or flags, `NAME=VALUE` a line. And the
/// configuration of a Sumo Logic source.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (yaml, overrides) = text.split_once("\n%\n").unwrap_or((text, ""));
    let read = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Override::from_variable(name, value).or_else(|| Override::from_flag(line).ok())
    };
    let overrides: Vec<_> = overrides.lines().take(8).filter_map(read).collect();
    match config::parse(yaml, &overrides) {
        Err(error) => assert!(!error.0.is_empty(), "a refusal gives no reason"),
        Ok(config) => {
            let _ = config.mapping();
            let written = serde_json::to_string(&config).expect("a configuration can be shown");
            // What is secret cannot be read again.
            if !written.contains("(redacted)") {
                assert_eq!(config::parse(&written, &[]), Ok(config), "shown as {written}");
            }
        }
    }
    if let Ok(translation) = import::translate(yaml) {
        serde_json::to_string(&translation.document).expect("a translation can be written");
    }
}

/// The value of a record of the state topic or of `ec2.sweeps`.
pub fn state_record(bytes: &[u8]) {
    for changelog in mapper::changelogs() {
        let Ok(state) = changelog.decode(bytes) else { continue };
        let written = changelog.encode(&state).expect("what was read can be written");
        assert_eq!(changelog.decode(&written).as_ref(), Ok(&state));
        let mut devices = Devices::default();
        devices.restore("i-1", Some(state.clone()));
        assert_eq!(devices.get("i-1"), Some(state), "packed and unpacked");
    }
    for key in [Key::Head("s/1/r"), Key::Entry("s/1/r", "i-1"), Key::Acceptance("s/1/r")] {
        let Ok(record) = Record::decode(&key, Some(bytes)) else { continue };
        let written = record.encode();
        assert_eq!(Record::decode(&key, written.as_deref()).as_ref(), Ok(&record));
    }
    if let Some(key) = Key::parse(bytes) {
        assert_eq!(Key::parse(key.to_string().as_bytes()), Some(key));
    }
}

/// A record's value of whatever form: framed for a registry, in single-object encoding, JSON, or none of these.
pub fn avro(bytes: &[u8]) {
    static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
        let mut decoder = Decoder::default();
        decoder.learn(SCHEMA_ID, Ok(Profile::Sekoia.schema_json().to_owned()));
        decoder
    });
    if let Ok(decoded) = DECODER.decode(Some(bytes)) {
        terminal::shows(Topic::Events, &mapper::record(Some(bytes), Vec::new()), &decoded);
    }
}

/// A schema as a registry may answer, and after a line `%` a value that is said to be written with it.
pub fn registry(bytes: &[u8]) {
    let mut parts = parts(bytes, b"\n%\n").into_iter();
    let Some(Ok(schema)) = parts.next().map(std::str::from_utf8) else { return };
    for ours in [Profile::Sekoia.schema_json(), schema] {
        for difference in differences(schema, ours).unwrap_or_default() {
            assert_ne!(schema, ours, "{difference}");
        }
    }
    static DECODER: LazyLock<Mutex<Decoder>> = LazyLock::new(Mutex::default);
    let mut decoder = DECODER.lock().unwrap_or_else(PoisonError::into_inner);
    decoder.learn(SCHEMA_ID, Ok(schema.to_owned()));
    let framed = [&[0], SCHEMA_ID.to_be_bytes().as_slice(), parts.next().unwrap_or_default()].concat();
    let decoded = decoder.decode(Some(&framed));
    assert!(decoded.is_ok(), "the registry would be asked again and again");
}

/// A line of a file that is replayed, or the text of a file of instances.
pub fn dump(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = file::instances(text).map(|found| found.iter().map(Instance::of_value).count());
    let Ok(dumped) = serde_json::from_str::<DumpedRecord>(text) else { return };
    let written = serde_json::to_string(&dumped).expect("what was read can be written");
    assert_eq!(serde_json::from_str::<DumpedRecord>(&written).ok().as_ref(), Some(&dumped));
    let record = dumped.raw(0, 0);
    Mapper::all().for_each(|mut mapper| mapper.takes(&record));
    let decoded = record.value.map_or(Decoded::Tombstone, rollcall::tail::decode::json);
    for topic in Topic::ALL {
        terminal::shows(topic, &record, &decoded);
    }
}

/// The parts between separators.
fn parts<'a>(bytes: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(separator.len()).position(|window| window == separator) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}
