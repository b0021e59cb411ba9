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

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::changelog::Changelog;
use super::dead_letter::{Breaker, BreakerLimits, dead_letter};
use super::decide::{Decision, Known, Rules, decide};
use super::event;
use super::observer::Observer;
use super::port::{Destination, Fatal, Output, Port, Rebalance, Restored, Setback};
use super::state::{DeviceState, Devices};
use crate::profile::encode::Encoder;
use crate::record::RawRecord;
use tokio_util::sync::CancellationToken;

/// Consecutive transactions that may fail before the process gives up, for its supervisor to see.
const MAX_SETBACKS: u32 = 20;
/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How long to wait before Kafka is asked again for what it could not tell.
const RETRY: Duration = Duration::from_millis(200);
/// How long restoring partitions may hold up running ones, a turn.
const RESTORE_SLICE: Duration = Duration::from_millis(20);
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
    /// The latest that a record of this partition was written, milliseconds since the epoch.
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
        partition.record_time = partition.record_time.max(record.observed_at_ms().min(record.timestamp_ms));
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
            self.turn()?;
        }
        self.finish()
    }

    /// One turn of the loop: one record at most.
    fn turn(&mut self) -> Result<(), Fatal> {
        self.mind.observer.beat();
        while let Some(step) = self.port.rebalance() {
            self.follow(step)?;
        }
        self.advance_restores()?;
        self.take_record()?;
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

    fn take_record(&mut self) -> Result<(), Fatal> {
        let timeout = self.patience();
        let mut taken = None;
        let (owned, mind) = (&mut self.owned, &self.mind);
        self.port.poll(timeout, &mut |record| {
            // Else it was prefetched before the partition was paused, and is read again where the partition resumes.
            if let Some(partition) = owned.get_mut(&record.partition).filter(|partition| partition.is_running()) {
                taken = Some((record.partition, mind.consider(&record, partition)));
            }
        })?;
        let Some((number, effects)) = taken else { return Ok(()) };
        let Effects { next, bytes, outputs, memory, tripped } = effects?;
        if let Some(reason) = tripped {
            return self.trip(number, &reason);
        }
        let produced = self.produce(bytes, outputs);
        let Some(partition) = self.owned.get_mut(&number) else { return Ok(()) };
        // Also where producing failed: recovery rewinds the partitions that the transaction touched.
        partition.next = Some(next);
        match memory {
            Memory::Nothing => {}
            Memory::Put(id, state) => partition.devices.put(&id, Some(state)),
            Memory::Learn(id, known) => partition.devices.learn(&id, known),
        }
        produced.or_else(|setback| self.recover(setback))
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
            return Duration::ZERO;
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

    /// Too much was rejected: the batch never was, and its partition waits for somebody to look.
    fn trip(&mut self, number: i32, reason: &str) -> Result<(), Fatal> {
        if self.batch.is_some() {
            self.recover(Setback::Abort(format!("partition {number}: {reason}")))?;
        }
        let reason = format!(
            "{reason}; look at the error headers of the dead-letter topic, mend what writes the raw topic or roll the \
             release back, and restart; mapper.max_reject_streak: 0 lets everything through"
        );
        self.hold(number, &reason)
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

    // === Setbacks ===

    fn recover(&mut self, setback: Setback) -> Result<(), Fatal> {
        tracing::warn!(%setback, "transaction failed");
        self.batch = None;
        self.setbacks += 1;
        if self.setbacks > MAX_SETBACKS {
            return Err(Fatal(format!("{MAX_SETBACKS} transactions in a row failed, the last one: {setback}")));
        }
        match setback {
            Setback::Fatal(cause) => return Err(Fatal(cause)),
            Setback::Renew(_) => self.renew()?,
            Setback::Abort(_) => match self.port.abort() {
                Ok(()) => {
                    self.mind.observer.aborted();
                    self.undo()?;
                }
                Err(Setback::Fatal(cause)) => return Err(Fatal(cause)),
                Err(_) => self.renew()?,
            },
        }
        self.port.wait(backoff(self.setbacks));
        Ok(())
    }

    /// The abort is confirmed: forget what the transaction taught, and read its records again.
    fn undo(&mut self) -> Result<(), Fatal> {
        for (number, partition) in &mut self.owned {
            if partition.next.take().is_some() {
                partition.devices.roll_back();
                if partition.is_running() {
                    self.port.resume(*number, partition.committed)?;
                }
            }
        }
        Ok(())
    }

    /// A new producer; then the group's offsets tell whether the transaction was committed.
    fn renew(&mut self) -> Result<(), Fatal> {
        self.mind.observer.renewed();
        let running: Vec<_> = self.owned.iter().filter(|(_, p)| p.is_running()).map(|(number, _)| *number).collect();
        self.port.pause(&running)?;
        let mut attempts = 0;
        let committed = loop {
            if self.stop.is_cancelled() {
                return Err(Fatal("stopped while Kafka could not be reached; nothing is lost".to_owned()));
            }
            self.mind.observer.beat();
            let settled = match self.port.renew() {
                Err(Setback::Fatal(cause)) => return Err(Fatal(cause)),
                Err(setback) => Err(setback.to_string()),
                Ok(()) => self.port.committed(&running).map_err(|error| error.to_string()),
            };
            match settled {
                Ok(committed) => break committed,
                Err(error) => {
                    attempts += 1;
                    tracing::warn!(error, attempts, "the producer could not be renewed yet");
                    self.port.wait(backoff(attempts));
                }
            }
        };
        for number in running {
            let committed = committed.get(&number).copied().flatten();
            let Some(partition) = self.owned.get_mut(&number) else { continue };
            let next = partition.next.take();
            if next.is_some() && next == committed {
                partition.devices.settle();
                partition.committed = committed;
            } else if partition.committed == committed {
                partition.devices.roll_back();
            } else {
                // Somebody else moved on from here.
                *partition = Partition::new();
                continue;
            }
            self.port.resume(number, committed)?;
        }
        Ok(())
    }

    // === Partitions ===

    fn follow(&mut self, step: Rebalance) -> Result<(), Fatal> {
        match step {
            Rebalance::Assign(partitions) => {
                tracing::info!(?partitions, "partitions assigned");
                if let Some(number) = partitions.iter().find(|number| **number >= self.mind.rules.partitions) {
                    return Err(Fatal(format!(
                        "partition {number} was added to {}, which had {} when this process started; keys would move. \
                         Partitions cannot be added to a running pipeline: create new topics and replay into them",
                        self.mind.settings.raw_topic, self.mind.rules.partitions
                    )));
                }
                self.port.assign(&partitions)?;
                for number in partitions {
                    self.owned.insert(number, Partition::new());
                }
                self.mind.observer.joined();
            }
            Rebalance::Revoke(partitions) => {
                tracing::info!(?partitions, "partitions revoked");
                self.commit()?;
                self.give_up(&partitions);
                self.port.unassign(&partitions)?;
            }
            Rebalance::Lost(partitions) => {
                tracing::warn!(?partitions, "partitions lost");
                self.give_up(&partitions);
                self.port.unassign(&partitions)?;
                if self.batch.is_some() {
                    self.recover(Setback::Abort("partitions of the batch were lost".to_owned()))?;
                }
            }
        }
        self.report_partitions();
        Ok(())
    }

    fn give_up(&mut self, partitions: &[i32]) {
        for number in partitions {
            self.port.stop_restore(*number);
            self.owned.remove(number);
            self.mind.observer.gave_up(*number);
        }
    }

    fn advance_restores(&mut self) -> Result<(), Fatal> {
        let began = Instant::now();
        self.begin_restores(began);
        let mut restoring = self.owned.values().filter(|partition| partition.phase == Phase::Restoring).count();
        while restoring > 0 && began.elapsed() < RESTORE_SLICE {
            let timeout = if self.batch.is_some() { Duration::ZERO } else { RESTORE_SLICE };
            let mut unreadable = None;
            let (owned, changelog) = (&mut self.owned, &self.mind.changelog);
            let progress = self.port.restored(timeout, &mut |number, key, value| {
                if let Some(partition) = owned.get_mut(&number).filter(|partition| partition.phase == Phase::Restoring)
                {
                    let taken = restore(partition, changelog, key, value);
                    unreadable = taken.err().map(|error| (number, error));
                }
            })?;
            match progress {
                Restored::Nothing => break,
                Restored::Record => {
                    self.mind.observer.restored();
                    if let Some((number, reason)) = unreadable {
                        restoring -= 1;
                        self.hold(number, &reason)?;
                    }
                }
                Restored::Done(number) => {
                    restoring -= 1;
                    self.start(number)?;
                }
            }
        }
        Ok(())
    }

    /// Begins the restores that can begin: first the group's offsets, then the end of the state partition.
    fn begin_restores(&mut self, now: Instant) {
        let is_due = |partition: &Partition| matches!(partition.phase, Phase::Waiting { until } if until <= now);
        let due: Vec<_> =
            self.owned.iter().filter(|(_, partition)| is_due(partition)).map(|(number, _)| *number).collect();
        if due.is_empty() {
            return;
        }
        let offsets = self.port.committed(&due);
        for number in due {
            let begun = offsets.clone().and_then(|offsets| {
                self.port.restore(number)?;
                Ok(offsets.get(&number).copied().flatten())
            });
            let Some(partition) = self.owned.get_mut(&number) else { continue };
            match begun {
                Ok(committed) => {
                    tracing::debug!(partition = number, committed, "restore started");
                    partition.committed = committed;
                    partition.phase = Phase::Restoring;
                }
                Err(error) => {
                    tracing::debug!(partition = number, %error, "restore must wait");
                    partition.phase = Phase::Waiting { until: Instant::now() + RETRY };
                }
            }
        }
    }

    /// The devices of a partition are there: map its records.
    fn start(&mut self, number: i32) -> Result<(), Fatal> {
        let Some(partition) = self.owned.get_mut(&number) else { return Ok(()) };
        let devices = partition.devices.len();
        if partition.committed.is_none() && devices > 0 {
            return Err(Fatal(format!(
                "partition {number} of {} has no committed offset, but the state topic knows {devices} of its \
                 devices: the group's offsets were deleted or expired, or the group was renamed. Restore the group's \
                 name or offsets (kafka-consumer-groups --reset-offsets), or start afresh with an empty state topic",
                self.mind.settings.raw_topic
            )));
        }
        partition.phase = Phase::Running;
        let committed = partition.committed;
        tracing::info!(partition = number, devices, offset = committed, "partition restored");
        self.port.resume(number, committed)?;
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

fn restore(partition: &mut Partition, changelog: &Changelog, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
    let about = |error: &dyn std::fmt::Display| {
        format!("a record of the state topic cannot be taken over, key {:?}: {error}", String::from_utf8_lossy(key))
    };
    let id = std::str::from_utf8(key).map_err(|error| about(&error))?;
    let state = value.map(|value| changelog.decode(value)).transpose().map_err(|error| about(&error))?;
    partition.devices.restore(id, state);
    Ok(())
}

/// 50 ms, doubled with each failure, up to five seconds.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(50).saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF)
}
