//! The harness: the servers that `./dev test` starts, topics of a test's own, the program as a child process.

pub mod browser;
pub mod cases;
pub mod ec2;
pub mod instances;
pub mod kafka;
pub mod kafka_proxy;
pub mod mapper;
pub mod operator;
pub mod process;
pub mod python;
pub mod replicas;
pub mod schema;
pub mod secure_kafka;
pub mod servers;
pub mod stages;
pub mod trial;

use std::time::{Duration, Instant};

/// The address or path of a test server.
///
/// # Panics
/// Where the tests were not started by `./dev test`.
pub fn server(name: &str) -> String {
    let variable = format!("ROLLCALL_TEST_{name}");
    std::env::var(&variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `./dev test`, or `./dev servers` and export what it prints")
    })
}

/// Of what a test does at random: another in `ROLLCALL_TEST_SEED`. Such a test prints it, so that a failure can be replayed
/// as far as the machine allows.
pub fn seed() -> u64 {
    std::env::var("ROLLCALL_TEST_SEED").map_or(10, |seed| seed.parse().expect("a number"))
}

/// Polls until `condition` gives something.
///
/// # Panics
/// After `limit`, naming what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
