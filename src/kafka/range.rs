//! Reads a range of a partition, outside any group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{self, Plain};
use super::membership::consumer_error;
use super::{Fatal, Unavailable, ask};
use crate::config::Kafka;

/// What comes next of a range.
pub enum Next<'a> {
    /// A committed record of it.
    Record(BorrowedMessage<'a>),
    /// Nothing in time.
    Nothing,
    /// That was all.
    End,
}

/// Reads ranges of one topic's partitions, one after the other.
pub struct RangeReader {
    topic: String,
    consumer: BaseConsumer<Plain>,
    /// Partition, and the offsets from which and before which it is read.
    range: (i32, i64, i64),
}

impl RangeReader {
    /// A reader of `topic`; `client_id` is the client's ID.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, topic: &str, client_id: &str) -> Result<Self, KafkaError> {
        // librdkafka wants the name of a group; none is joined, nothing is committed.
        let mut config = client::reader(kafka, client_id, "rollcall-restore");
        // From the leader, which told the end of the range.
        config.remove("client.rack");
        // What retention deletes meanwhile is not there to be read: on with what is.
        config.set("auto.offset.reset", "earliest");
        let consumer = client::consumer(&config, Plain)?;
        Ok(Self { topic: topic.to_owned(), consumer, range: (0, 0, 0) })
    }

    /// The offset that a partition begins with.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn beginning(&self, partition: i32) -> Result<i64, Unavailable> {
        Ok(ask::log(&self.consumer, &self.topic, partition, ask::SHORT)?.start)
    }

    /// Starts to read a partition from an offset on, to before another, which must not lie behind its stable end.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn begin(&mut self, partition: i32, from: i64, to: i64) -> Result<(), Fatal> {
        self.range = (partition, from, to);
        let mut assignment = TopicPartitionList::new();
        let assigned = assignment
            .add_partition_offset(&self.topic, partition, Offset::Offset(from))
            .and_then(|()| self.consumer.assign(&assignment));
        assigned.map_err(|error| Fatal(format!("{} [{partition}]: {error}", self.topic)))
    }

    /// What comes next of the range.
    ///
    /// # Errors
    /// When the client cannot go on.
    pub fn next(&self, timeout: Duration) -> Result<Next<'_>, Fatal> {
        let (partition, from, to) = self.range;
        match self.consumer.poll(timeout) {
            None => Ok(Next::Nothing),
            Some(Ok(message)) if message.partition() != partition || message.offset() < from => Ok(Next::Nothing),
            Some(Ok(message)) if message.offset() >= to => Ok(Next::End),
            Some(Ok(message)) => Ok(Next::Record(message)),
            // That of a read_committed client: the stable end.
            Some(Err(KafkaError::PartitionEOF(ended))) if ended == partition => Ok(Next::End),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Next::Nothing),
            Some(Err(error)) => consumer_error(&error, &self.topic).map(|()| Next::Nothing),
        }
    }

    /// Stops to read.
    pub fn end(&mut self) {
        let _ = self.consumer.unassign();
    }

    /// Serves the client's events, while it reads nothing.
    pub fn serve(&self) {
        let _ = self.consumer.poll(Duration::ZERO);
    }
}
