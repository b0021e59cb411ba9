//! The state of a process in one document.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use prometheus::IntGaugeVec;
use serde::Serialize;

use super::history::{EVERY, Sample, sum, values};
use super::latest::Change;
use super::{Board, Restoring};
use crate::collector::fault::Fault;
use crate::collector::health::{Next, State, Status};
use crate::collector::source::Scope;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// A scope is stale without a complete sweep for so many of its intervals,
const STALE_INTERVALS: i32 = 3;
/// and so much more: as the alert has it.
const STALE_BEYOND: TimeDelta = TimeDelta::minutes(10);

/// What is reported on.
#[derive(Clone)]
pub struct Watched {
    /// How the process is called.
    pub instance_id: String,
    /// When it started.
    pub started: Instant,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// Its health.
    pub health: Arc<Health>,
    /// What its stages tell beside.
    pub board: Arc<Board>,
}

/// How much somebody may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// All of it.
    Operator,
    /// Nothing that can tell of a device: no changes, no keys, and of a fault its kind but not its words, which are AWS's.
    Passerby,
}

/// The document.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When it was made.
    pub at: DateTime<Utc>,
    /// Of the program.
    pub version: &'static str,
    /// How the process is called.
    pub instance_id: String,
    /// For how long it has run.
    pub up_seconds: u64,
    /// What it waits for before it is ready, and why.
    pub waiting_for: BTreeMap<String, String>,
    /// Loops that seem stuck, and for how many seconds.
    pub stuck_seconds: BTreeMap<String, u64>,
    /// Stage 1, where it runs.
    pub collector: Option<CollectorReport>,
    /// Stage 2, where it runs.
    pub mapper: Option<MapperReport>,
    /// Rejected records since the start, by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Between two samples.
    pub sample_seconds: u64,
    /// How it went lately, the oldest first.
    pub samples: Vec<Sample>,
    /// The latest changes, the latest first; `None`: not for these eyes.
    pub changes: Option<Vec<Change>>,
}

/// Stage 1.
#[derive(Debug, Clone, Serialize)]
pub struct CollectorReport {
    /// By name.
    pub sources: Vec<SourceReport>,
    /// Those in error first.
    pub scopes: Vec<ScopeReport>,
}

/// A source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// Its state; `None` before it has one.
    pub state: Option<&'static str>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// Why it is in state Error.
    pub fault: Option<FaultReport>,
    /// Between two sweeps of a scope.
    pub interval_seconds: Option<u64>,
    /// Its scopes that are swept here.
    pub scopes: usize,
    /// Of these, in state Error.
    pub in_error: usize,
}

/// A scope.
#[derive(Debug, Clone, Serialize)]
pub struct ScopeReport {
    /// Its source.
    pub source: String,
    /// Its account.
    pub account: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Its state; `None` before its first sweep by this process.
    pub state: Option<&'static str>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// Why it is in state Error.
    pub fault: Option<FaultReport>,
    /// When the last complete sweep began.
    pub last_complete: Option<DateTime<Utc>>,
    /// Whether that is long ago.
    pub is_stale: bool,
    /// When the next sweep is due.
    pub next_sweep: Option<DateTime<Utc>>,
    /// Whether it is being swept.
    pub is_sweeping: bool,
    /// Instances known.
    pub known: Option<u64>,
    /// Of these, missed by a complete sweep.
    pub suspects: Option<u64>,
}

/// What is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct FaultReport {
    /// Who has to act.
    pub class: &'static str,
    /// What kind it is.
    pub kind: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// In words; `None`: not for these eyes.
    pub message: Option<String>,
}

/// Stage 2.
#[derive(Debug, Clone, Serialize)]
pub struct MapperReport {
    /// By number.
    pub partitions: Vec<PartitionReport>,
    /// The restores under way, by engine.
    pub restoring: BTreeMap<String, Restoring>,
    /// Memory of the devices, in bytes,
    pub state_bytes: u64,
    /// and what it may be.
    pub max_state_bytes: u64,
}

/// A raw partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionReport {
    /// Its number.
    pub partition: i32,
    /// Whose it is.
    pub engine: String,
    /// `waiting`, `restoring`, `running` or `held`.
    pub phase: &'static str,
    /// Devices known of it.
    pub devices: usize,
    /// Records that are still to be read.
    pub lag_records: Option<u64>,
    /// Age of what is still to be read.
    pub lag_seconds: Option<f64>,
    /// Why it is held.
    pub held: Option<String>,
}

impl Report {
    /// As it is now.
    pub fn of(watched: &Watched, sight: Sight) -> Self {
        let Watched { instance_id, started, metrics, health, board } = watched;
        let now = Utc::now();
        let mut dead_letters: BTreeMap<_, _> = values(&metrics.mapper.dead_letters)
            .into_iter()
            .map(|(kind, count)| (kind.concat(), count as u64))
            .collect();
        let unnamed = sum(&metrics.collector.dead_letters) as u64;
        if unnamed > 0 {
            *dead_letters.entry("no-instance-id".to_owned()).or_default() += unnamed;
        }
        Self {
            at: now,
            version: env!("CARGO_PKG_VERSION"),
            instance_id: instance_id.clone(),
            up_seconds: started.elapsed().as_secs(),
            waiting_for: health.waiting_for(),
            stuck_seconds: health.stuck().into_iter().map(|(part, age)| (part, age.as_secs())).collect(),
            collector: collector(board, metrics, sight, now),
            mapper: mapper(board, metrics, sight),
            dead_letters,
            sample_seconds: EVERY.as_secs(),
            samples: board.history.samples(),
            changes: (sight == Sight::Operator).then(|| board.latest.all()),
        }
    }
}

fn collector(board: &Board, metrics: &Metrics, sight: Sight, now: DateTime<Utc>) -> Option<CollectorReport> {
    let standings = board.sources.get()?.standings();
    let table = |gauge: &IntGaugeVec| -> BTreeMap<Vec<String>, i64> {
        values(gauge).into_iter().map(|(labels, value)| (labels, value as i64)).collect()
    };
    let metrics = &metrics.collector;
    let [last_complete, known, suspects] = [&metrics.last_complete, &metrics.known, &metrics.suspects].map(table);
    let intervals = table(&metrics.interval);
    let (mut sources, mut scopes) = (Vec::new(), Vec::new());
    for source in standings {
        let interval = intervals.get(&vec![source.name.clone()]).copied();
        let in_error = source.scopes.iter().filter(|(_, status, _)| is_error(status.as_ref())).count();
        for (scope, status, next) in &source.scopes {
            let [name, account, region] = scope.labels().map(str::to_owned);
            // A metric has them in the order of their names.
            let labels = vec![account, region, name];
            let last_complete = last_complete.get(&labels).and_then(|at| DateTime::from_timestamp(*at, 0));
            let too_old = interval.map(|seconds| TimeDelta::seconds(seconds) * STALE_INTERVALS + STALE_BEYOND);
            let count = |table: &BTreeMap<Vec<String>, i64>| table.get(&labels).map(|count| *count as u64);
            let Scope { source, account, region } = scope.clone();
            scopes.push(ScopeReport {
                source,
                account,
                region,
                state: status.as_ref().map(|status| status.state.name()),
                since: status.as_ref().map(|status| status.since),
                fault: fault(status.as_ref(), sight),
                last_complete,
                is_stale: last_complete.zip(too_old).is_some_and(|(at, too_old)| now - at > too_old),
                next_sweep: next.and_then(|next| if let Next::At(at) = next { Some(at) } else { None }),
                is_sweeping: *next == Some(Next::Now),
                known: count(&known),
                suspects: count(&suspects),
            });
        }
        sources.push(SourceReport {
            state: source.status.as_ref().map(|status| status.state.name()),
            since: source.status.as_ref().map(|status| status.since),
            fault: fault(source.status.as_ref(), sight),
            interval_seconds: interval.map(|seconds| seconds as u64),
            scopes: source.scopes.len(),
            in_error,
            name: source.name,
        });
    }
    // Stable: within, by source, account and region.
    scopes.sort_by_key(|scope| (scope.fault.is_none(), !scope.is_stale));
    Some(CollectorReport { sources, scopes })
}

fn is_error(status: Option<&Status>) -> bool {
    status.is_some_and(|status| status.state == State::Error)
}

fn fault(status: Option<&Status>, sight: Sight) -> Option<FaultReport> {
    let fault: &Fault = status?.fault.as_ref()?;
    Some(FaultReport {
        class: fault.class().name(),
        kind: fault.kind.name(),
        remedy: fault.kind.remedy(),
        message: (sight == Sight::Operator).then(|| crate::inert::inert(&fault.message)),
    })
}

fn mapper(board: &Board, metrics: &Metrics, sight: Sight) -> Option<MapperReport> {
    let engines = board.engines();
    if engines.is_empty() {
        return None;
    }
    let reasons = board.reasons();
    let by_partition = |values: Vec<(Vec<String>, f64)>| -> BTreeMap<String, f64> {
        values.into_iter().map(|(labels, value)| (labels.concat(), value)).collect()
    };
    let metrics = &metrics.mapper;
    let lag_records = by_partition(values(&metrics.lag_records));
    let lag_seconds = by_partition(values(&metrics.lag_seconds));
    let mut partitions = Vec::new();
    let mut restoring = BTreeMap::new();
    for (name, engine) in engines {
        for standing in engine.partitions {
            let reason = reasons.get(&standing.partition).filter(|_| standing.phase == "held");
            let label = standing.partition.to_string();
            partitions.push(PartitionReport {
                partition: standing.partition,
                engine: name.clone(),
                phase: standing.phase,
                devices: standing.devices,
                lag_records: lag_records.get(&label).map(|records| *records as u64),
                lag_seconds: lag_seconds.get(&label).copied(),
                held: reason.map(|reason| match sight {
                    Sight::Operator => reason.to_string(),
                    Sight::Passerby => reason.shown.clone(),
                }),
            });
        }
        restoring.extend(engine.restoring.map(|progress| (name, progress)));
    }
    partitions.sort_by_key(|partition| partition.partition);
    let [state_bytes, max_state_bytes] =
        [&metrics.state_bytes, &metrics.max_state_bytes].map(|gauge| sum(gauge) as u64);
    Some(MapperReport { partitions, restoring, state_bytes, max_state_bytes })
}
