//! Getting in: every kind of credentials, what becomes of them while a sweep runs, accounts and regions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::faults::{Account, REGIONS};
use super::{AWS, Pipeline, keys};
use crate::support::ec2::{Call, CredentialsServer, Fault, FaultProxy, on, on_any};
use crate::support::process::Stage;
use crate::support::servers::Moto;
use crate::support::{python, server, wait_for};

/// Nothing of the machine's own, and nothing in its place.
pub const NOTHING: [(&str, &str); 3] = [
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];
const LIMIT: Duration = Duration::from_secs(60);

/// One sweep of everything in such an environment: the verdicts by scope, and the log.
pub fn sweep(config: &Value, env: &[(&str, &str)]) -> (BTreeMap<String, String>, Vec<Value>) {
    let mut collector = Stage::start_with_env(&["collect", "--once"], config, env);
    let end = collector.wait(LIMIT);
    assert!(end.code().is_some(), "log:\n{}", collector.tail());
    collector.tail();
    let verdict = |event: &Value| {
        let verdict = event["message"].as_str()?.strip_prefix("sweep ")?.to_owned();
        Some((event["scope"].as_str()?.to_owned(), verdict))
    };
    (collector.seen.iter().filter_map(verdict).collect(), collector.seen.clone())
}

fn listings(proxy: &FaultProxy) -> Vec<Call> {
    proxy.log().into_iter().filter(|call| call.action == "DescribeInstances").collect()
}

fn published(account: &Account) -> BTreeSet<String> {
    keys(&account.raw()).into_iter().collect()
}

/// The regions of the scopes that were swept.
fn regions(verdicts: &BTreeMap<String, String>) -> BTreeSet<String> {
    verdicts.keys().map(|scope| scope.rsplit('/').next().unwrap().to_owned()).collect()
}

// === While a sweep runs ===

#[test]
fn credentials_that_die_in_the_middle_of_a_sweep_are_renewed_and_the_same_page_is_asked_for_again() {
    let account = Account::with(12);
    // Keys that are younger than a second are not doubted.
    account.proxy.when(on("DescribeInstances").region(REGIONS[0]).page(1), Fault::Delay(Duration::from_millis(1500)));
    let second = on("DescribeInstances").region(REGIONS[0]).page(2);
    account.proxy.when(second.times(1), Fault::error("RequestExpired", 400));
    let verdicts = account.verdicts();
    assert!(verdicts.values().all(|end| end["message"] == "sweep complete"), "{verdicts:?}");
    let pages = account.proxy.calls("DescribeInstances", REGIONS[0]);
    let page_two: Vec<_> = pages.iter().filter(|call| call.page == 2).collect();
    let [died, again] = page_two[..] else { panic!("{pages:?}") };
    assert_eq!((died.error.as_deref(), again.status), (Some("RequestExpired"), Some(200)));
    assert_eq!(died.token(), again.token(), "the same page");
    assert_ne!(died.access_key, again.access_key, "with new keys");
    assert_eq!(published(&account), account.fleet().into_keys().collect());
}

#[test]
fn keys_that_aws_takes_back_for_good_are_replaced_without_losing_a_page() {
    let account = Account::with(12);
    account.proxy.when(on("DescribeInstances").page(1), Fault::Delay(Duration::from_millis(1500)));
    let mut collector = Stage::start_with_env(&["collect", "--once"], &account.config, &AWS);
    let first = account.proxy.wait_until("a first page", LIMIT, |calls| {
        calls.iter().find(|call| call.action == "DescribeInstances").map(|call| call.access_key.clone())
    });
    account.proxy.expire(&first);
    assert!(collector.wait(LIMIT).success(), "{}", collector.tail());
    let calls = listings(&account.proxy);
    assert!(calls.iter().any(|call| call.access_key == first && call.error.as_deref() == Some("RequestExpired")));
    let others: BTreeSet<_> =
        calls.iter().filter(|call| call.access_key != first).map(|call| &call.access_key).collect();
    assert_eq!(others.len(), 1, "one renewal for all scopes");
    assert_eq!(published(&account), account.fleet().into_keys().collect());
}

#[test]
fn a_token_file_that_was_replaced_is_read_anew() {
    let account = Account::with(2);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first-token\n").unwrap();
    let mut config = account.config.clone();
    let aws = &mut config["collector"]["sources"][0]["aws"];
    aws["credentials"] = json!({"web_identity": {"role_arn": account.role, "token_file": token}});
    aws.as_object_mut().unwrap().remove("accounts");
    let mut collector = Stage::start_with_env(&["collect"], &config, &NOTHING);
    collector.wait_for("sweep complete", LIMIT);
    let entered = |with: &'static str| {
        move |calls: &[Call]| {
            let of = |call: &&Call| call.form.get("WebIdentityToken").is_some_and(|token| token == with);
            calls.iter().filter(|call| call.action == "AssumeRoleWithWebIdentity").find(of).map(|call| call.at)
        }
    };
    account.proxy.wait_until("the first token", LIMIT, entered("first-token"));
    std::fs::write(&token, "second-token\n").unwrap();
    account.proxy.expire_all();
    // Where the keys are not yet a second old they are believed once more, and then the account rests for a minute.
    let at = account.proxy.wait_until("the second token", LIMIT * 2, entered("second-token"));
    account.proxy.wait_until("a page with its keys", LIMIT, |calls| {
        calls
            .iter()
            .find(|call| call.action == "DescribeInstances" && call.at > at && call.status == Some(200))
            .cloned()
    });
    assert_eq!(collector.stop(), Some(0));
    assert!(account.proxy.log().iter().all(|call| call.action != "AssumeRole"));
}

#[test]
fn wrong_keys_for_ever_are_one_call_a_minute_and_one_health_event() {
    let (nobody, stranger) = (FaultProxy::start(&server("EC2")), FaultProxy::start(&server("EC2")));
    // Keys that nobody knows; and keys that open a role whose sessions nobody knows.
    nobody.when(on_any(), Fault::error("InvalidClientTokenId", 403));
    stranger.when(on("DescribeInstances"), Fault::error("AuthFailure", 401));
    stranger.when(on("GetCallerIdentity"), Fault::error("InvalidClientTokenId", 403));
    let role = format!("arn:aws:iam::{}:role/inventory", fastrand::u64(100_000_000_000..999_999_999_999));
    let source = |name: &str, url: String, accounts: Value| {
        let aws = json!({"regions": REGIONS, "endpoint_url": url, "accounts": accounts, "calls_per_second": 20.0});
        json!({"name": name, "interval": "10s", "aws": aws})
    };
    let pipeline = Pipeline::new(json!([
        source("nobody", nobody.url(), json!([])),
        source("stranger", stranger.url(), json!([{"role_arn": role}])),
    ]));
    let mut collector = Stage::start_with_env(&["collect"], &pipeline.config, &AWS);
    let asked = |calls: &[Call], action: &str| {
        let calls = calls.iter().filter(|call| call.action == action);
        calls.map(|call| call.at).collect::<Vec<_>>()
    };
    let twice = |calls: &[Call]| (asked(calls, "GetCallerIdentity").len() >= 2).then_some(());
    nobody.wait_until("a second question, a minute after the first", Duration::from_secs(100), twice);
    wait_for("a second attempt in both regions", Duration::from_secs(100), || {
        collector.tail();
        let ends = collector.seen.iter().filter(|event| event["message"] == "sweep incomplete");
        (ends.count() >= 4).then_some(())
    });
    assert_eq!(collector.stop(), Some(0));
    for proxy in [&nobody, &stranger] {
        let log = proxy.log();
        for action in ["DescribeInstances", "GetCallerIdentity"] {
            for pair in asked(&log, action).windows(2) {
                assert!(pair[1] - pair[0] > TimeDelta::seconds(55), "{action}: {pair:?}");
            }
        }
        assert!(log.len() <= 6, "{log:?}");
    }
    assert_eq!(asked(&nobody.log(), "DescribeInstances").len(), 0, "whoever is nobody has no account to list");
    assert_eq!(asked(&stranger.log(), "DescribeInstances").len(), 1, "and never again");
    let mut errors = BTreeMap::<_, usize>::new();
    for event in pipeline.health().iter().filter(|event| event["state"] == "Error") {
        assert_eq!(event["error"]["type"], "ThirdPartyConfig");
        assert_eq!(event["error"]["kind"], "credentials");
        *errors.entry((event["source"].to_string(), event["scope"].to_string())).or_default() += 1;
    }
    assert!(errors.values().all(|count| *count == 1), "{errors:?} in {:#?}", pipeline.health());
    assert_eq!(errors.len(), 4, "the two sources, and the stranger's two regions: {errors:?}");
}

// === Three healths ===

#[test]
fn denied_in_one_region_disabled_in_another_and_denied_everywhere_are_three_healths() {
    let (partly, wholly) = (Account::with(2), Account::with(2));
    let listing = |region| on("DescribeInstances").region(region);
    partly.proxy.when(listing(REGIONS[0]), Fault::denied());
    partly.proxy.when(listing("eu-central-1"), Fault::region_disabled());
    wholly.proxy.when(on("DescribeInstances"), Fault::denied());
    let mut config = partly.config.clone();
    config["collector"]["sources"][0]["name"] = "partly".into();
    config["collector"]["sources"][0]["aws"]["regions"] = json!([REGIONS[0], REGIONS[1], "eu-central-1"]);
    let mut other = wholly.config["collector"]["sources"][0].clone();
    other["name"] = "wholly".into();
    config["collector"]["sources"].as_array_mut().unwrap().push(other);

    let mut collector = Stage::start_with_env(&["collect"], &config, &AWS);
    let told = |health: &[Value], source: &str, region: Option<&str>| {
        let is_it = |event: &&Value| event["source"] == source && event["scope"]["region"].as_str() == region;
        let last = health.iter().rfind(is_it).cloned().unwrap_or_default();
        let [state, kind] =
            [&last["state"], &last["error"]["kind"]].map(|text| text.as_str().unwrap_or_default().to_owned());
        (state, kind, last["error"]["remedy"].as_str().unwrap_or_default().to_owned())
    };
    let health = wait_for("a word on every scope", LIMIT, || {
        let health = partly.health();
        let scopes: BTreeSet<_> =
            health.iter().map(|event| (event["source"].to_string(), event["scope"].to_string())).collect();
        let is_done = told(&health, "wholly", None).0 == "Error" && told(&health, "partly", None).0 == "Collecting";
        (scopes.len() == 7 && is_done).then_some(health)
    });
    let (state, kind, remedy) = told(&health, "partly", Some(REGIONS[0]));
    assert_eq!((state.as_str(), kind.as_str()), ("Error", "denied"));
    assert!(remedy.contains("rollcall policy"), "{remedy}");
    let (state, kind, remedy) = told(&health, "partly", Some("eu-central-1"));
    assert_eq!((state.as_str(), kind.as_str()), ("Error", "region-disabled"));
    assert!(remedy.contains("enable the region"), "{remedy}");
    assert_eq!(told(&health, "partly", Some(REGIONS[1])).0, "Collecting");
    let (state, kind, remedy) = told(&health, "wholly", None);
    assert_eq!((state.as_str(), kind.as_str()), ("Error", "denied"), "the source itself");
    assert!(remedy.contains("rollcall policy"), "{remedy}");

    let mut is = |name: &str, labels: [String; 2]| {
        let text = collector.get("/metrics");
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        let has = |line: &&&str| labels.iter().all(|label| line.contains(label.as_str()));
        let line = lines.iter().find(has).unwrap_or_else(|| panic!("{labels:?} not in {lines:?}"));
        line.ends_with(" 1")
    };
    let label = |name: &str, value: &str| format!("{name}=\"{value}\"");
    let errors = [("partly", REGIONS[0], true), ("partly", "eu-central-1", true), ("partly", REGIONS[1], false)];
    for (source, region, is_error) in errors {
        let labels = [label("source", source), label("region", region)];
        assert_eq!(is("rollcall_collector_scope_error", labels), is_error, "{source} {region}");
    }
    for (source, state) in [("partly", "Collecting"), ("wholly", "Error")] {
        assert!(is("rollcall_collector_source_state", [label("source", source), label("state", state)]), "{source}");
    }
    assert_eq!(collector.stop(), Some(0));
}

// === Each kind of credentials ===

/// A server of the test's own, with instances in the account that it takes strangers for.
struct Own {
    _moto: Moto,
    proxy: FaultProxy,
    pipeline: Pipeline,
}

impl Own {
    fn start() -> Self {
        let moto = Moto::start(&[]);
        python::client("populate_ec2.py", &["--endpoint", &moto.url(), "--regions", REGIONS[0], "--count", "2"]);
        let proxy = FaultProxy::start(&moto.url());
        Self { proxy, _moto: moto, pipeline: Pipeline::new(json!([])) }
    }

    /// A sweep with these credentials; the key that signed it.
    #[track_caller]
    fn swept_with(&self, credentials: Option<Value>, env: &[(&str, &str)]) -> String {
        let mut config = self.pipeline.config.clone();
        let mut aws = json!({"regions": [REGIONS[0]], "endpoint_url": self.proxy.url(), "calls_per_second": 20.0});
        if let Some(credentials) = credentials {
            aws["credentials"] = credentials;
        }
        config["collector"]["sources"] = json!([{"name": "ec2", "interval": "10s", "aws": aws}]);
        let before = listings(&self.proxy).len();
        let all: Vec<_> = NOTHING.into_iter().chain(env.iter().copied()).collect();
        let (verdicts, log) = sweep(&config, &all);
        assert!(verdicts.values().all(|verdict| verdict == "complete") && !verdicts.is_empty(), "{log:#?}");
        let calls = listings(&self.proxy);
        assert!(calls.len() > before);
        calls[before..].iter().for_each(|call| assert_eq!(call.status, Some(200)));
        calls[before].access_key.clone()
    }
}

#[test]
fn a_sweep_is_signed_with_each_kind_of_credentials() {
    let own = Own::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let handed_out = CredentialsServer::start();

    let keys = json!({"static": {"access_key_id": "AKIDSTATIC", "secret_access_key": "x"}});
    assert_eq!(own.swept_with(Some(keys), &[]), "AKIDSTATIC");

    let key = "aws_access_key_id = AKIDPROFILE\naws_secret_access_key = x\n";
    let shared = file(
        "credentials",
        &format!("[default]\naws_access_key_id = NO\naws_secret_access_key = x\n[inventory]\n{key}"),
    );
    let profile = own.swept_with(Some(json!({"profile": "inventory"})), &[("AWS_SHARED_CREDENTIALS_FILE", &shared)]);
    assert_eq!(profile, "AKIDPROFILE");

    let environment = [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "x")];
    assert_eq!(own.swept_with(None, &environment), "AKIDENV");

    let token = file("token", "a-token");
    let role = "arn:aws:iam::123456789012:role/web";
    let entered = || own.proxy.log().into_iter().filter(|call| call.action == "AssumeRoleWithWebIdentity").count();
    let web = json!({"web_identity": {"role_arn": role, "token_file": token}});
    assert!(own.swept_with(Some(web), &[]).starts_with("ASIA"));
    assert_eq!(entered(), 1, "web identity as configured");
    let url = own.proxy.url();
    let irsa = [("AWS_ROLE_ARN", role), ("AWS_WEB_IDENTITY_TOKEN_FILE", &token), ("AWS_ENDPOINT_URL_STS", &url)];
    assert!(own.swept_with(None, &irsa).starts_with("ASIA"));
    assert_eq!(entered(), 2, "web identity of the environment, as IRSA sets it");

    let container = handed_out.container_url();
    let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str());
    assert!(own.swept_with(None, &[uri]).starts_with("ASIACONTAINER"), "ECS");
    handed_out.require("pod-token");
    let pod = file("pod-token", "pod-token");
    let authorization = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", pod.as_str());
    assert!(own.swept_with(None, &[uri, authorization]).starts_with("ASIACONTAINER"), "EKS Pod Identity");

    let metadata = handed_out.url();
    let imds = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata)];
    assert!(own.swept_with(None, &imds).starts_with("ASIAIMDS"), "an EC2 instance");

    let config = file(
        "config",
        "[profile people]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = inventory\n\
         [sso-session s]\nsso_region = us-east-1\nsso_start_url = https://people.example.com/start\n",
    );
    // Named by the SHA-1 of the session's name.
    file(
        ".aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json",
        "{\"accessToken\": \"x\", \"expiresAt\": \"2099-01-01T00:00:00Z\"}",
    );
    let home = folder.path().to_str().unwrap();
    let sso = [("AWS_CONFIG_FILE", config.as_str()), ("HOME", home), ("AWS_ENDPOINT_URL_SSO", &metadata)];
    assert!(own.swept_with(Some(json!({"profile": "people"})), &sso).starts_with("ASIASSO"), "SSO");
}

#[test]
fn roles_are_assumed_one_after_the_other_each_with_its_external_id() {
    let mut account = Account::with(2);
    let hub = "arn:aws:iam::777788889999:role/hub";
    account.pipeline.config["collector"]["sources"][0]["aws"]["accounts"] = json!([{
        "role_arn": account.role, "external_id": "for-the-last", "session_name": "roll",
        "via": [{"role_arn": hub, "external_id": "for-the-hub"}],
    }]);
    assert!(account.verdicts().values().all(|end| end["message"] == "sweep complete"));
    let log = account.proxy.log();
    let assumed: Vec<_> = log.iter().filter(|call| call.action == "AssumeRole").collect();
    let [first, second] = assumed[..] else { panic!("{assumed:?}") };
    let shown = |call: &Call, name: &str| call.form.get(name).cloned().unwrap_or_default();
    assert_eq!((shown(first, "RoleArn").as_str(), shown(first, "ExternalId").as_str()), (hub, "for-the-hub"));
    assert_eq!(first.access_key, "test");
    assert_eq!(
        (shown(second, "RoleArn"), shown(second, "ExternalId").as_str()),
        (account.role.clone(), "for-the-last")
    );
    assert_eq!(shown(second, "RoleSessionName"), "roll");
    assert_eq!(second.account.as_deref(), Some("777788889999"), "signed with the keys of the hub");
    assert_eq!(published(&account), account.fleet().into_keys().collect());
}

// === Regions and accounts ===

#[test]
fn all_regions_are_those_that_the_account_has_and_globs_pick_of_them() {
    let mut account = Account::with(2);
    let mut swept = |wanted: Value| {
        account.pipeline.config["collector"]["sources"][0]["aws"]["regions"] = wanted;
        let (verdicts, _) = sweep(&account.config, &AWS);
        assert!(verdicts.values().all(|verdict| verdict == "complete"), "{verdicts:?}");
        regions(&verdicts)
    };
    let all = swept(json!("all"));
    assert!(all.len() > 20 && REGIONS.iter().all(|region| all.contains(*region)), "{all:?}");
    let picked = swept(json!(["eu-*", "us-east-?"]));
    let expected = all.iter().filter(|region| region.starts_with("eu-") || region.starts_with("us-east-"));
    assert_eq!(picked, expected.cloned().collect());
    let asked = account.proxy.log().into_iter().filter(|call| call.action == "DescribeRegions").count();
    assert_eq!(asked, 2, "once a start");
    assert_eq!(published(&account), account.fleet().into_keys().collect());
}

#[test]
fn the_active_accounts_of_an_organization_are_swept_by_their_units() {
    let moto = Moto::start(&[]);
    let url = moto.url();
    let mut arguments = vec!["--endpoint", &url];
    arguments.extend(["--ou", "prod", "--ou", "prod/web", "--ou", "play"]);
    arguments.extend([
        "--account",
        "web=prod/web",
        "--account",
        "db=prod",
        "--account",
        "toy=play",
        "--account",
        "root",
    ]);
    arguments.extend(["--account", "old=prod", "--suspend", "old"]);
    let made = python::lines("create_organization.py", &arguments).remove(0);
    let id = |name: &str| made["accounts"][name].as_str().unwrap().to_owned();
    let unit = |path: &str| made["ous"][path].clone();
    let management = made["management"].as_str().unwrap().to_owned();
    let pipeline = Pipeline::new(json!([]));
    let swept = |organization: Value| {
        let mut config = pipeline.config.clone();
        let mut all = json!({"role_name": "audit/inventory"});
        all.as_object_mut().unwrap().extend(organization.as_object().unwrap().clone());
        let aws = json!({"regions": ["us-east-1"], "endpoint_url": url, "organization": all});
        config["collector"]["sources"] = json!([{"name": "org", "interval": "10s", "aws": aws}]);
        let (verdicts, log) = sweep(&config, &AWS);
        assert!(verdicts.values().all(|verdict| verdict == "complete"), "{log:#?}");
        verdicts.keys().map(|scope| scope.split('/').nth(1).unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let of = |names: &[&str]| names.iter().map(|name| id(name)).collect::<BTreeSet<_>>();
    let mut everyone = of(&["web", "db", "toy", "root"]);
    assert_eq!(swept(json!({"exclude_accounts": [management]})), everyone, "the suspended one is left out");
    everyone.insert(management.clone());
    assert_eq!(swept(json!({"include_own": true})), everyone);
    assert_eq!(swept(json!({"include_ous": [unit("prod")]})), of(&["web", "db"]), "with the units below");
    let narrowed = json!({"include_ous": [unit("prod")], "exclude_ous": [unit("prod/web")]});
    assert_eq!(swept(narrowed), of(&["db"]));
    let without = json!({"exclude_ous": [unit("prod")], "exclude_accounts": [management, id("toy")]});
    assert_eq!(swept(without), of(&["root"]));
}
