//! One sweep of one scope: list, publish, conclude. "No answer" is not "an empty answer": only a sweep that heard the end
//! of the listing may conclude anything from what is missing in it.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::absence::{Conclusion, Evidence, Step, conclude, is_held, vanished};
use super::fault::{Fault, FaultKind};
use super::ledger::record::{Key, Record};
use super::ledger::{Change, Entry, Head, InstanceState, Ledger, Missing, Standing, Verdict};
use super::publisher::{Destination, Headers, Lease, Outgoing, PublishError, Publisher};
use super::raw::{self, Labels, Observation};
use super::rules::{Fate, Rules};
use super::source::{Page, Scope, SecondLook, Source};
use crate::record::canonical::{self, Instance};

#[cfg(test)]
mod tests;

/// Records that one transaction is asked to take, beside a page's.
const CHUNK: usize = 1000;
/// How long the verdict of an incomplete sweep waits for Kafka, which may be what is wrong.
const VERDICT_PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take before others get the slot of its sweep.
const SLOT_PATIENCE: Duration = Duration::from_secs(5);
/// Instances that are asked for by their IDs although so many vanished that they will hardly be believed.
const MAX_ASKED: usize = 2000;

/// What a sweep works with.
pub struct Sweeper<'a> {
    /// The scope.
    pub scope: &'a Scope,
    /// Where its instances come from.
    pub source: &'a dyn Source,
    /// What the headers say beside the scope.
    pub labels: &'a Labels,
    /// What is left out or made unreadable before it leaves.
    pub rules: &'a Rules,
    /// The way to Kafka.
    pub publisher: &'a Publisher,
    /// The right to use it for this scope.
    pub lease: Lease,
    /// How long what was not listed is given to appear before it is asked for.
    pub settling_delay: Duration,
    /// How long Kafka may be away before the sweep is given up.
    pub give_up_after: Duration,
    /// Digest of the source's filters.
    pub filters: i64,
    /// Sweeps at the same time.
    pub slots: &'a Semaphore,
    /// Ends the sweep between two steps.
    pub stop: &'a CancellationToken,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// Header `sweep-id` of its records; later sweeps have greater IDs.
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it is not complete, or what is held back.
    pub fault: Option<Fault>,
    /// What it counted.
    pub tally: Tally,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What a sweep counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages received.
    pub pages: usize,
    /// Instances published.
    pub instances: usize,
    /// Instances that are gone.
    pub removed: usize,
    /// Instances that are no longer listed because of filters or rules.
    pub out_of_scope: usize,
    /// Instances whose tags had vanished and were there when asked for.
    pub tags_restored: usize,
    /// What was listed without an ID.
    pub dead_letters: usize,
}

/// Why a sweep does not go on.
enum Interruption {
    /// It was asked to end, or the scope is no longer ours. Whoever sweeps next starts over.
    Stopped,
    /// It is incomplete.
    Fault(Fault),
}

impl From<Fault> for Interruption {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<PublishError> for Interruption {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::NotOwner => Self::Stopped,
            PublishError::Kafka(_) => Self::Fault(Fault::new(FaultKind::Kafka, error.to_string())),
        }
    }
}

/// A sweep under way.
struct Sweep<'a> {
    sweeper: &'a Sweeper<'a>,
    /// `None` while it waits for an answer that takes long.
    slot: Option<SemaphorePermit<'a>>,
    ledger: &'a mut Ledger,
    head: Head,
    /// Of the complete sweep before this one.
    previous: Option<i64>,
    tally: Tally,
}

impl Sweeper<'_> {
    /// Sweeps the scope once, in a slot of [`slots`](Self::slots); `None` where it was asked to end before it had a verdict.
    pub async fn sweep<'a>(&'a self, slot: SemaphorePermit<'a>, ledger: &'a mut Ledger) -> Option<Swept> {
        let (began, id) = (Instant::now(), Uuid::now_v7().to_string());
        let last = ledger.head.clone();
        ledger.begin();
        let now = Utc::now().timestamp_millis();
        let mut sweep = Sweep {
            sweeper: self,
            slot: Some(slot),
            head: match &last {
                None => Head::begun(&id, now),
                Some(last) => Head {
                    last_complete: last.last_complete,
                    missing: last.missing,
                    filters: last.filters,
                    observed: last.observed,
                    ..Head::begun(&id, now)
                },
            },
            previous: last.and_then(|last| last.last_complete),
            ledger,
            tally: Tally::default(),
        };
        let fault = match sweep.work().await {
            Ok(fault) => fault,
            Err(Interruption::Stopped) => return None,
            Err(Interruption::Fault(fault)) => {
                sweep.end(Verdict::Incomplete, Some(&fault));
                // Kafka may be what is wrong; then the verdict is known here only.
                if let Err(Interruption::Stopped) = sweep.publish(Vec::new(), Vec::new()).await {
                    return None;
                }
                Some(fault)
            }
        };
        let (verdict, tally) = (sweep.head.verdict, sweep.tally);
        sweep.ledger.head = Some(sweep.head);
        Some(Swept { id, verdict, fault, tally, seconds: began.elapsed().as_secs_f64() })
    }
}

impl Sweep<'_> {
    /// Waits for an answer of the source, unless asked to end. One that is long in coming, since it is tried again and
    /// again, must not keep other scopes from their sweeps: the slot is theirs meanwhile.
    async fn ask<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, Interruption> {
        let Sweeper { slots, stop, .. } = *self.sweeper;
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            () = stop.cancelled() => return Err(Interruption::Stopped),
            () = tokio::time::sleep(SLOT_PATIENCE) => self.slot = None,
        }
        let came = async {
            let answer = answer.await;
            (answer, slots.acquire().await.ok())
        };
        tokio::select! {
            (answer, slot) = came => {
                self.slot = slot;
                Ok(answer)
            }
            () = stop.cancelled() => Err(Interruption::Stopped),
        }
    }

    /// All of it; what is held back, if something is.
    async fn work(&mut self) -> Result<Option<Fault>, Interruption> {
        let sweeper = self.sweeper;
        let mut pages = sweeper.source.pages(sweeper.scope);
        while let Some(page) = self.ask(pages.next()).await?? {
            self.tally.pages += 1;
            self.take(page, false).await?;
        }
        let missing = self.leave_to_filters(self.ledger.missing()).await?;
        let (missing, asked_at) = self.ask_again(missing).await?;
        let seconds = |ms: i64| u32::try_from(ms / 1000).unwrap_or_default();
        let conclusion = conclude(&Evidence {
            missing,
            alive: self.ledger.alive(),
            acceptance: self.ledger.acceptance,
            began: seconds(self.head.began),
            previous: self.previous.map(seconds),
        });
        match conclusion {
            Conclusion::Held { missing } => self.hold(missing).await.map(Some),
            Conclusion::Counted { steps } => self.conclude(steps, asked_at).await.map(|()| None),
        }
    }

    fn end(&mut self, verdict: Verdict, fault: Option<&Fault>) {
        self.head.verdict = verdict;
        self.head.ended = Some(Utc::now().timestamp_millis());
        self.head.fault = fault.map(|fault| fault.kind.name().to_owned());
    }

    fn headers(&self, observed_at: DateTime<Utc>) -> Headers {
        raw::headers(self.sweeper.scope, &self.head.sweep_id, self.sweeper.labels, observed_at)
    }

    /// It is told once, and never again. So it is of a time behind all that was published, or the mapper would take it for
    /// outdated: clocks of replicas differ.
    fn tombstone(
        &self,
        id: &str,
        reason: &str,
        last_seen: Option<DateTime<Utc>>,
        observed_at: DateTime<Utc>,
    ) -> Outgoing {
        let published = DateTime::from_timestamp_millis(self.head.observed).unwrap_or_default();
        let observed_at = observed_at.max(published);
        raw::tombstone(id, reason, last_seen, observed_at, &self.headers(observed_at))
    }

    // === What is there ===

    /// Publishes a page, with what it changes in the memory. `filters_aside`: it lists what was asked for by ID.
    async fn take(&mut self, mut page: Page, filters_aside: bool) -> Result<(), Interruption> {
        keep_last_of_each(&mut page.instances);
        self.guard_tags(&mut page.instances).await?;
        self.head.observed = self.head.observed.max(page.observed_at.timestamp_millis());
        let headers = self.headers(page.observed_at);
        let (mut records, mut changes) = (Vec::with_capacity(page.instances.len() + 1), Vec::new());
        for instance in page.instances {
            let observation = Observation::of(&instance);
            let (json, fate) = self.by_the_rules(&instance).unwrap_or((instance.json, Fate::Keep));
            let Some(id) = instance.id.as_deref() else {
                // By the rules too: it may be an instance that somebody has edited.
                if fate == Fate::Keep {
                    records.push(raw::no_instance(json, &headers));
                    self.tally.dead_letters += 1;
                }
                continue;
            };
            self.ledger.mark_seen(id);
            let known = self.ledger.entry(id);
            let after = match fate {
                Fate::Keep => {
                    records.push(raw::instance(id, json, &headers));
                    self.tally.instances += 1;
                    published(observation, filters_aside && self.is_filtered())
                }
                Fate::Deny if known.is_none() => continue,
                Fate::Deny if observation.state == InstanceState::Terminated => {
                    // Nothing of it may leave but that it is gone.
                    records.push(self.tombstone(id, "terminated", None, page.observed_at));
                    self.tally.removed += 1;
                    None
                }
                Fate::Deny => Some(out_of_scope(observation)),
            };
            if after != known {
                self.tally.out_of_scope += usize::from(after.is_some_and(|entry| entry.is_out_of_scope()));
                changes.push(Change::Entry(id.into(), after));
            }
        }
        self.publish(records, changes).await
    }

    /// What the rules leave of an instance, and whether it is published at all; `None` where there is nothing to apply.
    fn by_the_rules(&self, instance: &Instance) -> Option<(Vec<u8>, Fate)> {
        let rules = self.sweeper.rules;
        let mut members = if rules.is_empty() { None } else { instance.to_map() }?;
        let fate = rules.apply(&mut members);
        Some((canonical::to_bytes(members), fate))
    }

    /// EC2 answers at times without tags: what had some and shows none is asked for them.
    async fn guard_tags(&mut self, instances: &mut [Instance]) -> Result<(), Interruption> {
        let Some(second_look) = self.sweeper.source.second_look() else { return Ok(()) };
        let mut stripped = BTreeMap::new();
        for (index, instance) in instances.iter().enumerate().filter(|(_, instance)| !instance.has_tags) {
            let id = instance.id.as_deref().unwrap_or_default();
            if self.ledger.entry(id).is_some_and(|entry| entry.tagged) {
                stripped.insert(id.to_owned(), index);
            }
        }
        if stripped.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = stripped.keys().cloned().collect();
        let scope = self.sweeper.scope;
        let tags = self.ask(second_look.tags(scope, &ids)).await??;
        for (id, tags) in tags.into_iter().filter(|(_, tags)| !tags.is_empty()) {
            let Some(instance) = stripped.get(&id).and_then(|index| instances.get_mut(*index)) else { continue };
            let Some(mut members) = instance.to_map() else { continue };
            members.insert("Tags".to_owned(), tags.into_iter().map(Value::Object).collect());
            *instance = Instance::of_map(&members);
            self.tally.tags_restored += 1;
        }
        tracing::info!(%scope, stripped = ids.len(), restored = self.tally.tags_restored, "tags had vanished");
        Ok(())
    }

    // === What is not ===

    fn is_filtered(&self) -> bool {
        self.sweeper.source.second_look().is_some_and(SecondLook::is_filtered)
    }

    /// Other filters than at the last complete sweep: what is missing is left out by them, and not gone. What remains
    /// is missing all the same.
    async fn leave_to_filters(&mut self, missing: Vec<Missing>) -> Result<Vec<Missing>, Interruption> {
        if self.previous.is_none() || self.head.filters == self.sweeper.filters {
            return Ok(missing);
        }
        let (missing, left_out): (Vec<_>, _) = missing.into_iter().partition(|missing| missing.entry.state.is_ending());
        self.tally.out_of_scope += left_out.len();
        for chunk in left_out.chunks(CHUNK) {
            let out = |missing: &Missing| Entry { standing: Standing::OutOfScope, ..missing.entry };
            let changes = chunk.iter().map(|missing| Change::Entry(missing.id.clone(), Some(out(missing)))).collect();
            self.publish(Vec::new(), changes).await?;
        }
        Ok(missing)
    }

    /// Asks for what was not listed by its IDs, where the source can be asked; what is missing still, and when that was
    /// said.
    async fn ask_again(&mut self, missing: Vec<Missing>) -> Result<(Vec<Missing>, DateTime<Utc>), Interruption> {
        let now = Utc::now();
        let Some(second_look) = self.sweeper.source.second_look().filter(|_| !missing.is_empty()) else {
            return Ok((missing, now));
        };
        let vanished = vanished(&missing);
        if vanished > MAX_ASKED && is_held(vanished, self.ledger.alive(), self.ledger.acceptance) {
            return Ok((missing, now));
        }
        self.ask(tokio::time::sleep(self.sweeper.settling_delay)).await?;
        let (mut asked_at, mut still_missing) = (Utc::now(), Vec::new());
        for chunk in missing.chunks(CHUNK) {
            let ids: Vec<_> = chunk.iter().map(|missing| missing.id.to_string()).collect();
            let found = second_look.instances(self.sweeper.scope, &ids);
            let page = self.ask(found).await??;
            asked_at = asked_at.min(page.observed_at);
            let found: HashSet<_> = page.instances.iter().filter_map(|instance| instance.id.clone()).collect();
            self.take(page, true).await?;
            still_missing.extend(chunk.iter().filter(|missing| !found.contains(missing.id.as_str())).cloned());
        }
        Ok((still_missing, asked_at))
    }

    /// So much vanished that somebody must look first.
    async fn hold(&mut self, missing: usize) -> Result<Fault, Interruption> {
        let scope = self.sweeper.scope;
        let who = match self.sweeper.source.second_look() {
            None => String::new(),
            Some(second_look) => match self.ask(second_look.identity(scope)).await? {
                Ok(identity) => format!("; asked as {identity}"),
                Err(fault) => format!("; who asks cannot be found out: {fault}"),
            },
        };
        let alive = self.ledger.alive();
        let message = format!("{missing} of {alive} instances of {scope} vanished at once, nothing is removed{who}");
        let fault = Fault::new(FaultKind::Vanished, message);
        self.head.missing = missing as i64;
        self.end(Verdict::Held, Some(&fault));
        self.publish(Vec::new(), Vec::new()).await?;
        Ok(fault)
    }

    /// Takes the steps, and the verdict with the last of them.
    async fn conclude(&mut self, steps: Vec<Step>, asked_at: DateTime<Utc>) -> Result<(), Interruption> {
        let mut chunks = steps.chunks(CHUNK).peekable();
        loop {
            let (mut records, mut changes) = (Vec::new(), Vec::new());
            for step in chunks.next().unwrap_or_default() {
                match step {
                    Step::Suspect(id, entry) => changes.push(Change::Entry(id.clone(), Some(*entry))),
                    Step::Gone { id, last_seen } => {
                        let last_seen = last_seen.and_then(|seconds| DateTime::from_timestamp(seconds.into(), 0));
                        records.push(self.tombstone(id, "absent", last_seen, asked_at));
                        changes.push(Change::Entry(id.clone(), None));
                        self.tally.removed += 1;
                    }
                }
            }
            if chunks.peek().is_some() {
                self.publish(records, changes).await?;
                continue;
            }
            self.end(Verdict::Complete, None);
            self.head.last_complete = Some(self.head.began);
            self.head.filters = self.sweeper.filters;
            self.head.missing = 0;
            // Given for what was missing before this sweep: it must not be at hand when something else vanishes.
            changes.extend(self.ledger.acceptance.map(|_| Change::Used));
            return self.publish(records, changes).await;
        }
    }

    // === Kafka ===

    /// Commits records and changes together, with how the sweep stands: so every transaction shows on the scope's
    /// partition, and whoever restores it waits for those that are open.
    async fn publish(&mut self, mut records: Vec<Outgoing>, mut changes: Vec<Change>) -> Result<(), Interruption> {
        changes.push(Change::Head(self.head.clone()));
        let scope = self.sweeper.scope.to_string();
        records.extend(changes.iter().map(|change| memory(&scope, change)));
        let publishing = self.sweeper.publisher.publish(self.sweeper.lease, records);
        let published = match tokio::time::timeout(self.patience(), publishing).await {
            Ok(published) => published,
            Err(_) => Err(PublishError::Kafka(format!("not within {:?}", self.patience()))),
        };
        match published {
            Ok(()) => self.ledger.apply(changes),
            // It may be committed all the same.
            Err(PublishError::Kafka(_)) => self.ledger.doubt(changes),
            Err(PublishError::NotOwner) => {}
        }
        Ok(published?)
    }

    /// How long Kafka may be away. A verdict waits for a moment only: without it the sweep is done again.
    fn patience(&self) -> Duration {
        match self.head.verdict {
            Verdict::Incomplete => self.sweeper.give_up_after.min(VERDICT_PATIENCE),
            _ => self.sweeper.give_up_after,
        }
    }
}

/// What is known of an instance once its record is published. `by_id`: the source's filters did not list it.
fn published(observation: Observation, by_id: bool) -> Option<Entry> {
    match by_id {
        false => Some(present(observation)),
        // Its last record tells that it is gone, and no filter will list it again.
        true if observation.state == InstanceState::Terminated => None,
        // It is asked for again, until it is terminated or gone.
        true if observation.state.is_ending() => Some(present(observation)),
        true => Some(out_of_scope(observation)),
    }
}

fn present(observation: Observation) -> Entry {
    Entry { standing: Standing::Present, ..out_of_scope(observation) }
}

fn out_of_scope(observation: Observation) -> Entry {
    Entry { state: observation.state, tagged: observation.tagged, standing: Standing::OutOfScope }
}

/// Of instances that are listed twice on a page the last one counts.
fn keep_last_of_each(instances: &mut Vec<Instance>) {
    let mut seen = HashSet::new();
    instances.reverse();
    instances.retain(|instance| instance.id.as_ref().is_none_or(|id| seen.insert(id.clone())));
    instances.reverse();
}

/// The record that keeps a change of the memory of `scope`.
pub fn memory(scope: &str, change: &Change) -> Outgoing {
    let (key, record) = match change {
        Change::Head(head) => (Key::Head(scope).to_string(), Record::Head(Some(head.clone()))),
        Change::Entry(id, entry) => (Key::Entry(scope, id).to_string(), Record::Entry(id.clone(), *entry)),
        Change::Used => (Key::Acceptance(scope).to_string(), Record::Acceptance(None)),
    };
    Outgoing {
        destination: Destination::Sweeps,
        key: Some(key),
        value: record.encode(),
        headers: Headers::default(),
        timestamp: None,
    }
}
