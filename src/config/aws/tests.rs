use std::io::Write as _;

use serde_json::{Value, json};

use super::super::{ConfigError, SourceKind, load};
use super::*;

const ROLE: &str = "arn:aws:iam::123456789012:role/rollcall";
const SECRET: &str = "hunter2-hunter2";

fn sources(sources: &Value) -> Result<Vec<AwsSource>, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{}", json!({"collector": {"sources": sources}})).unwrap();
    let config = load(Some(file.path()), &[]).map_err(|ConfigError(faults)| {
        faults.iter().map(|fault| format!("{}: {}\n", fault.key, fault.message)).collect::<String>()
    })?;
    let aws = config.collector.sources.into_iter().map(|source| match source.kind {
        SourceKind::Aws(aws) => *aws,
        _ => panic!("aws"),
    });
    Ok(aws.collect())
}

fn source(aws: Value) -> Result<AwsSource, String> {
    sources(&json!([{"name": "a", "aws": aws}])).map(|mut sources| sources.remove(0))
}

/// What is wrong with a source in eu-west-1 that has this too.
fn fault(more: Value) -> String {
    let mut aws = json!({"regions": ["eu-west-1"]});
    for (name, value) in more.as_object().unwrap() {
        aws[name] = value.clone();
    }
    source(aws).expect_err(&more.to_string())
}

#[track_caller]
fn refused(more: Value, parts: &[&str]) {
    let fault = fault(more.clone());
    assert_eq!(fault.lines().count(), 1, "{more} gave {fault}");
    assert!(parts.iter().all(|part| fault.contains(part)), "{more} gave {fault}");
    assert!(fault.starts_with("collector.sources.0"), "{fault}");
}

// === Regions ===

#[test]
fn regions_are_names_globs_or_all() {
    let named = source(json!({"regions": ["eu-west-1", "us-gov-east-1"], "endpoint_url": "http://localhost:1"}));
    assert!(named.is_err(), "two partitions");
    let named = source(json!({"regions": ["eu-west-1", "us-east-1"]})).unwrap();
    assert_eq!(named.regions.names().unwrap(), ["eu-west-1", "us-east-1"]);
    for written in [json!("all"), json!(["eu-*"]), json!(["us-east-1", "ap-east-?", "*-west-?"])] {
        let some = source(json!({"regions": written})).unwrap();
        assert_eq!(some.regions.names(), None, "{written}");
        assert_eq!(serde_json::to_value(&some.regions).unwrap(), written);
    }
}

#[test]
fn a_region_that_is_malformed_or_unknown_is_refused_by_name() {
    let malformed = "is not the name of a region";
    for name in ["eu-west", "EU-WEST-1", "eu_west_1", "eu-west-1a", "", "all", "eu-west-1 "] {
        refused(json!({"regions": [name]}), &["aws.regions.0", &format!("{name:?}"), malformed]);
    }
    refused(json!({"regions": ["eu-west-1", "eu-west-9"]}), &["aws.regions.1", "eu-west-9", "allow_unknown_regions"]);
    refused(json!({"regions": ["xx-*"]}), &["aws.regions.0", "xx-*", "matches no region"]);
    refused(json!({"regions": []}), &["aws.regions", "empty"]);
    refused(json!({"regions": "some"}), &["aws.regions", "some", "all"]);
    refused(json!({"regions": ["eu-west-1", "eu-west-1"]}), &["aws.regions", "twice"]);
    refused(json!({"sts_region": "eu-west-9"}), &["aws.sts_region", "eu-west-9"]);
}

#[test]
fn a_region_that_is_not_known_yet_can_be_allowed_and_an_endpoint_of_ones_own_has_its_own() {
    for way in [
        json!({"allow_unknown_regions": true}),
        json!({"endpoint_url": "http://localhost:1"}),
        json!({"endpoints": {"ec2": "http://localhost:1"}}),
    ] {
        let with = |regions: Value| {
            let mut aws = way.clone();
            aws["regions"] = regions;
            source(aws)
        };
        for regions in [json!(["eu-west-9"]), json!(["zz-*"]), json!(["test-local-1"])] {
            assert!(with(regions.clone()).is_ok(), "{way} {regions}");
        }
        assert!(with(json!(["eu-west"])).is_err(), "{way}");
    }
}

#[test]
fn a_source_lies_in_one_partition() {
    for (more, keys) in [
        (json!({"regions": ["eu-west-1", "cn-north-1"]}), ["aws.regions.1", "regions.0"]),
        (json!({"sts_region": "us-gov-west-1"}), ["aws.sts_region", "regions.0"]),
        (
            json!({"accounts": [{"role_arn": "arn:aws-cn:iam::123456789012:role/r"}]}),
            ["aws.accounts.0.role_arn", "regions.0"],
        ),
        (
            json!({"accounts": [{"role_arn": ROLE, "via": [{"role_arn": "arn:aws-iso-b:iam::123456789012:role/r"}]}]}),
            ["aws.accounts.0.via.0.role_arn", "regions.0"],
        ),
    ] {
        refused(more, &[keys[0], keys[1], "partition aws"]);
    }
    for (aws, partition, home) in [
        (json!({"regions": "all"}), "aws", "us-east-1"),
        (json!({"regions": ["eu-*", "us-west-2"]}), "aws", "us-west-2"),
        (json!({"regions": ["cn-*"]}), "aws-cn", "cn-northwest-1"),
        (json!({"regions": "all", "sts_region": "us-gov-east-1"}), "aws-us-gov", "us-gov-east-1"),
        (json!({"regions": ["eusc-de-east-1"]}), "aws-eusc", "eusc-de-east-1"),
        (json!({"regions": ["us-isob-*"]}), "aws-iso-b", "us-isob-east-1"),
        (json!({"regions": ["eu-isoe-west-1"]}), "aws-iso-e", "eu-isoe-west-1"),
        (
            json!({"regions": "all", "accounts": [{"role_arn": "arn:aws-iso:iam::123456789012:role/r"}]}),
            "aws-iso",
            "us-iso-east-1",
        ),
    ] {
        let read = source(aws.clone()).unwrap();
        assert_eq!((read.partition().name, read.home_region()), (partition, home), "{aws}");
    }
}

#[test]
fn every_region_is_known_to_lie_in_its_partition() {
    for partition in &PARTITIONS {
        for region in partition.regions.iter().chain([&partition.home]) {
            assert!(region::is_well_formed(region) && region::is_known(region), "{region}");
            assert_eq!(Partition::of_region(region), Some(partition), "{region}");
        }
    }
}

// === Accounts ===

#[test]
fn a_role_that_is_none_is_refused_by_name() {
    for arn in [
        "rollcall",
        "arn:aws:iam::123456789012:user/rollcall",
        "arn:aws:iam::12345678901:role/rollcall",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/a b",
        "arn:aws:sts::123456789012:role/rollcall",
        "arn:azure:iam::123456789012:role/rollcall",
        "arn:aws:iam:eu-west-1:123456789012:role/rollcall",
    ] {
        let parts = [arn, "is not the ARN of a role"];
        refused(json!({"accounts": [{"role_arn": arn}]}), &[&["aws.accounts.0.role_arn"], &parts[..]].concat());
        let via = json!({"accounts": [{"role_arn": ROLE, "via": [{"role_arn": arn}]}]});
        refused(via, &[&["aws.accounts.0.via.0.role_arn"], &parts[..]].concat());
        let web = json!({"credentials": {"web_identity": {"role_arn": arn, "token_file": "t"}}});
        refused(web, &[&["aws.credentials.web_identity.role_arn"], &parts[..]].concat());
    }
}

#[test]
fn names_of_sessions_roles_and_units_are_held_against_what_aws_takes() {
    let account = |name: &str, value: &str| {
        let mut account = json!({"role_arn": ROLE});
        account[name] = json!(value);
        json!({"accounts": [account]})
    };
    refused(account("session_name", "a b"), &["aws.accounts.0.session_name", "a b", "2 to 64"]);
    refused(account("session_name", "a"), &["aws.accounts.0.session_name", "2 to 64"]);
    let secret = format!("{SECRET} ");
    refused(account("external_id", &secret), &["aws.accounts.0.external_id", "2 to 1224"]);
    assert!(!fault(account("external_id", &secret)).contains(SECRET));
    refused(
        json!({"accounts": [{"role_arn": ROLE}, {"role_arn": ROLE}]}),
        &["aws.accounts.1.role_arn", ROLE, "before"],
    );

    let organization = |more: Value| {
        let mut organization = json!({"role_name": "r"});
        for (name, value) in more.as_object().unwrap() {
            organization[name] = value.clone();
        }
        json!({"organization": organization})
    };
    for name in ["", "a b", "{account}", "/r", "arn:aws:iam::123456789012:role/r"] {
        refused(organization(json!({"role_name": name})), &["aws.organization.role_name", &format!("{name:?}")]);
    }
    for list in ["include_ous", "exclude_ous"] {
        for unit in ["ou-1", "r-", "OU-ab12-cd34ef56", "123456789012"] {
            refused(organization(json!({list: [unit]})), &[&format!("aws.organization.{list}.0"), unit]);
        }
        assert!(
            source(json!({"regions": "all", "organization": {"role_name": "r", list: ["ou-ab12-cd34ef56", "r-ab12"]}}))
                .is_ok()
        );
    }
    refused(
        organization(json!({"exclude_accounts": ["1"]})),
        &["aws.organization.exclude_accounts.0", "twelve digits"],
    );
    refused(
        json!({"organization": {"role_name": "r"}, "accounts": [{"role_arn": ROLE}]}),
        &["aws.organization", "accounts"],
    );
}

#[test]
fn an_organization_has_its_role_in_every_account() {
    let aws = source(json!({"regions": ["cn-north-1"], "organization": {"role_name": "audit/rollcall-{account_id}"}}));
    let aws = aws.unwrap();
    let role = aws.organization.as_ref().unwrap().role(aws.partition().name, "012345678901");
    assert_eq!(role.role_arn, "arn:aws-cn:iam::012345678901:role/audit/rollcall-012345678901");
}

// === Credentials ===

#[test]
fn credentials_are_of_one_kind() {
    let keys = json!({"access_key_id": "AKIA", "secret_access_key": SECRET});
    let web = json!({"role_arn": ROLE, "token_file": "/token"});
    for credentials in [json!({"static": keys}), json!({"profile": "p"}), json!({"web_identity": web})] {
        assert!(source(json!({"regions": "all", "credentials": credentials})).is_ok(), "{credentials}");
    }
    refused(json!({"credentials": {"profile": "p", "web_identity": web}}), &["aws.credentials"]);
    refused(json!({"credentials": {"keys": keys}}), &["aws.credentials", "keys", "static", "profile", "web_identity"]);
    refused(json!({"credentials": {"profile": ""}}), &["aws.credentials.profile", "empty"]);
    refused(json!({"credentials": {"web_identity": {"role_arn": ROLE, "token_file": ""}}}), &["token_file", "empty"]);
    let swapped = json!({"credentials": {"static": {"access_key_id": format!("{SECRET} "), "secret_access_key": "a"}}});
    refused(swapped.clone(), &["aws.credentials.static.access_key_id"]);
    assert!(!fault(swapped).contains(SECRET));
    refused(
        json!({"credentials": {"static": {"access_key_id": "a", "secret": "b"}}}),
        &["aws.credentials.static.secret"],
    );
}

#[test]
fn secrets_are_neither_shown_nor_written() {
    let aws = json!({
        "regions": "all", "proxy": "http://proxy:3128", "proxy_username": SECRET, "proxy_password": SECRET,
        "credentials": {"static": {"access_key_id": "AKIA", "secret_access_key": SECRET, "session_token": SECRET}},
        "accounts": [{"role_arn": ROLE, "external_id": SECRET, "via": [
            {"role_arn": "arn:aws:iam::123456789013:role/r", "external_id": SECRET}]}],
    });
    let aws = source(aws).unwrap();
    let written = serde_saphyr::to_string(&aws).unwrap();
    assert!(!written.contains(SECRET) && !format!("{aws:?}").contains(SECRET), "{written}");
    assert_eq!(written.matches("(redacted)").count(), 6, "{written}");
    let read: AwsSource = serde_saphyr::from_str(&written).unwrap();
    assert_eq!(serde_saphyr::to_string(&read).unwrap(), written);
}

// === How it is asked ===

#[test]
fn addresses_are_addresses_without_secrets() {
    for key in ["endpoint_url", "proxy"] {
        refused(json!({key: "ec2.local"}), &[&format!("aws.{key}"), "ec2.local", "http://"]);
        refused(json!({key: format!("http://u:{SECRET}@h")}), &[&format!("aws.{key}"), "secret"]);
        assert!(!fault(json!({key: format!("http://u:{SECRET}@h")})).contains(SECRET));
    }
    for key in ["ec2", "sts", "organizations"] {
        refused(json!({"endpoints": {key: "x"}}), &[&format!("aws.endpoints.{key}"), "http://"]);
    }
    refused(json!({"endpoints": {"iam": "http://x"}}), &["aws.endpoints.iam", "unknown field"]);
    refused(json!({"proxy_password": SECRET}), &["aws.proxy_password", "without proxy"]);
    refused(json!({"proxy": "http://p", "proxy_username": "u"}), &["aws.proxy_username", "only one"]);
    refused(json!({"ca_file": ""}), &["aws.ca_file", "empty"]);
}

#[test]
fn filters_pages_and_pace_have_their_bounds() {
    refused(json!({"filters": {"instance-id": ["i-1"]}}), &["aws.filters.instance-id", "not allowed"]);
    refused(json!({"filters": {"vpc-id": []}}), &["aws.filters.vpc-id", "0 values", "1 to 200"]);
    refused(json!({"filters": {"vpc-id": vec!["v"; 201]}}), &["aws.filters.vpc-id", "201 values", "1 to 200"]);
    refused(json!({"page_size": 4}), &["aws.page_size", "4", "5 to 1000"]);
    for rate in [0.0, 0.05, 20.5, -1.0] {
        refused(json!({"calls_per_second": rate}), &["aws.calls_per_second", &rate.to_string(), "0.1 to 20"]);
    }
    refused(json!({"settling_delay": "6m"}), &["aws.settling_delay", "6m", "5m"]);
    refused(json!({"pagesize": 4}), &["aws.pagesize", "unknown field"]);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let fault = fault(json!({
        "page_size": 1, "calls_per_second": 0, "settling_delay": "1h", "endpoint_url": "x", "sts_region": "x",
        "accounts": [{"role_arn": "x"}], "filters": {"instance-id": ["i"]},
    }));
    assert_eq!(fault.lines().count(), 7, "{fault}");
}

#[test]
fn the_examples_of_the_documentation_are_taken() {
    let text = include_str!("../../../docs/connect-aws.md");
    let blocks: Vec<_> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let source = |block: &str| format!("collector:\n  sources:\n    - name: a\n{}", indented(block));
        let yaml = if block.starts_with("aws:") { source(block) } else { block.to_owned() };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &yaml).unwrap();
        assert_eq!(load(Some(file.path()), &[]).map(drop), Ok(()), "{yaml}");
    }
}

fn indented(block: &str) -> String {
    block.lines().map(|line| format!("      {line}\n")).collect()
}

// === Two sources ===

#[test]
fn sources_that_surely_overlap_are_refused() {
    let role = |account: u64| json!([{"role_arn": format!("arn:aws:iam::{account:012}:role/r")}]);
    let profile = |name: &str| json!({"profile": name});
    for (one, other, overlap) in [
        (json!({"regions": ["eu-west-1"]}), json!({"regions": ["eu-west-1", "us-east-1"]}), true),
        (json!({"regions": ["eu-west-1"]}), json!({"regions": ["us-east-1"]}), false),
        (json!({"regions": "all"}), json!({"regions": ["us-*"]}), true),
        (json!({"regions": ["eu-*"]}), json!({"regions": ["us-*"]}), false),
        (json!({"regions": ["*-west-1"]}), json!({"regions": ["eu-*"]}), true),
        // Another partition: other accounts.
        (json!({"regions": "all"}), json!({"regions": ["cn-*"]}), false),
        // Other credentials, other accounts, other clouds.
        (
            json!({"regions": "all", "credentials": profile("a")}),
            json!({"regions": "all", "credentials": profile("b")}),
            false,
        ),
        (
            json!({"regions": "all", "credentials": profile("a")}),
            json!({"regions": "all", "credentials": profile("a")}),
            true,
        ),
        (json!({"regions": "all", "accounts": role(1)}), json!({"regions": "all", "accounts": role(1)}), true),
        (json!({"regions": "all", "accounts": role(1)}), json!({"regions": "all", "accounts": role(2)}), false),
        (json!({"regions": "all", "accounts": role(1)}), json!({"regions": "all"}), false),
        (
            json!({"regions": "all", "endpoint_url": "http://one"}),
            json!({"regions": "all", "endpoint_url": "http://two"}),
            false,
        ),
    ] {
        let read = sources(&json!([{"name": "first", "aws": one}, {"name": "second", "aws": other}]));
        match read {
            Ok(_) => assert!(!overlap, "{one} and {other} were taken"),
            Err(fault) => {
                assert!(overlap, "{fault}");
                assert!(fault.starts_with("collector.sources.1.aws: ") && fault.contains("first"), "{fault}");
            }
        }
    }
}
