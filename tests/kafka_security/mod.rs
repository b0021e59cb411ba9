//! Kafka that asks who we are: every way to prove it, what is said where it is not believed, and the least permissions.

mod acls;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kafka::{TestTopics, flush, send};
use crate::support::process::{Run, Stage};
use crate::support::python::authority;
use crate::support::secure_kafka::{Acl, SECRET, SecureKafka};
use crate::support::stages::wait_until_mapped;

const LIMIT: Duration = Duration::from_secs(60);

/// A configuration of topics on the broker, by a way to prove who we are.
fn config(topics: &TestTopics, kafka: &Value) -> Value {
    let mut config = topics.config();
    for (key, value) in kafka.as_object().unwrap() {
        match value.as_object() {
            Some(members) if key == "properties" => {
                config["kafka"][key].as_object_mut().unwrap().extend(members.clone())
            }
            _ => config["kafka"][key] = value.clone(),
        }
    }
    // All that there is to be told.
    config["log"] = json!({"format": "json", "filter": "trace"});
    config
}

/// The program, ended. Whatever it did, it told no secret.
fn run(arguments: &[&str], config: &Value) -> Run {
    let run = Run::of(arguments, config);
    run.keeps(SECRET);
    run
}

fn acl(kind: &str, name: &str, operation: &str) -> Acl {
    (kind.to_owned(), name.to_owned(), operation.to_owned())
}

/// All that a stage may need of topics and groups of a test's own.
fn everything(topics: &TestTopics) -> Vec<Acl> {
    let all = format!("{}*", topics.prefix);
    let operations = ["read", "write", "describe_configs", "create"].map(|operation| acl("topic", &all, operation));
    let ids = ["", "rollcall-"].map(|prefix| format!("{prefix}{all}"));
    let ids = ids.iter().map(|id| acl("transactional-id", id, "write"));
    operations.into_iter().chain(ids).chain([acl("group", &all, "read")]).collect()
}

#[test]
fn whoever_proves_who_they_are_is_let_in() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::create_on(&kafka.open_address(), 1);
    let may = vec![acl("topic", &format!("{}*", topics.prefix), "describe")];
    let ways = [
        ("plain", kafka.with_password("PLAIN", "plain")),
        ("scram-256", kafka.with_password("SCRAM-SHA-256", "scram-256")),
        ("scram-512", kafka.with_password("SCRAM-SHA-512", "scram-512")),
        ("CN=127.0.0.1", kafka.with_certificate()),
        ("rollcall-oidc", kafka.with_tokens()),
    ];
    kafka.grant(&[], &ways.each_ref().map(|(user, _)| ((*user).to_owned(), may.clone())).into());
    for (user, way) in ways {
        let run = run(&["topics"], &config(&topics, &way));
        assert_eq!(run.code, Some(0), "{user}: {}\n{}", run.stdout, run.stderr);
        assert!(run.stdout.contains(&format!("{}: ok", topics.name("raw"))), "{user}: {}", run.stdout);
    }
}

#[test]
fn who_is_not_believed_and_whom_we_do_not_believe_are_told_with_what_to_do() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::named(1);
    let foreign = authority(&[]);
    let changed = |way: &Value, pointer: &str, value: Value| {
        let mut way = way.clone();
        *way.pointer_mut(pointer).unwrap() = value;
        way
    };
    let (scram, oidc) = (kafka.with_password("SCRAM-SHA-512", "scram-512"), kafka.with_tokens());
    let by_name = scram["bootstrap_servers"].as_str().unwrap().replace("127.0.0.1", "localhost");
    let mut without_certificate = kafka.with_certificate();
    for name in ["ssl.certificate.location", "ssl.key.location"] {
        without_certificate["properties"].as_object_mut().unwrap().remove(name);
    }
    let mut without_tls = scram.clone();
    without_tls["properties"] = json!({});
    let password = format!("{SECRET}-wrong");
    let (ca, ca_file) = ("/properties/ssl.ca.location", foreign.path().join("ca.pem"));
    for (way, parts) in [
        // A password, a user, a mechanism.
        (changed(&scram, "/properties/sasl.password", json!(password)), &["user \"scram-512\"", "sasl.password"][..]),
        (changed(&scram, "/properties/sasl.username", json!("nobody")), &["user \"nobody\"", "sasl.username"]),
        (changed(&scram, "/properties/sasl.mechanism", json!("SCRAM-SHA-256")), &["SCRAM-SHA-256", "sasl.mechanism"]),
        // Whom we are to trust.
        (changed(&scram, ca, json!(ca_file)), &["not trusted", "ssl.ca.location"]),
        (changed(&scram, "/bootstrap_servers", json!(by_name)), &["not trusted", "names the host", "localhost"]),
        (without_certificate, &["want one", "ssl.certificate.location"]),
        (without_tls, &["security.protocol"]),
        // Tokens: there is none, or not a good one.
        (changed(&oidc, "/oauth/oidc/client_secret", json!(password)), &["401 (invalid_client)", "client_secret"]),
        (changed(&oidc, "/oauth/oidc/ca_file", json!(ca_file)), &["token", "certificate verify failed"]),
        (changed(&oidc, "/oauth/oidc/token_url", json!("https://127.0.0.1:1/")), &["127.0.0.1:1", "onnection refused"]),
        (changed(&oidc, "/oauth/oidc/audience", json!("another")), &["client \"rollcall-oidc\"", "audience"]),
        #[cfg(feature = "aws")]
        (kafka.with_msk_iam(), &["SASL authentication error", "kafka-cluster:Connect"]),
    ] {
        let started = std::time::Instant::now();
        let told = run(&["topics"], &config(&topics, &way)).expect(1);
        told.complains_of(parts).complains_of(&["Kafka cannot be reached"]);
        assert!(started.elapsed() < LIMIT, "{parts:?}");
        let said = told.stderr.lines().filter(|line| line.contains("no token for Kafka")).count();
        assert!(said <= 5, "a hot loop: {}", told.stderr);
        // `check` says the same as a line of its table.
        let checked = run(&["check"], &config(&topics, &way)).expect(1);
        assert!(parts.iter().any(|part| checked.stdout.contains(part)), "{parts:?}: {}", checked.stdout);
    }
}

#[test]
fn a_mapper_goes_on_for_longer_than_a_token_lives() {
    let kafka = SecureKafka::shared();
    let topics = TestTopics::create_on(&kafka.open_address(), 1);
    kafka.grant(&[], &[("rollcall-oidc".to_owned(), everything(&topics))].into());
    let mut config = config(&topics, &kafka.with_tokens());
    config["log"]["filter"] = "info,rollcall=debug".into();
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_until_ready();
    for number in 0..3 {
        let id = format!("i-{number}");
        let instance = json!({"InstanceId": id, "OwnerId": "123456789012", "State": {"Name": "running"}});
        let value = instance.to_string();
        let headers = [("observed-at", "2026-01-02T03:04:05.000Z"), ("aws-region", "eu-west-1")];
        let producer = topics.producer();
        send(&producer, &topics.name("raw"), Some(id.as_bytes()), Some(value.as_bytes()), &headers, None);
        flush(&producer);
        wait_until_mapped(&topics);
        assert_eq!(topics.read("events").len(), number + 1);
        mapper.wait_for("token for Kafka", LIMIT);
    }
    assert_eq!(mapper.stop(), Some(0));
}

#[cfg(feature = "aws")]
#[test]
fn the_examples_of_the_page_are_configurations() {
    let page = include_str!("../../docs/connect-kafka.md");
    let blocks: Vec<_> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 6);
    for block in blocks {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), block).unwrap();
        let output =
            crate::support::process::rollcall().args(["config", "--config"]).arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("change-me"), "{block}");
    }
    let policy = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
}
