//! Notices: records that nobody waits for. They are sent when Kafka can be reached, and dropped when it cannot for long.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::client::{self, Plain};
use crate::config::Kafka;

/// How long an end waits for the last notices.
const LAST: Duration = Duration::from_secs(2);

/// Sends notices to one topic.
pub struct Notices {
    topic: String,
    producer: ThreadedProducer<Plain>,
}

impl Notices {
    /// To `topic`, by the client called `client_id`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, topic: &str, client_id: &str) -> Result<Self, KafkaError> {
        let mut config = client::common(kafka, client_id);
        // In order, each once; a few minutes of them are kept while Kafka is away.
        config.set("enable.idempotence", "true").set("queue.buffering.max.messages", "10000");
        let producer = client::connect(&config, Plain)?;
        Ok(Self { topic: topic.to_owned(), producer })
    }

    /// Sends a notice, without waiting.
    pub fn send(&self, key: &str, value: &[u8]) {
        if let Err((error, _)) = self.producer.send(BaseRecord::to(&self.topic).key(key).payload(value)) {
            tracing::warn!(topic = self.topic, %error, "a notice was dropped");
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Err(error) = self.producer.flush(LAST) {
            tracing::warn!(topic = self.topic, %error, "the last notices were not sent");
        }
    }
}
