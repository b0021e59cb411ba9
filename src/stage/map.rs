//! Stage 2, from configuration to the end.

use std::num::NonZeroUsize;

use anyhow::anyhow;
use tokio::sync::oneshot;

use super::{END_WITHIN, Partitions, Process, START};
use crate::config::Config;
use crate::mapper::bounds::Bounds;
use crate::mapper::changelog::Changelog;
use crate::mapper::dead_letter::BreakerLimits;
use crate::mapper::decide::Rules;
use crate::mapper::engine::{Engine, LostOffsets, Settings, Stuck};
use crate::mapper::kafka_port::{Identity, KafkaPort};
use crate::mapper::observer::Observer;
use crate::mapper::port::{Port, Setback};
use crate::profile::encode::{Encoder, Encoding, Framing};
use crate::registry;

impl Process {
    /// Stage 2: maps until stopped.
    ///
    /// # Errors
    /// When the registry refuses the schema, or an engine cannot go on.
    pub async fn map(&self, partitions: Partitions, lost_offsets: LostOffsets) -> anyhow::Result<()> {
        let Config { instance_id, mapper, .. } = &*self.config;
        let framing = self.framing().await?;
        let (process, group_id, instance) = (self.clone(), mapper.group_id.clone(), instance_id.0.clone());
        self.engines(mapper.engines, move |slot, observer| {
            let identity = Identity { group_id: group_id.clone(), member: format!("{group_id}-{instance}-{slot}") };
            let port = process.port(slot, &identity, partitions)?;
            let engine = process.engine(port, partitions, framing, observer, Stuck::Held)?;
            engine.with_lost_offsets(lost_offsets).run()?;
            Ok(())
        })
        .await
    }

    /// Runs `engine` on so many threads until stopped. One that ends, ends all.
    ///
    /// # Errors
    /// What an engine ended with.
    pub async fn engines(
        &self,
        count: NonZeroUsize,
        engine: impl Fn(usize, Observer) -> anyhow::Result<()> + Clone + Send + 'static,
    ) -> anyhow::Result<()> {
        let observer =
            |slot| Observer::new(slot, self.metrics.mapper.clone(), self.health.clone()).on_board(self.board.clone());
        let observers: Vec<_> = (0..count.get()).map(observer).collect();
        let max_state_bytes = self.config.mapper.max_state_bytes.get();
        tracing::info!(max_state_bytes, "memory for devices");
        self.metrics.mapper.max_state_bytes.with_label_values::<&str>(&[]).set(max_state_bytes as i64);
        self.health.ready(START);
        let mut ends = Vec::new();
        for (slot, observer) in observers.into_iter().enumerate() {
            let (ended, end) = oneshot::channel();
            let (stop, engine) = (self.stop.clone(), engine.clone());
            std::thread::Builder::new().name(format!("engine-{slot}")).spawn(move || {
                // One engine less would leave its share to the others without anybody being told. Also when it panics.
                let _end_of_all = stop.drop_guard();
                let _ = ended.send(engine(slot, observer));
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
    ///
    /// # Errors
    /// When the registry refuses the schema, or does not answer.
    pub async fn framing(&self) -> anyhow::Result<Framing> {
        let Config { registry, mapper, kafka, .. } = &*self.config;
        match registry {
            Some(registry) if mapper.encoding == Encoding::Avro => {
                self.health.not_ready("schema registry", "not yet reached");
                let (subject, schema) = (registry::subject(&kafka.topics.events), mapper.profile.schema_json());
                let client = registry::Client::new(registry)?;
                let schema_id = client.pin(registry.mode, &subject, schema, &self.stop).await?;
                self.health.ready("schema registry");
                tracing::info!(schema_id, subject, "schema registered");
                Ok(Framing::Confluent { schema_id })
            }
            _ => Ok(Framing::SingleObject),
        }
    }

    /// What the configuration decides with.
    pub fn rules(&self, partitions: Partitions) -> Rules {
        Rules::new(self.config.mapping(), partitions.raw, self.config.mapper.max_record_bytes.get())
    }

    /// How the configuration writes events.
    ///
    /// # Errors
    /// None with the embedded schemas.
    pub fn encoder(&self, framing: Framing) -> anyhow::Result<Encoder> {
        Ok(match self.config.mapper.encoding {
            Encoding::Avro => Encoder::avro(self.config.mapper.profile, framing)?,
            Encoding::Json => Encoder::json(),
        })
    }

    /// Kafka, for engine number `slot`, which is `identity` to it.
    ///
    /// # Errors
    /// See [`KafkaPort::connect`].
    pub fn port(&self, slot: usize, identity: &Identity, partitions: Partitions) -> Result<KafkaPort, Setback> {
        let is_aligned = partitions.events == partitions.raw;
        let listeners = self.metrics.kafka.listeners(["mapper-consumer", "mapper-producer"], &slot.to_string());
        KafkaPort::connect(&self.config.kafka, identity, is_aligned, listeners, &|| self.stop.is_cancelled())
    }

    /// An engine on `port`, by the configuration.
    ///
    /// # Errors
    /// None with the embedded schemas.
    pub fn engine<P: Port>(
        &self,
        port: P,
        partitions: Partitions,
        framing: Framing,
        observer: Observer,
        stuck: Stuck,
    ) -> anyhow::Result<Engine<P>> {
        let Config { kafka, mapper, .. } = &*self.config;
        let (encoder, rules) = (self.encoder(framing)?, self.rules(partitions));
        let settings = Settings {
            raw_topic: kafka.topics.raw.clone(),
            bounds: Bounds::new(&self.config),
            gone_retention: mapper.gone_retention,
            breaker: BreakerLimits { streak: mapper.max_reject_streak },
            budget: self.budget.clone(),
            tombstones_kept: partitions.tombstones_kept,
            stuck,
            lost_offsets: LostOffsets::Stop,
        };
        let changelog = Changelog::new(mapper.profile)?;
        Ok(Engine::new(port, rules, encoder, changelog, settings, observer, self.stop.clone()))
    }
}
