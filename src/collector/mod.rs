//! Stage 1: what the sources list, published as raw records.
//!
//! ```text
//!  source ──pages──▶ sweep ──records──▶ publisher ──transaction──▶ raw topic
//! ```
//!
//! Each scope is swept on its own schedule and fails on its own; all share one publisher.

#[cfg(feature = "aws")]
pub mod aws;
pub mod fault;
pub mod file;
pub mod publisher;
pub mod rules;
pub mod simulated;
pub mod source;
pub mod sweep;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::telemetry::metrics::Metrics;
use publisher::{Labels, Publisher};
use source::{Scope, Source};
use sweep::{Cause, Sweep, Verdict, sweep};

/// Part of an interval by which sweeps are moved at random, so that scopes do not fall due together.
const JITTER: f64 = 0.1;
/// Longest wait before the scopes of a source are asked for again.
const MAX_DISCOVERY_BACKOFF: Duration = Duration::from_secs(60);

/// When sweeping ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// After so many sweeps of each scope.
    Times(u32),
    /// When asked to stop.
    Forever,
}

/// What all scopes share.
struct Shared {
    publisher: Publisher,
    concurrency: Semaphore,
    metrics: Arc<Metrics>,
    repeat: Repeat,
    stop: CancellationToken,
}

/// What came of a stage that ended by itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Sweeps that were complete.
    pub complete: usize,
    /// Sweeps, or whole sources, that were not.
    pub incomplete: usize,
}

/// Sweeps all sources.
pub async fn run(
    sources: Vec<(config::Source, Arc<dyn Source>)>,
    concurrency: usize,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    repeat: Repeat,
    stop: CancellationToken,
) -> Outcome {
    let shared = Arc::new(Shared { publisher, concurrency: Semaphore::new(concurrency), metrics, repeat, stop });
    let mut running = JoinSet::new();
    for (config, source) in sources {
        running.spawn(run_source(config, source, shared.clone()));
    }
    running.join_all().await.into_iter().fold(Outcome::default(), Outcome::and)
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        Self { complete: self.complete + other.complete, incomplete: self.incomplete + other.incomplete }
    }

    fn of(sweep: &Sweep) -> Self {
        match sweep.verdict {
            Verdict::Complete => Self { complete: 1, incomplete: 0 },
            Verdict::Incomplete(_) => Self { complete: 0, incomplete: 1 },
        }
    }
}

async fn run_source(config: config::Source, source: Arc<dyn Source>, shared: Arc<Shared>) -> Outcome {
    let Some(scopes) = discover(&config, &*source, &shared).await else {
        return Outcome { complete: 0, incomplete: 1 };
    };
    let config = Arc::new(config);
    let mut running = JoinSet::new();
    for scope in scopes {
        running.spawn(run_scope(scope, config.clone(), source.clone(), shared.clone()));
    }
    running.join_all().await.into_iter().fold(Outcome::default(), Outcome::and)
}

/// The scopes of a source; `None` when stopped before they could be told, or where one attempt has to do.
async fn discover(config: &config::Source, source: &dyn Source, shared: &Shared) -> Option<Vec<Scope>> {
    let mut backoff = Duration::from_secs(1);
    loop {
        let scopes = tokio::select! {
            scopes = source.scopes() => scopes,
            () = shared.stop.cancelled() => return None,
        };
        if scopes.unknown.is_empty() {
            return Some(scopes.scopes);
        }
        for unknown in scopes.unknown {
            let error = unknown.fault;
            tracing::error!(source = config.name, %error, "the scopes of a source are not known");
        }
        if shared.repeat != Repeat::Forever || wait(backoff, &shared.stop).await.is_break() {
            return None;
        }
        backoff = (backoff * 2).min(MAX_DISCOVERY_BACKOFF);
    }
}

async fn run_scope(scope: Scope, config: Arc<config::Source>, source: Arc<dyn Source>, shared: Arc<Shared>) -> Outcome {
    let labels = Labels { category: config.category.clone(), fields: config.fields.clone().into_iter().collect() };
    let mut outcome = Outcome::default();
    let mut sweeps = 0;
    loop {
        let swept = {
            let Ok(_slot) = shared.concurrency.acquire().await else { return outcome };
            let mut pages = source.pages(&scope);
            tokio::select! {
                swept = sweep(&mut *pages, &scope, &labels, &shared.publisher) => swept,
                () = shared.stop.cancelled() => return outcome,
            }
        };
        report(&scope, &swept, &shared.metrics);
        outcome = outcome.and(Outcome::of(&swept));
        sweeps += 1;
        if shared.repeat == Repeat::Times(sweeps) || !source.can_repeat() {
            return outcome;
        }
        let jitter = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
        if wait(config.interval.mul_f64(jitter), &shared.stop).await.is_break() {
            return outcome;
        }
    }
}

fn report(scope: &Scope, sweep: &Sweep, metrics: &Metrics) {
    let metrics = &metrics.collector;
    let source = scope.source.as_str();
    let Sweep { id, verdict, pages, instances, seconds } = sweep;
    metrics.sweep_seconds.observe(*seconds);
    metrics.pages.with_label_values(&[source]).inc_by(*pages as u64);
    metrics.instances.with_label_values(&[source]).inc_by(*instances as u64);
    match verdict {
        Verdict::Complete => {
            metrics.sweeps.with_label_values(&[source, "complete"]).inc();
            let [account, region] = [&scope.account, &scope.region].map(|part| part.as_deref().unwrap_or_default());
            let now = chrono::Utc::now().timestamp();
            metrics.last_complete.with_label_values(&[source, account, region]).set(now);
            tracing::info!(%scope, sweep = id, pages, instances, seconds, "sweep complete");
        }
        Verdict::Incomplete(cause) => {
            metrics.sweeps.with_label_values(&[source, "incomplete"]).inc();
            let class = match cause {
                Cause::Source(fault) => fault.class().name(),
                Cause::Publish(_) => "FirstPartyGeneric",
            };
            tracing::error!(%scope, sweep = id, pages, instances, seconds, class, error = %cause, "sweep incomplete");
        }
    }
}

async fn wait(time: Duration, stop: &CancellationToken) -> std::ops::ControlFlow<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => std::ops::ControlFlow::Continue(()),
        () = stop.cancelled() => std::ops::ControlFlow::Break(()),
    }
}
