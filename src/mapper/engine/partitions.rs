//! Partitions that come and go, and how they get their devices back.

use std::time::{Duration, Instant};

use super::super::budget::Exceeded;
use super::super::changelog::Changelog;
use super::super::port::{Fatal, Port, Rebalance, Restored, Setback};
use super::super::state::DeviceState;
use super::place::{Place, missed_tombstones, place};
use super::{Engine, Found, Mind, Partition, Phase};
use crate::record::partition_for;
use crate::status::Reason;

/// How long to wait before Kafka is asked again for what it could not tell.
const RETRY: Duration = Duration::from_millis(200);
/// Records of a partition that cannot be read, and may be followed by some of the same keys that can.
const MAX_UNREADABLE: usize = 100;
/// How long restoring partitions may hold up running ones, a turn.
const RESTORE_SLICE: Duration = Duration::from_millis(20);

/// What to do where partitions were added.
const NEW_TOPICS: &str = "Partitions cannot be added to a running pipeline: create new topics (kafka.topics) with as many \
                          as are wanted, let the collector fill raw, and map them afresh";

impl<P: Port> Engine<P> {
    pub(super) fn follow(&mut self, step: Rebalance) -> Result<(), Fatal> {
        match step {
            Rebalance::Assign(partitions) => {
                tracing::info!(?partitions, "partitions assigned");
                if let Some(number) = partitions.iter().find(|number| **number >= self.mind.rules.partitions) {
                    return Err(Fatal(format!(
                        "partition {number} was added to {}, which had {} when this process started; keys would move. \
                         {NEW_TOPICS}",
                        self.mind.settings.raw_topic, self.mind.rules.partitions
                    )));
                }
                self.port.assign(&partitions)?;
                let now = self.port.now();
                for number in partitions {
                    self.owned.insert(number, Partition::new(now, &self.mind.settings.budget));
                }
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
            self.restores.forget(*number);
            if let Some(partition) = self.owned.remove(number) {
                partition.share.release();
            }
            self.mind.observer.not_held(*number);
        }
    }

    pub(super) fn advance_restores(&mut self) -> Result<(), Fatal> {
        let began = self.port.now();
        self.begin_restores(began);
        self.is_behind = true;
        let mut restoring = self.owned.values().filter(|partition| partition.phase == Phase::Restoring).count();
        while restoring > 0 && self.port.now() - began < RESTORE_SLICE {
            let timeout = if self.batch.is_some() { Duration::ZERO } else { RESTORE_SLICE };
            let mut obstacle = None;
            let (owned, mind) = (&mut self.owned, &self.mind);
            let progress = self.port.restored(timeout, &mut |number, key, value| {
                if let Some(partition) = owned.get_mut(&number).filter(|partition| partition.phase == Phase::Restoring)
                {
                    let taken = restore(partition, mind, number, key, value);
                    obstacle = taken.err().map(|obstacle| (number, obstacle));
                }
            })?;
            match progress {
                Restored::Nothing => {
                    self.is_behind = false;
                    break;
                }
                Restored::Record => {
                    self.mind.observer.restored();
                    match obstacle {
                        None => {}
                        Some((number, Obstacle::Unreadable(reason))) => {
                            restoring -= 1;
                            self.hold(number, &reason)?;
                        }
                        Some((number, Obstacle::NoRoom(exceeded))) => {
                            restoring -= 1;
                            self.refuse(number, &exceeded)?;
                        }
                        Some((_, Obstacle::Moved(reason))) => return Err(Fatal(reason)),
                    }
                }
                Restored::Done(number) => {
                    restoring -= 1;
                    let partition = self.owned.get_mut(&number);
                    let unreadable = partition.map(|partition| std::mem::take(&mut partition.unreadable));
                    match unreadable.and_then(|mut unreadable| unreadable.pop_first()) {
                        Some((_, reason)) => self.hold(number, &reason)?,
                        None => self.start(number)?,
                    }
                }
            }
        }
        self.look_at_restores(self.port.now());
        Ok(())
    }

    fn look_at_restores(&mut self, now: Instant) {
        let remaining = self.port.remaining();
        let has_ended = remaining.is_empty() && self.progress.is_some();
        if !has_ended && (remaining.is_empty() || !self.restores.is_due(now)) {
            return;
        }
        self.progress = self.restores.look(&remaining, now);
        if let Some(progress) = &self.progress {
            self.mind.observer.restoring(progress);
            if self.restores.is_to_be_told(now) {
                self.mind.observer.restoring_in_figures(progress);
            }
        }
        self.report_partitions();
    }

    /// Begins the restores that can begin: first the group's offsets, then the end of the state partition.
    fn begin_restores(&mut self, now: Instant) {
        let given_up = self.mind.settings.budget.releases();
        for (number, partition) in &mut self.owned {
            if matches!(partition.phase, Phase::Refused { releases } if releases != given_up) {
                partition.phase = Phase::Waiting { until: now };
                self.mind.observer.not_held(*number);
            }
        }
        let is_due = |partition: &Partition| matches!(partition.phase, Phase::Waiting { until } if until <= now);
        let due: Vec<_> =
            self.owned.iter().filter(|(_, partition)| is_due(partition)).map(|(number, _)| *number).collect();
        if due.is_empty() {
            return;
        }
        let offsets = self.port.committed(&due);
        for number in due {
            let begun = offsets.clone().and_then(|offsets| {
                let log = self.port.log(number)?;
                self.port.restore(number)?;
                Ok(Found { committed: offsets.get(&number).copied().flatten(), log, last_written: None })
            });
            let Some(partition) = self.owned.get_mut(&number) else { continue };
            match begun {
                Ok(found) => {
                    let committed = found.committed.map(|committed| committed.offset);
                    tracing::debug!(partition = number, committed, "restore started");
                    partition.found = found;
                    partition.phase = Phase::Restoring;
                }
                Err(error) => {
                    tracing::debug!(partition = number, %error, "restore must wait");
                    partition.phase = Phase::Waiting { until: now + RETRY };
                }
            }
        }
    }

    /// The devices of a partition are there: map its records.
    fn start(&mut self, number: i32) -> Result<(), Fatal> {
        let settings = &self.mind.settings;
        let Some(partition) = self.owned.get_mut(&number) else { return Ok(()) };
        let place = place(&partition.found, settings.lost_offsets);
        let place = place.map_err(|reason| Fatal(format!("partition {number} of {}: {reason}", settings.raw_topic)))?;
        let missed = missed_tombstones(&partition.found, settings.tombstones_kept, chrono::Utc::now());
        let devices = partition.devices.len();
        partition.phase = Phase::Running;
        let is_new = match place {
            Place::Kept(committed) => {
                partition.committed = committed;
                false
            }
            Place::Moved { offset, reason, is_new } => {
                tracing::warn!(partition = number, offset, reason, "going on elsewhere");
                partition.committed = Some(offset);
                partition.next = is_new.then_some(offset);
                is_new
            }
        };
        let committed = partition.committed;
        if let Some(reason) = missed {
            tracing::warn!(partition = number, reason, "removals may have been missed");
            self.mind.observer.long_outage();
        }
        tracing::info!(partition = number, devices, offset = committed, "partition restored");
        self.port.resume(number, committed)?;
        self.report_partitions();
        // Else a partition without news would be asked the same at the next start.
        if is_new && let Err(setback) = self.open_batch() {
            return self.recover(setback);
        }
        Ok(())
    }
}

/// Why a partition cannot be restored.
enum Obstacle {
    /// It cannot be used, as it is or by this release.
    Unreadable(Reason),
    /// There is no memory for it.
    NoRoom(Exceeded),
    /// None of the topic can be used.
    Moved(String),
}

/// Takes over a record of the state topic. What cannot be read is an obstacle only if nothing later has its key.
fn restore(
    partition: &mut Partition,
    mind: &Mind,
    number: i32,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), Obstacle> {
    match read(&mind.changelog, key, value) {
        Ok((id, state)) => {
            partition.unreadable.remove(key);
            partition.found.last_written =
                partition.found.last_written.max(state.as_ref().map(|state| state.raw_offset));
            let is_there = state.is_some();
            partition.devices.restore(id, state);
            if is_there {
                check_home(number, mind.rules.partitions, key)?;
            }
            partition.claim().map_err(Obstacle::NoRoom)
        }
        Err(_) if value.is_none() => {
            partition.unreadable.remove(key);
            Ok(())
        }
        Err(error) => {
            let shown = format!(
                "a record of the state topic cannot be taken over: {error} (a null under its key takes it away, and with it \
                 what is known of the device)"
            );
            let reason = Reason { shown, key: Some(String::from_utf8_lossy(key).into_owned()) };
            partition.unreadable.insert(key.into(), reason.clone());
            let are_too_many = partition.unreadable.len() > MAX_UNREADABLE;
            if are_too_many { Err(Obstacle::Unreadable(reason)) } else { Ok(()) }
        }
    }
}

/// A state of ours that lies in the wrong partition was written when there were fewer.
fn check_home(found: i32, partitions: i32, key: &[u8]) -> Result<(), Obstacle> {
    let home = partition_for(key, partitions);
    if home == found {
        return Ok(());
    }
    Err(Obstacle::Moved(format!(
        "the state topic has {:?} in partition {found}, it belongs into {home} of {partitions} (murmur2): partitions were \
         added to raw and state. {NEW_TOPICS}",
        String::from_utf8_lossy(key)
    )))
}

fn read<'a>(
    changelog: &Changelog,
    key: &'a [u8],
    value: Option<&[u8]>,
) -> Result<(&'a str, Option<DeviceState>), String> {
    let id = std::str::from_utf8(key).map_err(|error| error.to_string())?;
    let state = value.map(|value| changelog.decode(value)).transpose().map_err(|error| error.to_string())?;
    Ok((id, state))
}
