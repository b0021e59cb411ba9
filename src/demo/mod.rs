//! `rollcall demo`: both real stages at work on librdkafka's in-process mock of Kafka and on an invented fleet.
//!
//! The mock keeps about 5 MB a partition and shows aborted records: good for a demo, no proof of a guarantee.

pub mod table;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use prometheus::IntCounterVec;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::cli;
use crate::collector::Repeat;
use crate::config::{Config, FileSource, SimulatedSource, Source, SourceKind};
use crate::kafka::client::{self, Plain};
use crate::mapper::engine::LostOffsets;
use crate::profile::encode::Encoding;
use crate::record::OBSERVED_AT;
use crate::stage::{Partitions, Process};
use table::{Row, Summary};

const PARTITIONS: i32 = 6;
const SWEEP_INTERVAL: Duration = Duration::from_millis(1200);
/// How long the last events may take to come out.
const SETTLE: Duration = Duration::from_secs(20);
/// A narrower table cannot be read; a wider one is no better.
const WIDTHS: std::ops::RangeInclusive<usize> = 80..=140;

/// Runs the demo to its end, or until `stop`.
///
/// # Errors
/// When the mock cannot be started, or a stage fails.
pub async fn run(args: &cli::Demo, config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    let began = Instant::now();
    let cluster = MockCluster::new(1).context("the in-process Kafka cannot be started")?;
    let mut config = config.clone();
    config.kafka.bootstrap_servers = cluster.bootstrap_servers();
    let topics = &config.kafka.topics;
    for topic in [&topics.raw, &topics.sweeps, &topics.events, &topics.state, &topics.dead_letters, &topics.health] {
        cluster.create_topic(topic, PARTITIONS, 1).with_context(|| format!("topic {topic}"))?;
    }
    config.registry = None;
    config.mapper.encoding = Encoding::Json;
    // The mock at times forgets to answer a second member that joins the group while it is being formed.
    config.mapper.engines = NonZeroUsize::MIN;
    config.collector.sources = vec![source(args)];
    let process = Process::new(config, stop.clone())?;
    let partitions = Partitions { raw: PARTITIONS, events: PARTITIONS, sweeps: PARTITIONS, tombstones_kept: None };
    let repeat = match (&args.from, args.watch) {
        (_, true) => Repeat::Forever,
        // A file says the same each time.
        (Some(_), false) => Repeat::Times(1),
        (None, false) => Repeat::Times(args.sweeps),
    };

    if args.watch && !process.config.admin.listen.is_empty() {
        // The demo goes on without: another one may have the port.
        match admin::serve(&process.config.admin, process.watched(), stop.clone()).await {
            Ok(address) => anstream::println!("Status page: http://{address}\n"),
            Err(error) => anstream::eprintln!("No status page: {error:#}\n"),
        }
    }
    let mapping = process.map(partitions, LostOffsets::Stop);
    let collecting = async {
        let screen = Screen::open(&process)?;
        let swept = CancellationToken::new();
        let shown = tokio::task::spawn_blocking({
            let (process, swept) = (process.clone(), swept.clone());
            move || screen.show(&process, &swept)
        });
        let collected = process.collect(partitions, repeat).await;
        // The table ends when everything that was swept has come out.
        swept.cancel();
        if collected.is_err() {
            stop.cancel();
        }
        let shown = shown.await?;
        stop.cancel();
        shown?;
        if collected?.complete == 0 && !args.watch {
            bail!("nothing was swept");
        }
        anyhow::Ok(())
    };
    let (mapped, collected) = tokio::join!(mapping, collecting);
    collected?;
    mapped?;
    anstream::println!("\n{}", summary(&process, began.elapsed()));
    Ok(())
}

fn source(args: &cli::Demo) -> Source {
    let kind = match &args.from {
        Some(path) => SourceKind::File(FileSource { path: path.clone(), account: None, region: None }),
        None => SourceKind::Simulated(SimulatedSource { seed: args.seed, ..SimulatedSource::default() }),
    };
    Source { interval: SWEEP_INTERVAL, give_up_after: SETTLE, ..Source::new("demo", kind) }
}

/// Reads the events as any consumer would, and prints them.
struct Screen {
    consumer: BaseConsumer<Plain>,
    width: usize,
}

impl Screen {
    fn open(process: &Process) -> anyhow::Result<Self> {
        let kafka = &process.config.kafka;
        let mut settings = client::reader(kafka, "demo-screen", "demo-screen");
        let consumer = client::consumer(settings.set("enable.partition.eof", "false"), Plain)?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(&kafka.topics.events, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let width = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0));
        Ok(Self { consumer, width: width.clamp(*WIDTHS.start(), *WIDTHS.end()) })
    }

    fn show(&self, process: &Process, swept: &CancellationToken) -> anyhow::Result<()> {
        anstream::println!("{}", table::header(self.width));
        let mut shown = 0;
        let mut swept_at = None;
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    shown += 1;
                    self.print(&message)?;
                    continue;
                }
                Some(Err(error)) => return Err(error).context("events cannot be read"),
                None => {}
            }
            if process.stop.is_cancelled() {
                return Ok(());
            }
            if swept.is_cancelled() {
                if is_settled(process, shown) {
                    return Ok(());
                }
                if swept_at.get_or_insert_with(Instant::now).elapsed() > SETTLE {
                    bail!("some events did not come out within {SETTLE:?}; {shown} did");
                }
            }
        }
    }

    fn print(&self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Field {
            path: String,
            from: Value,
            to: Value,
        }
        let header = |name| {
            let headers = message.headers()?;
            let header = headers.iter().find(|header| header.key == name)?;
            std::str::from_utf8(header.value?).ok()
        };
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let fields: Vec<Field> = header("diff").and_then(|diff| serde_json::from_str(diff).ok()).unwrap_or_default();
        let fields: Vec<_> = fields.into_iter().map(|field| (field.path, field.from, field.to)).collect();
        let observed_at = header(OBSERVED_AT).and_then(|at| DateTime::parse_from_rfc3339(at).ok());
        let row = Row {
            at: observed_at.map_or_else(Utc::now, |at| at.to_utc()),
            change: header("change").ok_or_else(|| anyhow!("an event without the header `change`"))?,
            reason: header("reason"),
            id: &String::from_utf8_lossy(message.key().unwrap_or_default()),
            device: &event["device"],
            fields: &fields,
        };
        anstream::println!("{}", table::row(&row, self.width));
        Ok(())
    }
}

const CHANGES: [&str; 3] = ["created", "updated", "removed"];
const OTHERS: [&str; 3] = ["unchanged", "stale", "rejected"];

/// Whether every swept instance was mapped and every event shown.
fn is_settled(process: &Process, shown: u64) -> bool {
    let records = &process.metrics.mapper.records;
    let events = count(records, &CHANGES);
    let swept = count(&process.metrics.collector.instances, &["demo"]);
    events + count(records, &OTHERS) >= swept && shown >= events
}

fn count(counters: &IntCounterVec, labels: &[&str]) -> u64 {
    labels.iter().map(|label| counters.with_label_values(&[label]).get()).sum()
}

fn summary(process: &Process, elapsed: Duration) -> Summary {
    let records = &process.metrics.mapper.records;
    let collector = &process.metrics.collector;
    Summary {
        sweeps: collector.sweeps.with_label_values(&["demo", "complete"]).get(),
        swept: count(&collector.instances, &["demo"]),
        unchanged: count(records, &["unchanged"]),
        created: count(records, &["created"]),
        updated: count(records, &["updated"]),
        removed: count(records, &["removed"]),
        elapsed,
    }
}
