//! From the moment that a raw record is due to be handed to a producer until its event can be read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::load::{RawWriter, others};
use crate::fleet::{Sample, site};
use crate::process::{PARTITIONS, Topics};

/// Records at the beginning that do not count.
const WARM_UP: Duration = Duration::from_secs(2);
const LENGTH: Duration = Duration::from_secs(8);
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records that may wait for their events while the highest rate is looked for.
const AHEAD: usize = 50_000;
/// Of them, between two looks.
const AT_ONCE: usize = 200;
/// How long the writer waits for records to share a request: a request for each would keep the broker busier than the mapper.
const LINGER_MS: &str = "5";
/// Instances that are written again and again.
const POOL: usize = 20_000;
/// Instances that change, in turn: so many that each event has come before its instance changes again.
const CHANGING: usize = 2000;

/// Of which records the load is.
#[derive(Clone, Copy)]
pub enum Load {
    /// Instances that were never seen.
    New,
    /// Those of the fleet; one of so many has changed.
    Known { sweep: u32, one_of: usize },
}

pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
    /// Raw records a second that were really written.
    pub rate: f64,
    /// The number of the record that would have come next.
    next: usize,
}

/// How quickly records are written.
#[derive(Clone, Copy)]
enum Pace {
    /// So many a second.
    Rate(f64),
    /// As quickly as they are mapped: those that wait for their events are so many at most.
    Ahead(usize),
}

/// At half of the rate that is kept up while the load is written and the events are read, from the topic `out`, on the same
/// cores.
pub fn measure(topics: &Topics, load: Load, out: &str) -> anyhow::Result<Latency> {
    let full = run(topics, load, out, Pace::Ahead(AHEAD), 0)?;
    // Instances that are new, and revisions, must be so again.
    run(topics, load, out, Pace::Rate(full.rate / 2.0), full.next.next_multiple_of(POOL))
}

/// When records were handed over whose events have not come yet, by their keys.
#[derive(Default)]
struct Waiting(Mutex<HashMap<String, Instant>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(topics: &Topics, load: Load, out: &str, pace: Pace, first: usize) -> anyhow::Result<Latency> {
    let waiting = Waiting::default();
    let is_written = AtomicBool::new(false);
    let consumer = events(topics, out)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> anyhow::Result<Vec<Duration>> {
            let mut latencies = Vec::new();
            let mut heard = Instant::now();
            while !(is_written.load(Ordering::Relaxed) && (waiting.lock().is_empty() || heard.elapsed() > PATIENCE)) {
                // An error passes, or the events never come.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                if let Some(at) = waiting.lock().remove(&key) {
                    heard = Instant::now();
                    latencies.push(at.elapsed());
                }
            }
            let lost = waiting.lock().len();
            anyhow::ensure!(lost == 0, "{lost} events never came");
            Ok(latencies)
        });
        let written = write(topics, load, pace, first, &waiting);
        is_written.store(true, Ordering::Relaxed);
        let mut latencies = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        latencies.sort_unstable();
        let quantile = |of: f64| latencies.get((latencies.len() as f64 * of) as usize).copied().context("no event");
        let (rate, next) = written?;
        Ok(Latency { p50: quantile(0.5)?, p99: quantile(0.99)?, rate, next })
    })
}

/// Reads what comes from now on.
fn events(topics: &Topics, out: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = topics.client();
    config.set("group.id", topics.topic("reader")).set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.set("fetch.wait.max.ms", "50").create()?;
    let topic = topics.topic(out);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let (_, end) = consumer.fetch_watermarks(&topic, partition, PATIENCE)?;
        assignment.add_partition_offset(&topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

/// Writes records from number `first` on; how many a second, and the number that would come next.
fn write(topics: &Topics, load: Load, pace: Pace, first: usize, waiting: &Waiting) -> anyhow::Result<(f64, usize)> {
    let sweep = match load {
        Load::New => 3,
        Load::Known { sweep, .. } => sweep,
    };
    let mut writer = RawWriter::new(topics, sweep, LINGER_MS)?;
    let pool: Vec<Sample> = match load {
        Load::New => others(POOL),
        Load::Known { .. } => (0..).flat_map(|seed| site(seed, 2000)).take(POOL).collect(),
    };
    let of_one_event = match load {
        Load::New => 1,
        Load::Known { one_of, .. } => one_of,
    };
    let note = |id: &str, at| waiting.lock().insert(id.to_owned(), at);
    let unmapped = || waiting.lock().len() * of_one_event;
    let (began, total) = (Instant::now(), WARM_UP + LENGTH);
    let (mut written, mut looks, mut held) = (first, 0_u32, 0_u32);
    while began.elapsed() < total {
        let due = match pace {
            Pace::Rate(rate) => first + (began.elapsed().as_secs_f64() * rate) as usize,
            Pace::Ahead(most) if unmapped() < most => written + AT_ONCE,
            Pace::Ahead(_) => written,
        };
        (looks, held) = (looks + 1, held + u32::from(due == written));
        while written < due {
            let index = written % POOL;
            let (at, counts) = match pace {
                // A writer that is late must not hide it.
                Pace::Rate(rate) => {
                    let after = Duration::from_secs_f64((written + 1 - first) as f64 / rate);
                    (began + after, after > WARM_UP)
                }
                Pace::Ahead(_) => (Instant::now(), true),
            };
            match load {
                Load::New => {
                    let (id, json) = pool[index].renamed(written / POOL);
                    if counts {
                        note(&id, at);
                    }
                    writer.write(&id, &json)?;
                }
                Load::Known { one_of, .. } if written.is_multiple_of(one_of) => {
                    let turn = written / one_of;
                    // As they are in the fleet, those of the last sweep that had changed.
                    let sample = &pool[turn % CHANGING];
                    if counts {
                        note(&sample.id, at);
                    }
                    writer.write(&sample.id, &sample.revised(1000 + turn as u64))?;
                }
                Load::Known { .. } => {
                    let sample = &pool[CHANGING + written % (POOL - CHANGING)];
                    // What the last sweep has said of it.
                    let place = CHANGING + written % (POOL - CHANGING);
                    if place.is_multiple_of(super::ONE_OF) {
                        writer.write(&sample.id, &sample.revised(3))?;
                    } else {
                        writer.write(&sample.id, &sample.json)?;
                    }
                }
            }
            written += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let in_time = match pace {
        Pace::Rate(_) => written - first,
        Pace::Ahead(_) => (written - first).saturating_sub(unmapped()),
    };
    let rate = in_time as f64 / began.elapsed().as_secs_f64();
    if matches!(pace, Pace::Ahead(_)) {
        eprintln!("  full load: {rate:.0} records/s; the mapper was waited for in {held} of {looks} looks");
    }
    writer.producer.flush(PATIENCE)?;
    Ok((rate, written))
}
