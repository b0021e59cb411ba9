//! Settings of the Kafka clients: ours where a guarantee or the speed hangs on them, the operator's for the rest.

use std::error::Error;

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{Producer, ProducerContext};

use super::auth;
use crate::config::{Fault, GroupProtocol, Kafka};

/// How often a client tells its statistics, in milliseconds.
const STATISTICS: &str = "statistics.interval.ms";

/// How long a record waits for others to share a request with: a transaction lasts much longer. A partition has one request
/// on its way, and librdkafka's thread spins while the next one that is due waits for its answer: 5 ms are less than
/// a busy broker takes, and a core was lost to it.
const LINGER_MS: &str = "10";

/// What librdkafka does not take of `kafka.properties`. Its message is told only where it does not repeat the value,
/// which may be a secret under a misspelt name.
pub fn fault(kafka: &Kafka) -> Option<Fault> {
    let mut config = common(kafka, "check");
    tell_statistics(&mut config, kafka, "0");
    match config.create_native_config() {
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
        // An end is what a restore waits for. A reader that joins no group has to name one all the same, and needs no
        // right on it; of a member's own group its calls tell.
        KafkaError::Global(Code::PartitionEOF | Code::GroupAuthorizationFailed) => {}
        error => tracing::warn!(%error, reason, "Kafka client"),
    }
}

/// Logs what librdkafka logs.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", "librdkafka: {facility} {message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", "librdkafka: {facility} {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", "librdkafka: {facility} {message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "librdkafka: {facility} {message}"),
    }
}

/// A client that has nothing else to tell.
#[derive(Clone)]
pub struct Plain;

impl ClientContext for Plain {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, source: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        auth::token(source)
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note(&error, reason);
    }
}

impl ConsumerContext for Plain {}

impl ProducerContext for Plain {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            tracing::warn!(topic = message.topic(), %error, "a record was not delivered");
        }
    }
}

/// A consumer by `config`. Every one is made here: it has to show who it is before it is polled.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn consumer<C: ConsumerContext>(config: &ClientConfig, context: C) -> Result<BaseConsumer<C>, KafkaError> {
    let consumer = BaseConsumer::from_config_and_context(config, context)?;
    auth::authenticate(config, consumer.client());
    Ok(consumer)
}

/// A producer of any kind by `config`, likewise.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn connect<C, Inner, P>(config: &ClientConfig, context: C) -> Result<P, KafkaError>
where
    C: ClientContext,
    Inner: ProducerContext,
    P: FromClientConfigAndContext<C> + Producer<Inner>,
{
    let producer = P::from_config_and_context(config, context)?;
    auth::authenticate(config, producer.client());
    Ok(producer)
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
    auth::configure(&mut config, kafka);
    // Of most clients nobody listens to them.
    config.set(STATISTICS, "0");
    config
}

/// Has the client tell its statistics, as often as the operator says or every `interval` milliseconds.
fn tell_statistics(config: &mut ClientConfig, kafka: &Kafka, interval: &str) {
    config.set(STATISTICS, kafka.properties.get(STATISTICS).map_or(interval, |told| told.expose()));
}

/// A transactional producer; `id` must be stable over restarts and unique among those that run. It reports
/// only what was not delivered.
pub fn producer(kafka: &Kafka, id: &str) -> ClientConfig {
    let mut config = common(kafka, id);
    let timeout = kafka.transaction_timeout.as_millis().to_string();
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", &timeout)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", kafka.max_message_bytes.to_string());
    // A group's coordinator that is restarted vanishes from the client's list of brokers, and offsets that were on their way
    // to it wait until the connection to any other broker comes or goes, whatever their timeout says (librdkafka #5511,
    // #5456). One that is idle goes soon: nothing else is sent meanwhile.
    set_default(&mut config, kafka, "connections.max.idle.ms", "10000");
    set_default(&mut config, kafka, "delivery.report.only.error", "true");
    set_default(&mut config, kafka, "linger.ms", LINGER_MS);
    set_default(&mut config, kafka, "batch.size", "1000000");
    set_default(&mut config, kafka, "compression.type", "lz4");
    set_default(&mut config, kafka, "queue.buffering.max.kbytes", "131072");
    tell_statistics(&mut config, kafka, "15000");
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
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    set_default(&mut config, kafka, "queued.max.messages.kbytes", "32768");
    set_default(&mut config, kafka, "queued.min.messages", "20000");
    set_default(&mut config, kafka, "fetch.queue.backoff.ms", "20");
    set_default(&mut config, kafka, "fetch.wait.max.ms", "100");
    config
}

/// A consumer of a compacted topic that joins no group, though librdkafka wants the name of one. What waits in it is
/// memory beside that of the table, so little waits: taking it in is slower than fetching it.
pub fn table_reader(kafka: &Kafka, client_id: &str) -> ClientConfig {
    let mut config = reader(kafka, client_id, "rollcall-restore");
    // From the leader: what a follower takes for the end may lie before what the leader has said is there.
    config.remove("client.rack");
    set_default(&mut config, kafka, "queued.max.messages.kbytes", "4096");
    set_default(&mut config, kafka, "fetch.message.max.bytes", "262144");
    config
}

/// A member of a consumer group whose rebalances move only the partitions that must move. `name` is the client's ID:
/// unique in the group, the same after a restart.
pub fn member(kafka: &Kafka, name: &str, group_id: &str) -> ClientConfig {
    let mut config = reader(kafka, name, group_id);
    // The lag is told from them.
    tell_statistics(&mut config, kafka, "5000");
    config.set("group.protocol", kafka.group_protocol.name());
    if kafka.group_protocol == GroupProtocol::Classic {
        config.set("partition.assignment.strategy", "cooperative-sticky");
        // A rebalance takes two rounds, and members hear of each by a heartbeat.
        set_default(&mut config, kafka, "heartbeat.interval.ms", "500");
    }
    if kafka.static_membership {
        config.set("group.instance.id", name);
    }
    config
}

fn set_default(config: &mut ClientConfig, kafka: &Kafka, name: &str, value: &str) {
    if !kafka.properties.contains_key(name) {
        config.set(name, value);
    }
}
