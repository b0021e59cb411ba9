//! When a transaction fails: what is undone, what is read again, and when to give up.

use std::time::Duration;

use super::super::port::{Fatal, Port, Setback};
use super::{Batch, Engine, Partition};

/// Consecutive transactions that may fail before the process gives up, for its supervisor to see.
const MAX_SETBACKS: u32 = 20;
/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

impl<P: Port> Engine<P> {
    pub(super) fn recover(&mut self, setback: Setback) -> Result<(), Fatal> {
        tracing::warn!(%setback, "transaction failed");
        let batch = self.batch.take();
        self.setbacks += 1;
        if self.setbacks > MAX_SETBACKS {
            return Err(Fatal(format!("{MAX_SETBACKS} transactions in a row failed, the last one: {setback}")));
        }
        // What comes during a wait is dropped, so nothing may come before the partitions are sought again.
        let running = self.running();
        self.port.pause(&running)?;
        match setback {
            Setback::Fatal(cause) | Setback::TooLarge(cause) => Err(Fatal(cause)),
            Setback::Renew(_) => self.renew(&running, batch),
            Setback::Abort(_) => match self.port.abort() {
                Ok(()) => {
                    self.mind.observer.aborted();
                    self.port.wait(backoff(self.setbacks))?;
                    self.undo()
                }
                Err(Setback::Fatal(cause)) => Err(Fatal(cause)),
                Err(_) => self.renew(&running, batch),
            },
        }
    }

    fn running(&self) -> Vec<i32> {
        self.owned.iter().filter(|(_, partition)| partition.is_running()).map(|(number, _)| *number).collect()
    }

    /// The abort is confirmed: forget what the transaction taught, and read its records again.
    fn undo(&mut self) -> Result<(), Fatal> {
        for (number, partition) in &mut self.owned {
            if partition.next.take().is_some() {
                partition.roll_back();
            }
            if partition.is_running() {
                self.port.resume(*number, partition.committed)?;
            }
        }
        Ok(())
    }

    /// A new producer; then the group's offsets tell whether the transaction was committed.
    fn renew(&mut self, running: &[i32], batch: Option<Batch>) -> Result<(), Fatal> {
        self.mind.observer.renewed();
        self.port.wait(backoff(self.setbacks))?;
        let mut attempts = 0;
        let committed = loop {
            if self.stop.is_cancelled() {
                return Err(Fatal("stopped while Kafka could not be reached; nothing is lost".to_owned()));
            }
            self.mind.observer.beat();
            let settled = match self.port.renew() {
                Err(Setback::Fatal(cause)) => return Err(Fatal(cause)),
                Err(setback) => Err(setback.to_string()),
                Ok(()) => self.port.committed(running).map_err(|error| error.to_string()),
            };
            match settled {
                Ok(committed) => break committed,
                Err(error) => {
                    attempts += 1;
                    tracing::warn!(error, attempts, "the producer could not be renewed yet");
                    self.port.wait(backoff(attempts))?;
                }
            }
        };
        let now = self.port.now();
        let mut was_committed = false;
        for &number in running {
            let committed = committed.get(&number).copied().flatten().map(|committed| committed.offset);
            let Some(partition) = self.owned.get_mut(&number) else { continue };
            let next = partition.next.take();
            if next.is_some() && next == committed {
                was_committed = true;
                partition.devices.settle();
                partition.committed = committed;
            } else if partition.committed == committed {
                partition.roll_back();
            } else {
                // Somebody else moved on from here.
                *partition = Partition::new(now, &self.mind.settings.budget);
                continue;
            }
            self.port.resume(number, committed)?;
        }
        if let Some(batch) = batch.filter(|_| was_committed) {
            self.mind.observer.count(&batch.tally);
        }
        Ok(())
    }
}

/// 50 ms, doubled with each failure, up to five seconds.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(50).saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF)
}
