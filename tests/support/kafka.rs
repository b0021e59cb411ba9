//! Topics of a test's own, and plain clients on them: none of the program's own code but its configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::{server, wait_for};

/// How long one question to Kafka takes at most, and how long it is asked again.
const LIMIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// Six topics that no other test has.
#[derive(Debug, Clone)]
pub struct TestTopics {
    pub prefix: String,
    pub partitions: i32,
    /// The brokers, where they are not those of all tests.
    brokers: Option<String>,
    replicas: i32,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

impl Read {
    pub fn key(&self) -> &str {
        std::str::from_utf8(self.key.as_deref().unwrap_or_default()).unwrap()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).unwrap()
    }
}

impl TestTopics {
    /// Creates them, with `partitions` each. Raw and dead letters take records of 4 MB.
    pub fn create(partitions: i32) -> Self {
        Self::named(partitions).created()
    }

    /// The same on brokers of the test's own.
    pub fn create_on(brokers: &str, partitions: i32) -> Self {
        Self::named(partitions).on(brokers).created()
    }

    /// The same on three brokers: of three replicas two must be in sync. What is compacted is so soon.
    pub fn create_replicated(brokers: &str, partitions: i32) -> Self {
        Self { brokers: Some(brokers.to_owned()), replicas: 3, ..Self::named(partitions) }.created()
    }

    fn created(self) -> Self {
        let topics = self;
        topics.create_one("raw", "delete", "4000000");
        topics.create_one("sweeps", "compact", "1048588");
        topics.create_one("events", "delete", "1048588");
        topics.create_one("state", "compact", "1048588");
        topics.create_one("dlq", "delete", "4100000");
        topics.create_one("health", "delete", "1048588");
        // The controller has made them; a busy broker may not know it yet.
        let client: BaseConsumer = client_on(&topics.brokers()).create().unwrap();
        wait_for("the topics to be known", PATIENCE, || {
            let known = client.fetch_metadata(None, LIMIT).ok()?;
            let ours = known.topics().iter().filter(|topic| topic.name().starts_with(&format!("{}.", topics.prefix)));
            (ours.count() == 6).then_some(())
        });
        topics
    }

    fn create_one(&self, name: &str, policy: &str, bytes: &str) {
        let topic = self.name(name);
        let in_sync = (self.replicas - 1).max(1).to_string();
        let mut new = NewTopic::new(&topic, self.partitions, TopicReplication::Fixed(self.replicas))
            .set("cleanup.policy", policy)
            .set("max.message.bytes", bytes)
            .set("min.insync.replicas", &in_sync);
        if self.replicas > 1 && policy == "compact" {
            new = new.set("segment.bytes", "4194304").set("min.cleanable.dirty.ratio", "0.1");
        }
        let admin: AdminClient<DefaultClientContext> = client_on(&self.brokers()).create().unwrap();
        let made = futures_executor(admin.create_topics([&new], &AdminOptions::new()));
        made.unwrap().remove(0).unwrap();
    }

    /// The same on brokers of the test's own.
    pub fn on(self, brokers: &str) -> Self {
        Self { brokers: Some(brokers.to_owned()), ..self }
    }

    /// Only their names.
    pub fn named(partitions: i32) -> Self {
        Self { prefix: format!("t-{}", uuid::Uuid::now_v7().simple()), partitions, brokers: None, replicas: 1 }
    }

    /// The brokers that they are on.
    pub fn brokers(&self) -> String {
        self.brokers.clone().unwrap_or_else(|| server("KAFKA"))
    }

    /// The same with what was aborted.
    #[allow(dead_code)]
    pub fn read_uncommitted(&self, topic: &str) -> Vec<Read> {
        read_all_on(&self.brokers(), &self.name(topic), "read_uncommitted")
    }

    /// What a consumer may see of one of them, as in `raw`.
    pub fn read(&self, topic: &str) -> Vec<Read> {
        read_all_on(&self.brokers(), &self.name(topic), "read_committed")
    }

    /// The last value of each key of one of them, as in `sweeps`.
    pub fn table(&self, topic: &str) -> BTreeMap<String, Vec<u8>> {
        last_values(&self.read(topic))
    }

    /// Hands over each record of one of them, without keeping it.
    pub fn read_each(&self, topic: &str, isolation: &str, take: impl FnMut(Read)) {
        read_each_on(&self.brokers(), &self.name(topic), isolation, take);
    }

    /// Where each partition of one of them ends.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        ends_on(&self.brokers(), &self.name(topic), self.partitions, "read_uncommitted")
    }

    /// Where the first open transaction of each begins, or the end.
    pub fn stable_ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        ends_on(&self.brokers(), &self.name(topic), self.partitions, "read_committed")
    }

    /// Which of their brokers leads a partition of any topic, by its full name.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        let client: BaseConsumer = client_on(&self.brokers()).set("group.id", "test-reader").create().unwrap();
        let metadata = wait_for("metadata", PATIENCE, || client.fetch_metadata(Some(topic), LIMIT).ok());
        let partitions = metadata.topics()[0].partitions();
        partitions.iter().find(|found| found.id() == partition).unwrap().leader()
    }

    /// A producer to them, as a foreign one would be: see [`producer`].
    pub fn producer(&self) -> BaseProducer {
        producer_on(&self.brokers())
    }

    /// What a group of theirs (as in `mapper`) has committed on one of them, by partition.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        committed_on(&self.brokers(), &self.name(group), &self.name(topic), self.partitions)
    }

    pub fn name(&self, topic: &str) -> String {
        format!("{}.{topic}", self.prefix)
    }

    /// A configuration on these topics, for the program.
    pub fn config(&self) -> Value {
        json!({
            // Collectors of equal name fence each other, whatever topics they write to.
            "instance_id": self.prefix,
            "kafka": {
                "bootstrap_servers": self.brokers(),
                "topics": {
                    "raw": self.name("raw"), "sweeps": self.name("sweeps"), "events": self.name("events"),
                    "state": self.name("state"), "dead_letters": self.name("dlq"), "health": self.name("health"),
                },
                "partitions": self.partitions, "sweep_partitions": self.partitions,
                // A test that kills does not want to wait for a session to expire.
                "properties": {"session.timeout.ms": 2000, "heartbeat.interval.ms": 200},
            },
            "collector": {"group_id": self.name("collector")},
            "mapper": {"group_id": self.name("mapper"), "encoding": "json", "engines": 1},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"format": "json", "filter": "info,rollcall=debug"},
        })
    }
}

fn client_on(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A producer of raw records, as a foreign one would be: JVM-compatible partitioner, no transactions.
pub fn producer() -> BaseProducer {
    producer_on(&server("KAFKA"))
}

fn producer_on(brokers: &str) -> BaseProducer {
    let mut config = client_on(brokers);
    config.set("partitioner", "murmur2_random").set("linger.ms", "5").set("message.max.bytes", "5000000");
    // A broker that goes away must not make a record come twice.
    config.set("queue.buffering.max.messages", "1000000").set("enable.idempotence", "true");
    config.create().unwrap()
}

/// Produces a raw record by its key; waits while the queue is full.
pub fn send(
    producer: &BaseProducer,
    topic: &str,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, &str)],
    partition: Option<i32>,
) {
    let mut owned = OwnedHeaders::new();
    for (name, value) in headers {
        owned = owned.insert(Header { key: name, value: Some(*value) });
    }
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(owned);
    record.key = key;
    record.payload = value;
    record.partition = partition;
    while let Err((error, unsent)) = producer.send(record) {
        assert!(matches!(error, KafkaError::MessageProduction(Code::QueueFull)), "{topic}: {error}");
        producer.poll(Duration::from_millis(5));
        record = unsent;
    }
}

pub fn flush(producer: &BaseProducer) {
    producer.flush(Duration::from_secs(120)).unwrap();
}

/// Everything on a topic now, in the order of its partitions and offsets.
pub fn read_all(topic: &str, isolation: &str) -> Vec<Read> {
    read_all_on(&server("KAFKA"), topic, isolation)
}

fn read_all_on(brokers: &str, topic: &str, isolation: &str) -> Vec<Read> {
    let mut read = Vec::new();
    read_each_on(brokers, topic, isolation, |record| read.push(record));
    read.sort_by_key(|record| (record.partition, record.offset));
    read
}

fn read_each_on(brokers: &str, topic: &str, isolation: &str, mut take: impl FnMut(Read)) {
    let consumer: BaseConsumer = client_on(brokers)
        .set("group.id", "test-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = wait_for("metadata", PATIENCE, || consumer.fetch_metadata(Some(topic), LIMIT).ok());
    let partitions: Vec<_> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut open = partitions.len();
    while open > 0 {
        match consumer.poll(PATIENCE).expect("an answer in time") {
            Ok(message) => take(Read {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message
                    .headers()
                    .map(|headers| {
                        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                    })
                    .unwrap_or_default(),
                timestamp: message.timestamp().to_millis().expect("Kafka keeps it"),
            }),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            // News of a broker that is away: another has the partition, or will.
            Err(KafkaError::MessageConsumption(Code::BrokerTransportFailure | Code::AllBrokersDown)) => {}
            Err(error) => panic!("{topic}: {error}"),
        }
    }
}

/// Whether there is such a topic.
pub fn exists(topic: &str) -> bool {
    let consumer: BaseConsumer = client_on(&server("KAFKA")).set("group.id", "test-reader").create().unwrap();
    let metadata = wait_for("metadata", PATIENCE, || consumer.fetch_metadata(None, LIMIT).ok());
    metadata.topics().iter().any(|found| found.name() == topic)
}

/// What a consumer of the topic may see.
pub fn read_committed(topic: &str) -> Vec<Read> {
    read_all(topic, "read_committed")
}

fn last_values(records: &[Read]) -> BTreeMap<String, Vec<u8>> {
    let mut table = BTreeMap::new();
    for record in records {
        match &record.value {
            Some(value) => drop(table.insert(record.key().to_owned(), value.clone())),
            None => drop(table.remove(record.key())),
        }
    }
    table
}

/// The group's committed offsets, by partition.
pub fn committed(group: &str, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
    committed_on(&server("KAFKA"), group, topic, partitions)
}

fn committed_on(brokers: &str, group: &str, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
    let consumer: BaseConsumer = client_on(brokers).set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let offsets = wait_for("committed offsets", PATIENCE, || {
        let told = consumer.committed_offsets(list.clone(), LIMIT);
        told.inspect_err(|error| eprintln!("committed offsets of {group}: {error}")).ok()
    });
    let known = offsets.elements();
    known
        .iter()
        .filter_map(|element| Some((element.partition(), element.offset().to_raw().filter(|raw| *raw >= 0)?)))
        .collect()
}

/// Where each partition ends.
pub fn ends(topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
    ends_on(&server("KAFKA"), topic, partitions, "read_uncommitted")
}

fn ends_on(brokers: &str, topic: &str, partitions: i32, isolation: &str) -> BTreeMap<i32, i64> {
    let consumer: BaseConsumer =
        client_on(brokers).set("group.id", "test-reader").set("isolation.level", isolation).create().unwrap();
    let end =
        |partition| wait_for("an end", PATIENCE, || Some(consumer.fetch_watermarks(topic, partition, LIMIT).ok()?.1));
    (0..partitions).map(|partition| (partition, end(partition))).collect()
}
