//! A listing is complete, or it says that it is not.

use std::time::Duration;

use crate::collector::aws::call::Time;
use crate::collector::aws::stand_in::{Reply, StandIn, ids, members};
use crate::collector::fault::FaultKind;
use crate::config::{AwsSource, PageSize};

#[tokio::test]
async fn pages_follow_the_tokens_and_every_one_is_asked_for_with_size_filters_and_managed_resources() {
    let filters = [("tag:env".to_owned(), vec!["prod".to_owned(), "stage".to_owned()])].into();
    let aws = AwsSource { page_size: PageSize(7), filters, ..AwsSource::default() };
    let replies = [Reply::page(&["i-1", "i-2"], Some("a&amp;b=")), Reply::page(&["i-3"], None)];
    let ec2 = StandIn::of(aws, replies).await;
    assert_eq!(ids(&ec2.sweep().await.expect("pages")), ["i-1", "i-2", "i-3"]);
    let asked = ec2.asked();
    for request in &asked {
        for parameter in [
            "Action=DescribeInstances",
            "MaxResults=7",
            "IncludeManagedResources=true",
            "Filter.1.Name=tag%3Aenv",
            "Filter.1.Value.1=prod",
            "Filter.1.Value.2=stage",
        ] {
            assert!(request.contains(parameter), "{parameter} in {request}");
        }
    }
    assert!(!asked[0].contains("NextToken"), "{}", asked[0]);
    assert!(asked[1].contains("NextToken=a%26b%3D"), "{}", asked[1]);
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn an_empty_page_with_a_token_is_not_the_end() {
    let replies = [Reply::page(&[], Some("a")), Reply::page(&[], Some("b")), Reply::page(&["i-1"], None)];
    let ec2 = StandIn::says(replies).await;
    let pages = ec2.sweep().await.expect("pages");
    assert_eq!(pages.len(), 3);
    assert_eq!(ids(&pages), ["i-1"]);
}

#[tokio::test]
async fn an_answer_about_another_account_is_none_about_this_one() {
    let of = |owner: &str| {
        let start = "<DescribeInstancesResponse><reservationSet><item>";
        let end = "<instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></item></reservationSet></DescribeInstancesResponse>";
        Reply::new(200, format!("{start}<ownerId>{owner}</ownerId>{end}"))
    };
    let ec2 = StandIn::says([of("123456789012"), of("999999999999")]).await;
    assert_eq!(ids(&ec2.sweep().await.expect("its own")), ["i-1"]);
    let fault = ec2.sweep().await.expect_err("another's");
    assert_eq!(fault.kind, FaultKind::Credentials);
    assert!(fault.message.contains("123456789012") && fault.message.contains("999999999999"), "{fault}");
}

#[tokio::test]
async fn no_instances_at_all_are_a_page() {
    let ec2 = StandIn::says([Reply::page(&[], None)]).await;
    assert_eq!(ec2.sweep().await.expect("pages").len(), 1);
}

#[tokio::test]
async fn a_token_that_was_seen_before_is_a_fault_and_not_the_end() {
    for tokens in [&["a", "a"][..], &["a", "b", "a"]] {
        let ec2 = StandIn::says(tokens.iter().map(|token| Reply::page(&["i-1"], Some(token)))).await;
        let fault = ec2.sweep().await.expect_err("no end");
        assert_eq!(fault.kind, FaultKind::RepeatedToken);
        assert_eq!(ec2.asked().len(), tokens.len(), "it is not tried again");
    }
}

#[tokio::test]
async fn new_tokens_for_ever_end_at_the_deadline() {
    let ec2 = StandIn::says((0..2000).map(|page| Reply::page(&[], Some(&page.to_string())))).await;
    let began = ec2.time.now();
    let fault = ec2.sweep().await.expect_err("no end");
    assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Unavailable, "DescribeInstances: given up after 10m"));
    assert!(ec2.time.now() - began <= Duration::from_secs(600));
}

/// Answers with status 200 that are none.
fn broken() -> [Reply; 6] {
    let page =
        "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId></item>";
    let end = "</instancesSet></item></reservationSet></DescribeInstancesResponse>";
    [
        Reply::new(200, page),
        Reply::new(200, ""),
        Reply::new(200, "<html>busy</html>"),
        Reply::new(200, "busy"),
        Reply::new(200, "<DescribeInstancesResponse/>"),
        Reply::new(200, format!("{page}{end}")).lacking(1),
    ]
}

#[tokio::test]
async fn an_answer_that_is_cut_or_none_is_asked_for_again() {
    for reply in broken() {
        let ec2 = StandIn::says([reply, Reply::page(&["i-1", "i-2"], None)]).await;
        assert_eq!(ids(&ec2.sweep().await.expect("pages")), ["i-1", "i-2"]);
        assert_eq!(ec2.observed.calls()[0], ("DescribeInstances", "unreadable"));
    }
}

#[tokio::test]
async fn an_answer_that_stays_cut_is_a_fault_at_the_deadline() {
    for reply in broken() {
        let ec2 = StandIn::says(std::iter::repeat_n(reply, 200)).await;
        let began = ec2.time.now();
        let fault = ec2.sweep().await.expect_err("no page");
        assert_eq!(fault.kind, FaultKind::Unreadable, "{fault}");
        assert!(fault.message.starts_with("DescribeInstances: "), "{fault}");
        assert!(ec2.time.now() - began <= Duration::from_secs(600));
        assert!(ec2.asked().len() > 5);
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_know_managed_resources_is_asked_without_them_from_then_on() {
    let unknown = Reply::new(
        400,
        "<Response><Errors><Error><Code>UnknownParameter</Code>\
         <Message>The parameter IncludeManagedResources is not recognized</Message></Error></Errors></Response>",
    );
    let ec2 = StandIn::says([unknown, Reply::page(&["i-1"], Some("a")), Reply::page(&["i-2"], None)]).await;
    assert_eq!(ids(&ec2.sweep().await.expect("pages")), ["i-1", "i-2"]);
    let asks: Vec<_> = ec2.asked().iter().map(|request| request.contains("IncludeManagedResources")).collect();
    assert_eq!(asks, [true, false, false]);
    assert!(ec2.time.slept().iter().sum::<Duration>() < Duration::from_secs(2), "nobody waits for that");
}

#[tokio::test]
async fn another_refusal_is_a_fault_at_once() {
    let ec2 = StandIn::says([Reply::error(400, "InvalidParameterValue")]).await;
    assert_eq!(ec2.sweep().await.expect_err("refused").kind, FaultKind::InvalidRequest);
    assert_eq!(ec2.asked().len(), 1);
}

#[tokio::test]
async fn a_page_was_observed_when_ec2_says_so() {
    let ec2 = StandIn::says([Reply::page(&["i-1"], None).with("Date", "Fri, 02 Jan 2026 03:04:03 GMT")]).await;
    let pages = ec2.sweep().await.expect("pages");
    assert_eq!(pages[0].observed_at.to_rfc3339(), "2026-01-02T03:04:03+00:00");
}

#[tokio::test]
async fn images_are_not_asked_for_unless_told_to() {
    let ec2 = StandIn::says([Reply::page(&["i-1"], None)]).await;
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), [serde_json::Value::Null]);
    assert_eq!(ec2.asked().len(), 1);
}
