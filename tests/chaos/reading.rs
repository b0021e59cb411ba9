//! The topics as the judge takes them. Avro is read by the library and the schemas, not by the program.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use super::checker::{Event, Histories, History, Look, Raw, Sight, State, Sweep, What};
use crate::collector::churn::{Head, complete};
use crate::support::ec2::{self, Fields, Machine};
use crate::support::kafka::{Read, TestTopics};
use crate::support::trial::is_of_load;

/// Before the Avro of Confluent's wire format: a zero and the schema's ID.
const WIRE_FORMAT: usize = 5;
/// Before that of a single object: a mark and the schema's fingerprint.
const SINGLE_OBJECT: usize = 10;

/// All raw records that a consumer may see.
pub fn raw(topics: &TestTopics) -> Vec<Raw> {
    let mut records = Vec::new();
    topics.read_each("raw", "read_committed", |read| records.push(raw_record(&read)));
    records
}

fn raw_record(read: &Read) -> Raw {
    let at = read.header("observed-at").expect("a time of observation");
    // Nothing is seen after it is written: the clock may have been stepped between the two.
    let at = DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis().min(read.timestamp);
    let id = read.key().to_owned();
    let (sight, shown) = match &read.value {
        None if read.header("reason") == Some("terminated") => (Sight::Terminated, None),
        None => (Sight::Absent, None),
        Some(_) => {
            let instance = read.json();
            let shown = (!is_of_load(&id)).then(|| shown_by(&instance));
            let sight = match instance["State"]["Name"].as_str() {
                Some("terminated") => Sight::Terminated,
                _ => Sight::Seen(look_of_instance(&instance)),
            };
            (sight, shown)
        }
    };
    let sweep = read.header("sweep-id").map(str::to_owned);
    Raw { partition: read.partition, offset: read.offset, id, at, sight, shown, sweep }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn tags(instance: &Value) -> BTreeMap<String, String> {
    let tags = instance["Tags"].as_array().into_iter().flatten();
    tags.map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect()
}

fn look_of_instance(instance: &Value) -> Look {
    let name = tags(instance).remove("Name").unwrap_or_else(|| text(&instance["InstanceId"]));
    let launched: DateTime<Utc> = instance["LaunchTime"].as_str().unwrap().parse().unwrap();
    let launched = launched.to_rfc3339_opts(SecondsFormat::Secs, true);
    Look { name, state: text(&instance["State"]["Name"]), launched }
}

fn shown_by(instance: &Value) -> String {
    format!("{} {} {:?}", text(&instance["State"]["Name"]), text(&instance["LaunchTime"]), tags(instance))
}

/// The same of what EC2 has.
fn shown_as(fields: &Fields) -> Option<String> {
    let launched = fields.launched_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    (fields.state != ec2::State::Vanished).then(|| format!("{} {launched} {:?}", fields.state.name(), fields.tags))
}

/// What EC2 showed of all instances.
pub fn histories(model: &BTreeMap<String, Machine>) -> Histories {
    let history = |machine: &Machine| History {
        scope: format!("fleet/{}/{}", machine.account, machine.region),
        shown: machine.history.iter().map(|(at, fields)| (at.timestamp_millis(), shown_as(fields))).collect(),
    };
    model.iter().map(|(id, machine)| (id.clone(), history(machine))).collect()
}

/// The sweeps that are on record as complete.
pub fn sweeps(topics: &TestTopics) -> Vec<Sweep> {
    let sweep = |head: Head| Sweep {
        id: head.sweep,
        scope: head.scope,
        began: head.began.timestamp_millis(),
        ended: head.ended.expect("it is complete").timestamp_millis(),
    };
    complete(topics).into_iter().map(sweep).collect()
}

/// How EC2 shows all instances in the end: none where there is no device any more.
pub fn now(model: &BTreeMap<String, Machine>) -> BTreeMap<String, Option<Look>> {
    let look = |machine: &Machine| {
        let fields = machine.now();
        machine.is_alive().then(|| Look {
            name: fields.tags.get("Name").unwrap_or(&machine.id).clone(),
            state: fields.state.name().to_owned(),
            launched: fields.launched_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        })
    };
    model.iter().map(|(id, machine)| (id.clone(), look(machine))).collect()
}

/// All events that a consumer may see.
pub fn events(topics: &TestTopics) -> Vec<Event> {
    let schema = Schema::parse_str(include_str!("../../schemas/sekoia.avsc")).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let mut events = Vec::new();
    topics.read_each("events", "read_committed", |read| {
        let mut avro = &read.value.as_deref().expect("an event has a value")[WIRE_FORMAT..];
        let value: Value = reader.read_value(&mut avro).unwrap().try_into().unwrap();
        events.push(event(&read, &value));
    });
    events
}

fn event(read: &Read, value: &Value) -> Event {
    let header = |name: &str| read.header(name).unwrap_or_else(|| panic!("no header {name}: {read:?}"));
    let what = match header("change") {
        "created" => What::Created,
        "updated" => What::Updated,
        "removed" => What::Removed,
        other => panic!("{other:?} is not expected: {read:?}"),
    };
    Event {
        partition: read.partition,
        offset: read.offset,
        id: read.key().to_owned(),
        cause: (header("raw-partition").parse().unwrap(), header("raw-offset").parse().unwrap()),
        revision: header("revision").parse().unwrap(),
        what,
        look: look_of_device(&value["device"]),
    }
}

fn look_of_device(device: &Value) -> Look {
    Look { name: text(&device["name"]), state: text(&device["state"]), launched: text(&device["boot_time"]) }
}

/// The last state of each device.
pub fn states(topics: &TestTopics) -> BTreeMap<String, State> {
    let schema = Schema::parse_str(include_str!("../../schemas/device-state.avsc")).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let mut states = BTreeMap::new();
    topics.read_each("state", "read_committed", |read| {
        let Some(mut avro) = read.value.as_deref().and_then(|value| value.get(SINGLE_OBJECT..)) else {
            states.remove(read.key());
            return;
        };
        let value: Value = reader.read_value(&mut avro).unwrap().try_into().unwrap();
        let look = value["device"].as_str().map(|json| {
            let device: Value = serde_json::from_str(json).unwrap();
            look_of_device(device.get("device").unwrap_or(&device))
        });
        let look = look.filter(|_| value["removed"].is_null());
        states.insert(read.key().to_owned(), State { revision: value["revision"].as_u64().unwrap(), look });
    });
    states
}
