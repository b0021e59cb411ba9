//! The task of one scope: sweeps it when it is due, for as long as it is this process's to sweep.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::fault::Class;
use super::health::Health;
use super::ledger::{Acceptance, Ledger, Verdict};
use super::publisher::{Lease, Publisher};
use super::raw::Labels;
use super::rules::Rules;
use super::schedule::Schedule;
use super::source::{Scope, Source};
use super::sweep::{Sweeper, Swept};
use super::{Outcome, Repeat};
use crate::config;
use crate::telemetry;
use crate::telemetry::metrics::Metrics;

/// What the scopes of a source share.
pub struct SourceTask {
    /// As configured.
    pub config: config::Source,
    /// What lists its instances.
    pub source: Arc<dyn Source>,
    /// What its records carry.
    pub labels: Labels,
    /// What becomes of them before they leave.
    pub rules: Rules,
    /// Digest of its filters.
    pub filters: i64,
}

/// What all scopes share.
#[derive(Clone)]
pub struct Shared {
    /// The way to Kafka.
    pub publisher: Publisher,
    /// Sweeps at the same time.
    pub concurrency: Arc<Semaphore>,
    /// Their metrics.
    pub metrics: Arc<Metrics>,
    /// Their health.
    pub health: Arc<Health>,
    /// Whether the process is ready.
    pub readiness: Arc<telemetry::health::Health>,
    /// When sweeping ends.
    pub repeat: Repeat,
}

/// One scope, swept for as long as its lease is good.
pub struct ScopeTask {
    /// The scope.
    pub scope: Scope,
    /// Its source.
    pub task: Arc<SourceTask>,
    /// The right to write for it.
    pub lease: Lease,
    /// What operators accept meanwhile.
    pub acceptances: mpsc::UnboundedReceiver<Option<Acceptance>>,
    /// What all scopes share.
    pub shared: Shared,
    /// Ends the task between two steps.
    pub stop: CancellationToken,
}

/// A task that ended, and what it leaves.
pub struct Ended {
    /// The scope.
    pub scope: Scope,
    /// The right that it had.
    pub lease: Lease,
    /// The memory as it is now.
    pub ledger: Ledger,
    /// How its sweeps ended.
    pub outcome: Outcome,
    /// Whether it ended by itself, having swept as often as wanted.
    pub is_done: bool,
}

impl ScopeTask {
    /// Sweeps until stopped, or as often as wanted.
    pub async fn run(mut self, mut ledger: Ledger) -> Ended {
        let mut outcome = Outcome::default();
        let schedule = Schedule::new(&self.scope.to_string(), self.task.config.interval);
        let (mut sweeps, mut needs_somebody, mut is_done) = (0, false, false);
        while !is_done {
            let pause = match self.shared.repeat {
                Repeat::Forever => {
                    let now = chrono::Utc::now().timestamp_millis();
                    let due = schedule.due(ledger.head.as_ref(), needs_somebody, now);
                    Duration::from_millis(u64::try_from(due - now).unwrap_or_default())
                }
                Repeat::Times(_) if sweeps == 0 => Duration::ZERO,
                Repeat::Times(_) => self.task.config.interval,
            };
            let shared = self.shared.clone();
            let slot = tokio::select! {
                slot = async { tokio::time::sleep(pause).await; shared.concurrency.acquire().await } => slot,
                () = self.stop.cancelled() => break,
            };
            let Ok(slot) = slot else { break };
            self.hear_operators(&mut ledger);
            let Some(swept) = self.sweep(slot, &mut ledger).await else { break };
            self.report(&swept, &ledger);
            needs_somebody = swept.fault.as_ref().is_some_and(|fault| fault.class() == Class::ThirdPartyConfig);
            outcome = outcome.and(Outcome::of(swept.verdict));
            sweeps += 1;
            is_done = self.shared.repeat == Repeat::Times(sweeps) || !self.task.source.can_repeat();
        }
        // What came after the last sweep is for whoever sweeps next.
        self.hear_operators(&mut ledger);
        Ended { scope: self.scope, lease: self.lease, ledger, outcome, is_done }
    }

    fn hear_operators(&mut self, ledger: &mut Ledger) {
        while let Ok(acceptance) = self.acceptances.try_recv() {
            ledger.acceptance = acceptance;
        }
    }

    async fn sweep(&self, slot: SemaphorePermit<'_>, ledger: &mut Ledger) -> Option<Swept> {
        let SourceTask { config, source, labels, rules, filters } = &*self.task;
        let sweeper = Sweeper {
            scope: &self.scope,
            source: &**source,
            labels,
            rules,
            publisher: &self.shared.publisher,
            lease: self.lease,
            settling_delay: config.settling_delay(),
            give_up_after: config.give_up_after,
            filters: *filters,
            slots: &self.shared.concurrency,
            stop: &self.stop,
        };
        sweeper.sweep(slot, ledger).await
    }

    fn report(&self, swept: &Swept, ledger: &Ledger) {
        let metrics = &self.shared.metrics.collector;
        let scope = &self.scope;
        let (source, tally) = (scope.source.as_str(), swept.tally);
        let labels = scope.labels();
        metrics.sweep_seconds.observe(swept.seconds);
        metrics.pages.with_label_values(&[source]).inc_by(tally.pages as u64);
        metrics.instances.with_label_values(&[source]).inc_by(tally.instances as u64);
        metrics.removed.with_label_values(&[source]).inc_by(tally.removed as u64);
        metrics.sweeps.with_label_values(&[source, swept.verdict.name()]).inc();
        metrics.known.with_label_values(&labels).set(ledger.len() as i64);
        metrics.suspects.with_label_values(&labels).set(ledger.suspects() as i64);
        if swept.verdict == Verdict::Complete {
            metrics.last_complete.with_label_values(&labels).set(chrono::Utc::now().timestamp());
        }
        let (sweep, seconds, verdict) = (&swept.id, swept.seconds, swept.verdict.name());
        let known = ledger.len();
        let (pages, instances, removed, out_of_scope) =
            (tally.pages, tally.instances, tally.removed, tally.out_of_scope);
        match &swept.fault {
            None => {
                tracing::info!(%scope, sweep, pages, instances, known, removed, out_of_scope, seconds, "sweep complete");
            }
            Some(error) => {
                let (class, kind) = (error.class().name(), error.kind.name());
                let message = if swept.verdict == Verdict::Held { "sweep held" } else { "sweep incomplete" };
                tracing::warn!(%scope, sweep, verdict, pages, instances, known, seconds, class, kind, %error, "{message}");
            }
        }
        self.shared.health.swept(scope, swept.fault.as_ref());
    }
}
