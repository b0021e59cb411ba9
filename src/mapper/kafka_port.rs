//! Apache Kafka behind the engine's [`Port`].
//!
//! Rebalances are not handled in librdkafka's callback: it stores them, and the engine acts on them between two records.
//! Partitions are assigned at once, since the whole group waits otherwise, but paused until their devices are there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::port::{Destination, Fatal, Output, Port, Rebalance, Restored, Setback, TakeState, Unavailable};
use crate::config::{Kafka, Topics};
use crate::kafka::{Message, TransactionalProducer, client};
use crate::record::RawRecord;

/// How long Kafka may take to answer a question. Short, since running partitions wait meanwhile; it is asked again.
const ANSWER: Duration = Duration::from_millis(500);
/// How often clients that are idle are served: their events would pile up, and their tokens expire.
const SERVE_EVERY: Duration = Duration::from_secs(1);
/// How long a seek may take: it is local but for a wait on the fetcher.
const SEEK: Duration = Duration::from_secs(10);

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
    consumer: BaseConsumer<Rebalances>,
    producer: TransactionalProducer,
    states: StateReader,
    /// When the clients that may be idle were last served.
    served: Instant,
}

/// Stores rebalances for the loop.
struct Rebalances {
    steps: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        client::note(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let numbers = partitions_of(list);
        if self.closing.load(Ordering::Acquire) {
            // Nobody polls any more; unanswered, the drop of the consumer would wait for ever.
            let _ = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            return;
        }
        let step = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assign(numbers)
        } else if consumer.assignment_lost() {
            Rebalance::Lost(numbers)
        } else {
            Rebalance::Revoke(numbers)
        };
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push_back(step);
    }
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
        let context = Rebalances { steps: Mutex::default(), closing: AtomicBool::new(false) };
        let config = client::member(kafka, member, group_id);
        let consumer = BaseConsumer::from_config_and_context(&config, context).map_err(refused)?;
        consumer.subscribe(&[&kafka.topics.raw]).map_err(refused)?;
        Ok(Self {
            topics: kafka.topics.clone(),
            aligned_events,
            consumer,
            producer,
            states: StateReader::new(kafka, member).map_err(refused)?,
            served: Instant::now(),
        })
    }

    fn raw(&self, partitions: &[i32]) -> TopicPartitionList {
        list(&self.topics.raw, partitions)
    }
}

impl Port for KafkaPort {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<(), Fatal> {
        if self.served.elapsed() > SERVE_EVERY {
            self.served = Instant::now();
            self.producer.poll();
            self.states.serve();
        }
        match self.consumer.poll(timeout) {
            None => Ok(()),
            Some(Ok(message)) => {
                take(raw_record(&message));
                Ok(())
            }
            Some(Err(error)) => consumer_error(&error, &self.topics.raw),
        }
    }

    fn rebalance(&mut self) -> Option<Rebalance> {
        self.consumer.context().steps.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn assign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        let mut assigned = self.raw(partitions);
        // Any position will do until the restore is done; one that is told spares a question to the coordinator.
        assigned.set_all_offsets(Offset::Beginning).map_err(fatal("assign"))?;
        self.consumer.incremental_assign(&assigned).map_err(fatal("assign"))?;
        if partitions.is_empty() {
            return Ok(());
        }
        self.consumer.pause(&assigned).map_err(fatal("pause"))
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.consumer.incremental_unassign(&self.raw(partitions)).map_err(fatal("unassign"))
    }

    fn resume(&mut self, partition: i32, offset: Option<i64>) -> Result<(), Fatal> {
        let deadline = Instant::now() + SEEK;
        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
        loop {
            let mut target = TopicPartitionList::new();
            target.add_partition_offset(&self.topics.raw, partition, offset).map_err(fatal("seek"))?;
            let sought = self.consumer.seek_partitions(target, ANSWER).and_then(|list| match list.elements().first() {
                Some(element) => element.error(),
                None => Ok(()),
            });
            match sought {
                Ok(()) => break,
                // The fetcher of a partition that was just assigned may not have started.
                // Not `wait`: other partitions are running, and what comes of them would be dropped.
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(Fatal(format!("seek of partition {partition}: {error}"))),
            }
        }
        self.consumer.resume(&self.raw(&[partition])).map_err(fatal("resume"))
    }

    fn pause(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.consumer.pause(&self.raw(partitions)).map_err(fatal("pause"))
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Unavailable> {
        // A read_committed consumer asks for stable offsets: Kafka holds them back while a transaction may change them.
        let unavailable = |error: KafkaError| Unavailable(format!("committed offsets: {error}"));
        let offsets = self.consumer.committed_offsets(self.raw(partitions), ANSWER).map_err(unavailable)?;
        let offset_of = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        offsets
            .elements()
            .iter()
            .map(|element| {
                element.error().map_err(unavailable)?;
                Ok((element.partition(), offset_of(element.offset())))
            })
            .collect()
    }

    fn restore(&mut self, partition: i32) -> Result<(), Unavailable> {
        self.states.begin(partition)
    }

    fn stop_restore(&mut self, partition: i32) {
        self.states.end(partition);
    }

    fn restored(&mut self, timeout: Duration, take: &mut TakeState<'_>) -> Result<Restored, Fatal> {
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
        // A transaction without a real offset would not be guarded by the group at all.
        if offsets.is_empty() || self.consumer.assignment_lost() {
            return Err(Setback::Abort("the partitions of this transaction are no longer ours".to_owned()));
        }
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| Setback::Abort("not a member of the group".to_owned()))?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topics.raw, *partition, Offset::Offset(*offset))
                .map_err(|error| Setback::Fatal(error.to_string()))?;
        }
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
        let deadline = Instant::now() + duration;
        loop {
            // What comes is of a partition that will be sought: it comes again.
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(Err(error)) = self.consumer.poll(left.min(Duration::from_millis(50))) {
                consumer_error(&error, &self.topics.raw)?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }
}

impl Drop for KafkaPort {
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        while let Some(step) = self.rebalance() {
            let _ = match step {
                Rebalance::Assign(numbers) => self.consumer.incremental_assign(&self.raw(&numbers)),
                Rebalance::Revoke(numbers) | Rebalance::Lost(numbers) => {
                    self.consumer.incremental_unassign(&self.raw(&numbers))
                }
            };
        }
    }
}

/// A consumer that joins no group.
struct Reader;

impl ClientContext for Reader {
    fn error(&self, error: KafkaError, reason: &str) {
        client::note(&error, reason);
    }
}

impl ConsumerContext for Reader {}

/// Reads partitions of the state topic from their beginning to where they end, open transactions included.
struct StateReader {
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

impl StateReader {
    fn new(kafka: &Kafka, member: &str) -> Result<Self, KafkaError> {
        // librdkafka wants the name of a group; none is joined, nothing is committed.
        let mut config = client::reader(kafka, &format!("{member}-restore"), "rollcall-restore");
        let reader = config.set("enable.partition.eof", "true").create_with_context(Reader)?;
        let mut config = client::reader(kafka, &format!("{member}-probe"), "rollcall-restore");
        let probe = config.set("isolation.level", "read_uncommitted").create_with_context(Reader)?;
        Ok(Self { topic: kafka.topics.state.clone(), reader, probe, reading: BTreeMap::new(), done: BTreeSet::new() })
    }

    fn begin(&mut self, partition: i32) -> Result<(), Unavailable> {
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
            return Ok(());
        }
        self.reading.insert(partition, Offset::Beginning);
        self.reassign().map_err(|error| Unavailable(format!("{} [{partition}]: {error}", self.topic)))
    }

    fn end(&mut self, partition: i32) {
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
    fn serve(&self) {
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

    fn poll(&mut self, timeout: Duration, take: &mut TakeState<'_>) -> Result<Restored, Fatal> {
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

/// Most errors of a consumer are news of a broker that it will find again; a few end it.
fn consumer_error(error: &KafkaError, topic: &str) -> Result<(), Fatal> {
    match error {
        KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(Fatal(format!(
            "records of {topic} that were not yet read have been deleted: its retention is shorter than the time this \
             process was away. Nothing was skipped. To go on from what is left: kafka-consumer-groups --reset-offsets \
             --to-earliest; devices that changed meanwhile come out with the next sweep ({error})"
        ))),
        KafkaError::MessageConsumptionFatal(code) => {
            Err(Fatal(format!("the consumer of {topic} cannot go on: {code}")))
        }
        KafkaError::MessageConsumption(
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::UnknownTopicOrPartition,
        ) => Err(Fatal(format!("{topic}: {error}"))),
        error => {
            tracing::warn!(topic, %error, "consumer error");
            Ok(())
        }
    }
}

fn fatal(step: &'static str) -> impl Fn(KafkaError) -> Fatal {
    move |error| Fatal(format!("{step}: {error}"))
}

fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    // `elements` panics on a list without an array behind it.
    if list.count() == 0 {
        return Vec::new();
    }
    list.elements().iter().map(|element| element.partition()).collect()
}
