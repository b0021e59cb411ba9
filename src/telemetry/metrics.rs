//! Every metric, with unit and meaning. The README's table is held against this file by a test.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Of the collector.
    pub collector: CollectorMetrics,
    /// Of the mapper.
    pub mapper: std::sync::Arc<MapperMetrics>,
}

/// Metrics of the collector.
pub struct CollectorMetrics {
    /// Sweeps ended, by source and verdict (complete, incomplete, held).
    pub sweeps: IntCounterVec,
    /// Duration of sweeps.
    pub sweep_seconds: Histogram,
    /// When the last complete sweep of a scope ended, Unix time in seconds.
    pub last_complete: IntGaugeVec,
    /// Pages answered by EC2 or read from a file.
    pub pages: IntCounterVec,
    /// Instances published.
    pub instances: IntCounterVec,
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
    /// 1 for the state that a source is in.
    pub source_state: IntGaugeVec,
    /// 1 while a scope is in state Error.
    pub scope_error: IntGaugeVec,
}

/// Metrics of the mapper.
pub struct MapperMetrics {
    /// Raw records mapped, by outcome.
    pub records: IntCounterVec,
    /// Records rejected, by kind.
    pub dead_letters: IntCounterVec,
    /// Members of raw records that could not be read.
    pub field_errors: IntCounterVec,
    /// Transactions, by result (committed, aborted, renewed).
    pub transactions: IntCounterVec,
    /// Duration of commits.
    pub commit_seconds: Histogram,
    /// Records a transaction.
    pub batch_records: Histogram,
    /// Records read from the state topic while restoring.
    pub restored_records: IntCounter,
    /// Owned partitions, by engine and phase (restoring, running, held).
    pub partitions: IntGaugeVec,
    /// Devices known, by engine.
    pub devices: IntGaugeVec,
}

impl CollectorMetrics {
    /// Drops the series of a scope (source, account, region) that is swept elsewhere, or no longer.
    pub fn forget(&self, scope: &[&str; 3]) {
        for gauges in [&self.last_complete, &self.known, &self.suspects, &self.scope_error] {
            // It may have none yet.
            let _ = gauges.remove_label_values(scope);
        }
    }
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// None with the names below.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.gauges("rollcall_build_info", "Always 1; the version is in the label.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let collector = CollectorMetrics {
            sweeps: make.counters("rollcall_collector_sweeps_total", "Sweeps ended.", &["source", "verdict"])?,
            sweep_seconds: make.histogram(
                "rollcall_collector_sweep_duration_seconds",
                "Duration of sweeps, from the first call to the last page's commit.",
                &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0],
            )?,
            last_complete: make.gauges(
                "rollcall_collector_last_complete_sweep_timestamp_seconds",
                "When the last complete sweep of a scope ended, Unix time.",
                &["source", "account", "region"],
            )?,
            pages: make.counters("rollcall_collector_pages_total", "Pages of instances received.", &["source"])?,
            instances: make.counters("rollcall_collector_instances_total", "Instances published.", &["source"])?,
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
            known: make.gauges(
                "rollcall_collector_known_instances",
                "Instances known.",
                &["source", "account", "region"],
            )?,
            suspects: make.gauges(
                "rollcall_collector_suspects",
                "Known instances that a complete sweep has missed.",
                &["source", "account", "region"],
            )?,
            transactions: make.counters("rollcall_collector_transactions_total", "Transactions ended.", &["result"])?,
            source_state: make.gauges(
                "rollcall_collector_source_state",
                "1 for the state that a source is in, 0 for the others.",
                &["source", "state"],
            )?,
            scope_error: make.gauges(
                "rollcall_collector_scope_error",
                "1 while a scope is in state Error, else 0.",
                &["source", "account", "region"],
            )?,
        };
        let mapper = MapperMetrics {
            records: make.counters("rollcall_mapper_records_total", "Raw records mapped.", &["outcome"])?,
            dead_letters: make.counters("rollcall_mapper_dead_letters_total", "Raw records rejected.", &["kind"])?,
            field_errors: make.counters(
                "rollcall_mapper_field_errors_total",
                "Members of raw records that could not be read and were taken for absent.",
                &["field"],
            )?,
            transactions: make.counters("rollcall_mapper_transactions_total", "Transactions ended.", &["result"])?,
            commit_seconds: make.histogram(
                "rollcall_mapper_commit_duration_seconds",
                "Duration of commits, offsets and draining included.",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
            )?,
            batch_records: make.histogram(
                "rollcall_mapper_batch_records",
                "Raw records in a committed transaction.",
                &[1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0],
            )?,
            restored_records: make
                .counter("rollcall_mapper_restored_records_total", "Records read from the state topic.")?,
            partitions: make.gauges("rollcall_mapper_partitions", "Owned partitions.", &["engine", "phase"])?,
            devices: make.gauges("rollcall_mapper_devices", "Devices known, removed ones included.", &["engine"])?,
        };
        Ok(Self { registry, collector, mapper: std::sync::Arc::new(mapper) })
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// None with well-formed metrics.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
