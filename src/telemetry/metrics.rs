//! Every metric, with unit and meaning, stage by stage. The README's table is held against these files and against
//! `/metrics` of a run by tests.
//!
//! Names are Prometheus': base units, `_total` for what is counted. Labels are bounded: a scope, a state, a partition,
//! never an instance.

mod collector;
mod kafka;
mod mapper;

use std::sync::Arc;

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use collector::CollectorMetrics;
pub use kafka::KafkaMetrics;
pub use mapper::MapperMetrics;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Of the collector.
    pub collector: CollectorMetrics,
    /// Of the mapper.
    pub mapper: Arc<MapperMetrics>,
    /// Of the Kafka clients of both.
    pub kafka: Arc<KafkaMetrics>,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// None with the names that they have.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.gauges("rollcall_build_info", "Always 1; the version is in the label.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let collector = CollectorMetrics::new(&make)?;
        let mapper = Arc::new(MapperMetrics::new(&make)?);
        let kafka = Arc::new(KafkaMetrics::new(&make)?);
        Ok(Self { registry, collector, mapper, kafka })
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
    /// Gauges of what is no whole number.
    fn fractions(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }
    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
