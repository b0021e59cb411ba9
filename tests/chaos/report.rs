//! What runs have shown: a file each in `docs/reliability.d`, and the tables of `docs/reliability.md` that are made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::Fault;

const BEGIN: &str = "<!-- begin: made of docs/reliability.d by `./dev chaos` -->\n";
const END: &str = "<!-- end -->\n";

/// What was injected of a kind.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Injected {
    pub times: usize,
    /// The longest time until the pipeline moved again, in seconds.
    pub slowest: f64,
    /// Processes that ended by themselves over it and were started again, as a supervisor does.
    pub ended: usize,
}

/// A run, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub seed: u64,
    pub minutes: f64,
    pub date: String,
    pub rollcall: String,
    pub kafka: String,
    /// By the kind's name in the code.
    pub faults: BTreeMap<String, Injected>,
    pub raw_records: usize,
    pub instances: usize,
    pub events: usize,
    /// Events that were written and never committed.
    pub aborted: usize,
    pub lost: usize,
    pub duplicated: usize,
    pub wrong: usize,
}

impl Run {
    pub fn note(&mut self, fault: Fault, took: Duration, ended: usize) {
        let injected = self.faults.entry(format!("{fault:?}")).or_default();
        injected.times += 1;
        injected.ended += ended;
        injected.slowest = injected.slowest.max((took.as_secs_f64() * 10.0).round() / 10.0);
    }

    /// Keeps it, in place of an earlier one of the same seed and length.
    pub fn keep(&self) {
        let path = docs().join(format!("reliability.d/{:03}-{}m.json", self.seed, self.minutes));
        std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(self).unwrap())).unwrap();
        let page = std::fs::read_to_string(docs().join("reliability.md")).unwrap();
        let (before, _, after) = parts(&page);
        std::fs::write(docs().join("reliability.md"), [before, &tables(&kept()), after].concat()).unwrap();
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The runs that are kept, by seed and length.
fn kept() -> Vec<Run> {
    let files = std::fs::read_dir(docs().join("reliability.d")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
}

/// The page before its tables, these, and what comes behind them.
fn parts(page: &str) -> (&str, &str, &str) {
    let begin = page.find(BEGIN).expect("a place for the tables") + BEGIN.len();
    let end = page.find(END).expect("an end of the tables");
    (&page[..begin], &page[begin..end], &page[end..])
}

fn tables(runs: &[Run]) -> String {
    let mut text = String::from("\n| fault | injected | expected | seen |\n|---|---:|---|---|\n");
    for fault in Fault::ALL {
        let key = format!("{fault:?}");
        let of_it: Vec<_> = runs.iter().filter_map(|run| run.faults.get(&key)).collect();
        let times: usize = of_it.iter().map(|injected| injected.times).sum();
        let slowest = of_it.iter().map(|injected| injected.slowest).fold(0.0, f64::max);
        let ended: usize = of_it.iter().map(|injected| injected.ended).sum();
        let mut seen =
            if slowest > 0.0 { format!("moves again within {slowest:.1} s") } else { "as expected".to_owned() };
        if ended > 0 {
            seen += &format!("; {ended} processes ended and were started again");
        }
        let seen = if times == 0 { "–" } else { &seen };
        text += &format!("| {} | {times} | {} | {seen} |\n", fault.name(), fault.expected());
    }
    text += "\n| seed | minutes | date | Rollcall | Kafka | faults | kinds | raw records | instances | events | aborted \
             | lost | duplicated | wrong |\n|---:|---:|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for run in runs {
        let faults: usize = run.faults.values().map(|injected| injected.times).sum();
        let Run { seed, minutes, date, rollcall, kafka, raw_records, instances, events, .. } = run;
        let Run { aborted, lost, duplicated, wrong, .. } = run;
        text += &format!(
            "| {seed} | {minutes} | {date} | {rollcall} | {kafka} | {faults} | {} | {raw_records} | {instances} | {events} | \
             {aborted} | {lost} | {duplicated} | {wrong} |\n",
            run.faults.len()
        );
    }
    let sum = |of: fn(&Run) -> usize| runs.iter().map(of).sum::<usize>();
    text += &format!(
        "\nRuns in all: {}, with {} faults, {} raw records, {} events checked; lost {}, duplicated {}, wrong {}.\n\n",
        runs.len(),
        sum(|run| run.faults.values().map(|injected| injected.times).sum()),
        sum(|run| run.raw_records),
        sum(|run| run.events),
        sum(|run| run.lost),
        sum(|run| run.duplicated),
        sum(|run| run.wrong),
    );
    text
}

#[test]
fn the_page_on_reliability_shows_the_runs_that_are_kept_and_nothing_else() {
    let page = std::fs::read_to_string(docs().join("reliability.md")).unwrap();
    let (_, found, _) = parts(&page);
    assert_eq!(found, tables(&kept()), "`./dev chaos` writes the tables; nobody else does");
}
