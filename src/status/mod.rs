//! What an operator is shown of a running process: at `/status` as JSON, at `/` as a page.
//!
//! The stages write on the [`Board`] what no metric tells; [`report`] joins it with metrics and health, and leaves out what
//! the one who asks may not see; [`page`] is the report in HTML.

pub mod history;
pub mod latest;
pub mod page;
pub mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Serialize;

use crate::collector;
use history::History;
use latest::Latest;

/// What the stages of a process tell of themselves beside metrics.
#[derive(Default)]
pub struct Board {
    /// The health of the sources, once there is a collector.
    pub sources: OnceLock<Arc<collector::health::Health>>,
    /// The latest changes.
    pub latest: Latest,
    /// How it went lately.
    pub history: History,
    engines: Mutex<BTreeMap<String, Engine>>,
    held: Mutex<BTreeMap<i32, Reason>>,
}

/// What an engine owns.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    /// Its partitions.
    pub partitions: Vec<PartitionStanding>,
    /// How far its restores are, while there are any.
    pub restoring: Option<Restoring>,
}

/// A raw partition of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStanding {
    /// Its number.
    pub partition: i32,
    /// `waiting` (for its restore), `restoring`, `running` or `held`.
    pub phase: &'static str,
    /// Devices known of it.
    pub devices: usize,
}

/// How far the restores of an engine are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Restoring {
    /// Of 100.
    pub percent: u64,
    /// Records that are still to be read.
    pub remaining: u64,
    /// How long that will take at the present pace.
    pub seconds_left: u64,
}

/// Why a partition is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// In words, with the remedy, and without anything of a device: anybody who reaches the admin port may read it.
    pub shown: String,
    /// The key of the record that is in the way: an instance.
    pub key: Option<String>,
}

impl Reason {
    /// One that is about no device.
    pub fn plain(shown: impl fmt::Display) -> Self {
        Self { shown: shown.to_string(), key: None }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(formatter, "; its key: {key:?}"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is a report: a thread that died over it leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// What an engine owns now, and how far its restores are.
    pub fn engine(&self, engine: &str, partitions: Vec<PartitionStanding>, restoring: Option<Restoring>) {
        lock(&self.engines).insert(engine.to_owned(), Engine { partitions, restoring });
    }

    /// Why a partition is held, or that it is not.
    pub fn held(&self, partition: i32, reason: Option<Reason>) {
        let mut held = lock(&self.held);
        match reason {
            Some(reason) => drop(held.insert(partition, reason)),
            None => drop(held.remove(&partition)),
        }
    }

    /// The engines, by their number.
    fn engines(&self) -> BTreeMap<String, Engine> {
        lock(&self.engines).clone()
    }

    fn reasons(&self) -> BTreeMap<i32, Reason> {
        lock(&self.held).clone()
    }
}
