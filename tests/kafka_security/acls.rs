//! The least permissions, as the documentation lists them: with all of its row's a command works, with any one less it
//! fails and says what is missing.

use std::collections::BTreeMap;
use std::io::Write;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::*;
use crate::support::wait_for;

const PAGE: &str = include_str!("../../docs/connect-kafka.md");

/// A line of the table, for one name and one operation.
#[derive(Debug, Clone, PartialEq)]
struct Needed {
    kind: &'static str,
    /// As the page has it.
    name: &'static str,
    operation: String,
}

impl Needed {
    /// Whether a command may go on without, if it says so.
    fn is_dispensable(&self) -> bool {
        self.name == "health" || self.operation == "describe_configs"
    }
}

/// What the page says that a command needs.
fn needed(command: &str) -> Vec<Needed> {
    let rows = PAGE.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [of, kind, names, operations] = cells[..] else { return None };
        (of.trim_matches('`') == command).then_some((kind, names, operations))
    });
    let all_six = "`raw`, `sweeps`, `events`, `state`, `dead_letters`, `health`";
    let mut needed = Vec::new();
    for (kind, names, operations) in rows {
        let names = if names == "all six" { all_six } else { names };
        for name in names.split(", ") {
            for operation in operations.split(", ") {
                let operation = operation.replace("DescribeConfigs", "describe_configs").to_lowercase();
                needed.push(Needed { kind, name: name.trim_matches('`'), operation });
            }
        }
    }
    assert!(!needed.is_empty(), "the page has no row for {command}");
    needed
}

/// A command, with a user for all of its permissions, and one for all but each.
struct Case<'a> {
    kafka: &'a SecureKafka,
    topics: &'a TestTopics,
    command: &'static str,
    needed: Vec<Needed>,
    /// Whether each user has topics of its own, which are not there.
    is_creating: bool,
}

/// The permission that a user lacks, by its place on the page.
type Without = Option<usize>;

impl<'a> Case<'a> {
    fn of(command: &'static str, topics: &'a TestTopics, kafka: &'a SecureKafka) -> Self {
        let is_creating = command == "topics --create";
        let case = Self { kafka, topics, command, needed: needed(command), is_creating };
        let mut acls = BTreeMap::new();
        for without in case.users() {
            let granted = case.needed.iter().enumerate().filter(|(index, _)| Some(*index) != without);
            let granted: Vec<_> = granted.map(|(_, needed)| case.acl(needed, without)).collect();
            acls.insert(case.user(without), granted);
        }
        let users: Vec<_> = acls.keys().map(|user| (user.as_str(), "SCRAM-SHA-512")).collect();
        kafka.grant(&users, &acls);
        case
    }

    /// All that lack one, then the one that lacks none.
    fn users(&self) -> impl Iterator<Item = Without> + use<> {
        (0..self.needed.len()).map(Some).chain([None])
    }

    fn user(&self, without: Without) -> String {
        format!("{}-{}-{}", self.topics.prefix, self.command.replace(' ', "-"), self.number(without))
    }

    /// What the names begin with that a user has for itself.
    fn own(&self, without: Without) -> TestTopics {
        let mut own = self.topics.clone();
        own.prefix = format!("{}-{}", own.prefix, self.number(without));
        own
    }

    fn number(&self, without: Without) -> usize {
        without.unwrap_or(self.needed.len())
    }

    /// A name of the page, here.
    fn name(&self, name: &str, without: Without) -> String {
        let own = self.own(without);
        let topics = if self.is_creating { &own } else { self.topics };
        match name {
            "collector.group_id" => topics.name("collector"),
            "mapper.group_id" => topics.name("mapper"),
            "<collector.group_id>-*" => format!("{}-*", topics.name("collector")),
            "<mapper.group_id>-*" => format!("{}-*", topics.name("mapper")),
            "the one that is shown" => topics.name("events"),
            "dead_letters" => topics.name("dlq"),
            "raw" | "sweeps" | "events" | "state" | "health" => topics.name(name),
            name => name.replace("OUTPUT_TOPIC", &own.name("output")).replace("NAME", &own.prefix),
        }
    }

    fn acl(&self, needed: &Needed, without: Without) -> Acl {
        let kind = needed.kind.replace("transactional ID", "transactional-id");
        (kind, self.name(needed.name, without), needed.operation.clone())
    }

    /// Runs the command for each of the users: it fails for want of one permission, says of what and what to do, and
    /// works with all.
    fn prove(&self, command: impl Fn(&Value, &TestTopics, Option<&Needed>) -> Run) {
        let run = |without: Without| {
            let topics = if self.is_creating { self.own(without) } else { self.topics.clone() };
            let mut config = config(&topics, &self.kafka.with_password("SCRAM-SHA-512", &self.user(without)));
            config["log"]["filter"] = "info".into();
            let run = command(&config, &self.own(without), without.map(|index| &self.needed[index]));
            run.keeps(SECRET);
            run
        };
        // Those that nothing can go on without come first: the others do what is to be done.
        let mut lacking: Vec<_> = self.needed.iter().enumerate().collect();
        lacking.sort_by_key(|(_, needed)| needed.is_dispensable());
        for (index, needed) in lacking {
            let Run { stdout, stderr, code } = run(Some(index));
            let said = format!("{stdout}\n{stderr}");
            let name = self.name(needed.name, Some(index));
            let what = format!("{} without {needed:?}: {code:?}\n{said}", self.command);
            assert!(code == Some(1) || (needed.is_dispensable() && code == Some(0)), "{what}");
            assert!(said.contains(name.trim_end_matches('*')), "{what}");
            assert!(said.contains("ACLs") || code == Some(0) && said.contains("authorization failed"), "{what}");
        }
        let run = run(None);
        assert_eq!(run.code, Some(0), "{} with all: {}\n{}", self.command, run.stdout, run.stderr);
        assert!(!run.stderr.contains("uthorization"), "{} with all: {}", self.command, run.stderr);
    }
}

/// `rollcall map` until it ends, or all is mapped.
fn map(topics: &TestTopics, config: &Value) -> Run {
    let mut mapper = Stage::start(&["map"], config);
    let end = topics.ends("raw")[&0];
    let code = wait_for("the end of the mapper", LIMIT, || {
        if mapper.has_ended() {
            return Some(mapper.wait(LIMIT).code());
        }
        let is_mapped = topics.committed("mapper", "raw").get(&0) >= Some(&end);
        is_mapped.then(|| {
            mapper.signal("TERM");
            mapper.wait(LIMIT).code()
        })
    });
    Run { stdout: String::new(), stderr: mapper.tail(), code }
}

#[test]
fn who_looks_needs_what_the_page_says() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::create_on(&kafka.open_address(), 1);
    for command in ["topics", "check"] {
        Case::of(command, &topics, &kafka).prove(|config, _, _| Run::of(&[command], config));
    }
    Case::of("tail", &topics, &kafka).prove(|config, _, _| Run::of(&["tail", "--until-end"], config));
    Case::of("sweeps list", &topics, &kafka).prove(|config, _, _| Run::of(&["sweeps", "list"], config));
}

#[test]
fn who_creates_topics_needs_what_the_page_says() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::named(1).on(&kafka.open_address());
    Case::of("topics --create", &topics, &kafka).prove(|config, _, _| Run::of(&["topics", "--create"], config));
}

#[test]
fn a_collector_needs_what_the_page_says() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::create_on(&kafka.open_address(), 1);
    let mut source = tempfile::NamedTempFile::new().unwrap();
    let good = json!({"InstanceId": "i-1", "OwnerId": "123456789012", "State": {"Name": "running"}});
    writeln!(source, "{good}\n{}", json!({"OwnerId": "123456789012"})).unwrap();
    let collect = |config: &Value| {
        let mut config = config.clone();
        config["collector"]["sources"] = json!([{"name": "file", "file": {"path": source.path()}}]);
        Run::of(&["collect", "--once"], &config)
    };
    // So that there is something to be restored.
    collect(&topics.config()).expect(0);
    Case::of("collect", &topics, &kafka).prove(|config, _, _| collect(config));
}

#[test]
fn a_mapper_and_a_replay_need_what_the_page_says() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::create_on(&kafka.open_address(), 1);
    let producer = topics.producer();
    let tell = |key: &str, value: &str| {
        send(&producer, &topics.name("raw"), Some(key.as_bytes()), Some(value.as_bytes()), &[], None);
        flush(&producer);
    };
    let device = |ip: &str| json!({"InstanceId": "i-1", "OwnerId": "123456789012", "PrivateIpAddress": ip}).to_string();
    tell("i-1", &device("10.0.0.1"));
    // So that there is something to be restored.
    assert_eq!(map(&topics, &topics.config()).code, Some(0));
    Case::of("map", &topics, &kafka).prove(|config, _, _| {
        // Each has something to do: a change, and a dead letter.
        tell("i-1", &device(&format!("10.0.0.{}", topics.ends("raw")[&0])));
        tell("i-2", "no JSON");
        map(&topics, config)
    });
    Case::of("replay", &topics, &kafka).prove(|config, own, lacking| {
        let output = own.name("output");
        let arguments = ["replay", "--output-topic", &output, "--name", &own.prefix, "--from", "earliest"];
        if lacking.is_some_and(|needed| (needed.name, &*needed.operation) == ("OUTPUT_TOPIC.state", "read")) {
            // It is only needed to go on after a stop.
            Run::of(&arguments, &topics.config()).expect(0);
            rewind(&topics, &format!("rollcall-replay-{}", own.prefix));
        }
        Run::of(&arguments, config)
    });
}

/// Takes a group back to the second record of raw.
fn rewind(topics: &TestTopics, group: &str) {
    let mut config = ClientConfig::new();
    let client: BaseConsumer =
        config.set("bootstrap.servers", topics.brokers()).set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topics.name("raw"), 0, Offset::Offset(1)).unwrap();
    // The replay was a static member: it is waited for as long as a session lasts.
    wait_for("the group to be empty", LIMIT, || client.commit(&list, CommitMode::Sync).ok());
}
