//! Stage 2, from configuration to the end.

use anyhow::anyhow;
use tokio::sync::oneshot;

use super::{END_WITHIN, Partitions, Process, START};
use crate::config::Config;
use crate::mapper::changelog::Changelog;
use crate::mapper::dead_letter::BreakerLimits;
use crate::mapper::decide::Rules;
use crate::mapper::engine::{Engine, Settings};
use crate::mapper::kafka_port::{Identity, KafkaPort};
use crate::mapper::observer::Observer;
use crate::profile::encode::{Encoder, Encoding, Framing};
use crate::registry;

impl Process {
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
