//! Who asks: credentials, and the roles that are assumed with them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::Secret;
use super::super::check::Faults;
use super::super::source::AccountId;
use super::region::Partition;

/// Where the credentials come from. Without: the SDK's default chain (environment, web identity as in IRSA, profile and
/// SSO, `credential_process`, EKS Pod Identity, ECS, instance metadata).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// Keys that stay the same.
    Static(StaticKeys),
    /// A profile of the AWS CLI's files.
    Profile(String),
    /// A role that is entered with a token of an OIDC provider.
    WebIdentity(WebIdentity),
}

/// Keys that stay the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticKeys {
    /// As in `AKIA…`: a name, not a secret.
    pub access_key_id: String,
    /// The secret that belongs to it.
    pub secret_access_key: Secret,
    /// Of temporary keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
}

/// A role that is entered with a token of an OIDC provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebIdentity {
    /// The role.
    pub role_arn: String,
    /// Holds the token; read anew at every refresh, since tokens are rotated.
    pub token_file: PathBuf,
    /// Session name in CloudTrail.
    #[serde(default = "session_name")]
    pub session_name: String,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The role.
    pub role_arn: String,
    /// What its trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<Secret>,
    /// Session name in CloudTrail.
    #[serde(default = "session_name")]
    pub session_name: String,
}

/// An account and how to get into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Role to assume there.
    pub role_arn: String,
    /// What the role's trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<Secret>,
    /// Session name in CloudTrail.
    #[serde(default = "session_name")]
    pub session_name: String,
    /// Roles to assume before, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Role>,
}

/// Every active account of an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// Name of the role to assume in each, with its path; `{account_id}` stands for the account.
    pub role_name: String,
    /// What the roles' trust policies ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<Secret>,
    /// Session name in CloudTrail.
    #[serde(default = "session_name")]
    pub session_name: String,
    /// Only the accounts below these organizational units or roots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_ous: Vec<String>,
    /// Not those below these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_ous: Vec<String>,
    /// Nor these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_accounts: Vec<AccountId>,
    /// Sweep the account of the credentials with these themselves, whatever the lists say. Otherwise the role is assumed
    /// there as in every other account, and its lack is a fault: a silent gap would be worse.
    #[serde(default)]
    pub include_own: bool,
}

fn session_name() -> String {
    "rollcall".to_owned()
}

impl Account {
    /// The account's ID, as the role's ARN has it; `None` where that is not the ARN of a role.
    pub fn id(&self) -> Option<&str> {
        RoleArn::parse(&self.role_arn).map(|arn| arn.account)
    }

    /// The roles to assume, in this order.
    pub fn chain(&self) -> Vec<Role> {
        let (role_arn, session_name) = (self.role_arn.clone(), self.session_name.clone());
        let last = Role { role_arn, external_id: self.external_id.clone(), session_name };
        self.via.iter().cloned().chain([last]).collect()
    }
}

impl Organization {
    /// The role to assume in an account.
    pub fn role(&self, partition: &str, account: &str) -> Role {
        let name = self.role_name.replace(ACCOUNT_ID, account);
        Role {
            role_arn: format!("arn:{partition}:iam::{account}:role/{name}"),
            external_id: self.external_id.clone(),
            session_name: self.session_name.clone(),
        }
    }
}

/// In the name of a role: the account that it is in.
pub const ACCOUNT_ID: &str = "{account_id}";

/// What the ARN of a role says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleArn<'a> {
    /// Its partition, a known one.
    pub partition: &'static Partition,
    /// Its account.
    pub account: &'a str,
}

impl<'a> RoleArn<'a> {
    /// `None` where it is not the ARN of a role.
    pub fn parse(arn: &'a str) -> Option<Self> {
        let parts: Vec<_> = arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, role] = parts[..] else { return None };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let name = role.strip_prefix("role/")?;
        (is_account && is_role_name(name)).then_some(Self { partition: Partition::named(partition)?, account })
    }
}

/// The name of a role, with its path.
fn is_role_name(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c));
    name.len() <= 576 && name.split('/').all(is_part) && name.rsplit('/').next().is_some_and(|last| last.len() <= 64)
}

// === Checks ===

impl Credentials {
    pub(in crate::config) fn check(&self, key: &str, faults: &mut Faults) {
        match self {
            Self::Static(keys) => {
                for (name, value) in [
                    ("access_key_id", Some(keys.access_key_id.as_str())),
                    ("secret_access_key", Some(keys.secret_access_key.expose())),
                    ("session_token", keys.session_token.as_ref().map(Secret::expose)),
                ] {
                    // None of them is repeated: people swap them.
                    let is_key = value.is_none_or(|value| !value.is_empty() && !value.contains(char::is_whitespace));
                    faults.unless(is_key, &format!("{key}.static.{name}"), "is empty, or has spaces in it");
                }
            }
            Self::Profile(name) => {
                faults.unless(
                    !name.trim().is_empty(),
                    &format!("{key}.profile"),
                    "is empty; a profile's name is needed",
                );
            }
            Self::WebIdentity(web) => {
                let key = format!("{key}.web_identity");
                check_role_arn(&format!("{key}.role_arn"), &web.role_arn, faults);
                check_session_name(&format!("{key}.session_name"), &web.session_name, faults);
                let has_file = !web.token_file.as_os_str().is_empty();
                faults.unless(has_file, &format!("{key}.token_file"), "is empty; a path is needed");
            }
        }
    }

    /// The ARN of the role that the credentials are of.
    pub fn role_arn(&self) -> Option<&str> {
        match self {
            Self::WebIdentity(web) => Some(&web.role_arn),
            Self::Static(_) | Self::Profile(_) => None,
        }
    }
}

impl Role {
    pub(in crate::config) fn check(&self, key: &str, faults: &mut Faults) {
        check_role_arn(&format!("{key}.role_arn"), &self.role_arn, faults);
        check_session_name(&format!("{key}.session_name"), &self.session_name, faults);
        check_external_id(&format!("{key}.external_id"), self.external_id.as_ref(), faults);
    }
}

impl Account {
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        let mut chain = self.chain();
        if let Some(last) = chain.pop() {
            last.check(key, faults);
        }
        for (index, role) in chain.iter().enumerate() {
            role.check(&format!("{key}.via.{index}"), faults);
        }
        faults.unless(
            self.via.len() <= 4,
            &format!("{key}.via"),
            format!("{} roles are too many: 4 at most", self.via.len()),
        );
    }
}

impl Organization {
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        let name = self.role_name.replace(ACCOUNT_ID, "123456789012");
        let message =
            format!("{:?} is not the name of a role, as in audit/rollcall or rollcall-{ACCOUNT_ID}", self.role_name);
        faults.unless(is_role_name(&name), &format!("{key}.role_name"), message);
        check_session_name(&format!("{key}.session_name"), &self.session_name, faults);
        check_external_id(&format!("{key}.external_id"), self.external_id.as_ref(), faults);
        for (name, list) in [("include_ous", &self.include_ous), ("exclude_ous", &self.exclude_ous)] {
            for (index, unit) in list.iter().enumerate() {
                let message = format!(
                    "{unit:?} is not the ID of an organizational unit or a root, as in ou-ab12-cd34ef56 or r-ab12"
                );
                faults.unless(is_unit(unit), &format!("{key}.{name}.{index}"), message);
            }
        }
    }
}

fn check_role_arn(key: &str, arn: &str, faults: &mut Faults) {
    let message = format!("{arn:?} is not the ARN of a role, as in arn:aws:iam::123456789012:role/rollcall");
    faults.unless(RoleArn::parse(arn).is_some(), key, message);
}

fn check_session_name(key: &str, name: &str, faults: &mut Faults) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let is_name = (2..=64).contains(&name.len()) && name.chars().all(allowed);
    faults.unless(is_name, key, format!("{name:?} is not allowed: 2 to 64 letters, digits and _+=,.@-"));
}

fn check_external_id(key: &str, id: Option<&Secret>, faults: &mut Faults) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
    let is_id = |id: &str| (2..=1224).contains(&id.len()) && id.chars().all(allowed);
    faults.unless(
        id.is_none_or(|id| is_id(id.expose())),
        key,
        "is not allowed: 2 to 1224 letters, digits and _+=,.@:/-",
    );
}

/// `ou-`, the root's part, the unit's part; or `r-` and the root's part.
fn is_unit(id: &str) -> bool {
    let is_part = |part: &str, least: usize| {
        (least..=32).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    match id.split('-').collect::<Vec<_>>()[..] {
        ["r", root] => is_part(root, 4),
        ["ou", root, unit] => is_part(root, 4) && is_part(unit, 8),
        _ => false,
    }
}
