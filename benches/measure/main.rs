//! What Rollcall takes, in seconds and in bytes, on a real Kafka. `./dev bench` runs it; see `help` below.

#![allow(missing_docs)]

mod dictionary;
mod fleet;
mod pipeline;
mod process;
mod report;
mod restore;

use anyhow::{Context as _, bail};
use rollcall::profile::Profile;

const HELP: &str = "\
./dev bench pipeline [PROFILE] [RECORDS] [RUNS] [--write]
    RECORDS raw records (a million) of 3 kB through `rollcall map`, RUNS times (5): first mapping, nothing changed,
    1 % changed, replay; against a loop that only passes the same bytes on
./dev bench state [PROFILE…] [DEVICES] [--write]
    fills a state topic with DEVICES devices (a million) of each PROFILE (all), starts `rollcall map`
    three times, and tells how long it was not ready, and its memory
./dev bench dictionary
    trains the dictionary that devices in memory are compressed with, and writes it to
    src/mapper/state/devices.zdict; the same source gives the same bytes

--write puts the tables into docs/benchmarks.md and draws docs/benchmarks.svg.";

fn main() -> anyhow::Result<()> {
    // cargo adds a `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let write = words.iter().any(|word| word == "--write");
    let mut words = words.iter().map(String::as_str).filter(|word| *word != "--write");
    let name = words.next().unwrap_or("help");
    let (mut profiles, mut numbers) = (Vec::new(), Vec::new());
    for word in words {
        match Profile::ALL.into_iter().find(|profile| profile.name() == word) {
            Some(profile) => profiles.push(profile),
            None => numbers.push(word.parse::<usize>().with_context(|| format!("{word:?}\n{HELP}"))?),
        }
    }
    match name {
        "pipeline" => {
            let profile = profiles.first().copied().unwrap_or(Profile::Sekoia);
            let (records, runs) = (numbers.first().copied(), numbers.get(1).copied());
            pipeline::measure(profile, records.unwrap_or(1_000_000), runs.unwrap_or(5), write)
        }
        "state" => {
            let profiles = if profiles.is_empty() { Profile::ALL.to_vec() } else { profiles };
            restore::measure(&profiles, numbers.first().copied().unwrap_or(1_000_000), write)
        }
        "dictionary" => dictionary::write(),
        "pass-through" => pipeline::pass_through::run(),
        "help" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("{other:?}\n{HELP}"),
    }
}
