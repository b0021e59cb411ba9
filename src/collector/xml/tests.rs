//! What a response decodes to.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;

mod refusals;

fn page(reservations: &str) -> String {
    format!("<{ROOT}><reservationSet>{reservations}</reservationSet></{ROOT}>")
}

fn reservation(instances: &str) -> String {
    format!("<item><instancesSet>{instances}</instancesSet></item>")
}

fn instances(body: &str) -> Value {
    json!(decode(body.as_bytes()).expect("a page").instances)
}

/// The one instance of a response that has the given members.
fn instance(members: &str) -> Value {
    let mut decoded = instances(&page(&reservation(&format!("<item>{members}</item>"))));
    assert_eq!(decoded.as_array().map(Vec::len), Some(1));
    decoded[0].take()
}

// The model's members

#[test]
fn agrees_with_botocore() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/describe-instances");
    let mut bodies = 0;
    for entry in fs::read_dir(directory).expect("test data") {
        let path = entry.expect("test data").path();
        if path.extension().is_some_and(|extension| extension == "xml") {
            let decoded = decode(&fs::read(&path).expect("a body")).expect("a page");
            let expected = fs::read(path.with_extension("json")).expect("botocore's result");
            let expected = serde_json::from_slice(&expected).expect("JSON");
            assert_eq!(decoded, merged(expected), "{}", path.display());
            bodies += 1;
        }
    }
    assert_eq!(bodies, 7);
}

/// What a page is of botocore's result, which has instances in reservations.
fn merged(mut result: Value) -> DescribeInstancesPage {
    let mut instances = Vec::new();
    for reservation in result["Reservations"].as_array().expect("reservations") {
        for instance in reservation["Instances"].as_array().expect("instances") {
            let mut instance = instance.as_object().expect("an instance").clone();
            for name in ["OwnerId", "ReservationId", "RequesterId"] {
                if let Some(value) = reservation.get(name) {
                    instance.insert(name.to_owned(), value.clone());
                }
            }
            instances.push(instance);
        }
    }
    let next_token = result["NextToken"].take();
    DescribeInstancesPage { instances, next_token: next_token.as_str().map(str::to_owned) }
}

#[test]
fn a_value_that_is_not_of_its_type_stays_text() {
    let decoded = instance(
        "<ebsOptimized>maybe</ebsOptimized><enaSupport/><amiLaunchIndex>many</amiLaunchIndex>\
         <instanceState><code>99999999999999999999</code></instanceState>",
    );
    let expected = json!({
        "EbsOptimized": "maybe", "EnaSupport": "", "AmiLaunchIndex": "many",
        "State": {"Code": "99999999999999999999"},
    });
    assert_eq!(decoded, expected);
}

#[test]
fn a_value_that_has_children_where_the_model_has_none_keeps_them() {
    let decoded = instance("<amiLaunchIndex><a>1</a></amiLaunchIndex><imageId><item>x</item></imageId>");
    assert_eq!(decoded, json!({"AmiLaunchIndex": {"A": "1"}, "ImageId": ["x"]}));
}

#[test]
fn an_instance_without_an_id_is_left_to_the_caller() {
    assert_eq!(instance(""), json!({}));
}

// Members that the model does not know

#[test]
fn unknown_members_are_kept_as_they_look() {
    let decoded = instance(
        "<newText>42</newText><newEmpty/>\
         <newStruct><part>true</part><deeper><x/></deeper></newStruct>\
         <newSet><item>a</item><item><k>b</k></item><item/></newSet>\
         <cpuOptions><newOption>on</newOption></cpuOptions>",
    );
    let expected = json!({
        "NewText": "42", "NewEmpty": "",
        "NewStruct": {"Part": "true", "Deeper": {"X": ""}},
        "NewSet": ["a", {"K": "b"}, ""],
        "CpuOptions": {"NewOption": "on"},
    });
    assert_eq!(decoded, expected);
}

#[test]
fn repeated_members_become_a_list() {
    let decoded = instance(
        "<new>a</new><other/><new>b</new><new><k>c</k></new>\
         <tagSet><item><key>1</key></item></tagSet><tagSet><item><key>2</key></item></tagSet>",
    );
    let expected = json!({"New": ["a", "b", {"K": "c"}], "Other": "", "Tags": [{"Key": "1"}, {"Key": "2"}]});
    assert_eq!(decoded, expected);
}

#[test]
fn items_beside_other_children_become_a_member() {
    let decoded = instance("<new><item>a</item><k>b</k><item>c</item></new>");
    assert_eq!(decoded, json!({"New": {"Item": ["a", "c"], "K": "b"}}));
}

#[test]
fn an_unknown_member_does_not_take_the_name_of_a_known_one() {
    let decoded = instance("<state>new</state><instanceState><name>running</name></instanceState>");
    assert_eq!(decoded, json!({"state": "new", "State": {"Name": "running"}}));
}

#[test]
fn text_beside_elements_is_kept() {
    let decoded = instance("<placement>x<tenancy>host</tenancy></placement><tagSet>y</tagSet>");
    assert_eq!(decoded, json!({"Placement": {"#text": "x", "Tenancy": "host"}, "Tags": ["y"]}));
    let decoded = instance("<a>x<b>1</b> y &amp; z</a><c>\n  <d>2</d>\n  y &amp; z\n</c>");
    assert_eq!(decoded, json!({"A": {"#text": "x y & z", "B": "1"}, "C": {"#text": "y & z\n", "D": "2"}}));
}

// Text

#[test]
fn entities_and_references_are_resolved() {
    let decoded = instance("<a>&lt;&amp;&gt;&quot;&apos;</a><b>&#65;&#x1F5A5;&#xFE0F;!</b><c>&amp;amp;</c>");
    assert_eq!(decoded, json!({"A": "<&>\"'", "B": "A🖥️!", "C": "&amp;"}));
}

#[test]
fn cdata_and_comments_do_not_break_a_text() {
    let decoded = instance("<a>1 <![CDATA[<&amp;>]]><!-- no --> 2<?php no?>3</a><b><![CDATA[]]></b><!-- no -->");
    assert_eq!(decoded, json!({"A": "1 <&amp;> 23", "B": ""}));
}

#[test]
fn white_space_is_text_in_a_text_and_indentation_elsewhere() {
    let decoded = instance(
        "\n <a>  two  </a>\n <b> </b>\n <tagSet>\n </tagSet>\n\
         <placement>\n  <tenancy>host</tenancy>\n </placement>\n",
    );
    let expected = json!({"A": "  two  ", "B": " ", "Tags": [], "Placement": {"Tenancy": "host"}});
    assert_eq!(decoded, expected);
}

#[test]
fn line_ends_are_those_of_xml() {
    let decoded = instance("<a>1\r\n2\r3\n4&#13;5</a><b><![CDATA[1\r\n2]]></b>");
    assert_eq!(decoded, json!({"A": "1\n2\n3\n4\r5", "B": "1\n2"}));
}

#[test]
fn a_byte_order_mark_a_declaration_prefixes_and_attributes_do_not_matter() {
    let body = format!(
        "\u{feff}<?xml version=\"1.0\"?>\n<!DOCTYPE x>\n<!-- no -->\n\
         <e:{ROOT} xmlns:e='http://ec2'><e:reservationSet a=\"/>\"><item><instancesSet>\
         <item x='1'><e:instanceId>i-1</e:instanceId ></item></instancesSet></item>\
         </e:reservationSet></e:{ROOT}>\n<!-- no -->\n"
    );
    assert_eq!(instances(&body), json!([{"InstanceId": "i-1"}]));
}

/// The reader passes over one by itself and does not count it: names came from three bytes earlier.
#[test]
fn a_second_byte_order_mark_does_not_shift_the_names() {
    let instance = "<item><instanceId>i-1</instanceId></item>";
    let body = format!("\u{feff}\u{feff}{}", page(&reservation(instance)));
    assert_eq!(instances(&body), json!([{"InstanceId": "i-1"}]));
}

proptest! {
    #[test]
    fn any_text_survives(text in "\\PC*|[ -~\t\n\r]*") {
        let written = quick_xml::escape::escape(text.as_str()).replace('\r', "&#13;");
        prop_assert_eq!(instance(&format!("<new>{written}</new>")), json!({"New": text}));
    }
}

// Reservations and pages

#[test]
fn members_of_the_reservation_go_into_each_of_its_instances() {
    let body = page(
        "<item><reservationId>r-1</reservationId><ownerId>1</ownerId><requesterId>9</requesterId>\
         <groupSet><item><groupId>sg-1</groupId></item></groupSet><instancesSet>\
         <item><instanceId>i-1</instanceId></item><item><ownerId>own</ownerId></item>\
         </instancesSet></item>\
         <item><instancesSet><item><instanceId>i-3</instanceId></item></instancesSet></item>",
    );
    let expected = json!([
        {"InstanceId": "i-1", "OwnerId": "1", "RequesterId": "9", "ReservationId": "r-1"},
        {"OwnerId": "own", "RequesterId": "9", "ReservationId": "r-1"},
        {"InstanceId": "i-3"},
    ]);
    assert_eq!(instances(&body), expected);
}

#[test]
fn a_reservation_may_span_pages() {
    let half = |id: &str| {
        let body = page(&format!(
            "<item><reservationId>r-1</reservationId><ownerId>1</ownerId>\
             <instancesSet><item><instanceId>{id}</instanceId></item></instancesSet></item>"
        ));
        instances(&body)
    };
    assert_eq!(half("i-1"), json!([{"InstanceId": "i-1", "OwnerId": "1", "ReservationId": "r-1"}]));
    assert_eq!(half("i-2"), json!([{"InstanceId": "i-2", "OwnerId": "1", "ReservationId": "r-1"}]));
}

#[test]
fn the_last_page_has_no_token() {
    let token = |element: &str| {
        let body = format!("<{ROOT}><reservationSet/>{element}</{ROOT}>");
        decode(body.as_bytes()).expect("a page").next_token
    };
    assert_eq!(token(""), None);
    assert_eq!(token("<nextToken/>"), None);
    assert_eq!(token("<nextToken>\n</nextToken>"), None);
    assert_eq!(token("<nextToken>a&amp;b=</nextToken>").as_deref(), Some("a&b="));
}

#[test]
fn a_page_may_be_empty() {
    let empty = decode(page("").as_bytes()).expect("an empty page");
    assert_eq!(empty.instances, []);
    assert_eq!(empty.next_token, None);
}

#[test]
fn raw_records_are_those_that_the_members_give() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/describe-instances");
    for name in ["every-member", "empty-strings", "empty-structures", "empty-lists", "reservations", "terminated"] {
        let body = fs::read(directory.join(name).with_extension("xml")).expect("a body");
        let raw = decode_raw(&body).expect("a page").instances.into_iter().map(|instance| instance.json);
        let members = decode(&body).expect("a page").instances.into_iter().map(crate::record::canonical::to_bytes);
        assert!(raw.eq(members), "{name}");
    }
}

#[test]
fn a_reservation_set_in_two_parts_is_one() {
    let part = |id: &str| {
        let instance = format!("<item><instanceId>{id}</instanceId></item>");
        format!("<reservationSet>{}</reservationSet>", reservation(&instance))
    };
    let body = format!("<{ROOT}>{}{}</{ROOT}>", part("i-1"), part("i-2"));
    assert_eq!(instances(&body), json!([{"InstanceId": "i-1"}, {"InstanceId": "i-2"}]));
}

#[test]
fn tags_have_the_id_of_what_they_are_on() {
    let body = "<DescribeTagsResponse><tagSet><item><resourceId>i-1</resourceId><key>a</key><value/></item></tagSet>\
                <nextToken>t</nextToken></DescribeTagsResponse>";
    let page = decode_tags(body.as_bytes()).expect("a page");
    assert_eq!(json!(page.tags), json!([["i-1", {"Key": "a", "Value": ""}]]));
    assert_eq!(page.next_token.as_deref(), Some("t"));
    let none = decode_tags(b"<DescribeTagsResponse/>").expect_err("no answer is not an empty answer");
    assert_eq!(none.to_string(), "no <tagSet> in the response");
}

#[test]
fn images_and_regions_are_lists_too() {
    let body = "<DescribeImagesResponse><imagesSet><item><imageId>ami-1</imageId><imageOwnerId>9</imageOwnerId><name/>\
                <imageState>available</imageState></item></imagesSet></DescribeImagesResponse>";
    let images = decode_images(body.as_bytes()).expect("images");
    assert_eq!(json!(images), json!([{"ImageId": "ami-1", "OwnerId": "9"}]));
    let body = "<DescribeRegionsResponse><regionInfo><item><regionName>eu-west-1</regionName>\
                <optInStatus>opted-in</optInStatus></item></regionInfo></DescribeRegionsResponse>";
    let regions = decode_regions(body.as_bytes()).expect("regions");
    assert_eq!(json!(regions), json!([{"RegionName": "eu-west-1", "OptInStatus": "opted-in"}]));
    assert!(decode_regions(&body.as_bytes()[..body.len() - 1]).is_err());
}

#[test]
fn size_is_no_obstacle() {
    // Each of these would take minutes if the time grew with the square of the size.
    const MANY: usize = 200_000;
    let decoded = instance(&"<new>x</new>".repeat(MANY));
    assert_eq!(decoded["New"].as_array().map(Vec::len), Some(MANY));
    let decoded = instance(&format!("<new>{}</new>", "&lt;<!-- -->".repeat(MANY)));
    assert_eq!(decoded["New"].as_str().map(str::len), Some(MANY));
    let names: String = (0..MANY).map(|number| format!("<new{number}>x</new{number}>")).collect();
    assert_eq!(instance(&names).as_object().map(serde_json::Map::len), Some(MANY));
    let decoded = instance(&format!("<tagSet>{}</tagSet>", "\n<item/>".repeat(MANY)));
    assert_eq!(decoded["Tags"].as_array().map(Vec::len), Some(MANY));
}
