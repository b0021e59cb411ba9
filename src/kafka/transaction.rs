//! A transactional producer whose every error is one of three outcomes.
//!
//! librdkafka knows some hundred errors; a loop can do four things about one: call again (done here, within the
//! transaction timeout), abort, start over with a new producer, or end. Delivery reports are always drained before a
//! commit or an abort: undrained, a commit costs 100 ms and an abort hangs for its whole timeout.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;

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

/// A record to be produced.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Message<'a> {
    pub topic: &'a str,
    /// `None` leaves it to the configured partitioner, murmur2.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(String, Option<Vec<u8>>)],
}

/// Keeps the first delivery that failed.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        super::client::note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| error.clone());
        }
    }
}

/// A producer with a stable transactional ID, replaced when it is fenced.
pub struct TransactionalProducer {
    config: ClientConfig,
    /// Longest that one step may take: the transaction timeout.
    timeout: Duration,
    producer: BaseProducer<Deliveries>,
}

impl TransactionalProducer {
    /// A producer by `config`, not yet initialised: [`initialise`](Self::initialise) or [`renew`](Self::renew) is the
    /// first call.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: ClientConfig, timeout: Duration) -> Result<Self, KafkaError> {
        let producer = create(&config)?;
        Ok(Self { config, timeout, producer })
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
        self.producer = create(&self.config).map_err(|error| Setback::Fatal(error.to_string()))?;
        match self.producer.init_transactions(self.timeout) {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) => Err(Setback::Fatal(describe("init_transactions", &error))),
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
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (name, value) in message.headers {
            headers = headers.insert(Header { key: name, value: value.as_deref() });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(message.topic).headers(headers);
        record.partition = message.partition;
        record.key = message.key;
        record.payload = message.value;
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), unsent)) if Instant::now() < deadline => {
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

    /// Adds the offsets to go on from, guarded by the group's generation.
    ///
    /// # Errors
    /// See [`Setback`].
    pub fn send_offsets(&mut self, offsets: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), Setback> {
        self.drain(self.timeout)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.producer.send_offsets_to_transaction(offsets, group, left) {
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

    /// Waits until everything that was sent is reported.
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
            Some(error) => Err(self.classify("delivery", &error)),
        }
    }

    fn take_failure(&self) -> Option<KafkaError> {
        self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn pause(&self) {
        self.producer.poll(Duration::from_millis(20));
    }

    fn classify(&self, call: &str, error: &KafkaError) -> Setback {
        let described = describe(call, error);
        let is_fatal = matches!(error, KafkaError::Transaction(error) if error.is_fatal())
            || self.producer.client().fatal_error().is_some();
        if is_refusal(error) {
            Setback::Fatal(described)
        } else if is_fatal {
            Setback::Renew(described)
        } else {
            Setback::Abort(described)
        }
    }
}

fn create(config: &ClientConfig) -> Result<BaseProducer<Deliveries>, KafkaError> {
    BaseProducer::from_config_and_context(config, Deliveries::default())
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
