//! The harness: the servers that `./dev test` starts, topics of a test's own, the program as a child process.

pub mod cases;
pub mod ec2;
pub mod instances;
pub mod kafka;
pub mod mapper;
pub mod process;
pub mod python;
pub mod schema;
pub mod servers;
pub mod stages;

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

/// Polls until `condition` gives something.
///
/// # Panics
/// After `limit`, naming what was waited for.
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
