//! What an operator, or time, does to topics and groups.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{server, wait_for};

fn admin() -> AdminClient<DefaultClientContext> {
    admin_of(&server("KAFKA"))
}

fn admin_of(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn answer<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Adds partitions, so that the topic has `count`.
pub fn add_partitions(topic: &str, count: usize) {
    add_partitions_on(&server("KAFKA"), topic, count);
}

/// The same on brokers of the test's own, which may have other worries: they are asked until it is so.
pub fn add_partitions_on(brokers: &str, topic: &str, count: usize) {
    until_done(topic, Code::InvalidPartitions, || {
        answer(admin_of(brokers).create_partitions([&NewPartitions::new(topic, count)], &AdminOptions::new()))
    });
}

/// Deletes a topic there.
pub fn delete_topic_on(brokers: &str, topic: &str) {
    until_done(topic, Code::UnknownTopicOrPartition, || {
        answer(admin_of(brokers).delete_topics(&[topic], &AdminOptions::new()))
    });
}

/// Creates one there.
pub fn create_topic_on(brokers: &str, topic: &str, partitions: i32, replicas: i32) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
    until_done(topic, Code::TopicAlreadyExists, || {
        answer(admin_of(brokers).create_topics([&new], &AdminOptions::new()))
    });
}

/// Asks until it is done, or was done by a question whose answer did not come.
fn until_done(topic: &str, was_done: Code, ask: impl Fn() -> KafkaResult<Vec<TopicResult>>) {
    wait_for(topic, Duration::from_secs(120), || match ask().ok()?.remove(0) {
        Err((_, code)) if code != was_done => None,
        Ok(_) | Err(_) => Some(()),
    });
}

/// Forgets a group's offsets, once its last member has left.
pub fn delete_group(group: &str) {
    wait_for("the group to be empty and deleted", Duration::from_secs(60), || {
        answer(admin().delete_groups(&[group], &AdminOptions::new())).ok()?.remove(0).ok()
    });
}

/// Deletes what lies before these offsets, by partition, as retention does.
pub fn delete_records(topic: &str, before: &BTreeMap<i32, i64>) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in before {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    let deleted = answer(admin().delete_records(&list, &AdminOptions::new())).unwrap();
    deleted.elements().iter().for_each(|element| element.error().unwrap());
}

/// Gives a topic these settings, and the brokers' defaults for all others.
pub fn configure(topic: &str, settings: &[(&str, &str)]) {
    let new = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    answer(admin().alter_configs([&new], &AdminOptions::new())).unwrap().remove(0).unwrap();
}
