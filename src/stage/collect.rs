//! Stage 1, from configuration to the end.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::sync::{Semaphore, mpsc};

use super::{END_WITHIN, Partitions, Process, START};
use crate::collector::file::FileInstances;
use crate::collector::health::{Health, State};
use crate::collector::press::{Counts, Press};
use crate::collector::raw::Labels;
use crate::collector::roster::{READINESS, Roster};
use crate::collector::rules::Rules;
use crate::collector::scope::{Shared, SourceTask};
use crate::collector::simulated::Simulated;
use crate::collector::source::{Scope, Source};
use crate::collector::{Outcome, Repeat};
use crate::config::{self, Config, Secret, SourceKind};
use crate::kafka::Notices;
use crate::telemetry::metrics::Metrics;

impl Process {
    /// Stage 1: sweeps the configured sources, until stopped or as often as wanted.
    ///
    /// # Errors
    /// When a source cannot be built, or Kafka refuses the producer.
    pub async fn collect(&self, partitions: Partitions, repeat: Repeat) -> anyhow::Result<Outcome> {
        let collector = &self.config.collector;
        let (hash_key, metrics) = (collector.hash_key.clone(), self.metrics.clone());
        let make = move |source: &config::Source| build(source, hash_key.as_ref(), &metrics);
        for source in &collector.sources {
            make(source)?;
        }
        let health = Arc::new(self.collector_health()?);
        // A process collects once.
        let _ = self.board.sources.set(health.clone());
        self.health.not_ready(READINESS, "joining its group");
        self.health.ready(START);
        let metrics = self.metrics.clone();
        let counts = Counts { raw: partitions.raw, sweeps: partitions.sweeps };
        let (tell, ownership) = mpsc::unbounded_channel();
        let press =
            tokio::task::block_in_place(|| Press::connect(&self.config, counts, metrics, tell, self.stop.clone()))
                .context("the collector cannot join Kafka")?;
        let (publisher, thread) = press.start()?;
        let shared = Shared {
            publisher,
            concurrency: Arc::new(Semaphore::new(collector.concurrency.get())),
            metrics: self.metrics.clone(),
            health,
            readiness: self.health.clone(),
            repeat,
        };
        let roster = Roster::new(Box::new(make), partitions.sweeps, shared, self.stop.clone());
        let swept = roster.run(self.sources.subscribe(), ownership).await;
        // The last publisher is gone: the thread ends once what it has is committed.
        let ended = tokio::time::timeout(END_WITHIN, tokio::task::spawn_blocking(move || thread.join())).await;
        match ended {
            Ok(Ok(Ok(outcome))) => outcome.context("raw records can no longer be published")?,
            Ok(_) => bail!("the publisher panicked"),
            Err(_) => tracing::warn!("the publisher did not end in time; Kafka will abort its transaction"),
        }
        Ok(swept)
    }

    /// The health of the sources, told on `rollcall.health` and in the metrics.
    fn collector_health(&self) -> anyhow::Result<Health> {
        let Config { kafka, instance_id, .. } = &*self.config;
        let notices = Notices::new(kafka, &kafka.topics.health, &format!("{}-health", instance_id.0))?;
        let tell = move |source: &str, event: &serde_json::Value| notices.send(source, event.to_string().as_bytes());
        let metrics = self.metrics.clone();
        let gauge = move |source: &str, scope: Option<&Scope>, state: State| match scope {
            None => {
                for other in State::ALL {
                    let is = i64::from(other == state);
                    metrics.collector.source_state.with_label_values(&[source, other.name()]).set(is);
                }
            }
            Some(scope) => {
                let labels = scope.labels();
                if state == State::Stopping {
                    metrics.collector.forget(&labels);
                } else {
                    metrics.collector.scope_error.with_label_values(&labels).set(i64::from(state == State::Error));
                }
            }
        };
        Ok(Health::new(&instance_id.0, Box::new(tell), Box::new(gauge)))
    }
}

#[cfg_attr(not(feature = "aws"), expect(unused_variables, reason = "no other source makes calls"))]
fn build(config: &config::Source, hash_key: Option<&Secret>, metrics: &Arc<Metrics>) -> anyhow::Result<SourceTask> {
    let name = &config.name;
    let source: Arc<dyn Source> = match &config.kind {
        #[cfg(feature = "aws")]
        SourceKind::Aws(aws) => {
            let ec2 = crate::collector::aws::Ec2::new(name, (**aws).clone(), config.give_up_after);
            Arc::new(ec2.observed_by(metrics.clone()))
        }
        #[cfg(not(feature = "aws"))]
        SourceKind::Aws(_) => bail!("source {name:?}: this program was built without the feature `aws`"),
        SourceKind::File(file) => Arc::new(FileInstances::new(name, file.clone())),
        SourceKind::Simulated(simulated) => Arc::new(Simulated::new(name, simulated.clone())),
    };
    let labels = Labels { category: config.category.clone(), fields: config.fields.clone().into_iter().collect() };
    let rules = Rules::new(&config.rules, hash_key)?;
    Ok(SourceTask { config: config.clone(), source, labels, rules, filters: config.filters_digest() })
}
