//! What is tried again, how often, and what is not.

use std::sync::atomic::Ordering;

use chrono::Utc;

use super::*;
use crate::collector::aws::stand_in::{Reply, SECRET, StandIn, ids, scope};

/// Sweeps after such a reply.
async fn after(reply: Reply) -> (StandIn, Fault) {
    let ec2 = StandIn::says([reply]).await;
    let fault = ec2.sweep().await.expect_err("a fault");
    (ec2, fault)
}

#[tokio::test]
async fn what_is_transient_is_tried_again() {
    let replies = [
        Reply::error(503, "RequestLimitExceeded"),
        Reply::error(500, "InternalError"),
        Reply::error(503, "Unavailable"),
        Reply::new(502, "<html>Bad Gateway</html>"),
        Reply::new(504, ""),
        Reply::new(500, "<Response><Err"),
        Reply::page(&["i-1"], None),
    ];
    let ec2 = StandIn::says(replies).await;
    assert_eq!(ids(&ec2.sweep().await.expect("pages")), ["i-1"]);
    let codes: Vec<_> = ec2.observed.calls().into_iter().map(|(_, code)| code).collect();
    let expected =
        ["RequestLimitExceeded", "InternalError", "Unavailable", "unavailable", "unavailable", "unavailable", "ok"];
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn nobody_there_is_tried_again_until_the_deadline() {
    let ec2 = StandIn::says([]).await;
    let began = ec2.time.now();
    let nowhere = |_: aws_sdk_ec2::Client| async {
        Err::<(), _>(Failure::from(Fault::new(FaultKind::Unavailable, "connection refused")))
    };
    let calls = &ec2.api.calls;
    let fault = calls.call(&scope("r-1"), "Nothing", calls.deadline(), nowhere).await.expect_err("nobody");
    assert_eq!(fault.kind, FaultKind::Unavailable);
    let slept = ec2.time.slept();
    assert!((8..200).contains(&slept.len()), "{}", slept.len());
    assert!(slept.iter().all(|pause| *pause <= LONGEST_BACKOFF));
    assert!(ec2.time.now() - began <= Duration::from_secs(600));
}

#[tokio::test]
async fn the_next_call_comes_no_sooner_than_aws_asks() {
    for code in ["RequestLimitExceeded", "Unavailable"] {
        for (header, value) in [("x-amz-retry-after", "9000"), ("Retry-After", "9")] {
            let later = Reply::error(503, code).with(header, value);
            let ec2 = StandIn::says([later, Reply::page(&[], None)]).await;
            ec2.sweep().await.expect("pages");
            assert!(ec2.time.slept().iter().sum::<Duration>() >= Duration::from_secs(9), "{code}, {header}");
        }
    }
}

#[tokio::test]
async fn a_throttle_holds_up_whatever_is_called_in_the_region_next() {
    let throttle = Reply::error(503, "RequestLimitExceeded").with("x-amz-retry-after", "9000");
    let ec2 = StandIn::says([throttle, Reply::page(&[], None), Reply::page(&[], None)]).await;
    let attempt = |client: aws_sdk_ec2::Client| async move {
        client.describe_tags().send().await.map(drop).map_err(|error| Failure::of("DescribeTags", &error))
    };
    let (calls, scope) = (&ec2.api.calls, scope("r-1"));
    let soon = calls.deadline_in(Duration::from_secs(5));
    let fault = calls.call(&scope, "DescribeTags", soon, attempt).await.expect_err("a throttle");
    assert_eq!(fault.kind, FaultKind::Throttled);
    ec2.sweep_of("r-2").await.expect("another region");
    assert!(ec2.observed.waited().is_zero());
    ec2.sweep_of("r-1").await.expect("pages");
    assert!(ec2.observed.waited() >= Duration::from_secs(9), "{:?}", ec2.observed.waited());
}

#[tokio::test]
async fn the_budget_is_of_an_account_in_a_region_and_waits_are_told() {
    let pages = || [Some("a"), Some("b"), Some("c"), None].map(|token| Reply::page(&[], token));
    let ec2 = StandIn::says(pages().into_iter().chain(pages())).await;
    ec2.sweep_of("r-1").await.expect("pages");
    let once = ec2.observed.waited();
    // Two at once, two at half of the two calls a second.
    assert!(once > Duration::from_millis(1900) && once < Duration::from_millis(2100), "{once:?}");
    ec2.sweep_of("r-2").await.expect("pages");
    let twice = ec2.observed.waited();
    assert!(twice > once && twice < 2 * once + Duration::from_millis(1), "{twice:?}");
}

#[tokio::test]
async fn what_somebody_has_to_repair_is_not_tried_again() {
    let cases = [
        (403, "UnauthorizedOperation", FaultKind::Denied),
        (400, "OptInRequired", FaultKind::AccountRetired),
        (400, "InvalidParameterCombination", FaultKind::InvalidRequest),
        (400, "SomethingNew", FaultKind::InvalidRequest),
    ];
    for (status, code, kind) in cases {
        let (ec2, fault) = after(Reply::error(status, code)).await;
        assert_eq!(fault.kind, kind, "{code}");
        assert_eq!(ec2.asked().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_fault_names_call_code_message_and_request_but_no_secret() {
    let (ec2, fault) = after(Reply::error(403, "UnauthorizedOperation")).await;
    assert_eq!(fault.message, "DescribeInstances: UnauthorizedOperation: no & no (request r-e-q)");
    let (_, fault) = after(Reply::new(403, "<html>").with("x-amzn-requestid", "r-2")).await;
    assert!(fault.message.contains("HTTP status 403") && fault.message.ends_with("(request r-2)"), "{fault}");
    for text in [fault.message, ec2.asked().concat()] {
        assert!(!text.contains(SECRET) && !text.to_lowercase().contains("authorization"), "{text}");
    }
}

#[tokio::test]
async fn codes_as_labels_are_of_a_fixed_list() {
    let (ec2, _) = after(Reply::error(400, "Code-of-somebody-else")).await;
    assert_eq!(ec2.observed.calls(), [("DescribeInstances", "other")]);
}

#[tokio::test]
async fn aged_credentials_are_refreshed_once_and_the_page_is_asked_for_again() {
    for code in ["ExpiredToken", "ExpiredTokenException", "RequestExpired"] {
        let replies = [Reply::page(&["i-1"], Some("a")), Reply::error(400, code), Reply::page(&["i-2"], None)];
        let ec2 = StandIn::says(replies).await;
        assert_eq!(ids(&ec2.sweep().await.expect("pages")), ["i-1", "i-2"]);
        assert_eq!(ec2.access.refreshed.load(Ordering::Relaxed), 1);
        let asked = ec2.asked();
        assert_eq!(asked[1], asked[2], "the same page");
    }
}

#[tokio::test]
async fn credentials_that_stay_aged_are_bad_or_the_clock_is_wrong() {
    let cases = [
        (Utc::now(), FaultKind::Credentials),
        (Utc::now() - chrono::TimeDelta::minutes(4), FaultKind::Credentials),
        (Utc::now() - chrono::TimeDelta::minutes(6), FaultKind::Clock),
        (Utc::now() + chrono::TimeDelta::minutes(6), FaultKind::Clock),
    ];
    for (date, kind) in cases {
        let expired = Reply::error(400, "RequestExpired").with("Date", &date.to_rfc2822());
        let ec2 = StandIn::says([expired.clone(), expired]).await;
        assert_eq!(ec2.sweep().await.expect_err("a fault").kind, kind, "{date}");
        assert_eq!(ec2.asked().len(), 2);
        assert_eq!(ec2.access.refreshed.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn credentials_that_are_good_elsewhere_mean_that_the_region_is_disabled() {
    let ec2 = StandIn::says([Reply::error(401, "AuthFailure"), Reply::page(&["i-1"], None)]).await;
    let fault = ec2.sweep_of("r-1").await.expect_err("a disabled region");
    assert_eq!(fault.kind, FaultKind::RegionDisabled);
    assert!(fault.message.contains("arn:aws:iam::123456789012:user/me"), "{fault}");
    assert_eq!(ids(&ec2.sweep_of("r-2").await.expect("another region")), ["i-1"]);
}

#[tokio::test]
async fn a_signature_that_is_refused_is_no_matter_of_the_region() {
    let (_, fault) = after(Reply::error(403, "SignatureDoesNotMatch")).await;
    assert_eq!(fault.kind, FaultKind::Credentials);
}

#[tokio::test]
async fn wrong_keys_make_for_one_call_a_minute() {
    let ec2 = StandIn::says(std::iter::repeat_n(Reply::error(401, "AuthFailure"), 100)).await;
    *ec2.access.identity.lock().expect("no panic") = Err(FaultKind::Credentials);
    for minute in 1..=3 {
        // All scopes of the account at once, and again, and again.
        for _ in 0..3 {
            let sweeps = ["r-1", "r-2", "r-3", "r-4"].map(|region| ec2.sweep_of(region));
            let [a, b, c, d] = sweeps;
            let (a, b, c, d) = tokio::join!(a, b, c, d);
            for swept in [a, b, c, d] {
                let fault = swept.expect_err("bad keys");
                assert_eq!(fault.kind, FaultKind::Credentials);
                assert!(fault.message.starts_with("DescribeInstances: AuthFailure: "), "{fault}");
            }
        }
        assert_eq!(ec2.asked().len(), 1, "EC2 is not asked again before the keys are good");
        assert_eq!(ec2.access.identified.load(Ordering::Relaxed), minute);
        ec2.time.pass(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn keys_that_are_replaced_are_used_within_a_minute() {
    let ec2 = StandIn::says([Reply::error(403, "InvalidClientTokenId"), Reply::page(&["i-1"], None)]).await;
    *ec2.access.identity.lock().expect("no panic") = Err(FaultKind::Credentials);
    assert_eq!(ec2.sweep().await.expect_err("bad keys").kind, FaultKind::Credentials);
    *ec2.access.identity.lock().expect("no panic") = Ok(());
    ec2.time.pass(Duration::from_secs(60));
    assert_eq!(ids(&ec2.sweep().await.expect("pages")), ["i-1"]);
    assert_eq!(ec2.access.refreshed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn accounts_do_not_suffer_from_each_others_keys() {
    let ec2 = StandIn::says([Reply::error(401, "AuthFailure"), Reply::page(&["i-1"], None)]).await;
    *ec2.access.identity.lock().expect("no panic") = Err(FaultKind::Credentials);
    ec2.sweep().await.expect_err("bad keys");
    let other = Scope { account: Some("210987654321".to_owned()), ..scope("eu-west-1") };
    let mut pages = crate::collector::aws::Ec2Pages::new(&ec2.api, &other);
    crate::collector::source::Pages::next(&mut pages).await.expect("a page");
}

#[tokio::test]
async fn a_region_that_fails_does_not_close_the_account() {
    let replies = [Reply::error(403, "UnauthorizedOperation"), Reply::page(&["i-1"], None)];
    let ec2 = StandIn::says(replies).await;
    assert_eq!(ec2.sweep_of("r-1").await.expect_err("denied").kind, FaultKind::Denied);
    assert_eq!(ids(&ec2.sweep_of("r-2").await.expect("pages")), ["i-1"]);
}

#[tokio::test]
async fn no_call_is_made_after_the_deadline() {
    let ec2 = StandIn::says([]).await;
    let deadline = ec2.api.calls.deadline();
    ec2.time.pass(Duration::from_secs(601));
    let attempt = |_: aws_sdk_ec2::Client| async { Ok::<_, Failure>(()) };
    let fault = ec2.api.calls.call(&scope("r-1"), "Nothing", deadline, attempt).await.expect_err("too late");
    assert_eq!(fault.message, "Nothing: given up after 10m");
}
