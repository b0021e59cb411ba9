//! Kafka: whether it answers, how the topics are, and what this client may see of topics and groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{Line, Outcome};
use crate::collector::fault::{Fault, FaultKind};
use crate::config::{Config, Kafka};
use crate::kafka::advice::advice;
use crate::kafka::topics::{Admin, Found, Wanted, differences, wanted};
use crate::kafka::{Reasons, client};

const ANSWER: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);
const ALLOW: &str = "allow this client to describe, read and write the topic (Kafka ACLs)";

/// One line for the brokers, for each topic and each group.
pub async fn check(config: &Config) -> Vec<Line> {
    let wanted = wanted(&config.kafka);
    let servers = &config.kafka.bootstrap_servers;
    let asked = {
        let (config, wanted) = (config.clone(), wanted.clone());
        // On a thread of its own: the client blocks.
        tokio::task::spawn_blocking(move || ask(&config, &wanted)).await
    };
    let fault = |message: String| Fault::new(FaultKind::Kafka, message);
    let Asked { brokers, visible, groups } = match asked {
        Ok(Ok(asked)) => asked,
        Ok(Err(why)) => return unreachable(&config.kafka, &fault(why), &wanted),
        Err(error) => return unreachable(&config.kafka, &fault(error.to_string()), &wanted),
    };
    let number = |count: usize| if count == 1 { "1 broker".to_owned() } else { format!("{count} brokers") };
    let mut lines = vec![Line::ok("kafka", servers, number(brokers))];
    let described = match Admin::connect(&config.kafka, &config.instance_id.0) {
        Ok(admin) => admin.describe(&wanted).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match described {
        Ok(found) => lines.extend(topics(&wanted, &found, &visible)),
        Err(error) => {
            let fault = fault(format!("the topics cannot be described: {error}"));
            lines.push(Line::failed("topics", servers, &fault));
        }
    }
    lines.extend(groups.into_iter().map(|(group, answer)| {
        match answer {
            Ok(()) => Line::ok("group", group, "its offsets can be read"),
            Err(why) => Line::failed("group", group, &fault(format!("its offsets cannot be read: {why}")))
                .with_remedy("allow this client to read the group (Kafka ACLs)"),
        }
    }));
    lines
}

fn unreachable(kafka: &Kafka, fault: &Fault, wanted: &[Wanted]) -> Vec<Line> {
    let remedy = "check kafka.bootstrap_servers, the network, and TLS and SASL in kafka.properties";
    let remedy = advice(kafka, &fault.to_string()).unwrap_or_else(|| remedy.to_owned());
    let skipped = |topic: &Wanted| Line::skipped("topic", &topic.name, "Kafka cannot be reached");
    let first = Line::failed("kafka", &kafka.bootstrap_servers, fault).with_remedy(&remedy);
    [first].into_iter().chain(wanted.iter().map(skipped)).collect()
}

/// A line for each topic that is well, and one for each thing that is not. Pure.
fn topics(wanted: &[Wanted], found: &BTreeMap<String, Found>, visible: &BTreeMap<String, Code>) -> Vec<Line> {
    let differences = differences(wanted, found);
    let mut lines = Vec::new();
    for Wanted { name, .. } in wanted {
        // A topic that may not be seen looks like one that is not there.
        if let Some(Code::TopicAuthorizationFailed) = visible.get(name) {
            let message = "this client may not see the topic (TopicAuthorizationFailed)";
            lines.push(Line::failed("topic", name, &Fault::new(FaultKind::Kafka, message)).with_remedy(ALLOW));
            continue;
        }
        let before = lines.len();
        for difference in differences.iter().filter(|difference| difference.topic == *name) {
            // As they are written: what is different, and what to do.
            let (detail, remedy) = difference.message.rsplit_once("; ").unwrap_or((&difference.message, ALLOW));
            lines.push(if difference.breaks {
                Line::failed("topic", name, &Fault::new(FaultKind::Kafka, detail)).with_remedy(remedy)
            } else {
                Line::warning("topic", name, detail, remedy)
            });
        }
        let Some(is) = found.get(name) else { continue };
        if is.settings.is_empty() {
            let remedy = "allow this client to describe the topic's configuration (Kafka ACLs)";
            lines.push(Line::warning("topic", name, "its settings may not be read: they are not checked", remedy));
        }
        if lines[before..].iter().all(|line| line.result != Outcome::Failed) {
            let detail = format!("{} partitions, {} replicas", is.partitions, is.replicas);
            lines.insert(before, Line::ok("topic", name, detail));
        }
    }
    lines
}

/// What only a consumer can find out.
struct Asked {
    brokers: usize,
    /// Topics that are not simply there, with the brokers' reason.
    visible: BTreeMap<String, Code>,
    /// What the brokers say when they are asked for the offsets of the groups.
    groups: BTreeMap<String, Result<(), String>>,
}

fn ask(config: &Config, wanted: &[Wanted]) -> Result<Asked, String> {
    let name = format!("{}-check", config.instance_id.0);
    let connect = |group: &str| {
        // A question must not create a topic.
        let mut settings = client::reader(&config.kafka, &name, group);
        settings.set("allow.auto.create.topics", "false");
        client::consumer(&settings, Reasons::default()).map_err(|error| error.to_string())
    };
    let consumer = connect(&config.mapper.group_id)?;
    let metadata = consumer.fetch_metadata(None, ANSWER).map_err(|error| Reasons::of(&consumer, &error))?;
    let named: BTreeSet<_> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
    let mut visible = BTreeMap::new();
    for topic in wanted.iter().filter(|topic| !named.contains(&topic.name)) {
        let answer = consumer.fetch_metadata(Some(&topic.name), ANSWER).map_err(|error| error.to_string())?;
        let error = answer.topics().iter().find_map(|topic| topic.error());
        visible.extend(error.map(|error| (topic.name.clone(), error.into())));
    }
    let mut groups = BTreeMap::new();
    let mapper = (&config.mapper.group_id, &config.kafka.topics.raw);
    let collector = (&config.collector.group_id, &config.kafka.topics.sweeps);
    for (group, topic) in [mapper, collector] {
        let consumer = connect(group)?;
        let answer = read_group(&consumer, topic).map_err(|code| Reasons::of(&consumer, &code));
        groups.insert(group.clone(), answer);
    }
    Ok(Asked { brokers: metadata.brokers().len(), visible, groups })
}

/// Asks for offsets, again while the brokers are still finding out who coordinates the group.
fn read_group(consumer: &BaseConsumer<Reasons>, topic: &str) -> Result<(), Code> {
    let deadline = Instant::now() + ANSWER;
    loop {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        match authorized(consumer.committed_offsets(list, ANSWER)) {
            Err(Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
                if Instant::now() < deadline =>
            {
                std::thread::sleep(POLL);
            }
            answer => return answer,
        }
    }
}

/// Whether the group may be read. A topic that is not there is told elsewhere.
fn authorized(offsets: Result<TopicPartitionList, KafkaError>) -> Result<(), Code> {
    match offsets.as_ref().map_err(KafkaError::rdkafka_error_code) {
        Ok(_) | Err(Some(Code::UnknownTopicOrPartition | Code::TopicAuthorizationFailed)) => Ok(()),
        Err(code) => Err(code.unwrap_or(Code::Fail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_not_be_seen_is_told_from_one_that_is_not_there() {
        let wanted = wanted(&Kafka::default());
        let visible = BTreeMap::from([
            (wanted[0].name.clone(), Code::TopicAuthorizationFailed),
            (wanted[1].name.clone(), Code::UnknownTopicOrPartition),
        ]);
        let lines = topics(&wanted[..2], &BTreeMap::new(), &visible);
        assert!(lines[0].detail.contains("TopicAuthorizationFailed"), "{lines:?}");
        assert!(lines[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("ACL")));
        assert_eq!(lines[1].detail, "does not exist");
        assert!(lines[1].remedy.as_ref().is_some_and(|remedy| remedy.contains("topics --create")));
    }

    #[test]
    fn a_group_is_well_where_only_its_topic_is_not() {
        let failed = |code| Err(KafkaError::OffsetFetch(code));
        assert_eq!(authorized(failed(Code::UnknownTopicOrPartition)), Ok(()));
        assert_eq!(authorized(failed(Code::GroupAuthorizationFailed)), Err(Code::GroupAuthorizationFailed));
    }
}
