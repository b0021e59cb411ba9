//! The health of sources and of their scopes: the states and error types of Sumo Logic's source. Each transition is one
//! log line, one event on `rollcall.health` and a metric; what stays as it is says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::fault::{Class, Fault};
use super::source::Scope;

/// Where a source is on its way from configuration to collecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is configured.
    Pending,
    /// Its task runs.
    Started,
    /// Its clients are made.
    Initialized,
    /// It was let in: its scopes are known.
    Authenticated,
    /// A sweep was complete.
    Collecting,
    /// None of its scopes can be swept; a scope: it cannot be.
    Error,
    /// It ends, or is no longer configured.
    Stopping,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Started,
        Self::Initialized,
        Self::Authenticated,
        Self::Collecting,
        Self::Error,
        Self::Stopping,
    ];

    /// As in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Started => "Started",
            Self::Initialized => "Initialized",
            Self::Authenticated => "Authenticated",
            Self::Collecting => "Collecting",
            Self::Error => "Error",
            Self::Stopping => "Stopping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Takes health events: the source's name, and the event as JSON.
pub type Tell = Box<dyn Fn(&str, &Value) + Send + Sync>;
/// Takes the state of a source, or of a scope, for the metrics.
pub type Gauge = Box<dyn Fn(&str, Option<&Scope>, State) + Send + Sync>;

/// The health of all sources of a process.
pub struct Health {
    instance_id: String,
    tell: Tell,
    gauge: Gauge,
    sources: Mutex<BTreeMap<String, SourceHealth>>,
}

#[derive(Default)]
struct SourceHealth {
    status: Option<Status>,
    /// How far it came when it was last well.
    reached: Option<State>,
    scopes: BTreeMap<Scope, Status>,
    /// The sweeps that come next, also of scopes that were not swept yet.
    next: BTreeMap<Scope, Next>,
}

impl SourceHealth {
    /// Whether it is in error though none of its scopes here says so.
    fn is_lost(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.fault.is_some())
            && self.scopes.values().all(|status| status.fault.is_none())
    }
}

/// A state, and what is wrong.
#[derive(Debug, Clone)]
pub struct Status {
    /// The state.
    pub state: State,
    /// What is wrong, in state `Error`.
    pub fault: Option<Fault>,
    /// Since when it is so, whatever words the fault had meanwhile.
    pub since: DateTime<Utc>,
}

/// When a scope is swept again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Then.
    At(DateTime<Utc>),
    /// It is being swept.
    Now,
}

/// A source as it is now.
#[derive(Debug, Clone)]
pub struct SourceStanding {
    /// Its name.
    pub name: String,
    /// Its state, once it has one.
    pub status: Option<Status>,
    /// Its scopes that are here, with their states, once they have been swept.
    pub scopes: Vec<(Scope, Option<Status>, Option<Next>)>,
}

impl Status {
    fn well(state: State) -> Self {
        Self { state, fault: None, since: Utc::now() }
    }

    fn bad(fault: &Fault) -> Self {
        Self { state: State::Error, fault: Some(fault.clone()), since: Utc::now() }
    }

    /// The words of a fault may differ from time to time; the news is its kind.
    fn is_news(&self, before: Option<&Self>) -> bool {
        let kind = |status: &Self| (status.state, status.fault.as_ref().map(|fault| fault.kind));
        before.is_none_or(|before| kind(before) != kind(self))
    }
}

impl Health {
    /// Of a process called `instance_id`.
    pub fn new(instance_id: &str, tell: Tell, gauge: Gauge) -> Self {
        Self { instance_id: instance_id.to_owned(), tell, gauge, sources: Mutex::default() }
    }

    /// A source has come further.
    pub fn reached(&self, source: &str, state: State) {
        let mut sources = self.sources();
        let health = sources.entry(source.to_owned()).or_default();
        health.reached = health.reached.max(Some(state));
        self.source_becomes(source, health, Status::well(state));
    }

    /// The scopes of a source are known: news before the first sweep, and after they could not be found out.
    pub fn authenticated(&self, source: &str) {
        let is_news = {
            let sources = self.sources();
            let health = sources.get(source);
            health.is_none_or(|health| health.reached < Some(State::Authenticated) || health.is_lost())
        };
        if is_news {
            self.reached(source, State::Authenticated);
        }
    }

    /// The scopes of a source cannot be found out.
    pub fn source_failed(&self, source: &str, fault: &Fault) {
        let mut sources = self.sources();
        self.source_becomes(source, sources.entry(source.to_owned()).or_default(), Status::bad(fault));
    }

    /// A sweep of a scope ended, well or not.
    pub fn swept(&self, scope: &Scope, fault: Option<&Fault>) {
        let status = fault.map_or(Status::well(State::Collecting), Status::bad);
        self.scope_becomes(scope, status);
    }

    /// A scope will be swept then, or is being swept; `None`: not by us.
    pub fn next_sweep(&self, scope: &Scope, next: Option<Next>) {
        let mut sources = self.sources();
        let known = &mut sources.entry(scope.source.clone()).or_default().next;
        match next {
            Some(next) => drop(known.insert(scope.clone(), next)),
            None => drop(known.remove(scope)),
        }
    }

    /// All sources and their scopes, by name.
    pub fn standings(&self) -> Vec<SourceStanding> {
        let standing = |(name, health): (&String, &SourceHealth)| {
            let scopes: BTreeSet<_> = health.scopes.keys().chain(health.next.keys()).collect();
            let of =
                |scope: &Scope| (scope.clone(), health.scopes.get(scope).cloned(), health.next.get(scope).copied());
            let scopes = scopes.into_iter().map(of).collect();
            SourceStanding { name: name.clone(), status: health.status.clone(), scopes }
        };
        self.sources().iter().map(standing).collect()
    }

    /// The configuration no longer names the scope: its devices are out of scope, not removed.
    pub fn out_of_scope(&self, scope: &Scope, devices: usize) {
        let more = json!({"out_of_scope": true, "devices": devices});
        tracing::warn!(%scope, devices, "out of scope: the configuration no longer names it; nothing is removed");
        self.event(&scope.source, Some(scope), State::Stopping, None, None, &more);
        self.forget(scope);
    }

    /// The scope is swept elsewhere, or no longer: its health is not ours to tell.
    pub fn forget(&self, scope: &Scope) {
        let mut sources = self.sources();
        let Some(health) = sources.get_mut(&scope.source) else { return };
        if health.scopes.remove(scope).is_some() {
            (self.gauge)(&scope.source, Some(scope), State::Stopping);
            if health.is_lost() && health.reached >= Some(State::Authenticated) {
                self.source_becomes(&scope.source, health, Status::well(State::Authenticated));
            }
        }
    }

    fn scope_becomes(&self, scope: &Scope, mut status: Status) {
        let mut sources = self.sources();
        let health = sources.entry(scope.source.clone()).or_default();
        let before = health.scopes.get(scope).cloned();
        let is_news = status.is_news(before.as_ref());
        if let Some(before) = before.as_ref().filter(|_| !is_news) {
            status.since = before.since;
        }
        health.scopes.insert(scope.clone(), status.clone());
        if is_news {
            (self.gauge)(&scope.source, Some(scope), status.state);
            let previous = before.map(|before| before.state);
            self.event(&scope.source, Some(scope), status.state, previous, status.fault.as_ref(), &Value::Null);
        }
        let is_well = |status: &Status| status.fault.is_none();
        let of_source = if health.scopes.values().any(is_well) {
            health.reached = Some(State::Collecting);
            Status::well(State::Collecting)
        } else {
            status
        };
        // The last word on a scope is not one on a source that stops.
        if health.status.as_ref().is_none_or(|status| status.state != State::Stopping) {
            self.source_becomes(&scope.source, health, of_source);
        }
    }

    fn source_becomes(&self, source: &str, health: &mut SourceHealth, status: Status) {
        if status.is_news(health.status.as_ref()) {
            (self.gauge)(source, None, status.state);
            let previous = health.status.as_ref().map(|before| before.state);
            self.event(source, None, status.state, previous, status.fault.as_ref(), &Value::Null);
            health.status = Some(status);
        }
    }

    fn event(
        &self,
        source: &str,
        scope: Option<&Scope>,
        state: State,
        previous: Option<State>,
        fault: Option<&Fault>,
        more: &Value,
    ) {
        let shown = scope.map_or_else(|| source.to_owned(), ToString::to_string);
        let from = previous.map_or("none", State::name);
        match fault {
            None => tracing::info!(of = shown, %state, from, "health"),
            Some(fault) => {
                let (class, kind, remedy) = (fault.class().name(), fault.kind.name(), fault.kind.remedy());
                tracing::error!(of = shown, %state, from, class, kind, error = %fault, remedy, "health");
            }
        }
        let mut event = json!({
            "time": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            "instance_id": self.instance_id,
            "source": source,
            "state": state.name(),
        });
        if let Some(scope) = scope {
            event["scope"] = json!({"account": scope.account, "region": scope.region});
        }
        if let Some(previous) = previous {
            event["previous"] = json!(previous.name());
        }
        if let Some(fault) = fault {
            event["error"] = json!({
                "type": fault.class().name(), "name": event_name(fault.class()), "kind": fault.kind.name(),
                "message": fault.message, "remedy": fault.kind.remedy(),
            });
        }
        if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
            event.extend(more.clone());
        }
        (self.tell)(source, &event);
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<String, SourceHealth>> {
        // What is inside is a report: a thread that died over it leaves nothing half done.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As in Sumo's Health Event Index.
fn event_name(class: Class) -> String {
    format!("{}Error", class.name())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::collector::fault::FaultKind;

    struct Told(Health, Arc<Mutex<Vec<Value>>>);

    fn health() -> Told {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let told = told.clone();
            Box::new(move |_: &str, event: &Value| told.lock().unwrap().push(event.clone()))
        };
        Told(Health::new("test", tell, Box::new(|_, _, _| ())), told)
    }

    impl Told {
        /// State changes since the last call: whose, and to what.
        fn news(&self) -> Vec<String> {
            let events = std::mem::take(&mut *self.1.lock().unwrap());
            let show = |event: &Value| {
                let region = event["scope"]["region"].as_str().unwrap_or("source");
                let kind = event["error"]["kind"].as_str().map(|kind| format!(" {kind}")).unwrap_or_default();
                format!("{region} {}{kind}", event["state"].as_str().unwrap())
            };
            events.iter().map(show).collect()
        }
    }

    fn scope(region: &str) -> Scope {
        Scope { source: "prod".to_owned(), account: Some("1".to_owned()), region: Some(region.to_owned()) }
    }

    fn denied() -> Fault {
        Fault::new(FaultKind::Denied, "no")
    }

    #[test]
    fn a_source_goes_through_the_states_of_the_page() {
        let told = health();
        for state in [State::Pending, State::Started, State::Initialized, State::Authenticated] {
            told.0.reached("prod", state);
        }
        told.0.swept(&scope("a"), None);
        let expected = ["Pending", "Started", "Initialized", "Authenticated"].map(|state| format!("source {state}"));
        let news = told.news();
        assert_eq!(news[..4], expected);
        assert_eq!(news[4..], ["a Collecting", "source Collecting"]);
    }

    #[test]
    fn an_error_that_stays_is_one_event_and_its_end_is_another() {
        let told = health();
        told.0.swept(&scope("a"), None);
        told.news();
        told.0.swept(&scope("a"), Some(&denied()));
        assert_eq!(told.news(), ["a Error denied", "source Error denied"]);
        told.0.swept(&scope("a"), Some(&Fault::new(FaultKind::Denied, "in other words")));
        assert_eq!(told.news(), Vec::<String>::new());
        told.0.swept(&scope("a"), Some(&Fault::new(FaultKind::Throttled, "slow")));
        assert_eq!(told.news(), ["a Error throttled", "source Error throttled"]);
        told.0.swept(&scope("a"), None);
        assert_eq!(told.news(), ["a Collecting", "source Collecting"]);
    }

    #[test]
    fn a_scope_in_error_does_not_make_its_source_one_while_another_is_well() {
        let told = health();
        told.0.swept(&scope("a"), None);
        told.news();
        told.0.swept(&scope("b"), Some(&denied()));
        assert_eq!(told.news(), ["b Error denied"]);
        told.0.swept(&scope("a"), Some(&denied()));
        assert_eq!(told.news(), ["a Error denied", "source Error denied"]);
    }

    #[test]
    fn an_error_is_as_old_as_its_first_sweep_and_tells_its_latest_words() {
        let told = health();
        let seen = || told.0.standings()[0].scopes[0].1.clone().unwrap();
        told.0.swept(&scope("a"), Some(&denied()));
        let first = seen();
        told.0.swept(&scope("a"), Some(&Fault::new(FaultKind::Denied, "in other words")));
        let second = seen();
        assert_eq!((second.since, second.fault.unwrap().message.as_str()), (first.since, "in other words"));
        told.0.swept(&scope("a"), None);
        assert!(seen().fault.is_none());
    }

    #[test]
    fn a_scope_is_shown_from_when_it_is_due_until_it_is_no_longer_ours() {
        let told = health();
        let shown = || {
            let standings = told.0.standings();
            standings.first().map(|source| source.scopes.iter().map(|(scope, ..)| scope.clone()).collect::<Vec<_>>())
        };
        told.0.next_sweep(&scope("a"), Some(Next::At(Utc::now())));
        told.0.swept(&scope("b"), None);
        assert_eq!(shown(), Some(vec![scope("a"), scope("b")]));
        told.0.next_sweep(&scope("a"), None);
        told.0.forget(&scope("b"));
        assert_eq!(shown(), Some(vec![]));
    }

    #[test]
    fn a_source_that_stops_stays_so_whatever_its_last_sweep_meets() {
        let told = health();
        told.0.swept(&scope("a"), None);
        told.0.reached("prod", State::Stopping);
        told.news();
        told.0.swept(&scope("a"), Some(&denied()));
        assert_eq!(told.news(), ["a Error denied"]);
        told.0.reached("prod", State::Started);
        told.0.swept(&scope("a"), Some(&denied()));
        assert_eq!(told.news(), ["source Started", "source Error denied"]);
    }

    #[test]
    fn what_is_taken_out_of_the_configuration_is_stopping_and_told_with_its_devices() {
        let told = health();
        told.0.out_of_scope(&scope("a"), 12);
        let event = told.1.lock().unwrap().remove(0);
        assert_eq!((&event["state"], &event["devices"]), (&json!("Stopping"), &json!(12)));
    }
}
