//! What no type can refuse.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Config, GroupProtocol, Registry, SourceKind};

/// Properties that an operator may not set, with the reason.
const RESERVED: [(&str, &str); 21] = [
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("client.id", "it is derived from instance_id"),
    ("enable.auto.commit", "offsets are committed in the transaction that holds their events"),
    ("auto.commit.enable", "offsets are committed in the transaction that holds their events"),
    ("enable.auto.offset.store", "offsets are committed in the transaction that holds their events"),
    ("auto.offset.reset", "lost offsets must stop the mapper, not skip records"),
    ("isolation.level", "aborted records must not be read"),
    ("enable.idempotence", "transactions need it"),
    ("acks", "transactions need all replicas"),
    ("request.required.acks", "transactions need all replicas"),
    ("message.max.bytes", "set kafka.max_message_bytes"),
    ("transaction.timeout.ms", "set kafka.transaction_timeout"),
    ("enable.partition.eof", "a restore and a replay wait for the end of a partition"),
    ("transactional.id", "it is derived from the group and the instance; set instance_id"),
    ("group.id", "set mapper.group_id"),
    ("group.protocol", "set kafka.group_protocol"),
    ("group.protocol.type", "set kafka.group_protocol"),
    ("group.instance.id", "it is derived from the group and the instance; set kafka.static_membership"),
    ("partition.assignment.strategy", "partitions that stay where they are must not stop: it is cooperative-sticky"),
    ("partitioner", "records of one device must meet in one partition"),
];

/// Properties that one of the group protocols does not have, with what takes their place.
const OF_PROTOCOL: [(GroupProtocol, &str, &str); 3] = [
    (GroupProtocol::Classic, "session.timeout.ms", "group.consumer.session.timeout.ms of the brokers or of the group"),
    (
        GroupProtocol::Classic,
        "heartbeat.interval.ms",
        "group.consumer.heartbeat.interval.ms of the brokers or of the group",
    ),
    (GroupProtocol::Consumer, "group.remote.assignor", "nothing: the members share out by cooperative-sticky"),
];

/// Characters of the admin port's token, which anybody who reaches the port may guess at.
const LEAST_TOKEN: usize = 16;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, as in `kafka.topics.raw`, or the file.
    pub key: String,
    /// What is wrong, with the value, and what is allowed.
    pub message: String,
}

/// Everything that is wrong, by key.
pub fn faults(config: &Config) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    let kafka = &config.kafka;
    faults.unless(
        !kafka.bootstrap_servers.trim().is_empty(),
        "kafka.bootstrap_servers",
        "is empty; host:port is needed",
    );
    faults.within("kafka.partitions", i64::from(kafka.partitions), 1, 10_000);
    faults.within("kafka.sweep_partitions", i64::from(kafka.sweep_partitions), 1, 10_000);
    let replicas = kafka.replication_factor;
    let message = format!("{replicas} is not allowed: -1 (the brokers' default) or at least 1");
    faults.unless(replicas == -1 || replicas >= 1, "kafka.replication_factor", message);
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    faults.between("kafka.transaction_timeout", kafka.transaction_timeout, second, hour);
    super::oauth::check(kafka, &mut faults);
    for name in kafka.properties.keys() {
        if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
            faults.add(&format!("kafka.properties.{name}"), format!("must not be set: {why}"));
        }
        if name.contains("sasl.oauthbearer") {
            let why = "this build of librdkafka fetches no tokens; set kafka.oauth";
            faults.add(&format!("kafka.properties.{name}"), format!("must not be set: {why}"));
        }
        let other =
            OF_PROTOCOL.iter().find(|(has_it, property, _)| property == name && *has_it != kafka.group_protocol);
        if let Some((_, _, instead)) = other {
            let protocol = kafka.group_protocol.name();
            let message = format!("cannot be set where kafka.group_protocol is {protocol}; there it is {instead}");
            faults.add(&format!("kafka.properties.{name}"), message);
        }
    }
    let topics = &kafka.topics;
    let names = [&topics.raw, &topics.sweeps, &topics.events, &topics.state, &topics.dead_letters, &topics.health];
    let distinct: BTreeSet<_> = names.iter().collect();
    faults.unless(distinct.len() == names.len(), "kafka.topics", "two topics have the same name; six are needed");
    if let Some(registry) = &config.registry {
        check_registry(registry, &mut faults);
    }
    let mapper = &config.mapper;
    faults.unless(!mapper.group_id.is_empty(), "mapper.group_id", "is empty; a name is needed");
    let group = &config.collector.group_id;
    faults.unless(!group.is_empty(), "collector.group_id", "is empty; a name is needed");
    faults.unless(*group != mapper.group_id, "collector.group_id", format!("{group:?} is mapper.group_id too"));
    if let Err(path) = crate::profile::ignore::Ignore::new(&mapper.ignore.fields, &mapper.ignore.tags) {
        let message = format!("{path:?} is not a path; write device.ip, or device.network_interfaces[].hostname");
        faults.add("mapper.ignore.fields", message);
    }
    let limit = kafka.transaction_timeout / 2;
    faults.between("mapper.commit_interval", mapper.commit_interval, Duration::from_millis(1), limit);
    let most = kafka.max_message_bytes.saturating_sub(64 << 10);
    faults.unless(
        mapper.max_record_bytes.get() <= most,
        "mapper.max_record_bytes",
        format!("{} is more than kafka.max_message_bytes less 64 KiB ({most})", mapper.max_record_bytes),
    );
    let is_token = |token: &super::Secret| {
        let text = token.expose();
        text.len() >= LEAST_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let message = format!("is not {LEAST_TOKEN} or more printable ASCII characters without blanks");
    faults.unless(config.admin.token.as_ref().is_none_or(is_token), "admin.token", message);
    super::rules::check_hash_key(&config.collector, &mut faults);
    let mut seen = BTreeSet::new();
    for (index, source) in config.collector.sources.iter().enumerate() {
        let key = format!("collector.sources.{index}");
        source.check(&key, &mut faults);
        if !seen.insert(&source.name) {
            faults.add(&format!("{key}.name"), format!("{:?} is the name of another source too", source.name));
        }
    }
    check_overlaps(config, &mut faults);
    faults.0
}

fn check_registry(registry: &Registry, faults: &mut Faults) {
    faults.address("registry.url", &registry.url);
    let Registry { username, password, token, ca_file, certificate_file, key_file, .. } = registry;
    let is_pair = username.is_some() == password.is_some();
    faults.unless(is_pair, "registry.username", "only one of username and password is given; both are needed");
    let is_one = username.is_none() || token.is_none();
    faults.unless(is_one, "registry.token", "is given beside username; one of the two is allowed");
    // It becomes a header, whose library would fail at each request.
    let is_plain =
        token.as_ref().is_none_or(|it| !it.expose().is_empty() && it.expose().bytes().all(|b| b.is_ascii_graphic()));
    faults.unless(is_plain, "registry.token", "is empty, or has spaces or other characters that no token has");
    let is_pair = certificate_file.is_some() == key_file.is_some();
    let message = "only one of certificate_file and key_file is given; both are needed";
    faults.unless(is_pair, "registry.certificate_file", message);
    // Without TLS nobody would look at them.
    let is_tls = registry.url.starts_with("https:");
    for (name, file) in [("ca_file", ca_file), ("certificate_file", certificate_file), ("key_file", key_file)] {
        let message = "is given, but registry.url is not an https:// address";
        faults.unless(file.is_none() || is_tls, &format!("registry.{name}"), message);
    }
}

/// Two sources that sweep the same would report each device twice, and each remove what the other has filtered out.
/// Discovery finds the overlaps that only AWS can tell.
fn check_overlaps(config: &Config, faults: &mut Faults) {
    let aws = config.collector.sources.iter().enumerate().filter_map(|(index, source)| match &source.kind {
        SourceKind::Aws(aws) => Some((index, source, aws)),
        SourceKind::File(_) | SourceKind::Simulated(_) => None,
    });
    let aws: Vec<_> = aws.collect();
    for (place, (index, _, later)) in aws.iter().enumerate() {
        for (_, source, earlier) in &aws[..place] {
            if let Some(what) = earlier.overlap(later) {
                let message = format!("sweeps {what} in regions that source {:?} sweeps too", source.name);
                faults.add(&format!("collector.sources.{index}.aws"), message);
            }
        }
    }
}

/// What was found wrong so far.
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        let (key, message) = (key.to_owned(), message.into());
        self.0.push(Fault { key, message });
    }

    pub(super) fn unless(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.add(key, message);
        }
    }

    pub(super) fn address(&mut self, key: &str, text: &str) {
        match reqwest::Url::parse(text) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                // Not repeated: the address is shown in logs, what is in it must not be.
                self.add(key, "has a user or password in it; an address is shown in logs, so it may not hold secrets");
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => {}
            _ => self.add(key, format!("{text:?} is not an http:// or https:// address")),
        }
    }

    pub(super) fn within(&mut self, key: &str, value: i64, least: i64, most: i64) {
        self.unless((least..=most).contains(&value), key, format!("{value} is not allowed: {least} to {most}"));
    }

    pub(super) fn between(&mut self, key: &str, value: Duration, least: Duration, most: Duration) {
        let [value_text, least_text, most_text] = [value, least, most].map(humantime::format_duration);
        self.unless(
            (least..=most).contains(&value),
            key,
            format!("{value_text} is not allowed: {least_text} to {most_text}"),
        );
    }
}
