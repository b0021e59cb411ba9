//! The steps of the mapper and of the collector, one core, no Kafka. `./dev bench micro` runs them, each named after what
//! it does with one record; items/s are records/s.

#![allow(missing_docs)]

#[allow(dead_code, reason = "shared with the measurements of processes")]
#[path = "../measure/fleet.rs"]
mod fleet;

use std::fmt;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fleet::{Sample, mapping, site};
use rollcall::collector::xml;
use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::decide::{Decision, Emission, Rules, decide};
use rollcall::mapper::event;
use rollcall::mapper::state::Devices;
use rollcall::profile::encode::{Encoder, Framing};
use rollcall::profile::{Profile, Scope};
use rollcall::record::{
    AWS_ACCOUNT, AWS_REGION, Digest, OBSERVED_AT, RawRecord, SCHEMA, SCHEMA_VERSION, SWEEP_ID, Secret, canonical,
};
use serde_json::{Value, json};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// Different records in turn: one alone would stay in the caches.
const RECORDS: usize = 1000;
const PARTITIONS: i32 = 1;
/// Instances of a response of EC2.
const PAGE: usize = 100;

/// What a record holds.
#[derive(Clone, Copy)]
enum Size {
    /// 3 kB, six tags, one interface.
    Typical,
    /// The ID.
    Minimal,
    /// 50 tags, 15 interfaces.
    Large,
}

const SIZES: [Size; 3] = [Size::Typical, Size::Minimal, Size::Large];

/// A profile and a size, as an argument of a benchmark.
#[derive(Clone, Copy)]
struct Case(Profile, Size);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.name(), self.1)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Typical => "typical",
            Self::Minimal => "minimal",
            Self::Large => "large",
        })
    }
}

fn cases() -> impl Iterator<Item = Case> {
    Profile::ALL.into_iter().flat_map(|profile| SIZES.map(|size| Case(profile, size)))
}

fn typical() -> impl Iterator<Item = Case> {
    cases().filter(|case| matches!(case.1, Size::Typical))
}

fn samples(size: Size) -> Vec<Sample> {
    let mut samples: Vec<_> = site(7, RECORDS).collect();
    for sample in &mut samples {
        sample.json = match size {
            Size::Typical => continue,
            Size::Minimal => json!({ "InstanceId": sample.id }).to_string(),
            Size::Large => enlarged(&sample.json),
        };
    }
    samples
}

fn enlarged(json: &str) -> String {
    let mut instance: Value = serde_json::from_str(json).unwrap();
    let tag = |number: usize| json!({"Key": format!("team/{number}"), "Value": format!("value of tag {number}")});
    let name = json!({"Key": "Name", "Value": "large"});
    instance["Tags"] = std::iter::once(name).chain((1..50).map(tag)).collect();
    let interfaces = instance["NetworkInterfaces"].as_array().cloned().unwrap_or_default();
    let enlarged = interfaces.iter().cycle().take(15).enumerate().map(|(number, interface)| {
        let mut interface = interface.clone();
        interface["NetworkInterfaceId"] = format!("eni-{number:017x}").into();
        interface["Attachment"]["DeviceIndex"] = number.into();
        interface
    });
    instance["NetworkInterfaces"] = enlarged.collect();
    instance.to_string()
}

/// The raw record that a collector makes of an instance.
fn record<'a>(sample: &'a Sample, json: &'a str, observed_at: &'a str) -> RawRecord<'a> {
    RawRecord {
        partition: 0,
        offset: 7,
        timestamp_ms: 1_767_225_700_000,
        key: Some(sample.id.as_bytes()),
        value: Some(json.as_bytes()),
        headers: [
            (OBSERVED_AT, observed_at),
            (SWEEP_ID, "01990000-0000-7000-8000-000000000000"),
            (AWS_ACCOUNT, "123456789012"),
            (AWS_REGION, "eu-west-1"),
            (SCHEMA, SCHEMA_VERSION),
        ]
        .map(|(name, value)| (name, Some(value.as_bytes())))
        .to_vec(),
    }
}

const FIRST: &str = "1767225600000";
const SECOND: &str = "1767229200000";

/// The mapper's pure middle.
struct Mapper {
    rules: Rules,
    encoder: Encoder,
    changelog: Changelog,
    devices: Devices,
}

impl Mapper {
    fn new(profile: Profile) -> Self {
        Self {
            rules: Rules::new(mapping(profile), PARTITIONS, 1 << 20),
            encoder: Encoder::avro(profile, Framing::Confluent { schema_id: 7 }).unwrap(),
            changelog: Changelog::new(profile).unwrap(),
            devices: Devices::default(),
        }
    }

    /// One that knows a fleet.
    fn knowing(profile: Profile, samples: &[Sample]) -> Self {
        let mut mapper = Self::new(profile);
        samples.iter().for_each(|sample| mapper.learn(sample));
        mapper.devices.settle();
        mapper
    }

    fn learn(&mut self, sample: &Sample) {
        let emission = self.map(&record(sample, &sample.json, FIRST)).expect("a first event");
        self.devices.put(&sample.id, Some(emission.state));
    }

    /// All that is made of a record but the sending; the state that follows, if it says something.
    fn map(&self, record: &RawRecord<'_>) -> Option<Box<Emission>> {
        let mut emission = self.decide(record)?;
        self.encode(record, &mut emission);
        Some(emission)
    }

    fn decide(&self, record: &RawRecord<'_>) -> Option<Box<Emission>> {
        match decide(&self.rules, record, &self.devices, &mut |_| {}) {
            Decision::Emit(emission) => Some(emission),
            _ => None,
        }
    }

    fn encode(&self, record: &RawRecord<'_>, emission: &mut Emission) {
        black_box(event::record(record, emission, &self.rules, &self.encoder, "raw").unwrap());
        black_box(self.changelog.record(record, &emission.state).unwrap());
    }
}

/// Runs a step on one record after the other.
fn each(bencher: Bencher<'_, '_>, samples: &[Sample], mut step: impl FnMut(&Sample)) {
    let mut turn = samples.iter().cycle();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| step(turn.next().unwrap()));
}

#[divan::bench(args = cases())]
fn parse(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let mapping = mapping(profile);
    each(bencher, &samples(size), |sample| drop(black_box(mapping.read(&sample.json).unwrap())));
}

#[divan::bench(args = cases())]
fn parse_map(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let mapping = mapping(profile);
    let scope = Scope { account: Some("123456789012"), region: Some("eu-west-1") };
    each(bencher, &samples(size), |sample| {
        let reading = mapping.read(&sample.json).unwrap();
        black_box(mapping.render(&sample.id, &reading, scope));
    });
}

/// The first event of an instance: parse, map, compare with nothing, encode event and state.
#[divan::bench(args = cases())]
fn created(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let mapper = Mapper::new(profile);
    each(bencher, &samples(size), |sample| drop(black_box(mapper.map(&record(sample, &sample.json, FIRST)))));
}

/// Of a first event, event and state to Avro.
#[divan::bench(args = cases())]
fn encode(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let (mapper, samples) = (Mapper::new(profile), samples(size));
    let mut turn = samples.iter().cycle();
    let next = || {
        let sample = turn.next().unwrap();
        let record = record(sample, &sample.json, FIRST);
        let emission = mapper.decide(&record).expect("a first event");
        (record, emission)
    };
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(next)
        .bench_local_values(|(record, mut emission)| mapper.encode(&record, &mut emission));
}

/// An instance with another name, which neither profile `cse` nor a minimal record has: parse, map, compare, encode event
/// and state.
#[divan::bench(args = cases().filter(|case| case.0 != Profile::Cse && !matches!(case.1, Size::Minimal)))]
fn updated(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let samples = samples(size);
    let mapper = Mapper::knowing(profile, &samples);
    let revised: Vec<_> = samples.iter().map(|sample| sample.revised(1)).collect();
    let mut turn = samples.iter().zip(&revised).cycle();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let (sample, json) = turn.next().unwrap();
        black_box(mapper.map(&record(sample, json, SECOND)).expect("an event"));
    });
}

/// Other bytes, the same device: parse, map and compare.
#[divan::bench(args = cases())]
fn same(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let samples = samples(size);
    let mapper = Mapper::knowing(profile, &samples);
    let other: Vec<_> = samples.iter().map(|sample| format!("{} ", sample.json)).collect();
    let mut turn = samples.iter().zip(&other).cycle();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let (sample, json) = turn.next().unwrap();
        assert!(mapper.map(&record(sample, json, SECOND)).is_none());
    });
}

/// The same bytes.
#[divan::bench(args = cases())]
fn unchanged(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let samples = samples(size);
    let mapper = Mapper::knowing(profile, &samples);
    let records: Vec<_> = samples.iter().map(|sample| record(sample, &sample.json, SECOND)).collect();
    let mut turn = records.iter().cycle();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| assert!(mapper.map(turn.next().unwrap()).is_none()));
}

/// The same of a million devices, a tenth of which come in turn: neither records nor devices are in a cache.
#[divan::bench]
fn unchanged_of_a_million(bencher: Bencher<'_, '_>) {
    let (mut mapper, mut samples) = (Mapper::new(Profile::Sekoia), Vec::new());
    for seed in 0..500 {
        for sample in site(seed, 2000) {
            mapper.learn(&sample);
            if samples.len() * 10 < mapper.devices.len() {
                samples.push(sample);
            }
        }
        mapper.devices.settle();
    }
    let records: Vec<_> = samples.iter().map(|sample| record(sample, &sample.json, SECOND)).collect();
    let mut turn = records.iter().cycle();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| assert!(mapper.map(turn.next().unwrap()).is_none()));
}

#[divan::bench(args = SIZES)]
fn digest(bencher: Bencher<'_, '_>, size: Size) {
    each(bencher, &samples(size), |sample| {
        let value = sample.json.as_bytes();
        black_box(Digest::by(Secret::own(), value, Some("123456789012"), Some("eu-west-1")));
    });
}

#[divan::bench(args = typical())]
fn state_get(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let samples = samples(size);
    let mapper = Mapper::knowing(profile, &samples);
    each(bencher, &samples, |sample| drop(black_box(mapper.devices.get(&sample.id).expect("it is known"))));
}

#[divan::bench(args = typical())]
fn state_put(bencher: Bencher<'_, '_>, Case(profile, size): Case) {
    let samples = samples(size);
    let mut mapper = Mapper::knowing(profile, &samples);
    let states: Vec<_> = samples.iter().map(|sample| mapper.devices.get(&sample.id)).collect();
    let mut turn = samples.iter().zip(&states).cycle();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let (sample, state) = turn.next().unwrap();
        mapper.devices.put(&sample.id, state.clone());
        mapper.devices.settle();
    });
}

/// A page of DescribeInstances: XML to raw records.
#[divan::bench(args = SIZES)]
fn xml_to_raw(bencher: Bencher<'_, '_>, size: Size) {
    let samples = &samples(size)[..PAGE];
    let mut body = "<DescribeInstancesResponse>\n    <reservationSet>".to_owned();
    for sample in samples {
        let mut instance: Value = serde_json::from_str(&sample.json).unwrap();
        body += "\n        <item>";
        for name in ["ReservationId", "OwnerId"] {
            if let Some(value) = instance.as_object_mut().unwrap().remove(name) {
                write_xml(3, &element_of(name, &value), &value, &mut body);
            }
        }
        write_xml(3, "instancesSet", &Value::from(vec![instance]), &mut body);
        body += "\n        </item>";
    }
    body += "\n    </reservationSet>\n</DescribeInstancesResponse>";
    let first = serde_json::from_str(&samples[0].json).unwrap();
    assert_eq!(xml::decode_raw(body.as_bytes()).unwrap().instances[0].json, canonical::to_bytes(first));
    bencher
        .counter(ItemsCount::new(samples.len()))
        .bench_local(|| drop(black_box(xml::decode_raw(black_box(body.as_bytes())).unwrap())));
}

/// As EC2 writes it: a line for each element, indented by `depth`; members in an order that is not the alphabet's.
fn write_xml(depth: usize, name: &str, value: &Value, xml: &mut String) {
    let line = format!("\n{}", "    ".repeat(depth));
    *xml += &format!("{line}<{name}>");
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.bytes().rev().collect::<Vec<_>>());
            for (name, value) in members {
                write_xml(depth + 1, &element_of(name, value), value, xml);
            }
            *xml += &line;
        }
        Value::Array(elements) => {
            elements.iter().for_each(|element| write_xml(depth + 1, "item", element, xml));
            *xml += &line;
        }
        Value::String(text) => *xml += text,
        other => *xml += &other.to_string(),
    }
    *xml += &format!("</{name}>");
}

/// The element that a member is written as: most are it themselves, but for the capital.
fn element_of(member: &str, value: &Value) -> String {
    match member {
        "BlockDeviceMappings" => "blockDeviceMapping".to_owned(),
        "Groups" | "SecurityGroups" => "groupSet".to_owned(),
        "Ipv6Addresses" | "PrivateIpAddresses" => format!("{}{}Set", member[..1].to_lowercase(), &member[1..]),
        "NetworkInterfaces" => "networkInterfaceSet".to_owned(),
        "PublicDnsName" => "dnsName".to_owned(),
        "PublicIpAddress" => "ipAddress".to_owned(),
        "State" if value.is_object() => "instanceState".to_owned(),
        "StateTransitionReason" => "reason".to_owned(),
        "Tags" => "tagSet".to_owned(),
        _ => format!("{}{}", member[..1].to_lowercase(), &member[1..]),
    }
}
