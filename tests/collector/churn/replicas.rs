//! Three collectors and what is done to them. One that was killed is started again at once, as a supervisor would.

use std::time::Duration;

use serde_json::Value;

use super::super::AWS;
use crate::support::process::Stage;

const ASSIGNED: &str = "sweeps: partitions assigned";
const RESTORED: &str = "sweeps: partition restored";
const GIVEN_UP: &str = "sweeps: partitions given up";
const OPENED: &str = "transaction opened";
const COMMITTED: &str = "transaction committed";
const FAILED: &str = "transaction failed, its pages will be published again";
const COMPLETE: &str = "sweep complete";

/// How long the wanted moment is waited for. Then any moment will do.
const PATIENCE: Duration = Duration::from_secs(15);

/// When a collector is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Soon after partitions were assigned to the one that was started last.
    Restore,
    /// Soon after it opened a transaction.
    Transaction,
    /// While it sweeps, more or less.
    Sweep,
    AnyTime,
}

/// What was done to the collectors, and what they told.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
pub struct Told {
    pub killed_in_restore: usize,
    pub killed_in_transaction: usize,
    /// Between two transactions of a sweep.
    pub killed_in_sweep: usize,
    pub killed_otherwise: usize,
    /// Partitions that others restored while their owner was frozen.
    pub taken_over_while_frozen: usize,
    pub deposed: usize,
    pub opened: usize,
    pub committed: usize,
    pub failed: usize,
    pub complete_sweeps: usize,
    pub incomplete_sweeps: usize,
    /// The logs of those that ended by themselves.
    pub ended: Vec<String>,
}

/// Three collectors.
pub struct Replicas {
    stages: Vec<Stage>,
    configs: Vec<Value>,
    random: fastrand::Rng,
    /// The one that was started last.
    last: usize,
    told: Told,
}

impl Replicas {
    pub fn start(config: &Value, seed: u64) -> Self {
        let named = |name: &str| {
            let mut config = config.clone();
            config["instance_id"] = name.into();
            config
        };
        let configs = ["a", "b", "c"].map(named).to_vec();
        let mut stages: Vec<_> = configs.iter().map(start).collect();
        stages.iter_mut().for_each(Stage::wait_until_ready);
        Self { stages, configs, random: fastrand::Rng::with_seed(seed), last: 0, told: Told::default() }
    }

    pub fn kills(&self) -> usize {
        let Told { killed_in_restore, killed_in_transaction, killed_in_sweep, killed_otherwise, .. } = self.told;
        killed_in_restore + killed_in_transaction + killed_in_sweep + killed_otherwise
    }

    /// Kills one of them.
    pub fn kill(&mut self, moment: Moment) {
        self.revive();
        let index = if moment == Moment::Restore { self.last } else { self.random.usize(0..self.stages.len()) };
        let stage = &mut self.stages[index];
        if moment != Moment::Restore {
            stage.tail();
        }
        let delay = match moment {
            Moment::AnyTime => self.random.u64(0..1500),
            Moment::Transaction | Moment::Sweep => {
                stage.try_wait_for(&[OPENED], PATIENCE);
                self.random.u64(if moment == Moment::Sweep { 0..300 } else { 0..8 })
            }
            Moment::Restore => {
                // Partitions move with the kill before, and come back with the restart.
                while let Some(assigned) = stage.try_wait_for(&[ASSIGNED], PATIENCE) {
                    if assigned["partitions"] != "[]" {
                        break;
                    }
                }
                self.random.u64(0..60)
            }
        };
        std::thread::sleep(Duration::from_millis(delay));
        self.strike(index);
    }

    /// Kills it, notes what it was at, and starts it again.
    fn strike(&mut self, index: usize) {
        self.stages[index].kill();
        let stage = std::mem::replace(&mut self.stages[index], start(&self.configs[index]));
        self.last = index;
        let log = self.bury(stage);
        let last = |message: &str| log.iter().rposition(|event| event["message"] == *message);
        if last(ASSIGNED) > last(RESTORED) && last(ASSIGNED) > last(GIVEN_UP) {
            self.told.killed_in_restore += 1;
        } else if last(OPENED) > last(COMMITTED).max(last(FAILED)) {
            self.told.killed_in_transaction += 1;
        } else if last(COMMITTED) > last(COMPLETE) {
            self.told.killed_in_sweep += 1;
        } else {
            self.told.killed_otherwise += 1;
        }
    }

    /// Freezes one of them within a transaction, for longer than the group waits for it.
    pub fn freeze(&mut self, length: Duration) {
        self.revive();
        let index = self.random.usize(0..self.stages.len());
        self.stages.iter_mut().for_each(|stage| drop(stage.tail()));
        self.stages[index].try_wait_for(&[OPENED], PATIENCE);
        std::thread::sleep(Duration::from_millis(self.random.u64(0..10)));
        self.stages[index].signal("STOP");
        let before: usize = self.count(RESTORED);
        std::thread::sleep(length);
        let after = self.count(RESTORED);
        self.stages[index].signal("CONT");
        self.told.taken_over_while_frozen += after - before;
        let stage = &mut self.stages[index];
        self.told.deposed += usize::from(stage.try_wait_for(&[GIVEN_UP], PATIENCE).is_some());
    }

    /// How often all of them have told something since their starts.
    fn count(&mut self, message: &str) -> usize {
        let of = |stage: &mut Stage| {
            stage.tail();
            stage.seen.iter().filter(|event| event["message"] == *message).count()
        };
        self.stages.iter_mut().map(of).sum()
    }

    /// Lets time pass, for what nothing tells the end of.
    pub fn wait(&mut self, duration: Duration) {
        std::thread::sleep(duration);
        self.revive();
    }

    /// Starts those that ended by themselves, as their supervisor would. That is noted: none should.
    fn revive(&mut self) {
        for index in 0..self.stages.len() {
            if self.stages[index].has_ended() {
                let mut stage = std::mem::replace(&mut self.stages[index], start(&self.configs[index]));
                self.told.ended.push(stage.tail());
                self.bury(stage);
            }
        }
    }

    /// Takes over the log of one that is dead.
    fn bury(&mut self, mut stage: Stage) -> Vec<Value> {
        // It ends with the pipe.
        stage.try_wait_for(&[], Duration::from_secs(5));
        let log = std::mem::take(&mut stage.seen);
        let count = |message: &str| log.iter().filter(|event| event["message"] == *message).count();
        self.told.opened += count(OPENED);
        self.told.committed += count(COMMITTED);
        self.told.failed += count(FAILED);
        self.told.complete_sweeps += count(COMPLETE);
        self.told.incomplete_sweeps += count("sweep incomplete");
        log
    }

    /// Stops them in order.
    pub fn stop(mut self) -> Told {
        for mut stage in std::mem::take(&mut self.stages) {
            stage.signal("TERM");
            let ended = stage.wait(Duration::from_secs(20));
            assert_eq!(ended.code(), Some(0), "{}", stage.tail());
            self.bury(stage);
        }
        self.told
    }
}

fn start(config: &Value) -> Stage {
    Stage::start_with_env(&["collect"], config, &AWS)
}
