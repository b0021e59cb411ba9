//! `rollcall sweeps`: what the collectors remember of their scopes, and an operator's word on what vanished.

pub mod reconcile;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Serialize;

use crate::collector::ledger::record::{Key, Record};
use crate::collector::ledger::{Acceptance, Ledger, Ledgers};
use crate::config::Config;
use crate::kafka::client::{self, Plain};
use crate::kafka::{Restored, TableReader, Unavailable};
use crate::record::partition_for;

/// How long Kafka may take to tell everything.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// A line of `sweeps list`.
#[derive(Debug, Serialize)]
struct Line {
    /// `source/account/region`.
    pub scope: String,
    /// How its last sweep stands.
    pub verdict: &'static str,
    /// When that began, RFC 3339.
    pub began: Option<String>,
    /// When the last complete one began.
    pub last_complete: Option<String>,
    /// Instances known.
    pub known: usize,
    /// Of these, missed by some complete sweep.
    pub suspects: usize,
    /// Instances whose absence is held back until somebody accepts it.
    pub held: i64,
    /// Kind of what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whether the configuration no longer names it.
    pub out_of_scope: bool,
    /// Whether an operator has accepted what is missing, and no sweep has used it yet.
    pub accepted: bool,
}

impl Line {
    fn new(scope: String, ledger: &Ledger) -> Self {
        let time =
            |ms: i64| DateTime::from_timestamp_millis(ms).map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let head = ledger.head.as_ref();
        Self {
            scope,
            verdict: head.map_or("never", |head| head.verdict.name()),
            began: head.and_then(|head| time(head.began)),
            last_complete: head.and_then(|head| time(head.last_complete?)),
            known: ledger.len(),
            suspects: ledger.suspects(),
            held: head.map_or(0, |head| head.missing),
            fault: head.and_then(|head| head.fault.clone()),
            out_of_scope: head.is_some_and(|head| head.out_of_scope),
            accepted: ledger.acceptance.is_some(),
        }
    }
}

/// Reads what is remembered of every scope, from a process that owns none; with the number of partitions.
///
/// # Errors
/// When Kafka does not tell it, or the topic holds what is not ours.
fn read(config: &Config) -> anyhow::Result<(i32, BTreeMap<String, Ledger>)> {
    let mut ledgers = Ledgers::default();
    let mut take = |_: i32, key: &[u8], value: Option<&[u8]>| ledgers.restore(key, value);
    let partitions = read_table(config, &config.kafka.topics.sweeps, &mut take)?;
    Ok((partitions, ledgers.into_scopes().into_iter().collect()))
}

/// Takes a record of a table, or says why it cannot be.
type Take<'a> = dyn FnMut(i32, &[u8], Option<&[u8]>) -> Result<(), String> + 'a;

/// Reads a compacted topic partition by partition to where it ends; the number of partitions.
///
/// # Errors
/// When nothing comes of it for a minute, or a record cannot be taken.
fn read_table(config: &Config, topic: &str, take: &mut Take<'_>) -> anyhow::Result<i32> {
    let mut reader = TableReader::new(&config.kafka, topic, &format!("{}-sweeps", config.instance_id.0))?;
    let mut deadline = Instant::now() + PATIENCE;
    let partitions = partitions(&reader, deadline)?;
    for partition in 0..partitions {
        let mut end = None;
        // To one end that was: beside writers that never rest, a new one would hardly ever be reached.
        while let Err(error) = begin(&mut reader, partition, &mut end) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("{topic} cannot be read to its end"));
            }
            std::thread::sleep(POLL);
        }
        let mut fault = None;
        loop {
            let taken = &mut |number: i32, key: &[u8], value: Option<&[u8]>| fault = take(number, key, value).err();
            match reader.poll(POLL, taken)? {
                Restored::Done(_) => break,
                Restored::Record => deadline = Instant::now() + PATIENCE,
                Restored::Nothing if Instant::now() > deadline => {
                    bail!("nothing more came of {topic} within {PATIENCE:?}, before its end")
                }
                Restored::Nothing => {}
            }
            if let Some(fault) = fault.take() {
                bail!(fault);
            }
        }
    }
    Ok(partitions)
}

/// Begins to read a partition to the end that it had when Kafka was first asked.
fn begin(reader: &mut TableReader, partition: i32, end: &mut Option<i64>) -> Result<(), Unavailable> {
    let end = match end {
        Some(end) => *end,
        None => *end.insert(reader.true_end(partition)?),
    };
    reader.begin_to(partition, end)
}

fn partitions(reader: &TableReader, deadline: Instant) -> anyhow::Result<i32> {
    loop {
        match reader.partitions() {
            Ok(partitions) => return Ok(partitions),
            Err(error) if error.is_denied() || Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// `sweeps list`.
///
/// # Errors
/// See [`read`]; or when it cannot be written.
pub fn list(config: &Config, as_json: bool, output: &mut dyn Write) -> anyhow::Result<()> {
    let lines: Vec<_> = read(config)?.1.into_iter().map(|(scope, ledger)| Line::new(scope, &ledger)).collect();
    if as_json {
        serde_json::to_writer_pretty(&mut *output, &lines)?;
        writeln!(output)?;
        return Ok(());
    }
    if lines.is_empty() {
        writeln!(output, "no scope was swept yet")?;
        return Ok(());
    }
    let width = lines.iter().map(|line| line.scope.len()).max().unwrap_or_default().max(5);
    writeln!(
        output,
        "{:width$}  {:10}  {:20}  {:>8}  {:>8}  NOTE",
        "SCOPE", "VERDICT", "LAST COMPLETE", "KNOWN", "SUSPECTS"
    )?;
    for line in lines {
        let complete = line.last_complete.as_deref().unwrap_or("never");
        let note = if line.out_of_scope {
            "out of scope: no longer configured".to_owned()
        } else if line.accepted {
            format!("{} held back, accepted: the next sweep counts them", line.held)
        } else if line.held > 0 {
            format!("{} held back: `rollcall sweeps accept {}` if they are really gone", line.held, line.scope)
        } else {
            line.fault.unwrap_or_default()
        };
        let Line { scope, verdict, known, suspects, .. } = line;
        let row = format!("{scope:width$}  {verdict:10}  {complete:20}  {known:>8}  {suspects:>8}  {note}");
        writeln!(output, "{}", row.trim_end())?;
    }
    Ok(())
}

/// `sweeps accept`: what vanished from the scope may be taken for gone. How many it is.
///
/// # Errors
/// When the scope is not known, nothing of it is held back, or Kafka does not take the word.
pub async fn accept(config: &Config, scope: &str) -> anyhow::Result<i64> {
    let (partitions, ledgers) = tokio::task::block_in_place(|| read(config))?;
    let Some(ledger) = ledgers.get(scope) else {
        let known: Vec<_> = ledgers.keys().map(String::as_str).collect();
        bail!("{scope:?} is not a scope that was swept; those are: {}", known.join(", "));
    };
    let missing = match &ledger.head {
        Some(head) if head.missing > 0 => head.missing,
        _ => bail!("nothing of {scope} is held back, so there is nothing to accept"),
    };
    let topic = &config.kafka.topics.sweeps;
    let key = Key::Acceptance(scope).to_string();
    let acceptance = Acceptance { missing, at: Utc::now().timestamp_millis() };
    let value = Record::Acceptance(Some(acceptance)).encode().unwrap_or_default();
    let mut settings = client::common(&config.kafka, &format!("{}-sweeps", config.instance_id.0));
    let producer: FutureProducer<Plain> = client::connect(settings.set("acks", "all"), Plain)?;
    let partition = partition_for(scope.as_bytes(), partitions);
    let record = FutureRecord::to(topic).key(&key).payload(&value).partition(partition);
    let sent = producer.send(record, PATIENCE).await;
    sent.map_err(|(error, _)| error).with_context(|| format!("{topic} did not take it"))?;
    Ok(missing)
}
