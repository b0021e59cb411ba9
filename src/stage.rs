//! Starting and ending the two stages: nothing is joined before everything is checked, and an end has a deadline.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::collector::file::FileInstances;
use crate::collector::publisher::Publisher;
use crate::collector::simulated::Simulated;
use crate::collector::source::Source;
use crate::collector::{self, Repeat};
use crate::config::{self, Config, SourceKind};
use crate::kafka::topics::{Admin, Role, differences, wanted};
use crate::kafka::{TransactionalProducer, client};
use crate::mapper::changelog::Changelog;
use crate::mapper::dead_letter::BreakerLimits;
use crate::mapper::decide::Rules;
use crate::mapper::engine::{Engine, Settings};
use crate::mapper::kafka_port::{Identity, KafkaPort};
use crate::mapper::observer::Observer;
use crate::profile::encode::{Encoder, Encoding, Framing};
use crate::registry;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// How long Kafka is waited for at a start.
const KAFKA_WITHIN: Duration = Duration::from_secs(60);
/// How long a stage may take to end: below the ten seconds that an operator is promised.
const END_WITHIN: Duration = Duration::from_secs(8);

/// What readiness waits for until the stages say what they wait for.
const START: &str = "start";

/// A process of one or both stages.
#[derive(Clone)]
pub struct Process {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// Its health.
    pub health: Arc<Health>,
    /// Asks everything in it to end.
    pub stop: CancellationToken,
}

/// The partitions of the topics that the stages compute partitions for. Pinned from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    /// Of the raw topic, and so of the state topic.
    pub raw: i32,
    /// Of the events topic.
    pub events: i32,
}

impl Process {
    /// A process by `config`.
    ///
    /// # Errors
    /// None with well-formed metrics.
    pub fn new(config: Config, stop: CancellationToken) -> anyhow::Result<Self> {
        let (metrics, health) = (Arc::new(Metrics::new()?), Arc::new(Health::default()));
        health.not_ready(START, "checking the topics");
        Ok(Self { config: Arc::new(config), metrics, health, stop })
    }

    /// Checks the topics.
    ///
    /// # Errors
    /// When Kafka does not answer within a minute, or a difference would break a guarantee; all of them are named.
    pub async fn check_topics(&self) -> anyhow::Result<Partitions> {
        let kafka = &self.config.kafka;
        let admin = Admin::connect(kafka, &self.config.instance_id.0)?;
        let wanted = wanted(kafka);
        let deadline = tokio::time::Instant::now() + KAFKA_WITHIN;
        let found = loop {
            let described = tokio::select! {
                described = admin.describe(&wanted) => described,
                () = self.stop.cancelled() => bail!("stopped while waiting for Kafka"),
            };
            match described {
                Ok(found) => break found,
                Err(error) if tokio::time::Instant::now() > deadline => {
                    return Err(error).context(unreachable_kafka(&kafka.bootstrap_servers));
                }
                Err(error) => tracing::warn!(%error, servers = kafka.bootstrap_servers, "waiting for Kafka"),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = self.stop.cancelled() => bail!("stopped while waiting for Kafka"),
            }
        };
        let mut breaking = Vec::new();
        for difference in differences(&wanted, &found) {
            if difference.breaks {
                breaking.push(format!("\n  {}: {}", difference.topic, difference.message));
            } else {
                tracing::warn!(topic = difference.topic, "{}", difference.message);
            }
        }
        if !breaking.is_empty() {
            bail!("the topics are not as they must be{}", breaking.concat());
        }
        let partitions_of = |role| {
            let topic = wanted.iter().find(|topic| topic.role == role)?;
            Some(found.get(&topic.name)?.partitions)
        };
        let of = |role| partitions_of(role).ok_or_else(|| anyhow!("a topic vanished while it was checked"));
        Ok(Partitions { raw: of(Role::Raw)?, events: of(Role::Events)? })
    }

    /// Stage 1: sweeps the configured sources, until stopped or once.
    ///
    /// # Errors
    /// When a source cannot be built, or Kafka refuses the producer.
    pub async fn collect(&self, partitions: Partitions, repeat: Repeat) -> anyhow::Result<collector::Outcome> {
        let Config { instance_id, kafka, collector, .. } = &*self.config;
        let sources = collector.sources.iter().map(|source| Ok((source.clone(), build(source, &self.metrics)?)));
        let sources = sources.collect::<anyhow::Result<Vec<_>>>()?;
        if sources.is_empty() {
            bail!("collector.sources is empty; configure at least one");
        }
        self.health.not_ready("collector", "initialising its producer");
        self.health.ready(START);
        // Of this pipeline: others on the same Kafka may run under the same name.
        let id = format!("rollcall-collector-{}-{}", kafka.topics.raw, instance_id.0);
        let settings = client::producer(kafka, &id, Duration::from_millis(20));
        let timeout = kafka.transaction_timeout;
        let producer = tokio::task::block_in_place(|| {
            let mut producer = TransactionalProducer::new(settings, timeout)?;
            producer.initialise(&|| self.stop.is_cancelled())?;
            anyhow::Ok(producer)
        })
        .context("the collector's producer cannot be initialised")?;
        self.health.ready("collector");
        let metrics = self.metrics.clone();
        let count = move |result| metrics.collector.transactions.with_label_values(&[result]).inc();
        let (topics, stop) = (kafka.topics.clone(), self.stop.clone());
        let (publisher, thread) = Publisher::start(producer, topics, partitions.raw, count, stop)?;
        let (metrics, stop) = (self.metrics.clone(), self.stop.clone());
        let swept = collector::run(sources, collector.concurrency.get(), publisher, metrics, repeat, stop).await;
        // The last publisher is gone: the thread ends once what it has is committed.
        let ended = tokio::time::timeout(END_WITHIN, tokio::task::spawn_blocking(move || thread.join())).await;
        match ended {
            Ok(Ok(Ok(outcome))) => outcome.context("raw records can no longer be published")?,
            Ok(_) => bail!("the publisher panicked"),
            Err(_) => tracing::warn!("the publisher did not end in time; Kafka will abort its transaction"),
        }
        Ok(swept)
    }

    /// Stage 2: maps until stopped.
    ///
    /// # Errors
    /// When the registry refuses the schema, or an engine cannot go on.
    pub async fn map(&self, partitions: Partitions) -> anyhow::Result<()> {
        let observer = |slot| Observer::new(slot, self.metrics.mapper.clone(), self.health.clone());
        let observers: Vec<_> = (0..self.config.mapper.engines.get()).map(observer).collect();
        self.health.ready(START);
        let framing = self.framing().await?;
        let mut ends = Vec::new();
        for (slot, observer) in observers.into_iter().enumerate() {
            let (ended, end) = oneshot::channel();
            let process = self.clone();
            std::thread::Builder::new().name(format!("engine-{slot}")).spawn(move || {
                // One engine less would leave its share to the others without anybody being told. Also when it panics.
                let _end_of_all = process.stop.clone().drop_guard();
                let _ = ended.send(process.run_engine(slot, partitions, framing, observer));
            })?;
            ends.push(end);
        }
        self.stop.cancelled().await;
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        let mut outcome = Ok(());
        for end in ends {
            match tokio::time::timeout_at(deadline, end).await {
                Ok(Ok(ended)) => outcome = outcome.and(ended),
                Ok(Err(_)) => outcome = outcome.and(Err(anyhow!("an engine panicked"))),
                Err(_) => tracing::warn!("an engine did not end in time; Kafka will abort its transaction"),
            }
        }
        outcome
    }

    /// How Avro events are framed: by the registry's ID, or by themselves.
    async fn framing(&self) -> anyhow::Result<Framing> {
        let Config { registry, mapper, kafka, .. } = &*self.config;
        match registry {
            Some(registry) if mapper.encoding == Encoding::Avro => {
                self.health.not_ready("schema registry", "not yet reached");
                let schema = mapper.profile.schema_json();
                let schema_id = registry::register(registry, &kafka.topics.events, schema, &self.stop).await?;
                self.health.ready("schema registry");
                tracing::info!(schema_id, "schema registered");
                Ok(Framing::Confluent { schema_id })
            }
            _ => Ok(Framing::SingleObject),
        }
    }

    fn run_engine(
        &self,
        slot: usize,
        partitions: Partitions,
        framing: Framing,
        observer: Observer,
    ) -> anyhow::Result<()> {
        let Config { instance_id, kafka, mapper, .. } = &*self.config;
        let encoder = match mapper.encoding {
            Encoding::Avro => Encoder::avro(mapper.profile, framing)?,
            Encoding::Json => Encoder::json(),
        };
        let rules = Rules {
            mapping: self.config.mapping(),
            partitions: partitions.raw,
            max_record_bytes: mapper.max_record_bytes.get(),
        };
        let settings = Settings {
            raw_topic: kafka.topics.raw.clone(),
            commit_interval: mapper.commit_interval,
            max_batch_records: mapper.max_batch_records.get(),
            max_batch_bytes: mapper.max_batch_bytes.get(),
            gone_retention: mapper.gone_retention,
            breaker: BreakerLimits { streak: mapper.max_reject_streak },
        };
        let member = format!("{}-{}-{slot}", mapper.group_id, instance_id.0);
        let identity = Identity { group_id: mapper.group_id.clone(), member };
        let port =
            KafkaPort::connect(kafka, &identity, partitions.events == partitions.raw, &|| self.stop.is_cancelled())?;
        let changelog = Changelog::new(mapper.profile)?;
        Engine::new(port, rules, encoder, changelog, settings, observer, self.stop.clone()).run()?;
        Ok(())
    }
}

#[cfg_attr(not(feature = "aws"), expect(unused_variables))]
fn build(source: &config::Source, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<dyn Source>> {
    let name = &source.name;
    Ok(match &source.kind {
        #[cfg(feature = "aws")]
        SourceKind::Aws(aws) => {
            let ec2 = collector::aws::Ec2::new(name, aws.clone(), Duration::from_secs(90 * 60));
            Arc::new(ec2.observed_by(metrics.clone()))
        }
        #[cfg(not(feature = "aws"))]
        SourceKind::Aws(_) => bail!("source {name:?}: this program was built without the feature `aws`"),
        SourceKind::File(file) => Arc::new(FileInstances::new(name, file.clone())),
        SourceKind::Simulated(simulated) => Arc::new(Simulated::new(name, simulated.clone())),
    })
}

/// What to say when Kafka does not answer.
pub fn unreachable_kafka(servers: &str) -> String {
    format!("Kafka cannot be reached at {servers} (kafka.bootstrap_servers)")
}
