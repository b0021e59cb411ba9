//! Mappers come and go while records flow. What moves loses nothing and repeats nothing; what stays is not disturbed.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::support::kafka::TestTopics;
use crate::support::process::Stage;
use crate::support::trial::{Trial, Verdict};
use crate::support::{seed, wait_for};

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Raw records a second.
const RATE: u64 = 400;

/// Someone's open transaction on each partition of the state topic. A restore waits for its end.
struct Hold(BaseProducer);

impl Hold {
    fn on_states_of(topics: &TestTopics) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", topics.brokers()).set("transactional.id", topics.name("hold"));
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let topic = topics.name("state");
        for partition in 0..topics.partitions {
            let record = BaseRecord::<str, str>::to(&topic).key("foreign").payload("aborted").partition(partition);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        Self(producer)
    }

    fn release(self) {
        self.0.abort_transaction(PATIENCE).unwrap();
    }
}

/// A mapper, and the partitions that it owns by its log.
struct Member {
    stage: Stage,
    owned: BTreeSet<i32>,
    /// How much of the log is in `owned`.
    followed: usize,
}

impl Member {
    fn start(trial: &Trial, name: &str) -> Self {
        let mut config = trial.config.clone();
        config["instance_id"] = name.into();
        Self { stage: Stage::start(&["map"], &config), owned: BTreeSet::new(), followed: 0 }
    }

    /// What it has logged since the last look.
    fn news(&mut self) -> Vec<Value> {
        self.stage.tail();
        let news = self.stage.seen[self.followed..].to_vec();
        self.followed = self.stage.seen.len();
        for event in &news {
            match event["message"].as_str() {
                Some("partition restored") => drop(self.owned.insert(event["partition"].as_i64().unwrap() as i32)),
                Some("partitions revoked" | "partitions lost") => {
                    self.owned.retain(|owned| !partitions(event).contains(owned));
                }
                _ => {}
            }
        }
        news
    }

    fn wait_until_it_owns(&mut self, count: usize) {
        wait_for("its partitions", PATIENCE, || {
            self.news();
            (self.owned.len() == count).then_some(())
        });
    }
}

/// The partitions that a log event is about.
fn partitions(event: &Value) -> BTreeSet<i32> {
    let listed = event["partitions"].as_str().unwrap_or_default().trim_matches(['[', ']']);
    let listed = listed.split(", ").filter_map(|number| number.parse().ok());
    listed.chain(event["partition"].as_i64().map(|number| number as i32)).collect()
}

/// Waits until what is now on these partitions is committed.
fn wait_until_committed(topics: &TestTopics, partitions: &BTreeSet<i32>) {
    let ends = topics.ends("raw");
    wait_for("records of the partitions that stay", PATIENCE, || {
        let committed = topics.committed("mapper", "raw");
        partitions.iter().all(|number| committed.get(number) >= ends.get(number)).then_some(())
    });
}

/// A second mapper joins one that has all partitions, and leaves again.
fn comes_and_goes(settings: &Value) {
    let mut trial = Trial::begin(TestTopics::create(PARTITIONS), RATE, seed());
    for (key, value) in settings.as_object().unwrap() {
        trial.config["kafka"][key] = value.clone();
    }
    let topics = trial.topics.clone();
    let mut first = Member::start(&trial, "first");
    first.wait_until_it_owns(PARTITIONS as usize);

    // It joins. What moves is held up on the way, and what stays goes on.
    let hold = Hold::on_states_of(&topics);
    let mut second = Member::start(&trial, "second");
    second.stage.wait_for("restore must wait", PATIENCE);
    let mut log = first.news();
    let stay = first.owned.clone();
    let moving: BTreeSet<_> = (0..PARTITIONS).filter(|number| !stay.contains(number)).collect();
    assert!(!stay.is_empty() && !moving.is_empty(), "{stay:?} stay, {moving:?} move");
    wait_until_committed(&topics, &stay);
    second.news();
    assert!(second.owned.is_empty(), "what should be held up has moved");
    hold.release();
    second.wait_until_it_owns(moving.len());
    assert_eq!(second.owned, moving);
    wait_until_committed(&topics, &(0..PARTITIONS).collect());

    // It leaves. What comes back is held up, and what stays goes on.
    let hold = Hold::on_states_of(&topics);
    assert_eq!(second.stage.stop(), Some(0));
    first.stage.wait_for("restore must wait", PATIENCE);
    wait_until_committed(&topics, &stay);
    log.extend(first.news());
    assert_eq!(first.owned, stay, "what should be held up has moved");
    hold.release();
    first.wait_until_it_owns(PARTITIONS as usize);

    trial.finish(5000);
    log.extend(first.news());
    let (overtaken, log): (Vec<_>, Vec<_>) = log.into_iter().partition(is_overtaken);
    let is_disturbed =
        |event: &&Value| event["message"] == "transaction failed" || !partitions(event).is_disjoint(&stay);
    let disturbances: Vec<_> = log.iter().filter(is_disturbed).collect();
    assert!(disturbances.is_empty(), "{stay:?} should have stayed undisturbed: {disturbances:#?}");
    assert!(overtaken.len() <= 1, "once may be bad luck: {overtaken:#?}");
    assert_eq!(first.stage.stop(), Some(0));
    let verdict = trial.judge();
    verdict.is_exactly_once();
    assert!(verdict.uncommitted == 0 || !overtaken.is_empty(), "a transaction was aborted, and nobody knows why");
}

/// Whether a commit met the group between two generations, before the member could know the new one. No member of a
/// Kafka group can help that: the transaction is aborted and done again, with all its partitions.
fn is_overtaken(event: &Value) -> bool {
    let setback = event["setback"].as_str().unwrap_or_default();
    event["message"] == "transaction failed" && setback.contains("generation id is not valid")
}

/// For groups whose members say how long they are waited for.
fn session(timeout: Duration) -> Value {
    json!({"session.timeout.ms": timeout.as_millis() as u64, "heartbeat.interval.ms": 200})
}

#[test]
fn a_mapper_that_joins_and_leaves_moves_its_partitions_and_disturbs_no_other() {
    comes_and_goes(&json!({}));
}

#[test]
fn a_static_mapper_that_joins_and_leaves_moves_its_partitions_and_disturbs_no_other() {
    comes_and_goes(&json!({"static_membership": true}));
}

#[test]
fn a_mapper_that_joins_and_leaves_by_the_brokers_protocol_moves_its_partitions_and_disturbs_no_other() {
    comes_and_goes(&json!({"group_protocol": "consumer", "properties": {}}));
}

#[test]
fn a_static_mapper_that_restarts_in_time_gets_its_partitions_back_and_the_other_notices_nothing() {
    let mut trial = Trial::begin(TestTopics::create(PARTITIONS), RATE, seed());
    trial.config["kafka"]["static_membership"] = true.into();
    trial.config["kafka"]["properties"] = session(Duration::from_secs(30));
    let (mut first, mut second) = (Member::start(&trial, "first"), Member::start(&trial, "second"));
    wait_for("both to have partitions", PATIENCE, || {
        first.news();
        second.news();
        (first.owned.len() == 2 && second.owned.len() == 2).then_some(())
    });
    let owned = second.owned.clone();
    for is_killed in [true, false] {
        if is_killed {
            second.stage.kill();
        } else {
            assert_eq!(second.stage.stop(), Some(0));
        }
        second = Member::start(&trial, "second");
        second.wait_until_it_owns(2);
        assert_eq!(second.owned, owned);
        wait_until_committed(&trial.topics, &(0..PARTITIONS).collect());
    }
    let noticed: Vec<_> = first.news().into_iter().filter(|event| !partitions(event).is_empty()).collect();
    assert!(noticed.is_empty(), "{noticed:#?}");
    trial.finish(5000);
    assert_eq!((first.stage.stop(), second.stage.stop()), (Some(0), Some(0)));
    trial.judge().is_exactly_once();
}

/// Two replicas with one name, by `settings`: the one that must end, and how the trial of the other ends.
fn of_one_name(settings: &Value, ends: fn(&mut [Member; 2]) -> &mut Member) -> Verdict {
    let mut trial = Trial::begin(TestTopics::create(PARTITIONS), RATE, seed());
    for (key, value) in settings.as_object().unwrap() {
        trial.config["kafka"][key] = value.clone();
    }
    let mut first = Member::start(&trial, "same");
    first.wait_until_it_owns(PARTITIONS as usize);
    let mut members = [first, Member::start(&trial, "same")];
    let ending = ends(&mut members);
    let last = ending.stage.wait_for("the engine cannot go on", PATIENCE);
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("instance_id") && error.contains(&trial.topics.name("mapper-same-0")), "{error}");
    assert_eq!(ending.stage.wait(PATIENCE).code(), Some(1));
    trial.finish(3000);
    let others = members.into_iter().filter_map(|mut member| (!member.stage.has_ended()).then(|| member.stage.stop()));
    assert_eq!(Vec::from_iter(others), [Some(0)]);
    trial.judge()
}

#[test]
fn of_two_static_mappers_with_one_name_the_first_ends_and_says_why() {
    let settings = json!({"static_membership": true});
    of_one_name(&settings, |[first, _]| first).is_exactly_once();
}

#[test]
fn by_the_brokers_protocol_the_second_of_one_name_ends_and_says_why() {
    let settings = json!({"static_membership": true, "group_protocol": "consumer", "properties": {}});
    of_one_name(&settings, |[_, second]| second).is_exactly_once();
}
