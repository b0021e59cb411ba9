//! `rollcall replay --from-dlq`: dead letters that would be accepted now go through the raw topic again, each once.
//!
//! They are as they came: key, value, headers and time, so that one that was overtaken meanwhile is stale to the mapper.
//! What would be rejected again stays where it is, and is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Summary;
use super::plan::{self, Plans, Ranges, Terms};
use super::position::Position;
use super::progress::{Display, Progress};
use crate::config::Config;
use crate::kafka::client::{self, Plain};
use crate::kafka::{Header, Message, Setback, TransactionalProducer, consumer_error, statistics};
use crate::mapper::dead_letter::{FAILED_AT, OWN_HEADERS, RAW_TIMESTAMP, RAW_TOPIC};
use crate::mapper::decide::{Decision, Rules, decide};
use crate::mapper::engine::backoff;
use crate::mapper::kafka_port::raw_record;
use crate::mapper::state::Devices;
use crate::record::{RawRecord, partition_for};

/// Dead letters of a transaction, and their bytes, at most.
const MAX_RECORDS: usize = 1000;
const MAX_BYTES: usize = 16 << 20;
const POLL: Duration = Duration::from_millis(100);
/// Transactions in a row that may fail.
const MAX_SETBACKS: u32 = 10;

/// Which dead letters.
#[derive(Debug, Clone)]
pub struct Order {
    /// Called by it again, it goes on.
    pub name: String,
    /// From here
    pub from: Position,
    /// to there.
    pub to: Position,
    /// Whether nothing is to be written.
    pub is_dry: bool,
}

/// A record that goes to the raw topic again.
struct Repaired {
    partition: i32,
    timestamp: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
}

/// Why a dead letter stays where it is: a bounded word.
type Kind = &'static str;

/// What the mapper would do with the raw record behind a dead letter.
fn repair(letter: &RawRecord<'_>, rules: &Rules, raw_topic: &str) -> Result<Repaired, Kind> {
    if letter.header(RAW_TOPIC) != Some(raw_topic) {
        return Err("of-another-topic");
    }
    let time = |name| DateTime::parse_from_rfc3339(letter.header(name)?).ok();
    let timestamp =
        time(RAW_TIMESTAMP).or_else(|| time(FAILED_AT)).map_or(letter.timestamp_ms, |at| at.timestamp_millis());
    let headers: Vec<_> = letter.headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(name)).copied().collect();
    let partition = letter.key.map_or(0, |key| partition_for(key, rules.partitions));
    let raw = RawRecord { partition, offset: 0, timestamp_ms: timestamp, headers, ..letter.clone() };
    if let Decision::Reject(rejection) = decide(rules, &raw, &Devices::default(), &mut |_| {}) {
        return Err(rejection.kind());
    }
    Ok(Repaired {
        partition,
        timestamp,
        key: raw.key.unwrap_or_default().to_vec(),
        value: raw.value.map(<[u8]>::to_vec),
        headers: raw
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned().into(), value.map(<[u8]>::to_vec)))
            .collect(),
    })
}

/// A transaction's worth.
#[derive(Default)]
struct Batch {
    repaired: Vec<Repaired>,
    left: BTreeMap<String, u64>,
    next: BTreeMap<i32, i64>,
    records: usize,
    bytes: usize,
}

/// Sends what can be sent, until `stop`.
///
/// # Errors
/// When Kafka cannot be reached or refuses, or the replay was begun otherwise. What is done stays done.
pub fn resend(order: &Order, config: &Config, stop: &CancellationToken) -> anyhow::Result<Summary> {
    let began = Instant::now();
    let (kafka, topics) = (&config.kafka, &config.kafka.topics);
    let name = &order.name;
    let plans = Plans::new(kafka, &topics.dead_letters, name)?;
    let partitions = plans.partitions()?;
    let input = format!("{} from {} to {}", topics.dead_letters, order.from, order.to);
    let terms = Terms { input, output: topics.raw.clone(), mapping: None };
    let ranges = match plans.find(partitions, &terms)? {
        Some(ranges) => ranges,
        None => {
            let fresh = plans.ranges(partitions, order.from, order.to, Utc::now())?;
            if !order.is_dry {
                plans.fix(&fresh, &terms)?;
            }
            fresh
        }
    };
    let progress = Arc::new(Progress::new(&ranges, &plans.standing(partitions)?));
    let mut sender = Resend {
        rules: Rules::new(
            config.mapping(),
            Plans::new(kafka, &topics.raw, name)?.partitions()?,
            config.mapper.max_record_bytes.get(),
        ),
        dead_letters: &topics.dead_letters,
        raw: &topics.raw,
        plans,
        ranges,
        consumer: client::consumer(
            &client::reader(kafka, &format!("{}-0", plan::group(name)), &plan::group(name)),
            Plain,
        )?,
        producer: None,
        progress: progress.clone(),
        sent: 0,
        left: BTreeMap::new(),
    };
    if !order.is_dry {
        let config = client::producer(kafka, &format!("{}-0", plan::group(name)));
        let mut producer = TransactionalProducer::new(config, kafka.transaction_timeout, statistics::nobody())?;
        producer.initialise(&|| stop.is_cancelled())?;
        sender.producer = Some(producer);
    }
    let mut display = Display::new(&progress);
    let outcome = sender.run(stop, &mut display);
    display.end();
    outcome?;
    let (offsets, done) = progress.offsets();
    Ok(Summary {
        name: name.clone(),
        input: topics.dead_letters.clone(),
        output: topics.raw.clone(),
        complete: progress.is_done(),
        offsets,
        done,
        records: BTreeMap::from([("sent".to_owned(), sender.sent)]).into_iter().filter(|(_, sent)| *sent > 0).collect(),
        rejected: sender.left,
        seconds: began.elapsed().as_secs_f64(),
    })
}

struct Resend<'a> {
    rules: Rules,
    dead_letters: &'a str,
    raw: &'a str,
    plans: Plans,
    ranges: Ranges,
    /// Joins nothing: who else is called by this name is fenced by the producer.
    consumer: BaseConsumer<Plain>,
    /// `None` writes nothing.
    producer: Option<TransactionalProducer>,
    progress: Arc<Progress>,
    sent: u64,
    left: BTreeMap<String, u64>,
}

impl Resend<'_> {
    fn run(&mut self, stop: &CancellationToken, display: &mut Display) -> anyhow::Result<()> {
        let mut setbacks = 0;
        let mut open = self.seek()?;
        while !stop.is_cancelled() && !self.progress.is_done() {
            display.show(&self.progress);
            let batch = self.read(&mut open)?;
            match self.commit(&batch) {
                Ok(()) => {
                    setbacks = 0;
                    self.sent += batch.repaired.len() as u64;
                    batch.left.into_iter().for_each(|(kind, count)| *self.left.entry(kind).or_default() += count);
                    batch.next.iter().for_each(|(partition, next)| self.progress.committed(*partition, *next));
                    let ended = self.ranges.keys().filter(|partition| !open.contains(partition));
                    ended.for_each(|partition| self.progress.done(*partition));
                }
                Err(Setback::Fatal(cause) | Setback::TooLarge(cause)) => bail!(cause),
                Err(setback) if setbacks == MAX_SETBACKS => {
                    bail!("{setback}; what is done is done, the same command goes on")
                }
                Err(setback) => {
                    tracing::warn!(%setback, "transaction failed");
                    setbacks += 1;
                    std::thread::sleep(backoff(setbacks));
                    if let Some(producer) = &mut self.producer {
                        producer.initialise(&|| stop.is_cancelled())?;
                    }
                    open = self.seek()?;
                }
            }
        }
        Ok(())
    }

    /// Goes to where the group stands; the partitions that have something to read.
    fn seek(&mut self) -> anyhow::Result<BTreeSet<i32>> {
        let standing = self.plans.standing(self.ranges.len() as i32)?;
        let mut list = TopicPartitionList::new();
        let mut open = BTreeSet::new();
        for (partition, range) in &self.ranges {
            let at = standing.get(partition).copied().unwrap_or(range.start);
            if at < range.end {
                open.insert(*partition);
                list.add_partition_offset(self.dead_letters, *partition, Offset::Offset(at))?;
            } else {
                self.progress.done(*partition);
            }
        }
        self.consumer.assign(&list)?;
        Ok(open)
    }

    /// Reads until there is enough for a transaction, or nothing more; takes out of `open` what has ended.
    fn read(&self, open: &mut BTreeSet<i32>) -> anyhow::Result<Batch> {
        let mut batch = Batch::default();
        while batch.records < MAX_RECORDS && batch.bytes < MAX_BYTES && !open.is_empty() {
            match self.consumer.poll(POLL) {
                None if batch.records > 0 => break,
                // Kafka is away, and comes back; the caller looks whether it is to stop.
                None => return Ok(batch),
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    if offset >= self.progress.end(partition) {
                        open.remove(&partition);
                        let mut ended = TopicPartitionList::new();
                        ended.add_partition(self.dead_letters, partition);
                        self.consumer.pause(&ended)?;
                        continue;
                    }
                    let letter = raw_record(&message);
                    batch.records += 1;
                    batch.bytes += letter.len();
                    batch.next.insert(partition, offset + 1);
                    match repair(&letter, &self.rules, self.raw) {
                        Ok(repaired) => batch.repaired.push(repaired),
                        Err(kind) => *batch.left.entry(kind.to_owned()).or_default() += 1,
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => consumer_error(&error, self.dead_letters)?,
            }
        }
        Ok(batch)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Setback> {
        let Some(producer) = self.producer.as_mut().filter(|_| !batch.next.is_empty()) else { return Ok(()) };
        let group = self.consumer.group_metadata().ok_or_else(|| Setback::Fatal("no group".to_owned()))?;
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in &batch.next {
            offsets
                .add_partition_offset(self.dead_letters, *partition, Offset::Offset(*next))
                .map_err(|error| Setback::Fatal(error.to_string()))?;
        }
        producer.begin()?;
        for Repaired { partition, timestamp, key, value, headers } in &batch.repaired {
            producer.send(Message {
                topic: self.raw,
                partition: Some(*partition),
                timestamp: Some(*timestamp),
                key: Some(key),
                value: value.as_deref(),
                headers,
            })?;
        }
        producer.send_offsets(|| Ok((offsets, group)))?;
        producer.commit()
    }
}
