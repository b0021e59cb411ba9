//! Alerts and dashboard: Prometheus takes them, alerts fire when they should, and what they name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{find, kind, manifests, run, text, yaml};
use crate::support::server;

pub const RULES: &str = "helm/rollcall/monitoring/rules.yaml";
const DASHBOARD: &str = "helm/rollcall/monitoring/dashboard.json";

pub fn promtool() -> Command {
    Command::new(Path::new(&server("PROMETHEUS")).join("promtool"))
}

/// The alerts, as in a PrometheusRule or a rules file.
fn alerts(groups: &Value) -> Vec<Value> {
    let groups = groups.as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The dashboard's queries with the titles of their panels, as Grafana would send them: all jobs, and `window` for what
/// hangs on the zoom.
pub fn queries(window: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", window).replace("$job", ".*");
            assert!(!query.contains('$'), "{query}");
            found.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    found
}

#[test]
fn promtool_takes_the_rules_and_each_alert_fires_when_it_should_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), text(RULES)).unwrap();
    std::fs::write(folder.path().join("test.yaml"), text("tests/deploy/rules-test.yaml")).unwrap();
    run(promtool().args(["check", "rules", "--lint-fatal", "rules.yaml"]).current_dir(folder.path()));
    run(promtool().args(["test", "rules", "test.yaml"]).current_dir(folder.path()));
}

#[test]
fn every_alert_is_tested() {
    let tests = text("tests/deploy/rules-test.yaml");
    for alert in alerts(&yaml(&text(RULES))["groups"]) {
        let name = alert["alert"].as_str().unwrap();
        let stated = tests.lines().filter(|line| line.contains(&format!("alertname: {name}}}"))).count();
        assert!(stated >= 1, "{name}: nothing says that it is quiet when all is well");
        let part = name.trim_start_matches("RollcallCollector").trim_start_matches("RollcallMapper");
        assert!(tests.matches(part).count() > stated, "{name}: nothing makes it fire");
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbooks_that_its_link_leads_to() {
    let page = text("docs/runbooks.md");
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-");
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let names: Vec<String> = alerts(&yaml(&text(RULES))["groups"])
        .iter()
        .map(|alert| {
            let name = alert["alert"].as_str().unwrap();
            assert_eq!(alert["annotations"]["runbook_url"], format!("docs/runbooks.md#{}", anchor(name)), "{name}");
            assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
            for annotation in ["summary", "description"] {
                assert!(alert["annotations"][annotation].is_string(), "{name} has no {annotation}");
            }
            name.to_owned()
        })
        .collect();
    assert_eq!(sections, names, "in the order of the rules");
    // And from the dashboard.
    for link in text(DASHBOARD).split("docs/runbooks.md#").skip(1) {
        let target: String = link.chars().take_while(|char| char.is_ascii_alphanumeric()).collect();
        assert!(sections.iter().any(|section| anchor(section) == target), "{target}");
    }
}

#[test]
fn the_chart_installs_the_alerts_of_the_stages_that_are_on() {
    let rules = |case: &str| {
        let manifests = manifests(case);
        let rule = manifests.iter().find(|manifest| kind(manifest) == "PrometheusRule").unwrap().clone();
        alerts(&rule["spec"]["groups"])
    };
    let mut all = alerts(&yaml(&text(RULES))["groups"]);
    for alert in &mut all {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        alert["annotations"]["runbook_url"] =
            url.replace("docs/runbooks.md", "https://runbooks.example.com/rollcall").into();
    }
    assert_eq!(rules("everything"), all);
    let of_mapper = rules("mapper-only");
    assert!(!of_mapper.is_empty() && of_mapper.len() < all.len());
    assert!(of_mapper.iter().all(|alert| !alert["expr"].as_str().unwrap().contains("rollcall_collector")));
}

#[test]
fn the_chart_installs_the_dashboard() {
    let manifests = manifests("everything");
    let map = find(&manifests, "ConfigMap", "fleet-rollcall-dashboard").unwrap();
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let is: Value = serde_json::from_str(map["data"]["rollcall.json"].as_str().unwrap()).unwrap();
    assert_eq!(is, serde_json::from_str::<Value>(&text(DASHBOARD)).unwrap());
}

// === What alerts and dashboard name ===

/// Metrics with their labels, as the README's table has them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let readme = text("README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `rollcall_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        (words(cells[0]).remove(0), words(cells[1]).into_iter().collect())
    })
    .collect()
}

/// The metrics of a query with the labels that matchers pick them by.
fn named(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_of_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut found = Vec::new();
    for (start, _) in query.match_indices("rollcall_") {
        let (before, rest) = query.split_at(start);
        if before.ends_with(is_of_name) {
            continue;
        }
        let name: String = rest.chars().take_while(|char| is_of_name(*char)).collect();
        let matchers = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        let labels = matchers.split(", ").filter(|matcher| !matcher.is_empty());
        let labels = labels.map(|matcher| matcher.chars().take_while(|char| is_of_name(*char)).collect()).collect();
        found.push((name, labels));
    }
    found
}

/// The labels of all `by (…)` and `on (…)`.
fn grouped(query: &str) -> BTreeSet<String> {
    let groups = ["by (", "on ("].iter().flat_map(|word| query.split(*word).skip(1));
    groups.flat_map(|rest| rest.split(')').next().unwrap().split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_metric_and_label_in_alerts_and_dashboard_is_documented() {
    let documented = documented();
    let alerts = alerts(&yaml(&text(RULES))["groups"]);
    let of_alerts = alerts
        .iter()
        .map(|alert| (alert["alert"].as_str().unwrap().to_owned(), alert["expr"].as_str().unwrap().to_owned()));
    let all: Vec<_> = of_alerts.chain(queries("5m")).collect();
    assert!(all.len() > 50, "{}", all.len());
    for (of, query) in &all {
        let names = named(query);
        assert!(!names.is_empty(), "{of}: {query}");
        // What Prometheus adds, and what a histogram has.
        let mut labels: BTreeSet<_> = ["job", "instance", "le"].map(str::to_owned).into();
        for (name, matched) in &names {
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let metric = histogram.filter(|metric| documented.contains_key(*metric)).unwrap_or(name);
            let known = documented.get(metric).unwrap_or_else(|| panic!("{of}: {metric} is not in the README's table"));
            for label in matched {
                assert!(label == "job" || known.contains(label), "{of}: {metric} has no label {label}");
            }
            labels.extend(known.iter().cloned());
        }
        assert!(grouped(query).is_subset(&labels), "{of}: {:?} of {query}", grouped(query));
    }
}

#[test]
fn what_the_readme_says_to_alert_on_is_in_an_alert() {
    let readme = text("README.md");
    let wanted = readme.lines().filter(|line| line.contains("**alert")).map(|row| row.split('`').nth(1).unwrap());
    let wanted: BTreeSet<_> = wanted.collect();
    assert!(wanted.len() >= 8, "{wanted:?}");
    let alerts = alerts(&yaml(&text(RULES))["groups"]);
    let named: BTreeSet<_> = alerts.iter().flat_map(|alert| named(alert["expr"].as_str().unwrap())).collect();
    let forgotten: Vec<_> = wanted.iter().filter(|metric| !named.iter().any(|(name, _)| name == *metric)).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

#[test]
fn the_dashboard_is_what_grafana_takes() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an ID twice");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            assert!(taken.insert(cell), "{title} lies on another panel");
        }
        if panel["type"] != "row" {
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            }
        }
    }
    let variables: Vec<_> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|variable| &variable["name"]).collect();
    assert_eq!(variables, ["datasource", "job"]);
}
