//! Metrics of the mapper.

use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::Maker;

/// Buckets of commits, which take milliseconds unless something is wrong.
pub(super) const COMMIT_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Metrics of the mapper.
pub struct MapperMetrics {
    /// Raw records mapped, by outcome. What an aborted transaction held is counted once it is committed.
    pub records: IntCounterVec,
    /// Records rejected, by kind.
    pub dead_letters: IntCounterVec,
    /// Members of raw records that could not be read.
    pub field_errors: IntCounterVec,
    /// From the observation behind an event to the event's commit.
    pub event_delay_seconds: Histogram,
    /// Transactions, by result (committed, aborted, renewed).
    pub transactions: IntCounterVec,
    /// Duration of commits.
    pub commit_seconds: Histogram,
    /// From the opening of a transaction to its commit.
    pub batch_seconds: Histogram,
    /// Records a transaction.
    pub batch_records: Histogram,
    /// Records read from the state topic while restoring.
    pub restored_records: IntCounter,
    /// Partitions taken over after longer than raw keeps tombstones.
    pub long_outages: IntCounter,
    /// Owned partitions, by engine and phase (restoring, running, held).
    pub partitions: IntGaugeVec,
    /// Devices known, by engine.
    pub devices: IntGaugeVec,
    /// Memory of the devices, by engine.
    pub state_bytes: IntGaugeVec,
    /// The same for one device, on average.
    pub device_bytes: IntGaugeVec,
    /// What the devices of all engines may take.
    pub max_state_bytes: IntGaugeVec,
    /// Records of the state topic that are still to be read, by engine; only while it restores.
    pub restore_remaining: IntGaugeVec,
    /// Records that are still to be read, by raw partition.
    pub lag_records: IntGaugeVec,
    /// Age of what is still to be read, by raw partition.
    pub lag_seconds: GaugeVec,
}

impl MapperMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            records: make.counters("rollcall_mapper_records_total", "Raw records mapped.", &["outcome"])?,
            dead_letters: make.counters("rollcall_mapper_dead_letters_total", "Raw records rejected.", &["kind"])?,
            field_errors: make.counters(
                "rollcall_mapper_field_errors_total",
                "Members of raw records that could not be read and were taken for absent.",
                &["field"],
            )?,
            event_delay_seconds: make.histogram(
                "rollcall_mapper_event_delay_seconds",
                "From the observation behind an event to the event's commit.",
                &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0],
            )?,
            transactions: make.counters("rollcall_mapper_transactions_total", "Transactions ended.", &["result"])?,
            commit_seconds: make.histogram(
                "rollcall_mapper_commit_duration_seconds",
                "Duration of commits, offsets and draining included.",
                &COMMIT_SECONDS,
            )?,
            batch_seconds: make.histogram(
                "rollcall_mapper_batch_duration_seconds",
                "From the opening of a transaction to its commit.",
                &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            )?,
            batch_records: make.histogram(
                "rollcall_mapper_batch_records",
                "Raw records in a committed transaction.",
                &[1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0],
            )?,
            restored_records: make
                .counter("rollcall_mapper_restored_records_total", "Records read from the state topic.")?,
            long_outages: make.counter(
                "rollcall_mapper_long_outages_total",
                "Partitions taken over after an outage longer than the raw topic keeps tombstones.",
            )?,
            partitions: make.gauges("rollcall_mapper_partitions", "Owned partitions.", &["engine", "phase"])?,
            devices: make.gauges("rollcall_mapper_devices", "Devices known, removed ones included.", &["engine"])?,
            state_bytes: make.gauges("rollcall_mapper_state_bytes", "Memory of the devices, in bytes.", &["engine"])?,
            device_bytes: make.gauges(
                "rollcall_mapper_state_bytes_per_device",
                "Memory of a device, in bytes, on average.",
                &["engine"],
            )?,
            max_state_bytes: make.gauges(
                "rollcall_mapper_max_state_bytes",
                "What the devices of all engines together may take, in bytes.",
                &[],
            )?,
            restore_remaining: make.gauges(
                "rollcall_mapper_restore_remaining_records",
                "Records of the state topic that are still to be read, those included that compaction has taken out.",
                &["engine"],
            )?,
            lag_records: make.gauges(
                "rollcall_mapper_lag_records",
                "Last stable offset minus position of a raw partition.",
                &["partition"],
            )?,
            lag_seconds: make.fractions(
                "rollcall_mapper_lag_seconds",
                "Age of the last record that was mapped, while there are more to map; else 0.",
                &["partition"],
            )?,
        })
    }
}
