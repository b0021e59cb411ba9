//! What `rollcall policy` prints is enough, and none of it is too much: an EC2 server enforces it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Pipeline;
use super::access::{NOTHING, sweep};
use super::faults::REGIONS;
use crate::support::ec2::{Fault, FaultProxy, on};
use crate::support::process::{config_file, rollcall};
use crate::support::python;
use crate::support::servers::Moto;

/// What `rollcall policy` says of a configuration.
fn policies(config: &Value) -> Value {
    let file = config_file(config);
    let output = rollcall().args(["policy", "-o", "json", "-c"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
}

/// A policy without one of its actions.
fn without(policy: &Value, action: &str) -> Value {
    let mut less = policy.clone();
    for statement in less["Statement"].as_array_mut().unwrap() {
        match &mut statement["Action"] {
            Value::Array(actions) => actions.retain(|granted| granted != action),
            granted if granted == action => *granted = "iam:GetUser".into(),
            _ => {}
        }
    }
    assert_ne!(less, *policy, "{action} is not in it");
    less
}

#[test]
fn the_policy_that_is_printed_suffices_and_with_any_one_action_less_the_sweep_fails() {
    let moto = Moto::start(&[]);
    let url = moto.url();
    let proxy = FaultProxy::start(&url);
    let account = "123456789012";
    let role = format!("arn:aws:iam::{account}:role/inventory");
    python::client("populate_ec2.py", &["--endpoint", &url, "--regions", REGIONS[0], "--count", "4"]);
    let mut pipeline = Pipeline::new(json!([]));
    let config_as = |keys: &Value| {
        let secret = json!({"static": {
            "access_key_id": keys["access_key_id"].as_str().unwrap_or("AKID"),
            "secret_access_key": keys["secret_access_key"].as_str().unwrap_or("x"),
        }});
        let aws = json!({
            "regions": ["eu-west-*"], "endpoint_url": proxy.url(), "credentials": secret, "images": true,
            "accounts": [{"role_arn": role}], "calls_per_second": 20.0, "settling_delay": "0s",
        });
        json!([{"name": "ec2", "interval": "10s", "give_up_after": "30s", "aws": aws}])
    };
    pipeline.config["collector"]["sources"] = config_as(&json!({}));
    let printed = policies(&pipeline.config);
    let (caller, of_role) = (&printed["policy"], &printed["roles"][0]);
    assert_eq!(of_role["role_arn"], role);

    let user = |more: &[&str], policy: &Value| {
        let policy = policy.to_string();
        let arguments = ["--endpoint", &url, "--user", "collector", "--enforce", "--policy", &policy];
        python::lines("create_user.py", &[&arguments, more].concat()).remove(0)
    };
    let trust = of_role["trust"].to_string();
    let trust = trust.replace("REPLACE_WITH_ARN_OF_THE_CALLER", &format!("arn:aws:iam::{account}:user/collector"));
    let role_policy = |more: &[&str], policy: &Value| {
        let policy = policy.to_string();
        let arguments = ["--endpoint", &url, "--as-role", "inventory", "--enforce", "--policy", &policy];
        python::client("create_user.py", &[&arguments, more].concat());
    };
    role_policy(&["--trust", &trust], &of_role["policy"]);
    let keys = user(&[], caller);
    pipeline.config["collector"]["sources"] = config_as(&keys);

    // The first sweep lets the instances be known with their tags.
    let swept = || sweep(&pipeline.config, &NOTHING);
    let is_complete = |verdicts: &BTreeMap<String, String>| {
        !verdicts.is_empty() && verdicts.values().all(|verdict| verdict == "complete")
    };
    let told = |log: &[Value], message: &str| log.iter().filter(|event| event["message"] == message).count();
    let without_images = "instances are published without their images";
    let strip = || proxy.when(on("DescribeInstances").region(REGIONS[0]), Fault::StripTags(None));
    let (verdicts, log) = swept();
    assert!(is_complete(&verdicts), "{log:#?}");
    let stripped = strip();
    let (verdicts, log) = swept();
    assert!(is_complete(&verdicts) && told(&log, without_images) == 0, "{log:#?}");
    assert!(proxy.log().iter().any(|call| call.action == "DescribeTags" && call.status == Some(200)));
    proxy.lift(stripped);

    let actions = of_role["policy"]["Statement"][0]["Action"].as_array().unwrap();
    assert_eq!(actions.len(), 4, "{actions:?}");
    for action in actions {
        let action = action.as_str().unwrap();
        role_policy(&["--change"], &without(&of_role["policy"], action));
        let stripped = strip();
        let (verdicts, log) = swept();
        proxy.lift(stripped);
        match action {
            // An addition: without it the sweep degrades and says so.
            "ec2:DescribeImages" => assert!(is_complete(&verdicts) && told(&log, without_images) > 0, "{log:#?}"),
            _ => assert!(!is_complete(&verdicts), "without {action}: {verdicts:?}"),
        }
        let shown = serde_json::to_string(&log).unwrap().to_lowercase();
        assert!(shown.contains("denied"), "without {action}: {log:#?}");
    }
    role_policy(&["--change"], &of_role["policy"]);
    assert!(is_complete(&swept().0));
    user(&["--change"], &without(caller, "sts:AssumeRole"));
    assert!(!is_complete(&swept().0), "without sts:AssumeRole");
}
