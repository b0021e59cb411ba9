//! `rollcall check`: every question has a line, and what fails says what to do.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{AWS, Pipeline, SEVENTEEN_REGIONS};
use crate::support::ec2::{Fault, FaultProxy, on, on_any};
use crate::support::kafka::TestTopics;
use crate::support::process::{config_file, rollcall};
use crate::support::server;

const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// What it printed, and its exit code.
struct Checked {
    lines: Vec<Value>,
    text: String,
    code: Option<i32>,
}

impl Checked {
    fn of(config: &Value) -> Self {
        Self::with(config, &AWS)
    }

    fn with(config: &Value, env: &[(&str, &str)]) -> Self {
        let file = config_file(config);
        let output =
            rollcall().args(["check", "-o", "json", "-c"]).arg(file.path()).envs(env.iter().copied()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let lines = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaint}"));
        Self { lines, text, code: output.status.code() }
    }

    /// The lines of a question whose scope ends like that.
    #[track_caller]
    fn line(&self, what: &str, scope: &str) -> &Value {
        let is_it = |line: &&Value| line["what"] == what && line["scope"].as_str().unwrap().ends_with(scope);
        self.lines.iter().find(is_it).unwrap_or_else(|| panic!("no {what} of {scope} in {}", self.text))
    }

    fn failed(&self) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["result"] == "failed").collect()
    }
}

fn account() -> (String, String) {
    let id = fastrand::u64(100_000_000_000..999_999_999_999).to_string();
    let role = format!("arn:aws:iam::{id}:role/inventory");
    (id, role)
}

fn config_of(endpoint: &str, aws: Value) -> Value {
    let mut all = json!({"regions": REGIONS, "endpoint_url": endpoint, "calls_per_second": 20.0});
    all.as_object_mut().unwrap().extend(aws.as_object().unwrap().clone());
    Pipeline::new(json!([{"name": "ec2", "aws": all}])).config
}

fn kinds(lines: &[&Value]) -> Vec<(String, String)> {
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    lines.iter().map(|line| (text(line, "what"), text(line, "kind"))).collect()
}

#[test]
fn everything_in_place_is_all_ok_and_zero() {
    let (id, role) = account();
    let mut config = config_of(&server("EC2"), json!({"accounts": [{"role_arn": role}], "images": true}));
    config["registry"] = json!({"url": server("REGISTRY")});
    config["mapper"]["encoding"] = "avro".into();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.json");
    std::fs::write(&path, "[{\"InstanceId\": \"i-1\"}]").unwrap();
    config["collector"]["sources"].as_array_mut().unwrap().push(json!({"name": "file", "file": {"path": path}}));
    let checked = Checked::of(&config);
    assert_eq!((checked.failed(), checked.code), (vec![], Some(0)), "{}", checked.text);

    let members = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for line in &checked.lines {
        let is_warning = line["result"] == "warning";
        let expected: &[_] = if is_warning {
            &["detail", "remedy", "result", "scope", "what"]
        } else {
            &["detail", "result", "scope", "what"]
        };
        assert_eq!(members(line), expected);
    }
    let regions = REGIONS.map(|region| format!("ec2/{id}/{region}"));
    let of_a_region = ["region", "ec2:DescribeInstances", "ec2:DescribeTags", "ec2:DescribeImages"];
    let mut expected = vec![("identity", "ec2"), ("accounts", "ec2")];
    let of_account = format!("ec2/{id}");
    expected.extend([("identity", of_account.as_str()), ("clock", "ec2")]);
    expected.extend(regions.iter().flat_map(|region| of_a_region.map(|what| (what, region.as_str()))));
    expected.push(("file", "file"));
    let shown = |line: &'static str| move |all: &Value| all[line].as_str().unwrap().to_owned();
    let (what, scope) = (shown("what"), shown("scope"));
    let lines: Vec<_> = checked.lines.iter().map(|line| (what(line), scope(line))).collect();
    let lines: Vec<_> = lines.iter().map(|(what, scope)| (what.as_str(), scope.as_str())).collect();
    let [kafka, rest @ ..] = &lines[..] else { panic!("{}", checked.text) };
    assert_eq!(kafka.0, "kafka");
    assert!(rest.ends_with(&expected), "{}", checked.text);
    for what in ["topic", "group", "registry"] {
        assert!(rest.iter().any(|line| line.0 == what), "no {what}");
    }
    // Nothing of it was done: only asked for.
    assert!(checked.line("identity", &of_account)["detail"].as_str().unwrap().contains(&id));

    let file = config_file(&config);
    let output = rollcall().args(["check", "-c"]).arg(file.path()).envs(AWS).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(!table.contains('\x1b') && table.contains(" 0 failed, 0 skipped"), "{table}");
}

#[test]
fn a_region_denied_another_disabled_and_all_denied_are_three_answers_each_with_its_remedy() {
    let (_, role) = account();
    let proxy = FaultProxy::start(&server("EC2"));
    let config = config_of(&proxy.url(), json!({"accounts": [{"role_arn": role}]}));
    proxy.when(on("DescribeInstances").region(REGIONS[0]), Fault::denied());
    let disabled: Vec<_> = ["DescribeInstances", "DescribeTags"]
        .map(|action| proxy.when(on(action).region(REGIONS[1]), Fault::region_disabled()))
        .into();
    let checked = Checked::of(&config);
    assert_eq!(checked.code, Some(2));
    let expected = [("ec2:DescribeInstances", "denied"), ("region", "region-disabled")];
    assert_eq!(kinds(&checked.failed()), expected.map(|(what, kind)| (what.to_owned(), kind.to_owned())));
    for line in checked.failed() {
        assert_eq!(line["class"], "ThirdPartyConfig");
    }
    let remedy = |line: &Value| line["remedy"].as_str().unwrap().to_owned();
    assert!(remedy(checked.line("ec2:DescribeInstances", REGIONS[0])).contains("rollcall policy"));
    assert!(remedy(checked.line("region", REGIONS[1])).contains("enable the region"));
    assert_eq!(checked.line("region", REGIONS[0])["result"], "ok", "it is enabled");
    assert_eq!(checked.line("ec2:DescribeTags", REGIONS[0])["result"], "ok", "one action is denied, not all");
    assert_eq!(checked.line("ec2:DescribeTags", REGIONS[1])["result"], "skipped");

    disabled.into_iter().for_each(|rule| proxy.lift(rule));
    for action in ["DescribeInstances", "DescribeTags"] {
        proxy.when(on(action), Fault::denied());
    }
    let checked = Checked::of(&config);
    let denied = kinds(&checked.failed());
    assert_eq!(denied.len(), 4, "{}", checked.text);
    assert!(denied.iter().all(|(what, kind)| what.starts_with("ec2:") && kind == "denied"), "{denied:?}");
}

#[test]
fn wrong_keys_are_one_line_and_what_follows_from_them_is_not_asked() {
    let proxy = FaultProxy::start(&server("EC2"));
    for (action, code) in [("GetCallerIdentity", "InvalidClientTokenId"), ("DescribeInstances", "AuthFailure")] {
        proxy.when(on(action), Fault::error(code, 403));
    }
    let checked = Checked::of(&config_of(&proxy.url(), json!({})));
    assert_eq!(kinds(&checked.failed()), [("identity".to_owned(), "credentials".to_owned())]);
    assert_eq!(checked.line("permissions", "ec2")["result"], "skipped");
    assert!(proxy.log().iter().all(|call| call.service == "sts"), "nobody asks EC2 in vain");
}

#[test]
fn a_role_that_cannot_be_assumed_does_not_hide_another() {
    let (_, good) = account();
    let (id, bad) = account();
    let proxy = FaultProxy::start(&server("EC2"));
    proxy.when(on("AssumeRole").with("RoleArn", &bad), Fault::error("AccessDenied", 403));
    let roles = json!({"accounts": [{"role_arn": good}, {"role_arn": bad, "external_id": "hunter2-7f3a"}]});
    let checked = Checked::of(&config_of(&proxy.url(), roles));
    let failed = checked.failed();
    assert_eq!(failed.len(), 1, "{}", checked.text);
    assert_eq!((&failed[0]["what"], &failed[0]["scope"]), (&json!("identity"), &json!(format!("ec2/{id}"))));
    assert_eq!(checked.lines.iter().filter(|line| line["result"] == "skipped").count(), 2);
    assert!(checked.lines.iter().any(|line| line["what"] == "ec2:DescribeTags" && line["result"] == "ok"));
    assert!(!checked.text.contains("hunter2-7f3a"));
}

#[test]
fn a_clock_that_is_off_is_told_before_aws_refuses_it_and_after() {
    let proxy = FaultProxy::start(&server("EC2"));
    let config = config_of(&proxy.url(), json!({}));
    for (ahead, result) in [(90, "warning"), (-400, "failed"), (0, "ok")] {
        let rule = proxy.when(on_any(), Fault::ClockAhead(TimeDelta::seconds(ahead)));
        let checked = Checked::of(&config);
        let clock = checked.line("clock", "ec2");
        assert_eq!(clock["result"], result, "{clock}");
        assert_eq!(clock["remedy"].is_string(), ahead != 0);
        proxy.lift(rule);
    }
    // As STS refuses a signature that is too old.
    proxy.when(on_any(), Fault::ClockAhead(TimeDelta::seconds(400)));
    proxy.when(on("GetCallerIdentity"), Fault::error("SignatureDoesNotMatch", 403));
    let checked = Checked::of(&config);
    assert_eq!(kinds(&checked.failed()), [("identity".to_owned(), "clock".to_owned())], "{}", checked.text);
}

#[test]
fn thirty_four_scopes_are_a_matter_of_seconds() {
    let regions = SEVENTEEN_REGIONS;
    let roles = [account().1, account().1].map(|role| json!({"role_arn": role}));
    // The third call of each scope waits four seconds.
    let aws = json!({"regions": regions, "accounts": roles, "calls_per_second": 0.5, "images": true});
    let config = config_of(&server("EC2"), aws);
    let began = Instant::now();
    let checked = Checked::of(&config);
    let took = began.elapsed();
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    assert_eq!(checked.lines.iter().filter(|line| line["what"] == "region").count(), 34);
    assert!(took < Duration::from_secs(60), "one scope waits for the other: {took:?}");
}

#[test]
fn kafka_away_topics_missing_and_a_wrong_registry_are_told_with_what_to_do() {
    let mut config = json!({"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "collector": {"sources": []}});
    let checked = Checked::of(&config);
    let kafka = checked.line("kafka", "127.0.0.1:1");
    assert_eq!((&kafka["result"], &kafka["class"]), (&json!("failed"), &json!("FirstPartyGeneric")));
    assert!(kafka["detail"].as_str().unwrap().contains("refused"), "{kafka}");
    assert!(kafka["remedy"].as_str().unwrap().contains("kafka.bootstrap_servers"));
    assert_eq!(checked.line("topic", "ec2.sweeps")["result"], "skipped");
    assert_eq!(checked.code, Some(1));

    let topics = TestTopics::named(3);
    config = topics.config();
    config["mapper"]["encoding"] = "avro".into();
    for (url, part) in [(server("EC2"), "registry.url"), ("http://127.0.0.1:1".to_owned(), "network")] {
        config["registry"] = json!({"url": url});
        let checked = Checked::of(&config);
        let registry = checked.line("registry", &url);
        assert_eq!(registry["result"], "failed", "{registry}");
        assert!(registry["remedy"].as_str().unwrap().contains(part), "{registry}");
        let raw = checked.line("topic", &topics.name("raw"));
        assert_eq!((&raw["result"], &raw["detail"]), (&json!("failed"), &json!("does not exist")));
        assert!(raw["remedy"].as_str().unwrap().contains("topics --create"));
        assert!(!topics_exist(&topics), "a question creates nothing");
        assert_eq!(checked.line("sources", "collector.sources")["result"], "warning");
    }
}

fn topics_exist(topics: &TestTopics) -> bool {
    use rdkafka::consumer::Consumer as _;
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", topics.brokers());
    let client: rdkafka::consumer::BaseConsumer = config.create().unwrap();
    let metadata = client.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    metadata.topics().iter().any(|topic| topic.name().starts_with(&topics.prefix))
}

#[test]
fn a_schema_that_the_registry_would_refuse_is_told() {
    let mut config = Pipeline::new(json!([])).config;
    config["registry"] = json!({"url": server("REGISTRY")});
    config["mapper"]["encoding"] = "avro".into();
    let topic = config["kafka"]["topics"]["events"].as_str().unwrap().to_owned();
    let url = server("REGISTRY");
    let put = |path: String, body: Value, method: reqwest::Method| {
        let sent = async {
            let client = reqwest::Client::builder().no_proxy().build()?;
            let request = client.request(method, format!("{url}/{path}"));
            let body = body.to_string();
            request.header("content-type", "application/vnd.schemaregistry.v1+json").body(body).send().await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(sent).unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    let other = json!({"type": "record", "name": "Other", "fields": [{"name": "x", "type": "long"}]});
    put(format!("subjects/{topic}-value/versions"), json!({"schema": other.to_string()}), reqwest::Method::POST);
    put(format!("config/{topic}-value"), json!({"compatibility": "FULL"}), reqwest::Method::PUT);
    let checked = Checked::of(&config);
    let registry = checked.line("registry", "");
    assert_eq!(registry["result"], "failed", "{registry}");
    assert!(registry["remedy"].as_str().unwrap().contains("compatibility"), "{registry}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_line() {
    let mut config = Pipeline::new(json!([{"name": "gone", "file": {"path": "/nowhere/fleet.json"}}])).config;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torn.json");
    std::fs::write(&path, "[{\"InstanceId\"").unwrap();
    config["collector"]["sources"].as_array_mut().unwrap().push(json!({"name": "torn", "file": {"path": path}}));
    let checked = Checked::of(&config);
    let expected = ["file"; 2].map(|what| (what.to_owned(), "invalid-file".to_owned()));
    assert_eq!(kinds(&checked.failed()), expected);
    assert_eq!(checked.code, Some(2));
}
