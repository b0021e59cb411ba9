//! `rollcall replay`: raw records mapped again, exactly once, into topics of their own.
//!
//! A replay is the mapper's loop with another input range, output and state. [`plan`] fixes the range when the replay is
//! begun and is found by its name, so that whoever is killed is called again and goes on; [`port`] ends the loop where
//! the plan ends; [`file`] puts a file in the place of the raw topic. [`dead_letters`] go through the raw topic again.
//!
//! [`remap`] maps into the live topics, or tells what that would change ([`report`]).

pub mod dead_letters;
pub mod file;
pub mod plan;
pub mod port;
pub mod position;
pub mod progress;
pub mod remap;
pub mod report;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::Utc;
use prometheus::IntCounterVec;
use prometheus::core::Collector;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, GroupProtocol, Kafka};
use crate::kafka::topics::{Admin, Role, Wanted, wanted};
use crate::mapper::engine::Stuck;
use crate::mapper::kafka_port::Identity;
use crate::stage::{Partitions, Process, unreachable_kafka};
use file::{Dump, Records};
use plan::{Plans, Terms};
use port::ReplayPort;
use position::Position;
use progress::{Display, Progress};

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What the state topic of an output topic is called.
const STATE_SUFFIX: &str = ".state";

/// A replay into topics of its own.
#[derive(Debug, Clone)]
pub struct Order {
    /// Called by it again, it goes on.
    pub name: String,
    /// Where to read.
    pub input: Input,
    /// The topic of the events.
    pub output_topic: String,
}

/// What is mapped.
#[derive(Debug, Clone)]
pub enum Input {
    /// The raw topic, from one position up to another.
    Topic {
        /// The first,
        from: Position,
        /// and the end.
        to: Position,
    },
    /// A file of dumped raw records.
    File(PathBuf),
}

/// What a replay did.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// What was read.
    pub input: String,
    /// The topic of the events.
    pub output: String,
    /// Whether all of it is done.
    pub complete: bool,
    /// Of the range, how much.
    pub offsets: u64,
    /// Of these, done: by this start and those before.
    pub done: u64,
    /// What came of the records of this start, by outcome; those that came to nothing are left out.
    pub records: BTreeMap<String, u64>,
    /// Records rejected by this start, by kind. They are not written to the dead letters again.
    pub rejected: BTreeMap<String, u64>,
    /// How long it took.
    pub seconds: f64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, input, output, offsets, done, seconds, .. } = self;
        write!(f, "replay {name}: {input}, into {output}: ")?;
        if self.complete {
            writeln!(f, "all of {offsets} offsets done; this start took {seconds:.1} s")?;
        } else {
            writeln!(f, "stopped at {done} of {offsets} offsets; the same command goes on")?;
        }
        for (outcome, count) in &self.records {
            writeln!(f, "  {outcome:12} {count:>10}")?;
        }
        for (kind, count) in &self.rejected {
            writeln!(f, "  rejected as {kind}: {count}; the dead letters have them from the time that they came")?;
        }
        Ok(())
    }
}

/// Maps once more what `order` says, until `stop`.
///
/// # Errors
/// When Kafka or the registry cannot be reached or refuses, the topics are not fit for it, it was begun otherwise, or an
/// engine cannot go on. What is done stays done, and the same call goes on.
pub async fn replay(order: &Order, mut config: Config, stop: CancellationToken) -> anyhow::Result<Summary> {
    let began = Instant::now();
    let raw = config.kafka.topics.raw.clone();
    redirect(&mut config, order)?;
    let process = Process::new(config, stop.clone())?;
    let partitions = prepare_topics(&process.config.kafka, &order.name).await?;
    let framing = process.framing().await?;

    let terms = |input: String| {
        let (mapping, mapper) = (process.config.mapping(), &process.config.mapper);
        // All that changes an event, not only what changes a device.
        let rest = (mapping.time, &mapping.labels, &mapping.tenant_uid, mapper.gone_retention, mapper.max_record_bytes);
        let all = format!("{:?} {rest:?} {framing:?}", mapping.fingerprint());
        let (encoding, hash) = (mapper.encoding, blake3::hash(all.as_bytes()).to_hex());
        let mapping = format!("{} as {encoding:?} by mapping {}", mapping.profile.name(), &hash[..16]);
        Terms { input, output: order.output_topic.clone(), mapping: Some(mapping.to_lowercase()) }
    };
    // On a thread that may block: they ask Kafka.
    let (progress, input) =
        tokio::task::block_in_place(|| plan(order, &process.config.kafka, &raw, partitions, &terms))?;
    let progress = Arc::new(progress);

    let (group_id, dump) = (plan::group(&order.name), input.dump);
    let engines = if dump.is_some() { NonZeroUsize::MIN } else { process.config.mapper.engines };
    let engine = {
        let (process, progress) = (process.clone(), progress.clone());
        move |slot: usize, observer| -> anyhow::Result<()> {
            // Not by the host: whoever calls the replay by its name takes it over, from a dead one at once.
            let identity = Identity { group_id: group_id.clone(), member: format!("{group_id}-{slot}") };
            let port = process.port(slot, &identity, partitions)?;
            let (progress, all_done) = (progress.clone(), process.stop.clone());
            let port = ReplayPort::new(port, dump.clone().map(Records::new), progress, all_done);
            process.engine(port, partitions, framing, observer, Stuck::Ends)?.run()?;
            Ok(())
        }
    };
    let mut display = Display::new(&progress);
    let outcome = tokio::select! {
        outcome = process.engines(engines, engine) => outcome,
        never = watch(&progress, &mut display) => match never {},
    };
    display.end();
    outcome?;
    let (offsets, done) = progress.offsets();
    let metrics = &process.metrics.mapper;
    Ok(Summary {
        name: order.name.clone(),
        input: input.name,
        output: order.output_topic.clone(),
        complete: progress.is_done(),
        offsets,
        done,
        records: counts(&metrics.records),
        rejected: counts(&metrics.dead_letters),
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Shows the progress.
async fn watch(progress: &Progress, display: &mut Display) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        display.show(progress);
    }
}

/// What a counter has counted, by its one label.
fn counts(counter: &IntCounterVec) -> BTreeMap<String, u64> {
    let families = counter.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    let count = |series: &prometheus::proto::Metric| {
        let label = series.get_label().first().map(|label| label.value().to_owned());
        (label.unwrap_or_default(), series.get_counter().get_value() as u64)
    };
    series.map(count).filter(|(_, count)| *count > 0).collect()
}

/// Lets the mapper write to the topics of the replay, as a group of its own.
fn redirect(config: &mut Config, order: &Order) -> anyhow::Result<()> {
    let topics = &mut config.kafka.topics;
    let (events, state) = (order.output_topic.clone(), format!("{}{STATE_SUFFIX}", order.output_topic));
    let taken = [&topics.raw, &topics.sweeps, &topics.events, &topics.state, &topics.dead_letters, &topics.health];
    if let Some(taken) = taken.into_iter().find(|taken| **taken == events || **taken == state) {
        bail!(
            "--output-topic {events:?}: {taken} is a topic of the running pipeline, and a replay needs topics of its \
             own; --in-place maps into the live ones"
        );
    }
    (topics.events, topics.state) = (events, state);
    if matches!(order.input, Input::File(_)) {
        // The state topic has a partition for each of the file's, by which the group counts.
        topics.raw.clone_from(&topics.state);
    }
    config.mapper.group_id = plan::group(&order.name);
    // Who goes on in the place of a dead one need not wait until the group has given that one up, and one that lives is
    // fenced. By the newer protocol the name of a static member is not free before its session is over.
    (config.kafka.group_protocol, config.kafka.static_membership) = (GroupProtocol::Classic, true);
    Ok(())
}

/// Creates the topics of the replay where they are missing, with as many partitions as raw has.
async fn prepare_topics(kafka: &Kafka, name: &str) -> anyhow::Result<Partitions> {
    let admin = Admin::connect(kafka, &plan::group(name))?;
    let unreachable = || unreachable_kafka(&kafka.bootstrap_servers);
    let is_file = kafka.topics.raw == kafka.topics.state;
    let mut wanted: Vec<Wanted> = wanted(kafka);
    wanted.retain(|topic| match topic.role {
        Role::Events | Role::State => true,
        Role::Raw => !is_file,
        Role::Sweeps | Role::DeadLetters | Role::Health => false,
    });
    let (found, differences) = admin.examine(&wanted).await.with_context(unreachable)?;
    if !is_file {
        let Some(raw) = found.get(&kafka.topics.raw) else {
            let why = differences.iter().find(|difference| difference.topic == kafka.topics.raw);
            bail!("there is no topic {}: {}", kafka.topics.raw, why.map_or("", |difference| &difference.message))
        };
        wanted.iter_mut().for_each(|topic| topic.partitions = raw.partitions);
    }
    for topic in admin.create(&wanted, kafka.replication_factor).await? {
        tracing::info!(topic, "topic created");
    }
    let (found, differences) = admin.examine(&wanted).await.with_context(unreachable)?;
    let breaking = differences.into_iter().filter(|difference| difference.breaks);
    let breaking: String = breaking.map(|it| format!("\n  {}: {}", it.topic, it.message)).collect();
    if !breaking.is_empty() {
        bail!("the topics of the replay are not as they must be{breaking}");
    }
    let of = |topic: &String| found.get(topic).map_or(0, |found| found.partitions);
    let topics = &kafka.topics;
    Ok(Partitions { raw: of(&topics.raw), events: of(&topics.events), sweeps: 0, tombstones_kept: None })
}

/// What is read, at last.
struct Chosen {
    name: String,
    dump: Option<Arc<Dump>>,
}

/// Finds the plan of the replay, or fixes it; how far it is.
fn plan(
    order: &Order,
    kafka: &Kafka,
    raw: &str,
    partitions: Partitions,
    terms: &dyn Fn(String) -> Terms,
) -> anyhow::Result<(Progress, Chosen)> {
    let plans = Plans::new(kafka, &kafka.topics.raw, &order.name)?;
    let (chosen, fresh) = match &order.input {
        Input::Topic { from, to } => {
            let fresh = plans.ranges(partitions.raw, *from, *to, Utc::now())?;
            (Chosen { name: format!("{raw} from {from} to {to}"), dump: None }, fresh)
        }
        Input::File(path) => {
            let dump = Dump::scan(path, partitions.raw)?;
            let fresh = dump.ranges();
            (Chosen { name: dump.name(), dump: Some(Arc::new(dump)) }, fresh)
        }
    };
    let terms = terms(chosen.name.clone());
    let ranges = match plans.find(partitions.raw, &terms)? {
        Some(ranges) if chosen.dump.is_some() && ranges != fresh => {
            bail!(
                "{} is not the file that replay {:?} was begun with; give this one another name",
                chosen.name,
                order.name
            )
        }
        Some(ranges) => ranges,
        None => {
            for topic in [&kafka.topics.events, &kafka.topics.state] {
                if !Plans::new(kafka, topic, &order.name)?.is_empty(topic_partitions(topic, kafka, partitions))? {
                    bail!(
                        "{topic} is not empty: what is there would be mixed with this replay. Choose another \
                         --output-topic, or the --name that it was written by to go on"
                    );
                }
            }
            plans.fix(&fresh, &terms)?;
            fresh
        }
    };
    Ok((Progress::new(&ranges, &plans.standing(partitions.raw)?), chosen))
}

fn topic_partitions(topic: &str, kafka: &Kafka, partitions: Partitions) -> i32 {
    if topic == kafka.topics.events { partitions.events } else { partitions.raw }
}
