//! Images are an addition: cached, and lacking where they cannot be had.

use serde_json::json;

use super::*;
use crate::collector::aws::stand_in::{Reply, StandIn, members};
use crate::config::AwsSource;

async fn ec2(replies: impl IntoIterator<Item = Reply>) -> StandIn {
    StandIn::of(AwsSource { images: true, ..AwsSource::default() }, replies).await
}

fn images(images: &[(&str, &str)]) -> Reply {
    let items = images.iter().map(|(id, name)| {
        format!("<item><imageId>{id}</imageId><name>{name}</name><imageOwnerId>99</imageOwnerId></item>")
    });
    let items = items.collect::<String>();
    Reply::new(200, format!("<DescribeImagesResponse><imagesSet>{items}</imagesSet></DescribeImagesResponse>"))
}

fn image(id: &str, name: &str) -> Value {
    json!({"ImageId": id, "Name": name, "OwnerId": "99"})
}

#[tokio::test]
async fn name_and_owner_are_added_and_asked_for_once_a_day() {
    let page = || Reply::page(&["i-1", "i-2"], None);
    let ec2 = ec2([page(), images(&[("ami-1", "debian")]), page()]).await;
    let expected = [image("ami-1", "debian"), Value::Null];
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), expected);
    // Also what is unknown is known to be so.
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), expected);
    let asked = ec2.asked();
    assert_eq!(asked.len(), 3);
    for parameter in
        ["Action=DescribeImages", "Name=image-id", "Value.1=ami-1", "Value.2=ami-2", "IncludeDeprecated=true"]
    {
        assert!(asked[1].contains(parameter), "{parameter} in {}", asked[1]);
    }
    ec2.time.pass(FRESH_FOR);
    ec2.says_next([page(), images(&[("ami-1", "debian"), ("ami-2", "shared")])]);
    let expected = [image("ami-1", "debian"), image("ami-2", "shared")];
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), expected);
}

#[tokio::test]
async fn a_failure_costs_the_addition_and_not_the_page() {
    let page = || Reply::page(&["i-1"], None);
    let ec2 = ec2([page(), Reply::error(403, "UnauthorizedOperation"), page(), images(&[("ami-1", "debian")])]).await;
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), [Value::Null]);
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), [image("ami-1", "debian")]);
}

#[tokio::test]
async fn a_page_does_not_wait_long_for_its_images() {
    let ec2 =
        ec2([Reply::page(&["i-1"], None)].into_iter().chain((0..100).map(|_| Reply::error(500, "InternalError"))))
            .await;
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), [Value::Null]);
    assert!(ec2.time.slept().iter().sum::<Duration>() <= PATIENCE);
}

#[tokio::test]
async fn what_is_outdated_stays_while_it_cannot_be_asked_anew() {
    let page = || Reply::page(&["i-1"], None);
    let ec2 = ec2([page(), images(&[("ami-1", "debian")])]).await;
    ec2.sweep().await.expect("pages");
    ec2.time.pass(FRESH_FOR);
    ec2.says_next([page(), Reply::error(403, "UnauthorizedOperation")]);
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), [image("ami-1", "debian")]);
}

#[tokio::test]
async fn an_answer_that_is_cut_does_not_pass_for_images_that_are_gone() {
    let page = || Reply::page(&["i-1"], None);
    let cut = Reply::new(200, "<DescribeImagesResponse><imagesSet>");
    let ec2 = ec2([page(), cut, images(&[("ami-1", "debian")])]).await;
    assert_eq!(members(&ec2.sweep().await.expect("pages"), "Image"), [image("ami-1", "debian")]);
}

#[test]
fn a_full_cache_drops_what_is_oldest() {
    let began = Instant::now();
    let entry = |second: u64| {
        let key = (None, None, second.to_string());
        (key, Entry { at: began + Duration::from_secs(second), image: None })
    };
    let mut cache: HashMap<Key, Entry> = (0..10).map(entry).collect();
    drop_older_half(&mut cache);
    let mut left: Vec<_> = cache.into_keys().map(|(_, _, id)| id).collect();
    left.sort();
    assert_eq!(left, ["6", "7", "8", "9"]);
}
