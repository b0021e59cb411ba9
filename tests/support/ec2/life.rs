//! A fleet that changes all the time, at random.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::FastEc2;

/// Between two changes. So slow that no breaker trips over what vanishes while nobody looks for a minute.
const PACE: Duration = Duration::from_millis(50);

/// Longer than anything is put off.
const LONG: Duration = Duration::from_secs(3600);

/// How often what happened.
#[derive(Debug, Default, Clone, Copy)]
#[allow(dead_code, reason = "printed")]
pub struct Changes {
    tagged: usize,
    stopped_or_started: usize,
    launched: usize,
    /// Launched, and gone some seconds later.
    brief: usize,
    terminated: usize,
    vanished: usize,
    /// Not shown for a moment.
    flickered: usize,
}

/// What is to happen to an instance later on.
enum Plan {
    Vanish,
    Reappear,
}

/// An instance that somebody has.
struct Living {
    id: String,
    is_stopped: bool,
}

/// The changes, until they are ended.
pub struct Life {
    ec2: Arc<FastEc2>,
    stop: Arc<AtomicBool>,
    hurry: Arc<AtomicBool>,
    thread: JoinHandle<Changes>,
}

impl Life {
    pub fn begin<const A: usize, const R: usize>(
        ec2: FastEc2,
        accounts: [&'static str; A],
        regions: [&'static str; R],
        seed: u64,
    ) -> Self {
        let (ec2, stop, hurry) = (Arc::new(ec2), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut world = World {
            living: ec2.alive().into_keys().map(|id| Living { id, is_stopped: false }).collect(),
            ec2: ec2.clone(),
            random: fastrand::Rng::with_seed(seed),
            plans: VecDeque::new(),
            changes: Changes::default(),
            accounts: accounts.to_vec(),
            regions: regions.to_vec(),
        };
        let thread = std::thread::spawn({
            let (stop, hurry) = (stop.clone(), hurry.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    world.change();
                    let is_hurried = hurry.swap(false, Ordering::Relaxed);
                    world.follow_plans(Instant::now() + if is_hurried { LONG } else { Duration::ZERO });
                    std::thread::sleep(PACE);
                }
                world.follow_plans(Instant::now() + LONG);
                world.changes
            }
        });
        Self { ec2, stop, hurry, thread }
    }

    /// What was to happen later on happens now. After a kill: what only the sweep that died has published is gone before
    /// the next.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Ends the changes, with those that were planned.
    pub fn end(self) -> (Arc<FastEc2>, Changes) {
        self.stop.store(true, Ordering::Relaxed);
        (self.ec2, self.thread.join().unwrap())
    }
}

struct World {
    ec2: Arc<FastEc2>,
    random: fastrand::Rng,
    living: Vec<Living>,
    /// Each with its time.
    plans: VecDeque<(Instant, Plan, String)>,
    changes: Changes,
    accounts: Vec<&'static str>,
    regions: Vec<&'static str>,
}

impl World {
    fn change(&mut self) {
        let what = self.random.u8(0..100);
        let index = self.random.usize(0..self.living.len());
        let living = &mut self.living[index];
        match what {
            0..46 => {
                let (key, value) = (["Name", "Team", "Owner"][self.random.usize(0..3)], self.random.u32(..));
                // Never the last one: that is another story.
                let value = (key != "Owner" || value % 2 == 0).then(|| format!("value-{value}"));
                self.ec2.retag(&living.id, key, value.as_deref());
                self.changes.tagged += 1;
            }
            46..72 => {
                match living.is_stopped {
                    true => self.ec2.start_again(&living.id),
                    false => self.ec2.stop(&living.id),
                }
                living.is_stopped = !living.is_stopped;
                self.changes.stopped_or_started += 1;
            }
            72..76 => {
                let id = self.launch();
                self.living.push(Living { id, is_stopped: false });
                self.changes.launched += 1;
            }
            76..90 => {
                let id = self.launch();
                self.plan(Plan::Vanish, id, 1000..8000);
                self.changes.brief += 1;
            }
            90..92 => {
                let id = self.living.swap_remove(index).id;
                self.ec2.terminate(&id);
                if self.random.bool() {
                    self.plan(Plan::Vanish, id, 2000..25_000);
                }
                self.changes.terminated += 1;
            }
            92..94 => {
                self.ec2.vanish(&self.living.swap_remove(index).id);
                self.changes.vanished += 1;
            }
            _ => {
                let id = self.living.swap_remove(index).id;
                self.ec2.vanish(&id);
                self.plan(Plan::Reappear, id, 100..3000);
                self.changes.flickered += 1;
            }
        }
    }

    fn launch(&mut self) -> String {
        let account = self.accounts[self.random.usize(0..self.accounts.len())];
        let region = self.regions[self.random.usize(0..self.regions.len())];
        self.ec2.launch(account, region)
    }

    fn plan(&mut self, plan: Plan, id: String, milliseconds: std::ops::Range<u64>) {
        let at = Instant::now() + Duration::from_millis(self.random.u64(milliseconds));
        self.plans.push_back((at, plan, id));
    }

    fn follow_plans(&mut self, now: Instant) {
        for _ in 0..self.plans.len() {
            let Some((at, plan, id)) = self.plans.pop_front() else { return };
            match plan {
                _ if at > now => self.plans.push_back((at, plan, id)),
                Plan::Vanish => self.ec2.vanish(&id),
                Plan::Reappear => {
                    self.ec2.start_again(&id);
                    self.living.push(Living { id, is_stopped: false });
                }
            }
        }
    }
}
