//! Apache Kafka behind the engine's [`Port`].

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message as _};

use super::port::{Destination, Fatal, Output, Port, Rebalance, Restored, Setback, TakeRecord, Unavailable};
use crate::config::{Kafka, Topics};
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
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Self, Setback> {
        let refused = |error: KafkaError| Setback::Fatal(error.to_string());
        let Identity { group_id, member } = identity;
        let producer_config = client::producer(kafka, member, Duration::from_millis(5));
        let mut producer = TransactionalProducer::new(producer_config, kafka.transaction_timeout).map_err(refused)?;
        producer.initialise(is_stopped)?;
        Ok(Self {
            topics: kafka.topics.clone(),
            aligned_events,
            membership: Membership::join(kafka, &kafka.topics.raw, group_id, member).map_err(refused)?,
            producer,
            states: TableReader::new(kafka, &kafka.topics.state, member).map_err(refused)?,
            served: Instant::now(),
        })
    }
}

impl Port for KafkaPort {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<(), Fatal> {
        if self.served.elapsed() > SERVE_EVERY {
            self.served = Instant::now();
            self.producer.poll();
            self.states.serve();
        }
        self.membership.poll(timeout, &mut |message| take(raw_record(message)))
    }

    fn rebalance(&mut self) -> Option<Rebalance> {
        self.membership.rebalance()
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

    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Unavailable> {
        self.membership.committed(partitions)
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

    fn begin(&mut self) -> Result<(), Setback> {
        self.producer.begin()
    }

    fn produce(&mut self, output: Output) -> Result<(), Setback> {
        let (topic, partition) = match output.destination {
            Destination::State => (&self.topics.state, Some(output.partition)),
            Destination::Events => (&self.topics.events, self.aligned_events.then_some(output.partition)),
            Destination::DeadLetters => (&self.topics.dead_letters, None),
        };
        self.producer.send(Message {
            topic,
            partition,
            key: output.key.as_deref(),
            value: output.value.as_deref(),
            headers: &output.headers,
        })
    }

    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Setback> {
        let (list, group) = self.membership.guard(offsets)?;
        self.producer.send_offsets(&list, &group)?;
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

fn raw_record<'a>(message: &'a BorrowedMessage<'_>) -> RawRecord<'a> {
    RawRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key(),
        value: message.payload(),
        headers: message
            .headers()
            .map(|headers| (0..headers.count()).filter_map(|index| header(headers, index)).collect())
            .unwrap_or_default(),
    }
}

/// `None` for a header whose name is not UTF-8: the client panics on it, and one record must not stop the mapper.
fn header(headers: &BorrowedHeaders, index: usize) -> Option<(&str, Option<&[u8]>)> {
    let header = std::panic::catch_unwind(AssertUnwindSafe(|| headers.get(index))).ok()?;
    Some((header.key, header.value))
}
