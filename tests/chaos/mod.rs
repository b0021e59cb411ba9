//! The pipeline from EC2 to the events under faults of all kinds, drawn from a seed; then a judge of its own says what
//! should have come of it. See `docs/reliability.md`.

mod checker;
mod churn;
mod clock;
mod faults;
mod reading;
mod report;
mod stand;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checker::Findings;
use chrono::Utc;
use faults::{Fault, schedule};
use report::Run;
use stand::{Settled, Stand};

use crate::support::seed;
use crate::support::server;
use crate::support::trial::is_of_load;

/// Raw records a second beside the collectors'.
const RATE: u64 = 300;
/// A run has so many kinds of faults at least, however slow the machine is.
const KINDS: usize = 8;

fn number(variable: &str) -> Option<f64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text} is no number")))
}

/// `./dev chaos` sets the seed and the minutes, `./dev soak` the number of seeds; both keep what they have seen.
#[test]
fn whatever_fails_each_change_of_the_fleet_is_told_once() {
    let minutes = number("ROLLCALL_TEST_CHAOS_MINUTES").unwrap_or(3.0);
    let seeds: Vec<_> = match number("ROLLCALL_TEST_CHAOS_SEEDS") {
        Some(seeds) => (1..=seeds as u64).collect(),
        None => vec![seed()],
    };
    for seed in seeds {
        let run = run(seed, minutes);
        if std::env::var_os("ROLLCALL_TEST_CHAOS_KEEP").is_some() {
            run.keep();
        }
    }
}

fn run(seed: u64, minutes: f64) -> Run {
    let duration = Duration::from_secs_f64(60.0 * minutes);
    let longest = (duration / 8).clamp(Duration::from_secs(20), Duration::from_secs(120));
    let mut run = Run {
        seed,
        minutes,
        date: Utc::now().date_naive().to_string(),
        rollcall: env!("CARGO_PKG_VERSION").to_owned(),
        kafka: kafka_version(),
        faults: BTreeMap::new(),
        raw_records: 0,
        instances: 0,
        events: 0,
        aborted: 0,
        lost: 0,
        duplicated: 0,
        wrong: 0,
    };
    println!("seed {seed}, {minutes} minutes");
    let mut stand = Stand::start(seed, RATE);
    run.note(Fault::RegistryDownAtStart, Duration::ZERO, 0);
    let (began, start) = (Instant::now(), Utc::now().timestamp_millis());
    let mut steps = schedule(seed, longest);
    while began.elapsed() < duration || run.faults.len() < KINDS {
        let step = steps.next().expect("it has no end");
        println!("{:>4} s: {step:?}", began.elapsed().as_secs());
        let (took, ended) = stand.suffer(&step);
        println!("        moves again after {took:.1?}, {ended} processes ended");
        run.note(step.fault, took, ended);
        step.company.iter().for_each(|company| run.note(*company, took, 0));
    }
    let Settled { topics, model, mappers, collectors, .. } = &stand.settle();
    run.note(Fault::PartitionsAddedToRaw, Duration::ZERO, 0);

    let raw = reading::raw(topics);
    let events = reading::events(topics);
    let (states, histories, sweeps) = (reading::states(topics), reading::histories(model), reading::sweeps(topics));
    let findings = checker::events(&raw, &events, &states, stand::PARTITIONS)
        .join(checker::records(&raw, &histories, is_of_load))
        .join(checker::sweeps(&raw, &histories, &sweeps, start..=Utc::now().timestamp_millis()))
        .join(checker::ends(&states, &reading::now(model)));
    let Findings { lost, duplicated, wrong } = &findings;
    for found in [lost, duplicated, wrong] {
        found.iter().take(10).for_each(|found| println!("{found}"));
    }
    run.raw_records = raw.len();
    run.instances = raw.iter().map(|record| &record.id).collect::<BTreeSet<_>>().len();
    run.events = events.len();
    topics.read_each("events", "read_uncommitted", |_| run.aborted += 1);
    run.aborted -= events.len();
    (run.lost, run.duplicated, run.wrong) = (lost.len(), duplicated.len(), wrong.len());
    println!("mappers: {mappers:?}\ncollectors: {collectors:?}\n{run:#?}");

    assert!(findings.is_clean(), "what was told is not what happened: see above");
    assert_eq!(topics.read("dlq"), [], "dead letters");
    assert!(events.len() > 1000, "hardly anything happened");
    run
}

/// As its libraries are named.
fn kafka_version() -> String {
    let files = std::fs::read_dir(server("KAFKA_JARS")).unwrap().flatten().map(|entry| entry.file_name());
    let version = |name: &str| Some(name.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?.to_owned());
    files.into_iter().find_map(|name| version(name.to_str()?)).expect("Kafka's client library")
}
