//! The servers of the harness: each shows other people's clients what the tests build on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use rdkafka::producer::Producer;
use serde_json::{Value, json};

use super::{KEY, REGION, ask_as, read, texts};
use crate::support::ec2::{CredentialsServer, FastEc2, FaultProxy, FleetSpec, Listing, State};
use crate::support::kafka::{TestTopics, flush, send};
use crate::support::process::{cpu_seconds, memory};
use crate::support::servers::{Broker, Cluster, Moto};
use crate::support::{python, server, wait_for};

#[test]
fn the_fast_server_shows_its_model_and_notes_who_listed_it_when() {
    let regions = vec![REGION.to_owned(), "eu-west-1".to_owned()];
    let accounts = vec!["123456789012".to_owned(), "111122223333".to_owned()];
    let ec2 = FastEc2::start(FleetSpec { regions, accounts, ..FleetSpec::of(12) });
    let alive = ec2.alive();
    assert_eq!(alive.len(), 48);
    let here: Vec<_> =
        alive.values().filter(|machine| machine.region == REGION && machine.account == "123456789012").collect();
    let [stopped, terminated, vanished, retagged] = [0, 1, 2, 3].map(|index: usize| here[index].id.as_str());
    let seen = read(&ec2.url());
    assert_eq!(Vec::from_iter(seen.keys()), Vec::from_iter(here.iter().map(|machine| &machine.id)));

    ec2.stop(stopped);
    ec2.terminate(terminated);
    ec2.vanish(vanished);
    ec2.retag(retagged, "Name", Some("größe & <co>"));
    ec2.retag(retagged, "Team", None);
    let launched = ec2.launch("123456789012", REGION);
    let seen = read(&ec2.url());
    for (id, machine) in ec2.model() {
        let is_here = machine.region == REGION && machine.account == "123456789012" && machine.is_listed();
        assert_eq!(seen.contains_key(&id), is_here, "{id}");
        let Some(instance) = seen.get(&id) else { continue };
        assert_eq!(instance["State"]["Name"], machine.now().state.name(), "{id}");
        assert_eq!(instance["OwnerId"], "123456789012");
        let tags = instance["Tags"].as_array().cloned().unwrap_or_default();
        let tags: BTreeMap<_, _> = tags
            .iter()
            .map(|tag| (tag["Key"].as_str().unwrap().to_owned(), tag["Value"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(tags, machine.now().tags, "{id}");
    }
    assert!(seen.contains_key(&launched) && !seen.contains_key(vanished));

    let listings = ec2.listings();
    let [first, second] = &listings[..] else { panic!("{listings:?}") };
    assert_eq!((first.pages, first.instances, second.instances), (3, 12, 12));
    let model = ec2.model();
    let state = |id: &str, listing: &Listing| {
        model[id].throughout(listing.began, listing.ended.unwrap()).map(|fields| fields.state)
    };
    assert_eq!(state(stopped, first), Some(State::Running));
    assert_eq!(state(stopped, second), Some(State::Stopped));
    assert_eq!(state(&launched, first), None);
    assert_eq!(model[stopped].throughout(first.began, second.ended.unwrap()), None);

    let role = ["--role", "arn:aws:iam::111122223333:role/inventory"];
    let url = ec2.url();
    let there = python::lines("read_ec2.py", &[&["--endpoint", &url, "--regions", "eu-west-1"], &role[..]].concat());
    assert_eq!(there.len(), 12);
    assert!(there.iter().all(|line| line["instance"]["OwnerId"] == "111122223333"));
}

#[test]
fn the_fast_server_serves_twenty_thousand_instances_of_a_true_size() {
    let ec2 = FastEc2::start(FleetSpec::of(20_000));
    let ask = |more: &[(&str, &str)]| {
        let form = [&[("Action", "DescribeInstances"), ("MaxResults", "1000")], more].concat();
        ask_as(KEY, &ec2.url(), "ec2", "eu-west-1", &form).ok()
    };
    let mut body = ask(&[]);
    let mut bytes = body.len();
    while let Some(token) = texts(&body, "nextToken").pop() {
        body = ask(&[("NextToken", &token)]);
        bytes += body.len();
    }
    let listing = ec2.listings().remove(0);
    assert_eq!((listing.pages, listing.instances), (20, 20_000));
    let size = bytes / 20_000;
    assert!((3000..6000).contains(&size), "{size} bytes each");
}

#[cfg(feature = "aws")]
#[test]
fn the_collector_sweeps_the_fast_server_through_the_proxy() {
    use std::collections::BTreeSet;

    use crate::support::process::Stage;

    let ec2 = FastEc2::start(FleetSpec { regions: vec![REGION.to_owned()], ..FleetSpec::of(2_000) });
    let proxy = FaultProxy::start(&ec2.url());
    let topics = TestTopics::create(2);
    let mut config = topics.config();
    let aws = json!({"regions": [REGION], "endpoint_url": proxy.url()});
    config["collector"]["sources"] = json!([{"name": "fast", "aws": aws}]);
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let mut collector = Stage::start_with_env(&["collect", "--once"], &config, &keys);
    let ended = collector.wait(Duration::from_secs(60));
    assert!(ended.success(), "{}", collector.tail());
    let published: BTreeSet<_> = topics.read("raw").iter().map(|record| record.key().to_owned()).collect();
    assert_eq!(published, ec2.alive().into_keys().collect());
    assert!(proxy.calls("DescribeInstances", REGION).iter().all(|call| call.access_key == KEY));
}

#[test]
fn moto_enforces_policies_through_the_proxy_where_a_test_wants_it() {
    let moto = Moto::start(&[]);
    let proxy = FaultProxy::start(&moto.url());
    let policy = |action: &str| {
        json!({"Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": [action], "Resource": "*"}]})
        .to_string()
    };
    let url = moto.url();
    let create = |more: &[&str]| {
        let arguments = [&["--endpoint", &url, "--user", "collector", "--enforce"], more].concat();
        python::lines("create_user.py", &arguments).remove(0)
    };
    let key = create(&["--policy", &policy("ec2:DescribeInstances")]);
    let [id, secret] = ["access_key_id", "secret_access_key"].map(|name| key[name].as_str().unwrap());
    let through = proxy.url();
    let arguments = ["--endpoint", &through, "--regions", REGION, "--access-key", id, "--secret-key", secret];
    python::client("read_ec2.py", &arguments);
    create(&["--change", "--policy", &policy("ec2:DescribeTags")]);
    let complaint = python::complaint("read_ec2.py", &arguments);
    assert!(complaint.contains("UnauthorizedOperation") || complaint.contains("AccessDenied"), "{complaint}");
    assert_eq!(proxy.log().pop().unwrap().status, Some(403));
    let wrong = ["--endpoint", &through, "--regions", REGION, "--access-key", id, "--secret-key", "wrong"];
    assert!(python::complaint("read_ec2.py", &wrong).contains("AuthFailure"));
}

#[test]
fn an_organization_has_its_units_and_a_suspended_account() {
    let moto = Moto::start(&[]);
    let url = moto.url();
    let arguments =
        ["--ou", "prod", "--ou", "prod/web", "--account", "web=prod/web", "--account", "old", "--suspend", "old"];
    let made = python::lines("create_organization.py", &[&["--endpoint", &url], &arguments[..]].concat()).remove(0);
    assert_eq!(made["accounts"].as_object().unwrap().len(), 2);
    assert_eq!(made["ous"].as_object().unwrap().len(), 2);
}

#[test]
fn a_broker_of_the_test_comes_back_with_its_data() {
    let mut broker = Broker::start();
    let topics = TestTopics::create_on(&broker.address(), 1);
    let raw = topics.name("raw");
    let producer = topics.producer();
    send(&producer, &raw, Some(b"before"), Some(b"x"), &[], None);
    flush(&producer);
    broker.stop();
    assert!(std::net::TcpStream::connect(broker.address()).is_err());
    broker.start_again();
    broker.pause();
    broker.resume();
    send(&producer, &raw, Some(b"after"), Some(b"x"), &[], None);
    flush(&producer);
    let read = topics.read("raw");
    assert_eq!(Vec::from_iter(read.iter().map(|record| record.key())), ["before", "after"]);
    assert_eq!(Vec::from_iter(topics.table("raw").into_keys()), ["after", "before"]);
}

#[test]
fn three_brokers_take_records_while_one_is_away_and_wait_while_two_are() {
    // One that does not answer is not waited for as long as by default.
    let mut cluster = Cluster::start(&["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"]);
    let topics = TestTopics::create_replicated(&cluster.address(), 3);
    let raw = topics.name("raw");
    let producer = topics.producer();
    let publish = |name: &str| {
        (0..3).for_each(|partition| send(&producer, &raw, Some(name.as_bytes()), Some(b"x"), &[], Some(partition)));
    };
    cluster.broker(1).kill();
    publish("one-is-away");
    flush(&producer);
    cluster.broker(2).pause();
    publish("two-are-away");
    producer.flush(Duration::from_secs(2)).expect_err("a record of which there are not two copies");
    cluster.broker(2).resume();
    flush(&producer);
    cluster.broker(1).start_again();
    cluster.broker(3).kill();
    publish("another-is-away");
    flush(&producer);
    // A producer without idempotence may say it twice where an answer is lost.
    let read = topics.read("raw");
    let told: BTreeSet<_> = read.iter().map(|record| (record.partition, record.key())).collect();
    let names = ["one-is-away", "two-are-away", "another-is-away"];
    assert_eq!(told, (0..3).flat_map(|partition| names.map(|name| (partition, name))).collect());
}

#[test]
fn credentials_are_handed_out_as_to_containers_instances_and_by_sso() {
    let credentials = CredentialsServer::start();
    let (container, imds) = (credentials.container_url(), credentials.url());
    let find = |env: &[(&str, &str)]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/find_credentials.py");
        let mut command = Command::new(server("PYTHON"));
        let nothing = [("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")];
        let output = command.arg(script).envs(nothing).envs(env.iter().copied()).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        found["access_key"].as_str().map(str::to_owned)
    };
    assert_eq!(find(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds)]).as_deref(), Some("ASIAIMDS0001"));
    let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str());
    assert_eq!(find(&[uri]).as_deref(), Some("ASIACONTAINER0002"));
    credentials.require("pod");
    assert_eq!(find(&[uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "other")]), None);
    assert_eq!(find(&[uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod")]).as_deref(), Some("ASIACONTAINER0003"));
    let sso = format!("{imds}/federation/credentials?account_id=111122223333&role_name=x");
    let get = async { reqwest::Client::builder().no_proxy().build()?.get(sso).send().await?.text().await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(get).unwrap().contains("ASIASSO0004"));
}

#[test]
fn memory_and_cpu_time_of_a_process_are_measured() {
    let (id, before) = (std::process::id(), memory(std::process::id()));
    let ballast = std::hint::black_box(vec![1_u8; 64 << 20]);
    let after = memory(id);
    assert!(after.peak >= after.now && after.peak >= before.now + (60 << 20), "{before:?}, {after:?}");
    drop(ballast);
    let used = cpu_seconds(id);
    wait_for("CPU time", Duration::from_secs(20), || {
        std::hint::black_box((0..1_000_000_u64).fold(0, |sum, number| sum ^ number));
        (cpu_seconds(id) > used).then_some(())
    });
}
