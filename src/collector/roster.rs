//! Who sweeps what: brings together the scopes that the sources name and the partitions that the group has given us.
//!
//! A scope that is named and lies on a partition of ours has a task. When the partition goes, or the name, the task ends
//! between two steps. A scope that is remembered and no longer named is out of scope: nothing of it is removed. But "not
//! told" is not "not named": where a source could not be asked, everything stays as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::fault::{Class, Fault, FaultKind};
use super::health::State;
use super::ledger::{Acceptance, Change, Ledger};
use super::publisher::{Lease, Ownership};
use super::scope::{Ended, ScopeTask, Shared, SourceTask};
use super::source::{Discovery, Scope};
use super::sweep::memory;
use super::{Outcome, Repeat};
use crate::config;
use crate::record::partition_for;

/// What readiness waits for.
pub const READINESS: &str = "collector";
/// How often the scopes of a source are asked for.
const DISCOVER_EVERY: Duration = Duration::from_secs(3600);
/// How soon again, where they could not be found out: what needs somebody is probed once a minute.
const DISCOVER_AGAIN: Duration = Duration::from_secs(60);
/// Shortest wait where AWS may answer the next moment.
const DISCOVER_SOON: Duration = Duration::from_secs(2);

/// A partition that is ours, with the ledgers of the scopes that no task has.
struct Leased {
    lease: Lease,
    at_rest: HashMap<String, Ledger>,
}

/// A configured source, and who asks it for its scopes.
struct Listed {
    task: Arc<SourceTask>,
    asking: AbortHandle,
}

/// A task of a scope.
struct Running {
    lease: Lease,
    source: Arc<SourceTask>,
    acceptance: watch::Sender<Option<Acceptance>>,
    stop: CancellationToken,
}

/// Makes a source by its configuration.
pub type Make = Box<dyn Fn(&config::Source) -> anyhow::Result<SourceTask> + Send>;

/// Scopes to be swept, by key, each with its source.
type Named = BTreeMap<String, (Scope, Arc<SourceTask>)>;
/// Scopes that are not, by key, each with the one that covers the same.
type Overlapping = BTreeMap<String, (Scope, Scope)>;
/// What a source has told of its scopes.
type Told = (Arc<SourceTask>, Discovery);

/// Who sweeps what.
pub struct Roster {
    make: Make,
    sources: Vec<Listed>,
    asking: JoinSet<()>,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    discovered: BTreeMap<String, Discovery>,
    leased: BTreeMap<i32, Leased>,
    running: BTreeMap<String, Running>,
    /// Scopes that were swept as often as wanted.
    done: BTreeSet<String>,
    /// Whether the group has told what is ours.
    settled: bool,
    /// Overlaps that were told.
    overlaps: BTreeSet<String>,
    sweep_partitions: i32,
    shared: Shared,
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
    outcome: Outcome,
}

impl Roster {
    /// A roster without a source.
    pub fn new(make: Make, sweep_partitions: i32, shared: Shared, stop: CancellationToken) -> Self {
        let (tell, told) = mpsc::channel(1);
        Self {
            make,
            sources: Vec::new(),
            asking: JoinSet::new(),
            tell,
            told,
            discovered: BTreeMap::new(),
            leased: BTreeMap::new(),
            running: BTreeMap::new(),
            done: BTreeSet::new(),
            settled: false,
            overlaps: BTreeSet::new(),
            sweep_partitions,
            shared,
            stop,
            tasks: JoinSet::new(),
            outcome: Outcome::default(),
        }
    }

    /// Sweeps what is ours of the sources that are wanted at a time, until stopped or done.
    pub async fn run(
        mut self,
        mut wanted: watch::Receiver<Vec<config::Source>>,
        mut ownership: mpsc::UnboundedReceiver<Ownership>,
    ) -> Outcome {
        let first = wanted.borrow_and_update().clone();
        self.configure(&first);
        while !self.is_done() {
            tokio::select! {
                () = self.stop.cancelled() => break,
                news = ownership.recv() => match news {
                    Some(news) => self.follow(news),
                    None => break,
                },
                Ok(()) = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    self.configure(&wanted);
                }
                Some((task, discovery)) = self.told.recv() => self.learn(&task, discovery),
                Some(ended) = self.tasks.join_next() => self.take_back(ended),
            }
            self.settle();
        }
        self.asking.shutdown().await;
        for listed in &self.sources {
            self.shared.health.reached(&listed.task.config.name, State::Stopping);
        }
        for running in self.running.values() {
            running.stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            // Asked for a number of sweeps, and stopped before.
            let is_short = ended.as_ref().is_ok_and(|ended| !ended.is_done) && self.shared.repeat != Repeat::Forever;
            self.outcome.incomplete += usize::from(is_short);
            self.take_back(ended);
        }
        self.outcome
    }

    fn is_done(&self) -> bool {
        self.shared.repeat != Repeat::Forever && self.settled && self.running.is_empty() && self.are_all_known()
    }

    fn are_all_known(&self) -> bool {
        self.sources.iter().all(|listed| self.discovered.contains_key(&listed.task.config.name))
    }

    /// Brings the sources in line with the configuration: those that stay are not disturbed, the others end, and what is
    /// new begins.
    fn configure(&mut self, wanted: &[config::Source]) {
        let mut before = std::mem::take(&mut self.sources);
        for config in wanted {
            if let Some(same) = before.iter().position(|listed| listed.task.config == *config) {
                self.sources.push(before.swap_remove(same));
                continue;
            }
            match (self.make)(config) {
                Ok(task) => self.begin(Arc::new(task)),
                Err(error) => {
                    tracing::error!(
                        source = config.name,
                        error = format!("{error:#}"),
                        "cannot be made; it stays as it is"
                    );
                    if let Some(same) = before.iter().position(|listed| listed.task.config.name == config.name) {
                        self.sources.push(before.swap_remove(same));
                    }
                }
            }
        }
        for Listed { task, asking } in before {
            let name = &task.config.name;
            tracing::info!(source = name, "the source was changed or taken out of the configuration: it ends");
            asking.abort();
            if !self.sources.iter().any(|listed| listed.task.config.name == *name) {
                self.shared.health.reached(name, State::Stopping);
                let _ = self.shared.metrics.collector.interval.remove_label_values(&[name]);
            }
            self.discovered.remove(name);
            for running in self.running.values().filter(|running| Arc::ptr_eq(&running.source, &task)) {
                running.stop.cancel();
            }
        }
    }

    fn begin(&mut self, task: Arc<SourceTask>) {
        for state in [State::Pending, State::Started, State::Initialized] {
            self.shared.health.reached(&task.config.name, state);
        }
        let interval = self.shared.metrics.collector.interval.with_label_values(&[&task.config.name]);
        interval.set(task.config.interval.as_secs() as i64);
        let asking = self.asking.spawn(discover(task.clone(), self.tell.clone()));
        self.sources.push(Listed { task, asking });
    }

    // === News ===

    fn follow(&mut self, news: Ownership) {
        match news {
            Ownership::Gained { lease, ledgers } => {
                self.leased.insert(lease.partition, Leased { lease, at_rest: ledgers });
            }
            Ownership::Lost(lease) => {
                self.leased.retain(|_, leased| leased.lease != lease);
                for running in self.running.values().filter(|running| running.lease == lease) {
                    running.stop.cancel();
                }
            }
            Ownership::Settled => {
                self.settled = true;
                self.shared.readiness.ready(READINESS);
            }
            Ownership::Acceptance { scope, acceptance } => {
                if let Some(running) = self.running.get(&scope) {
                    running.acceptance.send_replace(acceptance);
                }
                // Also beside a task that ends: its successor may start from here.
                if let Some(ledger) =
                    self.leased.get_mut(&self.partition_of(&scope)).and_then(|leased| leased.at_rest.get_mut(&scope))
                {
                    ledger.acceptance = acceptance;
                }
            }
        }
    }

    fn learn(&mut self, task: &Arc<SourceTask>, discovery: Discovery) {
        if !self.sources.iter().any(|listed| Arc::ptr_eq(&listed.task, task)) {
            return;
        }
        let source = task.config.name.clone();
        for unknown in &discovery.unknown {
            let (account, error) = (unknown.account.as_deref().unwrap_or("-"), &unknown.fault);
            let (class, kind) = (error.class().name(), error.kind.name());
            tracing::warn!(source, account, class, kind, %error, "scopes of a source are not known");
        }
        match discovery.unknown.first() {
            // Others of its accounts are swept: those speak for the source.
            Some(unknown) if discovery.scopes.is_empty() => self.shared.health.source_failed(&source, &unknown.fault),
            _ => self.shared.health.authenticated(&source),
        }
        if self.shared.repeat != Repeat::Forever && !self.discovered.contains_key(&source) {
            self.outcome.incomplete += discovery.unknown.len();
        }
        tracing::debug!(source, scopes = discovery.scopes.len(), "scopes known");
        self.discovered.insert(source, discovery);
    }

    fn take_back(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ended { scope, lease, ledger, outcome, is_done } = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // Its memory is gone with it. A restart restores it; going on without would forget its instances.
                tracing::error!(%error, "the task of a scope panicked");
                self.outcome.incomplete += 1;
                self.stop.cancel();
                return;
            }
        };
        let key = scope.to_string();
        self.outcome = self.outcome.and(outcome);
        self.running.remove(&key);
        if is_done {
            self.done.insert(key.clone());
        }
        match self.leased.get_mut(&lease.partition).filter(|leased| leased.lease == lease) {
            Some(leased) => drop(leased.at_rest.insert(key, ledger)),
            None => self.shared.health.forget(&scope),
        }
    }

    // === What follows from them ===

    fn settle(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        let (named, overlapping) = self.named();
        for (key, running) in &self.running {
            if overlapping.contains_key(key) || (!named.contains_key(key) && self.is_certainly_not_named(key)) {
                running.stop.cancel();
            }
        }
        self.tell_overlaps(overlapping);
        for (key, (scope, task)) in named {
            if !self.running.contains_key(&key) && !self.done.contains(&key) {
                self.start(&key, scope, task);
            }
        }
        self.let_go();
    }

    /// The scopes to be swept, each with its source; and those that are the same region of the same account as one of
    /// them, with that one: the first wins.
    fn named(&self) -> (Named, Overlapping) {
        let (mut named, mut overlapping) = (BTreeMap::new(), BTreeMap::new());
        let mut places = BTreeMap::new();
        for Listed { task, .. } in &self.sources {
            let Some(discovery) = self.discovered.get(&task.config.name) else { continue };
            for scope in &discovery.scopes {
                if let (Some(account), Some(region)) = (&scope.account, &scope.region) {
                    let first = places.entry((account.clone(), region.clone())).or_insert_with(|| scope.clone());
                    if first != scope {
                        overlapping.insert(scope.to_string(), (scope.clone(), first.clone()));
                        continue;
                    }
                }
                named.insert(scope.to_string(), (scope.clone(), task.clone()));
            }
        }
        (named, overlapping)
    }

    /// Tells, once, which scopes of ours are not swept since others are the same.
    fn tell_overlaps(&mut self, overlapping: Overlapping) {
        self.overlaps.retain(|key| overlapping.contains_key(key));
        for (key, (scope, first)) in overlapping {
            if self.leased.contains_key(&self.partition_of(&key)) && self.overlaps.insert(key) {
                let message = format!("{scope} is not swept: {first} is the same account and region");
                self.shared.health.swept(&scope, Some(&Fault::new(FaultKind::InvalidRequest, message)));
            }
        }
    }

    fn start(&mut self, key: &str, scope: Scope, task: Arc<SourceTask>) {
        let Some(leased) = self.leased.get_mut(&self.partition_of(key)) else { return };
        let ledger = leased.at_rest.remove(key).unwrap_or_default();
        let (acceptance, receiver) = watch::channel(None);
        let (lease, stop) = (leased.lease, CancellationToken::new());
        let (shared, source) = (self.shared.clone(), task.clone());
        let work = ScopeTask { scope, task, lease, acceptance: receiver, shared, stop: stop.clone() };
        self.running.insert(key.to_owned(), Running { lease, source, acceptance, stop });
        self.tasks.spawn(work.run(ledger));
    }

    /// Notes, once, which of the remembered scopes the configuration no longer names.
    fn let_go(&mut self) {
        if !self.are_all_known() {
            return;
        }
        let mut left = Vec::new();
        for leased in self.leased.values() {
            for (key, ledger) in &leased.at_rest {
                let is_new = ledger.head.as_ref().is_some_and(|head| !head.out_of_scope);
                if is_new && !self.done.contains(key) && self.is_certainly_not_named(key) {
                    left.push((leased.lease, key.clone()));
                }
            }
        }
        for (lease, key) in left {
            let Some(leased) = self.leased.get_mut(&lease.partition) else { continue };
            let Some(ledger) = leased.at_rest.get_mut(&key) else { continue };
            let Some(head) = &mut ledger.head else { continue };
            head.out_of_scope = true;
            let record = memory(&key, &Change::Head(head.clone()));
            self.shared.health.out_of_scope(&Scope::of_key(&key), ledger.len());
            let publisher = self.shared.publisher.clone();
            // Should it not be committed, the next owner tells it once more.
            tokio::spawn(async move { publisher.publish(lease, vec![record]).await });
        }
    }

    /// Whether every source that could name this scope was asked, and did not.
    fn is_certainly_not_named(&self, key: &str) -> bool {
        let scope = Scope::of_key(key);
        let Some(discovery) = self.discovered.get(&scope.source) else {
            return !self.sources.iter().any(|listed| listed.task.config.name == scope.source);
        };
        let may_be =
            discovery.unknown.iter().any(|unknown| unknown.account.is_none() || unknown.account == scope.account);
        !may_be && !discovery.scopes.contains(&scope)
    }

    fn partition_of(&self, key: &str) -> i32 {
        partition_for(key.as_bytes(), self.sweep_partitions)
    }
}

/// Asks a source for its scopes, again and again.
async fn discover(task: Arc<SourceTask>, tell: mpsc::Sender<Told>) {
    let mut soon = DISCOVER_SOON;
    loop {
        let discovery = task.source.scopes().await;
        let needs_somebody = |fault: &Fault| fault.class() == Class::ThirdPartyConfig;
        let pause = if discovery.unknown.is_empty() {
            soon = DISCOVER_SOON;
            DISCOVER_EVERY
        } else if discovery.unknown.iter().any(|unknown| !needs_somebody(&unknown.fault)) {
            soon = (soon * 2).min(DISCOVER_AGAIN);
            soon.mul_f64(0.5 + 0.5 * fastrand::f64())
        } else {
            DISCOVER_AGAIN
        };
        if tell.send((task.clone(), discovery)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}
