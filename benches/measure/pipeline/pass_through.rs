//! The speed of light here: transactions that pass the same bytes on, with the mapper's clients, threads and batches.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall::config::{self, Config};
use rollcall::kafka::client;
use serde_json::{Value, json};

use super::Cost;
use crate::process::{PARTITIONS, Topics, cpu_seconds, memory};

const TIMEOUT: Duration = Duration::from_secs(60);
const OUT: &str = "passed";

/// Runs it in a process of its own, as Rollcall runs; its cost.
pub fn measure(topics: &Topics, records: usize) -> anyhow::Result<Cost> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .arg("pass-through")
        .env("PASS_THROUGH_CONFIG", topics.config())
        .env("PASS_THROUGH_RECORDS", records.to_string())
        .env("PASS_THROUGH_OUT", topics.topic(OUT))
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let told: Value = serde_json::from_slice(&output.stdout).context("the pass-through told nothing")?;
    let number = |name: &str| told[name].as_f64().context("a number");
    topics.delete(&[OUT])?;
    Ok(Cost {
        records: records as f64,
        seconds: number("seconds")?,
        cpu_seconds: number("cpu_seconds")?,
        peak_bytes: number("peak_bytes")?,
    })
}

/// The process.
pub fn run() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let config = config::load(Some(Path::new(&variable("PASS_THROUGH_CONFIG")?)), &[])?;
    let (out, records) = (variable("PASS_THROUGH_OUT")?, variable("PASS_THROUGH_RECORDS")?.parse::<usize>()?);
    create(&config, &out)?;
    let threads = config.mapper.engines.get();
    let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id())?);
    let passed: usize = std::thread::scope(|scope| {
        let pass = |slot| {
            let (config, out) = (&config, &out);
            scope.spawn(move || pass(config, out, slot, threads))
        };
        let workers: Vec<_> = (0..threads).map(pass).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("it panicked"))?)
            .sum::<anyhow::Result<_>>()
    })?;
    anyhow::ensure!(passed == records, "{passed} of {records} records were passed on");
    let id = std::process::id();
    let told = json!({
        "seconds": began.elapsed().as_secs_f64(),
        "cpu_seconds": cpu_seconds(id)? - cpu,
        "peak_bytes": memory(id)?[1],
    });
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

/// Passes on the partitions of one thread, as far as they are filled now.
fn pass(config: &Config, out: &str, slot: usize, threads: usize) -> anyhow::Result<usize> {
    let (kafka, mapper) = (&config.kafka, &config.mapper);
    let name = format!("{out}-{slot}");
    let consumer: BaseConsumer = client::reader(kafka, &name, out).create()?;
    let producer: BaseProducer = client::producer(kafka, &name, rollcall::mapper::kafka_port::LINGER).create()?;
    let mut assignment = TopicPartitionList::new();
    let mut open = 0;
    for partition in (0..PARTITIONS).filter(|partition| *partition as usize % threads == slot) {
        assignment.add_partition_offset(&kafka.topics.raw, partition, Offset::Beginning)?;
        open += 1;
    }
    producer.init_transactions(TIMEOUT)?;
    consumer.assign(&assignment)?;
    let mut passed = 0;
    while open > 0 {
        let (opened, mut records, mut bytes) = (Instant::now(), 0, 0);
        let mut offsets = TopicPartitionList::new();
        let mut next = std::collections::BTreeMap::new();
        producer.begin_transaction()?;
        while open > 0
            && records < mapper.max_batch_records.get()
            && bytes < mapper.max_batch_bytes.get()
            && opened.elapsed() < mapper.commit_interval
        {
            match consumer.poll(mapper.commit_interval.saturating_sub(opened.elapsed())) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(message)) => {
                    records += 1;
                    bytes += message.payload_len();
                    next.insert(message.partition(), message.offset() + 1);
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
                    producer.poll(Duration::ZERO);
                }
            }
        }
        drain(&producer)?;
        for (partition, next) in next {
            offsets.add_partition_offset(&kafka.topics.raw, partition, Offset::Offset(next))?;
        }
        if records > 0 {
            let group = consumer.group_metadata().context("no group")?;
            producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
        }
        producer.commit_transaction(TIMEOUT)?;
        passed += records;
    }
    Ok(passed)
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
