//! A member of a consumer group that handles rebalances in its own loop.
//!
//! librdkafka's callback only stores them, and the owner acts on them between two records. Partitions are assigned at
//! once, since the whole group waits otherwise, but paused until their memory is there.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::ask::{self, CommittedOffset, list};
use super::statistics::{self, Standing, Tell};
use super::{Fatal, Setback, Unavailable, auth, client};
use crate::config::Kafka;

/// How often librdkafka is made to look after the membership.
const WAKE_EVERY: Duration = Duration::from_millis(20);
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

/// Where a group stands in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The offset to go on from.
    pub offset: i64,
    /// When that was committed, where one of us did: it is written into the offset's metadata.
    pub at: Option<DateTime<Utc>>,
}

/// One consumer of one topic, a member of a group.
pub struct Membership {
    topic: String,
    group_id: String,
    /// Its name in the group.
    member: String,
    consumer: BaseConsumer<Rebalances>,
    woken: Cell<Instant>,
}

/// Stores for the loop what the client tells.
struct Rebalances {
    topic: String,
    steps: Mutex<VecDeque<Rebalance>>,
    standings: Mutex<Vec<Standing>>,
    tell: Tell,
    closing: AtomicBool,
}

impl ClientContext for Rebalances {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, source: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        auth::token(source)
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::note(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        if let Some(statistics) = statistics::hear(json, &self.tell) {
            *self.standings.lock().unwrap_or_else(PoisonError::into_inner) = statistics.standings(&self.topic);
        }
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
    /// Joins the group of `group_id` on `topic`; `member` is the client's ID, and its name in the group where membership
    /// is static. `tell` is told its statistics.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn join(kafka: &Kafka, topic: &str, group_id: &str, member: &str, tell: Tell) -> Result<Self, KafkaError> {
        let context = Rebalances {
            topic: topic.to_owned(),
            steps: Mutex::default(),
            standings: Mutex::default(),
            tell,
            closing: AtomicBool::new(false),
        };
        let config = client::member(kafka, member, group_id);
        let consumer = client::consumer(&config, context)?;
        consumer.subscribe(&[topic])?;
        let (topic, group_id, member) = (topic.to_owned(), group_id.to_owned(), member.to_owned());
        Ok(Self { topic, group_id, member, consumer, woken: Cell::new(Instant::now()) })
    }

    /// Hands over the next record of a running partition, if one comes in time. Returns early when the group rebalances,
    /// and at the end of a partition, which it names.
    ///
    /// # Errors
    /// When the consumer cannot go on, or its offsets are gone from the topic.
    pub fn poll(&self, timeout: Duration, take: &mut dyn FnMut(&BorrowedMessage<'_>)) -> Result<Option<i32>, Fatal> {
        match self.consumer.poll(timeout) {
            None => Ok(None),
            Some(Ok(message)) => {
                take(&message);
                Ok(None)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Some(partition)),
            Some(Err(error)) => self.survive(&error).map(|()| None),
        }
    }

    /// librdkafka sends what heartbeats are due when its main thread wakes: once a second, or when it is asked something. If
    /// nobody asked but for the guard of a commit, it would hear of a rebalance just then, join anew while the commit is
    /// on its way, and the group would refuse the generation of a moment ago.
    fn wake(&self) {
        if self.woken.get().elapsed() > WAKE_EVERY {
            self.woken.set(Instant::now());
            let _ = self.consumer.group_metadata();
        }
    }

    /// What only a member of a group can die of, then what any consumer can.
    fn survive(&self, error: &KafkaError) -> Result<(), Fatal> {
        let member = &self.member;
        match self.consumer.client().fatal_error() {
            Some((Code::FencedInstanceId | Code::UnreleasedInstanceId, reason)) => Err(Fatal(format!(
                "another process is in the group as {member:?}: two replicas have the same instance_id, or, where \
                 kafka.group_protocol is consumer, one that was killed is still waited for, until its session times \
                 out. Give each replica an instance_id of its own ({reason})"
            ))),
            Some((Code::UnsupportedVersion | Code::UnsupportedFeature, reason)) => Err(Fatal(format!(
                "{member:?} cannot join its group: kafka.group_protocol \"consumer\" needs brokers of Kafka 4.0 or \
                 later; set \"classic\" ({reason})"
            ))),
            Some((_, reason)) => Err(Fatal(format!("the consumer of {} cannot go on: {reason}", self.topic))),
            None if error.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed) => {
                Err(Fatal(format!("group {:?}: {error}", self.group_id)))
            }
            None => consumer_error(error, &self.topic),
        }
    }

    /// The next step of a rebalance that is to be acted on. To be asked all the time: it has the membership looked after.
    pub fn rebalance(&self) -> Option<Rebalance> {
        self.wake();
        self.next_step()
    }

    fn next_step(&self) -> Option<Rebalance> {
        self.consumer.context().steps.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// How far the partitions were read and how far they go; empty until the client tells it anew.
    pub fn standings(&self) -> Vec<Standing> {
        std::mem::take(&mut self.consumer.context().standings.lock().unwrap_or_else(PoisonError::into_inner))
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
            let sought =
                self.consumer.seek_partitions(target, ask::SHORT).and_then(|list| match list.elements().first() {
                    Some(element) => element.error(),
                    None => Ok(()),
                });
            match sought {
                Ok(()) => break,
                Err(error) if self.consumer.client().fatal_error().is_some() => return self.survive(&error),
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
    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<Committed>>, Unavailable> {
        let mut found = ask::committed(&self.consumer, &self.topic, partitions, ask::SHORT)?;
        let at = |metadata: Option<String>| metadata?.parse().ok();
        let committed = |found: CommittedOffset| Committed { offset: found.offset, at: at(found.metadata) };
        Ok(partitions.iter().map(|partition| (*partition, found.remove(partition).map(committed))).collect())
    }

    /// From where to where a partition is kept: its first offset, and the one after its last.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn log(&self, partition: i32) -> Result<Range<i64>, Unavailable> {
        ask::log(&self.consumer, &self.topic, partition, ask::SHORT)
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn partitions_of(&self, topic: &str) -> Result<i32, Unavailable> {
        ask::partitions(&self.consumer, topic, ask::SHORT)
    }

    /// What guards a transaction: the offsets to go on from, and the group's generation. `at` is when the group came
    /// to them; it tells the next start how long nobody was there.
    ///
    /// # Errors
    /// [`Setback::Abort`] where the partitions are no longer ours: a transaction without a real offset would not be
    /// guarded by the group at all.
    pub fn guard(
        &self,
        offsets: &BTreeMap<i32, i64>,
        at: Option<DateTime<Utc>>,
    ) -> Result<(TopicPartitionList, ConsumerGroupMetadata), Setback> {
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| Setback::Abort("not a member of the group".to_owned()))?;
        // Asked after the metadata, not before: a member that was just expelled has neither generation nor name in it,
        // and Kafka takes the offsets of such a one unchecked.
        if offsets.is_empty() || self.consumer.assignment_lost() {
            return Err(Setback::Abort("the partitions of this transaction are no longer ours".to_owned()));
        }
        let mut list = TopicPartitionList::new();
        let at = at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true));
        for (partition, offset) in offsets {
            let mut element = list.add_partition(&self.topic, *partition);
            element.set_offset(Offset::Offset(*offset)).map_err(|error| Setback::Fatal(error.to_string()))?;
            if let Some(at) = &at {
                element.set_metadata(at);
            }
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
                self.survive(&error)?;
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
        while let Some(step) = self.next_step() {
            let _ = match step {
                Rebalance::Assign(numbers) => self.consumer.incremental_assign(&self.list(&numbers)),
                Rebalance::Revoke(numbers) | Rebalance::Lost(numbers) => {
                    self.consumer.incremental_unassign(&self.list(&numbers))
                }
            };
        }
    }
}

/// Most errors of a consumer are news of a broker that it will find again; a few end it.
///
/// # Errors
/// Those few.
pub fn consumer_error(error: &KafkaError, topic: &str) -> Result<(), Fatal> {
    match error {
        // The right on a group that is only named is nobody's need: see `note`.
        KafkaError::PartitionEOF(_) | KafkaError::MessageConsumption(Code::GroupAuthorizationFailed) => Ok(()),
        KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(Fatal(format!(
            "records of {topic} that were not yet read have been deleted: its retention is shorter than the time this \
             process was away. Nothing was skipped; the next start names the remedies ({error})"
        ))),
        KafkaError::MessageConsumptionFatal(code) => {
            Err(Fatal(format!("the consumer of {topic} cannot go on: {code}")))
        }
        KafkaError::MessageConsumption(Code::TopicAuthorizationFailed | Code::UnknownTopicOrPartition) => {
            Err(Fatal(format!("{topic}: {error}")))
        }
        error => {
            tracing::warn!(topic, %error, "consumer error");
            Ok(())
        }
    }
}

fn fatal(step: &'static str) -> impl Fn(KafkaError) -> Fatal {
    move |error| Fatal(format!("{step}: {error}"))
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    // `elements` panics on a list without an array behind it.
    if list.count() == 0 {
        return Vec::new();
    }
    list.elements().iter().map(|element| element.partition()).collect()
}
