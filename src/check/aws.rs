//! Sources `aws`: who asks, which accounts and regions there are, whether each call is permitted in each of them, and
//! whether the clocks agree.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Line, Outcome, Progress};
use crate::collector::aws::Ec2;
use crate::collector::aws::probe::{Describe, Permission};
use crate::collector::aws::session::overlap;
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::source::{Discovery, Scope, Source};
use crate::config::{self, AwsSource, SourceKind};
use crate::policy::ec2_actions;

/// Accounts and regions that are asked at the same time.
const CONCURRENCY: usize = 32;
/// How long finding out accounts and regions may take.
const DISCOVERY_WITHIN: Duration = Duration::from_secs(60);
/// AWS refuses signatures that are off by more than `CLOCK_REFUSED`.
const CLOCK_REFUSED: TimeDelta = TimeDelta::minutes(5);
const CLOCK_DOUBTFUL: TimeDelta = TimeDelta::minutes(1);

const LISTING: &str = "ec2:DescribeInstances";
const REGIONS: &str = "ec2:DescribeRegions";

/// The lines of each source, by its name, and what concerns several.
pub(super) async fn check(
    sources: &[config::Source],
    progress: &Progress,
) -> (BTreeMap<String, Vec<Line>>, Option<Line>) {
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    let mut asking = JoinSet::new();
    for source in sources {
        let SourceKind::Aws(aws) = &source.kind else { continue };
        let ec2 = Arc::new(Ec2::new(&source.name, (**aws).clone(), source.give_up_after));
        let of = Of { name: source.name.clone(), aws: aws.clone(), ec2, slots: slots.clone() };
        asking.spawn(async move { (of.name.clone(), of.ask().await) });
    }
    let (mut lines, mut scopes) = (BTreeMap::new(), Vec::new());
    while let Some(asked) = asking.join_next().await {
        // A task that panicked has told so itself; what is asked here does not panic.
        let Ok((name, (of_source, found))) = asked else { continue };
        progress.done(of_source.len());
        scopes.extend(found);
        lines.insert(name, of_source);
    }
    scopes.sort();
    let twice = overlap(&scopes).map(|(one, other)| {
        let fault = Fault::new(FaultKind::InvalidRequest, format!("{one} and {other} are the same"));
        let line = Line::failed("scopes", "collector.sources", &fault);
        line.with_remedy("let one source sweep an account and region")
    });
    (lines, twice)
}

/// One source.
struct Of {
    name: String,
    aws: Box<AwsSource>,
    ec2: Arc<Ec2>,
    slots: Arc<Semaphore>,
}

impl Of {
    async fn ask(&self) -> (Vec<Line>, Vec<Scope>) {
        let name = &self.name;
        match self.ec2.identity(None).await {
            Ok(caller) => {
                let who = format!("{} (account {})", caller.arn, caller.account);
                let mut lines = vec![Line::ok("identity", name, who)];
                let scopes = self.discovered(&mut lines).await;
                (lines, scopes)
            }
            Err(fault) => {
                let skipped = |what| Line::skipped(what, name, "nobody knows who asks");
                (vec![Line::failed("identity", name, &fault), skipped("accounts"), skipped("permissions")], Vec::new())
            }
        }
    }

    async fn discovered(&self, lines: &mut Vec<Line>) -> Vec<Scope> {
        let name = &self.name;
        let found = match tokio::time::timeout(DISCOVERY_WITHIN, self.ec2.scopes()).await {
            Ok(found) => found,
            Err(_) => {
                let message = format!("accounts and regions were not found out within {DISCOVERY_WITHIN:?}");
                lines.push(Line::failed("accounts", name, &Fault::new(FaultKind::Unavailable, message)));
                return Vec::new();
            }
        };
        lines.extend(self.accounts(&found));
        let accounts = self.identities(&found).await;
        let can_enter: Vec<_> = accounts.iter().filter(|(_, line)| line.result == Outcome::Ok).collect();
        let is_open = |scope: &&Scope| {
            self.aws.is_own_account() || can_enter.iter().any(|(account, _)| Some(*account) == scope.account.as_ref())
        };
        let open: Vec<_> = found.scopes.iter().filter(is_open).cloned().collect();
        let closed = found.scopes.iter().filter(|scope| !is_open(scope));
        let skipped = closed.map(|scope| Line::skipped("region", scope.to_string(), "its account cannot be entered"));
        let skipped: Vec<_> = skipped.collect();
        lines.extend(accounts.into_values());
        lines.extend(self.region_lines(&found));
        lines.extend(skipped);
        let asked = self.scopes(open).await;
        lines.extend(clock(name, &asked));
        lines.extend(asked.into_values().flat_map(|asked| asked.lines));
        found.scopes
    }

    /// How many accounts there are, or why that is not known.
    fn accounts(&self, found: &Discovery) -> Option<Line> {
        if let Some(unknown) = found.unknown.iter().find(|unknown| unknown.account.is_none()) {
            return Some(Line::failed("accounts", &self.name, &unknown.fault));
        }
        let accounts = account_names(found);
        let regions = found.scopes.len();
        let detail = format!("{} found, with {regions} regions in all", accounts.len());
        Some(match accounts.is_empty() {
            false => Line::ok("accounts", &self.name, detail),
            true => {
                Line::warning("accounts", &self.name, "none found", "check `organization`: its OUs, its exclusions")
            }
        })
    }

    /// Who the role of each account makes us; nothing where there is no role.
    async fn identities(&self, found: &Discovery) -> BTreeMap<String, Line> {
        if self.aws.is_own_account() {
            return BTreeMap::new();
        }
        let ask = |account: String| {
            let (ec2, scope) = (self.ec2.clone(), format!("{}/{account}", self.name));
            async move {
                let line = match ec2.identity(Some(&account)).await {
                    Ok(identity) if identity.account == account => Line::ok("identity", scope, identity.arn),
                    Ok(identity) => {
                        let message = format!("{} is in another account", identity.arn);
                        Line::failed("identity", scope, &Fault::new(FaultKind::Credentials, message))
                    }
                    Err(fault) => Line::failed("identity", scope, &fault),
                };
                (account, line)
            }
        };
        self.each(account_names(found), ask).await
    }

    /// Whether the regions of each account could be asked for; nothing where they are named.
    fn region_lines(&self, found: &Discovery) -> Vec<Line> {
        if self.aws.regions.names().is_some() {
            return Vec::new();
        }
        let of = |account: String| {
            let scope = format!("{}/{account}", self.name);
            let unknown = found.unknown.iter().find(|unknown| unknown.account.as_ref() == Some(&account));
            match unknown {
                Some(unknown) => Line::failed(REGIONS, scope, &unknown.fault),
                None => {
                    let regions = found.scopes.iter().filter(|scope| scope.account.as_ref() == Some(&account));
                    Line::ok(REGIONS, scope, format!("{} regions are meant", regions.count()))
                }
            }
        };
        account_names(found).into_iter().map(of).collect()
    }

    /// What each scope answers.
    async fn scopes(&self, scopes: Vec<Scope>) -> BTreeMap<Scope, Asked> {
        let actions: Vec<_> =
            ec2_actions(&self.aws).into_iter().filter_map(|name| Some((name, Describe::named(name)?))).collect();
        let ask = |scope: Scope| {
            let (ec2, actions) = (self.ec2.clone(), actions.clone());
            async move {
                let asked = ask_scope(&ec2, &scope, &actions).await;
                (scope, asked)
            }
        };
        self.each(scopes, ask).await
    }

    async fn each<T, K, V, F>(&self, items: Vec<T>, ask: impl Fn(T) -> F) -> BTreeMap<K, V>
    where
        K: Ord + Send + 'static,
        V: Send + 'static,
        F: Future<Output = (K, V)> + Send + 'static,
    {
        let mut asking = JoinSet::new();
        for item in items {
            let (slots, asked) = (self.slots.clone(), ask(item));
            asking.spawn(async move {
                let _slot = slots.acquire_owned().await;
                asked.await
            });
        }
        asking.join_all().await.into_iter().collect()
    }
}

fn account_names(found: &Discovery) -> Vec<String> {
    let of_scopes = found.scopes.iter().filter_map(|scope| scope.account.clone());
    let unknown = found.unknown.iter().filter_map(|unknown| unknown.account.clone());
    let mut names: Vec<_> = of_scopes.chain(unknown).collect();
    names.sort();
    names.dedup();
    names
}

/// What a scope answered.
struct Asked {
    lines: Vec<Line>,
    /// How far EC2's clock is ahead, by its last answer.
    ahead: Option<TimeDelta>,
    clock: Option<Fault>,
}

async fn ask_scope(ec2: &Ec2, scope: &Scope, actions: &[(&'static str, Describe)]) -> Asked {
    let shown = scope.to_string();
    let mut asked = Asked { lines: Vec::new(), ahead: None, clock: None };
    let mut closed = None;
    for (name, action) in actions {
        if closed.is_some() {
            asked.lines.push(Line::skipped(name, &shown, "the region cannot be asked"));
            continue;
        }
        let answer = ec2.dry_run(scope, *action).await;
        // The first answer also says what the region is.
        if *name == LISTING {
            let (line, is_open) = region(&shown, &answer);
            asked.lines.push(line);
            if !is_open {
                closed = answer.err();
                asked.lines.push(Line::skipped(name, &shown, "the region cannot be asked"));
                continue;
            }
        }
        asked.lines.push(match answer {
            Ok(Permission { is_done, ahead }) => {
                asked.ahead = ahead.or(asked.ahead);
                let how = if is_done { "permitted, by a call: the endpoint knows no dry run" } else { "permitted" };
                Line::ok(name, &shown, how)
            }
            // Only where they are wanted, and the sweep does without.
            Err(fault) if *action == Describe::Images => {
                Line::warning(name, &shown, fault.to_string(), fault.kind.remedy())
            }
            Err(fault) => Line::failed(name, &shown, &fault),
        });
    }
    asked.clock = closed.filter(|fault| fault.kind == FaultKind::Clock);
    asked
}

/// What the region is by the answer to a listing, and whether it is worth asking more.
fn region(scope: &str, answer: &Result<Permission, Fault>) -> (Line, bool) {
    match answer {
        Ok(_) => (Line::ok("region", scope, "enabled"), true),
        // It took the signature.
        Err(fault) if matches!(fault.kind, FaultKind::Denied | FaultKind::InvalidRequest) => {
            (Line::ok("region", scope, "enabled"), true)
        }
        Err(fault) => (Line::failed("region", scope, fault), false),
    }
}

/// How far apart the clocks are, by the answer that is the furthest off.
fn clock(source: &str, asked: &BTreeMap<Scope, Asked>) -> Option<Line> {
    const WHAT: &str = "clock";
    if let Some(fault) = asked.values().find_map(|asked| asked.clock.as_ref()) {
        return Some(Line::failed(WHAT, source, fault));
    }
    let furthest = asked.values().filter_map(|asked| asked.ahead).max_by_key(TimeDelta::abs)?;
    let seconds = furthest.num_seconds();
    let side = if seconds < 0 { "ahead of" } else { "behind" };
    let detail = format!("this machine's is {} s {side} AWS's", seconds.abs());
    Some(match furthest.abs() {
        // A `Date` has no fractions.
        off if off <= TimeDelta::seconds(2) => Line::ok(WHAT, source, "agrees with AWS's"),
        off if off <= CLOCK_DOUBTFUL => Line::ok(WHAT, source, detail),
        off if off <= CLOCK_REFUSED => Line::warning(WHAT, source, detail, FaultKind::Clock.remedy()),
        _ => Line::failed(WHAT, source, &Fault::new(FaultKind::Clock, detail)),
    })
}
