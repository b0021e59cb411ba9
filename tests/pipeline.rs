//! From the EC2 API to change events: moto is EC2, boto3 and the reference mapping say what must come out.
//!
//! moto serves all tests. Each of these has regions of its own and takes whatever it finds there for the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde_json::{Value, json};

use crate::collector::AWS;
use crate::support::kafka::{Read, TestTopics, flush, producer, read_committed, send};
use crate::support::process::Stage;
use crate::support::stages::{Told, map_all, told_with_registry, wait_until_mapped, without_absent};
use crate::support::{python, server};
/// The account that those belong to.
const OWN_ACCOUNT: &str = "123456789012";
const PARTITIONS: i32 = 6;
const PAGE_SIZE: usize = 5;

// === A fleet that is swept twice and does not change in between ===

const REGIONS: [&str; 3] = ["ap-south-2", "ca-west-1", "il-central-1"];
const INSTANCES_PER_REGION: usize = 70;

struct Swept {
    topics: TestTopics,
    config: Value,
    /// What boto3 reads, by instance ID: region and instance.
    instances: BTreeMap<String, (String, Value)>,
    /// The raw records of both sweeps.
    raw: Vec<Read>,
    /// What the collector logged of each scope's first sweep.
    sweeps: Vec<Value>,
    /// When the sweeps began and ended.
    between: [DateTime<Utc>; 2],
}

static SWEPT: LazyLock<Swept> = LazyLock::new(|| {
    let (topics, config) = prepare(&REGIONS, json!({}));
    populate(&REGIONS, INSTANCES_PER_REGION, None);
    let began = Utc::now();
    let sweeps = collect_once(&config);
    collect_once(&config);
    let between = [began, Utc::now()];
    let raw = read_committed(&topics.name("raw"));
    Swept { instances: instances(&REGIONS, None), topics, config, raw, sweeps, between }
});

impl Swept {
    /// The records of each instance, by ID, in the order of the sweeps.
    fn by_instance(&self) -> BTreeMap<&str, Vec<&Read>> {
        let mut records: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for record in &self.raw {
            records.entry(record.key()).or_default().push(record);
        }
        records
    }
}

#[test]
fn a_sweep_goes_through_all_pages() {
    let swept = &*SWEPT;
    assert_eq!(swept.sweeps.len(), REGIONS.len());
    for region in REGIONS {
        let scope = format!("moto/{OWN_ACCOUNT}/{region}");
        let sweep = swept.sweeps.iter().find(|sweep| sweep["scope"] == *scope).expect(&scope);
        let instances: Vec<_> = swept.instances.values().filter(|(of, _)| of == region).collect();
        assert!(instances.len() >= INSTANCES_PER_REGION);
        assert_eq!(sweep["instances"], instances.len(), "{scope}");
        // Whether EC2 counts instances or reservations on a page it does not say; moto counts reservations.
        let reservations =
            BTreeSet::from_iter(instances.iter().map(|(_, instance)| instance["ReservationId"].as_str()));
        let pages = sweep["pages"].as_u64().unwrap() as usize;
        assert!(pages > 1 && pages >= reservations.len().div_ceil(PAGE_SIZE), "{sweep}");
    }
}

#[test]
fn a_raw_record_is_what_ec2_says_of_the_instance_member_for_member() {
    let swept = &*SWEPT;
    let records = swept.by_instance();
    assert_eq!(Vec::from_iter(records.keys()), Vec::from_iter(swept.instances.keys()));
    for (id, (_, instance)) in &swept.instances {
        for record in &records[id.as_str()] {
            assert_eq!(comparable(record.json()), comparable(instance.clone()), "{id}");
        }
    }
    let all = serde_json::to_string(&Vec::from_iter(swept.instances.values())).unwrap();
    for oddity in
        ["サーバー", "größe & \\\"quote\\\" <", "]]> ", "&amp;", "\"terminated\"", "IamInstanceProfile", "/dev/sdf"]
    {
        assert!(all.contains(oddity), "no instance tests {oddity}");
    }
}

#[test]
fn a_raw_record_is_keyed_by_its_instance_and_lies_where_every_jvm_client_would_put_it() {
    let swept = &*SWEPT;
    let others = TestTopics::create(PARTITIONS);
    let producer = producer();
    for id in swept.instances.keys() {
        send(&producer, &others.name("raw"), Some(id.as_bytes()), None, &[], None);
    }
    flush(&producer);
    let elsewhere = read_committed(&others.name("raw"));
    let partitions: BTreeMap<_, _> = elsewhere.iter().map(|record| (record.key(), record.partition)).collect();
    assert_eq!(BTreeSet::from_iter(partitions.values()).len(), PARTITIONS as usize);
    for record in &swept.raw {
        assert_eq!(record.json()["InstanceId"], record.key());
        assert_eq!(record.partition, partitions[record.key()], "{}", record.key());
    }
}

#[test]
fn the_headers_of_a_raw_record_tell_when_and_by_which_sweep_its_instance_was_seen() {
    let swept = &*SWEPT;
    let [began, ended] = swept.between;
    let mut scopes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in &swept.raw {
        let (region, _) = &swept.instances[record.key()];
        let mut headers: BTreeMap<_, _> =
            record.headers.iter().map(|(name, _)| (name.as_str(), record.header(name).unwrap())).collect();
        assert_eq!(headers.len(), record.headers.len(), "a header twice: {headers:?}");

        let observed_at = headers.remove("observed-at").unwrap();
        let at = DateTime::parse_from_rfc3339(observed_at).unwrap().to_utc();
        assert_eq!(at.to_rfc3339_opts(SecondsFormat::Millis, true), observed_at);
        // EC2's clock, by the header `Date` of its response, which has whole seconds.
        assert_eq!(at, at.trunc_subsecs(0));
        assert!(began.trunc_subsecs(0) <= at && at <= ended, "{observed_at} is not between {began} and {ended}");

        scopes.entry(headers.remove("sweep-id").unwrap()).or_default().insert(region);
        let expected = [
            ("aws-account", OWN_ACCOUNT),
            ("aws-partition", "aws"),
            ("aws-region", region),
            ("field.env", "test"),
            ("field.owner of it", "größe & co"),
            ("schema", "ec2-instance/1"),
            ("source", "moto"),
            ("source-category", "aws/inventory"),
        ];
        assert_eq!(headers, BTreeMap::from(expected), "{}", record.key());
    }
    assert_eq!(scopes.len(), 2 * REGIONS.len(), "each sweep of a scope has an ID of its own");
    assert!(scopes.values().all(|regions| regions.len() == 1), "{scopes:?}");
}

#[test]
fn two_sweeps_of_an_unchanged_fleet_give_the_same_bytes() {
    for (id, records) in SWEPT.by_instance() {
        let [first, second] = records[..] else { panic!("{id}: {} records", records.len()) };
        let [before, after] = [first, second].map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap());
        assert_eq!(before, after, "{id}");
        assert!(first.header("sweep-id") < second.header("sweep-id"), "{id}: later sweeps have greater IDs");
        assert!(first.header("observed-at") <= second.header("observed-at"), "{id}");
    }
}

#[test]
fn a_fleet_swept_twice_comes_out_once_as_the_reference_maps_it() {
    let swept = &*SWEPT;
    let expected = alive(reference(&REGIONS));
    map_all(&swept.topics, &swept.config);
    let events = told_with_registry(&swept.topics);
    for event in &events {
        assert_eq!(without_absent(event.value.clone()), expected[&event.key], "{}", event.key);
        assert_eq!(Outcome::of(event), Outcome::created(), "{}", event.key);
    }
    let keys: Vec<_> = events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(BTreeSet::from_iter(keys.iter().copied()), expected.keys().map(String::as_str).collect());
    assert_eq!(keys.len(), expected.len(), "an instance came out twice");
    assert!(expected.len() < swept.instances.len(), "no terminated instance puts it to the test");
    assert_eq!(read_committed(&swept.topics.name("dlq")), []);
}

// === A fleet that changes ===

const CHANGING: &str = "me-central-1";

#[test]
fn each_change_of_an_instance_is_one_event_and_nothing_else_is() {
    let (topics, config) = prepare(&[CHANGING], json!({}));
    populate(&[CHANGING], 40, None);
    let _mapper = Stage::start(&["map"], &config);
    let sweep = || {
        collect_once(&config);
        wait_until_mapped(&topics);
        told_with_registry(&topics)
    };

    let before = reference(&[CHANGING]);
    let created = sweep();
    assert_eq!(created.len(), alive(before.clone()).len());
    assert_eq!(sweep(), created, "a sweep of the unchanged fleet emitted something");

    // One instance for each thing that can happen.
    let fleet = instances(&[CHANGING], None);
    let mut running =
        in_state(&fleet, "running").filter(|instance| before[id(instance)]["device"]["name"] != *id(instance));
    let mut next = || running.next().expect("enough running instances that have a name");
    let (stopped, renamed, unnamed, regrouped, terminated, unseen) = (next(), next(), next(), next(), next(), next());
    let started = in_state(&fleet, "stopped").next().unwrap();
    let old_groups = groups(regrouped);
    let new_group = fleet.values().flat_map(|(_, instance)| groups(instance)).find(|group| !old_groups.contains(group));
    let new_group = new_group.expect("a group that the instance is not in");
    edit("stop", stopped, &[]);
    edit("start", started, &[]);
    edit("tag", renamed, &["--tag", &format!("Name={}", topics.prefix)]);
    edit("untag", unnamed, &["--tag", "Name"]);
    edit("set-groups", regrouped, &["--group", new_group]);
    edit("terminate", terminated, &[]);
    // Raw record and state know it, but the profile renders nothing of it.
    edit("tag", unseen, &["--tag", &format!("Heartbeat={}", topics.prefix)]);

    let after = reference(&[CHANGING]);
    let all = sweep();
    let changes = news(&all, &created);
    // With the public address comes and goes the public name.
    let power = || Outcome::updated(&["device.desc", "device.hostname", "device.ip", "device.state"]);
    let mut regrouping: Vec<_> =
        old_groups.iter().chain([&new_group]).map(|group| format!("device.groups[{group}]")).collect();
    regrouping.sort();
    let expected = BTreeMap::from([
        (id(stopped), power()),
        (id(started), power()),
        (id(renamed), Outcome::updated(&["device.name"])),
        (id(unnamed), Outcome::updated(&["device.name"])),
        (id(regrouped), Outcome::updated(&Vec::from_iter(regrouping.iter().map(String::as_str)))),
        (id(terminated), Outcome::removed("terminated")),
    ]);
    let happened: BTreeMap<_, _> = changes.iter().map(|event| (event.key.as_str(), Outcome::of(event))).collect();
    assert_eq!(happened, expected);
    assert_eq!(changes.len(), expected.len(), "an instance came out twice");

    for event in &changes {
        assert_eq!(event.headers["revision"], "2");
        let mut device = after[&event.key].clone();
        if event.key == id(terminated) {
            // Of a terminated instance EC2 knows little: the last known device is reported.
            device = before[&event.key].clone();
            let image = device["device"]["image_id"].as_str().unwrap().to_owned();
            device["device"]["state"] = json!("terminated");
            device["device"]["desc"] = json!(format!("AMI: {image}, State: terminated"));
        }
        assert_eq!(without_absent(event.value.clone()), device, "{}", event.key);
        for field in diff(event) {
            let path = field["path"].as_str().unwrap();
            assert_eq!(field["from"], *at(&before[&event.key], path), "{}: {path}", event.key);
            assert_eq!(field["to"], *at(&after[&event.key], path), "{}: {path}", event.key);
        }
    }
    assert_eq!(at(&after[id(unnamed)], "device.name"), id(unnamed), "without a name it is called by its ID");
    assert_eq!(sweep(), all, "a sweep after the changes emitted something more");
}

// === Accounts ===

#[test]
fn accounts_are_entered_by_their_roles_and_swept_in_every_region() {
    const ROLES: [(&str, &str); 2] = [
        ("111122223333", "arn:aws:iam::111122223333:role/inventory"),
        ("444455556666", "arn:aws:iam::444455556666:role/audit/inventory"),
    ];
    const IN: [&str; 2] = ["af-south-1", "eu-south-2"];
    let accounts: Vec<_> = ROLES.iter().map(|(_, role)| json!({"role_arn": role, "session_name": "test"})).collect();
    let (topics, config) = prepare(&IN, json!({"accounts": accounts}));
    let mut expected = BTreeSet::new();
    for (account, role) in ROLES {
        populate(&IN, 8, Some(role));
        let fleet = instances(&IN, Some(role));
        expected.extend(fleet.into_iter().map(|(id, (region, _))| (account.to_owned(), region, id)));
    }
    // Not asked for: the account that the credentials belong to.
    populate(&IN, 1, None);

    collect_once(&config);

    let raw = read_committed(&topics.name("raw"));
    let mut found = BTreeSet::new();
    for record in &raw {
        let [account, region] = ["aws-account", "aws-region"].map(|name| record.header(name).unwrap().to_owned());
        assert_eq!(record.json()["OwnerId"], *account, "{}", record.key());
        found.insert((account, region, record.key().to_owned()));
    }
    assert_eq!(found, expected);
    assert_eq!(raw.len(), expected.len());
    let scopes: BTreeSet<_> = found.iter().map(|(account, region, _)| (account, region)).collect();
    assert_eq!(scopes.len(), ROLES.len() * IN.len());
}

// === Steps ===

/// Topics, and a configuration of both stages on them: EC2's `regions` in, Avro by the registry out.
fn prepare(regions: &[&str], aws: Value) -> (TestTopics, Value) {
    let topics = TestTopics::create(PARTITIONS);
    let mut config = topics.config();
    let mut source = json!({
        "name": "moto",
        "category": "aws/inventory",
        "fields": {"env": "test", "owner of it": "größe & co"},
        "aws": {"regions": regions, "endpoint_url": server("EC2"), "page_size": PAGE_SIZE},
    });
    for (name, value) in aws.as_object().unwrap() {
        source["aws"][name] = value.clone();
    }
    config["collector"]["sources"] = json!([source]);
    config["mapper"]["encoding"] = json!("avro");
    config["registry"] = json!({"url": server("REGISTRY")});
    (topics, config)
}

/// `rollcall collect --once`; what it logs at the end of each sweep.
fn collect_once(config: &Value) -> Vec<Value> {
    let mut collector = Stage::start_with_env(&["collect", "--once"], config, &AWS);
    let end = collector.wait(Duration::from_secs(60));
    let mut sweeps = Vec::new();
    while let Some(sweep) = collector.try_wait_for(&["sweep complete"], Duration::from_secs(5)) {
        sweeps.push(sweep);
    }
    assert_eq!(end.code(), Some(0), "log:\n{}", collector.tail());
    sweeps
}

fn populate(regions: &[&str], count: usize, role: Option<&str>) {
    let (endpoint, regions, count) = (server("EC2"), regions.join(","), count.to_string());
    let mut arguments = vec!["--endpoint", &endpoint, "--regions", &regions, "--count", &count];
    arguments.extend(role.into_iter().flat_map(|role| ["--role", role]));
    python::client("populate_ec2.py", &arguments);
}

/// What boto3 reads, by instance ID: region and instance.
fn instances(regions: &[&str], role: Option<&str>) -> BTreeMap<String, (String, Value)> {
    let (endpoint, regions) = (server("EC2"), regions.join(","));
    let mut arguments = vec!["--endpoint", &endpoint, "--regions", &regions];
    arguments.extend(role.into_iter().flat_map(|role| ["--role", role]));
    let lines = python::lines("read_ec2.py", &arguments).into_iter();
    lines
        .map(|mut line| {
            let instance = line["instance"].take();
            (id(&instance).to_owned(), (line["region"].as_str().unwrap().to_owned(), instance))
        })
        .collect()
}

/// What the reference makes of what boto3 reads: events by instance ID, those of terminated instances too.
fn reference(regions: &[&str]) -> BTreeMap<String, Value> {
    let lines = python::lines("reference_events.py", &["--endpoint", &server("EC2"), "--regions", &regions.join(",")]);
    let pair = |mut line: Value| (line["instance"].as_str().unwrap().to_owned(), line["event"].take());
    lines.into_iter().map(pair).collect()
}

/// Without those that were terminated before anybody saw them.
fn alive(mut events: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    events.retain(|_, event| event["device"]["state"] != "terminated");
    events
}

fn edit(action: &str, instance: &Value, arguments: &[&str]) {
    let endpoint = server("EC2");
    let common = ["--endpoint", &endpoint, "--region", CHANGING, "--action", action, "--instance", id(instance)];
    python::client("edit_ec2.py", &[&common, arguments].concat());
}

// === Views ===

/// What the headers of an event say has happened.
#[derive(Debug, PartialEq)]
struct Outcome {
    change: String,
    reason: Option<String>,
    changed: Option<Vec<String>>,
}

impl Outcome {
    fn of(event: &Told) -> Self {
        Self {
            change: event.headers["change"].clone(),
            reason: event.headers.get("reason").cloned(),
            changed: event.headers.get("changed").map(|paths| serde_json::from_str(paths).unwrap()),
        }
    }

    fn created() -> Self {
        Self { change: "created".to_owned(), reason: None, changed: None }
    }

    fn updated(changed: &[&str]) -> Self {
        let changed = changed.iter().map(|path| (*path).to_owned()).collect();
        Self { change: "updated".to_owned(), reason: None, changed: Some(changed) }
    }

    fn removed(reason: &str) -> Self {
        Self { change: "removed".to_owned(), reason: Some(reason.to_owned()), changed: None }
    }
}

fn id(instance: &Value) -> &str {
    instance["InstanceId"].as_str().unwrap()
}

fn groups(instance: &Value) -> Vec<&str> {
    instance["SecurityGroups"].as_array().unwrap().iter().map(|group| group["GroupId"].as_str().unwrap()).collect()
}

fn in_state<'a>(fleet: &'a BTreeMap<String, (String, Value)>, state: &'a str) -> impl Iterator<Item = &'a Value> {
    fleet.values().map(|(_, instance)| instance).filter(move |instance| instance["State"]["Name"] == state)
}

/// `all` without what was there before.
fn news(all: &[Told], before: &[Told]) -> Vec<Told> {
    let known: BTreeSet<_> = before.iter().map(|event| (event.partition, event.offset)).collect();
    all.iter().filter(|event| !known.contains(&(event.partition, event.offset))).cloned().collect()
}

/// Header `diff`.
fn diff(event: &Told) -> Vec<Value> {
    event.headers.get("diff").map(|fields| serde_json::from_str(fields).unwrap()).unwrap_or_default()
}

/// The member that a path names, as in `device.groups[sg-1]`; null where there is none.
fn at<'a>(event: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(event, |value, part| match part.split_once('[') {
        None => &value[part],
        Some((list, uid)) => {
            let uid = uid.trim_end_matches(']');
            let mut elements = value[list].as_array().into_iter().flatten();
            elements.find(|element| element["uid"] == uid).unwrap_or(&Value::Null)
        }
    })
}

/// What EC2 leaves open made alike: lists sorted by what their elements look like, times as instants.
fn comparable(value: Value) -> Value {
    match value {
        Value::Object(members) => members.into_iter().map(|(name, member)| (name, comparable(member))).collect(),
        Value::Array(elements) => {
            let mut elements: Vec<_> = elements.into_iter().map(comparable).collect();
            elements.sort_by_key(Value::to_string);
            Value::Array(elements)
        }
        Value::String(text) => match DateTime::parse_from_rfc3339(&text) {
            Ok(time) => Value::String(time.to_utc().to_rfc3339_opts(SecondsFormat::Nanos, true)),
            Err(_) => Value::String(text),
        },
        other => other,
    }
}
