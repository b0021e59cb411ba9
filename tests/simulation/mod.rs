//! The engine against a model of Kafka in which anything may happen between two steps: thousands of seeds, each a fleet's
//! history with crashes, frozen processes that wake up as zombies, lost and late replies, rebalances, expired sessions and
//! transactions. A seed that fails replays exactly: `ROLLCALL_TEST_SEED=N cargo test --test suite simulation`.

mod judge;
mod kafka;
mod port;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use rollcall::mapper::bounds::Bounds;
use rollcall::mapper::budget::Budget;
use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::dead_letter::BreakerLimits;
use rollcall::mapper::decide::Rules;
use rollcall::mapper::engine::{Engine, LostOffsets, Settings, Stuck};
use rollcall::mapper::observer::Observer;
use rollcall::profile::encode::Encoder;
use rollcall::profile::{Mapping, Profile};
use rollcall::record::partition_for;
use rollcall::telemetry::health::Health;
use rollcall::telemetry::metrics::Metrics;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use judge::{BROKEN, judge};
use kafka::{Kafka, Member, Raw, Topic};
use port::{POLL, Planted, SimulatedPort, World};

const PARTITIONS: i32 = 3;
const DEVICES: u64 = 8;
const RECORDS: usize = 60;
/// Transactional IDs, and so processes that should run.
const PROCESSES: usize = 3;
/// Of a transaction.
const BOUNDS: Bounds =
    Bounds { age: Duration::from_millis(20), most_age: Duration::from_millis(50), records: 4, bytes: 1 << 20 };
/// How long a removed device is remembered.
const GONE_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// Turns after which a run must have come to its end.
const PATIENCE: usize = 20_000;

/// A process of the mapper. Of one transactional ID there may be several: the one that should run, and zombies.
struct Process {
    id: usize,
    member: Member,
    engine: Engine<SimulatedPort>,
    is_frozen: bool,
}

struct Run {
    world: Rc<RefCell<World>>,
    bounds: Bounds,
    processes: Vec<Process>,
    told: usize,
    metrics: Arc<rollcall::telemetry::metrics::MapperMetrics>,
    /// What happened how often.
    crashes: usize,
    zombies: usize,
}

/// What a run has seen.
#[derive(Debug, Default)]
struct Seen {
    crashes: usize,
    zombies: usize,
    refusals: usize,
}

fn instance(key: &str, name: u8) -> String {
    json!({"InstanceId": key, "Tags": [{"Key": "Name", "Value": format!("name-{name}")}]}).to_string()
}

/// When the record of this number was observed: one a second.
fn observed_at(number: usize) -> String {
    format!("2026-01-01T00:{:02}:{:02}.000Z", number / 60, number % 60)
}

impl Run {
    fn new(seed: u64, planted: Option<Planted>, metrics: &Arc<rollcall::telemetry::metrics::MapperMetrics>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let trouble = random.choice([0, 10, 40, 100]).unwrap();
        let (kafka, now, story) = (Kafka::new(PARTITIONS), Instant::now(), Vec::new());
        let world = Rc::new(RefCell::new(World { kafka, random, trouble, planted, now, story }));
        Self { world, bounds: BOUNDS, processes: Vec::new(), told: 0, metrics: metrics.clone(), crashes: 0, zombies: 0 }
    }

    fn start(&mut self, id: usize) {
        let port = SimulatedPort::connect(&self.world, id);
        let mapping = Mapping { profile: Profile::Sekoia, ..Mapping::default() };
        let rules = Rules::new(mapping, PARTITIONS, 1 << 20);
        let settings = Settings {
            raw_topic: "raw".to_owned(),
            bounds: self.bounds,
            gone_retention: GONE_RETENTION,
            breaker: BreakerLimits { streak: 0 },
            budget: Budget::new(usize::MAX),
            tombstones_kept: None,
            stuck: Stuck::Held,
            lost_offsets: LostOffsets::Stop,
        };
        let observer = Observer::new(id, self.metrics.clone(), Arc::new(Health::default()));
        let changelog = Changelog::new(Profile::Sekoia).unwrap();
        let member = port.member();
        let stop = CancellationToken::new();
        let engine = Engine::new(port, rules, Encoder::json(), changelog, settings, observer, stop);
        self.processes.push(Process { id, member, engine, is_frozen: false });
    }

    /// The next record of the fleet's history.
    fn feed(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let random = &mut world.random;
        let key = format!("i-{:017x}", random.u64(..DEVICES));
        let value = match random.u8(..20) {
            0 => Some(BROKEN.to_owned()),
            1..=3 => None,
            _ => Some(instance(&key, random.u8(..3))),
        };
        self.told += 1;
        let observed_at = observed_at(self.told);
        let log = &mut world.kafka.raw[partition_for(key.as_bytes(), PARTITIONS) as usize];
        if random.u8(..5) == 0 {
            log.push(None);
        }
        log.push(Some(Raw { key, value, observed_at }));
    }

    /// A process takes a turn, and is gone when it cannot go on.
    fn turn(&mut self, index: usize) {
        if let Err(fatal) = self.processes[index].engine.turn() {
            let process = self.processes.swap_remove(index);
            self.world.borrow_mut().story.push(format!("{}: ended: {fatal}", process.id));
            self.crashes += 1;
        }
    }

    fn runs(&self, id: usize) -> bool {
        self.processes.iter().any(|process| process.id == id && !process.is_frozen)
    }

    fn something_happens(&mut self) {
        let (what, which) = {
            let world = &mut *self.world.borrow_mut();
            (world.random.u8(..100), world.random.usize(..self.processes.len().max(1)))
        };
        match what {
            0..=9 if self.told < RECORDS => self.feed(),
            10..=19 => {
                let world = &mut *self.world.borrow_mut();
                world.kafka.settle_something(&mut world.random);
            }
            // It stops between two turns: inside of a transaction more often than not.
            20 if which < self.processes.len() => self.processes[which].is_frozen = true,
            21..=22 if which < self.processes.len() => {
                self.zombies += usize::from(self.processes[which].is_frozen);
                self.processes[which].is_frozen = false;
            }
            // What is frozen for long is expelled, and its transaction is given up.
            23..=24 if which < self.processes.len() && self.processes[which].is_frozen => {
                let Process { id, member, .. } = self.processes[which];
                let kafka = &mut self.world.borrow_mut().kafka;
                if what == 23 { kafka.remove(member) } else { kafka.time_out(id) }
            }
            25..=29 => {
                let id = self.world.borrow_mut().random.usize(..PROCESSES);
                if !self.runs(id) {
                    self.start(id);
                }
            }
            _ if which < self.processes.len() && !self.processes[which].is_frozen => self.turn(which),
            _ => {}
        }
    }

    /// No more trouble: what is frozen wakes up, what is gone starts again, and everything comes to its end.
    fn calm_down(&mut self) -> Result<(), String> {
        {
            let world = &mut *self.world.borrow_mut();
            world.trouble = 0;
            world.story.push("calm".to_owned());
            // Those of the dead are given up with the time; the living are fenced by it, and begin anew.
            (0..PROCESSES).for_each(|id| world.kafka.time_out(id));
        }
        self.processes.iter_mut().for_each(|process| process.is_frozen = false);
        for _ in 0..PATIENCE {
            (0..PROCESSES).for_each(|id| {
                if !self.runs(id) {
                    self.start(id);
                }
            });
            self.expel_the_dead();
            (0..self.processes.len()).rev().for_each(|index| self.turn(index));
            {
                let world = &mut *self.world.borrow_mut();
                while world.kafka.settle_something(&mut world.random) {}
            }
            if self.is_at_the_end() {
                return Ok(());
            }
        }
        Err("it does not come to an end".to_owned())
    }

    /// Sessions of processes that are gone expire.
    fn expel_the_dead(&mut self) {
        let kafka = &mut self.world.borrow_mut().kafka;
        for member in kafka.members() {
            if !self.processes.iter().any(|process| process.engine.port().member() == member) {
                kafka.remove(member);
            }
        }
    }

    fn is_at_the_end(&self) -> bool {
        let kafka = &self.world.borrow().kafka;
        let at_end = |partition: i32| {
            let log = &kafka.raw[partition as usize];
            let last = log.iter().rposition(Option::is_some).map_or(0, |offset| offset as i64 + 1);
            kafka.committed(partition).is_ok_and(|offset| offset.unwrap_or_default() >= last)
        };
        kafka.is_settled() && (0..PARTITIONS).all(at_end)
    }
}

/// Runs a seed to its end, and judges it.
fn simulate(
    seed: u64,
    planted: Option<Planted>,
    metrics: &Arc<rollcall::telemetry::metrics::MapperMetrics>,
) -> Result<Seen, String> {
    let mut run = Run::new(seed, planted, metrics);
    while run.told < RECORDS {
        run.something_happens();
    }
    let judged = run.calm_down().and_then(|()| judge(&run.world.borrow().kafka));
    let world = run.world.borrow();
    let seen = Seen { crashes: run.crashes, zombies: run.zombies, refusals: world.kafka.refusals };
    judged.map(|()| seen).map_err(|wrong| {
        let story = &world.story;
        let last = story[story.len().saturating_sub(60)..].join("\n");
        format!("seed {seed}: {wrong}\n{last}\n{}", world.kafka.describe())
    })
}

/// The seeds that are tried: all of them, or the one that is asked for.
fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("ROLLCALL_TEST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn metrics() -> Arc<rollcall::telemetry::metrics::MapperMetrics> {
    Metrics::new().unwrap().mapper.clone()
}

#[test]
fn whatever_happens_between_two_steps_each_change_is_told_once_and_in_order() {
    let metrics = metrics();
    let mut all = Seen::default();
    for seed in seeds(5000) {
        let Seen { crashes, zombies, refusals } =
            simulate(seed, None, &metrics).unwrap_or_else(|wrong| panic!("{wrong}"));
        all.crashes += crashes;
        all.zombies += zombies;
        all.refusals += refusals;
    }
    println!("{all:?}");
    if seeds(5000).count() > 1 {
        assert!(all.crashes > 5000 && all.zombies > 2000 && all.refusals > 2000, "too little happened: {all:?}");
    }
}

/// One process without trouble, which is to map these records of partition 0.
fn alone(bounds: Bounds, records: impl IntoIterator<Item = Raw>) -> Run {
    let mut run = Run::new(0, None, &metrics());
    run.bounds = bounds;
    run.world.borrow_mut().trouble = 0;
    run.world.borrow_mut().kafka.raw[0] = records.into_iter().map(Some).collect();
    run.start(0);
    run
}

/// Where one process commits in a partition of these records and after how long, without trouble.
fn commits(bounds: Bounds, keys: &[String]) -> Vec<(i64, Duration)> {
    let raw = |key: &String| Raw { value: Some(instance(key, 0)), key: key.clone(), observed_at: observed_at(0) };
    let mut run = alone(bounds, keys.iter().map(raw));
    let (mut commits, mut last, mut since) = (Vec::new(), 0, run.world.borrow().now);
    while last < keys.len() as i64 {
        run.turn(0);
        let world = &mut *run.world.borrow_mut();
        while world.kafka.settle_something(&mut world.random) {}
        let offset = world.kafka.committed(0).unwrap().unwrap_or_default();
        if offset > last {
            commits.push((offset, world.now - since));
            (last, since) = (offset, world.now);
        }
    }
    commits
}

/// Keys of partition 0.
fn keys() -> impl Iterator<Item = String> {
    (0..).map(|n| format!("i-{n:017x}")).filter(|key| partition_for(key.as_bytes(), PARTITIONS) == 0)
}

#[test]
fn a_transaction_lasts_longer_while_records_wait() {
    let bounds = Bounds { records: usize::MAX, ..BOUNDS };
    let commits = commits(bounds, &Vec::from_iter(keys().take(23)));
    assert_eq!(commits[0].0, 11);
    // The last of it comes alone, and is not kept back for others that may come.
    assert_eq!(commits[1..], [(22, bounds.most_age + POLL), (23, POLL + POLL + bounds.age)]);
}

#[test]
fn a_transaction_ends_by_the_bytes_that_it_writes_not_by_those_that_it_reads() {
    // One that is new, three that tell nothing new, another that is new.
    let keys: Vec<_> = keys().take(2).collect();
    let records = [0, 0, 0, 0, 1].map(|index: usize| keys[index].clone());
    let bounds = Bounds { records: usize::MAX, bytes: 1, ..BOUNDS };
    let offsets = |bounds| Vec::from_iter(commits(bounds, &records).into_iter().map(|(offset, _)| offset));
    assert_eq!(offsets(bounds), [1, 5]);
    assert_eq!(offsets(Bounds { bytes: usize::MAX, ..bounds }), [5]);
}

/// Whether a device that was removed at `removed` is forgotten when another one is seen at `later`.
fn is_forgotten(removed: DateTime<Utc>, later: DateTime<Utc>) -> bool {
    let [gone, other] = [0, 1].map(|index| keys().nth(index).unwrap());
    let raw = |key: &String, is_there: bool, at: DateTime<Utc>| Raw {
        key: key.clone(),
        value: is_there.then(|| instance(key, 0)),
        observed_at: at.to_rfc3339_opts(SecondsFormat::Millis, true),
    };
    let history = [raw(&gone, true, removed), raw(&gone, false, removed), raw(&other, true, later)];
    let mut run = alone(BOUNDS, history);
    for _ in 0..PATIENCE {
        run.turn(0);
        let world = &mut *run.world.borrow_mut();
        while world.kafka.settle_something(&mut world.random) {}
        if world.kafka.committed(0) == Ok(Some(3)) {
            let states = &world.kafka.logs[&(Topic::State, 0)];
            return states.committed().any(|state| state.key == gone && state.value.is_none());
        }
    }
    panic!("the records were never committed");
}

#[test]
fn a_removed_device_is_forgotten_after_its_time_but_not_because_a_clock_runs_ahead() {
    let long_ago: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    assert!(!is_forgotten(long_ago, long_ago + GONE_RETENTION));
    assert!(is_forgotten(long_ago, long_ago + GONE_RETENTION + Duration::from_millis(1)));
    let just_now = Utc::now() - Duration::from_secs(3600);
    assert!(!is_forgotten(just_now, "2090-01-01T00:00:00Z".parse().unwrap()));
}

#[test]
fn a_seed_is_the_same_story_each_time() {
    let story = || {
        let mut run = Run::new(7, None, &metrics());
        while run.told < RECORDS {
            run.something_happens();
        }
        run.calm_down().unwrap();
        run.world.borrow().story.clone()
    };
    assert_eq!(story(), story());
}

#[test]
fn planted_faults_are_found() {
    let metrics = metrics();
    let planted =
        [Planted::CommitWithoutOffsets, Planted::NoRewindAfterAbort, Planted::StaleEpoch, Planted::ImpatientRestore];
    for fault in planted {
        let found = (0..2000).find(|seed| simulate(*seed, Some(fault), &metrics).is_err());
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?} was not found");
    }
}
