//! The publishing thread: a member of the group that shares out `ec2.sweeps`, one transactional producer for all scopes,
//! and the reader that gives a partition its memory back.
//!
//! **Delivery.** A transaction holds pages of any number of scopes, what the memory learns from them, and the offset of
//! a partition that this process owns, guarded by the group's generation: a process that the group has expelled cannot
//! commit. Within the group the [`Lease`] guards: a publication whose partition was given up is refused. No transaction
//! is open while a partition is given up. What was aborted is produced again, and so is what may have been committed
//! or not: to the mapper an equal observation is none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledgers;
use super::ledger::record::{Key, Record};
use super::publisher::{Destination, Lease, Ownership, Publication, PublishError, Publisher};
use crate::config::Config;
use crate::kafka::{
    Fatal, Membership, Message, Rebalance, Restored, Setback, TableReader, TransactionalProducer, client,
};
use crate::record::partition_for;
use crate::telemetry::metrics::Metrics;

/// Attempts at a transaction while Kafka can be reached, before the process gives up, for its supervisor to see.
const MAX_ATTEMPTS: u32 = 20;
/// How long an idle thread waits for a publication before it looks after its clients.
const IDLE: Duration = Duration::from_millis(50);
/// How often an idle producer is served: its events would pile up, and its tokens expire.
const SERVE_EVERY: Duration = Duration::from_secs(1);
/// How often the partitions of the raw topic are counted: keys would move.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How long to wait before Kafka is asked again for what it could not tell.
const RETRY: Duration = Duration::from_millis(200);
/// How long a restore may hold up publications, a turn.
const RESTORE_SLICE: Duration = Duration::from_millis(20);

/// What the publishing thread works with.
pub struct Press {
    membership: Membership,
    table: TableReader,
    producer: TransactionalProducer,
    config: Config,
    raw_partitions: i32,
    sweep_partitions: i32,
    owned: BTreeMap<i32, Owned>,
    /// Of the next partition that is assigned.
    epoch: u64,
    /// Whether the first assignment came, and was told.
    settled: Settled,
    metrics: Arc<Metrics>,
    ownership: mpsc::UnboundedSender<Ownership>,
    stop: CancellationToken,
    served: Instant,
    counted: Instant,
}

/// A partition of `ec2.sweeps`.
struct Owned {
    lease: Lease,
    phase: Phase,
    /// Where its reading goes on; committed with each transaction.
    position: i64,
}

enum Phase {
    /// Its restore cannot begin before Kafka has settled older transactions.
    Waiting { until: Instant },
    /// Its memory is being read.
    Restoring(Ledgers),
    /// Its scopes are swept.
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    No,
    Assigned,
    Told,
}

/// What is fixed before the thread starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Partitions of the raw topic.
    pub raw: i32,
    /// Partitions of `ec2.sweeps`.
    pub sweeps: i32,
}

impl Press {
    /// Initialises the producer, which ends a predecessor's transaction, then joins the group.
    ///
    /// # Errors
    /// When a client's configuration is refused, Kafka refuses the transactional ID, or `stop` meanwhile.
    pub fn connect(
        config: &Config,
        counts: Counts,
        metrics: Arc<Metrics>,
        ownership: mpsc::UnboundedSender<Ownership>,
        stop: CancellationToken,
    ) -> Result<Self, Setback> {
        let refused = |error: KafkaError| Setback::Fatal(error.to_string());
        let (kafka, group_id) = (&config.kafka, &config.collector.group_id);
        // Stable over a restart, so that it ends its predecessor's transaction.
        let member = format!("{group_id}-{}", config.instance_id.0);
        let settings = client::producer(kafka, &member);
        let listeners = metrics.kafka.listeners(["collector-consumer", "collector-producer"], "");
        let mut producer =
            TransactionalProducer::new(settings, kafka.transaction_timeout, listeners.producer).map_err(refused)?;
        producer.initialise(&|| stop.is_cancelled())?;
        Ok(Self {
            membership: Membership::join(kafka, &kafka.topics.sweeps, group_id, &member, listeners.consumer)
                .map_err(refused)?,
            table: TableReader::new(kafka, &kafka.topics.sweeps, &member).map_err(refused)?,
            producer,
            config: config.clone(),
            raw_partitions: counts.raw,
            sweep_partitions: counts.sweeps,
            owned: BTreeMap::new(),
            epoch: 0,
            settled: Settled::No,
            metrics,
            ownership,
            stop,
            served: Instant::now(),
            counted: Instant::now(),
        })
    }

    /// Starts the thread, from within a runtime. It ends when every publisher is dropped, or when Kafka refuses for good.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(mut self) -> std::io::Result<(Publisher, JoinHandle<Result<(), Fatal>>)> {
        let (publisher, publications) = Publisher::new();
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name("press".to_owned()).spawn(move || {
            // Sweeping on without publishing would help nobody. Also when it panics.
            let end_of_all = self.stop.clone().drop_guard();
            let outcome = self.run(&runtime, publications);
            match &outcome {
                Ok(()) => drop(end_of_all.disarm()),
                Err(error) => tracing::error!(%error, "raw records can no longer be published"),
            }
            outcome
        })?;
        Ok((publisher, thread))
    }

    fn run(&mut self, runtime: &Handle, mut publications: mpsc::Receiver<Publication>) -> Result<(), Fatal> {
        loop {
            self.look_after_clients(Duration::ZERO)?;
            self.advance_restores()?;
            let is_restoring = self.owned.values().any(|owned| !matches!(owned.phase, Phase::Ready));
            let patience = if is_restoring { Duration::from_millis(1) } else { IDLE };
            let next = runtime.block_on(async { tokio::time::timeout(patience, publications.recv()).await });
            match next {
                Err(_) => {}
                Ok(None) => return self.leave(),
                Ok(Some(first)) => {
                    let mut batch = vec![first];
                    while let Ok(more) = publications.try_recv() {
                        batch.push(more);
                    }
                    self.publish(batch)?;
                }
            }
        }
    }

    fn leave(&mut self) -> Result<(), Fatal> {
        let partitions: Vec<_> = self.owned.keys().copied().collect();
        self.owned.clear();
        self.membership.unassign(&partitions)
    }

    // === Ownership ===

    /// Lets the clients work, follows the group, and takes what others have written to our partitions.
    fn look_after_clients(&mut self, timeout: Duration) -> Result<(), Fatal> {
        if self.served.elapsed() > SERVE_EVERY {
            self.served = Instant::now();
            self.producer.poll();
            self.table.serve();
        }
        if self.counted.elapsed() > COUNT_EVERY {
            self.counted = Instant::now();
            self.count_partitions()?;
        }
        let mut patience = timeout;
        loop {
            let (owned, ownership) = (&mut self.owned, &self.ownership);
            let mut was_record = false;
            self.membership.poll(patience, &mut |message| {
                was_record = true;
                let Some(partition) = owned.get_mut(&message.partition()) else { return };
                partition.position = message.offset() + 1;
                tell_of_acceptance(message.key().unwrap_or_default(), message.payload(), ownership);
            })?;
            while let Some(step) = self.membership.rebalance() {
                self.follow(step)?;
            }
            if !was_record {
                return Ok(());
            }
            patience = Duration::ZERO;
        }
    }

    fn count_partitions(&self) -> Result<(), Fatal> {
        let topic = &self.config.kafka.topics.raw;
        match self.membership.partitions_of(topic) {
            Ok(count) if count != self.raw_partitions => Err(Fatal(format!(
                "{topic} had {} partitions when this process started and has {count} now; keys would move. Partitions \
                 cannot be added to a running pipeline: create new topics and replay into them",
                self.raw_partitions
            ))),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn follow(&mut self, step: Rebalance) -> Result<(), Fatal> {
        match step {
            Rebalance::Assign(partitions) => {
                tracing::info!(?partitions, "sweeps: partitions assigned");
                if let Some(number) = partitions.iter().find(|number| **number >= self.sweep_partitions) {
                    return Err(Fatal(format!(
                        "partition {number} was added to {}, which had {} when this process started; scopes would move. \
                         Create the topic anew with as many partitions as wanted: the next sweeps fill it",
                        self.config.kafka.topics.sweeps, self.sweep_partitions
                    )));
                }
                self.membership.assign(&partitions)?;
                for partition in partitions {
                    self.epoch += 1;
                    let lease = Lease { partition, epoch: self.epoch };
                    let phase = Phase::Waiting { until: Instant::now() };
                    self.owned.insert(partition, Owned { lease, phase, position: 0 });
                }
                if self.settled == Settled::No {
                    self.settled = Settled::Assigned;
                }
            }
            Rebalance::Revoke(partitions) | Rebalance::Lost(partitions) => {
                tracing::info!(?partitions, "sweeps: partitions given up");
                for partition in &partitions {
                    self.table.end(*partition);
                    if let Some(Owned { lease, .. }) = self.owned.remove(partition) {
                        let _ = self.ownership.send(Ownership::Lost(lease));
                    }
                }
                self.membership.unassign(&partitions)?;
            }
        }
        Ok(())
    }

    fn holds(&self, lease: Lease) -> bool {
        self.owned.get(&lease.partition).is_some_and(|owned| owned.lease == lease)
    }

    // === Memory ===

    fn advance_restores(&mut self) -> Result<(), Fatal> {
        let began = Instant::now();
        for (number, owned) in &mut self.owned {
            if matches!(owned.phase, Phase::Waiting { until } if until <= began) {
                match self.table.begin(*number) {
                    Ok(end) => {
                        owned.position = end;
                        owned.phase = Phase::Restoring(Ledgers::default());
                    }
                    Err(error) => {
                        tracing::debug!(partition = number, %error, "restore must wait");
                        owned.phase = Phase::Waiting { until: began + RETRY };
                    }
                }
            }
        }
        while self.owned.values().any(|owned| matches!(owned.phase, Phase::Restoring(_))) {
            let mut fault = None;
            let owned = &mut self.owned;
            let progress = self.table.poll(RESTORE_SLICE, &mut |number, key, value| {
                if let Some(Owned { phase: Phase::Restoring(ledgers), .. }) = owned.get_mut(&number) {
                    fault = ledgers.restore(key, value).err();
                }
            })?;
            if let Some(fault) = fault {
                return Err(Fatal(fault));
            }
            match progress {
                Restored::Nothing => break,
                Restored::Record => {}
                Restored::Done(number) => self.open(number)?,
            }
            if began.elapsed() > RESTORE_SLICE {
                break;
            }
        }
        let is_ready = self.owned.values().all(|owned| matches!(owned.phase, Phase::Ready));
        if self.settled == Settled::Assigned && is_ready {
            self.settled = Settled::Told;
            let _ = self.ownership.send(Ownership::Settled);
        }
        Ok(())
    }

    /// The memory of a partition is there: its scopes can be swept.
    fn open(&mut self, number: i32) -> Result<(), Fatal> {
        let Some(owned) = self.owned.get_mut(&number) else { return Ok(()) };
        let Phase::Restoring(ledgers) = std::mem::replace(&mut owned.phase, Phase::Ready) else { return Ok(()) };
        let ledgers = ledgers.into_scopes();
        tracing::info!(partition = number, scopes = ledgers.len(), "sweeps: partition restored");
        // From here on it is read for what operators accept.
        self.membership.resume(number, Some(owned.position))?;
        let _ = self.ownership.send(Ownership::Gained { lease: owned.lease, ledgers });
        Ok(())
    }

    // === Transactions ===

    /// One transaction of all these publications, as often as it takes.
    fn publish(&mut self, mut batch: Vec<Publication>) -> Result<(), Fatal> {
        let (mut attempts, mut answered) = (0, 0);
        loop {
            batch = self.still_wanted(batch);
            if batch.is_empty() {
                return Ok(());
            }
            let began = Instant::now();
            let setback = match self.attempt(&batch) {
                Ok(()) => {
                    self.count("committed");
                    self.metrics.collector.commit_seconds.observe(began.elapsed().as_secs_f64());
                    for Publication { done, .. } in batch {
                        // Nobody waits any more where the sweep was given up.
                        let _ = done.send(Ok(()));
                    }
                    return Ok(());
                }
                Err(Setback::Fatal(cause)) => return Err(give_up(batch, cause)),
                // Alone, it is the one to blame; its sweep is incomplete, and all others go on.
                Err(Setback::TooLarge(cause)) if batch.len() == 1 => {
                    self.settle_open()?;
                    refuse(batch, &cause);
                    return Ok(());
                }
                Err(Setback::TooLarge(_)) => {
                    self.settle_open()?;
                    return batch.into_iter().try_for_each(|publication| self.publish(vec![publication]));
                }
                Err(setback) => setback,
            };
            attempts += 1;
            if answered == MAX_ATTEMPTS {
                let cause = format!(
                    "{MAX_ATTEMPTS} transactions in a row failed though Kafka answered; does another collector run under \
                     this instance_id? The last one: {setback}"
                );
                return Err(give_up(batch, cause));
            }
            tracing::warn!(%setback, attempts, "transaction failed, its pages will be published again");
            // Away is not wrong: that may last.
            match self.recover(setback) {
                Ok(true) => answered += 1,
                Ok(false) => answered = 0,
                Err(setback) => return Err(give_up(batch, setback.to_string())),
            }
            let pause = Duration::from_millis(50).saturating_mul(1 << attempts.min(10)).min(MAX_BACKOFF);
            self.pause(pause)?;
            if self.stop.is_cancelled() && answered == 0 {
                let cause = "stopped while Kafka could not be reached; nothing is lost".to_owned();
                return Err(give_up(batch, cause));
            }
        }
    }

    fn count(&self, result: &str) {
        self.metrics.collector.transactions.with_label_values(&[result]).inc();
    }

    /// Those publications that somebody waits for and that we may still write.
    fn still_wanted(&self, batch: Vec<Publication>) -> Vec<Publication> {
        let mut wanted = Vec::with_capacity(batch.len());
        for publication in batch {
            if publication.done.is_closed() {
                continue;
            }
            if self.holds(publication.lease) {
                wanted.push(publication);
            } else {
                let _ = publication.done.send(Err(PublishError::NotOwner));
            }
        }
        wanted
    }

    fn attempt(&mut self, batch: &[Publication]) -> Result<(), Setback> {
        let topics = &self.config.kafka.topics;
        self.producer.begin()?;
        tracing::debug!(publications = batch.len(), "transaction opened");
        for publication in batch {
            for record in &publication.records {
                let key = record.key.as_deref().map(str::as_bytes);
                let (topic, partition) = match record.destination {
                    Destination::Raw => (&topics.raw, key.map(|key| partition_for(key, self.raw_partitions))),
                    Destination::Sweeps => (&topics.sweeps, Some(publication.lease.partition)),
                    Destination::DeadLetters => (&topics.dead_letters, None),
                };
                let value = record.value.as_deref();
                self.producer.send(Message {
                    topic,
                    partition,
                    timestamp: record.timestamp,
                    key,
                    value,
                    headers: &record.headers,
                })?;
            }
        }
        let partitions = batch.iter().map(|publication| publication.lease.partition);
        let offsets = partitions.filter_map(|number| Some((number, self.owned.get(&number)?.position))).collect();
        self.producer.send_offsets(|| self.membership.guard(&offsets, Some(Utc::now())))?;
        self.producer.commit()?;
        tracing::debug!("transaction committed");
        Ok(())
    }

    /// Aborts the open transaction, or has a new producer fence it.
    fn settle_open(&mut self) -> Result<(), Fatal> {
        let cause = Setback::Abort("a record is too large".to_owned());
        self.recover(cause).map(|_| ()).map_err(|setback| Fatal(setback.to_string()))
    }

    /// Gets ready for another attempt; whether Kafka could be reached for it.
    fn recover(&mut self, setback: Setback) -> Result<bool, Setback> {
        if let Setback::Abort(_) = setback {
            match self.producer.abort() {
                Ok(()) => {
                    self.count("aborted");
                    return Ok(true);
                }
                Err(fatal @ Setback::Fatal(_)) => return Err(fatal),
                Err(_) => {}
            }
        }
        self.count("renewed");
        match self.producer.renew() {
            Err(fatal @ Setback::Fatal(_)) => Err(fatal),
            Ok(()) => Ok(true),
            // Not yet: the next attempt fails at once and comes here again.
            Err(_) => Ok(false),
        }
    }

    /// Lets time pass without leaving the group.
    fn pause(&mut self, pause: Duration) -> Result<(), Fatal> {
        let deadline = Instant::now() + pause;
        while Instant::now() < deadline && !self.stop.is_cancelled() {
            self.look_after_clients(Duration::from_millis(20))?;
        }
        Ok(())
    }
}

/// None of these will be written.
fn refuse(batch: Vec<Publication>, cause: &str) {
    for publication in batch {
        let _ = publication.done.send(Err(PublishError::Kafka(cause.to_owned())));
    }
}

fn give_up(batch: Vec<Publication>, cause: String) -> Fatal {
    refuse(batch, &cause);
    Fatal(cause)
}

fn tell_of_acceptance(key: &[u8], value: Option<&[u8]>, ownership: &mpsc::UnboundedSender<Ownership>) {
    let Some(key @ Key::Acceptance(scope)) = Key::parse(key) else { return };
    match Record::decode(&key, value) {
        Ok(Record::Acceptance(acceptance)) => {
            let _ = ownership.send(Ownership::Acceptance { scope: scope.to_owned(), acceptance });
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(scope, %error, "an acceptance cannot be read"),
    }
}
