//! The schema registry: who registers, what is refused and how that is told, and who is let in.

use std::path::Path;
use std::time::Duration;

use rollcall::profile::Profile;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::kafka::TestTopics;
use crate::support::process::{Run, Stage};
use crate::support::python::{self, authority};
use crate::support::server;
use crate::support::servers::SecureRegistry;

const LIMIT: Duration = Duration::from_secs(60);
/// In no output may be any of it.
const SECRET: &str = "hunter2-swordfish";
/// The same in base64, behind `rollcall:`.
const ENCODED: &str = "cm9sbGNhbGw6aHVudGVyMi1zd29yZGZpc2g=";

// === print ===

#[test]
fn print_gives_every_schema_without_a_configuration() {
    for profile in Profile::ALL {
        let printed = run(&["schema", "print", "--profile", profile.name()], &json!({})).expect(0);
        assert_eq!(printed.stdout, profile.schema_json());
    }
    for (of, name) in [
        ("state", "DeviceState"),
        ("sweep-head", "SweepHead"),
        ("sweep-entry", "SweepEntry"),
        ("sweep-acceptance", "SweepAcceptance"),
    ] {
        let printed = run(&["schema", "print", "--of", of], &json!({})).expect(0).json();
        assert_eq!(printed["name"], name);
    }
}

#[test]
fn those_who_register_a_new_subject_at_the_same_time_all_succeed() {
    for _ in 0..5 {
        let subject = Subject::new();
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| subject.run("register").expect(0))));
        });
    }
}

#[test]
fn without_a_registry_there_is_nothing_to_ask() {
    run(&["schema", "check"], &json!({})).expect(2).complains_of(&["registry.url"]);
}

// === register, check ===

#[test]
fn register_gives_subject_id_and_version_and_the_same_again() {
    let subject = Subject::new();
    let new = subject.run("check").expect(0);
    assert!(new.stdout.contains("new: it has no schema yet"), "{}", new.stdout);
    let first = subject.run_json("register", 0);
    assert_eq!((&first["subject"], &first["version"]), (&json!(subject.name), &json!(1)));
    assert_eq!(subject.run_json("register", 0), first);
    let found = python::lines("read_schema.py", &["--registry", &server("REGISTRY"), "--subject", &subject.name]);
    assert_eq!(found[0]["id"], first["id"]);
    let text = subject.run("register").expect(0).stdout;
    assert_eq!(text, format!("{}: ID {}, version 1\n", subject.name, first["id"]));
    assert_eq!(subject.run_json("check", 0)["registered"], json!({"id": first["id"], "version": 1}));
}

#[test]
fn what_was_released_goes_with_what_is_now() {
    for profile in Profile::ALL {
        let subject = Subject::new();
        let path = format!("schemas/released/0.1.0/{}.avsc", profile.name());
        let released = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        subject.put(&released);
        subject.demand("FULL");
        let settings = subject.config(&json!({}));
        let args = ["schema", "check", "--profile", profile.name(), "--output", "json"];
        let examined = run(&args, &settings).expect(0).json();
        assert_eq!((&examined["refused"], &examined["level"]), (&Value::Null, &json!("FULL")));
        run(&["schema", "register", "--profile", profile.name()], &settings).expect(0);
    }
}

#[test]
fn an_incompatible_schema_is_refused_and_every_difference_shown() {
    let subject = Subject::incompatible();
    let examined = subject.run_json("check", 2);
    assert!(examined["refused"].is_string(), "{examined}");
    assert_eq!((&examined["level"], &examined["latest"]["version"]), (&json!("FULL"), &json!(1)));
    let removed = json!({"path": "zone", "what": "removed", "registered": "string, without a default"});
    let differs = json!({"path": "device.uid", "what": "type", "registered": "long", "ours": "string"});
    let differences = examined["latest"]["differences"].as_array().unwrap();
    assert_eq!(differences.iter().filter(|it| **it == removed || **it == differs).count(), 2, "{differences:?}");
    let shown = ["~ device.uid: type long, ours string", "- zone: removed, was string, without a default"];
    let check = subject.run("check").expect(2);
    assert!(shown.iter().all(|line| check.stdout.contains(line)), "{}", check.stdout);
    subject.run("register").expect(2).complains_of(&shown).complains_of(&["409", "version 1", &subject.name]);
}

// === the mapper at start ===

#[test]
fn a_mapper_does_not_start_where_its_schema_is_refused_and_says_what_differs() {
    let subject = Subject::incompatible();
    let shown = ["~ device.uid: type long, ours string", "- zone: removed, was string", "incompatible", "version 1"];
    run(&["map"], &subject.config(&json!({}))).expect(1).complains_of(&shown);
}

#[test]
fn a_mapper_that_only_verifies_waits_for_somebody_to_register() {
    let subject = Subject::new();
    let settings = subject.config(&json!({"mode": "verify"}));
    run(&["map"], &settings).expect(1).complains_of(&["rollcall schema register", "verify", &subject.name]);
    assert_eq!(subject.run_json("check", 0)["registered"], Value::Null, "looking up registers nothing");

    let registered = subject.run_json("register", 0);
    let mut mapper = Stage::start(&["map"], &settings);
    assert_eq!(mapper.wait_for("schema registered", LIMIT)["schema_id"], registered["id"]);
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn a_mapper_that_only_verifies_shows_how_the_latest_differs() {
    let subject = Subject::incompatible();
    let settings = subject.config(&json!({"mode": "verify"}));
    run(&["map"], &settings).expect(1).complains_of(&["schema register", "~ device.uid: type long, ours string"]);
    let lines = run(&["check", "--output", "json"], &settings).expect(2).json();
    let line = lines.as_array().unwrap().iter().find(|line| line["what"] == "registry").unwrap();
    assert_eq!((&line["result"], &line["kind"]), (&json!("failed"), &json!("registry")));
    assert!(line["detail"].as_str().unwrap().contains("~ device.uid: type long, ours string"), "{line}");
}

// === security ===

#[test]
fn a_password_is_sent_over_tls_and_a_wrong_one_is_told_without_repeating_it() {
    let (authority, subject) = (authority(&[]), Subject::new());
    let wanted = format!("Basic {ENCODED}");
    let registry = SecureRegistry::start(authority.path(), &["--authorization", &wanted]);
    let with = |username: &str, password: &str| json!({"url": registry.url(), "ca_file": authority.path().join("ca.pem"), "username": username, "password": password});
    subject.run_with("register", &with("rollcall", SECRET)).expect(0);
    for (username, password) in [("rollcall", "swordfish-hunter2"), ("other", SECRET)] {
        let refused = subject.run_with("check", &with(username, password)).expect(2);
        refused.complains_of(&["401", "registry.password", &registry.url()]).keeps(password);
    }
    let mapper = run(&["map"], &subject.config(&with("other", SECRET))).expect(1);
    mapper.complains_of(&["401", "registry.password", "(redacted)"]);
}

#[test]
fn a_bearer_token_is_sent() {
    let (authority, subject) = (authority(&[]), Subject::new());
    let registry = SecureRegistry::start(authority.path(), &["--authorization", &format!("Bearer {SECRET}")]);
    let with = |token: &str| json!({"url": registry.url(), "ca_file": authority.path().join("ca.pem"), "token": token});
    subject.run_with("register", &with(SECRET)).expect(0);
    subject
        .run_with("register", &with("other-token"))
        .expect(2)
        .complains_of(&["401", "registry.token"])
        .keeps("other-token");
}

#[test]
fn a_registry_that_asks_for_a_certificate_gets_it() {
    let (authority, foreign, subject) = (authority(&[]), self::authority(&[]), Subject::new());
    let ca = authority.path().join("ca.pem");
    let registry = SecureRegistry::start(authority.path(), &["--client-ca", ca.to_str().unwrap()]);
    let with = |folder: &TempDir, key: &TempDir| {
        json!({"url": registry.url(), "ca_file": &ca, "certificate_file": folder.path().join("cert.pem"),
            "key_file": key.path().join("key.pem")})
    };
    subject.run_with("register", &with(&authority, &authority)).expect(0);
    let none = json!({"url": registry.url(), "ca_file": &ca});
    subject.run_with("register", &none).expect(2).complains_of(&["certificate", "registry.certificate_file"]);
    subject.run_with("register", &with(&foreign, &foreign)).expect(2).complains_of(&["registry.certificate_file"]);
    subject
        .run_with("register", &with(&authority, &foreign))
        .expect(2)
        .complains_of(&["registry.key_file", "key values mismatch"]);
}

#[test]
fn a_connection_that_breaks_off_is_tried_again_and_a_certificate_named_as_a_possible_reason() {
    let (authority, subject) = (authority(&[]), Subject::new());
    let register = |breaks: &str| {
        let registry = SecureRegistry::start(authority.path(), &["--break-off", breaks]);
        let settings = json!({"url": registry.url(), "ca_file": authority.path().join("ca.pem")});
        subject.run_with("register", &settings)
    };
    register("4").expect(0);
    register("1000").expect(1).complains_of(&["cannot be reached", "break off", "registry.certificate_file"]);
}

#[test]
fn a_registry_that_cannot_prove_who_it_is_is_not_told_anything() {
    let subject = Subject::new();
    let foreign = authority(&[]);
    for (arguments, ca, part) in [
        (&[][..], Some(&foreign), "certificate verify failed"),
        (&[], None, "certificate verify failed"),
        (&["--days", "-1"], None, "expired"),
        (&["--address", "127.0.0.2"], None, "mismatch"),
    ] {
        let authority = authority(arguments);
        let registry = SecureRegistry::start(authority.path(), &[]);
        let is_trusted = !arguments.is_empty();
        let ca = ca.or(is_trusted.then_some(&authority)).map(|folder| folder.path().join("ca.pem"));
        let settings = json!({"url": registry.url(), "ca_file": ca, "username": "rollcall", "password": SECRET});
        // At once, not after the time that an absent one is waited for.
        let refused = run(&["map"], &subject.config(&settings)).expect(1);
        refused.complains_of(&[part, "registry.ca_file", &registry.url()]);
    }
}

#[test]
fn an_answer_without_end_is_not_read_and_a_redirection_not_followed() {
    let (authority, subject) = (authority(&[]), Subject::new());
    for (arguments, part) in [(&["--flood"][..], "4194304 bytes"), (&["--redirect", &server("REGISTRY")], "307")] {
        let registry = SecureRegistry::start(authority.path(), arguments);
        let settings = json!({"url": registry.url(), "ca_file": authority.path().join("ca.pem"), "token": SECRET});
        subject.run_with("register", &settings).expect(2).complains_of(&[part]);
    }
}

#[test]
fn files_that_are_no_certificates_are_told_by_key_and_path() {
    let (subject, foreign) = (Subject::new(), authority(&[]));
    let key = foreign.path().join("key.pem");
    for (settings, part) in [
        (json!({"ca_file": "/nowhere/ca.pem"}), "registry.ca_file: \"/nowhere/ca.pem\": No such file"),
        (json!({"ca_file": &key}), "registry.ca_file"),
        (json!({"certificate_file": &key, "key_file": &key}), "registry.key_file"),
    ] {
        let mut settings = settings;
        settings["url"] = "https://127.0.0.1:1".into();
        subject.run_with("check", &settings).expect(2).complains_of(&[part]);
    }
}

#[test]
fn a_configuration_that_cannot_authenticate_is_refused() {
    for (settings, part) in [
        (json!({"username": "a"}), "registry.username"),
        (json!({"username": "a", "password": SECRET, "token": SECRET}), "registry.token"),
        (json!({"token": format!("{SECRET}\r\n")}), "registry.token"),
        (json!({"certificate_file": "a.pem"}), "registry.certificate_file"),
        (json!({"url": "http://registry", "ca_file": "a.pem"}), "registry.ca_file"),
        (json!({"mode": "trust"}), "registry.mode"),
    ] {
        let mut registry = json!({"url": "https://registry"});
        registry.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        run(&["config"], &json!({"registry": registry})).expect(2).complains_of(&[part]);
    }
    let shown = json!({"url": "https://registry", "username": "a", "password": SECRET});
    let shown = run(&["config"], &json!({"registry": shown})).expect(0);
    assert!(shown.stdout.contains("password: (redacted)"), "{}", shown.stdout);
}

/// A subject of a test's own, and the topics that belong to it.
struct Subject {
    topics: TestTopics,
    name: String,
}

impl Subject {
    fn new() -> Self {
        let topics = TestTopics::create(1);
        let name = format!("{}-value", topics.name("events"));
        Self { topics, name }
    }

    /// With a schema that ours is not compatible with, at level FULL.
    fn incompatible() -> Self {
        let subject = Self::new();
        let mut other: Value = serde_json::from_str(Profile::Sekoia.schema_json()).unwrap();
        let fields = other["fields"].as_array_mut().unwrap();
        fields.push(json!({"name": "zone", "type": "string"}));
        let device = fields.iter_mut().find(|field| field["name"] == "device").unwrap();
        device["type"]["fields"].as_array_mut().unwrap().iter_mut().find(|field| field["name"] == "uid").unwrap()["type"] =
            "long".into();
        subject.put(&other.to_string());
        subject.demand("FULL");
        subject
    }

    /// A configuration of both, with more of the registry's keys.
    fn config(&self, registry: &Value) -> Value {
        let mut config = self.topics.config();
        config["registry"] = json!({"url": server("REGISTRY")});
        config["registry"].as_object_mut().unwrap().extend(registry.as_object().unwrap().clone());
        config["mapper"]["encoding"] = "avro".into();
        // All that there is to be told.
        config["log"] = json!({"format": "json", "filter": "trace"});
        config
    }

    fn run(&self, action: &str) -> Run {
        self.run_with(action, &json!({}))
    }

    fn run_with(&self, action: &str, registry: &Value) -> Run {
        run(&["schema", action], &self.config(registry))
    }

    fn run_json(&self, action: &str, code: i32) -> Value {
        run(&["schema", action, "--output", "json"], &self.config(&json!({}))).expect(code).json()
    }

    fn put(&self, schema: &str) {
        self.ask(reqwest::Method::POST, &format!("subjects/{}/versions", self.name), &json!({"schema": schema}));
    }

    fn demand(&self, level: &str) {
        self.ask(reqwest::Method::PUT, &format!("config/{}", self.name), &json!({"compatibility": level}));
    }

    fn ask(&self, method: reqwest::Method, path: &str, body: &Value) {
        let sent = async {
            let client = reqwest::Client::builder().no_proxy().build()?;
            let request = client.request(method, format!("{}/{path}", server("REGISTRY")));
            let request = request.header("content-type", "application/vnd.schemaregistry.v1+json");
            request.body(body.to_string()).send().await?.error_for_status()
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sent).unwrap();
    }
}

/// The program, ended. Whatever it did, it told no secret.
fn run(arguments: &[&str], config: &Value) -> Run {
    let run = Run::of(arguments, config);
    run.keeps(SECRET).keeps(ENCODED);
    run
}
