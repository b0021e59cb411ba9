//! What EC2 and the network get wrong, played by a proxy in front of an EC2 server: the right verdict, nothing removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::{AWS, Pipeline, SEVENTEEN_REGIONS, keys};
use crate::support::ec2::{FastEc2, Fault, FaultProxy, FleetSpec, When, on};
use crate::support::kafka::Read;
use crate::support::process::Stage;
use crate::support::servers::Moto;
use crate::support::{python, server, wait_for};

pub const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// An account of the test's own, behind the proxy.
pub struct Account {
    pub proxy: FaultProxy,
    pub role: String,
    pub pipeline: Pipeline,
}

impl std::ops::Deref for Account {
    type Target = Pipeline;
    fn deref(&self) -> &Pipeline {
        &self.pipeline
    }
}

impl Account {
    /// With so many instances in each region; pages have five.
    pub fn with(instances: usize) -> Self {
        let id = fastrand::u64(100_000_000_000..999_999_999_999);
        let role = format!("arn:aws:iam::{id}:role/inventory");
        let (endpoint, regions, count) = (server("EC2"), REGIONS.join(","), instances.to_string());
        let arguments = ["--endpoint", &endpoint, "--regions", &regions, "--count", &count, "--role", &role];
        python::client("populate_ec2.py", &arguments);
        let proxy = FaultProxy::start(&endpoint);
        let pipeline = Pipeline::new(json!([source(&proxy.url(), &role)]));
        Self { proxy, role, pipeline }
    }

    /// One whose sweeps soon give up: what fails for good is tried again until then.
    fn impatient(instances: usize) -> Self {
        let mut account = Self::with(instances);
        account.pipeline.config["collector"]["sources"][0]["give_up_after"] = "6s".into();
        account
    }

    /// What boto3 reads past the proxy: region and instance, by ID.
    pub fn fleet(&self) -> BTreeMap<String, (String, Value)> {
        let (endpoint, regions) = (server("EC2"), REGIONS.join(","));
        let lines =
            python::lines("read_ec2.py", &["--endpoint", &endpoint, "--regions", &regions, "--role", &self.role]);
        let pair = |mut line: Value| {
            let instance = line["instance"].take();
            let id = instance["InstanceId"].as_str().unwrap().to_owned();
            (id, (line["region"].as_str().unwrap().to_owned(), instance))
        };
        lines.into_iter().map(pair).collect()
    }

    /// Those of a region that are not on their way out and have tags.
    pub fn tagged(&self, region: &str) -> Vec<String> {
        let is_wanted = |(of, instance): &(String, Value)| {
            of == region && instance["State"]["Name"] != "terminated" && instance["Tags"].as_array().is_some()
        };
        self.fleet().into_iter().filter(|(_, found)| is_wanted(found)).map(|(id, _)| id).collect()
    }

    pub fn edit(&self, region: &str, action: &str, id: &str, tag: &str) {
        let endpoint = server("EC2");
        let arguments = ["--endpoint", &endpoint, "--region", region, "--role", &self.role];
        python::client(
            "edit_ec2.py",
            &[&arguments[..], &["--action", action, "--instance", id, "--tag", tag]].concat(),
        );
    }

    /// One sweep, with its verdicts by region.
    pub fn verdicts(&self) -> BTreeMap<String, Value> {
        let region = |end: &Value| end["scope"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        self.sweep().into_iter().map(|end| (region(&end), end)).collect()
    }
}

fn source(endpoint: &str, role: &str) -> Value {
    json!({
        "name": "ec2", "interval": "10s", "give_up_after": "30s",
        "aws": {
            "regions": REGIONS, "accounts": [{"role_arn": role}], "endpoint_url": endpoint,
            "page_size": 5, "calls_per_second": 20.0, "settling_delay": "0s",
        },
    })
}

fn listing() -> When {
    on("DescribeInstances").region(REGIONS[0])
}

fn changes(events: &[Read]) -> Vec<(String, String)> {
    events.iter().map(|event| (event.key().to_owned(), event.header("change").unwrap().to_owned())).collect()
}

#[test]
fn a_region_that_fails_on_its_second_page_for_three_sweeps_removes_nothing_and_holds_up_nobody() {
    let account = Account::impatient(12);
    let mut collector = Stage::start_with_env(&["collect"], &account.config, &AWS);
    // So many more, from now on.
    let mut until = |what: &str, more: usize, is: &dyn Fn(&Value) -> bool| {
        collector.tail();
        let seen = collector.seen.len();
        wait_for(what, Duration::from_secs(90), || {
            collector.tail();
            (collector.seen[seen..].iter().filter(|event| is(event)).count() >= more).then_some(())
        });
    };
    let ended = |message: &'static str, region: &'static str| {
        move |event: &Value| event["message"] == message && event["scope"].as_str().unwrap().ends_with(region)
    };
    until("a first sweep", 1, &ended("sweep complete", REGIONS[0]));
    let created = account.events();
    let [failing, flowing] = REGIONS.map(|region| account.tagged(region)[0].clone());

    let rule = account.proxy.when(listing().page(2), Fault::unavailable());
    account.edit(REGIONS[0], "tag", &failing, "Name=renamed-while-it-fails");
    account.edit(REGIONS[1], "tag", &flowing, "Name=renamed-elsewhere");
    until("three failed sweeps", 3, &ended("sweep incomplete", REGIONS[0]));
    account.proxy.lift(rule);
    until("a recovery", 1, &ended("sweep complete", REGIONS[0]));
    until("a sweep of the other region", 1, &ended("sweep complete", REGIONS[1]));
    assert_eq!(collector.stop(), Some(0));

    assert_eq!(keys(&account.removed()), Vec::<String>::new());
    let new: BTreeSet<_> = changes(&account.events()[..]).into_iter().collect();
    let old: BTreeSet<_> = changes(&created).into_iter().collect();
    let updated = |id: &String| (id.clone(), "updated".to_owned());
    assert_eq!(&new - &old, BTreeSet::from([updated(&failing), updated(&flowing)]));

    let health = account.health();
    let of_scope = health.iter().filter(|event| event["scope"]["region"] == REGIONS[0]);
    let states: Vec<_> = of_scope.map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Collecting", "Error", "Collecting"], "{health:?}");
}

#[test]
fn a_region_that_is_tried_again_and_again_does_not_keep_another_from_its_sweeps() {
    let account = Account::with(6);
    account.proxy.when(listing(), Fault::unavailable());
    let mut config = account.config.clone();
    config["collector"]["concurrency"] = 1.into();
    config["collector"]["sources"][0]["give_up_after"] = "60s".into();
    let mut collector = Stage::start_with_env(&["collect"], &config, &AWS);
    for _ in 0..2 {
        let end = collector.wait_for("sweep complete", Duration::from_secs(50));
        assert!(end["scope"].as_str().unwrap().ends_with(REGIONS[1]));
    }
    assert!(!collector.seen.iter().any(|event| event["message"] == "sweep incomplete"), "it is still being tried");
    assert_eq!(collector.stop(), Some(0));
}

#[test]
fn an_answer_that_is_cut_or_empty_or_repeats_its_token_is_incomplete_and_removes_nothing() {
    let account = Account::impatient(16);
    let complete = |verdicts: &BTreeMap<String, Value>| verdicts[REGIONS[0]]["message"] == "sweep complete";
    assert!(complete(&account.verdicts()));
    let listed = account.raw().len();
    let faults = [
        (listing().page(2), Fault::RepeatToken, "repeated-token"),
        (listing().page(2), Fault::CutXml, "unreadable"),
        (listing().page(1), Fault::CutXml, "unreadable"),
        (listing().page(2), Fault::ShortBody, ""),
        (listing().page(2), Fault::EmptyBody, "unreadable"),
        (listing().page(1), Fault::EmptyBody, "unreadable"),
        (listing().page(2), Fault::Close, "unavailable"),
    ];
    for (when, fault, kind) in faults {
        let told = format!("{fault:?}");
        let rule = account.proxy.when(when, fault);
        for _ in 0..2 {
            let verdicts = account.verdicts();
            assert_eq!(verdicts[REGIONS[0]]["message"], "sweep incomplete", "{told}");
            assert!(verdicts[REGIONS[0]]["kind"].as_str().unwrap().contains(kind), "{told}: {verdicts:?}");
            assert_eq!(verdicts[REGIONS[1]]["message"], "sweep complete", "{told}");
        }
        account.proxy.lift(rule);
    }
    assert_eq!(keys(&account.removed()), Vec::<String>::new());

    let before = account.raw().len();
    account.proxy.when(listing(), Fault::EmptyFirstPage);
    assert!(complete(&account.verdicts()), "an empty page with a token goes on");
    assert_eq!(account.raw().len() - before, listed, "and all instances come behind it");
    assert_eq!(keys(&account.removed()), Vec::<String>::new());
}

#[test]
fn an_instance_hidden_for_one_sweep_is_nothing_and_hidden_for_good_is_one_removal() {
    let account = Account::with(8);
    account.sweep();
    let id = account.tagged(REGIONS[0])[0].clone();
    let created = account.events().len();
    let rule = account.proxy.when(on("DescribeInstances"), Fault::hide([&id]));
    account.sweep();
    account.proxy.lift(rule);
    account.sweep();
    assert_eq!(account.events().len(), created, "hidden for one sweep");

    let rule = account.proxy.when(on("DescribeInstances"), Fault::hide_from_listings([&id]));
    for _ in 0..3 {
        account.sweep();
    }
    account.proxy.lift(rule);
    assert_eq!(account.events().len(), created, "hidden from listings, and there when it is asked for");

    account.proxy.when(on("DescribeInstances"), Fault::hide([&id]));
    for _ in 0..4 {
        account.sweep();
    }
    let events = account.events();
    assert_eq!(changes(&events[..])[created..].len(), 1);
    let removed: Vec<_> = events.iter().filter(|event| event.header("change") == Some("removed")).collect();
    assert_eq!((removed[0].key(), removed[0].header("reason")), (id.as_str(), Some("absent")));
}

#[test]
fn when_sixty_percent_are_hidden_the_breaker_holds_and_nothing_is_removed() {
    let account = Account::with(50);
    account.sweep();
    let rule = account.proxy.when(listing(), Fault::HideShare(0.6));
    for _ in 0..2 {
        let verdicts = account.verdicts();
        assert_eq!(verdicts[REGIONS[0]]["message"], "sweep held", "{verdicts:?}");
        assert_eq!(verdicts[REGIONS[1]]["message"], "sweep complete");
    }
    let health = account.health();
    let vanished = health.iter().find(|event| event["error"]["kind"] == "vanished").expect("a health event");
    assert_eq!(vanished["error"]["type"], "ThirdPartyConfig");
    let account_id = account.role.split(':').nth(4).unwrap();
    let message = vanished["error"]["message"].as_str().unwrap();
    assert!(message.contains("asked as") && message.contains(account_id), "{message}");
    account.proxy.lift(rule);
    account.sweep();
    assert_eq!(keys(&account.removed()), Vec::<String>::new());
}

#[test]
fn tags_stripped_for_two_sweeps_are_no_change_and_really_deleted_ones_are_one() {
    let account = Account::with(8);
    account.sweep();
    let created = account.events();
    let rule = account.proxy.when(listing(), Fault::StripTags(None));
    account.sweep();
    account.sweep();
    account.proxy.lift(rule);
    let stripped: Vec<_> =
        account.raw().into_iter().filter(|record| record.header("aws-region") == Some(REGIONS[0])).collect();
    let by_key = |records: &[Read]| {
        let mut values = BTreeMap::<_, BTreeSet<_>>::new();
        for record in records {
            values.entry(record.key().to_owned()).or_default().insert(record.value.clone());
        }
        values
    };
    assert!(by_key(&stripped).values().all(|values| values.len() == 1), "the records are as if nothing had been");
    assert_eq!(account.events().len(), created.len());

    let fleet = account.fleet();
    let named = |id: &&String| {
        let tags = fleet[*id].1["Tags"].as_array().unwrap().clone();
        tags.iter().any(|tag| tag["Key"] == "Name")
    };
    let ids = account.tagged(REGIONS[0]);
    let id = ids.iter().find(named).expect("an instance with a name");
    for tag in fleet[id].1["Tags"].as_array().unwrap() {
        account.edit(REGIONS[0], "untag", id, tag["Key"].as_str().unwrap());
    }
    account.sweep();
    account.sweep();
    let events = account.events();
    assert_eq!(events.len(), created.len() + 1);
    let renamed: Vec<_> = events.iter().filter(|event| event.header("change") == Some("updated")).collect();
    assert_eq!((renamed.len(), renamed[0].key()), (1, id.as_str()));
}

#[test]
fn lists_shuffled_and_codes_noisy_for_twenty_sweeps_are_the_same_bytes() {
    let account = Account::with(6);
    account.proxy.when(on("DescribeInstances"), Fault::Shuffle);
    account.proxy.when(on("DescribeInstances"), Fault::NoisyStateCode);
    for _ in 0..20 {
        account.sweep();
    }
    let mut values = BTreeMap::<_, (usize, BTreeSet<_>)>::new();
    for record in account.raw() {
        let (count, texts) = values.entry(record.key().to_owned()).or_default();
        *count += 1;
        texts.insert(String::from_utf8(record.value.unwrap()).unwrap());
    }
    assert_eq!(values.len(), account.fleet().len());
    for (id, (count, texts)) in values {
        assert_eq!((count, texts.len()), (20, 1), "{id}: {texts:?}");
    }
    let events = account.events();
    assert!(events.iter().all(|event| event.header("change") == Some("created")));
}

#[test]
fn a_restart_of_34_scopes_behind_small_buckets_is_complete_and_hardly_throttled() {
    let regions = SEVENTEEN_REGIONS;
    let accounts = ["111122223333", "444455556666"];
    let ec2 = FastEc2::start(FleetSpec {
        accounts: accounts.map(str::to_owned).to_vec(),
        regions: regions.map(str::to_owned).to_vec(),
        instances_per_scope: 60,
        ..FleetSpec::of(1)
    });
    let proxy = FaultProxy::start(&ec2.url());
    proxy.when(on("DescribeInstances"), Fault::Throttle { size: 5.0, refill_per_second: 1.0 });
    let roles: Vec<_> = accounts.iter().map(|id| json!({"role_arn": format!("arn:aws:iam::{id}:role/r")})).collect();
    let mut pipeline = Pipeline::new(json!([{
        "name": "ec2",
        "aws": {"regions": regions, "accounts": roles, "endpoint_url": proxy.url(), "page_size": 5},
    }]));
    pipeline.config["collector"]["concurrency"] = 34.into();
    let ends = pipeline.sweep();
    assert_eq!(ends.len(), 34);
    assert!(ends.iter().all(|end| end["message"] == "sweep complete"), "{ends:?}");
    let calls: Vec<_> = proxy.log().into_iter().filter(|call| call.action == "DescribeInstances").collect();
    let throttled = calls.iter().filter(|call| call.was_throttled()).count();
    assert!(calls.len() >= 34 * 12);
    println!("{throttled} of {} calls throttled", calls.len());
    assert!(throttled * 10 < calls.len(), "{throttled} of {} calls throttled", calls.len());
}

#[test]
fn whatever_an_instance_carries_is_in_its_raw_record() {
    let account = Account::with(4);
    let id = account.tagged(REGIONS[0])[0].clone();
    // As many tags as EC2 allows, each as long as it allows.
    let had = account.fleet()[&id].1["Tags"].as_array().unwrap().len();
    let values = ["&<>\"'".repeat(50), "🛰️ orbit".to_owned(), "]]>".to_owned(), " spaces  ".to_owned()];
    for number in 0..50 - had {
        let value = values.get(number).cloned().unwrap_or_else(|| "v".repeat(256));
        account.edit(REGIONS[0], "tag", &id, &format!("key-{number:02}-{}={value}", "k".repeat(100)));
    }
    let unknown =
        "<quantumSet><item><spin>up</spin></item><item><spin>down</spin></item></quantumSet><flavour>strange</flavour>";
    account.proxy.when(on("DescribeInstances"), Fault::Insert(Some(BTreeSet::from([id.clone()])), unknown.to_owned()));
    account.proxy.when(on("DescribeInstances"), Fault::Replace("launchTime".to_owned(), "the day before".to_owned()));
    assert_eq!(account.verdicts()[REGIONS[0]]["message"], "sweep complete");
    let raw = account.raw();
    let record = raw.iter().find(|record| record.key() == id).unwrap().json();
    assert_eq!(
        record["QuantumSet"],
        json!([{"Spin": "down"}, {"Spin": "up"}]),
        "a list of sets has an order of its own"
    );
    assert_eq!((&record["Flavour"], &record["LaunchTime"]), (&json!("strange"), &json!("the day before")));
    let tags = |instance: &Value| {
        let pair = |tag: &Value| (tag["Key"].as_str().unwrap().to_owned(), tag["Value"].as_str().unwrap().to_owned());
        instance["Tags"].as_array().unwrap().iter().map(pair).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(tags(&record), tags(&account.fleet()[&id].1));
    assert_eq!(tags(&record).len(), 50);
    assert_eq!(
        account.events().len(),
        raw.iter().filter(|record| record.json()["State"]["Name"] != "terminated").count()
    );
}

#[test]
fn an_endpoint_with_a_certificate_of_ones_own_authority_is_trusted_by_its_ca_file_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    python::client("make_ca.py", &["--dir", folder.path().to_str().unwrap()]);
    let moto = Moto::start_tls(folder.path());
    let mut source = json!({
        "name": "tls", "give_up_after": "30s",
        "aws": {"regions": ["eu-west-1"], "endpoint_url": moto.url(), "ca_file": folder.path().join("ca.pem")},
    });
    let pipeline = Pipeline::new(json!([source]));
    assert_eq!(pipeline.sweep()[0]["message"], "sweep complete");
    source["aws"].as_object_mut().unwrap().remove("ca_file");
    source["give_up_after"] = "1s".into();
    let stranger = Pipeline::new(json!([source]));
    let mut collector = Stage::start_with_env(&["collect", "--once"], &stranger.config, &AWS);
    let told = collector.wait_for("scopes of a source are not known", Duration::from_secs(60));
    assert!(told["error"].as_str().unwrap().contains("certificate"), "{told}");
    assert_eq!(collector.wait(Duration::from_secs(60)).code(), Some(1));
}
