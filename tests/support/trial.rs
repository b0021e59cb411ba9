//! Mappers under load, and a model of their own to judge them by: a fleet that changes all the time, and what must be told
//! of it. Each change once, in its device's order, and nothing else; the state topic holds the last one of each device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::kafka::{Read, TestTopics, flush, send};
use super::replicas::Kind;
use super::wait_for;

const DEVICES: u64 = 2000;

/// Long enough that a random moment lies inside a transaction more often than not.
pub const COMMIT_INTERVAL: &str = "300ms";

/// Mappers that commit so often.
pub const MAPPER: Kind = Kind {
    command: "map",
    env: &[],
    restoring: "restore started",
    restored: "partition restored",
    given_up: &["partitions lost", "partitions revoked"],
    opened: "transaction opened",
    committed: "transaction committed",
    failed: "transaction failed",
    done: None,
    // The commit interval, less what the clock and the machine may be late.
    stays_open: Duration::from_millis(200),
};

/// A change of a device: what happens to it, and the number in its name, which no other change has.
type Change = (&'static str, u64);

/// What happened to each device so far.
type Fleet = BTreeMap<String, Vec<Change>>;

/// Record number `n`: which device, and how it is now. One in four says nothing new.
fn mutate(fleet: &mut Fleet, n: u64, random: &mut fastrand::Rng) -> (String, Option<Value>) {
    let id = format!("i-{:017x}", random.u64(0..DEVICES));
    let history = fleet.entry(id.clone()).or_default();
    let present = history.last().filter(|(what, _)| *what != "removed").map(|(_, name)| *name);
    let name = match (present, random.u8(0..40)) {
        (Some(name), 0..10) => name,
        (Some(name), 10..14) => {
            history.push(("removed", name));
            return (id, None);
        }
        (Some(_), _) => {
            history.push(("updated", n));
            n
        }
        (None, _) => {
            history.push(("created", n));
            n
        }
    };
    let instance = json!({
        "InstanceId": id, "OwnerId": "123456789012", "InstanceType": "m5.large", "State": {"Code": 16, "Name": "running"},
        "LaunchTime": "2026-01-01T00:00:00.000Z", "Tags": [{"Key": "Name", "Value": format!("name-{name}")}],
        "Padding": "x".repeat(200),
    });
    (id, Some(instance))
}

/// Produces records at a steady rate until told to stop.
fn load(topics: &TestTopics, fleet: &Mutex<Fleet>, sent: &AtomicU64, stop: &AtomicBool, rate: u64, seed: u64) {
    let (producer, topic) = (topics.producer(), topics.name("raw"));
    let mut random = fastrand::Rng::with_seed(seed);
    // A millisecond a record: of more than a thousand a second the last ones must not be seen before they are written.
    let (began, first) = (Instant::now(), Utc::now() - TimeDelta::hours(1));
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while n < due {
            n += 1;
            let (id, instance) = mutate(&mut fleet.lock().unwrap(), n, &mut random);
            // Strictly increasing: the order in which the changes happened.
            let at = first + TimeDelta::milliseconds(n as i64);
            let at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let value = instance.map(|instance| instance.to_string().into_bytes());
            send(&producer, &topic, Some(id.as_bytes()), value.as_deref(), &[("observed-at", &at)], None);
        }
        sent.store(n, Ordering::Relaxed);
        producer.poll(Duration::from_millis(5));
    }
    flush(&producer);
}

/// Whether an instance is of such a load.
pub fn is_of_load(id: &str) -> bool {
    u64::from_str_radix(id.trim_start_matches("i-"), 16).is_ok_and(|number| number < DEVICES)
}

/// Records that are produced at a steady rate until it is ended.
pub struct Load {
    fleet: Arc<Mutex<Fleet>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn begin(topics: &TestTopics, rate: u64, seed: u64) -> Self {
        let fleet = Arc::<Mutex<Fleet>>::default();
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (topics, fleet, sent, stop) = (topics.clone(), fleet.clone(), sent.clone(), stop.clone());
            move || load(&topics, &fleet, &sent, &stop, rate, seed)
        });
        Self { fleet, sent, stop, thread: Some(thread) }
    }

    /// Ends it; how many records there were.
    pub fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is ended once").join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Mappers' life under load.
pub struct Trial {
    pub topics: TestTopics,
    /// For the mappers.
    pub config: Value,
    load: Load,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Raw records.
    pub records: u64,
    /// Changes of the fleet.
    pub changes: usize,
    /// Events that a `read_committed` reader sees.
    pub events: usize,
    /// Changes of which no event tells.
    pub lost: usize,
    /// Events that tell no change, or one that was told before.
    pub repeated: usize,
    /// Devices whose events are not their changes, in order.
    pub disordered: usize,
    /// Devices whose last state is not that of their last change.
    pub wrong_states: usize,
    /// Events that were written and never committed.
    pub uncommitted: usize,
}

impl Trial {
    /// Starts to change a fleet on these topics, with so many records a second.
    pub fn begin(topics: TestTopics, rate: u64, seed: u64) -> Self {
        let load = Load::begin(&topics, rate, seed);
        let mut config = topics.config();
        config["mapper"]["commit_interval"] = json!(COMMIT_INTERVAL);
        Self { topics, config, load }
    }

    /// Ends the load after so many records, and waits until the mappers have reached the end, for as long as they move.
    pub fn finish(&mut self, least: u64) {
        let sent = &self.load.sent;
        wait_for("enough records", Duration::from_secs(120), || (sent.load(Ordering::Relaxed) >= least).then_some(()));
        self.load.end();
        let end = self.topics.ends("raw");
        let mut committed = self.topics.committed("mapper", "raw");
        while committed != end {
            committed = wait_for("the mappers to go on towards the end", Duration::from_secs(120), || {
                Some(self.topics.committed("mapper", "raw")).filter(|further| *further != committed)
            });
        }
    }

    /// Holds events and states against the fleet.
    pub fn judge(self) -> Verdict {
        assert!(self.load.thread.is_none(), "it is finished first");
        let fleet = std::mem::take(&mut *self.load.fleet.lock().unwrap());
        let mut told = BTreeMap::<String, Vec<(String, u64)>>::new();
        let mut out_of_step = 0;
        self.topics.read_each("events", "read_committed", |event| {
            let told = told.entry(event.key().to_owned()).or_default();
            told.push((event.header("change").unwrap().to_owned(), name_of(&event)));
            out_of_step += usize::from(event.header("revision") != Some(&told.len().to_string()));
        });
        let mut states = BTreeMap::<String, Option<Vec<u8>>>::new();
        self.topics.read_each("state", "read_committed", |state| {
            states.insert(state.key().to_owned(), state.value);
        });
        let mut verdict = Verdict {
            records: self.load.sent.load(Ordering::Relaxed),
            changes: fleet.values().map(Vec::len).sum(),
            events: told.values().map(Vec::len).sum(),
            lost: 0,
            repeated: 0,
            disordered: 0,
            wrong_states: states.len().abs_diff(fleet.len()),
            uncommitted: 0,
        };
        for (id, changes) in &fleet {
            let told = told.remove(id).unwrap_or_default();
            let told: Vec<_> = told.iter().map(|(what, name)| (what.as_str(), *name)).collect();
            verdict.lost += missing(changes, &told);
            verdict.repeated += missing(&told, changes);
            verdict.disordered += usize::from(told != *changes);
            let (what, name) = changes.last().unwrap();
            let state = states.get(id).and_then(Option::as_deref).unwrap_or_default();
            let state = String::from_utf8_lossy(state);
            let is_right = match *what {
                "removed" => !state.is_empty() && !state.contains("\"name\":"),
                _ => state.contains(&format!("\"name\":\"name-{name}\"")),
            };
            verdict.wrong_states += usize::from(!is_right);
        }
        verdict.repeated += told.values().map(Vec::len).sum::<usize>();
        verdict.disordered += out_of_step;
        let mut written = 0;
        self.topics.read_each("events", "read_uncommitted", |_| written += 1);
        verdict.uncommitted = written - verdict.events;
        verdict
    }
}

impl Verdict {
    /// Each change once, in order, and the last of each device is its state.
    #[track_caller]
    pub fn is_exactly_once(self) {
        println!("{self:?}");
        assert_eq!(
            self,
            Self { events: self.changes, lost: 0, repeated: 0, disordered: 0, wrong_states: 0, ..self },
            "what was told is not what happened"
        );
        assert!(self.changes > 1000, "hardly anything happened: {self:?}");
    }
}

/// How many of these are not in those, as often as they are here.
fn missing(these: &[(&str, u64)], those: &[(&str, u64)]) -> usize {
    let mut surplus = BTreeMap::<_, isize>::new();
    for change in these {
        *surplus.entry(change).or_default() += 1;
    }
    for change in those {
        *surplus.entry(change).or_default() -= 1;
    }
    surplus.into_values().filter(|count| *count > 0).sum::<isize>().unsigned_abs()
}

/// The number in the name that an event tells.
fn name_of(event: &Read) -> u64 {
    let name = event.json()["device"]["name"].as_str().unwrap().to_owned();
    name.strip_prefix("name-").unwrap().parse().unwrap()
}
