//! Metrics of the collector.

use prometheus::{Histogram, IntCounterVec, IntGaugeVec};

use super::Maker;
use super::mapper::COMMIT_SECONDS;

/// Metrics of the collector.
pub struct CollectorMetrics {
    /// Sweeps ended, by source and verdict (complete, incomplete, held).
    pub sweeps: IntCounterVec,
    /// Duration of sweeps.
    pub sweep_seconds: Histogram,
    /// When the last complete sweep of a scope began, Unix time in seconds.
    pub last_complete: IntGaugeVec,
    /// Seconds between two sweeps of a scope, by source.
    pub interval: IntGaugeVec,
    /// Pages answered by EC2 or read from a file.
    pub pages: IntCounterVec,
    /// Instances published.
    pub instances: IntCounterVec,
    /// Instances known, by source and EC2's state.
    pub in_state: IntGaugeVec,
    /// What was listed without an instance ID.
    pub dead_letters: IntCounterVec,
    /// Calls of the EC2 API, by name and code: `ok`, AWS's code where it is a known one, else `other`.
    pub api_calls: IntCounterVec,
    /// Time that a call waited for the budget of its account and region.
    pub api_wait_seconds: Histogram,
    /// Instances that were found gone.
    pub removed: IntCounterVec,
    /// Instances known, by scope.
    pub known: IntGaugeVec,
    /// Known instances that a complete sweep has missed, by scope.
    pub suspects: IntGaugeVec,
    /// Transactions, by result (committed, aborted, renewed).
    pub transactions: IntCounterVec,
    /// Duration of transactions that were committed.
    pub commit_seconds: Histogram,
    /// 1 for the state that a source is in.
    pub source_state: IntGaugeVec,
    /// 1 while a scope is in state Error.
    pub scope_error: IntGaugeVec,
}

impl CollectorMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let scope = &["source", "account", "region"];
        Ok(Self {
            sweeps: make.counters("rollcall_collector_sweeps_total", "Sweeps ended.", &["source", "verdict"])?,
            sweep_seconds: make.histogram(
                "rollcall_collector_sweep_duration_seconds",
                "Duration of sweeps, from the first call to the last page's commit.",
                &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0],
            )?,
            last_complete: make.gauges(
                "rollcall_collector_last_complete_sweep_timestamp_seconds",
                "When the last complete sweep of a scope began, Unix time.",
                scope,
            )?,
            interval: make.gauges(
                "rollcall_collector_interval_seconds",
                "Interval of the sweeps of a source, as configured.",
                &["source"],
            )?,
            pages: make.counters("rollcall_collector_pages_total", "Pages of instances received.", &["source"])?,
            instances: make.counters("rollcall_collector_instances_total", "Instances published.", &["source"])?,
            in_state: make.gauges(
                "rollcall_collector_instances_in_state",
                "Instances known and in scope, by EC2's state when they were last published.",
                &["source", "state"],
            )?,
            dead_letters: make.counters(
                "rollcall_collector_dead_letters_total",
                "What was listed without an instance ID.",
                &["source"],
            )?,
            api_calls: make.counters(
                "rollcall_collector_api_calls_total",
                "Calls of the EC2 API.",
                &["call", "code"],
            )?,
            api_wait_seconds: make.histogram(
                "rollcall_collector_api_wait_seconds",
                "Time that calls waited for the budget of their account and region.",
                &[0.001, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0],
            )?,
            removed: make.counters(
                "rollcall_collector_removed_total",
                "Instances that were found gone, and whose tombstone was published.",
                &["source"],
            )?,
            known: make.gauges("rollcall_collector_known_instances", "Instances known.", scope)?,
            suspects: make.gauges(
                "rollcall_collector_suspects",
                "Known instances that a complete sweep has missed.",
                scope,
            )?,
            transactions: make.counters("rollcall_collector_transactions_total", "Transactions ended.", &["result"])?,
            commit_seconds: make.histogram(
                "rollcall_collector_commit_duration_seconds",
                "Duration of transactions that were committed, from their opening.",
                &COMMIT_SECONDS,
            )?,
            source_state: make.gauges(
                "rollcall_collector_source_state",
                "1 for the state that a source is in, 0 for the others.",
                &["source", "state"],
            )?,
            scope_error: make.gauges(
                "rollcall_collector_scope_error",
                "1 while a scope is in state Error, else 0.",
                scope,
            )?,
        })
    }

    /// Drops the series of a scope (source, account, region) that is swept elsewhere, or no longer.
    pub fn forget(&self, scope: &[&str; 3]) {
        for gauges in [&self.last_complete, &self.known, &self.suspects, &self.scope_error] {
            // It may have none yet.
            let _ = gauges.remove_label_values(scope);
        }
    }
}
