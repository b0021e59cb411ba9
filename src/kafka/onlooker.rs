//! Looks at a consumer group from outside, without joining it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::client::{self, Plain};
use super::{Unavailable, ask};
use crate::config::Kafka;

/// How long the brokers may take to tell of a group: all of them are asked.
const ANSWER: Duration = Duration::from_secs(10);

/// A client that knows a group's name and is no member of it.
pub struct Onlooker {
    group_id: String,
    topic: String,
    consumer: BaseConsumer<Plain>,
}

impl Onlooker {
    /// Looks at the group of `group_id` on `topic`; `client_id` is the client's ID.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, topic: &str, group_id: &str, client_id: &str) -> Result<Self, KafkaError> {
        let consumer = client::consumer(&client::reader(kafka, client_id, group_id), Plain)?;
        Ok(Self { group_id: group_id.to_owned(), topic: topic.to_owned(), consumer })
    }

    /// The group's committed offsets, none of them part of an unfinished transaction; `None` where there is none.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Unavailable> {
        let found = ask::committed(&self.consumer, &self.topic, partitions, ask::SHORT)?;
        let offset = |partition: &i32| found.get(partition).map(|found| found.offset);
        Ok(partitions.iter().map(|partition| (*partition, offset(partition))).collect())
    }

    /// The members of the group, as `client ID (address)`. Of a group by KIP-848 none are told.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    pub fn members(&self) -> Result<Vec<String>, Unavailable> {
        let groups = self.consumer.fetch_group_list(Some(&self.group_id), ANSWER);
        let groups = groups.map_err(|error| Unavailable(format!("members of {}: {error}", self.group_id)))?;
        let members = groups.groups().iter().flat_map(|group| group.members());
        Ok(members.map(|member| format!("{} ({})", member.client_id(), member.client_host())).collect())
    }

    /// Serves the client's events.
    pub fn serve(&self) {
        let _ = self.consumer.poll(Duration::ZERO);
    }
}
