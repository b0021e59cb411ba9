//! Raw records as a collector writes them, and a gate that keeps them from being read before all are there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rollcall::record::{AWS_ACCOUNT, AWS_REGION, OBSERVED_AT, SCHEMA, SCHEMA_VERSION, SWEEP_ID, partition_for};

use crate::fleet::{Sample, site};
use crate::process::{PARTITIONS, Topics};

/// Instances of an account in a region.
const SITE: usize = 2000;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The records of a fleet, once.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Instances.
    pub records: usize,
    /// Which sweep it is: each is an hour later than the one before.
    pub sweep: u32,
    /// One of so many has changed since the sweep before.
    pub changed: Option<usize>,
}

/// Appends a pass to the raw topic; the bytes of its values.
pub fn load(topics: &Topics, pass: Pass) -> anyhow::Result<u64> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<u64> {
            let mut writer = RawWriter::new(topics, pass.sweep, "100")?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let first = number * SITE;
                if first >= pass.records {
                    writer.producer.flush(TIMEOUT)?;
                    return Ok(writer.bytes);
                }
                for (index, sample) in site(number as u64, SITE.min(pass.records - first)).enumerate() {
                    if pass.changed.is_some_and(|one_of| (first + index).is_multiple_of(one_of)) {
                        writer.write(&sample.id, &sample.revised(pass.sweep.into()))?;
                    } else {
                        writer.write(&sample.id, &sample.json)?;
                    }
                }
            }
        };
        let workers = [scope.spawn(work), scope.spawn(work)];
        let bytes =
            workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        bytes.sum()
    })
}

/// Writes raw records.
pub struct RawWriter {
    topic: String,
    observed_at: String,
    sweep: String,
    pub producer: BaseProducer,
    bytes: u64,
}

impl RawWriter {
    pub fn new(topics: &Topics, sweep: u32, linger_ms: &str) -> anyhow::Result<Self> {
        let mut config = topics.client();
        config.set("compression.type", "lz4").set("linger.ms", linger_ms).set("batch.size", "1000000");
        Ok(Self {
            topic: topics.topic("raw"),
            observed_at: format!("2026-01-01T{sweep:02}:00:00.000Z"),
            sweep: format!("01990000-0000-7000-8000-{sweep:012}"),
            producer: config.create()?,
            bytes: 0,
        })
    }

    pub fn write(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header(OBSERVED_AT, self.observed_at.as_str()))
            .insert(header(SWEEP_ID, self.sweep.as_str()))
            .insert(header(AWS_ACCOUNT, "123456789012"))
            .insert(header(AWS_REGION, "eu-west-1"))
            .insert(header(SCHEMA, SCHEMA_VERSION));
        self.bytes += json.len() as u64;
        let partition = partition_for(id.as_bytes(), PARTITIONS);
        let mut record = BaseRecord::to(&self.topic).key(id).payload(json).partition(partition).headers(headers);
        while let Err((error, unsent)) = self.producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error.into());
            }
            self.producer.poll(Duration::from_millis(10));
            record = unsent;
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }
}

/// A transaction on every raw partition. While it is open, nobody who reads what is committed sees what lies behind it:
/// a million records can be there before the first of them is read.
pub struct Gate(BaseProducer);

impl Gate {
    pub fn close(topics: &Topics) -> anyhow::Result<Self> {
        let mut config = topics.client();
        config.set("transactional.id", topics.topic("gate")).set("transaction.timeout.ms", "900000");
        let producer: BaseProducer = config.create()?;
        producer.init_transactions(TIMEOUT)?;
        producer.begin_transaction()?;
        let topic = topics.topic("raw");
        for partition in 0..PARTITIONS {
            let record = BaseRecord::<str, str>::to(&topic).partition(partition).key("gate");
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(TIMEOUT)?;
        Ok(Self(producer))
    }

    pub fn open(self) -> anyhow::Result<()> {
        self.0.abort_transaction(TIMEOUT).context("the gate does not open")
    }
}

/// So many instances that no pass has.
pub fn others(count: usize) -> Vec<Sample> {
    site(u64::MAX, count).collect()
}
