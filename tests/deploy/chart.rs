//! What the chart promises: names and hooks, security, who talks to whom, and what it refuses.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{
    CASES, admin_port, find, helm, kind, manifests, name, parsed, path, pod, run, said, template, text, values_file,
    yaml,
};

/// The manifests of the case `minimal` with more values.
pub fn minimal_with(values: &Value) -> Vec<Value> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(values.to_string().as_bytes()).unwrap();
    parsed(&run(template().arg("--values").arg(values_file("minimal")).arg("--values").arg(file.path())))
}

/// What Helm says to the case `minimal` with more values.
fn refusal(values: &Value) -> String {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(values.to_string().as_bytes()).unwrap();
    let output =
        template().arg("--values").arg(values_file("minimal")).arg("--values").arg(file.path()).output().unwrap();
    assert!(!output.status.success(), "{values} was taken");
    said(&output)
}

fn of_kind<'m>(manifests: &'m [Value], wanted: &str) -> Vec<&'m Value> {
    manifests.iter().filter(|manifest| kind(manifest) == wanted).collect()
}

#[test]
fn the_chart_is_for_this_version_of_the_program() {
    let chart = yaml(&text("helm/rollcall/Chart.yaml"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

// === The stages ===

#[test]
fn a_stage_is_a_stateful_set_without_volumes_whose_pods_start_together() {
    for case in CASES {
        for stage in of_kind(&manifests(case), "StatefulSet") {
            let spec = &stage["spec"];
            assert_eq!(spec["podManagementPolicy"], "Parallel");
            assert_eq!(spec["volumeClaimTemplates"], Value::Null);
            assert_eq!(spec["serviceName"], name(stage));
            let env = spec["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
            let instance_id = env.iter().find(|variable| variable["name"] == "ROLLCALL_INSTANCE_ID").unwrap();
            assert_eq!(instance_id["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
        }
    }
}

#[test]
fn replicas_are_as_many_as_wanted_unless_somebody_else_counts_them() {
    let replicas = |case: &str| -> Vec<_> {
        of_kind(&manifests(case), "StatefulSet").iter().map(|stage| stage["spec"]["replicas"].as_i64()).collect()
    };
    assert_eq!(replicas("minimal"), [Some(1), Some(2)]);
    assert_eq!(replicas("three-replicas"), [Some(3), Some(3)]);
    assert_eq!(replicas("mapper-only"), [Some(2)]);
    assert_eq!(replicas("everything"), [None, None], "a HorizontalPodAutoscaler and KEDA");
}

#[test]
fn a_pod_has_more_time_to_end_than_a_transaction_may_take() {
    let grace = |transaction_timeout: &str| {
        let manifests = minimal_with(&json!({"config": {"kafka": {"transaction_timeout": transaction_timeout}}}));
        let stage = find(&manifests, "StatefulSet", "fleet-rollcall-mapper").unwrap();
        stage["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap()
    };
    for (timeout, seconds) in [("30s", 45), ("1500ms", 17), ("2m", 135), ("1h 1m 1s", 3676), ("1m30s", 105)] {
        assert_eq!(grace(timeout), seconds, "{timeout}");
    }
    let stages = manifests("minimal");
    for stage in of_kind(&stages, "StatefulSet") {
        assert_eq!(stage["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 45);
    }
    assert!(refusal(&json!({"terminationGracePeriodSeconds": 30})).contains("transaction_timeout (30 s)"));
}

#[test]
fn a_changed_configuration_or_secret_restarts_the_pods() {
    let checksum = |values: &Value| {
        let manifests = minimal_with(values);
        let stage = find(&manifests, "StatefulSet", "fleet-rollcall-mapper").unwrap();
        stage["spec"]["template"]["metadata"]["annotations"]["checksum/config"].as_str().unwrap().to_owned()
    };
    let all = [
        checksum(&json!({})),
        checksum(&json!({"config": {"mapper": {"profile": "ocsf"}}})),
        checksum(&json!({"secrets": {"values": {"ROLLCALL_COLLECTOR__HASH_KEY": "a"}}})),
        checksum(&json!({"secrets": {"values": {"ROLLCALL_COLLECTOR__HASH_KEY": "b"}}})),
    ];
    assert_eq!(BTreeSet::from(all.clone()).len(), all.len());
    assert_eq!(checksum(&json!({"mapper": {"replicas": 7}})), all[0], "replicas come and go without a restart");
}

// === Security ===

#[test]
fn every_pod_keeps_to_the_restricted_standard_and_can_write_nowhere() {
    for case in CASES {
        for manifest in manifests(case) {
            let Some(pod) = pod(&manifest) else { continue };
            let (spec, of) = (&pod["spec"], format!("{case}, {} {}", kind(&manifest), name(&manifest)));
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{of}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{of}");
            assert_eq!(spec["automountServiceAccountToken"], false, "{of}");
            assert_eq!(spec["enableServiceLinks"], false, "{of}");
            for container in spec["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{of}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{of}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{of}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{of}");
                let mounts = container["volumeMounts"].as_array().unwrap();
                assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{of}");
            }
            for volume in spec["volumes"].as_array().unwrap() {
                assert!(volume.get("hostPath").is_none() && volume.get("persistentVolumeClaim").is_none(), "{of}");
            }
        }
    }
}

#[test]
fn pods_run_as_the_user_of_the_image() {
    let dockerfile = text("Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let manifests = manifests("minimal");
    for pod in manifests.iter().filter_map(pod) {
        let context = &pod["spec"]["securityContext"];
        assert_eq!(format!("{}:{}", context["runAsUser"], context["runAsGroup"]), user);
    }
}

#[test]
fn secrets_are_in_a_secret_and_nowhere_else() {
    let secret = "12345678901234567890";
    for manifest in manifests("everything") {
        let has_it = manifest.to_string().contains(secret);
        assert_eq!(has_it, kind(&manifest) == "Secret", "{} {}", kind(&manifest), name(&manifest));
    }
    let existing = manifests("sasl-scram");
    assert!(of_kind(&existing, "Secret").is_empty());
    for pod in existing.iter().filter_map(pod) {
        let from = &pod["spec"]["containers"][0]["envFrom"];
        assert_eq!(*from, json!([{"secretRef": {"name": "rollcall-kafka"}}]));
    }
}

#[test]
fn with_msk_iam_each_component_has_a_service_account_with_its_own_role() {
    let manifests = manifests("msk-iam");
    for component in ["collector", "mapper", "topics"] {
        let full = format!("fleet-rollcall-{component}");
        let account = find(&manifests, "ServiceAccount", &full).unwrap();
        let role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].as_str().unwrap();
        assert!(role.ends_with(&full["fleet-".len()..]), "{role}");
        let owner = manifests.iter().filter(|manifest| ["StatefulSet", "Job"].contains(&kind(manifest)));
        let owner = owner.into_iter().find(|manifest| name(manifest) == full).unwrap();
        assert_eq!(pod(owner).unwrap()["spec"]["serviceAccountName"], full);
    }
    let check = find(&manifests, "Pod", "fleet-rollcall-check").unwrap();
    assert_eq!(check["spec"]["serviceAccountName"], "fleet-rollcall-collector", "it asks what the collector will ask");
}

#[test]
fn what_runs_before_the_release_brings_what_it_needs() {
    for case in CASES {
        let manifests = manifests(case);
        let hook = |manifest: &Value| manifest["metadata"]["annotations"]["helm.sh/hook"].as_str().map(str::to_owned);
        let weight = |manifest: &Value| {
            let weight = manifest["metadata"]["annotations"]["helm.sh/hook-weight"].as_str().unwrap();
            weight.parse::<i32>().unwrap()
        };
        for job in of_kind(&manifests, "Job") {
            assert_eq!(hook(job).as_deref(), Some("pre-install,pre-upgrade"));
            let spec = &job["spec"]["template"]["spec"];
            let config = spec["volumes"][0]["configMap"]["name"].as_str().unwrap();
            let account = spec["serviceAccountName"].as_str().unwrap();
            let mut needed = vec![("ConfigMap", config), ("ServiceAccount", account)];
            if let Some(secret) = spec["containers"][0]["envFrom"][0]["secretRef"]["name"].as_str()
                && case != "sasl-scram"
            {
                needed.push(("Secret", secret));
            }
            for (of_kind, named) in needed {
                let needed = find(&manifests, of_kind, named).unwrap_or_else(|| panic!("{case}: no {of_kind} {named}"));
                assert_eq!(hook(needed), hook(job), "{case}: {of_kind} {named}");
                assert!(weight(needed) < weight(job), "{case}: {of_kind} {named}");
            }
        }
    }
    assert!(of_kind(&manifests("mapper-only"), "Job").is_empty(), "topics.create is off");
}

// === Who talks to whom ===

/// Every selector finds the pods of its component, and the two monitors those of both.
#[test]
fn selectors_find_the_pods_that_are_meant() {
    for case in CASES {
        let manifests = manifests(case);
        let stages = of_kind(&manifests, "StatefulSet");
        for manifest in &manifests {
            let selector = match kind(manifest) {
                "Service" => manifest["spec"]["selector"].clone(),
                "NetworkPolicy" => manifest["spec"]["podSelector"]["matchLabels"].clone(),
                "StatefulSet" | "PodDisruptionBudget" | "PodMonitor" => {
                    manifest["spec"]["selector"]["matchLabels"].clone()
                }
                _ => continue,
            };
            let is_chosen = |stage: &&&Value| {
                let labels = &stage["spec"]["template"]["metadata"]["labels"];
                selector.as_object().unwrap().iter().all(|(label, value)| labels[label] == *value)
            };
            let chosen: Vec<_> = stages.iter().filter(is_chosen).map(|stage| name(stage)).collect();
            let expected: Vec<_> = if kind(manifest) == "PodMonitor" {
                stages.iter().map(|stage| name(stage)).collect()
            } else {
                vec![name(manifest)]
            };
            assert_eq!(chosen, expected, "{case}: {} {}", kind(manifest), name(manifest));
        }
        for stage in &stages {
            let constraints = stage["spec"]["template"]["spec"]["topologySpreadConstraints"].as_array().unwrap();
            assert_eq!(constraints.len(), 2);
            for constraint in constraints {
                assert_eq!(constraint["labelSelector"], stage["spec"]["selector"]);
            }
        }
    }
}

#[test]
fn a_service_monitor_finds_the_services_of_both_stages() {
    let manifests = manifests("everything");
    let monitor = find(&manifests, "ServiceMonitor", "fleet-rollcall").unwrap();
    assert_eq!(monitor["metadata"]["labels"]["release"], "kube-prometheus-stack");
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    for service in of_kind(&manifests, "Service") {
        assert!(wanted.iter().all(|(label, value)| service["metadata"]["labels"][label] == *value));
        assert_eq!(service["spec"]["ports"][0]["name"], monitor["spec"]["endpoints"][0]["port"]);
    }
}

#[test]
fn probes_and_metrics_are_at_the_admin_port() {
    for case in CASES {
        let manifests = manifests(case);
        for stage in of_kind(&manifests, "StatefulSet") {
            let container = &stage["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["ports"], json!([{"name": "admin", "containerPort": admin_port()}]));
            let env = container["env"].as_array().unwrap();
            let listen = env.iter().find(|variable| variable["name"] == "ROLLCALL_ADMIN__LISTEN").unwrap();
            assert_eq!(listen["value"], format!("0.0.0.0:{}", admin_port()));
            for (probe, asked) in
                [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
            {
                assert_eq!(container[probe]["httpGet"], json!({"path": asked, "port": "admin"}));
            }
        }
        for service in of_kind(&manifests, "Service") {
            assert_eq!(service["spec"]["ports"][0]["port"], admin_port());
            assert_eq!(service["spec"]["clusterIP"], "None");
        }
    }
}

#[test]
fn a_network_policy_lets_out_to_dns_brokers_registry_and_aws_and_in_to_the_admin_port() {
    let manifests = manifests("everything");
    let policy = find(&manifests, "NetworkPolicy", "fleet-rollcall-collector").unwrap();
    let ports: BTreeSet<_> = policy["spec"]["egress"][0]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["port"].as_u64().unwrap())
        .collect();
    assert_eq!(ports, BTreeSet::from([53, 443, 8081, 9092, 9093]));
    assert_eq!(policy["spec"]["egress"][2]["ports"][0]["port"], 3128, "what was added");
    let ingress = &policy["spec"]["ingress"];
    assert_eq!(ingress[0]["ports"], json!([{"port": "admin"}]));
    assert!(ingress[0]["from"][0]["namespaceSelector"].is_object());
    let ports = |config: &Value| {
        let values = json!({"networkPolicy": {"enabled": true}, "config": config});
        let policy = find(&minimal_with(&values), "NetworkPolicy", "fleet-rollcall-mapper").unwrap().clone();
        let ports = policy["spec"]["egress"][0]["ports"].as_array().unwrap().clone();
        ports.iter().map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let registry = |url: &str| ports(&json!({"registry": {"url": url}}));
    assert_eq!(
        ports(&json!({"registry": null, "kafka": {"oauth": null}})),
        [53, 53, 9092, 443],
        "as `config` prints it"
    );
    assert_eq!(registry("http://registry"), [53, 53, 9092, 80, 443]);
    assert_eq!(registry("https://registry/path:1"), [53, 53, 9092, 443, 443]);
    assert_eq!(
        ports(&json!({"kafka": {"oauth": {"oidc": {"token_url": "https://idp:8443/token", "client_id": "x"}}}})),
        [53, 53, 9092, 8443, 443]
    );
}

#[test]
fn keda_asks_for_the_lag_of_the_configured_group_and_topic() {
    let manifests = manifests("everything");
    let scaled = find(&manifests, "ScaledObject", "fleet-rollcall-mapper").unwrap();
    let target = scaled["spec"]["scaleTargetRef"]["name"].as_str().unwrap();
    assert!(find(&manifests, "StatefulSet", target).is_some());
    let metadata = &scaled["spec"]["triggers"][0]["metadata"];
    assert_eq!(metadata["consumerGroup"], "fleet-mapper");
    assert_eq!(metadata["topic"], "fleet.raw");
    assert_eq!(metadata["lagThreshold"], "50000");
    let defaults = minimal_with(&json!({"mapper": {"keda": {"enabled": true}}}));
    let metadata =
        &find(&defaults, "ScaledObject", "fleet-rollcall-mapper").unwrap()["spec"]["triggers"][0]["metadata"];
    let config = rollcall::config::Config::default();
    assert_eq!(metadata["consumerGroup"], config.mapper.group_id);
    assert_eq!(metadata["topic"], config.kafka.topics.raw);
}

// === What is refused, and what is told ===

#[test]
fn wrong_values_are_refused_with_their_place() {
    for (values, place) in [
        (json!({"replicas": 3}), "replicas"),
        (json!({"collector": {"replicas": "3"}}), "/collector/replicas"),
        (json!({"collector": {"keda": {"enabled": true}}}), "/collector/keda"),
        (json!({"mapper": {"autoscaling": {"enabled": true}, "keda": {"enabled": true}}}), "/mapper"),
        (json!({"mapper": {"resource": {}}}), "resource"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "/image/pullPolicy"),
        (json!({"config": {"kafka": {"bootstrap_server": "k:9092"}}}), "bootstrap_server"),
        (json!({"config": {"kafka": {"partitions": 0}}}), "/config/kafka/partitions"),
        (json!({"config": {"kafka": {"transaction_timeout": 30}}}), "/config/kafka/transaction_timeout"),
        (
            json!({"config": {"kafka": {"properties": {"sasl.password": "x"}}}}),
            "/config/kafka/properties/sasl.password",
        ),
        (json!({"config": {"kafka": {"properties": {"ssl.key.pem": "x"}}}}), "/config/kafka/properties"),
        (json!({"config": {"mapper": {"profile": "splunk"}}}), "/config/mapper/profile"),
        (json!({"config": {"collector": {"hash_key": "0123456789abcdef"}}}), "hash_key"),
        (json!({"config": {"collector": {"sources": []}}}), "/config/collector/sources"),
        (json!({"config": {"collector": {"sources": [{"name": "a"}]}}}), "/config/collector/sources/0"),
        (
            json!({"config": {"collector": {"sources": [{"name": "a", "file": {"path": "x", "account": 12_345_678_901_u64}}]}}}),
            "/config/collector/sources/0/file/account",
        ),
        (
            json!({"config": {"collector": {"sources": [{"name": "a", "aws": {"regions": ["eu-west-1"], "proxy_password": "x"}}]}}}),
            "/config/collector/sources/0/aws/proxy_password",
        ),
        (
            json!({"config": {"kafka": {"oauth": {"msk_iam": {"region": "eu-west-1", "credentials": {"static": {"secret_access_key": "x"}}}}}}}),
            "/config/kafka/oauth/msk_iam/credentials/static/secret_access_key",
        ),
        (json!({"config": {"registry": {"url": "https://registry", "password": "x"}}}), "/config/registry/password"),
        (json!({"config": {"instance_id": "x"}}), "instance_id"),
        (json!({"config": {"admin": {"listen": "0.0.0.0:1"}}}), "admin"),
        (json!({"secrets": {"values": {"password": "x"}}}), "/secrets/values"),
        (json!({"secrets": {"existing": "x", "values": {"ROLLCALL_ADMIN__TOKEN": "x"}}}), "/secrets"),
        (json!({"monitoring": {"scrape": "both"}}), "/monitoring/scrape"),
    ] {
        let said = refusal(&values);
        assert!(said.contains(place), "{values}: {place:?} is not in:\n{said}");
    }
}

/// What can be set is in values.yaml, and the schema knows it.
#[test]
fn values_and_their_schema_have_the_same_keys() {
    let schema: Value = serde_json::from_str(&text("helm/rollcall/values.schema.json")).unwrap();
    let values = yaml(&text("helm/rollcall/values.yaml"));
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let mut of_schema = keys(&schema["properties"]);
    of_schema.remove("global");
    assert_eq!(keys(&values), of_schema);
    let stage = keys(&schema["definitions"]["stage"]["properties"]);
    assert_eq!(keys(&values["mapper"]), stage);
    let mut of_collector = keys(&values["collector"]);
    of_collector.insert("keda".to_owned());
    assert_eq!(of_collector, stage);
    for section in ["image", "secrets", "topics", "networkPolicy", "monitoring"] {
        assert_eq!(keys(&values[section]), keys(&schema["properties"][section]["properties"]), "{section}");
    }
}

#[test]
fn the_notes_tell_how_to_go_on_and_warn_of_idle_engines() {
    let notes = |more: &[&str]| {
        let mut install = helm(&["install", "fleet", "--dry-run=client", "--namespace", "security"]);
        let output = run(install.arg(path("helm/rollcall")).arg("--values").arg(values_file("minimal")).args(more));
        output.split_once("NOTES:").unwrap().1.to_owned()
    };
    let plain = notes(&[]);
    assert!(plain.contains("helm test fleet --namespace security"), "{plain}");
    assert!(!plain.contains("WARNING"), "{plain}");
    let many = notes(&["--set", "mapper.replicas=4,config.mapper.engines=4"]);
    assert!(many.contains("16 engines") && many.contains("12 partitions"), "{many}");
}

#[test]
fn requests_and_limits_are_those_of_the_sizing_table() {
    let page = text("docs/sizing.md");
    let values = yaml(&text("helm/rollcall/values.yaml"));
    for stage in ["collector", "mapper", "topics"] {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {stage}, default | "))).unwrap();
        let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
        let resources = &values[stage]["resources"];
        let expected =
            [&resources["requests"]["cpu"], &resources["requests"]["memory"], &resources["limits"]["memory"]];
        assert_eq!(cells[1..4], expected.map(|value| value.as_str().unwrap()), "{stage}");
    }
}
