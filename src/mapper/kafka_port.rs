//! Apache Kafka behind the engine's [`Port`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message as _};

use super::port::{
    Committed, Destination, Fatal, Output, Port, Rebalance, Restored, Setback, Standing, TakeRecord, Unavailable,
};
use crate::config::{Kafka, Topics};
use crate::kafka::statistics::Listeners;
use crate::kafka::{Membership, Message, TableReader, TransactionalProducer, client};
use crate::record::RawRecord;

/// How often clients that are idle are served: their events would pile up, and their tokens expire.
const SERVE_EVERY: Duration = Duration::from_secs(1);

/// Who this engine is to Kafka.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The consumer group.
    pub group_id: String,
    /// Client and transactional ID: unique in the group, the same after a restart.
    pub member: String,
}

/// One consumer, one producer and one reader of the state topic.
pub struct KafkaPort {
    topics: Topics,
    /// Whether the events topic has as many partitions as raw: an event then goes to the partition that it came from.
    aligned_events: bool,
    membership: Membership,
    producer: TransactionalProducer,
    states: TableReader,
    /// When the clients that may be idle were last served.
    served: Instant,
    /// The partition whose end the last poll came to.
    ended: Option<i32>,
}

impl KafkaPort {
    /// Initialises the producer, which ends a predecessor's transaction, then joins the group.
    ///
    /// # Errors
    /// When a client's configuration is refused, Kafka refuses the transactional ID, or `is_stopped` meanwhile.
    pub fn connect(
        kafka: &Kafka,
        identity: &Identity,
        aligned_events: bool,
        listeners: Listeners,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Self, Setback> {
        let refused = |error: KafkaError| Setback::Fatal(error.to_string());
        let Identity { group_id, member } = identity;
        let producer_config = client::producer(kafka, member);
        let mut producer = TransactionalProducer::new(producer_config, kafka.transaction_timeout, listeners.producer)
            .map_err(refused)?;
        producer.initialise(is_stopped)?;
        Ok(Self {
            topics: kafka.topics.clone(),
            aligned_events,
            membership: Membership::join(kafka, &kafka.topics.raw, group_id, member, listeners.consumer)
                .map_err(refused)?,
            producer,
            states: TableReader::new(kafka, &kafka.topics.state, member).map_err(refused)?,
            served: Instant::now(),
            ended: None,
        })
    }

    /// The partition whose end the last poll came to, if it did.
    pub fn take_ended(&mut self) -> Option<i32> {
        self.ended.take()
    }
}

impl Port for KafkaPort {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<(), Fatal> {
        self.ended = self.membership.poll(timeout, &mut |message| take(raw_record(message)))?;
        Ok(())
    }

    fn rebalance(&mut self) -> Option<Rebalance> {
        if self.served.elapsed() > SERVE_EVERY {
            self.served = Instant::now();
            self.producer.poll();
            self.states.serve();
        }
        self.membership.rebalance()
    }

    fn standings(&mut self) -> Vec<Standing> {
        self.membership.standings()
    }

    fn assign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.membership.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.membership.unassign(partitions)
    }

    fn resume(&mut self, partition: i32, offset: Option<i64>) -> Result<(), Fatal> {
        self.membership.resume(partition, offset)
    }

    fn pause(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.membership.pause(partitions)
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<Committed>>, Unavailable> {
        self.membership.committed(partitions)
    }

    fn log(&mut self, partition: i32) -> Result<Range<i64>, Unavailable> {
        self.membership.log(partition)
    }

    fn restore(&mut self, partition: i32) -> Result<(), Unavailable> {
        self.states.begin(partition).map(|_| ())
    }

    fn stop_restore(&mut self, partition: i32) {
        self.states.end(partition);
    }

    fn restored(&mut self, timeout: Duration, take: &mut TakeRecord<'_>) -> Result<Restored, Fatal> {
        self.states.poll(timeout, take)
    }

    fn remaining(&self) -> BTreeMap<i32, u64> {
        self.states.remaining()
    }

    fn begin(&mut self) -> Result<(), Setback> {
        self.producer.begin()
    }

    fn produce(&mut self, output: Output) -> Result<(), Setback> {
        self.producer.send(message(&self.topics, self.aligned_events, &output))
    }

    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Setback> {
        self.producer.send_offsets(|| self.membership.guard(offsets, Some(Utc::now())))?;
        self.producer.commit()
    }

    fn abort(&mut self) -> Result<(), Setback> {
        self.producer.abort()
    }

    fn renew(&mut self) -> Result<(), Setback> {
        self.producer.renew()
    }

    fn wait(&mut self, duration: Duration) -> Result<(), Fatal> {
        self.membership.wait(duration)
    }
}

/// Where an output goes: an event to the partition that it came from, where the topics are aligned.
pub(crate) fn message<'a>(topics: &'a Topics, aligned_events: bool, output: &'a Output) -> Message<'a> {
    let (topic, partition) = match output.destination {
        Destination::State => (&topics.state, Some(output.partition)),
        Destination::Events => (&topics.events, aligned_events.then_some(output.partition)),
        Destination::DeadLetters => (&topics.dead_letters, None),
    };
    Message {
        topic,
        partition,
        timestamp: None,
        key: output.key.as_deref(),
        value: output.value.as_deref(),
        headers: &output.headers,
    }
}

/// A message as the raw record that it is.
pub fn raw_record<'a>(message: &'a BorrowedMessage<'_>) -> RawRecord<'a> {
    RawRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key(),
        value: message.payload(),
        headers: message.headers().map(headers).unwrap_or_default(),
    }
}

/// Without those whose name is not UTF-8: the client panics on it, and one record must not stop the mapper.
fn headers(all: &BorrowedHeaders) -> Vec<(&str, Option<&[u8]>)> {
    let mut headers = Vec::with_capacity(all.count());
    let readable = |index| std::panic::catch_unwind(AssertUnwindSafe(|| all.get(index))).ok();
    headers.extend((0..all.count()).filter_map(readable).map(|header| (header.key, header.value)));
    headers
}
