use serde_json::json;

use super::*;

const SECRET: &str = "hunter2-hunter2";

fn of(sources: Value) -> Vec<Caller> {
    let config: Config = serde_json::from_value(json!({"collector": {"sources": sources}})).unwrap();
    policies(&config)
}

fn of_one(aws: Value) -> Caller {
    let mut callers = of(json!([{"name": "a", "aws": aws}]));
    assert_eq!(callers.len(), 1);
    callers.remove(0)
}

fn allow(action: Value, resource: Value) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": resource})
}

#[test]
fn the_own_account_needs_two_actions_and_more_only_where_more_is_called() {
    for (aws, actions) in [
        (json!({"regions": ["eu-west-1"]}), vec!["ec2:DescribeInstances", "ec2:DescribeTags"]),
        (json!({"regions": "all"}), vec!["ec2:DescribeInstances", "ec2:DescribeRegions", "ec2:DescribeTags"]),
        (json!({"regions": ["eu-*"]}), vec!["ec2:DescribeInstances", "ec2:DescribeRegions", "ec2:DescribeTags"]),
        (
            json!({"regions": ["eu-west-1"], "images": true}),
            vec!["ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeTags"],
        ),
    ] {
        let caller = of_one(aws);
        assert_eq!(caller.policy["Statement"], json!([allow(json!(actions), json!("*"))]));
        assert_eq!((caller.trust, caller.roles), (None, vec![]));
    }
}

#[test]
fn roles_are_assumed_along_their_chain_and_the_last_one_asks() {
    let [hub, one, two] = ["hub", "one", "two"].map(|name| format!("arn:aws:iam::123456789012:role/{name}"));
    let accounts = json!([
        {"role_arn": one, "external_id": SECRET},
        {"role_arn": two.replace("9012", "9013"), "via": [{"role_arn": hub.replace("9012", "9014")}]},
    ]);
    let two = two.replace("9012", "9013");
    let hub = hub.replace("9012", "9014");
    let caller = of_one(json!({"regions": ["eu-west-1"], "accounts": accounts}));
    let asks = allow(json!(["ec2:DescribeInstances", "ec2:DescribeTags"]), json!("*"));
    let assumes = |roles: Value| json!([allow(json!(ASSUME), roles)]);
    assert_eq!(caller.policy["Statement"], assumes(json!([one, hub])));
    let [of_one, of_two, of_hub] = &caller.roles[..] else { panic!("{:?}", caller.roles) };
    assert_eq!([&of_one.role_arn, &of_two.role_arn, &of_hub.role_arn], [&one, &two, &hub]);
    assert_eq!([&of_one.policy["Statement"], &of_two.policy["Statement"]], [&json!([asks]); 2]);
    assert_eq!(of_hub.policy["Statement"], assumes(json!([two])));
    let trusts = |role: &RolePolicies| role.trust["Statement"][0].clone();
    assert_eq!(trusts(of_two)["Principal"], json!({"AWS": hub}));
    assert_eq!(trusts(of_hub)["Principal"], json!({"AWS": CALLER}));
    assert_eq!(trusts(of_one)["Condition"], json!({"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}));
    assert_eq!(trusts(of_two).get("Condition"), None);
}

#[test]
fn an_organization_is_listed_by_what_is_asked_for() {
    let unit = json!(["ou-ab12-cd34ef56"]);
    let [all, accounts, units] = ["ListAccounts", "ListAccountsForParent", "ListOrganizationalUnitsForParent"]
        .map(|call| format!("organizations:{call}"));
    for (more, actions) in [
        (json!({}), json!([all])),
        (json!({"include_ous": unit}), json!([accounts, units])),
        (json!({"exclude_ous": unit}), json!([all, accounts, units])),
        (json!({"include_own": true}), json!(["ec2:DescribeInstances", "ec2:DescribeTags", all])),
    ] {
        let mut organization = json!({"role_name": "in/r-{account_id}"});
        organization.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let caller = of_one(json!({"regions": ["us-gov-west-1"], "organization": organization}));
        let roles = "arn:aws-us-gov:iam::*:role/in/r-*";
        assert_eq!(
            caller.policy["Statement"],
            json!([allow(actions, json!("*")), allow(json!(ASSUME), json!([roles]))])
        );
        assert_eq!(caller.roles[0].role_arn, roles);
    }
}

#[test]
fn a_role_by_web_identity_trusts_a_provider_that_has_to_be_filled_in() {
    let role = "arn:aws-cn:iam::123456789012:role/pod";
    let member = "arn:aws-cn:iam::123456789013:role/rollcall";
    let caller = of_one(json!({
        "regions": ["cn-north-1"], "accounts": [{"role_arn": member}],
        "credentials": {"web_identity": {"role_arn": role, "token_file": "/token"}},
    }));
    let statement = &caller.trust.unwrap()["Statement"][0];
    assert_eq!(statement["Action"], "sts:AssumeRoleWithWebIdentity");
    let provider = format!("arn:aws-cn:iam::123456789012:oidc-provider/{OIDC_PROVIDER}");
    assert_eq!(statement["Principal"], json!({"Federated": provider}));
    assert_eq!(statement["Condition"]["StringEquals"][format!("{OIDC_PROVIDER}:sub")], OIDC_SUBJECT);
    assert_eq!(caller.roles[0].trust["Statement"][0]["Principal"], json!({"AWS": role}));
}

#[test]
fn sources_share_a_policy_where_they_share_credentials_and_partition() {
    let role = "arn:aws:iam::123456789012:role/r";
    let callers = of(json!([
        {"name": "a", "aws": {"regions": ["eu-west-1"]}},
        {"name": "file", "file": {"path": "x"}},
        {"name": "b", "aws": {"regions": ["us-*"], "accounts": [{"role_arn": role}]}},
        {"name": "c", "aws": {"regions": ["us-east-1"], "images": true, "accounts": [{"role_arn": role}]}},
        {"name": "d", "aws": {"regions": ["cn-north-1"]}},
        {"name": "e", "aws": {"regions": ["eu-west-1"], "credentials": {"profile": "p"}}},
    ]));
    let sources: Vec<_> = callers.iter().map(|caller| (caller.partition, caller.sources.concat())).collect();
    assert_eq!(sources, [("aws", "abc".to_owned()), ("aws-cn", "d".to_owned()), ("aws", "e".to_owned())]);
    let actions = ["ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeRegions", "ec2:DescribeTags"];
    assert_eq!(callers[0].roles[0].policy["Statement"], json!([allow(json!(actions), json!("*"))]));
    assert_eq!(of(json!([{"name": "file", "file": {"path": "x"}}])), []);
}

#[test]
fn people_are_told_where_each_policy_belongs_and_no_secret() {
    let callers = of(json!([{"name": "prod", "aws": {
        "regions": ["eu-west-1"],
        "credentials": {"static": {"access_key_id": "AKIA", "secret_access_key": SECRET, "session_token": SECRET}},
        "accounts": [{"role_arn": "arn:aws:iam::123456789012:role/rollcall", "external_id": SECRET}],
    }}]));
    let expected = r##"# Policy of the caller: access key AKIA (aws; sources: prod)
{
  "Statement": [
    {
      "Action": "sts:AssumeRole",
      "Effect": "Allow",
      "Resource": [
        "arn:aws:iam::123456789012:role/rollcall"
      ]
    }
  ],
  "Version": "2012-10-17"
}

# Policy of arn:aws:iam::123456789012:role/rollcall
{
  "Statement": [
    {
      "Action": [
        "ec2:DescribeInstances",
        "ec2:DescribeTags"
      ],
      "Effect": "Allow",
      "Resource": "*"
    }
  ],
  "Version": "2012-10-17"
}

# Trust policy of arn:aws:iam::123456789012:role/rollcall
{
  "Statement": [
    {
      "Action": "sts:AssumeRole",
      "Condition": {
        "StringEquals": {
          "sts:ExternalId": "REPLACE_WITH_EXTERNAL_ID"
        }
      },
      "Effect": "Allow",
      "Principal": {
        "AWS": "REPLACE_WITH_ARN_OF_THE_CALLER"
      }
    }
  ],
  "Version": "2012-10-17"
}
"##;
    assert_eq!(text(&callers), expected);
    let json = serde_json::to_string(&callers).unwrap();
    assert!(!json.contains("hunter2"), "{json}");
}
