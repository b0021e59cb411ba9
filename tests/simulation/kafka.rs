//! A small model of Kafka: logs with transactions, a coordinator of transactions, and a group.
//!
//! It has what the mapper's guarantees hang on: markers that land one by one, a last stable offset, epochs that fence,
//! offsets that are held back while a transaction may change them, members that are expelled without knowing it. What is
//! durable is here; what a process has in its memory is in [`super::port`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rollcall::mapper::port::{Destination, Rebalance};

/// A record of the raw topic; what is between them are gaps, as markers and compaction leave them.
#[derive(Debug, Clone)]
pub struct Raw {
    pub key: String,
    pub value: Option<String>,
    pub observed_at: String,
}

/// The partition of a topic that the mapper writes to.
pub type Place = (Topic, i32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Events,
    State,
    DeadLetters,
}

impl From<Destination> for Topic {
    fn from(destination: Destination) -> Self {
        match destination {
            Destination::Events => Self::Events,
            Destination::State => Self::State,
            Destination::DeadLetters => Self::DeadLetters,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Open,
    Committed,
    Aborted,
}

/// A record that was written within a transaction.
#[derive(Debug, Clone)]
pub struct Written {
    producer: Producer,
    pub fate: Fate,
    pub key: String,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
}

/// A producer as a log knows it: the transactional ID's number, and the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub id: usize,
    pub epoch: u32,
}

/// `None` is a marker.
#[derive(Debug, Default)]
pub struct Log(pub Vec<Option<Written>>);

impl Log {
    pub fn stable_end(&self) -> usize {
        let is_open = |entry: &Option<Written>| entry.as_ref().is_some_and(|record| record.fate == Fate::Open);
        self.0.iter().position(is_open).unwrap_or(self.0.len())
    }

    pub fn committed(&self) -> impl Iterator<Item = &Written> {
        self.0.iter().flatten().filter(|record| record.fate == Fate::Committed)
    }
}

/// What a decided transaction still has to be told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Log(Place),
    Offsets,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Empty,
    Ongoing,
    Ending { commit: bool, left: BTreeSet<Target> },
}

/// The coordinator's view of one transactional ID.
#[derive(Debug)]
struct Transaction {
    epoch: u32,
    stage: Stage,
    touched: BTreeSet<Place>,
    offsets: Option<BTreeMap<i32, i64>>,
}

/// Why the coordinator refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Fenced,
    NotAMember,
}

/// A member of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(pub u64);

#[derive(Debug, Default)]
struct Group {
    generation: u32,
    members: BTreeMap<Member, VecDeque<Rebalance>>,
    /// Who holds a partition: nobody, until its last owner has let go of it or was expelled.
    holders: BTreeMap<i32, Member>,
    /// Partitions whose holder was asked to let go.
    asked_back: BTreeSet<i32>,
    offsets: BTreeMap<i32, i64>,
    next_member: u64,
}

pub struct Kafka {
    pub partitions: i32,
    pub raw: Vec<Vec<Option<Raw>>>,
    pub logs: BTreeMap<Place, Log>,
    transactions: BTreeMap<usize, Transaction>,
    /// Requests to end a transaction that are still on the wire.
    on_the_wire: Vec<(Producer, bool)>,
    group: Group,
    /// How often somebody was fenced, or refused as a stranger: what is not tried is not shown.
    pub refusals: usize,
}

impl Kafka {
    pub fn new(partitions: i32) -> Self {
        let topics = [Topic::Events, Topic::State, Topic::DeadLetters];
        let places = topics.into_iter().flat_map(|topic| (0..partitions).map(move |partition| (topic, partition)));
        Self {
            partitions,
            raw: vec![Vec::new(); partitions as usize],
            logs: places.map(|place| (place, Log::default())).collect(),
            transactions: BTreeMap::new(),
            on_the_wire: Vec::new(),
            group: Group::default(),
            refusals: 0,
        }
    }

    // === Transactions ===

    /// A new epoch for the ID; what its predecessor had open is ended.
    pub fn initialise(&mut self, id: usize) -> Producer {
        let fresh = Transaction { epoch: 0, stage: Stage::Empty, touched: BTreeSet::new(), offsets: None };
        let transaction = self.transactions.entry(id).or_insert(fresh);
        transaction.epoch += 1;
        let epoch = transaction.epoch;
        if transaction.stage == Stage::Ongoing {
            self.decide(id, false);
        }
        while self.land(id) {}
        Producer { id, epoch }
    }

    /// The epoch that is the ID's now.
    pub fn epoch(&self, id: usize) -> u32 {
        self.transactions[&id].epoch
    }

    fn check(&mut self, producer: Producer) -> Result<(), Refusal> {
        if self.transactions.get(&producer.id).is_some_and(|transaction| transaction.epoch == producer.epoch) {
            return Ok(());
        }
        self.refusals += 1;
        Err(Refusal::Fenced)
    }

    pub fn write(
        &mut self,
        producer: Producer,
        place: Place,
        key: String,
        value: Option<Vec<u8>>,
        headers: BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        self.check(producer)?;
        self.open(producer.id).touched.insert(place);
        let written = Written { producer, fate: Fate::Open, key, value, headers };
        self.logs.get_mut(&place).unwrap().0.push(Some(written));
        Ok(())
    }

    /// The ID's transaction, begun where none is. The client waits for the markers of the one before.
    fn open(&mut self, id: usize) -> &mut Transaction {
        while self.land(id) {}
        let transaction = self.transactions.get_mut(&id).unwrap();
        transaction.stage = Stage::Ongoing;
        transaction
    }

    pub fn add_offsets(
        &mut self,
        producer: Producer,
        member: Member,
        generation: u32,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<(), Refusal> {
        self.check(producer)?;
        if !self.group.members.contains_key(&member) || generation != self.group.generation {
            self.refusals += 1;
            return Err(Refusal::NotAMember);
        }
        self.open(producer.id).offsets.get_or_insert_default().extend(offsets);
        Ok(())
    }

    /// Ends a transaction: from here on it is decided, but nobody has been told.
    pub fn end(&mut self, producer: Producer, commit: bool) -> Result<(), Refusal> {
        self.check(producer)?;
        if self.transactions[&producer.id].stage == Stage::Ongoing {
            self.decide(producer.id, commit);
        }
        Ok(())
    }

    /// Sends the request to end a transaction on a wire that takes its time.
    pub fn end_later(&mut self, producer: Producer, commit: bool) {
        self.on_the_wire.push((producer, commit));
    }

    fn decide(&mut self, id: usize, commit: bool) {
        let transaction = self.transactions.get_mut(&id).unwrap();
        let mut left: BTreeSet<_> = transaction.touched.iter().map(|place| Target::Log(*place)).collect();
        if transaction.offsets.is_some() {
            left.insert(Target::Offsets);
        }
        transaction.stage = Stage::Ending { commit, left };
    }

    /// Tells one of those that a decided transaction of the ID touched; whether there was one.
    fn land(&mut self, id: usize) -> bool {
        let Some(Stage::Ending { left, .. }) = self.transactions.get(&id).map(|transaction| &transaction.stage) else {
            return false;
        };
        let first = left.first().copied();
        self.land_on(id, first);
        true
    }

    fn land_on(&mut self, id: usize, target: Option<Target>) {
        let transaction = self.transactions.get_mut(&id).unwrap();
        let Stage::Ending { commit, left } = &mut transaction.stage else { return };
        let commit = *commit;
        match target {
            Some(Target::Log(place)) => {
                left.remove(&Target::Log(place));
                let log = self.logs.get_mut(&place).unwrap();
                let fate = if commit { Fate::Committed } else { Fate::Aborted };
                let open = log.0.iter_mut().flatten().filter(|record| record.fate == Fate::Open);
                open.filter(|record| record.producer.id == id).for_each(|record| record.fate = fate);
                log.0.push(None);
            }
            Some(Target::Offsets) => {
                left.remove(&Target::Offsets);
                let offsets = transaction.offsets.take().unwrap_or_default();
                if commit {
                    self.group.offsets.extend(offsets);
                }
            }
            None => {}
        }
        if left.is_empty() {
            transaction.stage = Stage::Empty;
            transaction.touched.clear();
            transaction.offsets = None;
        }
    }

    /// Something that happens by itself: a marker lands, or a request arrives; whether anything was left to happen.
    pub fn settle_something(&mut self, random: &mut fastrand::Rng) -> bool {
        if !self.on_the_wire.is_empty() && random.bool() {
            let (producer, commit) = self.on_the_wire.swap_remove(random.usize(..self.on_the_wire.len()));
            let _ = self.end(producer, commit);
            return true;
        }
        let left_of = |(id, transaction): (&usize, &Transaction)| match &transaction.stage {
            Stage::Ending { left, .. } => Some((*id, left.iter().copied().collect::<Vec<_>>())),
            Stage::Empty | Stage::Ongoing => None,
        };
        let ending: Vec<_> = self.transactions.iter().filter_map(left_of).collect();
        let Some((id, left)) = random.choice(ending) else { return !self.on_the_wire.is_empty() };
        self.land_on(id, random.choice(left));
        true
    }

    /// The coordinator gives up on an open transaction.
    pub fn time_out(&mut self, id: usize) {
        if self.transactions.get(&id).is_some_and(|transaction| transaction.stage == Stage::Ongoing) {
            self.transactions.get_mut(&id).unwrap().epoch += 1;
            self.decide(id, false);
        }
    }

    /// How things stand, for whoever looks at a seed.
    pub fn describe(&self) -> String {
        format!("{:?}\n{:?}\n{:?}", self.transactions, self.group, self.on_the_wire)
    }

    pub fn is_settled(&self) -> bool {
        self.on_the_wire.is_empty() && self.transactions.values().all(|transaction| transaction.stage == Stage::Empty)
    }

    // === The group ===

    pub fn join(&mut self) -> Member {
        let member = Member(self.group.next_member);
        self.group.next_member += 1;
        self.group.members.insert(member, VecDeque::new());
        self.rebalance();
        member
    }

    /// A member leaves, or is expelled: what it held may go to others at once.
    pub fn remove(&mut self, member: Member) {
        self.group.members.remove(&member);
        self.group.holders.retain(|_, holder| *holder != member);
        self.rebalance();
    }

    pub fn members(&self) -> Vec<Member> {
        self.group.members.keys().copied().collect()
    }

    pub fn has_member(&self, member: Member) -> bool {
        self.group.members.contains_key(&member)
    }

    pub fn generation(&self) -> u32 {
        self.group.generation
    }

    /// The steps that a member has not yet heard of.
    pub fn news(&mut self, member: Member) -> VecDeque<Rebalance> {
        self.group.members.get_mut(&member).map(std::mem::take).unwrap_or_default()
    }

    /// A member has let go of partitions.
    pub fn release(&mut self, member: Member, partitions: &[i32]) {
        self.group.holders.retain(|partition, holder| *holder != member || !partitions.contains(partition));
        self.rebalance();
    }

    /// Cooperative and sticky: what is above a member's share is asked back, and what nobody holds is given out.
    fn rebalance(&mut self) {
        let group = &mut self.group;
        group.generation += 1;
        if group.members.is_empty() {
            return;
        }
        let most = (self.partitions as usize).div_ceil(group.members.len());
        for (member, news) in &mut group.members {
            let held: Vec<_> = group.holders.iter().filter(|(_, holder)| *holder == member).map(|(p, _)| *p).collect();
            for partition in held.into_iter().skip(most) {
                if group.asked_back.insert(partition) {
                    news.push_back(Rebalance::Revoke(vec![partition]));
                }
            }
        }
        for partition in 0..self.partitions {
            if group.holders.contains_key(&partition) {
                continue;
            }
            let share = |member: &Member| group.holders.values().filter(|holder| *holder == member).count();
            let Some(poorest) = group.members.keys().copied().min_by_key(|member| share(member)) else { return };
            group.asked_back.remove(&partition);
            group.holders.insert(partition, poorest);
            group.members.get_mut(&poorest).unwrap().push_back(Rebalance::Assign(vec![partition]));
        }
    }

    /// The committed offset; `Err` while a transaction may change it.
    pub fn committed(&self, partition: i32) -> Result<Option<i64>, ()> {
        let pending = |transaction: &Transaction| {
            let offsets = transaction.offsets.as_ref();
            transaction.stage != Stage::Empty && offsets.is_some_and(|offsets| offsets.contains_key(&partition))
        };
        if self.transactions.values().any(pending) {
            return Err(());
        }
        Ok(self.group.offsets.get(&partition).copied())
    }
}
