//! The least that a configuration needs of IAM: the policy of the caller, and the policies and trust of each role.
//!
//! What cannot be known here stands as `REPLACE_WITH_…`: IAM refuses it, so that nobody applies it by oversight.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{AwsSource, Config, Credentials, Organization, Role, RoleArn, SourceKind};

const CALLER: &str = "REPLACE_WITH_ARN_OF_THE_CALLER";
const EXTERNAL_ID: &str = "REPLACE_WITH_EXTERNAL_ID";
const OIDC_PROVIDER: &str = "REPLACE_WITH_OIDC_PROVIDER";
const OIDC_SUBJECT: &str = "REPLACE_WITH_SUBJECT_OF_THE_TOKEN";
const ASSUME: &str = "sts:AssumeRole";

/// Policies for one kind of credentials, in one partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Caller {
    /// As in ARNs.
    pub partition: &'static str,
    /// The credentials, in words.
    pub credentials: String,
    /// Names of the sources that use them.
    pub sources: Vec<String>,
    /// What the caller may do.
    pub policy: Value,
    /// Who may become the caller, where that is a role that is entered with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Value>,
    /// The roles that are assumed.
    pub roles: Vec<RolePolicies>,
}

/// Policies of a role.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolePolicies {
    /// The role; with `*` for its account: in every account of the organization.
    pub role_arn: String,
    /// What it may do.
    pub policy: Value,
    /// Who may assume it.
    pub trust: Value,
}

/// What some credentials may do: actions on everything, and roles to assume.
#[derive(Default)]
struct Grants {
    actions: BTreeSet<&'static str>,
    roles: BTreeSet<String>,
}

/// What a role needs.
#[derive(Default)]
struct Needs {
    grants: Grants,
    /// Who assumes it, and whether with an external ID.
    trusted: BTreeSet<(String, bool)>,
}

/// A source, with its name.
type Source<'a> = (&'a str, &'a AwsSource);

/// The policies for a configuration; none without a source `aws`.
pub fn policies(config: &Config) -> Vec<Caller> {
    let mut groups: Vec<Vec<Source<'_>>> = Vec::new();
    for source in &config.collector.sources {
        let SourceKind::Aws(aws) = &source.kind else { continue };
        let is_alike =
            |(_, other): &Source<'_>| aws.partition() == other.partition() && aws.credentials == other.credentials;
        let source = (source.name.as_str(), &**aws);
        match groups.iter_mut().find(|group| group.first().is_some_and(is_alike)) {
            Some(group) => group.push(source),
            None => groups.push(vec![source]),
        }
    }
    let caller_of = |group: &Vec<Source<'_>>| {
        let (_, first) = group.first()?;
        Some(caller(first.partition().name, first.credentials.as_ref(), group))
    };
    groups.iter().filter_map(caller_of).collect()
}

fn caller(partition: &'static str, credentials: Option<&Credentials>, sources: &[Source<'_>]) -> Caller {
    let (mut own, mut roles) = (Grants::default(), BTreeMap::<String, Needs>::new());
    let arn = credentials.and_then(Credentials::role_arn).unwrap_or(CALLER);
    for (_, aws) in sources {
        let actions = ec2_actions(aws);
        if aws.is_own_account() || aws.organization.as_ref().is_some_and(|organization| organization.include_own) {
            own.actions.extend(&actions);
        }
        if let Some(organization) = &aws.organization {
            own.actions.extend(organization_actions(organization));
            // The role of that name in every account.
            chain(arn, &[organization.role(partition, "*")], &actions, &mut own, &mut roles);
        }
        for account in &aws.accounts {
            chain(arn, &account.chain(), &actions, &mut own, &mut roles);
        }
    }
    let roles = roles.into_iter().map(|(role_arn, needs)| RolePolicies {
        policy: needs.grants.policy(),
        trust: trust(&needs.trusted),
        role_arn,
    });
    Caller {
        partition,
        credentials: in_words(credentials),
        sources: sources.iter().map(|(name, _)| (*name).to_owned()).collect(),
        policy: own.policy(),
        trust: credentials.and_then(Credentials::role_arn).map(web_identity_trust),
        roles: roles.collect(),
    }
}

/// The calls that are made in an account. Nothing else is: what DescribeInstances tells is enough for every field.
pub(crate) fn ec2_actions(aws: &AwsSource) -> Vec<&'static str> {
    let mut actions = vec!["ec2:DescribeInstances", "ec2:DescribeTags"];
    if aws.regions.names().is_none() {
        actions.push("ec2:DescribeRegions");
    }
    if aws.images {
        actions.push("ec2:DescribeImages");
    }
    actions
}

/// How the accounts of an organization are listed.
fn organization_actions(organization: &Organization) -> Vec<&'static str> {
    let Organization { include_ous, exclude_ous, .. } = organization;
    let mut actions = Vec::new();
    if include_ous.is_empty() {
        actions.push("organizations:ListAccounts");
    }
    if !include_ous.is_empty() || !exclude_ous.is_empty() {
        actions.extend(["organizations:ListAccountsForParent", "organizations:ListOrganizationalUnitsForParent"]);
    }
    actions
}

/// Each role of a chain is assumed by the one before; the last one does the work.
fn chain(
    caller: &str,
    chain: &[Role],
    actions: &[&'static str],
    own: &mut Grants,
    roles: &mut BTreeMap<String, Needs>,
) {
    let mut by = caller.to_owned();
    for (index, role) in chain.iter().enumerate() {
        match index {
            0 => own.roles.insert(role.role_arn.clone()),
            _ => roles.entry(by.clone()).or_default().grants.roles.insert(role.role_arn.clone()),
        };
        let needs = roles.entry(role.role_arn.clone()).or_default();
        needs.trusted.insert((by, role.external_id.is_some()));
        by = role.role_arn.clone();
        if index + 1 == chain.len() {
            needs.grants.actions.extend(actions);
        }
    }
}

impl Grants {
    fn policy(&self) -> Value {
        let mut statements = Vec::new();
        if !self.actions.is_empty() {
            // None of these calls takes a narrower resource.
            statements.push(json!({"Effect": "Allow", "Action": self.actions, "Resource": "*"}));
        }
        if !self.roles.is_empty() {
            statements.push(json!({"Effect": "Allow", "Action": ASSUME, "Resource": self.roles}));
        }
        json!({"Version": "2012-10-17", "Statement": statements})
    }
}

fn trust(trusted: &BTreeSet<(String, bool)>) -> Value {
    let statement = |(by, has_external_id): &(String, bool)| {
        let mut statement = json!({"Effect": "Allow", "Principal": {"AWS": by}, "Action": ASSUME});
        if *has_external_id {
            // Ours is redacted wherever it is shown.
            statement["Condition"] = json!({"StringEquals": {"sts:ExternalId": EXTERNAL_ID}});
        }
        statement
    };
    json!({"Version": "2012-10-17", "Statement": trusted.iter().map(statement).collect::<Vec<_>>()})
}

fn web_identity_trust(role_arn: &str) -> Value {
    let (partition, account) =
        RoleArn::parse(role_arn).map_or(("aws", "REPLACE_WITH_ACCOUNT"), |arn| (arn.partition.name, arn.account));
    let provider = format!("arn:{partition}:iam::{account}:oidc-provider/{OIDC_PROVIDER}");
    let audience = format!("{OIDC_PROVIDER}:aud");
    let subject = format!("{OIDC_PROVIDER}:sub");
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {audience: "sts.amazonaws.com", subject: OIDC_SUBJECT}},
    }]})
}

fn in_words(credentials: Option<&Credentials>) -> String {
    match credentials {
        None => "the default chain".to_owned(),
        Some(Credentials::Static(keys)) => format!("access key {}", keys.access_key_id),
        Some(Credentials::Profile(name)) => format!("profile {name}"),
        Some(Credentials::WebIdentity(web)) => format!("role {} by web identity", web.role_arn),
    }
}

/// The policies for people: each under a line that says where it belongs.
pub fn text(callers: &[Caller]) -> String {
    let mut text = String::new();
    let mut put = |title: &str, policy: &Value| {
        let blank = if text.is_empty() { "" } else { "\n" };
        // Infallible: into memory.
        let _ = writeln!(text, "{blank}# {title}\n{policy:#}");
    };
    for caller in callers {
        let Caller { partition, credentials, sources, .. } = caller;
        let of = format!("{credentials} ({partition}; sources: {})", sources.join(", "));
        put(&format!("Policy of the caller: {of}"), &caller.policy);
        if let Some(trust) = &caller.trust {
            put(&format!("Trust policy of the caller: {of}"), trust);
        }
        for role in &caller.roles {
            let place = if role.role_arn.contains(":iam::*:") { " in every account" } else { "" };
            put(&format!("Policy of {}{place}", role.role_arn), &role.policy);
            put(&format!("Trust policy of {}{place}", role.role_arn), &role.trust);
        }
    }
    text
}

#[cfg(test)]
mod tests;
