//! Collectors are killed, frozen and cut off from Kafka while their fleet changes all the time. What is on the topics in
//! the end is held against what EC2 has shown.

mod evidence;

use std::collections::BTreeSet;
use std::time::Duration;

use rollcall::record::partition_for;
use serde_json::json;

use crate::support::ec2::{FastEc2, FleetSpec, Life};
use crate::support::kafka::{Read, TestTopics};
use crate::support::replicas::{Kind, Moment, Replicas};
use crate::support::servers::Broker;
use crate::support::{seed, wait_for};
use evidence::Evidence;
pub use evidence::{Head, complete, complete_since};

/// So named that each partition of `ec2.sweeps` has a scope at least: whoever is killed has something to do.
const ACCOUNTS: [&str; 2] = ["111122223333", "777788889999"];
const PARTITIONS: i32 = 6;
const REGIONS: [&str; 4] = ["eu-west-1", "eu-west-2", "eu-north-1", "us-east-1"];
const INTERVAL: Duration = Duration::from_secs(10);
/// How long Kafka is away.
const AWAY: Duration = Duration::from_secs(60);
const KILLS: usize = 20;

pub const COLLECTOR: Kind = Kind {
    command: "collect",
    env: &super::AWS,
    restoring: "sweeps: partitions assigned",
    restored: "sweeps: partition restored",
    given_up: &["sweeps: partitions given up"],
    opened: "transaction opened",
    committed: "transaction committed",
    failed: "transaction failed, its pages will be published again",
    done: Some("sweep complete"),
    // It is committed at once.
    stays_open: Duration::ZERO,
};

#[test]
fn twenty_kills_three_freezes_and_a_minute_without_kafka_leave_the_records_as_the_fleet_is() {
    // Overdue transactions are looked for every ten seconds by default.
    let mut broker = Broker::start_with(&["transaction.abort.timed.out.transaction.cleanup.interval.ms=1000"]);
    let topics = TestTopics::create_on(&broker.address(), PARTITIONS);
    let ec2 = FastEc2::start(FleetSpec {
        accounts: ACCOUNTS.map(str::to_owned).to_vec(),
        regions: REGIONS.map(str::to_owned).to_vec(),
        instances_per_scope: 60,
        latency: Duration::from_millis(100),
    });
    let mut config = topics.config();
    config["kafka"]["transaction_timeout"] = json!("5s");
    config["kafka"]["properties"] = json!({"session.timeout.ms": 3000, "heartbeat.interval.ms": 300});
    let roles = ACCOUNTS.map(|account| json!({"role_arn": format!("arn:aws:iam::{account}:role/inventory")}));
    config["collector"]["sources"] = json!([{"name": "fleet", "interval": "10s", "aws": {
        "accounts": roles, "regions": REGIONS, "endpoint_url": ec2.url(), "page_size": 20,
        "calls_per_second": 20, "settling_delay": "0s"}}]);
    let seed = seed();
    let mut replicas = Replicas::start(COLLECTOR, &config, seed);

    let life = Life::begin(ec2, ACCOUNTS, REGIONS, seed);
    let kill = |replicas: &mut Replicas, moment| {
        replicas.kill(moment);
        life.hurry();
    };
    for _ in 0..3 {
        for moment in [Moment::Transaction, Moment::Restore, Moment::Work] {
            kill(&mut replicas, moment);
        }
    }
    // Shorter than a transaction may take, and longer.
    replicas.freeze(Duration::from_secs(4));
    replicas.freeze(Duration::from_secs(9));
    broker.kill();
    for _ in 0..4 {
        replicas.wait(AWAY / 5);
        kill(&mut replicas, Moment::AnyTime);
    }
    replicas.wait(AWAY / 5);
    broker.start_again();
    kill(&mut replicas, Moment::AnyTime);
    replicas.freeze(Duration::from_secs(8));
    while replicas.kills() < KILLS {
        let moment = [Moment::Work, Moment::Transaction, Moment::Restore][replicas.kills() % 3];
        kill(&mut replicas, moment);
    }
    assert_eq!(replicas.kills(), KILLS);
    // A transaction is so short that hardly anything of it reaches Kafka before its end: more kills, until something has.
    while !is_any_left_behind(&topics) && replicas.kills() < 2 * KILLS {
        kill(&mut replicas, Moment::Transaction);
    }
    let (ec2, changes) = life.end();

    // The first sweep misses what is gone, the second removes it; both begin once nothing changes any more.
    let ended = chrono::Utc::now();
    let scopes = scopes();
    wait_for("two sweeps of every scope", INTERVAL * 9, || {
        replicas.wait(Duration::from_millis(500));
        let swept = complete_since(&topics, ended);
        scopes.iter().all(|scope| swept.get(scope).is_some_and(|sweeps| sweeps.len() >= 2)).then_some(())
    });
    let told = replicas.stop();
    let evidence = Evidence::gather(&topics, &ec2);
    println!("seed {seed}: {changes:?}\n{told:?}\n{}", evidence.summary());

    let checks: [(&str, Vec<String>); 6] = [
        ("the last record of each instance is not as EC2 has it", evidence.wrong_at_the_end()),
        ("removed, though EC2 listed it", evidence.false_removals()),
        ("written by a deposed owner, behind its successor", evidence.steps_back()),
        ("swept twice in its slot", evidence.double_sweeps(INTERVAL)),
        ("shown by EC2 throughout a complete sweep, and not published by it", evidence.lost()),
        ("held for an operator", evidence.held()),
    ];
    for (what, found) in &checks {
        println!("{what}: {} times {:#?}", found.len(), &found[..found.len().min(10)]);
    }
    assert!(checks.iter().all(|(_, found)| found.is_empty()), "the two histories do not agree: see above");
    assert_eq!(told.ended, Vec::<String>::new(), "a collector ended by itself");

    // Was it put to the test at all? How many ghosts there would be is a matter of luck, two to five; it is printed.
    assert!(told.killed_in_restore >= 2 && told.killed_in_transaction + told.killed_in_work >= 4, "{told:?}");
    assert!(told.taken_over_while_frozen >= 1, "nobody took over from a frozen collector: {told:?}");
    assert!(evidence.aborted > 0, "no record was left behind by a transaction");
    assert!(evidence.tombstones > 20, "hardly anything was removed");
}

#[test]
fn each_partition_of_the_churn_has_something_to_sweep() {
    let partitions: BTreeSet<_> = scopes().iter().map(|scope| partition_for(scope.as_bytes(), PARTITIONS)).collect();
    assert_eq!(partitions.len(), PARTITIONS as usize);
}

/// Whether some raw record will never be committed: it was written before, and is not among the committed ones after.
fn is_any_left_behind(topics: &TestTopics) -> bool {
    let places = |records: Vec<Read>| -> BTreeSet<_> {
        records.iter().map(|record| (record.partition, record.offset)).collect()
    };
    let written = places(topics.read_uncommitted("raw"));
    !written.is_subset(&places(topics.read("raw")))
}

/// As the keys of `ec2.sweeps` have them.
fn scopes() -> BTreeSet<String> {
    let of = |account| REGIONS.map(|region| format!("fleet/{account}/{region}"));
    ACCOUNTS.iter().flat_map(of).collect()
}
