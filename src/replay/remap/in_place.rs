//! The only member of the live group: writes what differs into the live topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{AGAIN, Interrupt, Outlet, Teller, onlooker};
use crate::config::{Config, Kafka, Topics};
use crate::kafka::{Membership, Rebalance, Setback, TransactionalProducer, Unavailable, client, statistics};
use crate::mapper::bounds::Bounds;
use crate::mapper::changelog::Changelog;
use crate::mapper::decide::{Emission, Rules};
use crate::mapper::engine::backoff;
use crate::mapper::event;
use crate::mapper::kafka_port::message;
use crate::mapper::state::Devices;
use crate::profile::encode::Encoder;
use crate::record::RawRecord;
use crate::replay::report::Changed;

/// How long the group may take to let a member in: it waits for its first members, and for those that leave.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How long partitions may still come after the first have.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// Consecutive transactions that may fail.
const MAX_SETBACKS: u32 = 20;
/// How often idle clients are served.
const SERVE_EVERY: Duration = Duration::from_secs(1);
/// Members of the group that a refusal names.
const MAX_NAMED: usize = 5;

pub(super) struct InPlace {
    group_id: String,
    topics: Topics,
    aligned_events: bool,
    bounds: Bounds,
    membership: Membership,
    producer: TransactionalProducer,
    rules: Rules,
    encoder: Encoder,
    changelog: Changelog,
    /// The partition at work, and where the group stands on it: the offset that guards a transaction stays what it is.
    guard: BTreeMap<i32, i64>,
    /// When it came there: nothing is read here that it has not read, so an outage before this is one still.
    guarded_at: Option<DateTime<Utc>>,
    batch: Option<Batch>,
    /// The devices of a transaction of which it is not known whether it was committed.
    unsettled: Vec<Changed>,
    setbacks: u32,
    served: Instant,
}

/// The open transaction.
struct Batch {
    opened: Instant,
    bytes: usize,
    devices: Vec<Changed>,
}

impl InPlace {
    /// Joins the live group, all of whose partitions must fall to this member.
    ///
    /// # Errors
    /// When others are in the group, or Kafka refuses.
    pub(super) fn join(
        config: &Config,
        client: &str,
        rules: Rules,
        encoder: Encoder,
        changelog: Changelog,
        aligned_events: bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let (kafka, mapper) = (&config.kafka, &config.mapper);
        let others = onlooker(config, client)?.members().context("whether the group is in use")?;
        if !others.is_empty() {
            return Err(in_use(&mapper.group_id, &others[..others.len().min(MAX_NAMED)].join(", ")));
        }
        // Not of this instance but of the group: whoever runs it again ends what its predecessor left open.
        let id = format!("{}-in-place", mapper.group_id);
        let producer_config = client::producer(kafka, &id);
        let mut producer =
            TransactionalProducer::new(producer_config, kafka.transaction_timeout, statistics::nobody())?;
        producer.initialise(&|| stop.is_cancelled())?;
        // A static member stays in the group when it ends: the mappers would wait for its session to be over.
        let kafka = &Kafka { static_membership: false, ..kafka.clone() };
        let membership = Membership::join(kafka, &kafka.topics.raw, &mapper.group_id, &id, statistics::nobody())?;
        let mut joined = Self {
            group_id: mapper.group_id.clone(),
            topics: kafka.topics.clone(),
            aligned_events,
            bounds: Bounds::new(config),
            membership,
            producer,
            rules,
            encoder,
            changelog,
            guard: BTreeMap::new(),
            guarded_at: None,
            batch: None,
            unsettled: Vec::new(),
            setbacks: 0,
            served: Instant::now(),
        };
        joined.wait_for_all(stop)?;
        Ok(joined)
    }

    /// Waits until all partitions are assigned.
    fn wait_for_all(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let wanted = self.rules.partitions;
        let deadline = Instant::now() + JOIN_WITHIN;
        let (mut owned, mut settled) = (BTreeSet::new(), None);
        loop {
            if stop.is_cancelled() {
                bail!("stopped while the group was joined");
            }
            self.membership.poll(AGAIN, &mut |_| {})?;
            while let Some(step) = self.membership.rebalance() {
                settled = Some(Instant::now() + SETTLE_WITHIN);
                match step {
                    Rebalance::Assign(partitions) => {
                        self.membership.assign(&partitions)?;
                        owned.extend(partitions);
                    }
                    Rebalance::Revoke(partitions) | Rebalance::Lost(partitions) => {
                        self.membership.unassign(&partitions)?;
                        owned.retain(|partition| !partitions.contains(partition));
                    }
                }
            }
            if owned.iter().copied().eq(0..wanted) {
                tracing::info!(group = self.group_id, partitions = wanted, "only member of the group");
                return Ok(());
            }
            if settled.is_some_and(|at| at < Instant::now()) {
                let share = format!("{} of {wanted} partitions fell to this member", owned.len());
                return Err(in_use(&self.group_id, &share));
            }
            if Instant::now() > deadline {
                bail!("the group {} did not let this member in within {JOIN_WITHIN:?}", self.group_id);
            }
        }
    }

    /// Aborts what is open, for nothing more will come.
    pub(super) fn abandon(&mut self) {
        if self.batch.take().is_some() {
            // Unconfirmed, Kafka aborts it when the transaction times out.
            let _ = self.producer.abort();
        }
    }

    fn is_due(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| {
            self.bounds.are_reached(batch.opened.elapsed(), batch.devices.len(), batch.bytes, true)
        })
    }

    fn commit(&mut self, teller: &mut Teller<'_>) -> Result<(), Interrupt> {
        if self.batch.is_none() {
            return Ok(());
        }
        self.producer.send_offsets(|| self.membership.guard(&self.guard, self.guarded_at))?;
        self.producer.commit()?;
        self.setbacks = 0;
        let devices = self.batch.take().map(|batch| batch.devices).unwrap_or_default();
        tracing::debug!(devices = devices.len(), "transaction committed");
        devices.iter().for_each(|changed| teller.told(changed));
        Ok(())
    }

    /// A new producer; the transaction of its predecessor is settled then, either way.
    fn renew(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            match self.producer.renew() {
                Ok(()) => return Ok(()),
                Err(Setback::Fatal(cause)) => bail!(cause),
                Err(setback) => {
                    failures += 1;
                    if failures > MAX_SETBACKS {
                        return Err(setback).context("the producer could not be renewed");
                    }
                    tracing::warn!(%setback, "the producer could not be renewed yet");
                    self.membership.wait(backoff(failures))?;
                }
            }
        }
    }
}

impl Outlet for InPlace {
    fn committed(&mut self, partition: i32) -> Result<Option<i64>, Unavailable> {
        let committed = self.membership.committed(&[partition])?.remove(&partition).flatten();
        self.guarded_at = committed.and_then(|committed| committed.at);
        let committed = committed.map(|committed| committed.offset);
        self.guard = committed.map(|offset| (partition, offset)).into_iter().collect();
        Ok(committed)
    }

    fn restored(&mut self, devices: &Devices, teller: &mut Teller<'_>) {
        for changed in self.unsettled.drain(..) {
            // Its transaction was committed after all.
            if devices.get(&changed.device).is_some_and(|state| state.revision == changed.revision) {
                teller.told(&changed);
            }
        }
    }

    fn beat(&mut self, teller: &mut Teller<'_>) -> Result<(), Interrupt> {
        self.membership.poll(Duration::ZERO, &mut |_| {})?;
        while let Some(step) = self.membership.rebalance() {
            match step {
                Rebalance::Assign(partitions) => {
                    self.membership.assign(&partitions)?;
                    if !partitions.is_empty() {
                        return Err(anyhow!("partitions {partitions:?} were added to {}", self.topics.raw).into());
                    }
                }
                Rebalance::Revoke(partitions) | Rebalance::Lost(partitions) => {
                    self.membership.unassign(&partitions)?;
                    if !partitions.is_empty() {
                        return Err(anyhow!(
                            "another member joined the group {} under way, or this one fell out of it; what was open \
                             is aborted. Stop the mappers, and run it again to do the rest",
                            self.group_id
                        )
                        .into());
                    }
                }
            }
        }
        if self.served.elapsed() > SERVE_EVERY {
            self.served = Instant::now();
            self.producer.poll();
        }
        if self.is_due() { self.commit(teller) } else { Ok(()) }
    }

    fn emit(
        &mut self,
        record: &RawRecord<'_>,
        emission: &mut Emission,
        teller: &mut Teller<'_>,
    ) -> Result<(), Interrupt> {
        let changed = Changed::new(record, emission);
        let fault = |error: &dyn std::fmt::Display| anyhow!("{} cannot be written: {error}", changed.device);
        let event = event::record(record, emission, &self.rules, &self.encoder, &self.topics.raw)
            .map_err(|error| fault(&error))?;
        let state = self.changelog.record(record, &emission.state).map_err(|error| fault(&error))?;
        if self.batch.is_none() {
            self.producer.begin()?;
            tracing::debug!("transaction opened");
            self.batch = Some(Batch { opened: Instant::now(), bytes: 0, devices: Vec::new() });
        }
        let mut bytes = 0;
        for output in [event, state] {
            bytes += output.bytes();
            self.producer.send(message(&self.topics, self.aligned_events, &output))?;
        }
        if let Some(batch) = &mut self.batch {
            batch.bytes += bytes;
            batch.devices.push(changed);
        }
        if self.is_due() { self.commit(teller) } else { Ok(()) }
    }

    fn settle(&mut self, teller: &mut Teller<'_>) -> Result<(), Interrupt> {
        self.commit(teller)
    }

    fn recover(&mut self, setback: Setback) -> anyhow::Result<()> {
        self.setbacks += 1;
        if self.setbacks > MAX_SETBACKS {
            return Err(setback).context(format!("{MAX_SETBACKS} transactions in a row failed"));
        }
        let devices = self.batch.take().map(|batch| batch.devices).unwrap_or_default();
        self.membership.wait(backoff(self.setbacks))?;
        match setback {
            Setback::Fatal(cause) | Setback::TooLarge(cause) => {
                let _ = self.producer.abort();
                bail!(cause)
            }
            Setback::Abort(_) => match self.producer.abort() {
                Ok(()) => return Ok(()),
                Err(Setback::Fatal(cause)) => bail!(cause),
                Err(_) => {}
            },
            Setback::Renew(_) => {}
        }
        self.unsettled = devices;
        self.renew()
    }
}

fn in_use(group_id: &str, who: &str) -> anyhow::Error {
    anyhow!(
        "the group {group_id} has other members: {who}. --in-place must be its only one: stop the mappers first (one that \
         was killed counts until its session has ended), or see with --dry-run what would come out"
    )
}
