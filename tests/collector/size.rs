//! A large fleet in bounded memory. How fast it goes is printed, and no test: that depends on the machine.

use std::time::Duration;

use serde_json::json;

use super::AWS;
use crate::support::ec2::{FastEc2, FleetSpec};
use crate::support::kafka::TestTopics;
use crate::support::process::Stage;

const INSTANCES: usize = 20_000;
const MEMORY: u64 = 150 << 20;

#[test]
fn twenty_thousand_instances_of_one_scope_are_swept_within_150_megabytes() {
    let ec2 = FastEc2::start(FleetSpec::of(INSTANCES));
    // As many partitions as `rollcall topics` makes: what lies on one of them goes out in one request.
    let mut config = TestTopics::create(12).config();
    config["collector"]["sources"] = json!([{"name": "large", "interval": "10s", "aws": {
        "regions": ["eu-west-1"], "endpoint_url": ec2.url(), "calls_per_second": 20, "settling_delay": "0s"}}]);
    let mut collector = Stage::start_with_env(&["collect"], &config, &AWS);
    let mut sweep = || {
        let swept = collector.wait_for("sweep complete", Duration::from_secs(120));
        assert_eq!(swept["instances"], INSTANCES);
        (collector.cpu_seconds(), collector.memory().peak)
    };
    // The first one has the start in it.
    let ((before, _), (after, peak)) = (sweep(), sweep());
    println!("{:.0} instances a CPU-second, {} MiB at most", INSTANCES as f64 / (after - before), peak >> 20);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
    assert_eq!(collector.stop(), Some(0));
}
