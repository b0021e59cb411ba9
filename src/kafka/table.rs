//! Reads partitions of a compacted topic from their beginning to where they truly end: a stage's memory.
//!
//! The end is the true one, open transactions included: the commit marker of a dead predecessor may still be on its way,
//! and what it settles belongs to the memory. No group is joined and nothing is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ask::{self, list};
use super::client::{self, Plain};
use super::membership::consumer_error;
use super::{Fatal, Unavailable};
use crate::config::Kafka;

/// Progress of the partitions that are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// None at the moment.
    Nothing,
    /// A record was handed over.
    Record,
    /// All that was on this partition when its reading began has been handed over.
    Done(i32),
}

/// Takes a committed record: the partition, the key, the value or `None` for forgotten.
pub type TakeRecord<'a> = dyn FnMut(i32, &[u8], Option<&[u8]>) + 'a;

/// Where the reading of a partition stands.
struct Reading {
    next: i64,
    end: i64,
}

/// Reads partitions of one topic.
pub struct TableReader {
    topic: String,
    /// Reads what is committed.
    reader: BaseConsumer<Plain>,
    /// Sees the true end: a `read_committed` client takes the last stable offset for it.
    probe: BaseConsumer<Plain>,
    /// The partitions being read.
    reading: BTreeMap<i32, Reading>,
    /// Those that have just been found empty.
    done: BTreeSet<i32>,
}

impl TableReader {
    /// A reader of `topic`, for the member called `member`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, topic: &str, member: &str) -> Result<Self, KafkaError> {
        let reader = client::consumer(&client::table_reader(kafka, &format!("{member}-restore")), Plain)?;
        let mut config = client::table_reader(kafka, &format!("{member}-probe"));
        let probe = client::consumer(config.set("isolation.level", "read_uncommitted"), Plain)?;
        Ok(Self { topic: topic.to_owned(), reader, probe, reading: BTreeMap::new(), done: BTreeSet::new() })
    }

    /// Starts to read a partition, to where it ends now, open transactions included; that end.
    ///
    /// # Errors
    /// When Kafka does not tell the end, or transactions before it are still open.
    pub fn begin(&mut self, partition: i32) -> Result<i64, Unavailable> {
        let end = self.true_end(partition)?;
        self.begin_to(partition, end)?;
        Ok(end)
    }

    /// Where a partition ends now, open transactions included.
    ///
    /// # Errors
    /// When Kafka does not tell it.
    pub fn true_end(&self, partition: i32) -> Result<i64, Unavailable> {
        self.log(&self.probe, partition).map(|log| log.end)
    }

    /// Starts to read a partition, to an end that it had, or beyond. Beside writers that never rest this begins where
    /// [`begin`](Self::begin) would hardly ever.
    ///
    /// # Errors
    /// When Kafka does not tell whether transactions before that end are still open, or they are.
    pub fn begin_to(&mut self, partition: i32, end: i64) -> Result<(), Unavailable> {
        let Range { start: low, end: stable } = self.log(&self.reader, partition)?;
        // An end-of-partition event only says "stable end". From here on that lies behind the end, so the event can be
        // trusted.
        if stable < end {
            return Err(Unavailable(format!(
                "{} [{partition}] has an open transaction: stable to {stable}, ends at {end}",
                self.topic
            )));
        }
        if low == stable {
            self.done.insert(partition);
            return Ok(());
        }
        self.reading.insert(partition, Reading { next: low, end });
        self.reassign().map_err(|error| Unavailable(format!("{} [{partition}]: {error}", self.topic)))
    }

    fn log(&self, consumer: &BaseConsumer<Plain>, partition: i32) -> Result<Range<i64>, Unavailable> {
        ask::log(consumer, &self.topic, partition, ask::SHORT)
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn partitions(&self) -> Result<i32, Unavailable> {
        ask::partitions(&self.probe, &self.topic, ask::SHORT)
    }

    /// Stops to read a partition.
    pub fn end(&mut self, partition: i32) {
        self.done.remove(&partition);
        if self.reading.remove(&partition).is_some() {
            // Paused, not unassigned: an assignment would start the others anew.
            let _ = self.reader.pause(&list(&self.topic, &[partition]));
        }
        if self.reading.is_empty() {
            let _ = self.reader.unassign();
        }
    }

    /// Offsets that are still to be read, by partition.
    pub fn remaining(&self) -> BTreeMap<i32, u64> {
        let remaining = |reading: &Reading| u64::try_from(reading.end - reading.next).unwrap_or_default();
        self.reading.iter().map(|(partition, reading)| (*partition, remaining(reading))).collect()
    }

    /// Serves the events of idle clients.
    pub fn serve(&self) {
        let _ = self.probe.poll(Duration::ZERO);
        if self.reading.is_empty() {
            let _ = self.reader.poll(Duration::ZERO);
        }
    }

    fn reassign(&self) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::new();
        for (partition, Reading { next, .. }) in &self.reading {
            assignment.add_partition_offset(&self.topic, *partition, Offset::Offset(*next))?;
        }
        self.reader.assign(&assignment)?;
        // A partition that was paused when its last restore ended may be among them.
        self.reader.resume(&assignment)
    }

    /// The next of the progress, if there is any in time.
    ///
    /// # Errors
    /// When the reader cannot go on.
    pub fn poll(&mut self, timeout: Duration, take: &mut TakeRecord<'_>) -> Result<Restored, Fatal> {
        if let Some(partition) = self.done.pop_first() {
            return Ok(Restored::Done(partition));
        }
        match self.reader.poll(timeout) {
            None => Ok(Restored::Nothing),
            Some(Ok(message)) => {
                let Some(reading) = self.reading.get_mut(&message.partition()) else {
                    return Ok(Restored::Nothing);
                };
                reading.next = message.offset() + 1;
                take(message.partition(), message.key().unwrap_or_default(), message.payload());
                Ok(Restored::Record)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) if self.reading.contains_key(&partition) => {
                self.end(partition);
                Ok(Restored::Done(partition))
            }
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Restored::Nothing),
            Some(Err(error)) => consumer_error(&error, &self.topic).map(|()| Restored::Nothing),
        }
    }
}
