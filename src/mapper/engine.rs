//! The engine: one thread that owns one consumer, one transactional producer, and the devices of its partitions.
//!
//! **Delivery.** A transaction holds the events of a batch, the device states that follow from them, its dead letters,
//! and the offsets to go on from. Either all of it is committed or none of it ever was: what an aborted transaction
//! taught the memory is rolled back, and its records are read again. Whoever reads `read_committed` sees each change
//! once. A partition's memory is rebuilt from the state topic before its first record is read, and only once no
//! transaction of a predecessor is open.
//!
//! ```text
//!        ┌───────────────── rewind, roll back ◀── abort ──┐
//!        ▼                                                │
//!  poll ─▶ decide ─▶ produce ─▶ … ─▶ commit with offsets ─┤
//!        ▲                                                │
//!        └──── keep, drop or restore ◀── renew (outcome unknown)
//! ```

mod partitions;
mod setbacks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::changelog::Changelog;
use super::dead_letter::{Breaker, BreakerLimits, dead_letter};
use super::decide::{Decision, Rules, decide};
use super::event;
use super::observer::Observer;
use super::port::{Destination, Fatal, Output, Port, Setback};
use super::state::{DeviceState, Devices, Known};
use crate::profile::encode::Encoder;
use crate::record::RawRecord;
use tokio_util::sync::CancellationToken;

/// How long an engine that is restoring waits for a record between two slices.
const BETWEEN_SLICES: Duration = Duration::from_millis(2);
/// Records between two looks at restores and rebalances, at most.
const RECORDS_A_TURN: usize = 500;
/// How long an idle engine waits for a record.
const IDLE: Duration = Duration::from_millis(100);
/// Removed devices that one transaction forgets, at most.
const MAX_FORGOTTEN: usize = 1000;

/// Bounds of a batch, and what else the loop is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the raw topic, for headers.
    pub raw_topic: String,
    /// A transaction is committed when it is this old,
    pub commit_interval: Duration,
    /// or has so many records,
    pub max_batch_records: usize,
    /// or so many bytes of them.
    pub max_batch_bytes: usize,
    /// How long a removed device is remembered, in record time.
    pub gone_retention: Duration,
    /// When to stop rejecting.
    pub breaker: BreakerLimits,
}

/// One member of the mapper's consumer group.
pub struct Engine<P> {
    port: P,
    mind: Mind,
    stop: CancellationToken,
    owned: BTreeMap<i32, Partition>,
    batch: Option<Batch>,
    setbacks: u32,
}

/// The open transaction.
struct Batch {
    opened: Instant,
    records: usize,
    bytes: usize,
}

/// A raw partition and its state partition.
struct Partition {
    phase: Phase,
    devices: Devices,
    /// Where the group stands.
    committed: Option<i64>,
    /// Where the open transaction will put it; `None` while it has no record of this partition.
    next: Option<i64>,
    /// The latest observation that told something of a device of this partition, milliseconds since the epoch.
    record_time: i64,
    breaker: Breaker,
}

/// What a partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Its restore cannot begin before Kafka has told the offsets and settled older transactions.
    Waiting { until: Instant },
    /// Its devices are being read from the state topic.
    Restoring,
    /// Its records are being mapped.
    Running,
    /// Nothing: somebody must look first.
    Held,
}

impl Partition {
    fn new() -> Self {
        Self {
            phase: Phase::Waiting { until: Instant::now() },
            devices: Devices::default(),
            committed: None,
            next: None,
            record_time: i64::MIN,
            breaker: Breaker::default(),
        }
    }

    fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether a record is one to go on with. The client may deliver older ones after a seek that crossed a look-up of
    /// the log's start.
    fn expects(&self, record: &RawRecord<'_>) -> bool {
        self.is_running() && record.offset >= self.next.or(self.committed).unwrap_or(0)
    }

    /// The records of the open transaction will be read again: nothing of them was.
    fn roll_back(&mut self) {
        self.devices.roll_back();
        self.breaker = Breaker::default();
    }
}

/// What follows from one record.
struct Effects {
    /// Offset to go on from.
    next: i64,
    bytes: usize,
    outputs: Vec<Output>,
    memory: Memory,
    /// Why no more should be rejected.
    tripped: Option<String>,
}

enum Memory {
    Nothing,
    Put(String, DeviceState),
    Learn(String, Known),
}

/// What the engine decides with.
struct Mind {
    rules: Rules,
    encoder: Encoder,
    changelog: Changelog,
    settings: Settings,
    observer: Observer,
}

impl Mind {
    fn consider(&self, record: &RawRecord<'_>, partition: &mut Partition) -> Result<Effects, Fatal> {
        let decision = decide(&self.rules, record, &partition.devices, &mut |field| self.observer.field_error(field));
        self.observer.decided(&decision);
        let tripped = partition.breaker.note(matches!(decision, Decision::Reject(_)), self.settings.breaker);
        let id = || record.key.map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default();
        let fault = |error: &dyn std::fmt::Display| Fatal(format!("{} cannot be written: {error}", id()));
        let (outputs, memory) = match decision {
            Decision::Unchanged | Decision::Stale => (Vec::new(), Memory::Nothing),
            Decision::Same(known) => (Vec::new(), Memory::Learn(id(), known)),
            Decision::Reject(rejection) => {
                let (offset, kind) = (record.offset, rejection.kind());
                tracing::warn!(partition = record.partition, offset, kind, "record rejected");
                let now = chrono::Utc::now().timestamp_millis();
                (vec![dead_letter(record, &rejection, &self.settings.raw_topic, now)], Memory::Nothing)
            }
            Decision::Emit(emission) => {
                let event = event::record(record, &emission, &self.rules, &self.encoder, &self.settings.raw_topic)
                    .map_err(|error| fault(&error))?;
                let state = Output {
                    destination: Destination::State,
                    partition: record.partition,
                    key: record.key.map(<[u8]>::to_vec),
                    value: Some(self.changelog.encode(&emission.state).map_err(|error| fault(&error))?),
                    headers: Vec::new(),
                };
                (vec![event, state], Memory::Put(id(), emission.state))
            }
        };
        if !matches!(memory, Memory::Nothing) {
            // A clock that runs ahead must not make removed devices forgotten.
            let now = chrono::Utc::now().timestamp_millis();
            partition.record_time = partition.record_time.max(record.observed_at_ms().min(now));
        }
        let (next, bytes) = (record.offset + 1, record.len());
        Ok(Effects { next, bytes, outputs, memory, tripped })
    }
}

impl<P: Port> Engine<P> {
    /// An engine on `port`, which has joined the group.
    pub fn new(
        port: P,
        rules: Rules,
        encoder: Encoder,
        changelog: Changelog,
        settings: Settings,
        observer: Observer,
        stop: CancellationToken,
    ) -> Self {
        Self {
            port,
            mind: Mind { rules, encoder, changelog, settings, observer },
            stop,
            owned: BTreeMap::new(),
            batch: None,
            setbacks: 0,
        }
    }

    /// Maps until asked to stop; then commits what is open, or aborts it.
    ///
    /// # Errors
    /// When going on could lose or repeat something, or is impossible; the message names the remedy.
    pub fn run(mut self) -> Result<(), Fatal> {
        while !self.stop.is_cancelled() {
            if let Err(fatal) = self.turn() {
                // Told before the clients are closed, which may take its time.
                tracing::error!(error = %fatal, "the engine cannot go on");
                self.stop.cancel();
                return Err(fatal);
            }
        }
        self.finish()
    }

    /// One turn of the loop: some records at most.
    fn turn(&mut self) -> Result<(), Fatal> {
        self.mind.observer.beat();
        while let Some(step) = self.port.rebalance() {
            self.follow(step)?;
        }
        self.advance_restores()?;
        for _ in 0..RECORDS_A_TURN {
            if !self.take_record()? || self.batch_is_due() {
                break;
            }
        }
        if self.batch_is_due() { self.commit() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(), Fatal> {
        if self.batch.is_some() {
            let offsets = self.open_offsets();
            if let Err(setback) = self.port.commit(&offsets) {
                tracing::warn!(%setback, "the last transaction is aborted; its records will be mapped at the next start");
                // Unconfirmed, Kafka aborts it when the transaction times out.
                let _ = self.port.abort();
            }
        }
        let partitions: Vec<_> = self.owned.keys().copied().collect();
        self.owned.clear();
        self.port.unassign(&partitions)
    }

    // === Records ===

    /// Maps the next record; whether there was one.
    fn take_record(&mut self) -> Result<bool, Fatal> {
        let timeout = self.patience();
        let mut taken = None;
        let (owned, mind) = (&mut self.owned, &self.mind);
        self.port.poll(timeout, &mut |record| {
            // Else it is of a partition that will be sought, or from before the place that was sought.
            if let Some(partition) = owned.get_mut(&record.partition).filter(|partition| partition.expects(&record)) {
                taken = Some((record.partition, mind.consider(&record, partition)));
            }
        })?;
        let Some((number, effects)) = taken else { return Ok(false) };
        let Effects { next, bytes, outputs, memory, tripped } = effects?;
        if let Some(reason) = tripped {
            return self.trip(number, &reason).map(|()| true);
        }
        let produced = self.produce(bytes, outputs);
        let Some(partition) = self.owned.get_mut(&number) else { return Ok(false) };
        // Also where producing failed: recovery rewinds the partitions that the transaction touched.
        partition.next = Some(next);
        match memory {
            Memory::Nothing => {}
            Memory::Put(id, state) => partition.devices.put(&id, Some(state)),
            Memory::Learn(id, known) => partition.devices.learn(&id, known),
        }
        match produced {
            Ok(()) => {}
            Err(Setback::TooLarge(cause)) => self.trip(number, &cause)?,
            Err(setback) => self.recover(setback)?,
        }
        Ok(true)
    }

    fn produce(&mut self, bytes: usize, outputs: Vec<Output>) -> Result<(), Setback> {
        if self.batch.is_none() {
            self.port.begin()?;
            tracing::debug!("transaction opened");
            self.batch = Some(Batch { opened: Instant::now(), records: 0, bytes: 0 });
        }
        for output in outputs {
            self.port.produce(output)?;
        }
        if let Some(batch) = &mut self.batch {
            batch.records += 1;
            batch.bytes += bytes;
        }
        Ok(())
    }

    /// How long to wait for a record.
    fn patience(&self) -> Duration {
        if self.owned.values().any(|partition| partition.phase == Phase::Restoring) {
            return BETWEEN_SLICES;
        }
        match &self.batch {
            Some(batch) => self.mind.settings.commit_interval.saturating_sub(batch.opened.elapsed()),
            None => IDLE,
        }
    }

    // === Transactions ===

    fn batch_is_due(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| {
            batch.opened.elapsed() >= self.mind.settings.commit_interval
                || batch.records >= self.mind.settings.max_batch_records
                || batch.bytes >= self.mind.settings.max_batch_bytes
        })
    }

    fn open_offsets(&self) -> BTreeMap<i32, i64> {
        self.owned.iter().filter_map(|(number, partition)| Some((*number, partition.next?))).collect()
    }

    fn commit(&mut self) -> Result<(), Fatal> {
        let Some(batch) = &self.batch else { return Ok(()) };
        let records = batch.records;
        let began = Instant::now();
        if let Err(setback) = self.forget_long_gone() {
            return self.recover(setback);
        }
        let offsets = self.open_offsets();
        match self.port.commit(&offsets) {
            Err(setback) => self.recover(setback),
            Ok(()) => {
                self.batch = None;
                self.setbacks = 0;
                for partition in self.owned.values_mut().filter(|partition| partition.next.is_some()) {
                    partition.devices.settle();
                    partition.committed = partition.next.take();
                }
                tracing::debug!(records, "transaction committed");
                self.mind.observer.committed(records, began.elapsed());
                self.report_partitions();
                Ok(())
            }
        }
    }

    /// Nulls the state of devices that were removed so long ago that no late news of them can come.
    fn forget_long_gone(&mut self) -> Result<(), Setback> {
        let retention = self.mind.settings.gone_retention.as_millis() as i64;
        for (number, partition) in self.owned.iter_mut().filter(|(_, partition)| partition.next.is_some()) {
            let horizon = partition.record_time.saturating_sub(retention);
            for id in partition.devices.gone_before(horizon, MAX_FORGOTTEN) {
                self.port.produce(Output {
                    destination: Destination::State,
                    partition: *number,
                    key: Some(id.as_bytes().to_vec()),
                    value: None,
                    headers: Vec::new(),
                })?;
                partition.devices.put(&id, None);
            }
        }
        Ok(())
    }

    /// This partition cannot go on by itself: the batch never was, and it waits for somebody to look.
    fn trip(&mut self, number: i32, reason: &str) -> Result<(), Fatal> {
        if self.batch.is_some() {
            self.recover(Setback::Abort(format!("partition {number}: {reason}")))?;
        }
        self.hold(number, reason)
    }

    fn hold(&mut self, number: i32, reason: &str) -> Result<(), Fatal> {
        tracing::error!(partition = number, reason, "partition held");
        if let Some(partition) = self.owned.get_mut(&number) {
            partition.phase = Phase::Held;
        }
        self.port.stop_restore(number);
        self.port.pause(&[number])?;
        self.mind.observer.held(number, reason);
        self.report_partitions();
        Ok(())
    }

    fn report_partitions(&self) {
        let restoring = |phase: &Phase| matches!(phase, Phase::Waiting { .. } | Phase::Restoring);
        let count = |is: &dyn Fn(&Phase) -> bool| self.owned.values().filter(|partition| is(&partition.phase)).count();
        self.mind.observer.partitions(
            count(&restoring),
            count(&|phase| *phase == Phase::Running),
            count(&|phase| *phase == Phase::Held),
            self.owned.values().map(|partition| partition.devices.len()).sum(),
        );
    }
}
