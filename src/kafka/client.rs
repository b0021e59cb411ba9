//! Settings of the Kafka clients: ours where a guarantee or the speed hangs on them, the operator's for the rest.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::config::{Fault, Kafka};

/// What librdkafka does not take of `kafka.properties`. Its message is told only where it does not repeat the value,
/// which may be a secret under a misspelt name.
pub fn fault(kafka: &Kafka) -> Option<Fault> {
    match common(kafka, "check").create_native_config() {
        Err(KafkaError::ClientConfig(_, reason, name, value)) => Some(Fault {
            key: format!("kafka.properties.{name}"),
            message: if reason.contains(&value) {
                "has a value that librdkafka does not take".to_owned()
            } else {
                reason
            },
        }),
        Ok(_) | Err(_) => None,
    }
}

/// Logs what a client reports by the way. Nothing of it is an error of ours: what ends a client also fails a call.
pub fn note(error: &KafkaError, reason: &str) {
    match error {
        // An end is what a restore waits for.
        KafkaError::Global(Code::PartitionEOF) => {}
        error => tracing::warn!(%error, reason, "Kafka client"),
    }
}

/// What every client of ours has in common.
pub fn common(kafka: &Kafka, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true");
    for (name, value) in &kafka.properties {
        config.set(name, value.expose());
    }
    config
}

/// A transactional producer; `id` must be stable over restarts and unique among those that run.
pub fn producer(kafka: &Kafka, id: &str, linger: Duration) -> ClientConfig {
    let mut config = common(kafka, id);
    let timeout = kafka.transaction_timeout.as_millis().to_string();
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", &timeout)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", kafka.max_message_bytes.to_string());
    set_default(&mut config, kafka, "linger.ms", &linger.as_millis().to_string());
    set_default(&mut config, kafka, "batch.size", "1000000");
    set_default(&mut config, kafka, "compression.type", "lz4");
    set_default(&mut config, kafka, "queue.buffering.max.kbytes", "131072");
    config
}

/// A consumer that reads what is committed, and never commits by itself.
pub fn reader(kafka: &Kafka, client_id: &str, group_id: &str) -> ClientConfig {
    let mut config = common(kafka, client_id);
    config
        .set("group.id", group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed");
    set_default(&mut config, kafka, "queued.max.messages.kbytes", "32768");
    set_default(&mut config, kafka, "queued.min.messages", "20000");
    set_default(&mut config, kafka, "fetch.queue.backoff.ms", "20");
    set_default(&mut config, kafka, "fetch.wait.max.ms", "100");
    config
}

/// A member of a consumer group whose rebalances move only the partitions that must move.
pub fn member(kafka: &Kafka, client_id: &str, group_id: &str) -> ClientConfig {
    let mut config = reader(kafka, client_id, group_id);
    if kafka.properties.get("group.protocol").map(|value| value.expose()) != Some("consumer") {
        set_default(&mut config, kafka, "partition.assignment.strategy", "cooperative-sticky");
    }
    config
}

fn set_default(config: &mut ClientConfig, kafka: &Kafka, name: &str, value: &str) {
    if !kafka.properties.contains_key(name) {
        config.set(name, value);
    }
}
