//! The topics: what they must be, what they are, and the difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{self, Plain};
use super::{Reasons, Unavailable, auth};
use crate::config::Kafka;

const ANSWER: Duration = Duration::from_secs(15);
/// How long the first answer may take: somebody waits to hear that Kafka is not there.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// What a dead letter may have beyond its raw record: headers that tell what is wrong.
const DEAD_LETTER_ROOM: u64 = 64 << 10;
/// Seven days: the longest outage that is survived without a loss.
const WEEK_MS: &str = "604800000";
/// Small segments and eager cleaning, or a restore reads gigabytes of what is long outdated.
const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "67108864"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("delete.retention.ms", WEEK_MS),
];

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Role {
    Raw,
    Sweeps,
    Events,
    State,
    DeadLetters,
    Health,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Its partitions, where it has to be created.
    pub partitions: i32,
    /// Its settings.
    pub settings: Vec<(&'static str, String)>,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its partitions.
    pub partitions: i32,
    /// Replicas of the partition that has the fewest.
    pub replicas: usize,
    /// Its settings, defaults included; empty where the brokers do not tell.
    pub settings: BTreeMap<String, String>,
}

impl Found {
    /// How long its tombstones are kept, where it is compacted and that is known.
    pub fn tombstones_kept(&self) -> Option<Duration> {
        let setting = |name| self.settings.get(name);
        setting("cleanup.policy").filter(|policy| policy.contains("compact"))?;
        Some(Duration::from_millis(setting("delete.retention.ms")?.parse().ok()?))
    }
}

/// A difference between what a topic is and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// What is different, and what to do.
    pub message: String,
    /// Whether a guarantee breaks on it: then the stages refuse to start.
    pub breaks: bool,
}

/// The topics by the configuration.
pub fn wanted(kafka: &Kafka) -> Vec<Wanted> {
    let topics = &kafka.topics;
    // What this program writes is bounded by what its clients may send.
    let largest = ("max.message.bytes", kafka.max_message_bytes.to_string());
    let compacted =
        || [COMPACTED.map(|(name, value)| (name, value.to_owned())).to_vec(), vec![largest.clone()]].concat();
    let deleted = || {
        let policy = ("cleanup.policy", "delete".to_owned());
        vec![policy, ("retention.ms", WEEK_MS.to_owned()), largest.clone()]
    };
    let raw = vec![
        ("cleanup.policy", "compact,delete".to_owned()),
        ("retention.ms", WEEK_MS.to_owned()),
        ("delete.retention.ms", WEEK_MS.to_owned()),
    ];
    let topic = |role, name: &String, partitions, settings| Wanted { role, name: name.clone(), partitions, settings };
    vec![
        topic(Role::Raw, &topics.raw, kafka.partitions, raw),
        topic(Role::Sweeps, &topics.sweeps, kafka.sweep_partitions, compacted()),
        topic(Role::Events, &topics.events, kafka.partitions, deleted()),
        topic(Role::State, &topics.state, kafka.partitions, compacted()),
        topic(Role::DeadLetters, &topics.dead_letters, kafka.partitions, deleted()),
        topic(Role::Health, &topics.health, 1, deleted()),
    ]
}

/// What is different, of the topics that are there and of those that are not. Pure.
pub fn differences(wanted: &[Wanted], found: &BTreeMap<String, Found>) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut note = |topic: &str, breaks: bool, message: String| {
        differences.push(Difference { topic: topic.to_owned(), message, breaks });
    };
    let by_role = |role| wanted.iter().find(|topic| topic.role == role).and_then(|topic| found.get(&topic.name));
    for topic in wanted {
        // Health events are notices: the stages do their work without.
        let needed = topic.role != Role::Health;
        let Some(is) = found.get(&topic.name) else {
            note(&topic.name, needed, "does not exist; `rollcall topics --create` creates it".to_owned());
            continue;
        };
        let in_sync = is.settings.get("min.insync.replicas").and_then(|value| value.parse::<usize>().ok());
        if is.replicas < 2 {
            note(&topic.name, false, "has one replica: what a broker loses is lost; three are usual".to_owned());
        } else if in_sync.is_some_and(|in_sync| in_sync < 2) {
            let message = "min.insync.replicas is 1: an acknowledged record can be lost with its broker; set 2";
            note(&topic.name, false, message.to_owned());
        }
        if let Some(policy) = is.settings.get("cleanup.policy") {
            let is_compacted = policy.contains("compact");
            match topic.role {
                Role::State | Role::Sweeps if policy != "compact" => {
                    note(
                        &topic.name,
                        true,
                        format!("cleanup.policy is {policy}: old devices would be forgotten; set compact"),
                    );
                }
                Role::Events | Role::DeadLetters if is_compacted => {
                    note(&topic.name, true, format!("cleanup.policy is {policy}: events would disappear; set delete"));
                }
                _ => {}
            }
        }
        let limit = |settings: Option<&String>| settings.and_then(|value| value.parse::<u64>().ok());
        let least = topic.settings.iter().find(|(setting, _)| *setting == "max.message.bytes").map(|(_, value)| value);
        if let (Some(least), Some(is)) = (limit(least), limit(is.settings.get("max.message.bytes")))
            && is < least
        {
            let message = format!("max.message.bytes is {is}: a large record would stop its partition; set {least}");
            note(&topic.name, false, message);
        }
        for name in ["retention.ms", "delete.retention.ms"] {
            let least = topic.settings.iter().find(|(setting, _)| *setting == name);
            let is = is.settings.get(name).and_then(|value| value.parse::<i64>().ok());
            if let (Some((_, least)), Some(is)) = (least, is)
                && is >= 0
                && least.parse().is_ok_and(|least: i64| is < least)
            {
                note(
                    &topic.name,
                    false,
                    format!("{name} is {is}: an outage longer than that loses changes; set {least}"),
                );
            }
        }
    }
    if let (Some(raw), Some(state)) = (by_role(Role::Raw), by_role(Role::State))
        && raw.partitions != state.partitions
    {
        let name = wanted.iter().find(|topic| topic.role == Role::State).map_or("", |topic| &topic.name);
        note(
            name,
            true,
            format!(
                "has {} partitions, raw has {}: a device's state must lie in the partition of its records; recreate it \
                 where it is new; where partitions were added to one of them, create new topics (kafka.topics) and map \
                 them afresh",
                state.partitions, raw.partitions
            ),
        );
    }
    let limit = |found: Option<&Found>| found?.settings.get("max.message.bytes")?.parse::<u64>().ok();
    if let (Some(raw), Some(dead)) = (limit(by_role(Role::Raw)), limit(by_role(Role::DeadLetters)))
        && dead < raw + DEAD_LETTER_ROOM
    {
        let name = wanted.iter().find(|topic| topic.role == Role::DeadLetters).map_or("", |topic| &topic.name);
        let least = raw + DEAD_LETTER_ROOM;
        note(name, true, format!("max.message.bytes is {dead}: a rejected record might not fit; set at least {least}"));
    }
    differences
}

/// Asks Kafka for topics and their settings, and creates them.
pub struct Admin {
    client: AdminClient<Plain>,
    /// Asks for metadata: it also hears why there are none.
    consumer: Arc<BaseConsumer<Reasons>>,
    config: ClientConfig,
}

impl Admin {
    /// A client that asks and creates.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn connect(kafka: &Kafka, client_id: &str) -> Result<Self, KafkaError> {
        let client_id = format!("{client_id}-admin");
        let config = client::common(kafka, &client_id);
        let client = AdminClient::from_config_and_context(&config, Plain)?;
        // librdkafka wants the name of a group; none is joined. A question must not create a topic.
        let mut settings = client::reader(kafka, &client_id, "rollcall-restore");
        let consumer = client::consumer(settings.set("allow.auto.create.topics", "false"), Reasons::default())?;
        Ok(Self { client, consumer: Arc::new(consumer), config })
    }

    /// Partitions, replicas and settings of those of the wanted topics that exist.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn describe(&self, wanted: &[Wanted]) -> Result<BTreeMap<String, Found>, Unavailable> {
        self.authenticate();
        let consumer = self.consumer.clone();
        // On a thread of its own, so that whoever waits for it can be asked to stop.
        let asked = tokio::task::spawn_blocking(move || {
            consumer.fetch_metadata(None, FIRST_ANSWER).map_err(|error| Unavailable(Reasons::of(&consumer, &error)))
        });
        let metadata = asked.await.unwrap_or_else(|_| Err(Unavailable("canceled".to_owned())))?;
        let is_wanted = |name: &str| wanted.iter().any(|topic| topic.name == name);
        let existing = metadata.topics().iter().filter(|topic| topic.error().is_none() && is_wanted(topic.name()));
        let mut found: BTreeMap<_, _> = existing
            .map(|topic| {
                let partitions = topic.partitions();
                let replicas = partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
                let found = Found { partitions: partitions.len() as i32, replicas, settings: BTreeMap::new() };
                (topic.name().to_owned(), found)
            })
            .collect();
        let names: Vec<_> = found.keys().cloned().collect();
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return Ok(found);
        }
        let described = self.client.describe_configs(&resources, &options()).await;
        for resource in described.map_err(|error| Unavailable(error.to_string()))? {
            match resource {
                Ok(resource) => {
                    let OwnedResourceSpecifier::Topic(name) = resource.specifier else { continue };
                    let entries = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                    if let Some(found) = found.get_mut(&name) {
                        found.settings = entries.collect();
                    }
                }
                Err(code) => tracing::debug!(%code, "the settings of a topic cannot be read"),
            }
        }
        Ok(found)
    }

    /// What is different, with the topics as they are.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn examine(&self, wanted: &[Wanted]) -> Result<(BTreeMap<String, Found>, Vec<Difference>), Unavailable> {
        let found = self.describe(wanted).await?;
        let mut differences = differences(wanted, &found);
        for difference in differences.iter_mut().filter(|difference| !found.contains_key(&difference.topic)) {
            let (consumer, topic) = (self.consumer.clone(), difference.topic.clone());
            let asked = tokio::task::spawn_blocking(move || {
                let metadata = consumer.fetch_metadata(Some(&topic), FIRST_ANSWER).ok()?;
                metadata.topics().iter().find_map(|topic| topic.error()).map(Code::from)
            });
            // One that may not be seen looks like one that is not there, until it is asked for by its name.
            if let Ok(Some(code @ Code::TopicAuthorizationFailed)) = asked.await {
                difference.message = format!("may not be seen by this client ({code}); allow it Describe (ACLs)");
            }
        }
        for name in found.iter().filter(|(_, found)| found.settings.is_empty()).map(|(name, _)| name) {
            let message = "its settings may not be read: they are not checked; allow DescribeConfigs (ACLs)".to_owned();
            differences.push(Difference { topic: name.clone(), message, breaks: false });
        }
        Ok((found, differences))
    }

    /// Creates those of the wanted topics that do not exist and waits until they are known, for the brokers tell each
    /// other only after they have answered; their names. The dead letters come last: what they must
    /// hold depends on what raw may hold.
    ///
    /// # Errors
    /// When Kafka does not answer, or refuses one of them.
    pub async fn create(&self, wanted: &[Wanted], replicas: i32) -> Result<Vec<String>, Unavailable> {
        let existing = self.describe(wanted).await?;
        let missing = wanted.iter().filter(|topic| !existing.contains_key(&topic.name));
        let (mut last, first): (Vec<_>, Vec<_>) = missing.cloned().partition(|topic| topic.role == Role::DeadLetters);
        self.create_all(&first, replicas).await?;
        for dead_letters in &mut last {
            let least = self.largest_raw(wanted).await? + DEAD_LETTER_ROOM;
            for (_, value) in dead_letters.settings.iter_mut().filter(|(name, _)| *name == "max.message.bytes") {
                let largest = value.parse().unwrap_or(least).max(least);
                *value = largest.to_string();
            }
        }
        self.create_all(&last, replicas).await?;
        for _ in 0..50 {
            if self.describe(wanted).await?.len() == wanted.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(first.into_iter().chain(last).map(|topic| topic.name).collect())
    }

    /// Nobody polls an admin client: it has to be given each token.
    fn authenticate(&self) {
        auth::authenticate(&self.config, self.client.inner());
        auth::authenticate(&self.config, self.consumer.client());
    }

    /// The largest record that the raw topic takes, in bytes.
    async fn largest_raw(&self, wanted: &[Wanted]) -> Result<u64, Unavailable> {
        for _ in 0..50 {
            let found = self.describe(wanted).await?;
            let raw = wanted.iter().find(|topic| topic.role == Role::Raw).and_then(|topic| found.get(&topic.name));
            if let Some(limit) = raw.and_then(|raw| raw.settings.get("max.message.bytes")?.parse().ok()) {
                return Ok(limit);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let raw = wanted.iter().find(|topic| topic.role == Role::Raw).map_or("", |topic| &topic.name);
        let allow = "allow this client Describe and DescribeConfigs on it (ACLs)";
        Err(Unavailable(format!("max.message.bytes of {raw} is not told: {allow}")))
    }

    async fn create_all(&self, topics: &[Wanted], replicas: i32) -> Result<(), Unavailable> {
        let topics: Vec<_> = topics
            .iter()
            .map(|topic| {
                let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replicas));
                topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        if topics.is_empty() {
            return Ok(());
        }
        let created = self.client.create_topics(&topics, &options()).await;
        for result in created.map_err(|error| Unavailable(error.to_string()))? {
            match result {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(Unavailable(format!("{name} cannot be created: {code}"))),
            }
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER))
}
