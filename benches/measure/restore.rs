//! A restart with many devices: how long until it is ready, and what it takes.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall::mapper::changelog::Changelog;
use rollcall::mapper::state::{DeviceState, Known, Life, Rendering};
use rollcall::profile::Profile;
use rollcall::record::{Digest, Secret, partition_for};

use super::fleet::{Sample, mapping, site};
use super::process::{PARTITIONS, Topics, memory};
use super::report;

const RUNS: usize = 3;
/// Instances of an account in a region.
const SITE: usize = 2000;

/// What one start came to.
struct Run {
    ready: Duration,
    resident: u64,
    peak: u64,
    state: f64,
}

pub fn measure(profiles: &[Profile], devices: usize, write: bool) -> anyhow::Result<()> {
    let mut table = String::new();
    let cores = std::thread::available_parallelism()?;
    writeln!(
        table,
        "{PARTITIONS} partitions, an engine for each of {cores} cores, Kafka on the same; the best of {RUNS} runs.\n"
    )?;
    table += "| profile | devices | device, bytes of JSON | ready after | resident, MiB | at most, MiB | state, bytes a device |\n";
    table += "|---|---|---|---|---|---|---|\n";
    for &profile in profiles {
        let topics = Topics::create(profile)?;
        let json_bytes = fill(&topics, profile, devices)?;
        let runs = (0..RUNS).map(|_| start(&topics, devices)).collect::<anyhow::Result<Vec<_>>>()?;
        let best = runs.iter().min_by_key(|run| run.ready).context("no run")?;
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            table,
            "| `{}` | {devices} | {} | {:.1} s | {} | {} | {} |",
            profile.name(),
            json_bytes / devices as u64,
            best.ready.as_secs_f64(),
            runs.iter().map(|run| mib(run.resident)).max().unwrap_or_default(),
            runs.iter().map(|run| mib(run.peak)).max().unwrap_or_default(),
            best.state as usize / devices,
        )?;
    }
    report::publish(&format!("state-{devices}"), &table, write)
}

/// Writes the states of so many devices; the bytes of these devices in JSON.
fn fill(topics: &Topics, profile: Profile, devices: usize) -> anyhow::Result<u64> {
    let bytes = AtomicU64::new(0);
    let next_site = AtomicU64::new(0);
    let sites = devices.div_ceil(SITE) as u64;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut writer = Writer::new(topics, profile);
                loop {
                    let seed = next_site.fetch_add(1, Ordering::Relaxed);
                    if seed >= sites {
                        break;
                    }
                    let size = SITE.min(devices - seed as usize * SITE);
                    site(seed, size).for_each(|sample| writer.write(&sample));
                }
                writer.producer.flush(Duration::from_secs(60)).expect("Kafka takes them");
                bytes.fetch_add(writer.bytes, Ordering::Relaxed);
            });
        }
    });
    commit_offsets(topics)?;
    Ok(bytes.into_inner())
}

/// A group that has been here: without offsets the devices would be somebody else's.
fn commit_offsets(topics: &Topics) -> anyhow::Result<()> {
    let consumer: BaseConsumer = topics.client().set("group.id", topics.topic("mapper")).create()?;
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        offsets.add_partition_offset(&topics.topic("raw"), partition, Offset::Offset(0))?;
    }
    Ok(consumer.commit(&offsets, CommitMode::Sync)?)
}

/// Starts `rollcall map`, waits until it is ready, and ends it.
fn start(topics: &Topics, devices: usize) -> anyhow::Result<Run> {
    let mut mapper = topics.start_mapper()?;
    let ready = mapper.wait_until_ready(devices)?;
    // What is still on its way through allocators and clients has arrived then.
    std::thread::sleep(Duration::from_secs(2));
    let [resident, peak] = memory(mapper.id())?;
    let state = mapper.metric("rollcall_mapper_state_bytes")?;
    mapper.stop()?;
    eprintln!("ready after {:.1} s, {} MiB, at most {} MiB", ready.as_secs_f64(), resident >> 20, peak >> 20);
    Ok(Run { ready, resident, peak, state })
}

/// Writes device states.
struct Writer {
    topic: String,
    producer: BaseProducer,
    changelog: Changelog,
    mapping: rollcall::profile::Mapping,
    bytes: u64,
}

impl Writer {
    fn new(topics: &Topics, profile: Profile) -> Self {
        // As the mapper compresses.
        let mut config = topics.client();
        config.set("compression.type", "lz4").set("linger.ms", "20");
        Self {
            topic: topics.topic("state"),
            producer: config.create().expect("a producer"),
            changelog: Changelog::new(profile).expect("the embedded schema"),
            mapping: mapping(profile),
            bytes: 0,
        }
    }

    fn write(&mut self, sample: &Sample) {
        let device = sample.render(&self.mapping);
        self.bytes += device.len() as u64;
        let digest = Digest::by(Secret::own(), device.as_bytes(), None, None);
        let known = Known { digest, fingerprint: self.mapping.fingerprint() };
        let observed_at = 1_767_225_600_000 + self.bytes as i64;
        let state = DeviceState {
            revision: 1,
            observed_at,
            raw_offset: (self.bytes / 1000) as i64,
            first_seen: observed_at - 86_400_000,
            last_change: observed_at,
            life: Life::Present(Rendering { known, device }),
        };
        let value = self.changelog.encode(&state).expect("a state fits the schema");
        let partition = partition_for(sample.id.as_bytes(), PARTITIONS);
        let mut record = BaseRecord::to(&self.topic).key(&sample.id).payload(&value).partition(partition);
        while let Err((error, unsent)) = self.producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            self.producer.poll(Duration::from_millis(10));
            record = unsent;
        }
        self.producer.poll(Duration::ZERO);
    }
}
