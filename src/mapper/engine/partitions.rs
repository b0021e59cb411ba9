//! Partitions that come and go, and how they get their devices back.

use std::time::{Duration, Instant};

use super::super::changelog::Changelog;
use super::super::port::{Fatal, Port, Rebalance, Restored, Setback};
use super::{Engine, Partition, Phase};

/// How long to wait before Kafka is asked again for what it could not tell.
const RETRY: Duration = Duration::from_millis(200);
/// How long restoring partitions may hold up running ones, a turn.
const RESTORE_SLICE: Duration = Duration::from_millis(20);

impl<P: Port> Engine<P> {
    pub(super) fn follow(&mut self, step: Rebalance) -> Result<(), Fatal> {
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

    pub(super) fn advance_restores(&mut self) -> Result<(), Fatal> {
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
