//! Today's mapping against the live state: what would come out differently, and `--in-place` lets it out.
//!
//! One partition after the other: the group's committed offset; the devices, from the state topic; a first reading of the
//! raw log below that offset, for which record of each device counts ([`selection`]); a second one of just those, which
//! are mapped again ([`finding`]). What differs is told, and in place also written ([`in_place`]).
//!
//! **Delivery.** In place, events and states are written in transactions as the mapper's are, each guarded by the live
//! group, whose only member this is, and whose offsets stay where they are. After a setback, or a death, a partition is
//! begun again from its restore: what was committed no longer differs, so each device comes out once.

mod dry_run;
mod finding;
mod in_place;
mod selection;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio_util::sync::CancellationToken;

use super::progress::{Display, Progress};
use super::report::{Changed, Mode, Named, Report, Tally, Tell};
use crate::config::Config;
use crate::kafka::{Fatal, Next, RangeReader, Restored, Setback, TableReader, Unavailable};
use crate::mapper::changelog::Changelog;
use crate::mapper::decide::{Emission, Rules};
use crate::mapper::kafka_port::raw_record;
use crate::mapper::state::{DeviceState, Devices};
use crate::record::RawRecord;
use crate::stage::Process;
use dry_run::DryRun;
use finding::{Finding, accepts, judge};
use in_place::InPlace;
use selection::{Selection, ranges};

/// How long Kafka may keep what is asked of it, beyond the transactions that it may wait for.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Pause before Kafka is asked again.
const AGAIN: Duration = Duration::from_millis(20);
/// Records between two looks at the group, and at whether to stop.
const RECORDS_A_TURN: usize = 1000;
/// Records that are read over rather than left out.
const GAP: i64 = 10_000;

/// Compares today's mapping with the live state, and in place writes what differs.
///
/// `samples` bounds the devices whose fields are kept for the report; `tell` is told of every device that comes out
/// differently, in place once that is committed.
///
/// # Errors
/// When Kafka does not answer in time, a state cannot be read, the group has other members (in place), too many
/// transactions fail, or what is told cannot be written.
pub async fn run(process: &Process, mode: Mode, samples: usize, tell: &mut Tell<'_>) -> anyhow::Result<Report> {
    let config = &*process.config;
    let partitions = process.check_topics().await?;
    let rules = process.rules(partitions);
    let client = format!("{}-{}-replay", config.mapper.group_id, config.instance_id.0);
    let states = TableReader::new(&config.kafka, &config.kafka.topics.state, &client)?;
    let raw = RangeReader::new(&config.kafka, &config.kafka.topics.raw, &client)?;
    let changelog = || Changelog::new(config.mapper.profile).map_err(anyhow::Error::from);
    let mut remap = Remap {
        partitions: partitions.raw,
        raw_topic: &config.kafka.topics.raw,
        patience: PATIENCE + config.kafka.transaction_timeout,
        rules,
        changelog: changelog()?,
        states,
        raw,
        teller: Teller { report: Report::new(mode, config.mapper.profile, samples), tell, failed: None },
        display: None,
        stop: process.stop.clone(),
    };
    match mode {
        Mode::DryRun => {
            let mut outlet = DryRun::new(config, &client)?;
            tokio::task::block_in_place(|| remap.go(&mut outlet))?;
        }
        Mode::InPlace => {
            let encoder = process.encoder(process.framing().await?)?;
            let aligned_events = partitions.events == partitions.raw;
            let rules = process.rules(partitions);
            tokio::task::block_in_place(|| {
                let mut outlet =
                    InPlace::join(config, &client, rules, encoder, changelog()?, aligned_events, &process.stop)?;
                remap.check(&mut outlet).and_then(|()| remap.go(&mut outlet)).inspect_err(|_| outlet.abandon())
            })?;
        }
    }
    let Teller { report, failed, .. } = remap.teller;
    failed.map_or(Ok(report), |error| Err(error).context("all is done, but not all of it could be told"))
}

/// The place where what differs goes, and what must be heeded meanwhile.
trait Outlet {
    /// Offsets that the live group has committed; `None` where it has not.
    fn committed(&mut self, partition: i32) -> Result<Option<i64>, Unavailable>;

    /// The devices of a partition as they are now, before anything of it is emitted.
    fn restored(&mut self, devices: &Devices, teller: &mut Teller<'_>);

    /// Called at least every second.
    fn beat(&mut self, teller: &mut Teller<'_>) -> Result<(), Interrupt>;

    /// A device comes out differently.
    fn emit(
        &mut self,
        record: &RawRecord<'_>,
        emission: &mut Emission,
        teller: &mut Teller<'_>,
    ) -> Result<(), Interrupt>;

    /// The partition is done.
    fn settle(&mut self, teller: &mut Teller<'_>) -> Result<(), Interrupt>;

    /// After a setback nothing of the open transaction ever was, or all of it; then the partition is begun again.
    fn recover(&mut self, setback: Setback) -> anyhow::Result<()>;
}

/// Why a partition was left half-done.
enum Interrupt {
    /// It can be begun again.
    Setback(Setback),
    /// It cannot.
    End(anyhow::Error),
}

impl Interrupt {
    fn into_error(self) -> anyhow::Error {
        match self {
            Interrupt::Setback(setback) => setback.into(),
            Interrupt::End(error) => error,
        }
    }
}

impl From<Setback> for Interrupt {
    fn from(setback: Setback) -> Self {
        Self::Setback(setback)
    }
}

impl From<Fatal> for Interrupt {
    fn from(fatal: Fatal) -> Self {
        Self::End(fatal.into())
    }
}

impl From<anyhow::Error> for Interrupt {
    fn from(error: anyhow::Error) -> Self {
        Self::End(error)
    }
}

/// Keeps the report, and passes on what is in it.
struct Teller<'a> {
    report: Report,
    tell: &'a mut Tell<'a>,
    /// Why it can no longer be passed on.
    failed: Option<io::Error>,
}

impl Teller<'_> {
    fn told(&mut self, changed: &Changed) {
        self.report.changed(changed);
        if self.failed.is_none() {
            self.failed = (self.tell)(changed).err();
        }
    }
}

struct Remap<'a> {
    partitions: i32,
    raw_topic: &'a str,
    patience: Duration,
    rules: Rules,
    changelog: Changelog,
    states: TableReader,
    raw: RangeReader,
    teller: Teller<'a>,
    /// Shows how far it is, once that is known.
    display: Option<(Arc<Progress>, Display)>,
    stop: CancellationToken,
}

impl Remap<'_> {
    /// Reads all states once: where one cannot be read, nothing at all shall be written.
    fn check(&mut self, outlet: &mut dyn Outlet) -> anyhow::Result<()> {
        for partition in 0..self.partitions {
            self.read_states(partition, outlet, &mut |_, _| {}).map_err(Interrupt::into_error)?;
        }
        Ok(())
    }

    fn go(&mut self, outlet: &mut dyn Outlet) -> anyhow::Result<()> {
        let mut ranges = BTreeMap::new();
        for partition in 0..self.partitions {
            let range = self.range(partition, outlet).map_err(Interrupt::into_error)?;
            ranges.insert(partition, range);
        }
        let progress = Arc::new(Progress::new(&ranges, &BTreeMap::new()));
        let display = Display::new(&progress);
        self.display = Some((progress.clone(), display));
        let outcome = (0..self.partitions).try_for_each(|partition| {
            let tally = loop {
                match self.partition(partition, &progress, outlet) {
                    Ok(tally) => break tally,
                    Err(Interrupt::Setback(setback)) => {
                        tracing::warn!(partition, %setback, "transaction failed; the partition is begun again");
                        outlet.recover(setback)?;
                    }
                    Err(Interrupt::End(error)) => return Err(error),
                }
            };
            progress.done(partition);
            self.teller.report.add(tally);
            Ok(())
        });
        if let Some((_, display)) = self.display.take() {
            display.end();
        }
        outcome
    }

    /// What is read of a raw partition.
    fn range(&mut self, partition: i32, outlet: &mut dyn Outlet) -> Result<Range<i64>, Interrupt> {
        let committed = self.patiently(outlet, |_, outlet| outlet.committed(partition))?;
        let from = self.patiently(outlet, |remap, _| remap.raw.beginning(partition))?;
        Ok(from..committed.unwrap_or_default().max(from))
    }

    /// One partition from its beginning.
    fn partition(&mut self, partition: i32, progress: &Progress, outlet: &mut dyn Outlet) -> Result<Tally, Interrupt> {
        // Asked before the states are read: whatever lies before it is in them.
        let committed = self.patiently(outlet, |_, outlet| outlet.committed(partition))?;
        let mut devices = Devices::default();
        let mut selection = Selection::new(committed.unwrap_or_default());
        self.read_states(partition, outlet, &mut |id, state| {
            selection.restore(id, state.as_ref());
            devices.restore(id, state);
        })?;
        outlet.restored(&devices, &mut self.teller);
        let (present, gone) = selection.count();
        if committed.is_none() && present + gone > 0 {
            return Err(Interrupt::End(anyhow!(
                "partition {partition} of {} has no committed offset, but the state topic knows {} of its devices: the \
                 group's offsets were deleted or expired, or mapper.group_id is not that of the mapper. Restore the \
                 group's name or offsets (kafka-consumer-groups --reset-offsets)",
                self.raw_topic,
                present + gone
            )));
        }
        let rules = self.rules.clone();
        let mut tally = Tally { devices: present, gone, ..Tally::default() };
        let from = self.patiently(outlet, |remap, _| remap.raw.beginning(partition))?;
        // A second round only for devices whose newest record is rejected: which of the older ones counts then.
        for round in 0..2 {
            let end = selection.end();
            self.read(partition, (from, end), outlet, &mut |record, _, _| {
                selection.note(record, &|record| accepts(&rules, record));
                if round == 0 {
                    // Where the time goes: what is mapped again is the least of it.
                    progress.committed(partition, record.offset + 1);
                }
                Ok(())
            })?;
            for range in ranges(&selection.offsets(), GAP) {
                self.read(partition, range, outlet, &mut |record, outlet, teller| {
                    if !selection.take(record) {
                        return Ok(());
                    }
                    let name = || String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
                    match judge(&rules, record, &devices) {
                        Finding::Same => {}
                        Finding::Remapped(mut emission) => outlet.emit(record, &mut emission, teller)?,
                        Finding::Unknown => tally.unknown.note(&name()),
                        Finding::Ends => tally.ends.note(&name()),
                        Finding::Rejected(rejection) => {
                            *tally.rejected.entry(rejection.kind()).or_default() += 1;
                            selection.reject(record);
                        }
                    }
                    Ok(())
                })?;
            }
            if !selection.is_picky() {
                break;
            }
        }
        outlet.settle(&mut self.teller)?;
        let mut without_record = Named::default();
        selection.without_record().for_each(|id| without_record.note(id));
        tracing::info!(partition, devices = present, "partition compared");
        Ok(Tally { without_record, ..tally })
    }

    /// Reads a state partition to its end.
    fn read_states(
        &mut self,
        partition: i32,
        outlet: &mut dyn Outlet,
        take: &mut dyn FnMut(&str, Option<DeviceState>),
    ) -> Result<(), Interrupt> {
        let end = self.patiently(outlet, |remap, _| remap.states.true_end(partition))?;
        self.patiently(outlet, |remap, _| remap.states.begin_to(partition, end))?;
        let mut heard = Instant::now();
        loop {
            self.turn(outlet)?;
            self.raw.serve();
            for _ in 0..RECORDS_A_TURN {
                let mut unreadable = None;
                let changelog = &self.changelog;
                let progress = self.states.poll(POLL, &mut |_, key, value| match decoded(changelog, key, value) {
                    Ok((id, state)) => take(id, state),
                    Err(error) => unreadable = Some(error),
                })?;
                if let Some(error) = unreadable {
                    return Err(Interrupt::End(error));
                }
                match progress {
                    Restored::Done(_) => return Ok(()),
                    Restored::Record => heard = Instant::now(),
                    Restored::Nothing if heard.elapsed() > self.patience => {
                        return Err(anyhow!("state partition {partition} was not read to its end in time").into());
                    }
                    Restored::Nothing => break,
                }
            }
        }
    }

    /// Reads a range of a raw partition.
    fn read(
        &mut self,
        partition: i32,
        range: (i64, i64),
        outlet: &mut dyn Outlet,
        take: &mut TakeRaw<'_>,
    ) -> Result<(), Interrupt> {
        let (from, to) = range;
        if from >= to {
            return Ok(());
        }
        self.raw.begin(partition, from, to)?;
        let (mut at, mut heard) = (from, Instant::now());
        while at < to {
            self.turn(outlet)?;
            self.states.serve();
            for _ in 0..RECORDS_A_TURN {
                match self.raw.next(POLL)? {
                    Next::Record(message) => {
                        let record = raw_record(&message);
                        (at, heard) = (record.offset + 1, Instant::now());
                        take(&record, outlet, &mut self.teller)?;
                    }
                    Next::End => at = to,
                    Next::Nothing if heard.elapsed() > self.patience => {
                        return Err(anyhow!("{} [{partition}] cannot be read from {at} on", self.raw_topic).into());
                    }
                    Next::Nothing => break,
                }
                if at >= to {
                    break;
                }
            }
        }
        self.raw.end();
        Ok(())
    }

    /// What is done between some records.
    fn turn(&mut self, outlet: &mut dyn Outlet) -> Result<(), Interrupt> {
        if self.stop.is_cancelled() {
            return Err(Interrupt::End(anyhow!("stopped before the end; run it again to do the rest")));
        }
        if let Some((progress, display)) = &mut self.display {
            display.show(progress);
        }
        outlet.beat(&mut self.teller)
    }

    /// Asks again until Kafka tells.
    fn patiently<T>(
        &mut self,
        outlet: &mut dyn Outlet,
        mut ask: impl FnMut(&mut Self, &mut dyn Outlet) -> Result<T, Unavailable>,
    ) -> Result<T, Interrupt> {
        let deadline = Instant::now() + self.patience;
        loop {
            match ask(self, outlet) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > deadline => return Err(Interrupt::End(error.into())),
                Err(_) => std::thread::sleep(AGAIN),
            }
            if self.stop.is_cancelled() {
                return Err(Interrupt::End(anyhow!("stopped while Kafka was waited for")));
            }
            outlet.beat(&mut self.teller)?;
        }
    }
}

/// Takes a raw record.
type TakeRaw<'a> = dyn FnMut(&RawRecord<'_>, &mut dyn Outlet, &mut Teller<'_>) -> Result<(), Interrupt> + 'a;

fn decoded<'k>(
    changelog: &Changelog,
    key: &'k [u8],
    value: Option<&[u8]>,
) -> anyhow::Result<(&'k str, Option<DeviceState>)> {
    let about = || format!("a record of the state topic cannot be read, key {:?}", String::from_utf8_lossy(key));
    let id = std::str::from_utf8(key).with_context(about)?;
    Ok((id, value.map(|value| changelog.decode(value)).transpose().with_context(about)?))
}

/// The client of the live group's offsets.
fn onlooker(config: &Config, client: &str) -> Result<crate::kafka::Onlooker, anyhow::Error> {
    let client = format!("{client}-group");
    Ok(crate::kafka::Onlooker::new(&config.kafka, &config.kafka.topics.raw, &config.mapper.group_id, &client)?)
}
