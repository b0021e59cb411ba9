//! Whatever is killed when: each change comes out once, and the state topic is the fleet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::{Value, json};

use crate::support::kafka::{TestTopics, committed, flush, producer, read_all, read_committed, send, table};
use crate::support::process::Stage;
use crate::support::wait_for;

/// A fleet that changes all the time: the independent model of what must come out.
struct Fleet {
    /// Per device: how often it was launched, changed and removed so far, as `(change, value of the rendered tag)`.
    history: BTreeMap<String, Vec<(String, String)>>,
}

const DEVICES: u64 = 2000;

/// Number `n` of the changes: which device, and what happens to it.
fn mutate(fleet: &mut Fleet, n: u64, random: &mut fastrand::Rng) -> (String, Option<Value>) {
    let id = format!("i-{:017x}", random.u64(0..DEVICES));
    let history = fleet.history.entry(id.clone()).or_default();
    let is_present = history.last().is_some_and(|(change, _)| change != "removed");
    let name = format!("name-{n}");
    if is_present && random.u8(0..10) == 0 {
        history.push(("removed".to_owned(), history.last().unwrap().1.clone()));
        return (id, None);
    }
    history.push((if is_present { "updated" } else { "created" }.to_owned(), name.clone()));
    let instance = json!({
        "InstanceId": id, "OwnerId": "123456789012", "InstanceType": "m5.large", "State": {"Code": 16, "Name": "running"},
        "LaunchTime": "2026-01-01T00:00:00.000Z", "Tags": [{"Key": "Name", "Value": name}], "Padding": "x".repeat(800),
    });
    (id, Some(instance))
}

/// Produces changes at a steady rate until told to stop.
fn load(topic: String, fleet: Arc<Mutex<Fleet>>, sent: Arc<AtomicU64>, stop: Arc<AtomicBool>, rate: u64) {
    let producer = producer();
    let mut random = fastrand::Rng::with_seed(7);
    let began = Instant::now();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while n < due {
            n += 1;
            let (id, instance) = mutate(&mut fleet.lock().unwrap(), n, &mut random);
            // Strictly increasing: the order in which the changes happened.
            let at = DateTime::from_timestamp_millis(1_780_000_000_000 + n as i64).unwrap();
            let at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let value = instance.map(|instance| instance.to_string().into_bytes());
            send(&producer, &topic, Some(id.as_bytes()), value.as_deref(), &[("observed-at", &at)], None);
        }
        sent.store(n, Ordering::Relaxed);
        producer_tick(&producer);
    }
    flush(&producer);
}

fn producer_tick(producer: &rdkafka::producer::BaseProducer) {
    producer.poll(Duration::from_millis(5));
}

/// What the events say of each device, in their order.
fn told(events: &[crate::support::kafka::Read]) -> BTreeMap<String, Vec<(String, String)>> {
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        let value = event.json();
        let name = value["device"]["name"].as_str().unwrap().to_owned();
        told.entry(event.key().to_owned()).or_default().push((event.header("change").unwrap().to_owned(), name));
    }
    told
}

#[test]
fn a_mapper_killed_twenty_times_under_load_tells_each_change_once() {
    const KILLS: usize = 20;
    const CHANGES: u64 = 50_000;
    let topics = TestTopics::create(4);
    let fleet = Arc::new(Mutex::new(Fleet { history: BTreeMap::new() }));
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let generator = std::thread::spawn({
        let (topic, fleet, sent, stop) = (topics.name("raw"), fleet.clone(), sent.clone(), stop.clone());
        move || load(topic, fleet, sent, stop, 1200)
    });

    let mut config = topics.config();
    // Long enough that a random moment lies inside a transaction more often than not.
    config["mapper"]["commit_interval"] = json!("300ms");
    let mut random = fastrand::Rng::with_seed(11);
    let (mut during_restore, mut in_transaction) = (0, 0);
    for kill in 0..KILLS {
        let mut mapper = Stage::start(&["map"], &config);
        let limit = Duration::from_secs(60);
        let (moment, delay) = match kill % 3 {
            0 if kill > 0 => ("restore started", Duration::from_millis(random.u64(0..5))),
            1 => ("transaction opened", Duration::from_millis(random.u64(0..250))),
            _ => ("transaction committed", Duration::from_millis(random.u64(0..1500))),
        };
        mapper.wait_for(moment, limit);
        std::thread::sleep(delay);
        mapper.kill();
        let log = mapper.tail();
        let last = |message: &str| log.rfind(&format!("\"message\":\"{message}\""));
        during_restore += usize::from(last("restore started") > last("partition restored"));
        in_transaction += usize::from(last("transaction opened") > last("transaction committed"));
    }
    wait_for("enough changes", Duration::from_secs(120), || (sent.load(Ordering::Relaxed) >= CHANGES).then_some(()));
    stop.store(true, Ordering::Relaxed);
    generator.join().unwrap();

    let mut mapper = Stage::start(&["map"], &config);
    let (raw, group) = (topics.name("raw"), topics.name("mapper"));
    let ends = crate::support::kafka::ends(&raw, topics.partitions);
    wait_for("the mapper to reach the end", Duration::from_secs(120), || (committed(&group, &raw, 4) == ends).then_some(()));
    assert_eq!(mapper.metric("rollcall_mapper_records_total", "rejected"), 0.0);
    assert_eq!(mapper.stop(), Some(0));

    let history = &fleet.lock().unwrap().history;
    let events = read_committed(&topics.name("events"));
    let changes: usize = history.values().map(Vec::len).sum();
    let told = told(&events);
    for (id, changes) in history {
        assert_eq!(told.get(id), Some(changes), "{id}");
    }
    assert_eq!(events.len(), changes);
    assert!(changes as u64 >= CHANGES);

    let states = table(&topics.name("state"));
    for (id, changes) in history {
        let (change, name) = changes.last().unwrap();
        let state = String::from_utf8_lossy(&states[id]).into_owned();
        assert_eq!(state.contains("\"name\":"), change != "removed", "{id}");
        assert!(change == "removed" || state.contains(&format!("\"name\":\"{name}\"")), "{id}: {name} not in {state}");
    }
    assert_eq!(states.len(), history.len());

    let uncommitted = read_all(&topics.name("events"), "read_uncommitted").len() - events.len();
    println!(
        "{changes} changes, {KILLS} kills: {during_restore} during a restore, {in_transaction} inside a transaction; \
         {uncommitted} events were written and never committed"
    );
    assert!(during_restore >= 5, "only {during_restore} kills hit a restore");
    assert!(in_transaction >= 5, "only {in_transaction} kills hit an open transaction");
    assert!(uncommitted > 0, "no kill left an aborted event behind: nothing was put to the test");
}
