//! The harness itself: each fault that it plays is seen by clients that are not ours, and what it does not play is not.

mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::ec2::{Fault, FaultProxy, on, on_any};
use crate::support::{python, server};

const REGION: &str = "eu-north-1";
const KEY: &str = "AKIATEST";

/// The instances of the region, by ID, as boto3 reads them past the proxy.
static FLEET: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let (endpoint, count) = (server("EC2"), 14);
    let arguments = ["--endpoint", &endpoint, "--regions", REGION, "--count", &count.to_string()];
    python::client("populate_ec2.py", &arguments);
    read(&endpoint)
});

fn proxy() -> FaultProxy {
    LazyLock::force(&FLEET);
    FaultProxy::start(&server("EC2"))
}

/// What boto3 reads.
fn read(endpoint: &str) -> BTreeMap<String, Value> {
    let arguments = ["--endpoint", endpoint, "--regions", REGION, "--page-size", "5"];
    let lines = python::lines("read_ec2.py", &arguments).into_iter();
    lines.map(|line| (line["instance"]["InstanceId"].as_str().unwrap().to_owned(), line["instance"].clone())).collect()
}

/// An answer, or how far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answered {
    Whole(u16, String),
    BrokenOff(u16),
    Nothing,
    TooLate,
}

impl Answered {
    fn ok(self) -> String {
        match self {
            Self::Whole(200, body) => body,
            other => panic!("{other:?}"),
        }
    }
    fn error(self) -> (u16, String) {
        let Self::Whole(status, body) = self else { panic!("{self:?}") };
        (status, texts(&body, "Code").remove(0))
    }
}

/// Asks without any AWS library.
fn ask_as(key: &str, url: &str, service: &str, region: &str, form: &[(&str, &str)]) -> Answered {
    let mut encoded = reqwest::Url::parse("http://form/").unwrap();
    encoded.query_pairs_mut().extend_pairs(form);
    let request = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    let request = request.header("authorization", authorization).timeout(Duration::from_secs(20));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.body(encoded.query().unwrap_or_default().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                response.text().await.map_or(Answered::BrokenOff(status), |body| Answered::Whole(status, body))
            }
            Err(failure) if failure.is_timeout() => Answered::TooLate,
            Err(_) => Answered::Nothing,
        }
    })
}

fn describe(url: &str, more: &[(&str, &str)]) -> Answered {
    let form = [&[("Action", "DescribeInstances"), ("Version", "2016-11-15")], more].concat();
    ask_as(KEY, url, "ec2", REGION, &form)
}

/// The whole listing by pages of five: the IDs.
fn list(url: &str) -> Vec<String> {
    let mut body = describe(url, &[("MaxResults", "5")]).ok();
    let mut ids = texts(&body, "instanceId");
    while let Some(token) = texts(&body, "nextToken").pop() {
        body = describe(url, &[("MaxResults", "5"), ("NextToken", &token)]).ok();
        ids.extend(texts(&body, "instanceId"));
    }
    ids
}

/// The texts of all elements of that name.
fn texts(xml: &str, name: &str) -> Vec<String> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&start).skip(1).map(|rest| rest.split(&end).next().unwrap().to_owned()).collect()
}

#[test]
fn without_rules_boto3_sees_through_the_proxy_what_it_sees_past_it() {
    let proxy = proxy();
    assert!(read(&proxy.url()) == *FLEET);
    let calls = proxy.calls("DescribeInstances", REGION);
    let pages: Vec<_> = calls.iter().map(|call| call.page).collect();
    assert!(pages.len() > 1);
    assert_eq!(pages, Vec::from_iter(1..=pages.len()));
    assert!(calls.iter().all(|call| call.access_key == "test" && call.status == Some(200) && call.error.is_none()));
    assert_eq!(calls[0].form["MaxResults"], "5");
}

#[test]
fn an_error_is_played_in_its_region_on_its_page_as_often_as_the_test_wants() {
    let proxy = proxy();
    proxy.when(on("DescribeInstances").region(REGION).page(2).times(2), Fault::error("InternalError", 500));
    let first = describe(&proxy.url(), &[("MaxResults", "5")]).ok();
    let token = texts(&first, "nextToken").remove(0);
    let second = || describe(&proxy.url(), &[("MaxResults", "5"), ("NextToken", &token)]);
    for _ in 0..2 {
        assert_eq!(second().error(), (500, "InternalError".to_owned()));
    }
    second().ok();
    let elsewhere = ask_as(KEY, &proxy.url(), "ec2", "eu-north-9", &[("Action", "DescribeInstances")]);
    assert_ne!(elsewhere, Answered::Nothing);
    let errors: Vec<_> = proxy.log().iter().map(|call| call.error.clone()).collect();
    assert_eq!(errors[..4], [None, Some("InternalError".to_owned()), Some("InternalError".to_owned()), None]);

    let rule = proxy.when(on_any(), Fault::denied());
    assert_eq!(describe(&proxy.url(), &[]).error(), (403, "UnauthorizedOperation".to_owned()));
    let identity =
        || ask_as(KEY, &proxy.url(), "sts", REGION, &[("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]);
    assert!(matches!(identity(), Answered::Whole(403, body) if body.starts_with("<ErrorResponse")));
    proxy.lift(rule);
    identity().ok();
}

#[test]
fn an_answer_can_be_cut_short_empty_late_or_none() {
    let proxy = proxy();
    let whole = describe(&proxy.url(), &[]).ok();
    let play = |fault| {
        let rule = proxy.when(on("DescribeInstances"), fault);
        let began = Instant::now();
        let answered = describe(&proxy.url(), &[]);
        proxy.lift(rule);
        (answered, began.elapsed())
    };
    // Without `assert_eq`, whose failure would print the whole fleet.
    assert!(play(Fault::CutXml).0 == Answered::Whole(200, whole[..whole.len() / 2].to_owned()));
    assert!(play(Fault::ShortBody).0 == Answered::BrokenOff(200));
    assert_eq!(play(Fault::EmptyBody).0, Answered::Whole(200, String::new()));
    assert_eq!(play(Fault::Close).0, Answered::Nothing);
    assert_eq!(play(Fault::Hang).0, Answered::TooLate);
    let (late, took) = play(Fault::Delay(Duration::from_millis(300)));
    assert!(late == Answered::Whole(200, whole));
    assert!(took >= Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_token_can_come_again_and_a_first_page_can_be_empty() {
    let proxy = proxy();
    let all = list(&proxy.url());
    assert_eq!(BTreeSet::from_iter(all.iter()), FLEET.keys().collect());

    let rule = proxy.when(on("DescribeInstances"), Fault::RepeatToken);
    let first = describe(&proxy.url(), &[("MaxResults", "5")]).ok();
    let token = texts(&first, "nextToken").remove(0);
    let second = describe(&proxy.url(), &[("MaxResults", "5"), ("NextToken", &token)]).ok();
    assert_eq!(texts(&second, "nextToken"), [token]);
    proxy.lift(rule);

    proxy.when(on("DescribeInstances"), Fault::EmptyFirstPage);
    let first = describe(&proxy.url(), &[("MaxResults", "5")]).ok();
    assert_eq!((texts(&first, "instanceId").len(), texts(&first, "nextToken").len()), (0, 1));
    assert_eq!(list(&proxy.url()), all);
    assert!(read(&proxy.url()) == *FLEET);
}

#[test]
fn instances_can_be_hidden_from_listings_or_from_everything() {
    let proxy = proxy();
    let hidden: Vec<_> = FLEET.keys().take(3).cloned().collect();
    let rest: Vec<_> = FLEET.keys().skip(3).cloned().collect();
    let by_id = |id: &str| {
        let filter = [("Filter.1.Name", "instance-id"), ("Filter.1.Value.1", id)];
        texts(&describe(&proxy.url(), &filter).ok(), "instanceId")
    };
    let listed = || {
        let mut ids = list(&proxy.url());
        ids.sort();
        ids
    };
    let rule = proxy.when(on_any(), Fault::hide_from_listings(&hidden));
    assert_eq!(listed(), rest);
    assert_eq!(by_id(&hidden[0]), [hidden[0].clone()]);
    proxy.lift(rule);
    let rule = proxy.when(on_any(), Fault::hide(&hidden));
    assert_eq!(listed(), rest);
    assert_eq!(by_id(&hidden[0]), Vec::<String>::new());
    assert_eq!(by_id(&rest[0]), [rest[0].clone()]);
    proxy.lift(rule);
    assert_eq!(listed().len(), FLEET.len());
    proxy.when(on_any(), Fault::HideShare(0.5));
    let left = listed();
    assert!(!left.is_empty() && left.len() < FLEET.len(), "{left:?}");
    assert_eq!(listed(), left);
    assert!(FLEET.keys().all(|id| by_id(id).is_empty() != left.contains(id)), "{left:?}");
}

#[test]
fn the_members_of_instances_can_be_stripped_shuffled_falsified_and_added_to() {
    let proxy = proxy();
    let tagged = FLEET.iter().find(|(_, instance)| !instance["Tags"].is_null()).unwrap().0.clone();
    let play = |fault| {
        let rule = proxy.when(on("DescribeInstances"), fault);
        let seen = read(&proxy.url());
        proxy.lift(rule);
        assert_eq!(Vec::from_iter(seen.keys()), Vec::from_iter(FLEET.keys()));
        seen
    };

    let stripped = play(Fault::StripTags(None));
    assert!(stripped.values().all(|instance| instance["Tags"].is_null()));
    for (id, instance) in play(Fault::StripTags(Some([tagged.clone()].into()))) {
        let tags = if id == tagged { &Value::Null } else { &FLEET[&id]["Tags"] };
        assert_eq!(instance["Tags"], *tags, "{id}");
    }

    let shuffled = play(Fault::Shuffle);
    assert!(shuffled != *FLEET, "nothing is shuffled");
    for (id, instance) in &shuffled {
        assert_eq!(sorted(instance), sorted(&FLEET[id]), "{id}");
    }

    let noisy = play(Fault::NoisyStateCode);
    for (id, instance) in &noisy {
        let [code, true_code] = [instance, &FLEET[id]].map(|of| of["State"]["Code"].as_u64().unwrap());
        assert!(code > 255 && code & 255 == true_code, "{id}: {code}, in truth {true_code}");
    }

    for instance in
        play(Fault::Insert(None, "<keyName>&lt;🛰&gt;</keyName><future><a>1</a></future>".to_owned())).values()
    {
        assert_eq!(instance["KeyName"], "<🛰>");
    }
    for instance in play(Fault::Replace("placement/tenancy".to_owned(), "so&amp;so".to_owned())).values() {
        assert_eq!(instance["Placement"]["Tenancy"], "so&so");
    }
    assert!(play(Fault::Delay(Duration::ZERO)) == *FLEET, "a lifted rule has left something behind");
}

#[test]
fn each_account_and_region_has_a_bucket_of_its_own() {
    let proxy = proxy();
    proxy.when(on("DescribeInstances"), Fault::Throttle { size: 2.0, refill_per_second: 0.0 });
    let ask = |key: &str, region: &str| {
        let asked = ask_as(key, &proxy.url(), "ec2", region, &[("Action", "DescribeInstances")]);
        matches!(asked, Answered::Whole(503, body) if body.contains("<Code>RequestLimitExceeded</Code>"))
    };
    let throttled: Vec<_> = (0..3).map(|_| ask(KEY, REGION)).collect();
    assert_eq!(throttled, [false, false, true]);
    assert!(!ask(KEY, "eu-north-2") && !ask("AKIAOTHER", REGION));
    let log = proxy.log();
    assert_eq!((log.len(), log.iter().filter(|call| call.was_throttled()).count()), (5, 1));
    proxy.lift_all();
    proxy.when(on("DescribeInstances"), Fault::Throttle { size: 1.0, refill_per_second: 1e6 });
    assert!((0..5).all(|_| !ask(KEY, REGION)), "it is not refilled");
}

#[test]
fn a_key_can_expire_and_those_of_a_role_are_known_by_their_account() {
    let proxy = proxy();
    let assume = || {
        let form = [
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", "arn:aws:iam::111122223333:role/inventory"),
            ("RoleSessionName", "test"),
        ];
        texts(&ask_as(KEY, &proxy.url(), "sts", REGION, &form).ok(), "AccessKeyId").remove(0)
    };
    let ask = |key: &str| ask_as(key, &proxy.url(), "ec2", REGION, &[("Action", "DescribeInstances")]);
    let key = assume();
    proxy.when(on("DescribeInstances").account("111122223333").times(1), Fault::unavailable());
    ask(KEY).ok();
    assert_eq!(ask(&key).error(), (503, "Unavailable".to_owned()));
    ask(&key).ok();
    proxy.expire(&key);
    assert_eq!(ask(&key).error(), (400, "RequestExpired".to_owned()));
    ask(KEY).ok();
    let next = assume();
    ask(&next).ok();
    proxy.expire_all();
    for key in [KEY, &next] {
        assert_eq!(ask(key).error(), (400, "RequestExpired".to_owned()));
    }
    let found = proxy.wait_until("the new key", Duration::from_secs(1), |calls| {
        calls.iter().find(|call| call.access_key == next).cloned()
    });
    assert_eq!(found.account.as_deref(), Some("111122223333"));
}

/// Lists at any depth in the order of their texts.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), sorted(member))).collect(),
        Value::Array(elements) => {
            let mut elements: Vec<_> = elements.iter().map(sorted).collect();
            elements.sort_by_key(Value::to_string);
            Value::Array(elements)
        }
        other => other.clone(),
    }
}
