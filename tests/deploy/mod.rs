//! How it is installed and watched: the Helm chart, the image, docker-compose.yml, alerts and dashboard. Held against the
//! schemas of those who read them, by Helm and Prometheus themselves, and against the program's own configuration.

mod chart;
mod compose;
mod configuration;
#[cfg(feature = "aws")]
mod live;
mod manifests;
mod monitoring;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::server;

/// A file of the checkout.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A schema that `./dev` fetched from the Go module proxy.
fn fetched(name: &str) -> String {
    let path = Path::new(&server("FROM_GO")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a tool; its standard output.
///
/// # Panics
/// When it fails, with all that it says.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}:\n{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// The port that metrics and probes are at, unless configured otherwise.
fn admin_port() -> u64 {
    let listen = rollcall::config::Config::default().admin.listen;
    listen.rsplit(':').next().unwrap().parse().unwrap()
}

// === Helm ===

/// The values that the chart is rendered with, by name: each a way to install it.
const CASES: [&str; 6] = ["everything", "mapper-only", "minimal", "msk-iam", "sasl-scram", "three-replicas"];

fn values_file(case: &str) -> PathBuf {
    path(&format!("helm/rollcall/ci/{case}-values.yaml"))
}

fn helm(arguments: &[&str]) -> Command {
    // Without a cluster, and without what a developer's Helm has configured.
    let mut command = Command::new(Path::new(&server("FROM_GO")).join("helm"));
    let home = std::env::temp_dir().join("rollcall-helm");
    command.args(arguments).env("HOME", &home).env("KUBECONFIG", home.join("none"));
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
        command.env(name, &home);
    }
    command
}

/// `helm template` of the chart, to be given values.
fn template() -> Command {
    let mut command = helm(&["template", "fleet"]);
    command.arg(path("helm/rollcall")).args(["--namespace", "security"]);
    command
}

/// Each case is rendered once.
static RENDERED: LazyLock<BTreeMap<&str, Vec<Value>>> =
    LazyLock::new(|| CASES.map(|case| (case, parsed(&run(template().arg("--values").arg(values_file(case)))))).into());

fn parsed(rendered: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The manifests of a case.
fn manifests(case: &str) -> Vec<Value> {
    RENDERED[case].clone()
}

fn kind(manifest: &Value) -> &str {
    manifest["kind"].as_str().unwrap()
}

fn name(manifest: &Value) -> &str {
    manifest["metadata"]["name"].as_str().unwrap()
}

fn find<'m>(manifests: &'m [Value], of_kind: &str, named: &str) -> Option<&'m Value> {
    manifests.iter().find(|manifest| kind(manifest) == of_kind && name(manifest) == named)
}

/// The pod of a manifest, if it makes one: its metadata and spec.
fn pod(manifest: &Value) -> Option<&Value> {
    match kind(manifest) {
        "StatefulSet" | "Job" => Some(&manifest["spec"]["template"]),
        "Pod" => Some(manifest),
        _ => None,
    }
}
