//! An invented fleet that changes from sweep to sweep: what the demo and the load tests collect. Pure.
//!
//! One [`Fleet`] is one scope. Whatever it does follows from its seed and from the instants that it is given, so two
//! runs tell the same story. It looks like EC2, but its public addresses come from the ranges that are reserved for
//! benchmarks and documentation: no invented instance has the address of somebody's machine.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Map, Value};

use super::catalog;
use super::describe::Site;
use super::machine::{Change, Machine, Phase};

/// One change an interval for so many instances.
const INSTANCES_PER_CHANGE: usize = 25;
/// What happens, in turn: in this way a small fleet, too, goes through everything. As many launches as terminations, and
/// as many stops as starts: the fleet keeps its size.
const CHANGES: [Change; 16] = [
    Change::Launch,
    Change::Stop,
    Change::AddGroup,
    Change::Rename,
    Change::Terminate,
    Change::Start,
    Change::Resize,
    Change::HandOver,
    Change::Launch,
    Change::AttachProfile,
    Change::Stop,
    Change::ReplaceGroup,
    Change::Terminate,
    Change::AddInterface,
    Change::Start,
    Change::DropGroup,
];
/// At the start one instance of so many is stopped, if it is of a kind that is stopped at all.
const ONE_STOPPED_OF: u64 = 6;
/// Age of the oldest instance at the start.
const MAX_AGE_DAYS: i64 = 200;

/// The instances of one account in one region.
pub struct Fleet {
    site: Site,
    rng: Rng,
    machines: Vec<Machine>,
    /// How often the fleet has advanced.
    interval: u64,
    /// How many instances it ever had.
    launched: u64,
    /// Where its kinds begin, so that not all fleets are alike.
    first_kind: u64,
    /// How far it has come in [`CHANGES`].
    changed: usize,
}

impl Fleet {
    /// A fleet of so many instances, launched in the months before `now`.
    pub fn new(seed: u64, account: &str, region: &str, instances: usize, now: DateTime<Utc>) -> Self {
        let site = Site::new(seed, account, region);
        let now = now.trunc_subsecs(0);
        let mut rng = Rng::with_seed(site.number("fleet", ""));
        let mut fleet = Self {
            first_kind: rng.u64(..40),
            changed: rng.usize(..CHANGES.len()),
            rng,
            machines: Vec::new(),
            site,
            interval: 0,
            launched: 0,
        };
        for _ in 0..instances {
            let age = TimeDelta::seconds(fleet.rng.i64(3_600..MAX_AGE_DAYS * 86_400));
            fleet.launch(now - age);
        }
        let Self { machines, rng, .. } = &mut fleet;
        for machine in machines {
            machine.phase = Phase::Running;
            if machine.serial.is_multiple_of(ONE_STOPPED_OF) {
                let stopped = machine.launched + (now - machine.launched) / 2;
                machine.undergo(Change::Stop, stopped, rng);
            }
        }
        fleet
    }

    /// One interval passes: what was under way comes to its end, and a few percent of the instances change.
    pub fn advance(&mut self, now: DateTime<Utc>) {
        let now = now.trunc_subsecs(0); // EC2's instants are whole seconds
        self.interval += 1;
        for machine in &mut self.machines {
            if let Some(next) = machine.phase.next() {
                machine.phase = next;
                machine.touched = self.interval;
            }
        }
        self.machines.retain(|machine| machine.phase != Phase::Forgotten);
        for _ in 0..self.machines.len().div_ceil(INSTANCES_PER_CHANGE) {
            self.changed += 1;
            match CHANGES[self.changed % CHANGES.len()] {
                Change::Launch => self.launch(now),
                change => self.change_one(change, now),
            }
        }
    }

    /// The instances as the AWS CLI prints them, with their reservation's `OwnerId` and `ReservationId` merged in.
    pub fn instances(&self) -> Vec<Map<String, Value>> {
        self.machines.iter().map(|machine| machine.describe(&self.site)).collect()
    }

    fn launch(&mut self, now: DateTime<Utc>) {
        self.launched += 1;
        let kind = catalog::kind(self.first_kind + self.launched);
        let mut machine = Machine::launch(self.launched, kind, now, &mut self.rng);
        machine.touched = self.interval;
        self.machines.push(machine);
    }

    /// Changes any instance that can change so and has not changed in this interval; none, where there is none.
    fn change_one(&mut self, change: Change, now: DateTime<Utc>) {
        let Self { machines, rng, interval, .. } = self;
        let first = rng.usize(..=machines.len());
        let (before, after) = machines.split_at_mut(first);
        let mut candidates = after.iter_mut().chain(before).filter(|machine| machine.touched < *interval);
        let changed = candidates.find_map(|machine| machine.undergo(change, now, rng).then_some(machine));
        if let Some(machine) = changed {
            machine.touched = *interval;
        }
    }
}
