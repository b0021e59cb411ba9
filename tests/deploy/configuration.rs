//! What the chart writes into its ConfigMap and into the pods is what the program takes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use clap::Parser as _;
use rollcall::cli::{Cli, Command};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::chart::minimal_with;
use super::{CASES, find, kind, manifests, name, pod, said, text, values_file, yaml};
use crate::support::process::rollcall;

/// What the Secrets hold that the chart does not make.
const EXISTING: [(&str, &str, &str); 2] = [
    ("rollcall-kafka", "ROLLCALL_KAFKA__PROPERTIES__SASL_PASSWORD", "from the existing one"),
    ("session", "token", "of-a-session"),
];

/// The variables that a container gets.
fn environment(manifests: &[Value], pod_name: &str, container: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for from in container["envFrom"].as_array().into_iter().flatten() {
        let secret = from["secretRef"]["name"].as_str().unwrap();
        match find(manifests, "Secret", secret) {
            Some(made) => {
                let values = made["stringData"].as_object().unwrap();
                found.extend(values.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())));
            }
            None => {
                let of_it = EXISTING.iter().filter(|(existing, _, _)| *existing == secret);
                found.extend(of_it.map(|(_, key, value)| ((*key).to_owned(), (*value).to_owned())));
            }
        }
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let from = &variable["valueFrom"];
        let value = if from["fieldRef"]["fieldPath"] == "metadata.name" {
            pod_name
        } else if let Some(reference) = from.get("secretKeyRef") {
            let wanted =
                |(secret, key, _): &&(&str, &str, &str)| reference["name"] == *secret && reference["key"] == *key;
            EXISTING.iter().find(wanted).unwrap().2
        } else {
            variable["value"].as_str().unwrap()
        };
        found.insert(variable["name"].as_str().unwrap().to_owned(), value.to_owned());
    }
    found
}

/// What `rollcall config` makes of the file and the variables of each container of a case.
fn effective(case: &str, manifests: &[Value]) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for manifest in manifests {
        let Some(spec) = pod(manifest).map(|pod| &pod["spec"]) else { continue };
        let of = format!("{} {}", kind(manifest), name(manifest));
        let container = &spec["containers"][0];
        let arguments: Vec<_> =
            container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let parsed = Cli::try_parse_from([&["rollcall"], &arguments[..]].concat())
            .unwrap_or_else(|error| panic!("{of}: {error}"));
        let is_right = match kind(manifest) {
            "Job" => matches!(&parsed.command, Command::Topics(topics) if topics.create),
            "Pod" => matches!(parsed.command, Command::Check(_)),
            _ if name(manifest).ends_with("-collector") => matches!(parsed.command, Command::Collect(_)),
            _ => matches!(parsed.command, Command::Map(_)),
        };
        assert!(is_right, "{of}: {arguments:?}");
        let mounted =
            container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "config").unwrap();
        let file = parsed.config.unwrap();
        assert_eq!(file.parent().unwrap().to_str(), mounted["mountPath"].as_str());
        let map = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "config").unwrap();
        let map = find(manifests, "ConfigMap", map["configMap"]["name"].as_str().unwrap()).unwrap();
        let config = map["data"][file.file_name().unwrap().to_str().unwrap()].as_str().unwrap();
        let mut written = NamedTempFile::new().unwrap();
        written.write_all(config.as_bytes()).unwrap();
        let mut command = rollcall();
        command.arg("config").arg("--config").arg(written.path()).envs(environment(manifests, "pod-0", container));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{case}, {of}:\n{}", said(&output));
        found.push((of, yaml(std::str::from_utf8(&output.stdout).unwrap())));
    }
    found
}

/// Visits every text, number and flag with its path.
fn leaves(path: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| leaves(&format!("{path}/{name}"), value, visit))
        }
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(index, value)| leaves(&format!("{path}/{index}"), value, visit));
        }
        leaf => visit(path, leaf),
    }
}

fn is_same(wanted: &Value, is: &Value) -> bool {
    let duration = |value: &Value| humantime::parse_duration(value.as_str()?).ok();
    // Shown redacted, whatever they are.
    let is_secret = is.as_str().is_some_and(|text| text.contains("redacted"));
    wanted == is || is_secret || (duration(wanted).is_some() && duration(wanted) == duration(is))
}

#[test]
fn every_container_starts_with_the_configuration_that_the_values_say() {
    for case in CASES {
        let values = yaml(&std::fs::read_to_string(values_file(case)).unwrap());
        let effective = effective(case, &manifests(case));
        assert!(effective.len() >= 2, "{case}: {}", effective.len());
        for (of, config) in effective {
            leaves("", &values["config"], &mut |path, wanted| {
                let is = config.pointer(path).unwrap_or_else(|| panic!("{case}, {of}: no {path} in {config:#}"));
                assert!(is_same(wanted, is), "{case}, {of}: {path} is {is} and not {wanted}");
            });
            assert_eq!(config["instance_id"], "pod-0");
            let is_stage = of.starts_with("StatefulSet");
            assert_eq!(config["admin"]["listen"], if is_stage { "0.0.0.0:9464" } else { "127.0.0.1:9464" });
        }
    }
}

#[test]
fn secrets_reach_the_configuration() {
    for (case, count) in [("sasl-scram", 4), ("everything", 4)] {
        let effective = effective(case, &manifests(case));
        assert_eq!(effective.len(), count, "two stages, topics, check");
        for (of, config) in effective {
            let password = &config["kafka"]["properties"]["sasl.password"];
            assert!(password.is_string(), "{case}, {of}: {config:#}");
            assert_eq!(config["admin"]["token"].is_string(), case == "everything", "{case}, {of}: {config:#}");
        }
    }
}

#[test]
fn a_secret_that_is_mounted_is_named_by_its_file_in_place_of_its_value() {
    let mut mounted = NamedTempFile::new().unwrap();
    mounted.write_all(b"0123456789abcdef\n").unwrap();
    let named = json!({"file": mounted.path()});
    let values = json!({
        "config": {
            "kafka": {"properties": {"sasl.password": named}},
            "registry": {"url": "https://registry", "username": "rollcall", "password": named},
            "collector": {"hash_key": named},
        },
        "env": [{"name": "ROLLCALL_ADMIN__TOKEN__FILE", "value": mounted.path()}],
    });
    for (of, config) in effective("mounted", &minimal_with(&values)) {
        for key in ["/kafka/properties/sasl.password", "/registry/password", "/collector/hash_key", "/admin/token"] {
            assert_eq!(config.pointer(key), Some(&json!("(redacted)")), "{of}: {key}");
        }
    }
}

/// A key that is added to the configuration is added to helm/rollcall/values.schema.json too: it would be refused. The
/// program says which keys there are where it meets a stranger.
#[test]
fn the_schema_of_the_values_knows_every_key_of_the_configuration() {
    let schema: Value = serde_json::from_str(&text("helm/rollcall/values.schema.json")).unwrap();
    let mut known = schema["definitions"]["config"].clone();
    // The chart's own.
    for key in ["instance_id", "admin"] {
        known["properties"][key] = json!({});
    }
    assert!(compare("", &known) > 60);
}

/// Compares the keys of a section, and of those in it; how many there are.
fn compare(section: &str, schema: &Value) -> usize {
    let Some(known) = schema["properties"].as_object() else { return 0 };
    assert_eq!(known.keys().cloned().collect::<BTreeSet<_>>(), expected(section), "{section}");
    known.len() + known.iter().map(|(key, schema)| compare(&format!("{section}{key}."), schema)).sum::<usize>()
}

/// The keys of a section, which is empty or ends with a dot, as the program says them.
fn expected(section: &str) -> BTreeSet<String> {
    let output = rollcall().args(["config", "--set", &format!("{section}stranger=1")]).output().unwrap();
    let said = said(&output);
    let (_, keys) = said.split_once("expected ").unwrap_or_else(|| panic!("{section}: {said}"));
    keys.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_readme_has_a_row_for_every_key_of_the_configuration_and_no_other() {
    let readme = text("README.md");
    let (_, table) = readme.split_once("| key | default |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let mut section = String::new();
        for name in row.split(" | ").next().unwrap().split('`').skip(1).step_by(2) {
            // `.sweeps` is in the section of the key before it.
            let key = name.strip_prefix('.').map_or_else(|| name.to_owned(), |last| format!("{section}{last}"));
            let mut start = 0;
            for end in key.match_indices('.').map(|(dot, _)| dot).chain([key.len()]) {
                key[..start].clone_into(&mut section);
                documented.entry(section.clone()).or_default().insert(key[start..end].to_owned());
                start = end + 1;
            }
        }
    }
    assert!(documented.len() >= 10, "{documented:?}");
    for (section, keys) in documented {
        assert_eq!(keys, expected(&section), "{section}");
    }
}

/// The keys of a source are those of the README's table.
#[test]
fn the_schema_of_the_values_knows_every_key_of_a_source() {
    let readme = text("README.md");
    let (_, table) = readme.split_once("| key of a source |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let documented: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '.']).next())
        .map(str::to_owned)
        .collect();
    let schema: Value = serde_json::from_str(&text("helm/rollcall/values.schema.json")).unwrap();
    let known: BTreeSet<_> =
        schema["definitions"]["source"]["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(known, documented);
}
