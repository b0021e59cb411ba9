//! One invented instance, and what can happen to it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use fastrand::Rng;

use super::catalog::{ENVIRONMENTS, EXTRA_GROUPS, Kind, OWNERS, SUFFIXES, Size, Trait};

/// As many as the smallest instance types take.
const MAX_INTERFACES: usize = 3;

/// Something that happens to a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Launch,
    Terminate,
    Stop,
    Start,
    Resize,
    Rename,
    HandOver,
    AddGroup,
    DropGroup,
    /// EC2 cannot rename a group: who wants a new name makes a new group.
    ReplaceGroup,
    AddInterface,
    AttachProfile,
}

/// What an instance goes through. It stops and starts between two sweeps, as real ones mostly do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Stopped,
    ShuttingDown,
    /// Listed for so many intervals.
    Terminated(u8),
    /// No longer listed.
    Forgotten,
}

impl Phase {
    /// What follows by itself.
    pub fn next(self) -> Option<Self> {
        match self {
            Phase::Pending => Some(Phase::Running),
            Phase::ShuttingDown => Some(Phase::Terminated(2)),
            Phase::Terminated(2..) => Some(Phase::Terminated(1)),
            Phase::Terminated(_) => Some(Phase::Forgotten),
            Phase::Running | Phase::Stopped | Phase::Forgotten => None,
        }
    }
}

/// An instance. Whatever never changes, such as its ID, follows from the serial number.
pub struct Machine {
    pub serial: u64,
    pub kind: &'static Kind,
    pub size: &'static Size,
    pub phase: Phase,
    /// When somebody last stopped, started or terminated it.
    pub phase_since: DateTime<Utc>,
    pub launched: DateTime<Utc>,
    pub started: DateTime<Utc>,
    /// How often it was started again, each time with another public address.
    pub restarts: u64,
    /// When each of its interfaces was attached, the primary one first.
    pub interfaces: Vec<DateTime<Utc>>,
    pub groups: Vec<String>,
    pub has_profile: bool,
    pub tags: BTreeMap<&'static str, String>,
    /// The interval in which it last changed.
    pub touched: u64,
}

impl Machine {
    /// A new one, pending.
    pub fn launch(serial: u64, kind: &'static Kind, now: DateTime<Utc>, rng: &mut Rng) -> Self {
        let (role, _, platform, _, groups) = kind;
        let mut machine = Self {
            serial,
            kind,
            size: &platform.4[rng.usize(..platform.4.len())],
            phase: Phase::Pending,
            phase_since: now,
            launched: now,
            started: now,
            restarts: 0,
            interfaces: vec![now],
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            has_profile: false,
            tags: BTreeMap::new(),
            touched: 0,
        };
        machine.has_profile = machine.is(Trait::Profiled);
        if !machine.is(Trait::Untagged) {
            machine.tags.insert("env", machine.environment().to_owned());
            machine.tags.insert("owner", OWNERS[rng.usize(..OWNERS.len())].to_owned());
            machine.tags.insert("cost-center", format!("cc-{}", rng.u16(1_000..10_000)));
        }
        if machine.is(Trait::Scaled) {
            machine.tags.insert("aws:autoscaling:groupName", format!("{role}-{}", machine.environment()));
        }
        if !machine.is(Trait::Unnamed) {
            machine.tags.insert("Name", machine.first_name());
        }
        machine
    }

    /// Whether it is of a kind with this trait.
    pub fn is(&self, which: Trait) -> bool {
        self.kind.3.contains(&which)
    }

    /// Changes; `false` if it is not in a condition to change in this way.
    pub fn undergo(&mut self, change: Change, now: DateTime<Utc>, rng: &mut Rng) -> bool {
        let is_running = self.phase == Phase::Running;
        let is_stopped = self.phase == Phase::Stopped;
        if !is_running && !is_stopped {
            return false;
        }
        let sizes = self.kind.2.4;
        match change {
            Change::Terminate => self.enter(Phase::ShuttingDown, now),
            // An auto scaling group would replace it, a spot request ends with it.
            Change::Stop if is_running && !self.is(Trait::Scaled) && !self.is(Trait::Spot) => {
                self.enter(Phase::Stopped, now);
            }
            Change::Start if is_stopped => {
                self.enter(Phase::Running, now);
                self.started = now;
                self.restarts += 1;
            }
            Change::Resize if is_stopped && sizes.len() > 1 => {
                let others: Vec<_> = sizes.iter().filter(|size| *size != self.size).collect();
                self.size = others[rng.usize(..others.len())];
            }
            Change::Rename => self.retag("Name", SUFFIXES.map(|suffix| self.first_name() + suffix), rng),
            Change::HandOver if self.tags.contains_key("owner") => {
                self.retag("owner", OWNERS.map(str::to_owned), rng);
            }
            Change::AddGroup => match EXTRA_GROUPS.iter().find(|extra| !self.groups.iter().any(|old| old == *extra)) {
                Some(&extra) => self.groups.push(extra.to_owned()),
                None => return false,
            },
            Change::DropGroup if self.groups.len() > 1 => {
                self.groups.remove(rng.usize(..self.groups.len()));
            }
            Change::ReplaceGroup => {
                let index = rng.usize(..self.groups.len());
                let old = &self.groups[index];
                self.groups[index] = old.strip_suffix("-v2").map_or_else(|| format!("{old}-v2"), str::to_owned);
            }
            Change::AddInterface if is_running && self.interfaces.len() < MAX_INTERFACES => {
                self.interfaces.push(now);
            }
            Change::AttachProfile if !self.has_profile => self.has_profile = true,
            _ => return false,
        }
        true
    }

    fn enter(&mut self, phase: Phase, now: DateTime<Utc>) {
        self.phase = phase;
        self.phase_since = now;
    }

    /// Gives a tag another one of these values.
    fn retag<const N: usize>(&mut self, key: &'static str, values: [String; N], rng: &mut Rng) {
        let old = self.tags.get(key);
        let others: Vec<_> = values.into_iter().filter(|value| old != Some(value)).collect();
        self.tags.extend(rng.choice(others).map(|value| (key, value)));
    }

    fn environment(&self) -> &'static str {
        ENVIRONMENTS[self.serial as usize % ENVIRONMENTS.len()]
    }

    /// The name that it is launched with.
    fn first_name(&self) -> String {
        format!("{}-{}-{:02}", self.kind.0, self.environment(), self.serial)
    }
}
