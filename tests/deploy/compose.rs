//! docker-compose.yml and the Dockerfile. There need not be a container engine where the tests run: what they say is held
//! against the specification, against each other, and against the program.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command as Process;

use clap::Parser as _;
use rollcall::cli::Cli;
use serde_json::Value;

use super::monitoring::promtool;
use super::{admin_port, fetched, path, run, said, text, yaml};
use crate::support::process::rollcall;

pub fn compose() -> Value {
    yaml(&text("docker-compose.yml"))
}

fn services(compose: &Value) -> &serde_json::Map<String, Value> {
    compose["services"].as_object().unwrap()
}

/// The services that are ours.
const OURS: [&str; 3] = ["topics", "collector", "mapper"];

/// The variables of a service, as Compose passes them on.
pub fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_object().into_iter().flatten();
    variables
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

/// `HOST:PORT` in a text, of which the host is a service.
fn addresses(compose: &Value, text: &str) -> Vec<(String, u64)> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || ":-".contains(char)));
    let mut found = Vec::new();
    for word in words {
        let mut parts = word.trim_start_matches(':').split(':');
        let (Some(host), Some(port)) = (parts.next(), parts.next()) else { continue };
        if let (true, Ok(port)) = (services(compose).contains_key(host), port.parse()) {
            found.push((host.to_owned(), port));
        }
    }
    found
}

/// The ports that a service listens on inside: those that are published, and what it says of itself.
fn listens(service: &Value) -> BTreeSet<u64> {
    let published = service["ports"].as_array().into_iter().flatten();
    let mut found: BTreeSet<_> =
        published.map(|port| port.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()).collect();
    if let Some(listeners) = service["environment"]["KAFKA_LISTENERS"].as_str() {
        found.extend(listeners.split(',').map(|listener| listener.rsplit(':').next().unwrap().parse::<u64>().unwrap()));
    }
    found
}

// === The file ===

#[test]
fn it_is_what_the_compose_specification_says() {
    let schema: Value = serde_json::from_str(&fetched("compose-spec.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> =
        validator.iter_errors(&compose()).map(|fault| format!("{fault} at {}", fault.instance_path)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let mut broken = compose();
    broken["services"]["mapper"]["depend_on"] = Value::Null;
    assert!(!validator.is_valid(&broken), "the schema refuses nothing");
}

#[test]
fn every_address_in_it_leads_to_a_service_that_listens_there() {
    let compose = compose();
    let text = text("docker-compose.yml");
    let without_images: String =
        text.lines().filter(|line| !line.contains("image: ")).map(|line| format!("{line}\n")).collect();
    let found = addresses(&compose, &without_images);
    let hosts: BTreeSet<_> = found.iter().map(|(host, _)| host.as_str()).collect();
    assert_eq!(hosts, BTreeSet::from(["collector", "ec2", "kafka", "mapper", "prometheus", "registry"]));
    for (host, port) in found {
        assert!(listens(&services(&compose)[&host]).contains(&port), "{host} does not listen on {port}");
    }
    let published: Vec<_> = services(&compose)
        .values()
        .flat_map(|service| service["ports"].as_array().cloned().unwrap_or_default())
        .collect();
    let of_host: BTreeSet<_> =
        published.iter().map(|port| port.as_str().unwrap().rsplit_once(':').unwrap().0).collect();
    assert_eq!(of_host.len(), published.len(), "a port of the host twice");
    assert!(of_host.iter().all(|port| port.starts_with("127.0.0.1:")), "only this machine: {of_host:?}");
}

/// A health check asks its own container, at a port where it listens.
#[test]
fn what_is_waited_for_has_a_health_check_or_ends() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = services(&compose).get(other).unwrap_or_else(|| panic!("{name} waits for {other}"));
            match how["condition"].as_str().unwrap() {
                "service_healthy" => assert!(other_service["healthcheck"]["test"].is_array(), "{other}"),
                "service_completed_successfully" => assert!(["fleet", "topics"].contains(&other.as_str()), "{other}"),
                how => panic!("{name}: {how}"),
            }
        }
        let Some(test) = service["healthcheck"]["test"].as_array() else { continue };
        let command: String = test.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(" ");
        let asked = command.split("127.0.0.1").nth(1).or_else(|| command.split("kafka:").nth(1)).unwrap();
        let port: String = asked.trim_start_matches([':', '/']).chars().take_while(char::is_ascii_digit).collect();
        assert!(listens(service).contains(&port.parse().unwrap()), "{name}: {command}");
    }
    for stage in ["collector", "mapper"] {
        let waits: Vec<_> = services(&compose)[stage]["depends_on"].as_object().unwrap().keys().collect();
        assert!(waits.iter().any(|name| *name == "topics"), "{stage}: {waits:?}");
    }
}

#[test]
fn images_are_of_the_versions_that_the_tests_run_on() {
    let compose = compose();
    let image = |service: &str| services(&compose)[service]["image"].as_str().unwrap().to_owned();
    let pom = text("tests/env/pom.xml");
    let (_, kafka) = pom.split_once("<artifactId>kafka_2.13</artifactId>").unwrap();
    let version = |text: &str| text.split_once("<version>").unwrap().1.split_once("</version>").unwrap().0.to_owned();
    assert_eq!(image("kafka"), format!("apache/kafka:{}", version(kafka)));
    let (_, registry) = pom.split_once("<artifactId>apicurio-registry").unwrap();
    assert_eq!(image("registry"), format!("apicurio/apicurio-registry-mem:{}", version(registry)));
    let requirements = text("tests/env/requirements.txt");
    let moto = requirements.lines().find_map(|line| line.strip_prefix("moto[")?.split_once("]==")).unwrap().1;
    assert_eq!(image("ec2"), format!("motoserver/moto:{moto}"));
    assert_eq!(image("fleet"), image("ec2"));
    for (name, service) in services(&compose) {
        let (_, tag) = service["image"].as_str().unwrap().rsplit_once(':').unwrap();
        assert!(tag == "dev" || tag.contains('.'), "{name}: {tag} is not a version");
    }
}

#[test]
fn files_that_are_mounted_are_there_and_where_they_are_looked_for() {
    let compose = compose();
    let configs = compose["configs"].as_object().unwrap();
    let mut used = BTreeSet::new();
    for service in services(&compose).values() {
        for mount in service["configs"].as_array().into_iter().flatten() {
            let source = mount["source"].as_str().unwrap();
            let config = configs.get(source).unwrap_or_else(|| panic!("no config {source}"));
            if let Some(file) = config["file"].as_str() {
                assert!(path(file).is_file(), "{file}");
            }
            used.insert(source);
        }
    }
    assert_eq!(used, configs.keys().map(String::as_str).collect());
    let target = |service: &str, source: &str| {
        let mounts = services(&compose)[service]["configs"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["source"] == source).unwrap();
        mount["target"].as_str().unwrap().to_owned()
    };
    let dashboards = yaml(configs["grafana-dashboards"]["content"].as_str().unwrap());
    let folder = dashboards["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(target("grafana", "dashboard").starts_with(folder));
    let home = environment(&services(&compose)["grafana"])["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].clone();
    assert_eq!(home, target("grafana", "dashboard"));
    let datasource = yaml(configs["grafana-datasource"]["content"].as_str().unwrap());
    assert_eq!(datasource["datasources"][0]["type"], "prometheus");
}

#[test]
fn promtool_takes_the_configuration_of_prometheus_with_the_rules_beside_it() {
    let compose = compose();
    let folder = tempfile::tempdir().unwrap();
    for mount in services(&compose)["prometheus"]["configs"].as_array().unwrap() {
        let config = &compose["configs"][mount["source"].as_str().unwrap()];
        let content = config["content"].as_str().map_or_else(|| text(config["file"].as_str().unwrap()), str::to_owned);
        let file = mount["target"].as_str().unwrap().strip_prefix("/etc/prometheus/").unwrap();
        std::fs::write(folder.path().join(file), content).unwrap();
    }
    let said = run(promtool().args(["check", "config", "prometheus.yml"]).current_dir(folder.path()));
    assert!(said.contains("1 rule files found"), "{said}");
}

// === Our services ===

#[test]
fn the_program_takes_command_and_variables_of_its_services() {
    let compose = compose();
    for name in OURS {
        let service = &services(&compose)[name];
        let words: Vec<_> = service["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        Cli::try_parse_from([&["rollcall"], &words[..]].concat()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = rollcall().arg("config").envs(environment(service)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        let config = yaml(std::str::from_utf8(&output.stdout).unwrap());
        assert_eq!(config["kafka"]["bootstrap_servers"], "kafka:19092");
        assert_eq!(config["kafka"]["replication_factor"], 1, "there is one broker");
        assert_eq!(config["admin"]["listen"], format!("0.0.0.0:{}", admin_port()));
        if name != "topics" {
            assert!(listens(service).contains(&admin_port()), "{name}");
            assert!(
                service["healthcheck"]["test"].to_string().contains(&format!("127.0.0.1/{} ", admin_port())),
                "{name}"
            );
            assert_eq!(config["instance_id"], name, "a container's host name is another after each start");
        }
    }
}

// === The image ===

/// The last stage of the Dockerfile, and the first.
fn stages() -> (String, String) {
    let dockerfile = text("Dockerfile");
    let (build, last) = dockerfile.rsplit_once("\nFROM ").unwrap();
    (build.to_owned(), last.to_owned())
}

#[test]
fn the_image_runs_as_nobody_and_opens_the_admin_port() {
    let (_, last) = stages();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 1000), "{user}");
    assert!(last.contains(&format!("\nEXPOSE {}\n", admin_port())));
    assert!(last.contains("\nENTRYPOINT [\"rollcall\"]\n"));
    assert!(last.lines().last().unwrap().starts_with("CMD "));
}

#[test]
fn the_image_is_built_by_a_rust_that_is_new_enough_with_features_that_there_are() {
    let (build, _) = stages();
    let cargo = text("Cargo.toml");
    let number = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    let least = cargo.split_once("rust-version = \"").unwrap().1.split('"').next().unwrap();
    let image = build.split_once("FROM rust:").unwrap().1.split('-').next().unwrap();
    assert!(number(image) >= number(&least[..least.rfind('.').unwrap()]), "{image} < {least}");
    let command = build.lines().find(|line| line.trim_start().starts_with("cargo build")).unwrap();
    for word in ["--locked", "--release", "--bin rollcall", "--no-default-features", "--features aws"] {
        assert!(command.contains(word), "{command}");
    }
}

/// What the program is linked with comes with the packages that the image installs, or with Debian's slim image.
#[test]
fn the_image_has_the_libraries_that_the_program_is_linked_with() {
    let of_package = [("libssl.so", "libssl3"), ("libcrypto.so", "libssl3"), ("libz.so", "zlib1g")];
    let in_slim =
        ["linux-vdso.so", "libgcc_s.so", "libm.so", "libc.so", "ld-linux", "libdl.so", "libpthread.so", "librt.so"];
    let (_, last) = stages();
    let linked = run(Process::new("ldd").arg(env!("CARGO_BIN_EXE_rollcall")));
    for line in linked.lines() {
        let library = line.trim().split(' ').next().unwrap().rsplit('/').next().unwrap();
        let package = of_package.iter().find(|(prefix, _)| library.starts_with(prefix));
        match package {
            Some((_, package)) => assert!(last.contains(package), "{library}: the image lacks {package}"),
            None => assert!(
                in_slim.iter().any(|prefix| library.starts_with(prefix)),
                "{library} is in no package of the image"
            ),
        }
    }
}

/// A build needs no more than .dockerignore lets in.
#[test]
fn the_build_context_is_enough_to_build() {
    let folder = tempfile::tempdir().unwrap();
    let ignore = text(".dockerignore");
    let mut lines = ignore.lines();
    assert_eq!(lines.next(), Some("*"), "nothing but what is named");
    for wanted in lines.map(|line| line.strip_prefix('!').unwrap()) {
        run(Process::new("cp").arg("-r").arg(path(wanted)).arg(folder.path()));
    }
    let mut cargo = Process::new(env!("CARGO"));
    run(cargo
        .args(["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(folder.path()));
    let sources = walk(&folder.path().join("src"));
    let is_code = |entry: &&std::path::PathBuf| entry.extension().is_some_and(|extension| extension == "rs");
    for entry in sources.iter().filter(is_code).filter(|entry| !entry.ends_with("tests.rs")) {
        let source = std::fs::read_to_string(entry).unwrap();
        // What comes after is for tests alone.
        let source = source.split("#[cfg(test)]").next().unwrap();
        let [texts, bytes] = ["include_str!(\"", "include_bytes!(\""];
        for included in source.split(texts).skip(1).chain(source.split(bytes).skip(1)) {
            let target = entry.parent().unwrap().join(included.split('"').next().unwrap());
            assert!(target.exists(), "{} includes {}", entry.display(), target.display());
        }
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| if entry.is_dir() { walk(&entry) } else { vec![entry] }).collect()
}
