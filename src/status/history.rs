//! A short memory of how fast records go through and how far behind they are, from the metrics.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use serde::Serialize;

use crate::telemetry::metrics::Metrics;

/// Between two samples.
pub const EVERY: Duration = Duration::from_secs(5);
/// Samples that are kept: a quarter of an hour.
pub const KEPT: usize = 180;

/// The values of a metric, by the values of its labels. It makes no series, as asking for one would.
pub fn values(metric: &impl Collector) -> Vec<(Vec<String>, f64)> {
    let families = metric.collect();
    let samples = families.iter().flat_map(|family| family.get_metric());
    let of = |sample: &prometheus::proto::Metric| {
        let labels = sample.get_label().iter().map(|label| label.value().to_owned()).collect();
        // Of the two that it is not, each is 0.
        (labels, sample.get_counter().get_value() + sample.get_gauge().get_value())
    };
    samples.map(of).collect()
}

/// The sum of a metric over all labels.
pub fn sum(metric: &impl Collector) -> f64 {
    values(metric).iter().map(|(_, value)| value).sum()
}

/// What is counted, as it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Instances published.
    pub swept: f64,
    /// Raw records mapped.
    pub mapped: f64,
    /// Events among them.
    pub events: f64,
}

/// How it was between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Instances published a second.
    pub swept: f64,
    /// Raw records mapped a second.
    pub mapped: f64,
    /// Events a second.
    pub events: f64,
    /// Age of what is unread in the partition that is most behind, in seconds.
    pub lag_seconds: f64,
    /// Records unread in all partitions.
    pub lag_records: f64,
}

/// The samples of the last quarter of an hour.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    samples: VecDeque<Sample>,
    last: Option<(Instant, Totals)>,
}

impl History {
    /// Looks at the metrics.
    pub fn look(&self, metrics: &Metrics, now: Instant) {
        const EVENTS: [&str; 4] = ["created", "updated", "removed", "remapped"];
        let records = values(&metrics.mapper.records);
        let of = |wanted: &dyn Fn(&str) -> bool| {
            let counted = records.iter().filter(|(labels, _)| labels.iter().any(|outcome| wanted(outcome)));
            counted.map(|(_, count)| count).sum()
        };
        let swept = sum(&metrics.collector.instances);
        let totals = Totals { swept, mapped: of(&|_| true), events: of(&|outcome| EVENTS.contains(&outcome)) };
        let lags = values(&metrics.mapper.lag_seconds);
        let lag_seconds = lags.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        self.add(totals, lag_seconds, sum(&metrics.mapper.lag_records), now);
    }

    /// Takes in what was counted until `now`.
    pub fn add(&self, totals: Totals, lag_seconds: f64, lag_records: f64, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((then, before)) = kept.last.replace((now, totals)) else { return };
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        let pace = |now: f64, before: f64| (now - before).max(0.0) / seconds;
        kept.samples.push_back(Sample {
            swept: pace(totals.swept, before.swept),
            mapped: pace(totals.mapped, before.mapped),
            events: pace(totals.events, before.events),
            lag_seconds,
            lag_records,
        });
        if kept.samples.len() > KEPT {
            kept.samples.pop_front();
        }
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).samples.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_becomes_a_pace_and_the_oldest_goes() {
        let (history, began) = (History::default(), Instant::now());
        for look in 0..=400_u32 {
            let totals = Totals { swept: f64::from(look) * 10.0, mapped: 0.0, events: 0.0 };
            history.add(totals, 1.0, f64::from(look), began + 5 * look * Duration::from_secs(1));
        }
        let samples = history.samples();
        assert_eq!(samples.len(), KEPT);
        assert!(samples.iter().all(|sample| (sample.swept - 2.0).abs() < 1e-9));
        assert_eq!(samples.last().map(|sample| sample.lag_records), Some(400.0));
    }

    #[test]
    fn to_look_at_a_metric_makes_no_series() {
        let metrics = Metrics::new().unwrap();
        let before = metrics.render().unwrap();
        History::default().look(&metrics, Instant::now());
        assert_eq!(metrics.render().unwrap(), before);
        metrics.mapper.records.with_label_values(&["created"]).inc_by(3);
        assert_eq!(values(&metrics.mapper.records), [(vec!["created".to_owned()], 3.0)]);
    }
}
