//! Whatever is killed when: each change comes out once, and the state topic is the fleet.

use std::time::Duration;

use serde_json::json;

use crate::support::kafka::TestTopics;
use crate::support::process::Stage;
use crate::support::trial::{Trial, Verdict};

/// Starts to change a fleet.
fn begin(rate: u64) -> Trial {
    Trial::begin(TestTopics::create(4), rate, 7)
}

/// Lets `mapper` map so many records at least, and holds what it told against the fleet.
fn end(mut trial: Trial, least: u64, mut mapper: Stage) -> Verdict {
    trial.finish(least);
    assert_eq!(mapper.metric("rollcall_mapper_records_total", "rejected"), 0.0);
    assert_eq!(mapper.stop(), Some(0));
    let verdict = trial.judge();
    verdict.is_exactly_once();
    verdict
}

#[test]
fn a_mapper_killed_twenty_times_under_load_tells_each_change_once() {
    const KILLS: usize = 20;
    let trial = begin(1200);
    let mut random = fastrand::Rng::with_seed(11);
    let (mut during_restore, mut in_transaction) = (0, 0);
    for kill in 0..KILLS {
        let mut mapper = Stage::start(&["map"], &trial.config);
        let (moment, delay) = match kill % 3 {
            0 if kill > 0 => ("restore started", Duration::from_millis(random.u64(0..5))),
            1 => ("transaction opened", Duration::from_millis(random.u64(0..250))),
            _ => ("transaction committed", Duration::from_millis(random.u64(0..1500))),
        };
        mapper.wait_for(moment, Duration::from_secs(60));
        std::thread::sleep(delay);
        mapper.kill();
        let log = mapper.tail();
        let last = |message: &str| log.rfind(&format!("\"message\":\"{message}\""));
        during_restore += usize::from(last("restore started") > last("partition restored"));
        in_transaction += usize::from(last("transaction opened") > last("transaction committed"));
    }
    let mapper = Stage::start(&["map"], &trial.config);
    let Verdict { uncommitted, .. } = end(trial, 50_000, mapper);
    println!("{KILLS} kills: {during_restore} during a restore, {in_transaction} inside a transaction");
    assert!(during_restore >= 5, "only {during_restore} kills hit a restore");
    assert!(in_transaction >= 5, "only {in_transaction} kills hit an open transaction");
    assert!(uncommitted > 0, "no kill left an aborted event behind: nothing was put to the test");
}

/// Stops the mapper inside a transaction for longer than `limit`, and lets it go on.
fn freeze(mapper: &mut Stage, limit: Duration) {
    mapper.wait_for("transaction opened", Duration::from_secs(60));
    // Into the transaction: some of its records are on their way, some are there.
    std::thread::sleep(Duration::from_millis(100));
    mapper.signal("STOP");
    std::thread::sleep(limit);
    mapper.signal("CONT");
}

#[test]
fn a_mapper_whose_transaction_was_taken_from_it_starts_over_and_tells_each_change_once() {
    let mut trial = begin(1000);
    // Kafka aborts the transaction, while the group still waits for the member.
    trial.config["kafka"]["transaction_timeout"] = json!("1s");
    trial.config["kafka"]["properties"] = json!({"session.timeout.ms": 30000, "heartbeat.interval.ms": 200});
    let mut mapper = Stage::start(&["map"], &trial.config);
    for _ in 0..3 {
        // Kafka looks for overdue transactions every ten seconds.
        freeze(&mut mapper, Duration::from_secs(13));
        mapper.wait_for("transaction failed", Duration::from_secs(60));
        mapper.wait_for("transaction committed", Duration::from_secs(60));
    }
    assert!(mapper.metric("rollcall_mapper_transactions_total", "renewed") >= 1.0);
    let Verdict { uncommitted, .. } = end(trial, 10_000, mapper);
    assert!(uncommitted > 0, "nothing was put to the test");
}

#[test]
fn a_mapper_that_the_group_gave_up_gets_its_partitions_anew_and_tells_each_change_once() {
    let trial = begin(1000);
    let mut mapper = Stage::start(&["map"], &trial.config);
    for _ in 0..4 {
        freeze(&mut mapper, Duration::from_secs(4));
        mapper.wait_for("partitions lost", Duration::from_secs(60));
        mapper.wait_for("partition restored", Duration::from_secs(60));
        mapper.wait_for("transaction committed", Duration::from_secs(60));
    }
    let Verdict { uncommitted, .. } = end(trial, 10_000, mapper);
    assert!(uncommitted > 0, "nothing was put to the test");
}
