//! What an engine tells of itself: metrics, readiness, liveness. One call per happening.

use std::sync::Arc;
use std::time::Duration;

use super::decide::Decision;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::MapperMetrics;

/// The reporting end of one engine.
#[derive(Clone)]
pub struct Observer {
    name: String,
    metrics: Arc<MapperMetrics>,
    health: Arc<Health>,
}

impl Observer {
    /// For engine number `slot`, which is not ready before it has joined the group and restored its partitions.
    pub fn new(slot: usize, metrics: Arc<MapperMetrics>, health: Arc<Health>) -> Self {
        let name = format!("mapper engine {slot}");
        health.not_ready(&name, "joining the consumer group");
        health.beat(&name);
        Self { name, metrics, health }
    }

    pub(super) fn beat(&self) {
        self.health.beat(&self.name);
    }

    pub(super) fn field_error(&self, field: &str) {
        tracing::debug!(field, "member unreadable, taken for absent");
        self.metrics.field_errors.with_label_values(&[field]).inc();
    }

    pub(super) fn decided(&self, decision: &Decision) {
        let outcome = match decision {
            Decision::Unchanged | Decision::Same(_) => "unchanged",
            Decision::Stale => "stale",
            Decision::Emit(emission) => emission.change.name(),
            Decision::Reject(rejection) => {
                self.metrics.dead_letters.with_label_values(&[rejection.kind()]).inc();
                "rejected"
            }
        };
        self.metrics.records.with_label_values(&[outcome]).inc();
    }

    pub(super) fn committed(&self, records: usize, took: Duration) {
        self.metrics.transactions.with_label_values(&["committed"]).inc();
        self.metrics.commit_seconds.observe(took.as_secs_f64());
        self.metrics.batch_records.observe(records as f64);
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

    pub(super) fn held(&self, partition: i32, reason: &str) {
        self.health.not_ready(&held_name(partition), reason);
    }

    pub(super) fn gave_up(&self, partition: i32) {
        self.health.ready(&held_name(partition));
    }

    pub(super) fn partitions(&self, restoring: usize, running: usize, held: usize, devices: usize) {
        for (phase, count) in [("restoring", restoring), ("running", running), ("held", held)] {
            self.metrics.partitions.with_label_values(&[&self.name, phase]).set(count as i64);
        }
        self.metrics.devices.with_label_values(&[&self.name]).set(devices as i64);
        if restoring > 0 {
            self.health.not_ready(&self.name, &format!("restoring {restoring} partitions"));
        } else {
            self.health.ready(&self.name);
        }
    }
}

fn held_name(partition: i32) -> String {
    format!("raw partition {partition}")
}
