//! A transactional producer whose every error is one of three outcomes.
//!
//! librdkafka knows some hundred errors; a loop can do four things about one: call again (done here, within the
//! transaction timeout), abort, start over with a new producer, or end. What was sent is always drained before a
//! commit or an abort: undrained, a commit costs 100 ms and an abort hangs for its whole timeout.

use std::borrow::Cow;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::statistics::{self, Tell};
use super::{auth, client};

/// Why a transactional step failed, by what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Setback {
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// The outcome of the transaction may be unknown.
    #[error("the producer must be renewed: {0}")]
    Renew(String),
    /// One record is larger than the client may send. It was not added; the rest of the transaction stands.
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Fatal(String),
}

/// A header of a record to be produced: its name and its value.
pub type Header = (Cow<'static, str>, Option<Vec<u8>>);

/// A record to be produced.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Message<'a> {
    pub topic: &'a str,
    /// `None` leaves it to the configured partitioner, murmur2.
    pub partition: Option<i32>,
    /// Milliseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header],
}

/// Keeps the first delivery that failed, and its topic.
struct Deliveries {
    failed: Mutex<Option<(String, KafkaError)>>,
    /// Which topic the transaction may not write to: told in a line of the log, and nowhere else.
    denied: Mutex<Option<String>>,
    tell: Tell,
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, source: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        auth::token(source)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "ADDPARTS" && message.contains("authorization failed") {
            *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
        }
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::note(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        statistics::hear(json, &self.tell);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, message)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| (message.topic().to_owned(), error.clone()));
        }
    }
}

/// A producer with a stable transactional ID, replaced when it is fenced.
pub struct TransactionalProducer {
    config: ClientConfig,
    /// Longest that one step may take: the transaction timeout.
    timeout: Duration,
    /// Told the statistics of this producer and of those that replace it.
    tell: Tell,
    producer: BaseProducer<Deliveries>,
}

impl TransactionalProducer {
    /// A producer by `config`, not yet initialised: [`initialise`](Self::initialise) or [`renew`](Self::renew) is the
    /// first call. `tell` is told its statistics.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: ClientConfig, timeout: Duration, tell: Tell) -> Result<Self, KafkaError> {
        let producer = create(&config, &tell)?;
        Ok(Self { config, timeout, tell, producer })
    }

    /// Initialises the producer, and tries again while Kafka cannot be reached, until `is_stopped`.
    ///
    /// # Errors
    /// [`Setback::Fatal`] where Kafka refuses, or when stopped.
    pub fn initialise(&mut self, is_stopped: &dyn Fn() -> bool) -> Result<(), Setback> {
        loop {
            match self.renew() {
                Err(setback @ Setback::Renew(_)) if !is_stopped() => {
                    tracing::warn!(%setback, "waiting for Kafka");
                    std::thread::sleep(Duration::from_secs(1));
                }
                Err(Setback::Renew(cause)) => return Err(Setback::Fatal(cause)),
                outcome => return outcome,
            }
        }
    }

    /// Starts over with a new producer. A transaction of its predecessor, here or in a process that died, is settled
    /// when this returns `Ok`.
    ///
    /// # Errors
    /// [`Setback::Renew`] while Kafka cannot be reached, [`Setback::Fatal`] where it refuses.
    pub fn renew(&mut self) -> Result<(), Setback> {
        self.producer = create(&self.config, &self.tell).map_err(|error| Setback::Fatal(error.to_string()))?;
        match self.producer.init_transactions(self.timeout) {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) => {
                let id = self.config.get("transactional.id").unwrap_or_default();
                Err(Setback::Fatal(describe(&format!("init_transactions of {id:?}"), &error)))
            }
            Err(error) => Err(Setback::Renew(describe("init_transactions", &error))),
        }
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// See [`Setback`].
    pub fn begin(&mut self) -> Result<(), Setback> {
        self.producer.begin_transaction().map_err(|error| Setback::Renew(describe("begin_transaction", &error)))
    }

    /// Adds a record to the open transaction. Waits while the queue is full.
    ///
    /// # Errors
    /// See [`Setback`].
    pub fn send(&mut self, message: Message<'_>) -> Result<(), Setback> {
        let mut record = BaseRecord::<[u8], [u8]>::to(message.topic);
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers = Some(message.headers.iter().fold(headers, |headers, (name, value)| {
                headers.insert(KafkaHeader { key: name, value: value.as_deref() })
            }));
        }
        record.partition = message.partition;
        record.timestamp = message.timestamp;
        record.key = message.key;
        record.payload = message.value;
        let mut full_since = None;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), unsent))
                    if full_since.get_or_insert_with(Instant::now).elapsed() < self.timeout =>
                {
                    self.producer.poll(Duration::ZERO);
                    std::thread::sleep(Duration::from_millis(1));
                    record = unsent;
                }
                Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                    return Err(Setback::TooLarge(format!(
                        "a record for {} is larger than this client may send; raise kafka.max_message_bytes",
                        message.topic
                    )));
                }
                Err((error, _)) => return Err(self.classify("produce", &error)),
            }
        }
    }

    /// Adds the offsets to go on from, guarded by the group's generation; `guard` tells both.
    ///
    /// # Errors
    /// See [`Setback`].
    pub fn send_offsets(
        &mut self,
        guard: impl FnOnce() -> Result<(TopicPartitionList, ConsumerGroupMetadata), Setback>,
    ) -> Result<(), Setback> {
        self.drain(self.timeout)?;
        // Asked as late as can be: while another member joins, the group refuses the generation of a moment ago.
        let (offsets, group) = guard()?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.producer.send_offsets_to_transaction(&offsets, &group, left) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => self.pause(),
                Err(error) => return Err(self.classify("send_offsets_to_transaction", &error)),
            }
        }
    }

    /// Commits the open transaction.
    ///
    /// # Errors
    /// See [`Setback`]. After [`Setback::Renew`] the outcome is unknown until [`renew`](Self::renew) has returned.
    pub fn commit(&mut self) -> Result<(), Setback> {
        self.drain(self.timeout)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.producer.commit_transaction(left) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => self.pause(),
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    return Err(Setback::Abort(format!("commit_transaction: {error}")));
                }
                Err(error) => return Err(Setback::Renew(describe("commit_transaction", &error))),
            }
        }
    }

    /// Aborts the open transaction; it is aborted when this returns `Ok`.
    ///
    /// # Errors
    /// [`Setback::Renew`] where that could not be confirmed.
    pub fn abort(&mut self) -> Result<(), Setback> {
        // Nothing is purged: what is still on its way could arrive within the next transaction. A new producer fences it.
        let drained = self.drain(self.timeout / 4);
        if self.producer.in_flight_count() > 0 {
            return Err(Setback::Renew(drained.err().map_or_else(String::new, |setback| setback.to_string())));
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.producer.abort_transaction(left) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => self.pause(),
                Err(error) => return Err(Setback::Renew(describe("abort_transaction", &error))),
            }
        }
    }

    /// Serves events, so that tokens are refreshed while nothing is produced.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until everything that was sent is acknowledged, or reported as failed.
    fn drain(&self, limit: Duration) -> Result<(), Setback> {
        let deadline = Instant::now() + limit;
        loop {
            let before = self.producer.in_flight_count();
            if before == 0 {
                break;
            }
            if Instant::now() > deadline {
                return Err(Setback::Abort(format!("records were not acknowledged within {limit:?}")));
            }
            // A poll that waits does not return before its time is over, and spends its last millisecond spinning.
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() == before {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        match self.take_failure() {
            None => Ok(()),
            Some((topic, error)) => Err(self.classify(&format!("delivery to {topic}"), &self.cause(error))),
        }
    }

    fn take_failure(&self) -> Option<(String, KafkaError)> {
        self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records of a transaction that has failed are purged. Why it failed, a call tells that it refuses.
    fn cause(&self, error: KafkaError) -> KafkaError {
        if error.rdkafka_error_code() != Some(Code::PurgeQueue) {
            return error;
        }
        match self.producer.begin_transaction() {
            Err(KafkaError::Transaction(cause)) if cause.txn_requires_abort() => KafkaError::Transaction(cause),
            _ => error,
        }
    }

    fn pause(&self) {
        self.producer.poll(Duration::from_millis(20));
    }

    fn classify(&self, call: &str, error: &KafkaError) -> Setback {
        let described = describe(call, error);
        let is_fatal = matches!(error, KafkaError::Transaction(error) if error.is_fatal())
            || self.producer.client().fatal_error().is_some();
        if is_refusal(error) {
            let denied = self.producer.context().denied.lock().unwrap_or_else(PoisonError::into_inner).take();
            Setback::Fatal(match denied {
                Some(topic) => format!("{described} ({topic})"),
                None => described,
            })
        } else if is_fatal {
            Setback::Renew(described)
        } else {
            Setback::Abort(described)
        }
    }
}

fn create(config: &ClientConfig, tell: &Tell) -> Result<BaseProducer<Deliveries>, KafkaError> {
    client::connect(config, Deliveries { failed: Mutex::default(), denied: Mutex::default(), tell: tell.clone() })
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

/// Kafka will say the same for ever, until somebody changes a permission or a setting.
fn is_refusal(error: &KafkaError) -> bool {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        error => error.rdkafka_error_code(),
    };
    matches!(
        code,
        Some(
            Code::TransactionalIdAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::InvalidTransactionTimeout
                | Code::MessageSizeTooLarge
                | Code::UnsupportedVersion
        )
    )
}

fn describe(call: &str, error: &KafkaError) -> String {
    format!("{call}: {error}")
}
