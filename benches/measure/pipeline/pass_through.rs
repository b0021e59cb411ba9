//! The speed of light here: transactions that pass the same bytes on, with the mapper's clients, threads and batches.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall::config::{self, Config};
use rollcall::kafka::client;
use rollcall::mapper::bounds::Bounds;
use serde_json::{Value, json};

use super::Cost;
use super::latency::{self, Latency, Load};
use crate::process::{PARTITIONS, Topics, cpu_seconds, memory};

const TIMEOUT: Duration = Duration::from_secs(60);
const OUT: &str = "passed";

/// What it passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records {
    /// What is there.
    Past,
    /// What comes, until it is killed.
    Future,
}

/// It, in a process of its own, as Rollcall runs.
fn command(topics: &Topics, which: Records) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("pass-through")
        .env("PASS_THROUGH_CONFIG", topics.config())
        .env("PASS_THROUGH_RECORDS", if which == Records::Past { "past" } else { "future" })
        .env("PASS_THROUGH_OUT", topics.topic(OUT))
        .stdout(Stdio::piped());
    Ok(command)
}

/// What it costs to pass on what is there.
pub fn measure(topics: &Topics, records: usize) -> anyhow::Result<Cost> {
    let output = command(topics, Records::Past)?.stderr(Stdio::inherit()).output()?;
    let told: Value = serde_json::from_slice(&output.stdout).context("the pass-through told nothing")?;
    anyhow::ensure!(told["records"] == records, "it passed on other than {records} records: {told}");
    let number = |name: &str| told[name].as_f64().context("a number");
    topics.delete(&[OUT])?;
    Ok(Cost {
        records: records as f64,
        seconds: number("seconds")?,
        cpu_seconds: number("cpu_seconds")?,
        peak_bytes: number("peak_bytes")?,
    })
}

/// How long it takes a record to get through.
pub fn latency(topics: &Topics) -> anyhow::Result<Latency> {
    let mut child = command(topics, Records::Future)?.spawn()?;
    let measured = child.stdout.take().context("no output").and_then(|output| {
        // It says so once it will miss nothing.
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "it ended");
        latency::measure(topics, Load::New, OUT)
    });
    child.kill()?;
    child.wait()?;
    topics.delete(&[OUT])?;
    measured
}

/// The process.
pub fn run() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let config = config::load(Some(Path::new(&variable("PASS_THROUGH_CONFIG")?)), &[])?;
    let which = if variable("PASS_THROUGH_RECORDS")? == "past" { Records::Past } else { Records::Future };
    let out = variable("PASS_THROUGH_OUT")?;
    create(&config, &out)?;
    let threads = config.mapper.engines.get();
    // As a mapper's, its start and its end are not measured.
    let ready = Barrier::new(threads + 1);
    let id = std::process::id();
    let told = std::thread::scope(|scope| {
        let pass = |slot| {
            let (config, out, ready) = (&config, &out, &ready);
            scope.spawn(move || -> anyhow::Result<_> {
                let clients = Clients::new(config, out, which, slot, threads);
                ready.wait();
                let clients = clients?;
                let (passed, ended) = pass(config, out, which, &clients)?;
                Ok((passed, ended, clients))
            })
        };
        let workers: Vec<_> = (0..threads).map(pass).collect();
        ready.wait();
        let (began, cpu) = (Instant::now(), cpu_seconds(id)?);
        if which == Records::Future {
            println!("ready");
        }
        let (mut passed, mut ended, mut clients) = (0, began, Vec::new());
        for worker in workers {
            let (records, at, those) = worker.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
            (passed, ended) = (passed + records, ended.max(at));
            // Their end is not measured.
            clients.push(those);
        }
        anyhow::Ok(json!({
            "records": passed,
            "seconds": (ended - began).as_secs_f64(),
            "cpu_seconds": cpu_seconds(id)? - cpu,
            "peak_bytes": memory(id)?[1],
        }))
    })?;
    println!("{told}");
    Ok(())
}

fn create(config: &Config, out: &str) -> anyhow::Result<()> {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<_> = client::common(&config.kafka, "pass-through").create()?;
    let topic = NewTopic::new(out, PARTITIONS, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for created in runtime.block_on(async { admin.create_topics([&topic], &AdminOptions::new()).await })? {
        created.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}

/// What one thread reads and writes with.
struct Clients {
    consumer: BaseConsumer,
    producer: BaseProducer,
    /// Its partitions, and where it begins to read them.
    from: TopicPartitionList,
}

impl Clients {
    /// They have their connections, and read nothing yet.
    fn new(config: &Config, out: &str, which: Records, slot: usize, threads: usize) -> anyhow::Result<Self> {
        let (kafka, name) = (&config.kafka, format!("{out}-{slot}"));
        let consumer: BaseConsumer = client::reader(kafka, &name, out).create()?;
        let producer: BaseProducer = client::producer(kafka, &name).create()?;
        producer.init_transactions(TIMEOUT)?;
        let (raw, mut from) = (&kafka.topics.raw, TopicPartitionList::new());
        for partition in (0..PARTITIONS).filter(|partition| *partition as usize % threads == slot) {
            let (first, end) = consumer.fetch_watermarks(raw, partition, TIMEOUT)?;
            let offset = if which == Records::Past { first } else { end };
            from.add_partition_offset(raw, partition, Offset::Offset(offset))?;
        }
        Ok(Self { consumer, producer, from })
    }
}

/// Passes on what the consumer has: how much that was, and when the last of it was committed.
fn pass(config: &Config, out: &str, which: Records, clients: &Clients) -> anyhow::Result<(usize, Instant)> {
    let (kafka, bounds) = (&config.kafka, Bounds::new(config));
    let Clients { consumer, producer, from } = clients;
    consumer.assign(from)?;
    let (mut open, mut passed, mut ended) = (from.count(), 0, Instant::now());
    while open > 0 {
        let (mut opened, mut age, mut records, mut bytes) = (Instant::now(), Duration::ZERO, 0, 0);
        let (mut next, mut records_wait) = ([None; PARTITIONS as usize], true);
        producer.begin_transaction()?;
        while open > 0 && (records == 0 || !bounds.are_reached(age, records, bytes, records_wait)) {
            let polled = consumer.poll(bounds.age.saturating_sub(age));
            if records == 0 {
                opened = Instant::now();
            }
            age = opened.elapsed();
            records_wait = polled.is_some();
            match polled {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    records_wait = false;
                    open -= usize::from(which == Records::Past);
                }
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(message)) => {
                    records += 1;
                    bytes += message.payload_len();
                    next[message.partition() as usize] = Some(message.offset() + 1);
                    let mut record = BaseRecord::<[u8], [u8]>::to(out).partition(message.partition());
                    record.key = message.key();
                    record.payload = message.payload();
                    record.headers = message.headers().map(rdkafka::message::BorrowedHeaders::detach);
                    while let Err((error, unsent)) = producer.send(record) {
                        anyhow::ensure!(
                            matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                            "{error}"
                        );
                        producer.poll(Duration::from_millis(10));
                        record = unsent;
                    }
                }
            }
        }
        drain(producer)?;
        if records > 0 {
            let mut offsets = TopicPartitionList::new();
            for (partition, next) in (0..).zip(next) {
                if let Some(next) = next {
                    offsets.add_partition_offset(&kafka.topics.raw, partition, Offset::Offset(next))?;
                }
            }
            let group = consumer.group_metadata().context("no group")?;
            producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
        }
        producer.commit_transaction(TIMEOUT)?;
        passed += records;
        if records > 0 {
            ended = Instant::now();
        }
    }
    Ok((passed, ended))
}

/// Waits until all is acknowledged: undrained, a commit takes 100 ms, and so does `flush`.
fn drain(producer: &BaseProducer) -> anyhow::Result<()> {
    let began = Instant::now();
    while producer.in_flight_count() > 0 {
        anyhow::ensure!(began.elapsed() < TIMEOUT, "records were not acknowledged within {TIMEOUT:?}");
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
