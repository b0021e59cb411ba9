//! The task of one scope: sweeps it when it is due, for as long as it is this process's to sweep.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::fault::Class;
use super::health::{Health, Next};
use super::ledger::{Acceptance, InstanceState, Ledger, Verdict};
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
    /// What operators accept meanwhile; the last word counts.
    pub acceptance: watch::Receiver<Option<Acceptance>>,
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
        let mut shown = Shown::new(&self.shared.metrics, &self.scope);
        // What the last collector left, until a sweep of ours ends: that may be a day, or never.
        shown.show(&ledger);
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
            self.shared.health.next_sweep(&self.scope, Some(Next::At(chrono::Utc::now() + pause)));
            let shared = self.shared.clone();
            let slot = tokio::select! {
                slot = async { tokio::time::sleep(pause).await; shared.concurrency.acquire().await } => slot,
                () = self.stop.cancelled() => break,
            };
            let Ok(slot) = slot else { break };
            self.shared.health.next_sweep(&self.scope, Some(Next::Now));
            self.hear_operators(&mut ledger);
            let Some(swept) = self.sweep(slot, &mut ledger).await else { break };
            shown.show(&ledger);
            self.report(&swept, &ledger);
            needs_somebody = swept.fault.as_ref().is_some_and(|fault| fault.class() == Class::ThirdPartyConfig);
            outcome = outcome.and(Outcome::of(swept.verdict));
            sweeps += 1;
            is_done = self.shared.repeat == Repeat::Times(sweeps) || !self.task.source.can_repeat();
        }
        self.shared.health.next_sweep(&self.scope, None);
        // What came after the last sweep is for whoever sweeps next.
        self.hear_operators(&mut ledger);
        Ended { scope: self.scope, lease: self.lease, ledger, outcome, is_done }
    }

    fn hear_operators(&mut self, ledger: &mut Ledger) {
        let told = self.acceptance.borrow_and_update();
        if told.has_changed() {
            ledger.acceptance.clone_from(&told);
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
        metrics.sweep_seconds.observe(swept.seconds);
        metrics.pages.with_label_values(&[source]).inc_by(tally.pages as u64);
        metrics.instances.with_label_values(&[source]).inc_by(tally.instances as u64);
        metrics.removed.with_label_values(&[source]).inc_by(tally.removed as u64);
        metrics.sweeps.with_label_values(&[source, swept.verdict.name()]).inc();
        if tally.dead_letters > 0 {
            metrics.dead_letters.with_label_values(&[source]).inc_by(tally.dead_letters as u64);
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

/// What the metrics show of a scope's memory.
struct Shown {
    scope: Scope,
    metrics: Arc<Metrics>,
    /// The scope's share in the instances of its source, by state: given back when the task ends.
    share: [(IntGauge, i64); InstanceState::ALL.len()],
}

impl Shown {
    fn new(metrics: &Arc<Metrics>, scope: &Scope) -> Self {
        let gauge =
            |state: InstanceState| metrics.collector.in_state.with_label_values(&[scope.source.as_str(), state.name()]);
        let share = InstanceState::ALL.map(|state| (gauge(state), 0));
        Self { scope: scope.clone(), metrics: Arc::clone(metrics), share }
    }

    fn show(&mut self, ledger: &Ledger) {
        let (metrics, labels) = (&self.metrics.collector, self.scope.labels());
        metrics.known.with_label_values(&labels).set(ledger.len() as i64);
        metrics.suspects.with_label_values(&labels).set(ledger.suspects() as i64);
        if let Some(began) = ledger.head.as_ref().and_then(|head| head.last_complete) {
            metrics.last_complete.with_label_values(&labels).set(began / 1000);
        }
        for ((gauge, share), count) in self.share.iter_mut().zip(ledger.by_state()) {
            gauge.add(count as i64 - *share);
            *share = count as i64;
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        for (gauge, share) in &self.share {
            gauge.sub(*share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Change, Entry, Standing};
    use super::*;

    fn scope(region: &str) -> Scope {
        Scope { source: "prod".to_owned(), account: None, region: Some(region.to_owned()) }
    }

    fn ledger(instances: &[(&str, InstanceState, Standing)]) -> Ledger {
        let mut ledger = Ledger::default();
        let entry = |state, standing| Some(Entry { state, tagged: false, standing });
        let known = instances.iter().map(|(id, state, standing)| Change::Entry((*id).into(), entry(*state, *standing)));
        ledger.apply(known.collect());
        ledger
    }

    #[test]
    fn the_instances_of_a_source_are_those_of_its_scopes_that_are_here() {
        use InstanceState::{Running, Stopped};
        let metrics = Arc::new(Metrics::new().unwrap());
        let count = |state: &str| metrics.collector.in_state.with_label_values(&["prod", state]).get();
        let [mut east, mut west] = ["east", "west"].map(|region| Shown::new(&metrics, &scope(region)));
        let (here, out) = (Standing::Present, Standing::OutOfScope);
        east.show(&ledger(&[("i-1", Running, here), ("i-2", Running, here), ("i-3", Stopped, out)]));
        west.show(&ledger(&[("i-4", Running, here), ("i-5", Stopped, here)]));
        assert_eq!((count("running"), count("stopped")), (3, 1));
        east.show(&ledger(&[("i-1", Running, here), ("i-2", Stopped, here)]));
        assert_eq!((count("running"), count("stopped")), (2, 2));
        drop(west);
        assert_eq!((count("running"), count("stopped")), (1, 1));
    }
}
