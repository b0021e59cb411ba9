//! What `docker compose up` starts, on the servers of the tests: the same commands and variables, other addresses. Events
//! flow, Prometheus scrapes, and nothing on the dashboard stays empty.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::compose::{compose, environment};
use super::monitoring::{RULES, queries};
use super::{run, text, yaml};
use crate::support::kafka::{TestTopics, flush, send};
use crate::support::process::{Stage, rollcall};
use crate::support::servers::{Moto, Prometheus};
use crate::support::stages::told_with_registry;
use crate::support::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(90);

/// The services of the file, with what leads to them where the tests run.
struct Composed {
    compose: Value,
    topics: TestTopics,
    ec2: Moto,
}

impl Composed {
    fn new() -> Self {
        Self { compose: compose(), topics: TestTopics::named(2), ec2: Moto::start(&[]) }
    }

    fn service(&self, name: &str) -> &Value {
        &self.compose["services"][name]
    }

    fn moved(&self, text: &str) -> String {
        let places = [
            ("http://registry:8080/apis/ccompat/v7", server("REGISTRY")),
            ("http://ec2:5000", self.ec2.url()),
            ("kafka:19092", server("KAFKA")),
            ("0.0.0.0:9464", "127.0.0.1:0".to_owned()),
        ];
        places.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn arguments(&self, service: &str) -> Vec<String> {
        let words = self.service(service)["command"].as_array().unwrap().iter();
        words.map(|word| self.moved(word.as_str().unwrap())).collect()
    }

    /// The service's variables, and topics and groups that no other test has.
    fn variables(&self, service: &str) -> BTreeMap<String, String> {
        let mut found = environment(self.service(service));
        for value in found.values_mut() {
            *value = self.moved(value);
        }
        for (key, topic) in [
            ("RAW", "raw"),
            ("SWEEPS", "sweeps"),
            ("EVENTS", "events"),
            ("STATE", "state"),
            ("DEAD_LETTERS", "dlq"),
            ("HEALTH", "health"),
        ] {
            found.insert(format!("ROLLCALL_KAFKA__TOPICS__{key}"), self.topics.name(topic));
        }
        for key in ["PARTITIONS", "SWEEP_PARTITIONS"] {
            found.insert(format!("ROLLCALL_KAFKA__{key}"), self.topics.partitions.to_string());
        }
        for stage in ["collector", "mapper"] {
            found.insert(format!("ROLLCALL_{}__GROUP_ID", stage.to_uppercase()), self.topics.name(stage));
        }
        // A test does not want to wait for what the clients tell of themselves.
        found.insert("ROLLCALL_KAFKA__PROPERTIES__STATISTICS_INTERVAL_MS".to_owned(), "500".to_owned());
        found
    }

    fn start(&self, service: &str, more: &[(&str, &str)]) -> Stage {
        let (arguments, variables) = (self.arguments(service), self.variables(service));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Stage::start_with_env(&arguments, &json!({}), &[&variables, more].concat())
    }

    /// A Prometheus as the file has it, but quicker.
    fn prometheus(&self, stages: &mut [(&str, &mut Stage)], folder: &std::path::Path) -> Prometheus {
        let mut config = self.compose["configs"]["prometheus"]["content"].as_str().unwrap().to_owned();
        for (service, stage) in stages {
            let opened = stage.wait_for("admin port open", Duration::from_secs(30));
            let target = format!("{service}:9464");
            assert!(config.contains(&target), "{target} is not scraped");
            config = config.replace(&target, opened["address"].as_str().unwrap());
        }
        let mut config = yaml(&config);
        config["global"] = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
        std::fs::write(folder.join("prometheus.yml"), config.to_string()).unwrap();
        std::fs::write(folder.join("rules.yaml"), text(RULES)).unwrap();
        Prometheus::start(folder)
    }
}

/// Whether a query gives a number at all.
fn gives(prometheus: &Prometheus, query: &str) -> bool {
    let data = prometheus.ask("query", &[("query", query)]);
    let values = data["result"].as_array().unwrap().iter().filter_map(|series| series["value"][1].as_str());
    values.into_iter().any(|value| value.parse::<f64>().is_ok_and(f64::is_finite))
}

#[test]
fn what_compose_starts_ends_in_events_and_fills_the_dashboard() {
    let composed = Composed::new();
    let fleet = environment(composed.service("fleet"));
    run(Command::new(server("PYTHON")).arg("-c").args(composed.arguments("fleet")).envs(fleet));
    run(rollcall().args(composed.arguments("topics")).envs(composed.variables("topics")));

    // Beside the file's source one that lists what is no instance.
    let mut listed = NamedTempFile::new().unwrap();
    listed.write_all(br#"{"Reservations": [{"Instances": [{"ImageId": "ami-1"}]}]}"#).unwrap();
    let mut sources = yaml(&composed.variables("collector")["ROLLCALL_COLLECTOR__SOURCES"]);
    let file = json!({"name": "file", "interval": "10s", "file": {"path": listed.path(), "account": "111122223333"}});
    sources.as_array_mut().unwrap().push(file);
    let mut collector = composed.start("collector", &[("ROLLCALL_COLLECTOR__SOURCES", &sources.to_string())]);
    let mut mapper = composed.start("mapper", &[]);
    let folder = tempfile::tempdir().unwrap();
    let prometheus = composed.prometheus(&mut [("collector", &mut collector), ("mapper", &mut mapper)], folder.path());
    wait_for("a mapper that is ready", LIMIT, || mapper.get("/readyz").starts_with("HTTP/1.1 200").then_some(()));

    let named = wait_for("the events of the fleet", LIMIT, || {
        let told = told_with_registry(&composed.topics);
        let names: BTreeSet<_> =
            told.iter().map(|event| event.value.to_string()).filter(|text| text.contains("web-")).collect();
        (names.len() >= 5).then_some(names)
    });
    assert_eq!(named.len(), 5);

    // Without what would make a number of nothing; a restore is over before anybody looks.
    let mut waiting = queries("30s");
    for (_, query) in &mut waiting {
        if !query.contains("restore_remaining") {
            *query = query.replace(" or vector(0)", "");
        }
    }
    assert!(waiting.len() > 40, "{}", waiting.len());
    let (raw, producer) = (composed.topics.name("raw"), composed.topics.producer());
    let mut round = 0;
    let started = std::time::Instant::now();
    while !waiting.is_empty() {
        assert!(started.elapsed() < LIMIT, "these stay empty: {waiting:#?}");
        // Something that happens meanwhile: a change, with a member of the wrong type, and now and then another's key.
        let state = if round % 2 == 0 { "running" } else { "stopped" };
        let instance = json!({"InstanceId": "i-1", "State": {"Name": state}, "NetworkInterfaces": [{"MacAddress": 5}]})
            .to_string();
        send(&producer, &raw, Some(b"i-1"), Some(instance.as_bytes()), &[], None);
        if round % 10 == 0 {
            send(&producer, &raw, Some(b"i-2"), Some(instance.as_bytes()), &[], None);
        }
        flush(&producer);
        round += 1;
        waiting.retain(|(_, query)| !gives(&prometheus, query));
    }

    let firing = wait_for("two alerts", LIMIT, || {
        let groups = prometheus.ask("rules", &[]);
        let rules: Vec<_> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect();
        if rules.iter().any(|rule| rule["health"] == "unknown") {
            return None;
        }
        assert!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
        let firing =
            rules.iter().filter(|rule| rule["state"] == "firing").map(|rule| rule["name"].as_str().unwrap().to_owned());
        let firing: BTreeSet<_> = firing.collect();
        (firing.len() >= 2).then_some(firing)
    });
    assert_eq!(firing, ["RollcallDeadLetters", "RollcallInstancesWithoutId"].map(str::to_owned).into());
    assert_eq!(collector.stop(), Some(0));
    assert_eq!(mapper.stop(), Some(0));
}
