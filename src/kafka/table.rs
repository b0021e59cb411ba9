//! Reads partitions of a compacted topic from their beginning to where they truly end: a stage's memory.
//!
//! The end is the true one, open transactions included: the commit marker of a dead predecessor may still be on its way,
//! and what it settles belongs to the memory. No group is joined and nothing is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::membership::{consumer_error, count_partitions, list};
use super::{Fatal, Unavailable, client};
use crate::config::Kafka;

/// How long Kafka may take to answer a question. Short, since others wait meanwhile; it is asked again.
const ANSWER: Duration = Duration::from_millis(500);

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

/// A consumer that joins no group.
struct Reader;

impl ClientContext for Reader {
    fn error(&self, error: KafkaError, reason: &str) {
        client::note(&error, reason);
    }
}

impl ConsumerContext for Reader {}

/// Reads partitions of one topic.
pub struct TableReader {
    topic: String,
    /// Reads what is committed.
    reader: BaseConsumer<Reader>,
    /// Sees the true end: a `read_committed` client takes the last stable offset for it.
    probe: BaseConsumer<Reader>,
    /// The partitions being read, and where each stands.
    reading: BTreeMap<i32, Offset>,
    /// Those that have just been found empty.
    done: BTreeSet<i32>,
}

impl TableReader {
    /// A reader of `topic`, for the member called `member`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, topic: &str, member: &str) -> Result<Self, KafkaError> {
        // librdkafka wants the name of a group; none is joined, nothing is committed.
        let mut config = client::reader(kafka, &format!("{member}-restore"), "rollcall-restore");
        let reader = config.set("enable.partition.eof", "true").create_with_context(Reader)?;
        let mut config = client::reader(kafka, &format!("{member}-probe"), "rollcall-restore");
        let probe = config.set("isolation.level", "read_uncommitted").create_with_context(Reader)?;
        Ok(Self { topic: topic.to_owned(), reader, probe, reading: BTreeMap::new(), done: BTreeSet::new() })
    }

    /// Starts to read a partition, to where it ends now, open transactions included; that end.
    ///
    /// # Errors
    /// When Kafka does not tell the end, or transactions before it are still open.
    pub fn begin(&mut self, partition: i32) -> Result<i64, Unavailable> {
        let watermarks = |consumer: &BaseConsumer<Reader>| {
            let answer = consumer.fetch_watermarks(&self.topic, partition, ANSWER);
            answer.map_err(|error| Unavailable(format!("watermarks of {} [{partition}]: {error}", self.topic)))
        };
        let (low, end) = watermarks(&self.probe)?;
        let (_, stable) = watermarks(&self.reader)?;
        // An end-of-partition event only says "stable end". From here on that is the end, so the event can be trusted.
        if stable < end {
            return Err(Unavailable(format!(
                "{} [{partition}] has an open transaction: stable to {stable}, ends at {end}",
                self.topic
            )));
        }
        if low == end {
            self.done.insert(partition);
            return Ok(end);
        }
        self.reading.insert(partition, Offset::Beginning);
        self.reassign().map_err(|error| Unavailable(format!("{} [{partition}]: {error}", self.topic)))?;
        Ok(end)
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn partitions(&self) -> Result<i32, Unavailable> {
        count_partitions(&self.probe, &self.topic)
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

    /// Serves the events of idle clients.
    pub fn serve(&self) {
        let _ = self.probe.poll(Duration::ZERO);
        if self.reading.is_empty() {
            let _ = self.reader.poll(Duration::ZERO);
        }
    }

    fn reassign(&self) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in &self.reading {
            assignment.add_partition_offset(&self.topic, *partition, *offset)?;
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
                let Some(position) = self.reading.get_mut(&message.partition()) else {
                    return Ok(Restored::Nothing);
                };
                *position = Offset::Offset(message.offset() + 1);
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
