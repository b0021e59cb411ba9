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

mod consider;
mod lag;
mod partitions;
mod place;
mod progress;
mod setbacks;

pub(crate) use setbacks::backoff;

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use super::budget::{Budget, Exceeded, Share};
use super::changelog::Changelog;
use super::dead_letter::{Breaker, BreakerLimits};
use super::decide::Rules;
use super::observer::{Census, LagSeries, Observer};
use super::port::{Committed, Destination, Fatal, Output, Port, Setback};
use super::state::Devices;
use super::tally::{Tally, Told};
use crate::profile::encode::Encoder;
use crate::record::RawRecord;
use crate::status::{PartitionStanding, Reason};
use tokio_util::sync::CancellationToken;

use consider::{Effects, Memory, Mind};
pub(super) use lag::Lag;
use lag::Reading;
pub(super) use progress::Progress;
use progress::Restores;

/// How long an engine whose restores wait for Kafka waits for a record.
const BETWEEN_SLICES: Duration = Duration::from_millis(2);
/// How long records are mapped between two looks at restores and rebalances.
const A_TURN: Duration = Duration::from_millis(10);
/// How long an idle engine waits for a record.
const IDLE: Duration = Duration::from_millis(100);
/// Removed devices that one transaction forgets, at most.
const MAX_FORGOTTEN: usize = 1000;

/// What the loop is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the raw topic, for headers.
    pub raw_topic: String,
    /// Of a transaction.
    pub bounds: Bounds,
    /// How long a removed device is remembered, in record time.
    pub gone_retention: Duration,
    /// When to stop rejecting.
    pub breaker: BreakerLimits,
    /// The memory for devices, shared by the engines of the process.
    pub budget: Arc<Budget>,
    /// How long the raw topic keeps tombstones, where it is compacted.
    pub tombstones_kept: Option<Duration>,
    /// What becomes of a partition that cannot go on.
    pub stuck: Stuck,
    /// What becomes of a partition whose offset is gone.
    pub lost_offsets: LostOffsets,
}

/// What becomes of a partition that cannot go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// It is held for somebody to look, and the others go on.
    Held,
    /// All end: somebody is looking.
    Ends,
}

/// What becomes of a partition whose devices are known, but not where to go on; or whose records there are deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LostOffsets {
    /// All end: going on could skip something.
    #[default]
    Stop,
    /// Somebody has looked: it goes on behind the last record that its devices were made from.
    FromState,
}

/// One member of the mapper's consumer group.
pub struct Engine<P> {
    port: P,
    mind: Mind,
    stop: CancellationToken,
    owned: BTreeMap<i32, Partition>,
    batch: Option<Batch>,
    setbacks: u32,
    restores: Restores,
    /// How far they were at the last look.
    progress: Option<Progress>,
    /// Whether the last slice of the restores ended though there was more to read.
    is_behind: bool,
}

/// The open transaction.
struct Batch {
    opened: Instant,
    /// What it has written.
    bytes: usize,
    /// What its records came to.
    tally: Tally,
}

/// A raw partition and its state partition.
struct Partition {
    phase: Phase,
    devices: Devices,
    /// The memory that the devices take.
    share: Share,
    /// Why what the state topic says last under a key cannot be taken over.
    unreadable: BTreeMap<Box<[u8]>, Reason>,
    /// What the restore found out.
    found: Found,
    /// Where the group stands.
    committed: Option<i64>,
    /// Where the open transaction will put it; `None` while it has no record of this partition.
    next: Option<i64>,
    /// The latest observation that told something of a device of this partition, milliseconds since the epoch.
    record_time: i64,
    breaker: Breaker,
    reading: Reading,
    /// Shown from the first time that Kafka has told where the partition ends.
    lag: Option<LagSeries>,
}

/// What is known of a partition before its first record is mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    /// Where the group stands.
    committed: Option<Committed>,
    /// From where to where the raw partition is kept.
    log: Range<i64>,
    /// The last raw record that one of the devices was made from.
    last_written: Option<i64>,
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
    /// Nothing: there is no memory for its devices. So much had been given up when it was refused.
    Refused { releases: u64 },
}

impl Phase {
    /// As the status page has it.
    fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Held | Self::Refused { .. } => "held",
        }
    }
}

impl Partition {
    /// As it is after it was assigned, which was `now`.
    fn new(now: Instant, budget: &Arc<Budget>) -> Self {
        Self {
            phase: Phase::Waiting { until: now },
            devices: Devices::default(),
            share: budget.share(),
            unreadable: BTreeMap::new(),
            found: Found::default(),
            committed: None,
            next: None,
            record_time: i64::MIN,
            breaker: Breaker::default(),
            reading: Reading::default(),
            lag: None,
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

    /// Asks for the memory that its devices take.
    fn claim(&mut self) -> Result<(), Exceeded> {
        self.share.take(self.devices.bytes())
    }

    /// The records of the open transaction will be read again: nothing of them was.
    fn roll_back(&mut self) {
        self.devices.roll_back();
        self.breaker = Breaker::default();
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
            restores: Restores::default(),
            progress: None,
            is_behind: false,
        }
    }

    /// Goes on where partitions' offsets are gone.
    #[must_use]
    pub fn with_lost_offsets(mut self, lost_offsets: LostOffsets) -> Self {
        self.mind.settings.lost_offsets = lost_offsets;
        self
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

    /// What this is an engine on.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// One turn of the loop: a few milliseconds of records. [`run`](Self::run) takes one after the other.
    ///
    /// # Errors
    /// As for `run`.
    pub fn turn(&mut self) -> Result<(), Fatal> {
        self.mind.observer.beat();
        while let Some(step) = self.port.rebalance() {
            self.follow(step)?;
        }
        self.advance_restores()?;
        self.report_lag();
        // The first record is waited for. What has come with it is there.
        let (began, mut timeout) = (self.port.now(), self.patience());
        loop {
            let records_wait = self.take_record(mem::take(&mut timeout))?;
            let now = self.port.now();
            if self.batch_is_due(now, records_wait) {
                return self.commit();
            }
            if !records_wait || now - began > A_TURN {
                return Ok(());
            }
        }
    }

    fn finish(mut self) -> Result<(), Fatal> {
        if let Some(batch) = self.batch.take() {
            let (offsets, began) = (self.open_offsets(), self.port.now());
            if let Err(setback) = self.port.commit(&offsets) {
                tracing::warn!(%setback, "the last transaction is aborted; its records will be mapped at the next start");
                // Unconfirmed, Kafka aborts it when the transaction times out.
                let _ = self.port.abort();
            } else {
                let now = self.port.now();
                self.mind.observer.committed(&batch.tally, now - batch.opened, now - began);
            }
        }
        let partitions: Vec<_> = self.owned.keys().copied().collect();
        self.owned.clear();
        self.port.unassign(&partitions)
    }

    // === Records ===

    /// Maps the next record; whether one came in time.
    fn take_record(&mut self, timeout: Duration) -> Result<bool, Fatal> {
        let mut taken = None;
        let (owned, mind) = (&mut self.owned, &self.mind);
        self.port.poll(timeout, &mut |record| {
            // Else it is of a partition that will be sought, or from before the place that was sought.
            if let Some(partition) = owned.get_mut(&record.partition).filter(|partition| partition.expects(&record)) {
                taken = Some((record.partition, mind.consider(&record, partition)));
            }
        })?;
        let Some((number, effects)) = taken else { return Ok(false) };
        let Effects { next, outputs, memory, told, tripped } = effects?;
        if let Some(reason) = tripped {
            return self.trip(number, &reason).map(|()| true);
        }
        let produced = self.produce(outputs, told);
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

    fn open_batch(&mut self) -> Result<(), Setback> {
        if self.batch.is_none() {
            self.port.begin()?;
            tracing::debug!("transaction opened");
            self.batch = Some(Batch { opened: self.port.now(), bytes: 0, tally: Tally::default() });
        }
        Ok(())
    }

    fn produce(&mut self, outputs: Vec<Output>, told: Told) -> Result<(), Setback> {
        self.open_batch()?;
        let mut bytes = 0;
        for output in outputs {
            bytes += output.bytes();
            self.port.produce(output)?;
        }
        if let Some(batch) = &mut self.batch {
            batch.bytes += bytes;
            batch.tally.add(told);
        }
        Ok(())
    }

    /// How long to wait for a record.
    fn patience(&self) -> Duration {
        if self.owned.values().any(|partition| partition.phase == Phase::Restoring) {
            return if self.is_behind { Duration::ZERO } else { BETWEEN_SLICES };
        }
        match &self.batch {
            Some(batch) => self.mind.settings.bounds.age.saturating_sub(self.port.now() - batch.opened),
            None => IDLE,
        }
    }

    // === Transactions ===

    fn batch_is_due(&self, now: Instant, records_wait: bool) -> bool {
        self.batch.as_ref().is_some_and(|Batch { opened, bytes, tally }| {
            self.mind.settings.bounds.are_reached(now - *opened, tally.records(), *bytes, records_wait)
        })
    }

    fn open_offsets(&self) -> BTreeMap<i32, i64> {
        self.owned.iter().filter_map(|(number, partition)| Some((*number, partition.next?))).collect()
    }

    fn commit(&mut self) -> Result<(), Fatal> {
        if self.batch.is_none() {
            return Ok(());
        }
        let began = self.port.now();
        if let Err(setback) = self.forget_long_gone() {
            return self.recover(setback);
        }
        let offsets = self.open_offsets();
        match self.port.commit(&offsets) {
            Err(setback) => self.recover(setback),
            Ok(()) => {
                self.setbacks = 0;
                for partition in self.owned.values_mut().filter(|partition| partition.next.is_some()) {
                    partition.devices.settle();
                    partition.committed = partition.next.take();
                }
                if let Some(Batch { opened, tally, .. }) = self.batch.take() {
                    tracing::debug!(records = tally.records(), "transaction committed");
                    let now = self.port.now();
                    self.mind.observer.committed(&tally, now - opened, now - began);
                }
                // One after the other: what one lets go of is there for the next.
                for number in offsets.into_keys() {
                    let claimed = self.owned.get_mut(&number).map_or(Ok(()), Partition::claim);
                    if let Err(reason) = claimed {
                        self.refuse(number, &reason)?;
                    }
                }
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
        self.hold(number, &Reason::plain(reason))
    }

    fn hold(&mut self, number: i32, reason: &Reason) -> Result<(), Fatal> {
        if self.mind.settings.stuck == Stuck::Ends {
            return Err(Fatal(format!("partition {number}: {reason}")));
        }
        tracing::error!(partition = number, %reason, "partition held");
        if let Some(partition) = self.owned.get_mut(&number) {
            partition.phase = Phase::Held;
        }
        self.port.stop_restore(number);
        self.restores.forget(number);
        self.port.pause(&[number])?;
        self.mind.observer.held(number, reason);
        self.report_partitions();
        Ok(())
    }

    /// Shows the lag anew where the client has told how far its partitions go.
    fn report_lag(&mut self) {
        let now = chrono::Utc::now().timestamp_millis();
        for standing in self.port.standings() {
            let number = standing.partition;
            let is_read = |partition: &&mut Partition| matches!(partition.phase, Phase::Running | Phase::Held);
            let Some(partition) = self.owned.get_mut(&number).filter(is_read) else { continue };
            let sought = partition.next.or(partition.committed).unwrap_or_default();
            let Some(records) = standing.behind(sought) else { continue };
            let lag = partition.reading.lag(records, now);
            partition.lag.get_or_insert_with(|| self.mind.observer.lag_of(number)).show(lag);
        }
    }

    /// There is no memory for the devices of this partition: it lets go of them, and waits until others do.
    fn refuse(&mut self, number: i32, exceeded: &Exceeded) -> Result<(), Fatal> {
        self.hold(number, &Reason::plain(exceeded))?;
        if let Some(partition) = self.owned.get_mut(&number) {
            let budget = &self.mind.settings.budget;
            *partition = Partition::new(self.port.now(), budget);
            partition.phase = Phase::Refused { releases: budget.releases() };
        }
        self.report_partitions();
        Ok(())
    }

    fn report_partitions(&self) {
        let count = |is: &dyn Fn(&Phase) -> bool| self.owned.values().filter(|partition| is(&partition.phase)).count();
        let standing = |(number, partition): (&i32, &Partition)| PartitionStanding {
            partition: *number,
            phase: partition.phase.name(),
            devices: partition.devices.len(),
        };
        self.mind.observer.partitions(Census {
            restoring: count(&|phase| matches!(phase, Phase::Waiting { .. } | Phase::Restoring)),
            running: count(&|phase| *phase == Phase::Running),
            held: count(&|phase| matches!(phase, Phase::Held | Phase::Refused { .. })),
            devices: self.owned.values().map(|partition| partition.devices.len()).sum(),
            bytes: self.owned.values().map(|partition| partition.devices.bytes()).sum(),
            progress: self.progress.clone(),
            partitions: self.owned.iter().map(standing).collect(),
        });
    }
}
