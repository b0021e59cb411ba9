//! Particular instances, asked for by filter.

use serde_json::json;

use super::*;
use crate::collector::aws::stand_in::{Reply, StandIn, ids, scope};
use crate::collector::fault::FaultKind;
use crate::config::AwsSource;

fn many(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("i-{number}")).collect()
}

fn tags_page(tags: &[(&str, &str, &str)], token: &str) -> Reply {
    let items = tags.iter().map(|(id, key, value)| {
        format!(
            "<item><resourceId>{id}</resourceId><resourceType>instance</resourceType><key>{key}</key>\
             <value>{value}</value></item>"
        )
    });
    let items = items.collect::<String>();
    Reply::new(200, format!("<DescribeTagsResponse><tagSet>{items}</tagSet>{token}</DescribeTagsResponse>"))
}

#[tokio::test]
async fn instances_are_asked_for_by_200_and_without_the_filters_of_the_source() {
    let filters = [("tag:env".to_owned(), vec!["prod".to_owned()])].into();
    let replies = [Reply::page(&["i-1"], Some("a")), Reply::page(&["i-2"], None), Reply::page(&["i-201"], None)];
    let ec2 = StandIn::of(AwsSource { filters, ..AwsSource::default() }, replies).await;
    let page = ec2.api.instances(&scope("r-1"), &many(201)).await.expect("instances");
    assert_eq!(ids(&[page]), ["i-1", "i-2", "i-201"]);
    let asked = ec2.asked();
    assert_eq!(asked.len(), 3);
    for request in &asked {
        assert!(request.contains("Filter.1.Name=instance-id"), "{request}");
        assert!(request.contains("IncludeManagedResources=true"), "{request}");
        assert!(!request.contains("Filter.2") && !request.contains("InstanceId.1"), "{request}");
    }
    assert!(asked[0].contains("Filter.1.Value.200=i-200") && !asked[0].contains("Filter.1.Value.201"));
    assert!(asked[1].contains("NextToken=a") && asked[1].contains("Filter.1.Value.200=i-200"));
    assert!(asked[2].contains("Filter.1.Value.1=i-201") && !asked[2].contains("Filter.1.Value.2="));
    assert!(ec2.api.is_filtered());
}

#[tokio::test]
async fn nothing_is_asked_about_nobody() {
    let ec2 = StandIn::says([]).await;
    assert_eq!(ec2.api.instances(&scope("r-1"), &[]).await.expect("none").instances, Vec::new());
    assert_eq!(ec2.api.tags(&scope("r-1"), &[]).await.expect("none"), TagsById::new());
    assert_eq!(ec2.asked().len(), 0);
    assert!(!ec2.api.is_filtered());
}

#[tokio::test]
async fn tags_are_those_of_the_member_by_instance() {
    let replies = [
        tags_page(&[("i-1", "Name", "a&amp;b"), ("i-2", "x", "")], "<nextToken>t</nextToken>"),
        tags_page(&[("i-1", "y", "2")], ""),
    ];
    let ec2 = StandIn::says(replies).await;
    let tags = ec2.api.tags(&scope("r-1"), &many(3)).await.expect("tags");
    let expected = json!({
        "i-1": [{"Key": "Name", "Value": "a&b"}, {"Key": "y", "Value": "2"}],
        "i-2": [{"Key": "x", "Value": ""}],
    });
    assert_eq!(json!(tags), expected);
    let asked = ec2.asked();
    for parameter in
        ["Action=DescribeTags", "Name=resource-id", "Name=resource-type", "Value.1=instance", "Value.3=i-3"]
    {
        assert!(asked[0].contains(parameter), "{parameter} in {}", asked[0]);
    }
    assert!(asked[1].contains("NextToken=t"), "{}", asked[1]);
}

#[tokio::test]
async fn an_answer_that_is_cut_does_not_pass_for_instances_without_tags() {
    for body in
        ["", "<DescribeTagsResponse/>", "<DescribeTagsResponse><tagSet>", "<DescribeTagsResponse><tagSet><item>"]
    {
        let ec2 = StandIn::says([Reply::new(200, body), tags_page(&[("i-1", "a", "b")], "")]).await;
        assert_eq!(ec2.api.tags(&scope("r-1"), &many(1)).await.expect("tags").len(), 1, "{body}");
        assert_eq!(ec2.observed.calls()[0], ("DescribeTags", "unreadable"));
    }
}

#[tokio::test]
async fn a_repeated_token_is_a_fault_here_too() {
    let replies = || std::iter::repeat_n(tags_page(&[], "<nextToken>t</nextToken>"), 2);
    let ec2 = StandIn::says(replies()).await;
    let fault = ec2.api.tags(&scope("r-1"), &many(1)).await.expect_err("no end");
    assert_eq!(fault.kind, FaultKind::RepeatedToken);
    let ec2 = StandIn::says(std::iter::repeat_n(Reply::page(&[], Some("t")), 2)).await;
    let fault = ec2.api.instances(&scope("r-1"), &many(1)).await.expect_err("no end");
    assert_eq!(fault.kind, FaultKind::RepeatedToken);
}
