//! A member of a consumer group that handles rebalances in its own loop.
//!
//! librdkafka's callback only stores them, and the owner acts on them between two records. Partitions are assigned at
//! once, since the whole group waits otherwise, but paused until their memory is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::{Fatal, Setback, Unavailable, client};
use crate::config::Kafka;

/// How long Kafka may take to answer a question. Short, since running partitions wait meanwhile; it is asked again.
const ANSWER: Duration = Duration::from_millis(500);
/// How long a seek may take: it is local but for a wait on the fetcher.
const SEEK: Duration = Duration::from_secs(10);

/// A step of the group's rebalance protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// These partitions are ours now.
    Assign(Vec<i32>),
    /// These are to be given up: the group waits for it.
    Revoke(Vec<i32>),
    /// These were taken; somebody else may own them already.
    Lost(Vec<i32>),
}

/// One consumer of one topic, a member of a group.
pub struct Membership {
    topic: String,
    consumer: BaseConsumer<Rebalances>,
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

impl Membership {
    /// Joins the group of `group_id` on `topic`; `member` is the client's ID.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn join(kafka: &Kafka, topic: &str, group_id: &str, member: &str) -> Result<Self, KafkaError> {
        let context = Rebalances { steps: Mutex::default(), closing: AtomicBool::new(false) };
        let config = client::member(kafka, member, group_id);
        let consumer = BaseConsumer::from_config_and_context(&config, context)?;
        consumer.subscribe(&[topic])?;
        Ok(Self { topic: topic.to_owned(), consumer })
    }

    /// Hands over the next record of a running partition, if one comes in time. Returns early when the group rebalances.
    ///
    /// # Errors
    /// When the consumer cannot go on, or its offsets are gone from the topic.
    pub fn poll(&self, timeout: Duration, take: &mut dyn FnMut(&BorrowedMessage<'_>)) -> Result<(), Fatal> {
        match self.consumer.poll(timeout) {
            None => Ok(()),
            Some(Ok(message)) => {
                take(&message);
                Ok(())
            }
            Some(Err(error)) => consumer_error(&error, &self.topic),
        }
    }

    /// The next step of a rebalance that is to be acted on.
    pub fn rebalance(&self) -> Option<Rebalance> {
        self.consumer.context().steps.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Joins partitions to the assignment, paused.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn assign(&self, partitions: &[i32]) -> Result<(), Fatal> {
        let mut assigned = self.list(partitions);
        // Any position will do until the restore is done; one that is told spares a question to the coordinator.
        assigned.set_all_offsets(Offset::Beginning).map_err(fatal("assign"))?;
        self.consumer.incremental_assign(&assigned).map_err(fatal("assign"))?;
        if partitions.is_empty() {
            return Ok(());
        }
        self.consumer.pause(&assigned).map_err(fatal("pause"))
    }

    /// Gives partitions up.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn unassign(&self, partitions: &[i32]) -> Result<(), Fatal> {
        self.consumer.incremental_unassign(&self.list(partitions)).map_err(fatal("unassign"))
    }

    /// Delivers from `offset` on; `None` is the beginning.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn resume(&self, partition: i32, offset: Option<i64>) -> Result<(), Fatal> {
        let deadline = Instant::now() + SEEK;
        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
        loop {
            let mut target = TopicPartitionList::new();
            target.add_partition_offset(&self.topic, partition, offset).map_err(fatal("seek"))?;
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
        self.consumer.resume(&self.list(&[partition])).map_err(fatal("resume"))
    }

    /// Stops delivering.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn pause(&self, partitions: &[i32]) -> Result<(), Fatal> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.consumer.pause(&self.list(partitions)).map_err(fatal("pause"))
    }

    /// The group's committed offsets, none of them part of an unfinished transaction; `None` where there is none.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Unavailable> {
        // A read_committed consumer asks for stable offsets: Kafka holds them back while a transaction may change them.
        let unavailable = |error: KafkaError| Unavailable(format!("committed offsets: {error}"));
        let offsets = self.consumer.committed_offsets(self.list(partitions), ANSWER).map_err(unavailable)?;
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

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn partitions_of(&self, topic: &str) -> Result<i32, Unavailable> {
        count_partitions(&self.consumer, topic)
    }

    /// What guards a transaction: the offsets to go on from, and the group's generation.
    ///
    /// # Errors
    /// [`Setback::Abort`] where the partitions are no longer ours: a transaction without a real offset would not be
    /// guarded by the group at all.
    pub fn guard(&self, offsets: &BTreeMap<i32, i64>) -> Result<(TopicPartitionList, ConsumerGroupMetadata), Setback> {
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| Setback::Abort("not a member of the group".to_owned()))?;
        // Asked after the metadata, not before: a member that was just expelled has neither generation nor name in it,
        // and Kafka takes the offsets of such a one unchecked.
        if offsets.is_empty() || self.consumer.assignment_lost() {
            return Err(Setback::Abort("the partitions of this transaction are no longer ours".to_owned()));
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))
                .map_err(|error| Setback::Fatal(error.to_string()))?;
        }
        Ok((list, group))
    }

    /// Lets time pass without leaving the group, while all partitions are paused.
    ///
    /// # Errors
    /// When the consumer cannot go on.
    pub fn wait(&self, duration: Duration) -> Result<(), Fatal> {
        let deadline = Instant::now() + duration;
        loop {
            // What comes is of a partition that will be sought: it comes again.
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(Err(error)) = self.consumer.poll(left.min(Duration::from_millis(50))) {
                consumer_error(&error, &self.topic)?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        list(&self.topic, partitions)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        while let Some(step) = self.rebalance() {
            let _ = match step {
                Rebalance::Assign(numbers) => self.consumer.incremental_assign(&self.list(&numbers)),
                Rebalance::Revoke(numbers) | Rebalance::Lost(numbers) => {
                    self.consumer.incremental_unassign(&self.list(&numbers))
                }
            };
        }
    }
}

pub(super) fn count_partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<i32, Unavailable> {
    let unavailable = |reason: String| Unavailable(format!("metadata of {topic}: {reason}"));
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER);
    let metadata = metadata.map_err(|error| unavailable(error.to_string()))?;
    let topic = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    topic.map(|topic| topic.partitions().len() as i32).ok_or_else(|| unavailable("not told".to_owned()))
}

/// Most errors of a consumer are news of a broker that it will find again; a few end it.
pub(super) fn consumer_error(error: &KafkaError, topic: &str) -> Result<(), Fatal> {
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

pub(super) fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
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
