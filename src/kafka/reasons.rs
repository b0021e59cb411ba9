//! Why Kafka lets nobody in: a client's calls only say that they timed out, or which code an answer had.

use std::error::Error;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::auth;

/// The last words of a client that cannot connect.
#[derive(Clone, Default)]
pub struct Reasons(Arc<Mutex<Option<String>>>);

impl Reasons {
    /// An error of a call, with what the brokers or the network said: that comes as events of their own.
    pub fn of(consumer: &BaseConsumer<Self>, error: &impl Display) -> String {
        for _ in 0..5 {
            // One may be served by asking for a token, and what comes of that is the next.
            let _ = consumer.poll(Duration::from_millis(50));
        }
        let known = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(reason) => format!("{error}: {reason}"),
            None => error.to_string(),
        }
    }
}

impl ClientContext for Reasons {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, source: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        auth::token(source)
    }

    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // The first one names the cause; "all brokers are down" follows from it.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() || error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            *known = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Reasons {}
