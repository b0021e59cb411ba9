//! Starting and ending the two stages: nothing is joined before everything is checked, and an end has a deadline.

mod collect;
mod map;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::kafka::topics::{Admin, Found, Role, wanted};
use crate::mapper::budget::Budget;
use crate::status::Board;
use crate::status::report::Watched;
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
    /// What its stages tell beside.
    pub board: Arc<Board>,
    /// The sources that are wanted: those of the configuration, until it is read again.
    pub sources: Arc<watch::Sender<Vec<config::Source>>>,
    /// The memory for the devices of all its engines.
    pub budget: Arc<Budget>,
    /// Asks everything in it to end.
    pub stop: CancellationToken,
}

/// What the stages have to know of the topics. Partitions are pinned from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    /// Of the raw topic, and so of the state topic.
    pub raw: i32,
    /// Of the events topic.
    pub events: i32,
    /// Of the sweeps topic.
    pub sweeps: i32,
    /// How long the raw topic keeps tombstones, where it is compacted and that is known.
    pub tombstones_kept: Option<Duration>,
}

impl Process {
    /// A process by `config`.
    ///
    /// # Errors
    /// None with well-formed metrics.
    pub fn new(config: Config, stop: CancellationToken) -> anyhow::Result<Self> {
        let (metrics, health) = (Arc::new(Metrics::new()?), Arc::new(Health::default()));
        health.not_ready(START, "checking the topics");
        let sources = Arc::new(watch::Sender::new(config.collector.sources.clone()));
        let budget = Budget::new(config.mapper.max_state_bytes.get());
        Ok(Self { config: Arc::new(config), metrics, health, board: Arc::default(), sources, budget, stop })
    }

    /// What its status page is about.
    pub fn watched(&self) -> Watched {
        Watched {
            instance_id: self.config.instance_id.0.clone(),
            started: Instant::now(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            board: self.board.clone(),
        }
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
        let (found, differences) = loop {
            let described = tokio::select! {
                described = admin.examine(&wanted) => described,
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
        for difference in differences {
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
        let tombstones_kept = found.get(&kafka.topics.raw).and_then(Found::tombstones_kept);
        Ok(Partitions { raw: of(Role::Raw)?, events: of(Role::Events)?, sweeps: of(Role::Sweeps)?, tombstones_kept })
    }
}

/// What to say when Kafka does not answer.
pub fn unreachable_kafka(servers: &str) -> String {
    format!("Kafka cannot be reached at {servers} (kafka.bootstrap_servers)")
}
