//! Publishes raw records, each page whole or not at all.
//!
//! One thread owns one transactional producer. While a commit is under way, pages of other scopes queue up; the next
//! transaction takes them all. A page is kept until its transaction is committed and is produced again after an abort.
//! Where the outcome of a commit is unknown it is produced again too: an equal observation is no change to the mapper.

use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::source::{Page, Scope};
use crate::config::Topics;
use crate::kafka::{Message, Setback, TransactionalProducer};
use crate::record::{self, canonical, partition_for};

/// Pages that may wait for a transaction, whichever scope they are of.
const QUEUE: usize = 16;
/// Attempts at a transaction while Kafka can be reached, before the process gives up, for its supervisor to see.
const MAX_ATTEMPTS: u32 = 20;
/// How often an idle producer is served: its events would pile up, and its tokens expire.
const SERVE_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The records of one page.
struct Publication {
    records: Vec<Raw>,
    done: oneshot::Sender<Result<(), PublishError>>,
}

/// A raw record on its way.
struct Raw {
    /// `None` for what is no instance: it has no place on the raw topic, and goes to the dead letters.
    key: Option<String>,
    value: Vec<u8>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The records were not published, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not published: {0}")]
pub struct PublishError(pub String);

/// What the headers of a source's records say beside the scope.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Header `source-category`.
    pub category: Option<String>,
    /// Headers `field.<name>`.
    pub fields: Vec<(String, String)>,
}

/// Hands pages to the publishing thread.
#[derive(Clone)]
pub struct Publisher {
    queue: mpsc::Sender<Publication>,
}

impl Publisher {
    /// Starts the thread, from within a runtime. It ends when every publisher is dropped, or when Kafka refuses for good.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        producer: TransactionalProducer,
        topics: Topics,
        partitions: i32,
        count: impl Fn(&'static str) + Send + 'static,
        stop: CancellationToken,
    ) -> std::io::Result<(Self, JoinHandle<Result<(), Setback>>)> {
        let (queue, pages) = mpsc::channel(QUEUE);
        let mut press =
            Press { producer, topics, partitions, count: Box::new(count), stop, runtime: Handle::current() };
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            // Sweeping on without publishing would help nobody. Also when it panics.
            let end_of_all = press.stop.clone().drop_guard();
            let outcome = press.run(pages);
            if outcome.is_ok() {
                end_of_all.disarm();
            }
            outcome
        })?;
        Ok((Self { queue }, thread))
    }

    /// Publishes a page, and returns when its transaction is committed.
    ///
    /// # Errors
    /// When Kafka refuses, or the process stops first.
    pub async fn publish(
        &self,
        scope: &Scope,
        sweep_id: &str,
        labels: &Labels,
        page: Page,
    ) -> Result<(), PublishError> {
        let headers = headers(scope, sweep_id, labels, &page);
        let records = page.instances.into_iter().map(|instance| Raw::new(instance, headers.clone())).collect();
        let (done, outcome) = oneshot::channel();
        let gone = || PublishError("the publisher has stopped".to_owned());
        self.queue.send(Publication { records, done }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

impl Raw {
    fn new(instance: Value, headers: Vec<(String, Option<Vec<u8>>)>) -> Self {
        let id = instance.get("InstanceId").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        match (id, instance) {
            (Some(id), Value::Object(instance)) => {
                Self { key: Some(id), value: canonical::to_bytes(instance), headers }
            }
            (_, other) => {
                let mut headers = headers;
                headers.extend(
                    [
                        ("error-kind", "no-instance-id".to_owned()),
                        ("error", "the source listed something without an InstanceId".to_owned()),
                        ("failed-at", Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)),
                    ]
                    .map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))),
                );
                Self { key: None, value: other.to_string().into_bytes(), headers }
            }
        }
    }
}

fn headers(scope: &Scope, sweep_id: &str, labels: &Labels, page: &Page) -> Vec<(String, Option<Vec<u8>>)> {
    let observed_at = page.observed_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut headers = vec![
        (record::SCHEMA.to_owned(), record::SCHEMA_VERSION.to_owned()),
        (record::OBSERVED_AT.to_owned(), observed_at),
        (record::SWEEP_ID.to_owned(), sweep_id.to_owned()),
        (record::SOURCE.to_owned(), scope.source.clone()),
    ];
    let optional = [
        (record::SOURCE_CATEGORY, labels.category.as_deref()),
        (record::AWS_ACCOUNT, scope.account.as_deref()),
        (record::AWS_REGION, scope.region.as_deref()),
        (record::AWS_PARTITION, scope.region.as_deref().map(record::aws_partition_of)),
    ];
    headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    headers
        .extend(labels.fields.iter().map(|(name, value)| (format!("{}{name}", record::FIELD_PREFIX), value.clone())));
    headers.into_iter().map(|(name, value)| (name, Some(value.into_bytes()))).collect()
}

/// The thread.
struct Press {
    producer: TransactionalProducer,
    topics: Topics,
    partitions: i32,
    count: Box<dyn Fn(&'static str) + Send>,
    stop: CancellationToken,
    runtime: Handle,
}

impl Press {
    fn run(&mut self, mut pages: mpsc::Receiver<Publication>) -> Result<(), Setback> {
        while let Some(first) = self.next(&mut pages) {
            let mut batch = vec![first];
            while let Ok(page) = pages.try_recv() {
                batch.push(page);
            }
            let outcome = self.publish(&batch);
            let told = outcome.as_ref().map_err(|setback| PublishError(setback.to_string())).copied();
            for Publication { done, .. } in batch {
                // Nobody waits any more where the sweep was given up.
                let _ = done.send(told.clone());
            }
            outcome?;
        }
        Ok(())
    }

    /// The next page; the producer is served while there is none.
    fn next(&self, pages: &mut mpsc::Receiver<Publication>) -> Option<Publication> {
        loop {
            let next = self.runtime.block_on(async { tokio::time::timeout(SERVE_EVERY, pages.recv()).await });
            match next {
                Ok(page) => return page,
                Err(_) => self.producer.poll(),
            }
        }
    }

    /// One transaction of all these pages, as often as it takes.
    fn publish(&mut self, batch: &[Publication]) -> Result<(), Setback> {
        let (mut attempts, mut answered) = (0, 0);
        loop {
            let setback = match self.attempt(batch) {
                Ok(()) => {
                    (self.count)("committed");
                    return Ok(());
                }
                Err(setback @ (Setback::Fatal(_) | Setback::TooLarge(_))) => return Err(setback),
                Err(setback) => setback,
            };
            attempts += 1;
            if answered == MAX_ATTEMPTS {
                return Err(Setback::Fatal(format!(
                    "{MAX_ATTEMPTS} transactions in a row failed though Kafka answered; does another collector run under \
                     this instance_id? The last one: {setback}"
                )));
            }
            tracing::warn!(%setback, attempts, "transaction failed, its pages will be published again");
            // Away is not wrong: that may last.
            answered = if self.recover(setback)? { answered + 1 } else { 0 };
            let pause = Duration::from_millis(50).saturating_mul(1 << attempts.min(10)).min(MAX_BACKOFF);
            self.pause(pause)?;
        }
    }

    fn attempt(&mut self, batch: &[Publication]) -> Result<(), Setback> {
        self.producer.begin()?;
        for record in batch.iter().flat_map(|publication| &publication.records) {
            self.producer.send(Message {
                topic: if record.key.is_some() { &self.topics.raw } else { &self.topics.dead_letters },
                partition: record.key.as_ref().map(|key| partition_for(key.as_bytes(), self.partitions)),
                key: record.key.as_ref().map(String::as_bytes),
                value: Some(&record.value),
                headers: &record.headers,
            })?;
        }
        self.producer.commit()
    }

    /// Gets ready for another attempt; whether Kafka could be reached for it.
    fn recover(&mut self, setback: Setback) -> Result<bool, Setback> {
        if let Setback::Abort(_) = setback {
            match self.producer.abort() {
                Ok(()) => {
                    (self.count)("aborted");
                    return Ok(true);
                }
                Err(fatal @ Setback::Fatal(_)) => return Err(fatal),
                Err(_) => {}
            }
        }
        (self.count)("renewed");
        match self.producer.renew() {
            Err(fatal @ Setback::Fatal(_)) => Err(fatal),
            Ok(()) => Ok(true),
            // Not yet: the next attempt fails at once and comes here again.
            Err(_) => Ok(false),
        }
    }

    fn pause(&self, pause: Duration) -> Result<(), Setback> {
        let slice = Duration::from_millis(50);
        for _ in 0..pause.as_millis() / slice.as_millis() + 1 {
            if self.stop.is_cancelled() {
                return Err(Setback::Fatal("stopped while Kafka could not be reached; nothing is lost".to_owned()));
            }
            std::thread::sleep(slice);
        }
        Ok(())
    }
}
