//! Three brokers, a schema registry and EC2 behind proxies, two collectors and three mappers: and what is done to them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;
use serde_json::json;

use super::clock::Clock;
use super::faults::{Fault, Step};
use crate::collector::churn::{COLLECTOR, complete_since};
use crate::support::ec2::{FastEc2, FaultProxy, FleetSpec, Life, on_any};
use crate::support::kafka::TestTopics;
use crate::support::operator::{add_partitions_on, create_topic_on, delete_topic_on};
use crate::support::replicas::{Moment, Replicas, Told};
use crate::support::servers::Cluster;
use crate::support::trial::{COMMIT_INTERVAL, Load, MAPPER};
use crate::support::{ec2, python, server, wait_for};

pub const PARTITIONS: i32 = 6;
const ACCOUNT: &str = "111122223333";
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];
/// How long a group waits for a member.
const SESSION: Duration = Duration::from_secs(6);
/// How long Kafka waits for a transaction's end.
const TRANSACTION: Duration = Duration::from_secs(4);
/// How long Kafka is waited for, before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a pipeline may take to move again after a fault.
const PATIENCE: Duration = Duration::from_secs(240);

/// Rights can be revoked: the controllers have a name among each other, which may do all that they need before they know
/// any rights; everybody else may do what no rule is about.
const BROKERS: [&str; 8] = [
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
    "super.users=User:controller",
    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
    "sasl.mechanism.controller.protocol=PLAIN",
    "listener.name.controller.sasl.enabled.mechanisms=PLAIN",
    "listener.name.controller.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
     username=\"controller\" password=\"controller\" user_controller=\"controller\";",
];

const WAITS_FOR_REGISTRY: &str = "waiting for the schema registry";

/// The pipeline.
pub struct Stand {
    cluster: Cluster,
    pub topics: TestTopics,
    registry: FaultProxy,
    ec2: FaultProxy,
    life: Option<Life>,
    load: Load,
    mappers: Replicas,
    collectors: Replicas,
    mapper_clock: Clock,
    collector_clock: Clock,
    event_partitions: usize,
}

/// What was there to be judged, once nothing changes any more.
pub struct Settled {
    pub topics: TestTopics,
    pub model: BTreeMap<String, ec2::Machine>,
    pub mappers: Told,
    pub collectors: Told,
    /// They have the topics.
    _cluster: Cluster,
}

impl Stand {
    /// Starts all of it. The registry is down at first.
    pub fn start(seed: u64, rate: u64) -> Self {
        let cluster = Cluster::start_behind_proxies(&BROKERS);
        let topics = TestTopics::create_replicated(&cluster.address(), PARTITIONS);
        let fleet = FastEc2::start(FleetSpec {
            accounts: vec![ACCOUNT.to_owned()],
            regions: REGIONS.map(str::to_owned).to_vec(),
            // So many that no breaker trips over what vanishes while Kafka is away for minutes.
            instances_per_scope: 200,
            latency: Duration::from_millis(50),
        });
        let ec2 = FaultProxy::start(&fleet.url());
        let url = server("REGISTRY");
        let (base, path) = url.split_at(url.find("/apis").expect("a path"));
        let registry = FaultProxy::start(base);

        let mut config = topics.config();
        config["kafka"]["transaction_timeout"] = json!(format!("{}s", TRANSACTION.as_secs()));
        config["kafka"]["properties"] = json!({
            "session.timeout.ms": SESSION.as_millis() as u64, "heartbeat.interval.ms": 500,
            // By default five minutes pass until a new partition is seen.
            "topic.metadata.refresh.interval.ms": 10_000,
        });
        config["registry"] = json!({"url": format!("{}{path}", registry.url())});
        config["mapper"]["encoding"] = json!("avro");
        config["mapper"]["commit_interval"] = json!(COMMIT_INTERVAL);
        config["collector"]["sources"] = json!([{"name": "fleet", "interval": "10s", "aws": {
            "regions": REGIONS, "endpoint_url": ec2.url(), "page_size": 50, "calls_per_second": 20,
            "settling_delay": "0s"}}]);

        let (mapper_clock, collector_clock) = (Clock::new(), Clock::new());
        let down = registry.when(on_any(), ec2::Fault::unavailable());
        let mut mappers = Replicas::launch(MAPPER, &["a", "b", "c"], &config, mapper_clock.env(), seed);
        let mut collectors = Replicas::launch(COLLECTOR, &["a", "b"], &config, collector_clock.env(), seed);
        mappers.wait_for(WAITS_FOR_REGISTRY);
        registry.lift(down);
        mappers.wait_until_ready();
        collectors.wait_until_ready();

        Self {
            life: Some(Life::begin(fleet, [ACCOUNT], REGIONS, seed)),
            load: Load::begin(&topics, rate, seed),
            event_partitions: PARTITIONS as usize,
            cluster,
            topics,
            registry,
            ec2,
            mappers,
            collectors,
            mapper_clock,
            collector_clock,
        }
    }

    /// Does it, and waits until the pipeline moves again; how long that took, and how many processes ended by themselves.
    pub fn suffer(&mut self, step: &Step) -> (Duration, usize) {
        let ended = self.mappers.ended() + self.collectors.ended();
        self.inject(step);
        let took = self.wait_until_it_moves(&format!("{step:?}"));
        (took, self.mappers.ended() + self.collectors.ended() - ended)
    }

    fn inject(&mut self, step: &Step) {
        let Step { fault, length, choice, .. } = *step;
        let id = 1 + (choice % Cluster::SIZE) as i32;
        match fault {
            Fault::BrokerKilled => {
                self.cluster.broker(id).kill();
                self.last(step);
                self.cluster.broker(id).start_again();
            }
            Fault::ControllerKilled => {
                let leader = wait_for("a leader of the controllers", PATIENCE, || self.cluster.controller());
                self.cluster.broker(leader).kill();
                wait_for("another leader", PATIENCE, || self.cluster.controller().filter(|other| *other != leader));
                self.cluster.broker(leader).start_again();
            }
            Fault::CoordinatorMoved => {
                let coordinator = match choice % 3 {
                    0 => self.leader("__consumer_offsets", partition_of_group(&self.topics.name("mapper"))),
                    1 => self.leader("__consumer_offsets", partition_of_group(&self.topics.name("collector"))),
                    // Whosever transactions it has.
                    _ => self.leader("__transaction_state", (choice % 10) as i32),
                };
                self.cluster.broker(coordinator).stop();
                self.last(step);
                self.cluster.broker(coordinator).start_again();
            }
            Fault::BrokersRestarted => {
                for id in 1..=Cluster::SIZE as i32 {
                    self.cluster.broker(id).stop();
                    self.cluster.broker(id).start_again();
                }
            }
            Fault::BrokersKilled => {
                (1..=Cluster::SIZE as i32).for_each(|id| self.cluster.broker(id).kill());
                self.last(step);
                self.cluster.start_all_again();
            }
            Fault::BrokerFrozen => {
                self.cluster.broker(id).pause();
                self.last(step);
                self.cluster.broker(id).resume();
            }
            Fault::BrokerCut => {
                self.cluster.broker(id).proxy().cut();
                self.last(step);
                self.cluster.broker(id).proxy().heal();
            }
            Fault::NetworkCut => {
                (1..=Cluster::SIZE as i32).for_each(|id| self.cluster.broker(id).proxy().cut());
                self.last(step);
                (1..=Cluster::SIZE as i32).for_each(|id| self.cluster.broker(id).proxy().heal());
            }
            Fault::PartitionsAdded => {
                self.event_partitions += 1;
                add_partitions_on(&self.topics.brokers(), &self.topics.name("events"), self.event_partitions);
            }
            Fault::TopicDeleted => {
                let (brokers, health) = (self.topics.brokers(), self.topics.name("health"));
                delete_topic_on(&brokers, &health);
                self.last(step);
                create_topic_on(&brokers, &health, PARTITIONS, Cluster::SIZE as i32);
            }
            Fault::AclRevoked => {
                let (brokers, events) = (self.topics.brokers(), self.topics.name("events"));
                let arguments = ["--bootstrap", &brokers, "--topic", &events];
                python::client("deny_writes.py", &arguments);
                self.mappers.wait_for_an_end();
                python::client("deny_writes.py", &[&arguments[..], &["--lift"]].concat());
            }
            Fault::RegistryDown | Fault::RegistrySlow => {
                let trouble = match fault {
                    Fault::RegistryDown => ec2::Fault::unavailable(),
                    _ => ec2::Fault::Delay(Duration::from_secs(2)),
                };
                let rule = self.registry.when(on_any(), trouble);
                let told = self.mappers.said(WAITS_FOR_REGISTRY);
                self.mappers.kill(Moment::AnyTime);
                if fault == Fault::RegistryDown {
                    let waits = || (self.mappers.said(WAITS_FOR_REGISTRY) > told).then_some(());
                    wait_for("a mapper that waits for the registry", PATIENCE, waits);
                }
                self.last(step);
                self.registry.lift(rule);
            }
            Fault::Ec2Down => {
                let rule = self.ec2.when(on_any(), ec2::Fault::unavailable());
                self.last(step);
                self.ec2.lift(rule);
            }
            Fault::ClockAhead | Fault::ClockBehind => {
                let by = if fault == Fault::ClockAhead { "+10800" } else { "-7200" };
                let is_mapper = choice % 2 == 0;
                let clock = if is_mapper { &self.mapper_clock } else { &self.collector_clock };
                clock.step(by);
                self.last(step);
                let clock = if is_mapper { &self.mapper_clock } else { &self.collector_clock };
                clock.step("+0");
                // They look once a second.
                self.wait(Duration::from_secs(2));
            }
            Fault::MapperKilled => {
                self.mappers.kill([Moment::AnyTime, Moment::Transaction, Moment::Restore][choice % 3]);
            }
            Fault::CollectorKilled => {
                self.collectors.kill([Moment::AnyTime, Moment::Transaction, Moment::Work][choice % 3]);
                self.life.iter().for_each(Life::hurry);
            }
            Fault::MapperStopped => self.mappers.restart(),
            Fault::CollectorStopped => self.collectors.restart(),
            Fault::MapperFrozen => self.mappers.freeze(SESSION + length / 4),
            Fault::CollectorFrozen => self.collectors.freeze(SESSION + length / 4),
            Fault::TransactionTimedOut => self.mappers.halt((TRANSACTION + SESSION) / 2),
            Fault::RegistryDownAtStart | Fault::PartitionsAddedToRaw => unreachable!("not drawn"),
        }
    }

    /// The broker that leads a partition, once one does.
    fn leader(&self, topic: &str, partition: i32) -> i32 {
        wait_for("a leader", PATIENCE, || Some(self.topics.leader(topic, partition)).filter(|leader| *leader > 0))
    }

    /// Lets a fault last, with the company that it has.
    fn last(&mut self, step: &Step) {
        self.wait(step.length / 2);
        match step.company {
            Some(Fault::MapperKilled) => self.mappers.kill(Moment::AnyTime),
            Some(Fault::CollectorKilled) => self.collectors.kill(Moment::AnyTime),
            _ => {}
        }
        self.wait(step.length / 2);
    }

    /// Lets time pass; what ended by itself is started again.
    fn wait(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.mappers.wait(Duration::from_millis(100));
            self.collectors.wait(Duration::from_millis(100));
        }
    }

    /// The mappers get behind what is on raw now, and a sweep is complete that was not.
    fn wait_until_it_moves(&mut self, after: &str) -> Duration {
        let began = Instant::now();
        let (mut ends, mut mapped) = (None, None);
        let swept = self.collectors.said("sweep complete");
        while began.elapsed() < PATIENCE {
            ends = ends.or_else(|| self.ends());
            let is_mapped = ends.as_ref().zip(self.committed()).is_some_and(|(ends, committed)| {
                ends.iter().all(|(partition, end)| committed.get(partition).is_some_and(|there| there >= end))
            });
            if is_mapped && mapped.is_none() {
                mapped = Some(began.elapsed());
            }
            if mapped.is_some() && self.collectors.said("sweep complete") > swept {
                println!("        mapped after {:.1?}", mapped.unwrap_or_default());
                return began.elapsed();
            }
            self.wait(Duration::from_millis(200));
        }
        let committed = self.committed();
        panic!(
            "nothing moves for {PATIENCE:?} after {after}: raw ended at {ends:?}, mapped are {committed:?}\n{}",
            self.tails()
        );
    }

    /// Lets time pass until it is so.
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}\n{}", self.tails());
            self.wait(Duration::from_millis(500));
        }
    }

    fn tails(&mut self) -> String {
        format!("mappers:\n{}\ncollectors:\n{}", self.mappers.tails(), self.collectors.tails())
    }

    /// A client that knows of no former coordinator, in the group of the mappers to ask for its offsets.
    fn onlooker(&self) -> BaseConsumer {
        let (brokers, group) = (self.topics.brokers(), self.topics.name("mapper"));
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap()
    }

    /// Where raw ends, if Kafka tells.
    fn ends(&self) -> Option<BTreeMap<i32, i64>> {
        let (onlooker, raw) = (self.onlooker(), self.topics.name("raw"));
        let end = |partition| Some((partition, onlooker.fetch_watermarks(&raw, partition, ANSWER).ok()?.1));
        (0..PARTITIONS).map(end).collect()
    }

    /// What the mappers have committed, if Kafka tells.
    fn committed(&self) -> Option<BTreeMap<i32, i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topics.name("raw"), 0, PARTITIONS - 1);
        let offsets = self.onlooker().committed_offsets(list, ANSWER).ok()?;
        let of = |offset: rdkafka::Offset| offset.to_raw().unwrap_or_default();
        Some(offsets.elements().iter().map(|element| (element.partition(), of(element.offset()))).collect())
    }

    /// Ends all changes, and the stages once they have told them.
    pub fn settle(mut self) -> Settled {
        self.load.end();
        let (fleet, changes) = self.life.take().expect("it is ended once").end();
        println!("{changes:?}");
        // The first sweep misses what is gone, the second removes it; both begin once nothing changes any more.
        let ended = Utc::now();
        self.wait_until("two sweeps of every scope are complete", |stand| {
            let swept = complete_since(&stand.topics, ended);
            let is_swept =
                |region: &&str| swept.get(&format!("fleet/{ACCOUNT}/{region}")).is_some_and(|sweeps| sweeps.len() >= 2);
            REGIONS.iter().all(is_swept)
        });
        // Behind the last records: there may be markers behind these.
        let mut ends = BTreeMap::new();
        self.topics.read_each("raw", "read_committed", |record| {
            ends.insert(record.partition, record.offset + 1);
        });
        self.wait_until("the mappers have reached the end", |stand| {
            let Some(committed) = stand.committed() else { return false };
            ends.iter().all(|(partition, end)| committed.get(partition) >= Some(end))
        });
        add_partitions_on(&self.topics.brokers(), &self.topics.name("raw"), PARTITIONS as usize + 1);
        let mappers = self.mappers.end_by_themselves(1, "create new topics");
        let collectors = self.collectors.end_by_themselves(1, "create new topics");
        Settled { topics: self.topics, model: fleet.model(), mappers, collectors, _cluster: self.cluster }
    }
}

/// The partition of `__consumer_offsets` that has a group's offsets: by Java's hash of its name.
fn partition_of_group(group: &str) -> i32 {
    let hash = group.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    (hash & i32::MAX) % 10
}
