//! More than there should be of everything, and memory that stays within its bounds. How much it took is printed:
//! docs/limits.md has the figures.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::collector::AWS;
use crate::support::ec2::{FastEc2, Fault, FaultProxy, FleetSpec, on};
use crate::support::kafka::{TestTopics, flush, send};
use crate::support::kafka_proxy::{Fate, Request};
use crate::support::process::Stage;
use crate::support::servers::Broker;
use crate::support::stages::wait_until_mapped;
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(180);
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];
const MIB: u64 = 1 << 20;

/// Of the backlog; another in `ROLLCALL_TEST_BACKLOG`.
fn backlog() -> usize {
    std::env::var("ROLLCALL_TEST_BACKLOG").map_or(60_000, |records| records.parse().expect("a number"))
}

fn within(what: &str, stage: &Stage, bound: u64) {
    let peak = stage.memory().peak;
    println!("{what}: {} MiB at most, of {}", peak / MIB, bound / MIB);
    assert!(peak < bound, "{what}: {} MiB", peak / MIB);
}

/// A source of two regions behind a proxy.
fn regions(topics: &TestTopics, proxy: &FaultProxy) -> Value {
    let mut config = topics.config();
    config["collector"]["sources"] = json!([{"name": "ec2", "interval": "10s", "aws": {"regions": REGIONS,
        "endpoint_url": proxy.url(), "calls_per_second": 20, "settling_delay": "0s"}}]);
    config
}

fn fleet(instances: usize) -> (FastEc2, FaultProxy) {
    let spec = FleetSpec { regions: REGIONS.map(str::to_owned).to_vec(), ..FleetSpec::of(instances) };
    let ec2 = FastEc2::start(spec);
    let proxy = FaultProxy::start(&ec2.url());
    (ec2, proxy)
}

#[test]
fn an_answer_of_a_hundred_megabytes_is_not_read_to_its_end_and_holds_up_nobody() {
    let ((_ec2, proxy), topics) = (fleet(2), TestTopics::create(1));
    let bulk = format!("<bulk>{}</bulk>", "x".repeat(50 << 20));
    proxy.when(on("DescribeInstances").region(REGIONS[0]), Fault::Insert(None, bulk));
    let mut collector = Stage::start_with_env(&["collect"], &regions(&topics, &proxy), &AWS);
    let mut failed = || collector.wait_for("sweep incomplete", LIMIT);
    let told = failed();
    assert_eq!((&told["scope"], &told["kind"]), (&json!("ec2/123456789012/eu-west-1"), &json!("invalid-request")));
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("larger than 67108864 bytes; lower page_size"), "{error}");
    failed();
    let asked = proxy.calls("DescribeInstances", REGIONS[0]).len();
    collector.tail();
    let swept = collector.seen.iter().filter(|event| event["message"] == "sweep incomplete").count();
    assert!(asked <= swept + 1, "once a sweep, one of which may be under way: {asked} times in {swept}");
    let complete =
        |event: &Value| event["message"] == "sweep complete" && event["scope"] == "ec2/123456789012/us-east-1";
    wait_for("the other region", LIMIT, || {
        collector.tail();
        collector.seen.iter().any(complete).then_some(())
    });
    within("an answer of 100 MB, twice", &collector, 200 * MIB);
    assert_eq!(collector.stop(), Some(0));
    let keys: BTreeSet<_> = topics.read("raw").iter().map(|record| record.key().to_owned()).collect();
    assert_eq!(keys.len(), 2, "those of the other region");
}

#[test]
fn an_instance_of_ten_thousand_tags_is_an_event_or_a_dead_letter_and_its_neighbours_flow() {
    let (topics, (ec2, proxy)) = (TestTopics::create(1), fleet(3));
    let ids: Vec<_> =
        ec2.alive().into_iter().filter(|(_, machine)| machine.region == REGIONS[0]).map(|(id, _)| id).collect();
    for (id, length) in ids.iter().zip([40, 250]) {
        let tag = |n: usize| format!("<item><key>key-{n}</key><value>{}</value></item>", "v".repeat(length));
        let tags: String = (0..10_000).map(tag).collect();
        let only = Some(BTreeSet::from([id.clone()]));
        proxy.when(on("DescribeInstances"), Fault::StripTags(only.clone()));
        proxy.when(on("DescribeInstances"), Fault::Insert(only, format!("<tagSet>{tags}</tagSet>")));
    }
    let mut config = regions(&topics, &proxy);
    config["mapper"]["profile"] = "ocsf".into();
    let mut collector = Stage::start_with_env(&["collect"], &config, &AWS);
    wait_for("all of them", LIMIT, || (topics.read("raw").len() >= 6).then_some(()));
    within("two instances of 10 000 tags, the collector", &collector, 150 * MIB);
    collector.signal("TERM");
    collector.wait(LIMIT);
    let mapper = Stage::start(&["map"], &config);
    wait_until_mapped(&topics);
    within("two instances of 10 000 tags, the mapper", &mapper, 150 * MIB);
    assert_eq!(mapper.stop(), Some(0));
    let keys = |topic: &str| topics.read(topic).iter().map(|record| record.key().to_owned()).collect::<BTreeSet<_>>();
    let (events, dead) = (keys("events"), keys("dlq"));
    assert!(events.is_disjoint(&dead) && events.union(&dead).count() == 6, "{events:?} {dead:?}");
    assert!(dead.contains(&ids[1]), "2.7 MB are more than mapper.max_record_bytes");
    assert!(dead.iter().all(|id| ids[..2].contains(id)), "{dead:?}");
}

/// The least that the mapper needs, so that a backlog of a test's size is many times as large.
fn frugal(mut config: Value) -> Value {
    config["mapper"]["max_batch_bytes"] = (4 << 20).into();
    config["mapper"]["max_state_bytes"] = (32 << 20).into();
    config["kafka"]["transaction_timeout"] = "5s".into();
    let properties = config["kafka"]["properties"].as_object_mut().unwrap();
    properties.insert("queued.max.messages.kbytes".to_owned(), 8192.into());
    properties.insert("queue.buffering.max.kbytes".to_owned(), 8192.into());
    properties.insert("fetch.message.max.bytes".to_owned(), (1 << 20).into());
    config
}

/// What these bounds come to, and what a program of a debug build takes itself.
const FRUGAL: u64 = 128 * MIB;

/// Writes records of 3 kB of a thousand devices, each of which is a change.
fn pile_up(topics: &TestTopics, records: usize) {
    let producer = topics.producer();
    for n in 0..records {
        let id = format!("i-{:017x}", n % 1000);
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(2700).collect();
        let instance = json!({"InstanceId": id, "OwnerId": "123456789012", "State": {"Name": "running"}, "Noise": noise,
            "Tags": [{"Key": "Name", "Value": format!("name-{}", n / 1000 % 5)}]});
        send(&producer, &topics.name("raw"), Some(id.as_bytes()), Some(instance.to_string().as_bytes()), &[], None);
    }
    flush(&producer);
}

#[test]
fn a_backlog_is_worked_off_and_a_broker_that_takes_nothing_is_waited_for_in_the_memory_that_is_configured() {
    let broker = Broker::start_behind_proxy(&[]);
    let topics = TestTopics::create_on(&broker.address(), 1);
    let records = backlog();
    pile_up(&topics, records);
    let config = frugal(topics.config());
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    wait_for("a first commit", LIMIT, || {
        topics.committed("mapper", "raw").get(&0).filter(|offset| **offset > 0).copied()
    });
    // Taken by nobody, what is on its way waits; when it is given up, the queues have long been full.
    broker.proxy().set(Request::Produce, Fate::Held);
    mapper.wait_for("transaction failed", LIMIT);
    within("a backlog, and a broker that takes nothing, the mapper", &mapper, FRUGAL);
    broker.proxy().clear();
    let done = Duration::from_secs(120 + records as u64 / 200);
    wait_for("the end of the backlog", done, || {
        (topics.committed("mapper", "raw").get(&0).copied() >= Some(records as i64)).then_some(())
    });
    within(&format!("a backlog of {records} records, {} MiB", records as u64 * 2900 / MIB), &mapper, FRUGAL);
    assert_eq!(mapper.stop(), Some(0));
    let mut events = 0;
    topics.read_each("events", "read_committed", |_| events += 1);
    assert_eq!(events, records, "each change once");
}

#[test]
fn a_collector_waits_for_a_broker_that_takes_nothing_with_the_pages_that_it_has() {
    const INSTANCES: usize = 10_000;
    let broker = Broker::start_behind_proxy(&[]);
    let topics = TestTopics::create_on(&broker.address(), 12);
    let ec2 = FastEc2::start(FleetSpec::of(INSTANCES));
    let mut config = topics.config();
    config["kafka"]["transaction_timeout"] = "5s".into();
    config["collector"]["sources"] = json!([{"name": "ec2", "interval": "10s", "aws": {"regions": ["eu-west-1"],
        "endpoint_url": ec2.url(), "calls_per_second": 20, "settling_delay": "0s"}}]);
    let mut collector = Stage::start_with_env(&["collect"], &config, &AWS);
    collector.wait_for("sweep complete", LIMIT);
    broker.proxy().set(Request::Produce, Fate::Held);
    ec2.alive().keys().for_each(|id| ec2.retag(id, "Name", Some("another")));
    collector.wait_for("transaction failed, its pages will be published again", LIMIT);
    within("a broker that takes nothing, the collector", &collector, 150 * MIB);
    broker.proxy().clear();
    let swept = collector.wait_for("sweep complete", LIMIT);
    assert_eq!(swept["instances"], INSTANCES);
    within("a broker that takes nothing and then does, the collector", &collector, 150 * MIB);
    assert_eq!(collector.stop(), Some(0));
}
