//! Reads a topic from some place on, as any consumer would that sees what is committed: joins no group, commits nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::Utc;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::start::Start;
use crate::config::Config;
use crate::kafka::client::{self, Plain};
use crate::kafka::{ask, consumer_error};
use crate::mapper::kafka_port::raw_record;
use crate::record::RawRecord;
use crate::replay::plan::{self, Ranges};
use crate::replay::position::Position;

/// How long to wait for the next record before looking around.
const POLL: Duration = Duration::from_millis(100);

/// librdkafka wants the name of a group; none is joined, nothing is committed.
const GROUP: &str = "rollcall-tail";

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// A record.
    Record,
    /// None at the moment.
    Nothing,
}

/// A reader of all partitions of one topic.
pub struct Follower {
    topic: String,
    consumer: BaseConsumer<Plain>,
    /// Where each partition that has not been read so far ended when the reading began.
    pending: BTreeMap<i32, i64>,
    /// Whether what has come since is left out.
    to_the_end: bool,
}

impl Follower {
    /// Opens a topic at its `start`; what comes later is left out if it is only read `to_the_end`.
    ///
    /// # Errors
    /// When Kafka does not answer, there is no such topic, or it was stopped meanwhile.
    pub fn open(
        config: &Config,
        topic: &str,
        start: Start,
        to_the_end: bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let client_id = format!("{}-tail", config.instance_id.0);
        let consumer = client::consumer(&client::reader(&config.kafka, &client_id, GROUP), Plain)?;
        let partitions = ask::partitions(&consumer, topic, plan::ANSWER)?;
        let position = match start {
            Start::At(position) => position,
            Start::Last(_) => Position::Earliest,
        };
        let mut ranges = plan::ranges(&consumer, topic, partitions, position, Position::Now, Utc::now())
            .with_context(|| format!("Kafka does not tell the offsets of {topic}"))?;
        let mut follower = Self { topic: topic.to_owned(), consumer, pending: BTreeMap::new(), to_the_end: true };
        if let Start::Last(count) = start {
            follower.keep_last(&mut ranges, count, stop)?;
        }
        follower.to_the_end = to_the_end;
        follower.assign(&ranges)?;
        Ok(follower)
    }

    /// Moves the beginning of each range to its last so many records. Offsets do not tell where that is: markers of
    /// transactions, aborted and compacted records have some, too. So it is read, from further and further away.
    fn keep_last(&mut self, ranges: &mut Ranges, count: usize, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut unknown: BTreeSet<i32> = ranges.keys().copied().collect();
        let mut span = 2 * count as i64;
        while !unknown.is_empty() && !stop.is_cancelled() {
            let mut looked_at = ranges.clone();
            looked_at.retain(|partition, range| {
                range.start = range.start.max(range.end - span);
                unknown.contains(partition)
            });
            self.assign(&looked_at)?;
            let mut last: BTreeMap<i32, VecDeque<i64>> = BTreeMap::new();
            while !self.pending.is_empty() && !stop.is_cancelled() {
                self.poll(&mut |record| {
                    let offsets = last.entry(record.partition).or_default();
                    offsets.push_back(record.offset);
                    if offsets.len() > count {
                        offsets.pop_front();
                    }
                    Ok(())
                })?;
            }
            for (partition, looked_at) in looked_at {
                let Some(range) = ranges.get_mut(&partition) else { continue };
                let found = last.remove(&partition).unwrap_or_default();
                if found.len() == count || looked_at.start == range.start {
                    unknown.remove(&partition);
                    range.start = found.front().copied().unwrap_or(range.end);
                }
            }
            span = span.saturating_mul(8);
        }
        Ok(())
    }

    fn assign(&mut self, ranges: &Ranges) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        for (partition, range) in ranges {
            assignment.add_partition_offset(&self.topic, *partition, Offset::Offset(range.start))?;
        }
        self.consumer.assign(&assignment)?;
        let unread = ranges.iter().filter(|(_, range)| range.start < range.end);
        self.pending = unread.map(|(partition, range)| (*partition, range.end)).collect();
        Ok(())
    }

    /// How many partitions are read.
    pub fn partitions(&self) -> usize {
        self.consumer.assignment().map_or(0, |assignment| assignment.count())
    }

    /// Whether everything that was there when the reading began has been handed over.
    pub fn is_at_end(&self) -> bool {
        self.pending.is_empty()
    }

    /// Hands over the next record, if there is one in time.
    ///
    /// # Errors
    /// Those of `take`; when the consumer cannot go on.
    pub fn poll(&mut self, take: &mut dyn FnMut(&RawRecord<'_>) -> anyhow::Result<()>) -> anyhow::Result<Polled> {
        match self.consumer.poll(POLL) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                let record = raw_record(&message);
                let end = self.pending.get(&record.partition);
                if !self.to_the_end || end.is_some_and(|end| record.offset < *end) {
                    take(&record)?;
                }
                if end.is_some_and(|end| record.offset + 1 >= *end) {
                    self.pending.remove(&record.partition);
                }
                Ok(Polled::Record)
            }
            // Behind the last record there may be markers of transactions only.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.pending.remove(&partition);
                Ok(Polled::Nothing)
            }
            Some(Err(KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange))) => {
                bail!("records of {} were deleted before they could be read; call it again", self.topic)
            }
            Some(Err(error)) => {
                consumer_error(&error, &self.topic)?;
                Ok(Polled::Nothing)
            }
        }
    }
}
