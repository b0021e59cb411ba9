//! What the engine needs of Kafka, at the level of its loop. [`super::kafka_port`] is the real one; a model of Kafka
//! stands in for it where the engine is tested against every order of failures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

pub use crate::kafka::statistics::Standing;
pub use crate::kafka::{Committed, Fatal, Header, Rebalance, Restored, Setback, TakeRecord, Unavailable};
use crate::record::RawRecord;

/// Which topic an output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Change events.
    Events,
    /// The latest device of each instance, co-partitioned with raw.
    State,
    /// Rejected records.
    DeadLetters,
}

/// A record to be produced in the open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where to.
    pub destination: Destination,
    /// The raw partition that it follows from. State goes to the same number; the rest where there are as many.
    pub partition: i32,
    /// Kafka key.
    pub key: Option<Vec<u8>>,
    /// Kafka value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Kafka headers.
    pub headers: Vec<Header>,
}

impl Output {
    /// Key, value and headers, in bytes.
    pub fn bytes(&self) -> usize {
        let header = |(name, value): &Header| name.len() + value.as_ref().map_or(0, Vec::len);
        [&self.key, &self.value].into_iter().flatten().map(Vec::len).sum::<usize>()
            + self.headers.iter().map(header).sum::<usize>()
    }
}

/// Kafka, as the engine sees it.
pub trait Port {
    /// The time, for all that waits or is due.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Hands over the next raw record of a running partition, if one comes in time. Returns early when the group
    /// rebalances.
    ///
    /// # Errors
    /// When the consumer cannot go on, or its offsets are gone from the topic.
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<(), Fatal>;

    /// The next step of a rebalance that is to be acted on. To be asked all the time, also while nothing is polled: it is here
    /// that idle clients are looked after.
    fn rebalance(&mut self) -> Option<Rebalance>;

    /// How far partitions were read and how far they go, where that was told since the last call.
    fn standings(&mut self) -> Vec<Standing> {
        Vec::new()
    }

    /// Joins partitions to the assignment, paused.
    ///
    /// # Errors
    /// When the client refuses.
    fn assign(&mut self, partitions: &[i32]) -> Result<(), Fatal>;

    /// Gives partitions up.
    ///
    /// # Errors
    /// When the client refuses.
    fn unassign(&mut self, partitions: &[i32]) -> Result<(), Fatal>;

    /// Delivers from `offset` on; `None` is the beginning.
    ///
    /// # Errors
    /// When the client refuses.
    fn resume(&mut self, partition: i32, offset: Option<i64>) -> Result<(), Fatal>;

    /// Stops delivering.
    ///
    /// # Errors
    /// When the client refuses.
    fn pause(&mut self, partitions: &[i32]) -> Result<(), Fatal>;

    /// The group's committed offsets, none of them part of an unfinished transaction; `None` where there is none.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<Committed>>, Unavailable>;

    /// From where to where a raw partition is kept: its first offset, and the one after its last.
    ///
    /// # Errors
    /// When Kafka does not tell in time.
    fn log(&mut self, partition: i32) -> Result<Range<i64>, Unavailable>;

    /// Starts to read a state partition, to where it ends now, open transactions included.
    ///
    /// # Errors
    /// When Kafka does not tell the end, or transactions before it are still open.
    fn restore(&mut self, partition: i32) -> Result<(), Unavailable>;

    /// Stops to read a state partition.
    fn stop_restore(&mut self, partition: i32);

    /// The next of the restores' progress, if there is any in time.
    ///
    /// # Errors
    /// When the reader cannot go on.
    fn restored(&mut self, timeout: Duration, take: &mut TakeRecord<'_>) -> Result<Restored, Fatal>;

    /// What the restores have still to read, in offsets, by partition; without those that are done.
    fn remaining(&self) -> BTreeMap<i32, u64>;

    /// Opens a transaction.
    ///
    /// # Errors
    /// See [`Setback`].
    fn begin(&mut self) -> Result<(), Setback>;

    /// Adds a record to the open transaction.
    ///
    /// # Errors
    /// See [`Setback`].
    fn produce(&mut self, output: Output) -> Result<(), Setback>;

    /// Commits the open transaction together with the offsets to go on from.
    ///
    /// # Errors
    /// See [`Setback`].
    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Setback>;

    /// Aborts the open transaction; confirmed when it returns `Ok`.
    ///
    /// # Errors
    /// See [`Setback`].
    fn abort(&mut self) -> Result<(), Setback>;

    /// Replaces the producer. The transaction of its predecessor is settled, either way, when it returns `Ok`.
    ///
    /// # Errors
    /// See [`Setback`].
    fn renew(&mut self) -> Result<(), Setback>;

    /// Lets time pass without leaving the group, while all partitions are paused.
    ///
    /// # Errors
    /// When the consumer cannot go on.
    fn wait(&mut self, duration: Duration) -> Result<(), Fatal>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_as_large_as_its_key_its_value_and_its_headers() {
        let tombstone = Output {
            destination: Destination::State,
            partition: 0,
            key: Some(b"i-1".to_vec()),
            value: None,
            headers: vec![("sweep".into(), Some(b"7".to_vec())), ("null".into(), None)],
        };
        assert_eq!(tombstone.bytes(), 3 + 6 + 4);
        assert_eq!(Output { value: Some(vec![0; 100]), ..tombstone }.bytes(), 113);
    }
}
