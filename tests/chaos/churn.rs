//! Three mappers on three brokers, killed, stopped and frozen at random under load: each change comes out once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::kafka::TestTopics;
use crate::support::replicas::{Moment, Replicas};
use crate::support::seed;
use crate::support::servers::Cluster;
use crate::support::trial::{MAPPER, Trial};

/// Raw records a second.
const RATE: u64 = 2000;
const DURATION: Duration = Duration::from_secs(600);
/// How long the group waits for a member.
const SESSION: Duration = Duration::from_secs(3);

/// How often they were hit at which moment is luck, and printed. A zombie whose writes were not refused would show in the verdict.
#[test]
#[ignore = "ten minutes: ./dev soak"]
fn mappers_that_are_killed_stopped_and_frozen_at_random_tell_each_change_once() {
    // Overdue transactions are looked for every ten seconds by default.
    let cluster = Cluster::start(&["transaction.abort.timed.out.transaction.cleanup.interval.ms=1000"]);
    let seed = seed();
    let mut trial = Trial::begin(TestTopics::create_replicated(&cluster.address(), 6), RATE, seed);
    trial.config["kafka"]["transaction_timeout"] = json!("5s");
    let session = SESSION.as_millis() as u64;
    trial.config["kafka"]["properties"] = json!({"session.timeout.ms": session, "heartbeat.interval.ms": 300});
    let mut mappers = Replicas::start(MAPPER, &trial.config, seed);

    let mut random = fastrand::Rng::with_seed(seed);
    let began = Instant::now();
    while began.elapsed() < DURATION {
        match random.u8(0..10) {
            0..2 => mappers.kill(Moment::Transaction),
            2..4 => mappers.kill(Moment::Restore),
            4 => mappers.kill(Moment::AnyTime),
            5 => mappers.restart(),
            6..9 => mappers.freeze(SESSION + Duration::from_millis(random.u64(500..4000))),
            _ => mappers.wait(Duration::from_millis(random.u64(0..3000))),
        }
    }
    let kills = mappers.kills();
    trial.finish(DURATION.as_secs() * RATE * 9 / 10);
    let told = mappers.stop();
    println!("seed {seed}, {DURATION:?}, {kills} kills: {told:#?}");
    trial.judge().is_exactly_once();
    assert_eq!(told.ended, Vec::<String>::new(), "a mapper ended by itself");
    // Was it put to the test at all? Ten minutes leave that to no luck.
    assert!(told.zombies >= 1 && told.taken_over_while_frozen >= 1 && told.deposed >= 1, "nobody was a zombie");
    assert!(told.killed_in_restore >= 1 && told.killed_in_transaction >= 1, "no kill came at the wrong moment");
}
