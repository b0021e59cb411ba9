//! What a replay reads, fixed when it is begun: the part of each partition, and what is made of it.
//!
//! It is kept in Kafka, so that whoever calls the replay by its name goes on with the same: as the committed offsets of a
//! group of its own, `rollcall-plan-NAME`. Their offset is where the replay ends; their metadata is the [`Note`].
//! Where the replay stands is told by the offsets of the group that reads, `rollcall-replay-NAME`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::position::Position;
use crate::config::Kafka;
use crate::kafka::ask::{self, CommittedOffset};
use crate::kafka::{Reasons, client};

/// How long Kafka may take to answer a question.
pub const ANSWER: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(100);

/// What is said of a replay beside its ranges. It cannot change under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The file that is read, or the topic with where to begin and to end as it was said.
    pub input: String,
    /// The topic that is written.
    pub output: String,
    /// How, where records are mapped: the profile, the encoding and the fingerprint of the mapping.
    pub mapping: Option<String>,
}

/// The metadata of a plan's offset.
#[derive(Serialize, Deserialize)]
struct Note {
    from: i64,
    #[serde(flatten)]
    terms: Terms,
}

/// The ranges of a replay, by partition.
pub type Ranges = BTreeMap<i32, Range<i64>>;

/// The plans of the replay called `name` on one topic.
pub struct Plans {
    topic: String,
    name: String,
    /// In the group that keeps the plan.
    plan: BaseConsumer<Reasons>,
    /// In the group that reads.
    reading: BaseConsumer<Reasons>,
}

/// The group whose members read for the replay `name`.
pub fn group(name: &str) -> String {
    format!("rollcall-replay-{name}")
}

impl Plans {
    /// Of the replay `name`, which reads `topic` or counts by its partitions.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, topic: &str, name: &str) -> anyhow::Result<Self> {
        let group = group(name);
        let plan = format!("rollcall-plan-{name}");
        let settings = |group_id: &str| client::reader(kafka, &plan, group_id);
        Ok(Self {
            topic: topic.to_owned(),
            name: name.to_owned(),
            plan: client::consumer(&settings(&plan), Reasons::default())?,
            // Else it would wait for what one that was killed left open, which the next one that reads settles.
            reading: client::consumer(settings(&group).set("isolation.level", "read_uncommitted"), Reasons::default())?,
        })
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// When Kafka does not tell, or there is no such topic.
    pub fn partitions(&self) -> anyhow::Result<i32> {
        Ok(ask::partitions(&self.plan, &self.topic, ANSWER)?)
    }

    /// The ranges that the replay was begun with, if it was.
    ///
    /// # Errors
    /// When it was begun on other terms, its plan has expired, or Kafka does not tell.
    pub fn find(&self, partitions: i32, terms: &Terms) -> anyhow::Result<Option<Ranges>> {
        let name = &self.name;
        let ends = self.committed(&self.plan, partitions)?;
        let mut ranges = Ranges::new();
        for (partition, CommittedOffset { offset: to, metadata }) in ends {
            let note = metadata.unwrap_or_default();
            let note: Note = serde_json::from_str(&note)
                .with_context(|| format!("the plan of replay {name:?} cannot be read: {note:?}"))?;
            if note.terms != *terms {
                bail!(
                    "replay {name:?} was begun otherwise; give this one another name. It was begun with {}, this one \
                     has {}",
                    note.terms,
                    terms
                );
            }
            ranges.insert(partition, note.from..to);
        }
        if ranges.is_empty() {
            // Without a plan nothing may be half done.
            let begun = self.committed(&self.reading, partitions)?;
            if !begun.is_empty() {
                bail!("the plan of replay {name:?} has expired, though it was begun; give this one another name");
            }
            return Ok(None);
        }
        if ranges.len() != partitions as usize {
            bail!(
                "replay {name:?} was begun on {} partitions of {}, which has {partitions} now",
                ranges.len(),
                self.topic
            );
        }
        self.place(&ranges)?;
        Ok(Some(ranges))
    }

    /// Fixes a plan.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub fn fix(&self, ranges: &Ranges, terms: &Terms) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, range) in ranges {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(range.end))?;
            let note = serde_json::to_string(&Note { from: range.start, terms: terms.clone() })?;
            if let Some(mut element) = list.find_partition(&self.topic, *partition) {
                element.set_metadata(note);
            }
        }
        self.plan.commit(&list, CommitMode::Sync).context("Kafka does not take the plan of the replay")?;
        self.place(ranges)
    }

    /// Puts the group that reads to where the ranges begin, where it stands nowhere yet.
    fn place(&self, ranges: &Ranges) -> anyhow::Result<()> {
        let placed = self.committed(&self.reading, ranges.len() as i32)?;
        let mut list = TopicPartitionList::new();
        for (partition, range) in ranges {
            if !placed.contains_key(partition) {
                list.add_partition_offset(&self.topic, *partition, Offset::Offset(range.start))?;
            }
        }
        if list.count() > 0 {
            self.reading.commit(&list, CommitMode::Sync).context("Kafka does not take the start of the replay")?;
        }
        Ok(())
    }

    /// Whether no partition of the topic has a committed record.
    ///
    /// # Errors
    /// When Kafka does not tell.
    pub fn is_empty(&self, partitions: i32) -> anyhow::Result<bool> {
        for partition in 0..partitions {
            let log = log(&self.plan, &self.topic, partition)?;
            if !log.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What lies between two positions now.
    ///
    /// # Errors
    /// When Kafka does not tell.
    pub fn ranges(&self, partitions: i32, from: Position, to: Position, now: DateTime<Utc>) -> anyhow::Result<Ranges> {
        ranges(&self.plan, &self.topic, partitions, from, to, now)
    }

    /// Where the group that reads stands, by partition.
    ///
    /// # Errors
    /// When Kafka does not tell.
    pub fn standing(&self, partitions: i32) -> anyhow::Result<BTreeMap<i32, i64>> {
        let committed = self.committed(&self.reading, partitions)?;
        Ok(committed.into_iter().map(|(partition, found)| (partition, found.offset)).collect())
    }

    fn committed(
        &self,
        consumer: &BaseConsumer<Reasons>,
        partitions: i32,
    ) -> anyhow::Result<BTreeMap<i32, CommittedOffset>> {
        let partitions: Vec<_> = (0..partitions).collect();
        let found = ask::committed(consumer, &self.topic, &partitions, ANSWER);
        found.map_err(|error| {
            let why = Reasons::of(consumer, &error);
            let name = &self.name;
            anyhow!("the groups rollcall-plan-{name} and rollcall-replay-{name} cannot be read: {why}")
        })
    }
}

impl std::fmt::Display for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, into {}", self.input, self.output)?;
        self.mapping.iter().try_for_each(|mapping| write!(f, ", {mapping}"))
    }
}

/// Where the log of a partition begins, and how far it is stable.
fn log<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: i32) -> anyhow::Result<Range<i64>> {
    let deadline = Instant::now() + ANSWER;
    loop {
        match ask::log(consumer, topic, partition, ANSWER) {
            Ok(log) => return Ok(log),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            // A topic that was just created has no leader yet.
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// What lies between two positions of a topic now, for a consumer that reads what is committed.
///
/// # Errors
/// When Kafka does not tell.
pub fn ranges<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: i32,
    from: Position,
    to: Position,
    now: DateTime<Utc>,
) -> anyhow::Result<Ranges> {
    let mut logs = Ranges::new();
    for partition in 0..partitions {
        logs.insert(partition, log(consumer, topic, partition)?);
    }
    let resolve = |position: Position| -> anyhow::Result<BTreeMap<i32, i64>> {
        let Some(time) = position.time(now) else {
            let offset = |log: &Range<i64>| match position {
                Position::Offset(offset) => offset,
                Position::Now => log.end,
                _ => log.start,
            };
            return Ok(logs.iter().map(|(partition, log)| (*partition, offset(log))).collect());
        };
        let mut times = TopicPartitionList::new();
        for partition in logs.keys() {
            times.add_partition_offset(topic, *partition, Offset::Offset(time))?;
        }
        let found = consumer.offsets_for_times(times, ANSWER)?;
        let offset = |partition: i32, offset| match offset {
            Offset::Offset(offset) => offset,
            _ => logs.get(&partition).map_or(0, |log| log.end),
        };
        let elements = found.elements();
        Ok(elements.iter().map(|found| (found.partition(), offset(found.partition(), found.offset()))).collect())
    };
    let (from, to) = (resolve(from)?, resolve(to)?);
    let range = |partition: i32, log: Range<i64>| {
        let clamp = |offset: Option<&i64>| offset.copied().unwrap_or(log.start).clamp(log.start, log.end);
        let from = clamp(from.get(&partition));
        from..clamp(to.get(&partition)).max(from)
    };
    Ok(logs.into_iter().map(|(partition, log)| (partition, range(partition, log))).collect())
}
