//! A [`Port`] whose partitions end: the engine's loop on part of a log, or on a file in its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::file::Records;
use super::progress::Progress;
use crate::mapper::kafka_port::KafkaPort;
use crate::mapper::port::{
    Committed, Destination, Fatal, Output, Port, Rebalance, Restored, Setback, TakeRecord, Unavailable,
};
use crate::record::RawRecord;

/// Hands on what lies in the plan, and cancels `all_done` when all of it is committed.
///
/// Dead letters are left out: the records lie on the raw topic still, and were rejected there when they first came.
pub struct ReplayPort {
    kafka: KafkaPort,
    /// What is read in the place of the raw topic.
    file: Option<Records>,
    progress: Arc<Progress>,
    all_done: CancellationToken,
    /// Whether a transaction is open.
    is_open: bool,
    /// Where each running partition stands.
    next: BTreeMap<i32, i64>,
    /// The partitions that have nothing more, and are paused.
    ended: BTreeMap<i32, i64>,
}

impl ReplayPort {
    /// The raw topic of `kafka`, or a file instead, as far as `progress` has it in its plan.
    pub fn new(kafka: KafkaPort, file: Option<Records>, progress: Arc<Progress>, all_done: CancellationToken) -> Self {
        Self { kafka, file, progress, all_done, is_open: false, next: BTreeMap::new(), ended: BTreeMap::new() }
    }

    /// A partition whose end was reached since this was last asked.
    fn take_ended(&mut self) -> Option<i32> {
        match &mut self.file {
            Some(file) => file.take_ended(),
            None => self.kafka.take_ended(),
        }
    }

    /// Where no transaction is open, what has ended is done.
    fn tell_done(&self) {
        if !self.is_open {
            self.ended.keys().for_each(|partition| self.progress.done(*partition));
            if self.progress.is_done() {
                self.all_done.cancel();
            }
        }
    }
}

impl Port for ReplayPort {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<(), Fatal> {
        let mut beyond = None;
        let (progress, next) = (&self.progress, &mut self.next);
        let mut within = |record: RawRecord<'_>| {
            if record.offset >= progress.end(record.partition) {
                beyond = Some(record.partition);
            } else {
                next.insert(record.partition, record.offset + 1);
                take(record);
            }
        };
        match &mut self.file {
            None => self.kafka.poll(timeout, &mut within)?,
            Some(file) => {
                let read = file.read().map_err(|error| Fatal(format!("{error:#}")))?;
                // Nothing is delivered: all partitions of the consumer are paused. It must be asked all the same.
                let timeout = if read.is_some() { Duration::ZERO } else { timeout };
                self.kafka.poll(timeout, &mut |_| {})?;
                if let Some((partition, offset, record)) = read {
                    within(record.raw(partition, offset));
                }
            }
        }
        while let Some(partition) = beyond.take().or_else(|| self.take_ended()) {
            if let Some(next) = self.next.get(&partition)
                && self.ended.insert(partition, *next).is_none()
            {
                self.pause(&[partition])?;
            }
        }
        self.tell_done();
        Ok(())
    }

    fn rebalance(&mut self) -> Option<Rebalance> {
        self.kafka.rebalance()
    }

    fn assign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.kafka.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        for partition in partitions {
            self.next.remove(partition);
            self.ended.remove(partition);
        }
        if let Some(file) = &mut self.file {
            file.pause(partitions);
        }
        self.kafka.unassign(partitions)
    }

    fn resume(&mut self, partition: i32, offset: Option<i64>) -> Result<(), Fatal> {
        let offset = offset.unwrap_or_default();
        // Behind its last record there may be markers only, of which the client does not tell a second time.
        if self.ended.get(&partition).is_some_and(|next| offset >= *next) {
            return Ok(());
        }
        self.ended.remove(&partition);
        self.next.insert(partition, offset);
        match &mut self.file {
            Some(file) => file.resume(partition, offset),
            None => self.kafka.resume(partition, Some(offset))?,
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        match &mut self.file {
            Some(file) => file.pause(partitions),
            None => self.kafka.pause(partitions)?,
        }
        Ok(())
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<Committed>>, Unavailable> {
        self.kafka.committed(partitions)
    }

    fn log(&mut self, partition: i32) -> Result<Range<i64>, Unavailable> {
        match self.file {
            // Offsets count the file's records, and it is there from its beginning.
            Some(_) => Ok(0..i64::MAX),
            None => self.kafka.log(partition),
        }
    }

    fn restore(&mut self, partition: i32) -> Result<(), Unavailable> {
        // It goes on from where it is then found to be.
        self.ended.remove(&partition);
        self.next.remove(&partition);
        self.kafka.restore(partition)
    }

    fn stop_restore(&mut self, partition: i32) {
        self.kafka.stop_restore(partition);
    }

    fn restored(&mut self, timeout: Duration, take: &mut TakeRecord<'_>) -> Result<Restored, Fatal> {
        self.kafka.restored(timeout, take)
    }

    fn remaining(&self) -> BTreeMap<i32, u64> {
        self.kafka.remaining()
    }

    fn begin(&mut self) -> Result<(), Setback> {
        self.is_open = true;
        self.kafka.begin()
    }

    fn produce(&mut self, output: Output) -> Result<(), Setback> {
        if output.destination == Destination::DeadLetters { Ok(()) } else { self.kafka.produce(output) }
    }

    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Setback> {
        self.kafka.commit(offsets)?;
        self.is_open = false;
        offsets.iter().for_each(|(partition, offset)| self.progress.committed(*partition, *offset));
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Setback> {
        self.kafka.abort()?;
        self.is_open = false;
        Ok(())
    }

    fn renew(&mut self) -> Result<(), Setback> {
        self.kafka.renew()?;
        self.is_open = false;
        Ok(())
    }

    fn wait(&mut self, duration: Duration) -> Result<(), Fatal> {
        self.kafka.wait(duration)
    }
}
