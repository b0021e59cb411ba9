//! What an engine tells of itself: metrics, readiness, liveness. One call per happening.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGaugeVec;

use super::decide::Emission;
use super::engine::{Lag, Progress};
use super::tally::Tally;
use crate::status::latest::Change;
use crate::status::{Board, PartitionStanding, Reason, Restoring};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::MapperMetrics;

/// What an engine owns and knows.
pub(super) struct Census {
    pub restoring: usize,
    pub running: usize,
    pub held: usize,
    pub devices: usize,
    /// Memory of the devices.
    pub bytes: usize,
    /// How far the restores are, where one has begun.
    pub progress: Option<Progress>,
    /// The partitions one by one.
    pub partitions: Vec<PartitionStanding>,
}

/// The reporting end of one engine.
#[derive(Clone)]
pub struct Observer {
    /// In health.
    name: String,
    /// In metrics.
    engine: String,
    metrics: Arc<MapperMetrics>,
    health: Arc<Health>,
    board: Arc<Board>,
}

impl Observer {
    /// For engine number `slot`, which is not ready before it has joined the group and restored its partitions.
    pub fn new(slot: usize, metrics: Arc<MapperMetrics>, health: Arc<Health>) -> Self {
        let name = format!("mapper engine {slot}");
        health.not_ready(&name, "joining the consumer group");
        health.beat(&name);
        Self { name, engine: slot.to_string(), metrics, health, board: Arc::default() }
    }

    /// Shown on `board`, too.
    #[must_use]
    pub fn on_board(self, board: Arc<Board>) -> Self {
        board.engine(&self.engine, Vec::new(), None);
        Self { board, ..self }
    }

    /// What an operator is shown of an event; of too many in a short time, nothing.
    pub(super) fn shown(&self, key: Option<&[u8]>, emission: &Emission) -> Option<Box<Change>> {
        let id = std::str::from_utf8(key?).ok()?;
        self.board.latest.has_room(Instant::now()).then(|| Box::new(Change::of(id, emission)))
    }

    pub(super) fn beat(&self) {
        self.health.beat(&self.name);
    }

    /// A batch was committed: `open` is how long it was open, `commit` how long the commit took.
    pub(super) fn committed(&self, tally: &Tally, open: Duration, commit: Duration) {
        self.metrics.transactions.with_label_values(&["committed"]).inc();
        self.metrics.batch_seconds.observe(open.as_secs_f64());
        self.metrics.commit_seconds.observe(commit.as_secs_f64());
        self.count(tally);
    }

    /// What came of the records of a batch that is known to be committed.
    pub(super) fn count(&self, tally: &Tally) {
        self.metrics.batch_records.observe(tally.records() as f64);
        for (outcome, count) in tally.outcomes() {
            self.metrics.records.with_label_values(&[outcome.name()]).inc_by(count as u64);
        }
        for (kind, count) in &tally.rejections {
            self.metrics.dead_letters.with_label_values(&[kind]).inc_by(*count);
        }
        for (field, count) in &tally.field_errors {
            self.metrics.field_errors.with_label_values(&[field]).inc_by(*count);
        }
        let now = chrono::Utc::now().timestamp_millis();
        let delays = self.metrics.event_delay_seconds.local();
        for (observed_at, count) in &tally.observed_at {
            let delay = (now - observed_at).max(0) as f64 / 1000.0;
            (0..*count).for_each(|_| delays.observe(delay));
        }
        delays.flush();
        self.board.latest.add(&tally.changes);
    }

    pub(super) fn aborted(&self) {
        self.metrics.transactions.with_label_values(&["aborted"]).inc();
    }

    pub(super) fn renewed(&self) {
        self.metrics.transactions.with_label_values(&["renewed"]).inc();
    }

    pub(super) fn restored(&self) {
        self.metrics.restored_records.inc();
    }

    pub(super) fn restoring(&self, progress: &Progress) {
        self.metrics.restore_remaining.with_label_values(&[&self.engine]).set(progress.remaining() as i64);
    }

    pub(super) fn restoring_in_figures(&self, progress: &Progress) {
        let Progress { partitions, read, total, left } = progress;
        let (percent, remaining_seconds) = (progress.percent(), left.as_secs());
        tracing::info!(?partitions, records = read, of = total, percent, remaining_seconds, "restoring");
    }

    pub(super) fn long_outage(&self) {
        self.metrics.long_outages.inc();
    }

    pub(super) fn held(&self, partition: i32, reason: &Reason) {
        self.health.not_ready(&held_name(partition), &reason.shown);
        self.board.held(partition, Some(reason.clone()));
    }

    /// It is no longer held, or no longer ours.
    pub(super) fn not_held(&self, partition: i32) {
        self.health.ready(&held_name(partition));
        self.board.held(partition, None);
    }

    /// The series of a partition's lag.
    pub(super) fn lag_of(&self, partition: i32) -> LagSeries {
        LagSeries { partition: partition.to_string(), metrics: Arc::clone(&self.metrics) }
    }

    pub(super) fn partitions(&self, census: Census) {
        let Census { restoring, running, held, devices, bytes, progress, partitions } = census;
        let percent = progress.as_ref().map(Progress::percent);
        let shown = progress.map(|progress| Restoring {
            percent: progress.percent(),
            remaining: progress.remaining(),
            seconds_left: progress.left.as_secs(),
        });
        self.board.engine(&self.engine, partitions, shown);
        for (phase, count) in [("restoring", restoring), ("running", running), ("held", held)] {
            self.metrics.partitions.with_label_values(&[self.engine.as_str(), phase]).set(count as i64);
        }
        let gauge = |gauges: &IntGaugeVec, value: usize| gauges.with_label_values(&[&self.engine]).set(value as i64);
        gauge(&self.metrics.devices, devices);
        gauge(&self.metrics.state_bytes, bytes);
        gauge(&self.metrics.device_bytes, bytes.checked_div(devices).unwrap_or_default());
        if restoring > 0 {
            let partitions = if restoring == 1 { "partition" } else { "partitions" };
            let reason = match percent {
                Some(percent) => format!("restoring {restoring} {partitions}, {percent} %"),
                None => format!("restoring {restoring} {partitions}"),
            };
            self.health.not_ready(&self.name, &reason);
        } else {
            self.health.ready(&self.name);
        }
        if percent.is_none() {
            // It may have none yet.
            let _ = self.metrics.restore_remaining.remove_label_values(&[&self.engine]);
        }
    }
}

/// The lag of a partition that is ours: the series go when it does, whichever way that is.
pub(super) struct LagSeries {
    partition: String,
    metrics: Arc<MapperMetrics>,
}

impl LagSeries {
    pub(super) fn show(&self, lag: Lag) {
        // Looked up each time: another engine may have ended the series when it lost the partition to this one.
        self.metrics.lag_records.with_label_values(&[&self.partition]).set(lag.records as i64);
        if let Some(seconds) = lag.seconds {
            self.metrics.lag_seconds.with_label_values(&[&self.partition]).set(seconds);
        }
    }
}

impl Drop for LagSeries {
    fn drop(&mut self) {
        // There may be none yet.
        let _ = self.metrics.lag_records.remove_label_values(&[&self.partition]);
        let _ = self.metrics.lag_seconds.remove_label_values(&[&self.partition]);
    }
}

fn held_name(partition: i32) -> String {
    format!("raw partition {partition}")
}
