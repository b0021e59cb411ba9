//! Whether the process is alive and ready, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A loop that has not turned for so long is stuck: longer than any single wait that a loop allows itself.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// What is not ready, and when each loop last turned.
#[derive(Debug, Default)]
pub struct Health {
    waiting_for: Mutex<BTreeMap<String, String>>,
    beats: Mutex<BTreeMap<String, Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is a report: a thread that died over it leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// `part` is not ready, for `reason`.
    pub fn not_ready(&self, part: &str, reason: &str) {
        lock(&self.waiting_for).insert(part.to_owned(), reason.to_owned());
    }

    /// `part` is ready.
    pub fn ready(&self, part: &str) {
        lock(&self.waiting_for).remove(part);
    }

    /// What is not ready, with the reason.
    pub fn waiting_for(&self) -> BTreeMap<String, String> {
        lock(&self.waiting_for).clone()
    }

    /// The loop `part` turned.
    pub fn beat(&self, part: &str) {
        let mut beats = lock(&self.beats);
        match beats.get_mut(part) {
            Some(beat) => *beat = Instant::now(),
            None => drop(beats.insert(part.to_owned(), Instant::now())),
        }
    }

    /// The loops that seem stuck, with the time since they last turned.
    pub fn stuck(&self) -> BTreeMap<String, Duration> {
        let beats = lock(&self.beats);
        let ages = beats.iter().map(|(part, beat)| (part.clone(), beat.elapsed()));
        ages.filter(|(_, age)| *age > STUCK_AFTER).collect()
    }
}
