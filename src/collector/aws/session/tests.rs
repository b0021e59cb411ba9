use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::fault::FaultKind;
use super::fake::{Answer, Call, Fake, accounts, error, keys, regions, units};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2-hunter2";

fn sessions(fake: &Fake, more: Value) -> Sessions {
    let mut written = json!({
        "regions": ["eu-west-1"],
        "endpoint_url": fake.url,
        "credentials": {"static": {"access_key_id": "OURS", "secret_access_key": SECRET, "session_token": SECRET}},
    });
    for (name, value) in more.as_object().unwrap() {
        written[name] = value.clone();
    }
    Sessions::with_clock("s", serde_json::from_value(written).unwrap(), fake.clock())
}

fn role(account: u64) -> String {
    format!("arn:aws:iam::{account:012}:role/rollcall")
}

fn scope(account: Option<&str>, region: &str) -> Scope {
    Scope { source: "s".to_owned(), account: account.map(str::to_owned), region: Some(region.to_owned()) }
}

fn scopes(discovery: &Discovery) -> Vec<String> {
    discovery.scopes.iter().map(Scope::to_string).collect()
}

/// Signs something with a client; who signed it is seen in the fake.
async fn use_it(client: &aws_sdk_ec2::Client) {
    let _ = client.describe_regions().send().await;
}

fn denied(call: &str) -> Answer {
    (403, error("AccessDenied", &format!("not authorized to perform {call}")))
}

// === Accounts and regions ===

#[tokio::test]
async fn the_own_account_is_asked_for_and_named_regions_are_not() {
    let fake = Fake::start(|_| None).await;
    let sessions = sessions(&fake, json!({"regions": ["eu-west-1", "us-east-1"]}));
    let discovery = sessions.discover().await;
    assert_eq!(scopes(&discovery), ["s/999999999999/eu-west-1", "s/999999999999/us-east-1"]);
    assert_eq!(discovery.unknown, []);
    let calls = fake.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let Call { action, key, region, .. } = &calls[0];
    // By the first region that is named: it is surely enabled.
    assert_eq!((action.as_str(), key.as_str(), region.as_str()), ("GetCallerIdentity", "OURS", "eu-west-1"));
}

#[tokio::test]
async fn listed_accounts_with_named_regions_need_no_call() {
    let fake = Fake::start(|_| None).await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(2)}, {"role_arn": role(1)}]}));
    assert_eq!(scopes(&sessions.discover().await), ["s/000000000001/eu-west-1", "s/000000000002/eu-west-1"]);
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn all_and_globs_are_what_is_enabled_in_each_account_and_a_named_region_stays() {
    let fake = Fake::start(|call| match call.key.as_str() {
        "KEY-OF-000000000001" => Some(regions(&["us-east-1", "eu-west-1", "eu-south-2"])),
        _ => None,
    })
    .await;
    let accounts = json!([{"role_arn": role(1)}, {"role_arn": role(2)}]);
    let all = sessions(&fake, json!({"regions": "all", "accounts": accounts}));
    let expected = ["1/eu-south-2", "1/eu-west-1", "1/us-east-1", "2/eu-west-1", "2/us-east-1"];
    assert_eq!(scopes(&all.discover().await), expected.map(|scope| format!("s/00000000000{scope}")));
    let asked: Vec<_> = fake.calls().into_iter().filter(|call| call.action == "DescribeRegions").collect();
    assert!(asked.iter().all(|call| call.param("AllRegions").is_empty()), "disabled ones were asked for: {asked:?}");

    let some = sessions(&fake, json!({"regions": ["ap-east-1", "eu-*"], "accounts": [{"role_arn": role(1)}]}));
    let expected = ["1/ap-east-1", "1/eu-south-2", "1/eu-west-1"];
    assert_eq!(scopes(&some.discover().await), expected.map(|scope| format!("s/00000000000{scope}")));
    assert!(fake.calls().iter().all(|call| call.region == "ap-east-1"), "not asked in the home region");
}

#[tokio::test]
async fn an_account_that_is_denied_does_not_hide_the_others() {
    let fake = Fake::start(|call| (call.param("RoleArn") == role(2)).then(|| denied("sts:AssumeRole"))).await;
    let accounts = json!([{"role_arn": role(1)}, {"role_arn": role(2)}, {"role_arn": role(3)}]);
    let sessions = sessions(&fake, json!({"regions": "all", "accounts": accounts}));
    let discovery = sessions.discover().await;
    assert_eq!(discovery.scopes.iter().map(|it| it.account.clone().unwrap()).collect::<BTreeSet<_>>().len(), 2);
    let [Unknown { account: Some(account), fault }] = &discovery.unknown[..] else { panic!("{discovery:?}") };
    assert_eq!(account, "000000000002");
    for part in ["AssumeRole", &role(2), "AccessDenied"] {
        assert!(fault.message.contains(part), "{part} not in {fault}");
    }
}

#[tokio::test]
async fn scopes_are_believed_for_an_hour_and_stay_when_they_cannot_be_asked_for_again() {
    let fails = Arc::new(Mutex::new(false));
    let fake = Fake::start({
        let fails = fails.clone();
        move |call| (*fails.lock().unwrap() && call.action == "DescribeRegions").then(|| denied("ec2:DescribeRegions"))
    })
    .await;
    let sessions = sessions(&fake, json!({"regions": "all"}));
    let first = sessions.discover().await;
    assert_eq!(scopes(&first).len(), 2);
    assert_eq!(fake.calls().len(), 2);

    fake.pass(HOUR - MINUTE);
    assert_eq!(sessions.discover().await, first);
    assert_eq!(fake.calls(), [], "asked within the hour");

    *fails.lock().unwrap() = true;
    fake.pass(MINUTE);
    let second = sessions.discover().await;
    assert_eq!(fake.calls().len(), 2);
    assert_eq!(second.scopes, first.scopes);
    assert_eq!(second.unknown.len(), 1);
    assert_eq!(second.unknown[0].account.as_deref(), Some("999999999999"));

    // A refusal is believed for a minute, told all the time, and over when it is over.
    assert_eq!(sessions.discover().await, second);
    assert_eq!(fake.calls(), []);
    *fails.lock().unwrap() = false;
    fake.pass(MINUTE);
    assert_eq!(sessions.discover().await, first);
}

#[tokio::test]
async fn accounts_that_cannot_be_told_are_unknown_not_none() {
    let fake = Fake::start(|call| (call.action == "GetCallerIdentity").then(|| denied("anything"))).await;
    let discovery = sessions(&fake, json!({})).discover().await;
    assert_eq!(discovery.scopes, []);
    assert_eq!(discovery.unknown.len(), 1);
    assert_eq!(discovery.unknown[0].account, None);
}

// === Organizations ===

fn active() -> Value {
    json!({"State": "ACTIVE", "Status": "ACTIVE"})
}

#[tokio::test]
async fn an_organization_is_its_active_accounts_of_all_pages() {
    let fake = Fake::start(|call| match (call.action.as_str(), call.param("NextToken")) {
        ("ListAccounts", "") => Some(accounts(
            &[
                ("000000000001", active()),
                ("000000000002", json!({"State": "SUSPENDED", "Status": "ACTIVE"})),
                ("000000000003", json!({"Status": "SUSPENDED"})),
            ],
            Some("one"),
        )),
        // An empty page is not the end.
        ("ListAccounts", "one") => Some(accounts(&[], Some("two"))),
        ("ListAccounts", "two") => Some(accounts(
            &[
                ("000000000004", json!({"Status": "ACTIVE"})),
                ("000000000005", json!({"State": "PENDING_CLOSURE"})),
                ("000000000006", active()),
            ],
            None,
        )),
        _ => None,
    })
    .await;
    let organization =
        json!({"role_name": "in/rollcall-{account_id}", "external_id": "e-1", "exclude_accounts": ["000000000006"]});
    let sessions = sessions(&fake, json!({"organization": organization}));
    let discovery = sessions.discover().await;
    assert_eq!(scopes(&discovery), ["s/000000000001/eu-west-1", "s/000000000004/eu-west-1"]);
    assert!(fake.calls().iter().all(|call| call.action == "ListAccounts" && call.key == "OURS"));

    sessions.ec2(&discovery.scopes[1]).await.unwrap();
    let calls = fake.calls();
    assert_eq!(calls[0].param("RoleArn"), "arn:aws:iam::000000000004:role/in/rollcall-000000000004");
    assert_eq!(calls[0].param("ExternalId"), "e-1");
}

/// r-root ─ ou-a (1) ─ ou-b (2) ─ ou-c (3); ou-d (4)
fn tree(call: &Call) -> Option<Answer> {
    let [root, a, b, c, d] = UNITS;
    let parent = call.param("ParentId");
    let account = |id: &str| accounts(&[(id, active())], None);
    Some(match call.action.as_str() {
        "ListAccounts" => {
            let all = ["000000000001", "000000000002", "000000000003", "000000000004"];
            accounts(&all.map(|id| (id, active())), None)
        }
        "ListAccountsForParent" if parent == a => account("000000000001"),
        "ListAccountsForParent" if parent == b => account("000000000002"),
        "ListAccountsForParent" if parent == c => account("000000000003"),
        "ListAccountsForParent" if parent == d => account("000000000004"),
        "ListAccountsForParent" => accounts(&[], None),
        "ListOrganizationalUnitsForParent" if parent == root => units(&[a, d]),
        "ListOrganizationalUnitsForParent" if parent == a => units(&[b]),
        "ListOrganizationalUnitsForParent" if parent == b => units(&[c]),
        "ListOrganizationalUnitsForParent" => units(&[]),
        _ => return None,
    })
}
const UNITS: [&str; 5] = ["r-root", "ou-root-aaaaaaaa", "ou-root-bbbbbbbb", "ou-root-cccccccc", "ou-root-dddddddd"];

#[tokio::test]
async fn organizational_units_are_included_and_excluded_with_all_that_is_below() {
    let [root, a, b, _, d] = UNITS;
    for (include, exclude, expected) in [
        (vec![], vec![], "1234"),
        (vec![root], vec![], "1234"),
        (vec![b], vec![], "23"),
        (vec![a, d], vec![b], "14"),
        (vec![], vec![b], "14"),
        (vec![], vec![root], ""),
    ] {
        let fake = Fake::start(tree).await;
        let organization = json!({"role_name": "r", "include_ous": include, "exclude_ous": exclude});
        let discovery = sessions(&fake, json!({"organization": organization})).discover().await;
        let found: String = discovery.scopes.iter().map(|it| it.account.clone().unwrap().split_off(11)).collect();
        assert_eq!((found.as_str(), discovery.unknown), (expected, vec![]), "{include:?} but {exclude:?}");
        let asked: BTreeSet<_> = fake.calls().into_iter().map(|call| call.action).collect();
        assert_eq!(asked.contains("ListAccounts"), include.is_empty(), "{asked:?}");
    }
}

#[tokio::test]
async fn a_unit_that_cannot_be_listed_makes_the_accounts_unknown() {
    // What is to be left out must not be swept because it cannot be listed.
    let fake = Fake::start(|call| match call.action.as_str() {
        "ListAccountsForParent" => Some((400, json!({"__type": "AccessDeniedException", "Message": "no"}).to_string())),
        _ => tree(call),
    })
    .await;
    let organization = json!({"role_name": "r", "exclude_ous": [UNITS[1]]});
    let discovery = sessions(&fake, json!({"organization": organization})).discover().await;
    assert_eq!(discovery.scopes, []);
    assert!(discovery.unknown[0].fault.message.contains(&format!("ListAccountsForParent {}", UNITS[1])));
}

#[tokio::test]
async fn a_repeated_page_token_is_a_fault_not_the_end() {
    let fake = Fake::start(|call| {
        (call.action == "ListAccounts").then(|| accounts(&[("000000000001", active())], Some("again")))
    })
    .await;
    let discovery = sessions(&fake, json!({"organization": {"role_name": "r"}})).discover().await;
    assert_eq!(discovery.scopes, []);
    assert_eq!(discovery.unknown[0].fault.kind, FaultKind::RepeatedToken);
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test]
async fn the_own_account_of_an_organization_is_entered_with_its_own_credentials_where_asked_for() {
    let listed = |call: &Call| {
        (call.action == "ListAccounts")
            .then(|| accounts(&[("000000000001", active()), ("999999999999", active())], None))
    };
    for (include_own, key) in [(false, "KEY-OF-999999999999"), (true, "OURS")] {
        let fake = Fake::start(listed).await;
        let sessions = sessions(&fake, json!({"organization": {"role_name": "r", "include_own": include_own}}));
        assert_eq!(scopes(&sessions.discover().await), ["s/000000000001/eu-west-1", "s/999999999999/eu-west-1"]);
        let client = sessions.ec2(&scope(Some("999999999999"), "eu-west-1")).await.unwrap();
        fake.calls();
        use_it(&client).await;
        assert_eq!(fake.calls()[0].key, key);
    }
}

// === Roles ===

#[tokio::test]
async fn roles_are_assumed_in_order_each_with_the_keys_of_the_one_before() {
    let fake = Fake::start(|_| None).await;
    let account = json!({
        "role_arn": role(3), "external_id": "third", "session_name": "sweep",
        "via": [{"role_arn": role(1)}, {"role_arn": role(2), "external_id": "second", "session_name": "hop"}],
    });
    let sessions = sessions(&fake, json!({"accounts": [account], "sts_region": "eu-central-1"}));
    let client = sessions.ec2(&scope(Some("000000000003"), "eu-west-1")).await.unwrap();
    use_it(&client).await;
    let mut calls = fake.calls();
    let used = calls.pop().unwrap();
    assert_eq!((used.action.as_str(), used.key.as_str()), ("DescribeRegions", "KEY-OF-000000000003"));
    assert_eq!(used.region, "eu-west-1");
    let mut hops: Vec<_> = calls
        .iter()
        .map(|call| {
            let params = ["RoleArn", "ExternalId", "RoleSessionName"].map(|name| call.param(name).to_owned());
            assert_eq!((call.action.as_str(), call.region.as_str()), ("AssumeRole", "eu-central-1"));
            (call.key.clone(), params)
        })
        .collect();
    hops.sort_by_key(|(_, params)| params[0].clone());
    let hop = |key: &str, arn: u64, external_id: &str, name: &str| {
        (key.to_owned(), [role(arn), external_id.to_owned(), name.to_owned()])
    };
    assert_eq!(
        hops,
        [
            hop("OURS", 1, "", "rollcall"),
            hop("KEY-OF-000000000001", 2, "second", "hop"),
            hop("KEY-OF-000000000002", 3, "third", "sweep"),
        ]
    );
}

#[tokio::test]
async fn a_hub_that_accounts_have_in_common_is_entered_once() {
    let fake = Fake::start(|_| None).await;
    let account = |id: u64| json!({"role_arn": role(id), "via": [{"role_arn": role(9)}]});
    let sessions = sessions(&fake, json!({"accounts": [account(1), account(2)]}));
    for id in ["000000000001", "000000000002"] {
        sessions.ec2(&scope(Some(id), "eu-west-1")).await.unwrap();
    }
    assert_eq!(fake.calls().iter().filter(|call| call.param("RoleArn") == role(9)).count(), 1);
}

#[tokio::test]
async fn an_account_that_is_not_configured_is_not_entered() {
    let fake = Fake::start(|_| None).await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
    let fault = sessions.ec2(&scope(Some("000000000002"), "eu-west-1")).await.unwrap_err();
    assert!(fault.message.contains("000000000002"), "{fault}");
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn the_identity_is_that_of_the_account_asked_for() {
    let fake = Fake::start(|_| None).await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
    let own = sessions.identity(None).await.unwrap();
    assert_eq!((own.account.as_str(), own.arn.as_str()), ("999999999999", "arn:aws:iam::999999999999:user/me"));
    sessions.identity(Some("000000000001")).await.unwrap();
    let asked: Vec<_> = fake.asked().into_iter().filter(|(action, _)| action == "GetCallerIdentity").collect();
    let by = |key: &str| ("GetCallerIdentity".to_owned(), key.to_owned());
    assert_eq!(asked, [by("OURS"), by("KEY-OF-000000000001")]);
}

#[tokio::test]
async fn a_client_does_not_try_again_by_itself() {
    let fake =
        Fake::start(|call| (call.action == "DescribeRegions").then(|| (503, error("Unavailable", "later")))).await;
    let client = sessions(&fake, json!({})).ec2(&scope(None, "eu-west-1")).await.unwrap();
    use_it(&client).await;
    assert_eq!(fake.calls().len(), 1);
}

// === Renewal ===

#[tokio::test]
async fn keys_are_fetched_once_by_many_and_renewed_six_minutes_ahead_of_an_hour() {
    let fake = Fake::start(|_| None).await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
    let at_once = || async {
        let mut all = JoinSet::new();
        for region in ["eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1", "us-east-1", "us-west-2"] {
            let sessions = sessions.clone();
            all.spawn(async move { sessions.ec2(&scope(Some("000000000001"), region)).await.map(drop) });
        }
        all.join_all().await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        fake.calls().len()
    };
    assert_eq!(at_once().await, 1);
    fake.pass(HOUR - 7 * MINUTE);
    assert_eq!(at_once().await, 0);
    fake.pass(MINUTE);
    assert_eq!(at_once().await, 1);
}

#[tokio::test]
async fn keys_that_end_soon_are_not_fetched_for_every_call() {
    // The second kind has ended before it comes: this machine's clock is ahead.
    for expiry in [SystemTime::now() + 2 * MINUTE, SystemTime::now() - HOUR] {
        let short = move |call: &Call| (call.action == "AssumeRole").then(|| keys(call, "SHORT", expiry));
        let fake = Fake::start(short).await;
        let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
        for _ in 0..3 {
            sessions.ec2(&scope(Some("000000000001"), "eu-west-1")).await.unwrap();
        }
        assert_eq!(fake.calls().len(), 1);
    }
}

#[tokio::test]
async fn expired_keys_are_forgotten_with_what_they_were_made_of_and_once_for_all_who_complain() {
    let fake = Fake::start(|_| None).await;
    let account = json!({"role_arn": role(2), "via": [{"role_arn": role(1)}]});
    let sessions = sessions(&fake, json!({"accounts": [account]}));
    let of = scope(Some("000000000002"), "eu-west-1");
    sessions.ec2(&of).await.unwrap();
    assert_eq!(fake.calls().len(), 2);
    fake.pass(MINUTE);
    for _ in 0..3 {
        sessions.refresh(Some("000000000002")).await;
        sessions.ec2(&of).await.unwrap();
    }
    assert_eq!(fake.calls().len(), 2, "fetched for each complaint");
}

#[tokio::test]
async fn a_client_that_is_held_signs_with_the_new_keys() {
    let count = Arc::new(Mutex::new(0));
    let fake = Fake::start(move |call| {
        (call.action == "AssumeRole").then(|| {
            *count.lock().unwrap() += 1;
            keys(call, &format!("KEY-{}", count.lock().unwrap()), SystemTime::now() + HOUR)
        })
    })
    .await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
    let client = sessions.ec2(&scope(Some("000000000001"), "eu-west-1")).await.unwrap();
    use_it(&client).await;
    fake.pass(MINUTE);
    sessions.refresh(Some("000000000001")).await;
    use_it(&client).await;
    let signed: Vec<_> = fake.asked().into_iter().filter(|(action, _)| action == "DescribeRegions").collect();
    assert_eq!(signed.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["KEY-1", "KEY-2"]);
}

#[tokio::test]
async fn wrong_keys_for_ever_are_one_call_a_minute() {
    let fake = Fake::start(|call| (call.action == "AssumeRole").then(|| denied("sts:AssumeRole"))).await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
    for _ in 0..5 {
        for region in ["eu-west-1", "us-east-1"] {
            let fault = sessions.ec2(&scope(Some("000000000001"), region)).await.unwrap_err();
            assert!(fault.message.contains(&role(1)), "{fault}");
            sessions.refresh(Some("000000000001")).await;
            fake.pass(MINUTE / 2);
        }
        assert_eq!(fake.calls().len(), 1);
    }
}

#[tokio::test]
async fn good_keys_are_kept_while_new_ones_cannot_be_had() {
    let fails = Arc::new(Mutex::new(false));
    let fake = Fake::start({
        let fails = fails.clone();
        move |_| fails.lock().unwrap().then(|| denied("sts:AssumeRole"))
    })
    .await;
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(1)}]}));
    let of = scope(Some("000000000001"), "eu-west-1");
    sessions.ec2(&of).await.unwrap();
    *fails.lock().unwrap() = true;
    fake.pass(HOUR - 2 * MINUTE);
    sessions.ec2(&of).await.unwrap();
    sessions.ec2(&of).await.unwrap();
    assert_eq!(fake.calls().len(), 2);
    fake.pass(2 * MINUTE);
    sessions.ec2(&of).await.unwrap_err();
}

// === Kinds of credentials ===

#[tokio::test]
async fn a_token_file_is_read_anew_at_every_renewal() {
    let fake = Fake::start(|_| None).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "token-1").unwrap();
    let web = json!({"role_arn": role(7), "token_file": file.path(), "session_name": "pod"});
    let sessions = sessions(&fake, json!({"credentials": {"web_identity": web}}));
    let client = sessions.ec2(&scope(None, "eu-west-1")).await.unwrap();
    std::fs::write(file.path(), "token-2\n").unwrap();
    fake.pass(HOUR - MINUTE);
    use_it(&client).await;
    let calls = fake.calls();
    let tokens: Vec<_> = calls.iter().map(|call| call.param("WebIdentityToken")).collect();
    assert_eq!(tokens, ["token-1", "token-2", ""]);
    assert_eq!((calls[0].param("RoleArn"), calls[0].param("RoleSessionName")), (role(7).as_str(), "pod"));
    assert_eq!((calls[0].key.as_str(), calls[2].key.as_str()), ("", "KEY-OF-000000000007"));
}

#[tokio::test]
async fn a_token_file_that_is_not_there_is_named() {
    let fake = Fake::start(|_| None).await;
    let web = json!({"role_arn": role(7), "token_file": "/nowhere/token"});
    let fault = sessions(&fake, json!({"credentials": {"web_identity": web}})).identity(None).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::InvalidFile);
    assert!(fault.message.contains("/nowhere/token"), "{fault}");
}

#[tokio::test]
async fn a_profile_that_is_not_there_is_named() {
    let fake = Fake::start(|_| None).await;
    let fault = sessions(&fake, json!({"credentials": {"profile": "no-such-one"}})).identity(None).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Credentials);
    assert!(fault.message.contains("no-such-one"), "{fault}");
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn keys_that_stay_the_same_sign() {
    let fake = Fake::start(|_| None).await;
    let client = sessions(&fake, json!({})).ec2(&scope(None, "eu-west-1")).await.unwrap();
    use_it(&client).await;
    assert_eq!(fake.asked(), [("DescribeRegions".to_owned(), "OURS".to_owned())]);
}

// === Network ===

#[tokio::test]
async fn each_service_can_have_an_endpoint_of_its_own() {
    let [ec2, sts, organizations] = [Fake::start(|_| None).await, Fake::start(|_| None).await, Fake::start(tree).await];
    let endpoints = json!({"ec2": ec2.url, "sts": sts.url, "organizations": organizations.url});
    let more = json!({"endpoint_url": "http://127.0.0.1:1", "endpoints": endpoints, "regions": "all",
        "organization": {"role_name": "r"}});
    let discovery = sessions(&sts, more).discover().await;
    assert_eq!(discovery.unknown, []);
    let actions = |fake: &Fake| fake.calls().into_iter().map(|call| call.action).collect::<BTreeSet<_>>();
    assert_eq!(actions(&ec2), ["DescribeRegions".to_owned()].into());
    assert_eq!(actions(&sts), ["AssumeRole".to_owned()].into());
    assert_eq!(actions(&organizations), ["ListAccounts".to_owned()].into());
}

#[tokio::test]
async fn sts_is_regional_and_fips_and_dual_stack_change_the_host() {
    // The proxy refuses, and so tells where it was to go.
    let mut cases = JoinSet::new();
    for (more, host) in [
        (json!({"regions": ["eu-west-1"]}), "sts.eu-west-1.amazonaws.com:443"),
        (json!({"regions": "all"}), "sts.us-east-1.amazonaws.com:443"),
        (json!({"regions": ["cn-*"]}), "sts.cn-northwest-1.amazonaws.com.cn:443"),
        (json!({"regions": "all", "sts_region": "us-gov-east-1"}), "sts.us-gov-east-1.amazonaws.com:443"),
        (json!({"regions": ["us-east-2"], "fips": true}), "sts-fips.us-east-2.amazonaws.com:443"),
        (json!({"regions": ["eu-west-1"], "dual_stack": true}), "sts.eu-west-1.api.aws:443"),
    ] {
        cases.spawn(asks_the_proxy_for(more, host));
    }
    cases.join_all().await;
}

async fn asks_the_proxy_for(mut more: Value, host: &str) {
    let (url, first) = refusing_proxy();
    more["proxy"] = json!(url);
    more["proxy_username"] = json!("me");
    more["proxy_password"] = json!("p@ss:w/rd-hunter2");
    more["endpoint_url"] = json!(null);
    let fake = Fake::start(|_| None).await;
    let fault = sessions(&fake, more).identity(None).await.unwrap_err();
    // Where nobody came, we do: nothing must wait for ever.
    let _ = std::net::TcpStream::connect(url.trim_start_matches("http://"));
    let seen = first.join().unwrap();
    assert!(seen.starts_with(&format!("CONNECT {host} ")), "{seen}");
    // me:p@ss:w/rd-hunter2
    assert!(seen.contains("Basic bWU6cEBzczp3L3JkLWh1bnRlcjI="), "{seen}");
    assert!(!fault.message.contains("hunter2"), "{fault}");
}

/// A proxy that refuses what it is asked for first and then is gone; what it was asked for.
fn refusing_proxy() -> (String, std::thread::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (url, first)
}

#[tokio::test]
async fn a_file_of_certificates_that_holds_none_is_refused_by_name() {
    let fake = Fake::start(|_| None).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    for content in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(file.path(), content).unwrap();
        let fault = sessions(&fake, json!({"ca_file": file.path()})).identity(None).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::InvalidFile, "{content}");
        assert!(fault.message.contains(file.path().to_str().unwrap()), "{fault}");
    }
}

// === Secrets ===

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_shown_since_it_may_hold_keys() {
    for body in ["<AssumeRoleResponse><Secret>hunter2</Secret>", "hunter2", "<AssumeRoleResponse/>"] {
        let fake = Fake::start(move |call| (call.action != "DescribeRegions").then(|| (200, body.to_owned()))).await;
        let web = tempfile::NamedTempFile::new().unwrap();
        let web = json!({"web_identity": {"role_arn": role(7), "token_file": web.path()}});
        for more in [json!({"accounts": [{"role_arn": role(1)}]}), json!({"credentials": web})] {
            let sessions = sessions(&fake, more);
            let fault = sessions.discover().await.unknown.pop().map(|unknown| unknown.fault);
            let entered = sessions.ec2(&scope(Some("000000000001"), "eu-west-1")).await.map(drop);
            assert!(entered.is_err(), "{body}");
            assert!(!format!("{fault:?} {entered:?}").contains("hunter2"), "{fault:?} {entered:?}");
        }
    }
}

#[tokio::test]
async fn no_log_tells_a_secret_however_much_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    // Of this thread, on which everything here runs.
    let _guard = tracing::subscriber::set_default(subscriber);
    let fake = Fake::start(|_| None).await;
    let mut token = tempfile::NamedTempFile::new().unwrap();
    writeln!(token, "hunter2.is.a.token").unwrap();
    let web = json!({"web_identity": {"role_arn": role(7), "token_file": token.path()}});
    let accounts = json!([{"role_arn": role(1), "external_id": "hunter2-is-an-id"}]);
    let proxy = json!({
        "proxy": fake.url, "proxy_username": "hunter2-user", "proxy_password": "hunter2-password",
        "endpoint_url": "http://aws.invalid", "regions": "all",
    });
    let [roles, web] = [json!({"accounts": accounts, "regions": "all"}), json!({"credentials": web, "regions": "all"})];
    for more in [roles, web, proxy] {
        let discovery = sessions(&fake, more).discover().await;
        assert_eq!((discovery.scopes.len(), discovery.unknown), (2, vec![]));
    }
    let log = log.0.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("AssumeRoleWithWebIdentity") && log.contains("TRACE"), "{log}");
    for secret in ["hunter2", "assumed-secret", "assumed-token"] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret} in:\n{}", lines.join("\n"));
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_fault_tells_a_secret() {
    let fake = Fake::start(|call| (call.action == "AssumeRole").then(|| denied("sts:AssumeRole"))).await;
    let via = json!([{"role_arn": role(1), "external_id": SECRET}]);
    let sessions = sessions(&fake, json!({"accounts": [{"role_arn": role(2), "external_id": SECRET, "via": via}]}));
    let fault = sessions.ec2(&scope(Some("000000000002"), "eu-west-1")).await.unwrap_err();
    assert!(fault.message.contains("AccessDenied") && !format!("{fault:?}").contains("hunter2"), "{fault:?}");
    let keys = sessions.0.keys(Some("000000000002")).await.unwrap();
    let shown = format!("{:?} {keys}", Provider(keys.clone()));
    assert!(shown.contains(&role(2)) && !shown.contains("hunter2"), "{shown}");
}

// === Overlap ===

#[test]
fn two_sources_overlap_in_an_account_and_region_that_both_sweep() {
    let of = |source: &str, account: Option<&str>, region: &str| Scope {
        source: source.to_owned(),
        ..scope(account, region)
    };
    let (a, b) = (of("a", Some("1"), "eu-west-1"), of("b", Some("1"), "eu-west-1"));
    let others =
        [of("b", Some("2"), "eu-west-1"), of("b", Some("1"), "eu-west-2"), of("a", None, "x"), of("b", None, "x")];
    assert_eq!(overlap(&[&[a.clone()][..], &others].concat()), None);
    assert_eq!(overlap(&[&[a.clone()][..], &others, std::slice::from_ref(&b)].concat()), Some((a, b)));
}
