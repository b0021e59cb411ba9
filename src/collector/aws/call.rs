//! The one way in which EC2 is called: within the budget, again where that may help, and not where it cannot.
//!
//! ```text
//!  gate of the account ──▶ budget of account and region ──▶ attempt ──▶ answer
//!        ▲                            ▲                        │
//!        │ credentials are bad        │ throttled, unavailable │ not now: back-off
//!        └────────────────────────────┴────────────────────────┘
//! ```
//!
//! What is transient is tried again until the sweep's deadline. What somebody has to repair is not, save for two things
//! that are found out here: credentials that may only need a refresh, and a refusal that may only mean that the region
//! is not enabled.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::fault::Failure;
use super::gate::{Gates, Pass};
use super::session::{Identity, Sessions};
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::source::{BoxFuture, Scope};
use crate::telemetry::metrics::Metrics;

#[cfg(test)]
mod tests;

/// First ceiling of a back-off, which doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Last ceiling of a back-off.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What calls need of the sessions.
pub(super) trait Access: Send + Sync {
    /// A client for the scope, which does not try again by itself.
    fn ec2<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<aws_sdk_ec2::Client, Fault>>;
    /// Forgets the credentials of the account.
    fn refresh<'a>(&'a self, account: Option<&'a str>) -> BoxFuture<'a, ()>;
    /// Who the account's credentials belong to, asked of AWS.
    fn identity<'a>(&'a self, account: Option<&'a str>) -> BoxFuture<'a, Result<Identity, Fault>>;
}

impl Access for Sessions {
    fn ec2<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<aws_sdk_ec2::Client, Fault>> {
        Box::pin(self.ec2(scope))
    }

    fn refresh<'a>(&'a self, account: Option<&'a str>) -> BoxFuture<'a, ()> {
        Box::pin(self.refresh(account))
    }

    fn identity<'a>(&'a self, account: Option<&'a str>) -> BoxFuture<'a, Result<Identity, Fault>> {
        Box::pin(self.identity(account))
    }
}

/// Told of what is called.
pub trait CallObserver: Send + Sync {
    /// A call was answered; the code is `ok`, one of a fixed list, or `other`.
    fn called(&self, call: &'static str, code: &'static str);
    /// So long was waited for the budget.
    fn waited(&self, time: Duration);
}

/// Nobody is told.
pub(super) struct Unobserved;

impl CallObserver for Unobserved {
    fn called(&self, _: &'static str, _: &'static str) {}
    fn waited(&self, _: Duration) {}
}

impl CallObserver for Metrics {
    fn called(&self, call: &'static str, code: &'static str) {
        self.collector.api_calls.with_label_values(&[call, code]).inc();
    }

    fn waited(&self, time: Duration) {
        self.collector.api_wait_seconds.observe(time.as_secs_f64());
    }
}

/// Where time comes from.
pub(super) trait Time: Send + Sync {
    fn now(&self) -> Instant;
    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// As it passes.
pub(super) struct RealTime;

impl Time for RealTime {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// What AWS keeps a bucket for.
type AccountRegion = (Option<String>, Option<String>);

/// Calls EC2 for the scopes of one source.
pub(super) struct Calls {
    access: Arc<dyn Access>,
    observer: Arc<dyn CallObserver>,
    time: Arc<dyn Time>,
    calls_per_second: f64,
    give_up_after: Duration,
    gates: Gates,
    /// By account and region; no more of them than scopes.
    budgets: Mutex<HashMap<AccountRegion, Budget>>,
}

impl Calls {
    pub(super) fn new(
        access: Arc<dyn Access>,
        time: Arc<dyn Time>,
        calls_per_second: f64,
        give_up_after: Duration,
    ) -> Self {
        Self {
            access,
            observer: Arc::new(Unobserved),
            time,
            calls_per_second,
            give_up_after,
            gates: Gates::default(),
            budgets: Mutex::default(),
        }
    }

    pub(super) fn observed_by(&mut self, observer: Arc<dyn CallObserver>) {
        self.observer = observer;
    }

    /// Who calls.
    pub(super) async fn identity(&self, scope: &Scope) -> Result<Identity, Fault> {
        self.access.identity(scope.account.as_deref()).await
    }

    /// When to give up what begins now.
    pub(super) fn deadline(&self) -> Deadline {
        self.deadline_in(self.give_up_after)
    }

    /// The same, but sooner.
    pub(super) fn deadline_in(&self, time: Duration) -> Deadline {
        let time = time.min(self.give_up_after);
        Deadline { at: self.time.now() + time, after: time }
    }

    pub(super) fn now(&self) -> Instant {
        self.time.now()
    }

    /// Makes a call, again and again where that may help.
    pub(super) async fn call<T, F>(
        &self,
        scope: &Scope,
        name: &'static str,
        deadline: Deadline,
        attempt: impl Fn(aws_sdk_ec2::Client) -> F + Send + Sync,
    ) -> Result<T, Fault>
    where
        T: Send,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let account = scope.account.as_deref();
        let mut ceiling = FIRST_BACKOFF;
        let mut is_refreshed = false;
        loop {
            let pass = self.gates.pass(account, &*self.access, &*self.time).await?;
            self.wait_for_budget(scope, name, deadline).await?;
            let outcome = match self.access.ec2(scope).await {
                Ok(client) => attempt(client).await,
                Err(fault) => Err(fault.into()),
            };
            let failure = match outcome {
                Ok(answer) => {
                    self.observer.called(name, "ok");
                    self.with_budget(scope, |budget, _| budget.succeeded());
                    pass.opens();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.observer.called(name, failure.label());
            match failure.fault.kind {
                FaultKind::Throttled | FaultKind::Unavailable | FaultKind::Unreadable => {
                    if failure.fault.kind == FaultKind::Throttled {
                        self.with_budget(scope, |budget, now| budget.throttled(now, failure.retry_after));
                    }
                    // Whoever waits behind this one need not wait for its back-off.
                    pass.opens();
                    let backoff = ceiling
                        .mul_f64(fastrand::f64())
                        .max(failure.retry_after.unwrap_or_default().min(LONGEST_BACKOFF));
                    ceiling = (ceiling * 2).min(LONGEST_BACKOFF);
                    if !deadline.allows(self.time.now(), backoff) {
                        return Err(failure.fault);
                    }
                    tracing::debug!(%scope, error = %failure.fault, ?backoff, "the call is made again");
                    self.time.sleep(backoff).await;
                }
                FaultKind::Credentials | FaultKind::Clock if failure.is_aged() && !is_refreshed => {
                    is_refreshed = true;
                    drop(pass);
                    self.access.refresh(account).await;
                }
                FaultKind::Credentials => return Err(self.judge(account, failure, pass).await),
                _ => {
                    pass.opens();
                    return Err(failure.fault);
                }
            }
        }
    }

    /// AWS does not take the credentials: whether they are bad, and not just too old by this clock, or for this region.
    async fn judge(&self, account: Option<&str>, failure: Failure, pass: Pass) -> Fault {
        if let Some(fault) = failure.of_the_clock() {
            return fault;
        }
        let message = &failure.fault.message;
        match self.access.identity(account).await {
            Ok(identity) => {
                pass.opens();
                if !failure.may_be_regional() {
                    return failure.fault;
                }
                let message = format!("{message}; the credentials are good elsewhere, as {}", identity.arn);
                Fault::new(FaultKind::RegionDisabled, message)
            }
            Err(confirmed) if confirmed.kind == FaultKind::Credentials => {
                pass.closes(failure.fault.clone(), self.time.now());
                failure.fault
            }
            Err(_) => failure.fault,
        }
    }

    async fn wait_for_budget(&self, scope: &Scope, name: &str, deadline: Deadline) -> Result<(), Fault> {
        let began = self.time.now();
        loop {
            if !deadline.allows(self.time.now(), Duration::ZERO) {
                return Err(deadline.passed(name));
            }
            let wait = self.with_budget(scope, Budget::take);
            if wait.is_zero() {
                break;
            }
            if !deadline.allows(self.time.now(), wait) {
                return Err(deadline.passed(name));
            }
            self.time.sleep(wait).await;
        }
        self.observer.waited(self.time.now().saturating_duration_since(began));
        Ok(())
    }

    fn with_budget<T>(&self, scope: &Scope, act: impl FnOnce(&mut Budget, Instant) -> T) -> T {
        let now = self.time.now();
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (scope.account.clone(), scope.region.clone());
        act(budgets.entry(key).or_insert_with(|| Budget::new(self.calls_per_second, now)), now)
    }
}

/// When calls are not tried again any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    fn allows(self, now: Instant, wait: Duration) -> bool {
        now + wait < self.at
    }

    fn passed(self, name: &str) -> Fault {
        let after = humantime::format_duration(Duration::from_secs(self.after.as_secs()));
        Fault::new(FaultKind::Unavailable, format!("{name}: given up after {after}"))
    }
}
