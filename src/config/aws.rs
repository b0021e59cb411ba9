//! Source `aws`: which accounts and regions, and how to get into them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Secret;
use super::check::Faults;

/// The EC2 API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwsSource {
    /// Regions to sweep, in every account.
    pub regions: Vec<String>,
    /// Accounts to sweep; none: the one that the credentials belong to.
    pub accounts: Vec<Account>,
    /// Address of the EC2 and STS APIs, where it is not AWS's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Instances a page, 5 to 1000.
    pub page_size: PageSize,
    /// Filters of DescribeInstances: names and values.
    pub filters: BTreeMap<String, Vec<String>>,
    /// Calls in a region of an account, at most.
    pub calls_per_second: f64,
    /// Whether names and owners of images are added.
    pub images: bool,
}

impl Default for AwsSource {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            accounts: Vec::new(),
            endpoint_url: None,
            page_size: PageSize::default(),
            filters: BTreeMap::new(),
            calls_per_second: 2.0,
            images: false,
        }
    }
}

/// `MaxResults` of DescribeInstances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageSize(pub i32);

impl Default for PageSize {
    fn default() -> Self {
        Self(1000)
    }
}

/// An account and how to get into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Role to assume there.
    pub role_arn: String,
    /// The secret that the role's trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<Secret>,
    /// Session name in CloudTrail.
    #[serde(default = "session_name")]
    pub session_name: String,
}

impl Account {
    /// The account's ID, as the role's ARN has it; `None` where that is not the ARN of a role.
    pub fn id(&self) -> Option<&str> {
        let parts: Vec<_> = self.role_arn.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, role] = parts[..] else { return None };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        (partition.starts_with("aws") && is_account && role.strip_prefix("role/").is_some_and(|name| !name.is_empty()))
            .then_some(account)
    }
}

fn session_name() -> String {
    "rollcall".to_owned()
}

impl AwsSource {
    /// Notes what no type can refuse.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        if let Some(url) = &self.endpoint_url {
            faults.address(&format!("{key}.endpoint_url"), url);
        }
        faults.unless(
            !self.regions.is_empty(),
            &format!("{key}.regions"),
            "is empty; name at least one, as in eu-west-1",
        );
        for (index, region) in self.regions.iter().enumerate() {
            let message = format!("{region:?} is not the name of a region, as in eu-west-1 or us-gov-east-1");
            faults.unless(is_region(region), &format!("{key}.regions.{index}"), message);
        }
        faults.within(&format!("{key}.page_size"), i64::from(self.page_size.0), 5, 1000);
        for (index, account) in self.accounts.iter().enumerate() {
            let message = format!(
                "{:?} is not the ARN of a role, as in arn:aws:iam::123456789012:role/rollcall",
                account.role_arn
            );
            faults.unless(account.id().is_some(), &format!("{key}.accounts.{index}.role_arn"), message);
        }
    }
}

/// Letters, a dash and more letters, at last a number: `eu-west-1`, `us-gov-east-1`.
fn is_region(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.len() >= 2 && words.iter().all(is_word) && number.parse::<u8>().is_ok()
}
