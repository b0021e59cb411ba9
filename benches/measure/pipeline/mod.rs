//! The whole pipeline from the raw topic on, against a loop that only passes the same bytes on.
//!
//! Each round has topics of its own and does everything once, so that what disturbs the machine for a while disturbs all
//! of it. A mapper runs before its records can be read ([`load::Gate`]): what is measured is neither a start nor a
//! restore.

mod latency;
mod load;
pub mod pass_through;

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rollcall::profile::Profile;
use serde_json::Value;

use crate::process::{Mapper, Topics, cpu_seconds, forget_peak, memory};
use crate::report::{self, Bar, median};
use latency::{Latency, Load};
use load::{Gate, Pass, load};

/// Of so many records one has changed.
const ONE_OF: usize = 100;
/// How often is looked whether all is mapped.
const LOOK: Duration = Duration::from_millis(50);
/// Without progress, it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What some records cost a process.
#[derive(Clone, Copy)]
pub struct Cost {
    pub records: f64,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub peak_bytes: f64,
}

impl Cost {
    fn rate(&self) -> f64 {
        self.records / self.seconds
    }

    fn cpu_per_million(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records
    }
}

/// What one round found, in the order of [`NAMES`].
struct Round {
    costs: [Cost; 6],
    passed: Latency,
    created: Latency,
    changed: Latency,
}

const NAMES: [&str; 6] = [
    "pass-through",
    "first mapping, all `created`",
    "nothing changed",
    "nothing changed, after a restart",
    "1 % changed",
    "replay",
];

pub fn measure(profile: Profile, records: usize, runs: usize, write: bool) -> anyhow::Result<()> {
    warm_up(profile, records)?;
    let mut rounds = Vec::new();
    let mut bytes = 0;
    for number in 1..=runs {
        let (round, loaded) = round(profile, records)?;
        eprintln!("round {number} of {runs}:");
        for (name, cost) in NAMES.iter().zip(&round.costs) {
            eprintln!("  {name:30} {:>9.0} records/s, {:.1} CPU-s a million", cost.rate(), cost.cpu_per_million());
        }
        let Round { passed, created, changed, .. } = &round;
        for (name, latency) in [("pass-through", passed), ("created", created), ("1 % changed", changed)] {
            let Latency { p50, p99, rate, .. } = latency;
            eprintln!("  latency, {name} at {rate:.0} records/s: p50 {p50:?}, p99 {p99:?}");
        }
        (bytes, _) = (loaded, rounds.push(round));
    }
    let mut table = String::new();
    writeln!(
        table,
        "Profile `{}`, {records} records of {} bytes over 12 partitions, medians of {runs} rounds behind one that does not count.\n",
        profile.name(),
        bytes / records as u64
    )?;
    table +=
        "| | records/s | times pass-through | CPU-seconds a million records | peak RSS, MiB | latency p50, p99 |\n";
    table += "|---|---|---|---|---|---|\n";
    let mut bars = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        let of = |of: &dyn Fn(&Cost) -> f64| median(rounds.iter().map(|round| of(&round.costs[index])));
        // Round by round: what slows the machine slows both.
        let ratio = median(rounds.iter().map(|round| round.costs[index].rate() / round.costs[0].rate()));
        let latency = |of: &dyn Fn(&Round) -> &Latency| {
            let p50 = median(rounds.iter().map(|round| of(round).p50.as_secs_f64() * 1e3));
            let p99 = median(rounds.iter().map(|round| of(round).p99.as_secs_f64() * 1e3));
            let rate = median(rounds.iter().map(|round| of(round).rate));
            format!("{p50:.0} ms, {p99:.0} ms at {rate:.0}/s")
        };
        let latency = match index {
            0 => latency(&|round| &round.passed),
            1 => latency(&|round| &round.created),
            4 => latency(&|round| &round.changed),
            _ => "".to_owned(),
        };
        writeln!(
            table,
            "| {name} | {:.0} | {ratio:.2} | {:.1} | {:.0} | {latency} |",
            of(&Cost::rate),
            of(&Cost::cpu_per_million),
            of(&|cost| cost.peak_bytes) / f64::from(1 << 20),
        )?;
        bars.push(Bar { name: name.replace('`', ""), value: ratio, label: format!("{ratio:.2} ×") });
    }
    report::publish(&format!("pipeline-{}", profile.name()), &table, write)?;
    if write && profile == Profile::Sekoia {
        report::draw("records/s, times a loop that only passes the bytes on", &bars)?;
    }
    Ok(())
}

/// A first mapping and a pass-through that are not told: the broker compiles its code while it does something for the
/// first time, on the cores that are measured.
fn warm_up(profile: Profile, records: usize) -> anyhow::Result<()> {
    let topics = Topics::create(profile)?;
    let mut mapper = topics.start_mapper()?;
    mapper.wait_until_ready(0)?;
    behind_gate(&topics, &mapper, Pass { records, sweep: 1, changed: None })?;
    mapper.stop()?;
    pass_through::measure(&topics, records)?;
    topics.delete(&["raw", "events", "state"])
}

fn round(profile: Profile, records: usize) -> anyhow::Result<(Round, u64)> {
    let topics = Topics::create(profile)?;
    let mut mapper = topics.start_mapper()?;
    mapper.wait_until_ready(0)?;
    let pass = |sweep, changed| Pass { records, sweep, changed };
    let behind_gate = |mapper: &Mapper, pass| behind_gate(&topics, mapper, pass);
    let outcomes =
        |mapper: &Mapper| ["created", "unchanged", "updated"].map(|outcome| mapper.mapped(outcome).unwrap_or_default());
    let (bytes, created) = behind_gate(&mapper, pass(1, None))?;
    let passed = pass_through::measure(&topics, records)?;
    let replayed = replay(&topics, profile, records)?;
    let (_, unchanged) = behind_gate(&mapper, pass(2, None))?;
    anyhow::ensure!(outcomes(&mapper) == [records, records, 0], "created, unchanged: {:?}", outcomes(&mapper));
    mapper.stop()?;
    mapper = topics.start_mapper()?;
    mapper.wait_until_ready(records)?;
    let (_, restarted) = behind_gate(&mapper, pass(2, None))?;
    let (_, changed) = behind_gate(&mapper, pass(3, Some(ONE_OF)))?;
    let updated = records.div_ceil(ONE_OF);
    let expected = [0, 2 * records - updated, updated];
    anyhow::ensure!(outcomes(&mapper) == expected, "created, unchanged, updated: {:?}", outcomes(&mapper));
    let round = Round {
        costs: [passed, created, unchanged, restarted, changed, replayed],
        created: latency::measure(&topics, Load::New, "events")?,
        changed: latency::measure(&topics, Load::Known { sweep: 4, one_of: ONE_OF }, "events")?,
        passed: {
            mapper.stop()?;
            pass_through::latency(&topics)?
        },
    };
    topics.delete(&["raw", "events", "state"])?;
    Ok((round, bytes))
}

/// What it costs a mapper to map what is written while it cannot read it; the bytes of that.
fn behind_gate(topics: &Topics, mapper: &Mapper, pass: Pass) -> anyhow::Result<(u64, Cost)> {
    let gate = Gate::close(topics)?;
    let bytes = load(topics, pass)?;
    Ok((bytes, watch(mapper, pass.records, || gate.open())?))
}

/// What it costs a mapper to map so many records, from when they can be read.
fn watch(mapper: &Mapper, records: usize, open: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Cost> {
    let mapped = || mapper.metric("rollcall_mapper_records_total");
    forget_peak(mapper.id())?;
    let (before, cpu, began) = (mapped()?, cpu_seconds(mapper.id())?, Instant::now());
    open()?;
    let (mut moved, mut last) = (began, before);
    while last < before + records as f64 {
        std::thread::sleep(LOOK);
        let now = mapped()?;
        if now > last {
            (moved, last) = (Instant::now(), now);
        }
        if moved.elapsed() > PATIENCE {
            bail!("only {} of {records} records are mapped", last - before);
        }
    }
    Ok(Cost {
        records: records as f64,
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(mapper.id())? - cpu,
        peak_bytes: memory(mapper.id())?[1] as f64,
    })
}

/// What it costs to replay what is on the raw topic, start and end of the command included.
fn replay(topics: &Topics, profile: Profile, records: usize) -> anyhow::Result<Cost> {
    let output = topics.topic("replayed");
    // One that has ended under this name would be told again, and nothing done.
    let name = uuid::Uuid::now_v7().simple().to_string();
    let arguments =
        ["replay", "--name", &name, "--output-topic", &output, "--profile", profile.name(), "--output", "json"];
    let began = Instant::now();
    let mut child = topics.rollcall(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut cpu, mut peak) = (0.0, 0);
    let ended = loop {
        // Until it has ended; a zombie has no memory any more.
        if let (Ok(seconds), Ok([_, most])) = (cpu_seconds(child.id()), memory(child.id())) {
            (cpu, peak) = (seconds, most);
        }
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(LOOK);
    };
    let seconds = began.elapsed().as_secs_f64();
    let told: Value = serde_json::from_reader(child.stdout.take().context("no summary")?)?;
    anyhow::ensure!(ended.success() && told["records"]["created"] == records, "the replay: {told}");
    topics.delete(&["replayed", "replayed.state"])?;
    Ok(Cost { records: records as f64, seconds, cpu_seconds: cpu, peak_bytes: peak as f64 })
}
