//! Whatever is killed when: each change comes out once, and the state topic is the fleet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::{Value, json};

use crate::support::kafka::{
    Read, TestTopics, committed, ends, flush, producer, read_all, read_committed, send, table,
};
use crate::support::process::Stage;
use crate::support::wait_for;

const DEVICES: u64 = 2000;

/// A fleet that changes all the time: the independent model of what must come out.
struct Fleet {
    /// Per device: how often it was launched, changed and removed so far, as `(change, value of the rendered tag)`.
    history: BTreeMap<String, Vec<(String, String)>>,
}

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
        producer.poll(Duration::from_millis(5));
    }
    flush(&producer);
}

/// What the events say of each device, in their order.
fn told(events: &[Read]) -> BTreeMap<String, Vec<(String, String)>> {
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        let value = event.json();
        let name = value["device"]["name"].as_str().unwrap().to_owned();
        told.entry(event.key().to_owned()).or_default().push((event.header("change").unwrap().to_owned(), name));
    }
    told
}

/// A mapper's life under load, and what came of it.
struct Trial {
    topics: TestTopics,
    config: Value,
    fleet: Arc<Mutex<Fleet>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    generator: std::thread::JoinHandle<()>,
}

/// What a trial ended with.
struct Told {
    /// Changes of the fleet.
    changes: usize,
    /// Events that were written and never committed.
    uncommitted: usize,
}

impl Trial {
    /// Starts to change a fleet, `rate` times a second.
    fn begin(rate: u64) -> Self {
        let topics = TestTopics::create(4);
        let fleet = Arc::new(Mutex::new(Fleet { history: BTreeMap::new() }));
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let generator = std::thread::spawn({
            let (topic, fleet, sent, stop) = (topics.name("raw"), fleet.clone(), sent.clone(), stop.clone());
            move || load(topic, fleet, sent, stop, rate)
        });
        let mut config = topics.config();
        // Long enough that a random moment lies inside a transaction more often than not.
        config["mapper"]["commit_interval"] = json!("300ms");
        Self { topics, config, fleet, sent, stop, generator }
    }

    /// Ends the load after so many changes, lets `mapper` reach the end, and holds events and states against the fleet.
    fn end(self, least: u64, mut mapper: Stage) -> Told {
        let Self { topics, fleet, sent, stop, generator, .. } = self;
        wait_for("enough changes", Duration::from_secs(120), || (sent.load(Ordering::Relaxed) >= least).then_some(()));
        stop.store(true, Ordering::Relaxed);
        generator.join().unwrap();
        let (raw, group) = (topics.name("raw"), topics.name("mapper"));
        let end = ends(&raw, topics.partitions);
        wait_for("the mapper to reach the end", Duration::from_secs(120), || {
            (committed(&group, &raw, topics.partitions) == end).then_some(())
        });
        assert_eq!(mapper.metric("rollcall_mapper_records_total", "rejected"), 0.0);
        assert_eq!(mapper.stop(), Some(0));

        let history = &fleet.lock().unwrap().history;
        let events = read_committed(&topics.name("events"));
        let changes = history.values().map(Vec::len).sum();
        let told = told(&events);
        for (id, changes) in history {
            assert_eq!(told.get(id), Some(changes), "{id}");
        }
        assert_eq!(events.len(), changes);
        assert!(changes as u64 >= least);

        let states = table(&topics.name("state"));
        for (id, changes) in history {
            let (change, name) = changes.last().unwrap();
            let state = String::from_utf8_lossy(&states[id]).into_owned();
            assert_eq!(state.contains("\"name\":"), change != "removed", "{id}");
            assert!(
                change == "removed" || state.contains(&format!("\"name\":\"{name}\"")),
                "{id}: {name} not in {state}"
            );
        }
        assert_eq!(states.len(), history.len());
        Told { changes, uncommitted: read_all(&topics.name("events"), "read_uncommitted").len() - events.len() }
    }
}

#[test]
fn a_mapper_killed_twenty_times_under_load_tells_each_change_once() {
    const KILLS: usize = 20;
    let trial = Trial::begin(1200);
    let mut random = fastrand::Rng::with_seed(11);
    let (mut during_restore, mut in_transaction) = (0, 0);
    for kill in 0..KILLS {
        let mut mapper = Stage::start(&["map"], &trial.config);
        let (moment, delay) = match kill % 3 {
            0 if kill > 0 => ("restore started", Duration::from_millis(random.u64(0..5))),
            1 => ("transaction opened", Duration::from_millis(random.u64(0..250))),
            _ => ("transaction committed", Duration::from_millis(random.u64(0..1500))),
        };
        mapper.wait_for(moment, Duration::from_secs(60));
        std::thread::sleep(delay);
        mapper.kill();
        let log = mapper.tail();
        let last = |message: &str| log.rfind(&format!("\"message\":\"{message}\""));
        during_restore += usize::from(last("restore started") > last("partition restored"));
        in_transaction += usize::from(last("transaction opened") > last("transaction committed"));
    }
    let mapper = Stage::start(&["map"], &trial.config);
    let Told { changes, uncommitted } = trial.end(50_000, mapper);
    println!(
        "{changes} changes, {KILLS} kills: {during_restore} during a restore, {in_transaction} inside a transaction; \
         {uncommitted} events were written and never committed"
    );
    assert!(during_restore >= 5, "only {during_restore} kills hit a restore");
    assert!(in_transaction >= 5, "only {in_transaction} kills hit an open transaction");
    assert!(uncommitted > 0, "no kill left an aborted event behind: nothing was put to the test");
}

/// Stops the mapper inside a transaction for longer than `limit`, and lets it go on.
fn freeze(mapper: &mut Stage, limit: Duration) {
    mapper.wait_for("transaction opened", Duration::from_secs(60));
    // Into the transaction: some of its records are on their way, some are there.
    std::thread::sleep(Duration::from_millis(100));
    mapper.signal("STOP");
    std::thread::sleep(limit);
    mapper.signal("CONT");
}

#[test]
fn a_mapper_whose_transaction_was_taken_from_it_starts_over_and_tells_each_change_once() {
    let mut trial = Trial::begin(1000);
    // Kafka aborts the transaction, while the group still waits for the member.
    trial.config["kafka"]["transaction_timeout"] = json!("1s");
    trial.config["kafka"]["properties"] = json!({"session.timeout.ms": 30000, "heartbeat.interval.ms": 200});
    let mut mapper = Stage::start(&["map"], &trial.config);
    for _ in 0..3 {
        // Kafka looks for overdue transactions every ten seconds.
        freeze(&mut mapper, Duration::from_secs(13));
        mapper.wait_for("transaction failed", Duration::from_secs(60));
        mapper.wait_for("transaction committed", Duration::from_secs(60));
    }
    assert!(mapper.metric("rollcall_mapper_transactions_total", "renewed") >= 1.0);
    let Told { changes, uncommitted } = trial.end(10_000, mapper);
    println!("{changes} changes; {uncommitted} events were written and never committed");
    assert!(uncommitted > 0, "nothing was put to the test");
}

#[test]
fn a_mapper_that_the_group_gave_up_gets_its_partitions_anew_and_tells_each_change_once() {
    let trial = Trial::begin(1000);
    let mut mapper = Stage::start(&["map"], &trial.config);
    for _ in 0..4 {
        freeze(&mut mapper, Duration::from_secs(4));
        mapper.wait_for("partitions lost", Duration::from_secs(60));
        mapper.wait_for("partition restored", Duration::from_secs(60));
        mapper.wait_for("transaction committed", Duration::from_secs(60));
    }
    let Told { changes, uncommitted } = trial.end(10_000, mapper);
    println!("{changes} changes; {uncommitted} events were written and never committed");
    assert!(uncommitted > 0, "nothing was put to the test");
}
