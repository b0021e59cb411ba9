//! The engine's view of the model: what one process has of Kafka in its memory, and everything that can go wrong there.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rollcall::mapper::port::{Committed, Fatal, Output, Port, Rebalance, Restored, Setback, TakeRecord, Unavailable};
use rollcall::record::RawRecord;

use super::kafka::{Fate, Kafka, Member, Producer, Refusal, Topic};

/// A fault of the program, planted to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A transaction is committed without the offsets to go on from.
    CommitWithoutOffsets,
    /// After an abort the records are not read again.
    NoRewindAfterAbort,
    /// A fenced producer goes on writing under the epoch of its successor.
    StaleEpoch,
    /// A restore does not wait for open transactions.
    ImpatientRestore,
}

/// What the processes of one run share.
pub struct World {
    pub kafka: Kafka,
    pub random: fastrand::Rng,
    /// How much goes wrong, in a thousand calls.
    pub trouble: u32,
    pub planted: Option<Planted>,
    pub now: Instant,
    /// What happened, for whoever looks at a seed.
    pub story: Vec<String>,
}

impl World {
    fn strikes(&mut self) -> bool {
        self.random.u32(..1000) < self.trouble
    }
}

/// One process' clients.
pub struct SimulatedPort {
    world: Rc<RefCell<World>>,
    id: usize,
    producer: Producer,
    member: Member,
    generation: u32,
    news: VecDeque<Rebalance>,
    /// Where each assigned partition stands; `None` where it is paused.
    assigned: BTreeMap<i32, Position>,
    /// What is being restored: the next offset, and the end.
    restoring: BTreeMap<i32, (usize, usize)>,
    is_fenced: bool,
    /// Whether it knows that it is no longer in the group.
    is_expelled: bool,
    has_crashed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    is_paused: bool,
}

/// How long it takes to be told of a record that is there.
pub const POLL: Duration = Duration::from_millis(5);

const CRASH: &str = "crash";

impl SimulatedPort {
    pub fn connect(world: &Rc<RefCell<World>>, id: usize) -> Self {
        let (producer, member, generation) = {
            let kafka = &mut world.borrow_mut().kafka;
            let producer = kafka.initialise(id);
            let member = kafka.join();
            (producer, member, kafka.generation())
        };
        Self {
            world: world.clone(),
            id,
            producer,
            member,
            generation,
            news: VecDeque::new(),
            assigned: BTreeMap::new(),
            restoring: BTreeMap::new(),
            is_fenced: false,
            is_expelled: false,
            has_crashed: false,
        }
    }

    pub fn member(&self) -> Member {
        self.member
    }

    fn tell(&self, what: &str) {
        self.world.borrow_mut().story.push(format!("{}: {what}", self.id));
    }

    /// The process dies before the next step.
    fn crashes(&mut self) -> bool {
        let mut world = self.world.borrow_mut();
        if !self.has_crashed && world.random.u32(..10_000) < world.trouble {
            self.has_crashed = true;
        }
        self.has_crashed
    }

    fn strikes(&self) -> bool {
        self.world.borrow_mut().strikes()
    }

    /// The client's background thread hears from the group.
    fn heartbeat(&mut self) {
        let world = &mut *self.world.borrow_mut();
        if world.trouble > 0 && world.random.u8(..4) > 0 {
            return;
        }
        if world.kafka.has_member(self.member) {
            self.news.extend(world.kafka.news(self.member));
        } else if self.assigned.is_empty() {
            self.member = world.kafka.join();
            self.is_expelled = false;
            self.news = world.kafka.news(self.member);
        } else {
            // It joins again when its owner has let go of what was lost.
            if !self.is_expelled {
                self.is_expelled = true;
                self.news = VecDeque::from([Rebalance::Lost(self.assigned.keys().copied().collect())]);
            }
            return;
        }
        self.generation = world.kafka.generation();
    }

    fn refused(&mut self, refusal: Refusal) -> Setback {
        match refusal {
            Refusal::Fenced => {
                self.is_fenced = true;
                Setback::Renew("fenced".to_owned())
            }
            Refusal::NotAMember => Setback::Abort("unknown member".to_owned()),
        }
    }
}

impl Port for SimulatedPort {
    fn now(&self) -> Instant {
        self.world.borrow().now
    }

    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<(), Fatal> {
        if self.crashes() {
            return Err(Fatal(CRASH.to_owned()));
        }
        self.heartbeat();
        let mut world = self.world.borrow_mut();
        world.now += POLL;
        if !self.news.is_empty() || (world.trouble > 0 && world.random.u8(..4) == 0) {
            return Ok(());
        }
        let has_more = |(partition, position): (&i32, &Position)| {
            let log = &world.kafka.raw[*partition as usize];
            (!position.is_paused && (position.next as usize) < log.len()).then_some(*partition)
        };
        let ready: Vec<_> = self.assigned.iter().filter_map(has_more).collect();
        let Some(partition) = world.random.choice(ready) else {
            world.now += timeout;
            return Ok(());
        };
        let position = self.assigned.get_mut(&partition).unwrap();
        let offset = position.next;
        position.next += 1;
        let Some(raw) = world.kafka.raw[partition as usize][offset as usize].clone() else { return Ok(()) };
        drop(world);
        take(RawRecord {
            partition,
            offset,
            timestamp_ms: 4_000_000_000_000,
            key: Some(raw.key.as_bytes()),
            value: raw.value.as_deref().map(str::as_bytes),
            headers: vec![("observed-at", Some(raw.observed_at.as_bytes()))],
        });
        Ok(())
    }

    fn rebalance(&mut self) -> Option<Rebalance> {
        self.news.pop_front()
    }

    fn assign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.tell(&format!("assigned {partitions:?}"));
        self.assigned.extend(partitions.iter().map(|number| (*number, Position { next: 0, is_paused: true })));
        Ok(())
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        self.tell(&format!("gives up {partitions:?}"));
        self.assigned.retain(|number, _| !partitions.contains(number));
        self.world.borrow_mut().kafka.release(self.member, partitions);
        Ok(())
    }

    fn resume(&mut self, partition: i32, offset: Option<i64>) -> Result<(), Fatal> {
        let planted = self.world.borrow().planted;
        let position = self.assigned.get_mut(&partition).expect("only what is assigned is resumed");
        if planted != Some(Planted::NoRewindAfterAbort) || position.next == 0 {
            position.next = offset.unwrap_or_default();
        }
        position.is_paused = false;
        Ok(())
    }

    fn pause(&mut self, partitions: &[i32]) -> Result<(), Fatal> {
        for partition in partitions {
            self.assigned.get_mut(partition).expect("only what is assigned is paused").is_paused = true;
        }
        Ok(())
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<Committed>>, Unavailable> {
        if self.crashes() || self.strikes() {
            return Err(Unavailable("no answer".to_owned()));
        }
        let kafka = &self.world.borrow().kafka;
        let unstable = |()| Unavailable("offsets are not stable".to_owned());
        let committed = |number| {
            let offset = kafka.committed(number).map_err(unstable)?;
            Ok((number, offset.map(|offset| Committed { offset, at: None })))
        };
        partitions.iter().map(|number| committed(*number)).collect()
    }

    fn log(&mut self, partition: i32) -> Result<Range<i64>, Unavailable> {
        if self.crashes() || self.strikes() {
            return Err(Unavailable("no answer".to_owned()));
        }
        Ok(0..self.world.borrow().kafka.raw[partition as usize].len() as i64)
    }

    fn restore(&mut self, partition: i32) -> Result<(), Unavailable> {
        if self.crashes() || self.strikes() {
            return Err(Unavailable("no answer".to_owned()));
        }
        let world = self.world.borrow();
        let log = &world.kafka.logs[&(Topic::State, partition)];
        let (stable, end) = (log.stable_end(), log.0.len());
        if stable < end && world.planted != Some(Planted::ImpatientRestore) {
            return Err(Unavailable("a transaction is open".to_owned()));
        }
        self.restoring.insert(partition, (0, stable));
        Ok(())
    }

    fn stop_restore(&mut self, partition: i32) {
        self.restoring.remove(&partition);
    }

    fn remaining(&self) -> BTreeMap<i32, u64> {
        self.restoring.iter().map(|(partition, (next, end))| (*partition, end.saturating_sub(*next) as u64)).collect()
    }

    fn restored(&mut self, timeout: Duration, take: &mut TakeRecord<'_>) -> Result<Restored, Fatal> {
        if self.crashes() {
            return Err(Fatal(CRASH.to_owned()));
        }
        let mut world = self.world.borrow_mut();
        world.now += Duration::from_millis(1);
        if world.trouble > 0 && world.random.u8(..3) == 0 {
            world.now += timeout;
            return Ok(Restored::Nothing);
        }
        let restoring: Vec<_> = self.restoring.keys().copied().collect();
        let Some(partition) = world.random.choice(restoring) else { return Ok(Restored::Nothing) };
        let (next, end) = self.restoring.get_mut(&partition).unwrap();
        while *next < *end {
            let entry = world.kafka.logs[&(Topic::State, partition)].0[*next].clone();
            *next += 1;
            if let Some(record) = entry.filter(|record| record.fate == Fate::Committed) {
                drop(world);
                take(partition, record.key.as_bytes(), record.value.as_deref());
                return Ok(Restored::Record);
            }
        }
        self.restoring.remove(&partition);
        Ok(Restored::Done(partition))
    }

    fn begin(&mut self) -> Result<(), Setback> {
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        if self.is_fenced {
            return Err(Setback::Renew("fenced".to_owned()));
        }
        Ok(())
    }

    fn produce(&mut self, output: Output) -> Result<(), Setback> {
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        if self.strikes() {
            return Err(Setback::Abort("produce".to_owned()));
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let headers =
            output.headers.into_iter().filter_map(|(name, value)| Some((name.into_owned(), text(value?)))).collect();
        let place = (Topic::from(output.destination), output.partition);
        let key = output.key.map(text).unwrap_or_default();
        let written = {
            let mut world = self.world.borrow_mut();
            let mut producer = self.producer;
            if world.planted == Some(Planted::StaleEpoch) {
                producer.epoch = world.kafka.epoch(producer.id);
            }
            world.kafka.write(producer, place, key, output.value, headers)
        };
        match written {
            // Sent and not yet refused: that shows with the next step.
            Err(Refusal::Fenced) => self.is_fenced = true,
            Err(Refusal::NotAMember) => unreachable!("only offsets are the group's"),
            Ok(()) => {}
        }
        Ok(())
    }

    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Setback> {
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        if self.is_fenced {
            return Err(Setback::Renew("fenced".to_owned()));
        }
        if self.is_expelled || offsets.is_empty() {
            return Err(Setback::Abort("the partitions are no longer ours".to_owned()));
        }
        if self.strikes() {
            return Err(Setback::Abort("records were not acknowledged".to_owned()));
        }
        let planted = self.world.borrow().planted;
        let mut producer = self.producer;
        if planted == Some(Planted::StaleEpoch) {
            producer.epoch = self.world.borrow().kafka.epoch(producer.id);
        }
        if planted != Some(Planted::CommitWithoutOffsets) {
            let added = {
                let kafka = &mut self.world.borrow_mut().kafka;
                kafka.add_offsets(producer, self.member, self.generation, offsets)
            };
            added.map_err(|refusal| self.refused(refusal))?;
        }
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        if self.strikes() {
            return Err(Setback::Abort("offsets".to_owned()));
        }
        // The last request: it may be lost, late, or its answer may.
        let unknown = |how: &str| Err(Setback::Renew(format!("the outcome is not known: {how}")));
        let lot = if self.strikes() { self.world.borrow_mut().random.u8(..3) } else { 3 };
        match lot {
            0 => return unknown("the request was lost"),
            1 => {
                self.world.borrow_mut().kafka.end_later(producer, true);
                return unknown("the request is late");
            }
            _ => {}
        }
        let ended = self.world.borrow_mut().kafka.end(producer, true);
        ended.map_err(|refusal| self.refused(refusal))?;
        if lot == 2 {
            return unknown("the answer was lost");
        }
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        self.tell(&format!("committed {offsets:?}"));
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Setback> {
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        if self.is_fenced || self.strikes() {
            return Err(Setback::Renew("the abort is not confirmed".to_owned()));
        }
        let ended = self.world.borrow_mut().kafka.end(self.producer, false);
        ended.map_err(|refusal| self.refused(refusal))?;
        self.tell("aborted");
        Ok(())
    }

    fn renew(&mut self) -> Result<(), Setback> {
        if self.crashes() {
            return Err(Setback::Fatal(CRASH.to_owned()));
        }
        if self.strikes() {
            return Err(Setback::Renew("no answer".to_owned()));
        }
        self.producer = self.world.borrow_mut().kafka.initialise(self.id);
        self.is_fenced = false;
        self.tell("renewed");
        Ok(())
    }

    fn wait(&mut self, duration: Duration) -> Result<(), Fatal> {
        if self.crashes() {
            return Err(Fatal(CRASH.to_owned()));
        }
        {
            // Whoever waits for others must not wait for ever: markers land, and what is open for too long is given up.
            let world = &mut *self.world.borrow_mut();
            world.now += duration;
            world.kafka.settle_something(&mut world.random);
            let id = world.random.usize(..8);
            world.kafka.time_out(id);
        }
        self.heartbeat();
        Ok(())
    }
}
