//! Questions about topics and groups, which any consumer can ask. Those that concern what is committed are answered to a
//! `read_committed` consumer by the last stable offset.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::Unavailable;

/// How long Kafka may take to answer. Short, where others wait meanwhile: it is asked again.
pub const SHORT: Duration = Duration::from_millis(500);

/// An offset that a group has committed.
pub struct CommittedOffset {
    /// The offset to go on from.
    pub offset: i64,
    /// What was committed with it; `None` where it is no text.
    pub metadata: Option<String>,
}

/// The committed offsets of the consumer's group, where there are any.
///
/// # Errors
/// When Kafka does not tell in time, which a `read_committed` consumer also hears while an unfinished transaction may
/// change them.
pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> Result<BTreeMap<i32, CommittedOffset>, Unavailable> {
    let unavailable = |error: KafkaError| Unavailable(format!("committed offsets: {error}"));
    let answer = consumer.committed_offsets(list(topic, partitions), patience).map_err(unavailable)?;
    let mut committed = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(unavailable)?;
        if let Offset::Offset(offset) = element.offset() {
            committed.insert(element.partition(), CommittedOffset { offset, metadata: metadata(&element) });
        }
    }
    Ok(committed)
}

/// The client panics on metadata that are not UTF-8; what others have committed must not stop anybody.
fn metadata(element: &TopicPartitionListElem<'_>) -> Option<String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).ok()
}

/// How many partitions a topic has.
///
/// # Errors
/// When Kafka does not tell in time, or there is no such topic.
pub fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    patience: Duration,
) -> Result<i32, Unavailable> {
    let metadata = consumer.fetch_metadata(Some(topic), patience);
    let unavailable = |error: &dyn Display| Unavailable(format!("metadata of {topic}: {error}"));
    let metadata = metadata.map_err(|error| unavailable(&error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map(|found| (found.error().map(Code::from), found.partitions().len())) {
        Some((None, partitions)) => Ok(partitions as i32),
        Some((Some(code @ Code::TopicAuthorizationFailed), _)) => Err(unavailable(&code)),
        Some((Some(_), _)) | None => Err(Unavailable(format!("there is no topic {topic}"))),
    }
}

/// From where to where a partition is kept: its first offset, and the one after its last.
///
/// # Errors
/// When Kafka does not tell in time.
pub fn log<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<Range<i64>, Unavailable> {
    let answer = consumer.fetch_watermarks(topic, partition, patience);
    let (first, end) = answer.map_err(|error| Unavailable(format!("watermarks of {topic} [{partition}]: {error}")))?;
    Ok(first..end)
}

/// Partitions of a topic, without offsets.
pub fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
