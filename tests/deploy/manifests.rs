//! What the chart renders is what Kubernetes and its operators take, in every version that they are likely to have.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{CASES, fetched, helm, kind, manifests, name, path, run, template, values_file, yaml};
use crate::support::python;

/// From the oldest that the chart admits (Chart.yaml) to the newest that there are schemas of.
const KUBERNETES: [&str; 5] = ["1.27", "1.29", "1.31", "1.34", "1.37"];
/// Kinds that operators define, with the file that does.
const DEFINED_BY_OPERATORS: [(&str, &str); 4] = [
    ("ServiceMonitor", "monitoring.coreos.com_servicemonitors.yaml"),
    ("PodMonitor", "monitoring.coreos.com_podmonitors.yaml"),
    ("PrometheusRule", "monitoring.coreos.com_prometheusrules.yaml"),
    ("ScaledObject", "keda.sh_scaledobjects.yaml"),
];

#[test]
fn helm_has_no_complaint_about_the_chart() {
    for case in CASES {
        let mut lint = helm(&["lint", "--strict", "--quiet"]);
        let output = run(lint.arg(path("helm/rollcall")).arg("--values").arg(values_file(case)));
        assert_eq!(output.trim(), "", "{case}");
    }
}

#[test]
fn every_values_file_of_the_chart_is_a_case() {
    let files = std::fs::read_dir(path("helm/rollcall/ci")).unwrap();
    let mut found: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    found.sort();
    assert_eq!(found, CASES.map(values_file));
}

#[test]
fn kubernetes_takes_every_manifest_in_every_version() {
    let all: Vec<_> =
        CASES.iter().flat_map(|case| manifests(case)).filter(|manifest| definition(manifest).is_none()).collect();
    assert!(all.len() > 60, "{}", all.len());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!(all).to_string().as_bytes()).unwrap();
    let arguments = [&[file.path().to_str().unwrap()], &KUBERNETES[..]].concat();
    let validated: usize = python::client("validate_manifests.py", &arguments).trim().parse().unwrap();
    assert_eq!(validated, all.len() * KUBERNETES.len());
}

#[test]
fn a_manifest_that_kubernetes_would_not_take_is_found() {
    let mut broken = manifests("minimal").into_iter().find(|manifest| kind(manifest) == "StatefulSet").unwrap();
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = json!({});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!([broken]).to_string().as_bytes()).unwrap();
    let complaint = python::complaint("validate_manifests.py", &[file.path().to_str().unwrap(), "1.37"]);
    assert!(complaint.contains("readynessProbe"), "{complaint}");
}

#[test]
fn operators_take_the_manifests_of_the_kinds_that_they_define() {
    let mut seen = Vec::new();
    for case in CASES {
        for manifest in manifests(case) {
            let Some(schema) = definition(&manifest) else { continue };
            let validator = jsonschema::validator_for(&schema).unwrap();
            let faults: Vec<_> =
                validator.iter_errors(&manifest).map(|fault| format!("{fault} at {}", fault.instance_path)).collect();
            assert!(faults.is_empty(), "{case}, {}: {faults:#?}", name(&manifest));
            seen.push(kind(&manifest).to_owned());
        }
    }
    for (of_operator, _) in DEFINED_BY_OPERATORS {
        assert!(seen.iter().any(|kind| kind == of_operator), "no case has a {of_operator}");
    }
}

#[test]
fn a_field_that_an_operator_does_not_know_is_found() {
    let rule = manifests("everything").into_iter().find(|manifest| kind(manifest) == "PrometheusRule").unwrap();
    let validator = jsonschema::validator_for(&definition(&rule).unwrap()).unwrap();
    for (pointer, value) in
        [("/spec/groups/0/rules/0/expresion", json!("up")), ("/spec/groups/0/rules/0/expr", json!([]))]
    {
        let (object, member) = pointer.rsplit_once('/').unwrap();
        let mut broken = rule.clone();
        broken.pointer_mut(object).unwrap()[member] = value;
        assert!(!validator.is_valid(&broken), "{pointer}");
    }
}

/// The schema of a manifest that an operator defines; none where Kubernetes does.
fn definition(manifest: &Value) -> Option<Value> {
    let (_, file) = DEFINED_BY_OPERATORS.iter().find(|(of_operator, _)| *of_operator == kind(manifest))?;
    let definition = yaml(&fetched(file));
    let group = definition["spec"]["group"].as_str().unwrap();
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let version = versions
        .iter()
        .find(|version| manifest["apiVersion"] == format!("{group}/{}", version["name"].as_str().unwrap()));
    let mut schema =
        version.unwrap_or_else(|| panic!("{file} has no {}", manifest["apiVersion"]))["schema"]["openAPIV3Schema"]
            .clone();
    refuse_unknown(&mut schema);
    // Of the API server, not of the definition.
    schema["properties"]["metadata"] = json!({"type": "object"});
    Some(schema)
}

/// The API server drops members that it does not know: here they are faults.
fn refuse_unknown(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let keeps_unknown = members.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if members.get("properties").is_some_and(Value::is_object) && !keeps_unknown {
                members.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            members.values_mut().for_each(refuse_unknown);
        }
        Value::Array(elements) => elements.iter_mut().for_each(refuse_unknown),
        _ => {}
    }
}

// === As approved ===

/// The least, the most, and half of it.
const APPROVED: [&str; 3] = ["everything", "mapper-only", "minimal"];

/// A change of these is to be looked at. ROLLCALL_TEST_APPROVE=1 takes what is rendered for right.
#[test]
fn what_is_rendered_is_what_was_approved() {
    for case in APPROVED {
        let file = path(&format!("tests/deploy/approved/{case}.yaml"));
        // The alerts and the dashboard are files of their own.
        let off = "monitoring.rules.enabled=false,monitoring.dashboard.enabled=false";
        let rendered = run(template().arg("--values").arg(values_file(case)).args(["--set", off]));
        if std::env::var_os("ROLLCALL_TEST_APPROVE").is_some() {
            std::fs::write(&file, &rendered).unwrap();
        }
        let approved = std::fs::read_to_string(&file).unwrap_or_default();
        let first = rendered.lines().zip(approved.lines()).position(|(is, was)| is != was);
        let line = first.unwrap_or(rendered.lines().count().min(approved.lines().count()));
        let at = |text: &str| text.lines().skip(line.saturating_sub(3)).take(7).collect::<Vec<_>>().join("\n");
        assert!(
            rendered == approved,
            "{} differs from line {}; is:\n{}\nwas:\n{}\nROLLCALL_TEST_APPROVE=1 takes it over",
            file.display(),
            line + 1,
            at(&rendered),
            at(&approved),
        );
    }
}
