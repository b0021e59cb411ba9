//! Replicas of a stage and what is done to them. One that was killed is started again at once, as a supervisor would.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::process::Stage;

/// How long the wanted moment is waited for. Then any moment will do.
const PATIENCE: Duration = Duration::from_secs(15);

/// A stage, and what it logs at which moment of its life.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub command: &'static str,
    pub env: &'static [(&'static str, &'static str)],
    /// It begins to restore partitions; with none of them where it lists them and the list is empty.
    pub restoring: &'static str,
    pub restored: &'static str,
    pub given_up: &'static [&'static str],
    pub opened: &'static str,
    pub committed: &'static str,
    pub failed: &'static str,
    /// Ends a piece of work that takes several transactions.
    pub done: Option<&'static str>,
    /// How long a transaction stays open before its commit begins.
    pub stays_open: Duration,
}

/// When a replica is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Soon after partitions were assigned to the one that was started last.
    Restore,
    /// Soon after it opened a transaction.
    Transaction,
    /// While it is at a piece of work, more or less.
    Work,
    AnyTime,
}

/// What was done to the replicas, and what they told.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
pub struct Told {
    pub killed_in_restore: usize,
    pub killed_in_transaction: usize,
    /// Between two transactions of a piece of work.
    pub killed_in_work: usize,
    pub killed_otherwise: usize,
    pub stopped: usize,
    pub frozen: usize,
    /// Partitions that others restored while their owner was frozen.
    pub taken_over_while_frozen: usize,
    pub deposed: usize,
    /// Certainly frozen inside a transaction, which others could take over meanwhile,
    pub zombies: usize,
    /// and told of its commit when they woke: rightly where Kafka had the order already, for a rebalance that is under way
    /// makes a mapper commit early. One that was wrong would be among the events, twice.
    pub zombies_that_committed: usize,
    /// The logs of those that ended by themselves.
    pub ended: Vec<String>,
    /// How often something was logged, by us.
    pub said: BTreeMap<String, usize>,
}

/// Replicas of a stage, as a rule three.
pub struct Replicas {
    kind: Kind,
    /// More for their environment than all of their kind have.
    env: Vec<(String, String)>,
    stages: Vec<Stage>,
    configs: Vec<Value>,
    random: fastrand::Rng,
    /// The one that was started last.
    last: usize,
    told: Told,
}

impl Replicas {
    pub fn start(kind: Kind, config: &Value, seed: u64) -> Self {
        let mut replicas = Self::launch(kind, &["a", "b", "c"], config, Vec::new(), seed);
        replicas.wait_until_ready();
        replicas
    }

    /// Starts some of these names, and does not wait for them.
    pub fn launch(kind: Kind, names: &[&str], config: &Value, env: Vec<(String, String)>, seed: u64) -> Self {
        let named = |name: &str| {
            let mut config = config.clone();
            config["instance_id"] = name.into();
            config
        };
        let configs: Vec<_> = names.iter().map(|name| named(name)).collect();
        let stages = configs.iter().map(|config| kind.start(config, &env)).collect();
        Self { kind, env, stages, configs, random: fastrand::Rng::with_seed(seed), last: 0, told: Told::default() }
    }

    pub fn wait_until_ready(&mut self) {
        self.stages.iter_mut().for_each(Stage::wait_until_ready);
    }

    /// Waits until one of them logs that.
    pub fn wait_for(&mut self, message: &str) {
        super::wait_for(message, Duration::from_secs(180), || (self.said(message) > 0).then_some(()));
    }

    /// How often all that ever were have told something.
    pub fn said(&mut self, message: &str) -> usize {
        self.count(message) + self.told.said.get(message).copied().unwrap_or_default()
    }

    pub fn kills(&self) -> usize {
        let Told { killed_in_restore, killed_in_transaction, killed_in_work, killed_otherwise, .. } = self.told;
        killed_in_restore + killed_in_transaction + killed_in_work + killed_otherwise
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
            Moment::Transaction | Moment::Work => {
                stage.try_wait_for(&[self.kind.opened], PATIENCE);
                self.random.u64(if moment == Moment::Work { 0..300 } else { 0..8 })
            }
            Moment::Restore => {
                // Partitions move with the kill before, and come back with the restart.
                while let Some(restoring) = stage.try_wait_for(&[self.kind.restoring], PATIENCE) {
                    if restoring["partitions"] != "[]" {
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
        let log = self.replace(index);
        let last = |message: &str| log.iter().rposition(|event| event["message"] == *message);
        let Kind { restoring, restored, given_up, opened, committed, failed, done, .. } = self.kind;
        let given_up = given_up.iter().filter_map(|message| last(message)).max();
        if last(restoring) > last(restored) && last(restoring) > given_up {
            self.told.killed_in_restore += 1;
        } else if last(opened) > last(committed).max(last(failed)) {
            self.told.killed_in_transaction += 1;
        } else if done.is_some_and(|done| last(committed) > last(done)) {
            self.told.killed_in_work += 1;
        } else {
            self.told.killed_otherwise += 1;
        }
    }

    /// Stops one of them in order, once it is ready, and starts it again.
    pub fn restart(&mut self) {
        self.revive();
        let index = self.random.usize(0..self.stages.len());
        self.stages[index].wait_until_ready();
        self.end(index);
        self.told.stopped += 1;
        self.replace(index);
    }

    /// Freezes one of them within a transaction, for longer than the group waits for it.
    pub fn freeze(&mut self, length: Duration) {
        self.revive();
        let Kind { restored, given_up, opened, committed, failed, stays_open, .. } = self.kind;
        let index = self.random.usize(0..self.stages.len());
        self.stages.iter_mut().for_each(|stage| drop(stage.tail()));
        let began = self.stages[index].try_wait_for(&[opened], PATIENCE);
        std::thread::sleep(Duration::from_millis(self.random.u64(0..10)));
        self.stages[index].signal("STOP");
        // By the clock and not by the log: what it does next may have been done and not yet told.
        let is_inside = began.is_some_and(|began| age(&began) < stays_open);
        let before: usize = self.count(restored);
        std::thread::sleep(length);
        let after = self.count(restored);
        let stage = &mut self.stages[index];
        stage.tail();
        stage.signal("CONT");
        self.told.frozen += 1;
        self.told.taken_over_while_frozen += after - before;
        if is_inside && after > before {
            self.told.zombies += 1;
            let outcomes = [&[committed, failed], given_up].concat();
            let outcome = stage.try_wait_for(&outcomes, PATIENCE);
            self.told.zombies_that_committed += usize::from(outcome.is_some_and(|event| event["message"] == committed));
        }
        let is_deposed = |event: &Value| given_up.iter().any(|message| event["message"] == *message);
        let is_told = stage.seen.last().is_some_and(is_deposed) || stage.try_wait_for(given_up, PATIENCE).is_some();
        self.told.deposed += usize::from(is_told);
    }

    /// Freezes one of them within a transaction, for so long.
    pub fn halt(&mut self, length: Duration) {
        self.revive();
        let stage = self.random.usize(0..self.stages.len());
        let stage = &mut self.stages[stage];
        stage.tail();
        stage.try_wait_for(&[self.kind.opened], PATIENCE);
        stage.signal("STOP");
        std::thread::sleep(length);
        stage.signal("CONT");
    }

    /// The ends of their logs.
    pub fn tails(&mut self) -> String {
        self.stages.iter_mut().map(Stage::tail).collect::<Vec<_>>().join("---\n")
    }

    /// How often all of them have told something since their starts.
    fn count(&mut self, message: &str) -> usize {
        let of = |stage: &mut Stage| {
            stage.tail();
            stage.seen.iter().filter(|event| event["message"] == *message).count()
        };
        self.stages.iter_mut().map(of).sum()
    }

    /// Waits until one of them ends by itself.
    pub fn wait_for_an_end(&mut self) {
        super::wait_for("a process to end by itself", Duration::from_secs(120), || {
            self.stages.iter_mut().any(Stage::has_ended).then_some(())
        });
    }

    /// How many have ended by themselves.
    pub fn ended(&self) -> usize {
        self.told.ended.len()
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
                let tail = self.stages[index].tail();
                self.told.ended.push(tail);
                self.replace(index);
            }
        }
    }

    /// Starts one that has ended again; its log.
    fn replace(&mut self, index: usize) -> Vec<Value> {
        let stage = std::mem::replace(&mut self.stages[index], self.kind.start(&self.configs[index], &self.env));
        self.last = index;
        self.bury(stage)
    }

    /// Takes over the log of one that is dead.
    fn bury(&mut self, mut stage: Stage) -> Vec<Value> {
        // It ends with the pipe.
        stage.try_wait_for(&[], Duration::from_secs(5));
        let log = std::mem::take(&mut stage.seen);
        if let Ok(folder) = std::env::var("ROLLCALL_TEST_LOGS") {
            let name = format!("{folder}/{}-{}.log", self.kind.command, uuid::Uuid::now_v7());
            std::fs::write(name, log.iter().map(|event| format!("{event}\n")).collect::<String>()).unwrap();
        }
        let messages = log.iter().filter_map(|event| event["message"].as_str());
        for message in messages.filter(|message| !message.starts_with("librdkafka")) {
            *self.told.said.entry(message.to_owned()).or_default() += 1;
        }
        log
    }

    fn end(&mut self, index: usize) {
        let stage = &mut self.stages[index];
        stage.signal("TERM");
        let ended = stage.wait(Duration::from_secs(60));
        assert_eq!(ended.code(), Some(0), "{}", stage.tail());
    }

    /// Waits until all of them have ended by themselves, with that code and these words.
    pub fn end_by_themselves(mut self, code: i32, words: &str) -> Told {
        for mut stage in std::mem::take(&mut self.stages) {
            let ended = stage.wait(Duration::from_secs(120));
            assert_eq!(ended.code(), Some(code), "{}", stage.tail());
            let log = self.bury(stage);
            assert!(log.iter().any(|event| event.to_string().contains(words)), "no {words:?} in {log:#?}");
        }
        self.told
    }

    /// Stops them in order.
    pub fn stop(mut self) -> Told {
        (0..self.stages.len()).for_each(|index| self.end(index));
        for stage in std::mem::take(&mut self.stages) {
            self.bury(stage);
        }
        self.told
    }
}

impl Kind {
    fn start(&self, config: &Value, more: &[(String, String)]) -> Stage {
        let more = more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let env: Vec<_> = self.env.iter().copied().chain(more).collect();
        Stage::start_with_env(&[self.command], config, &env)
    }
}

/// How long ago something was logged.
fn age(event: &Value) -> Duration {
    let at = event["timestamp"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok()).expect("a time");
    (Utc::now() - at.to_utc()).to_std().unwrap_or_default()
}
