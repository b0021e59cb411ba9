//! Source `aws`: which accounts and regions, how to get into them, and how to ask.

mod identity;
mod region;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Faults;
use super::{Secret, duration};
pub use identity::{ACCOUNT_ID, Account, Credentials, Organization, Role, RoleArn, StaticKeys, WebIdentity};
pub use region::{PARTITIONS, Partition, Regions};

/// Values of one filter that EC2 takes.
const MAX_FILTER_VALUES: usize = 200;

/// The EC2 API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwsSource {
    /// Regions to sweep, in every account.
    pub regions: Regions,
    /// Take names of regions that are not known to this release.
    pub allow_unknown_regions: bool,
    /// Where the credentials come from; `None`: the SDK's default chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Accounts to sweep; none, and no organization: the one that the credentials belong to.
    pub accounts: Vec<Account>,
    /// Accounts to sweep: those of an organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<Organization>,
    /// Where STS is asked, and which regions there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sts_region: Option<String>,
    /// Address of all APIs, where it is not AWS's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Addresses of single APIs.
    pub endpoints: Endpoints,
    /// Ask the endpoints that are validated for FIPS 140.
    pub fips: bool,
    /// Ask the endpoints that have IPv6 addresses too.
    pub dual_stack: bool,
    /// Address of a proxy; without it `HTTPS_PROXY` and `NO_PROXY` are honoured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// User at the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_username: Option<Secret>,
    /// Password at the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password: Option<Secret>,
    /// Certificates that are trusted beside the system's, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Filters of DescribeInstances, by name.
    pub filters: BTreeMap<String, Vec<String>>,
    /// Instances a page, 5 to 1000.
    pub page_size: PageSize,
    /// Calls to EC2, in an account and region, at most.
    pub calls_per_second: f64,
    /// How long an instance that is missing is waited for before it is asked for by name.
    #[serde(with = "duration")]
    pub settling_delay: Duration,
    /// Whether to look up the images of the instances.
    pub images: bool,
}

impl Default for AwsSource {
    fn default() -> Self {
        Self {
            regions: Regions::default(),
            allow_unknown_regions: false,
            credentials: None,
            accounts: Vec::new(),
            organization: None,
            sts_region: None,
            endpoint_url: None,
            endpoints: Endpoints::default(),
            fips: false,
            dual_stack: false,
            proxy: None,
            proxy_username: None,
            proxy_password: None,
            ca_file: None,
            filters: BTreeMap::new(),
            page_size: PageSize::default(),
            calls_per_second: 2.0,
            settling_delay: Duration::from_secs(10),
            images: false,
        }
    }
}

/// Addresses of single APIs, where they are not AWS's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoints {
    /// EC2, in all regions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ec2: Option<String>,
    /// STS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sts: Option<String>,
    /// Organizations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organizations: Option<String>,
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

impl AwsSource {
    /// The partition that all of it lies in.
    pub fn partition(&self) -> &'static Partition {
        let told = self.partitions_told().into_iter().map(|(_, partition)| partition).next();
        let hinted = || self.regions.listed().iter().find_map(|pattern| Partition::of_glob(pattern));
        told.or_else(hinted).or_else(|| Partition::named("aws")).unwrap_or(&PARTITIONS[0])
    }

    /// Where STS is asked, and DescribeRegions: a region that is surely enabled. Never the global endpoint: regions that
    /// need an opt-in refuse its tokens.
    pub fn home_region(&self) -> &str {
        let first = || self.regions.listed().iter().find(|region| !region::is_glob(region));
        self.sts_region.as_ref().or_else(first).map_or(self.partition().home, String::as_str)
    }

    /// Whether only the account of the credentials is swept.
    pub fn is_own_account(&self) -> bool {
        self.accounts.is_empty() && self.organization.is_none()
    }

    /// Keys that say which partition they mean, and which.
    fn partitions_told(&self) -> Vec<(String, &'static Partition)> {
        let role = |key: String, arn: &str| Some((key, RoleArn::parse(arn)?.partition));
        let region = |key: String, name: &str| Some((key, Partition::of_region(name)?));
        let mut told = Vec::new();
        let listed = self.regions.listed().iter().enumerate().filter(|(_, name)| !region::is_glob(name));
        told.extend(listed.map(|(index, name)| region(format!("regions.{index}"), name)));
        told.extend(self.sts_region.iter().map(|name| region("sts_region".to_owned(), name)));
        let web = self.credentials.as_ref().and_then(Credentials::role_arn);
        told.extend(web.map(|arn| role("credentials.web_identity.role_arn".to_owned(), arn)));
        for (index, account) in self.accounts.iter().enumerate() {
            told.push(role(format!("accounts.{index}.role_arn"), &account.role_arn));
            let via = account.via.iter().enumerate();
            told.extend(via.map(|(hop, via)| role(format!("accounts.{index}.via.{hop}.role_arn"), &via.role_arn)));
        }
        told.into_iter().flatten().collect()
    }

    /// Notes what no type can refuse.
    pub(super) fn check(&self, key: &str, faults: &mut Faults) {
        self.check_regions(key, faults);
        self.check_accounts(key, faults);
        self.check_network(key, faults);
        self.check_calls(key, faults);
        let told = self.partitions_told();
        if let Some(((first, one), (other, another))) = told.first().zip(told.iter().find(|it| it.1 != told[0].1)) {
            let message = format!(
                "lies in partition {}, but {first} in {}; a source lies in one partition, write two",
                another.name, one.name
            );
            faults.add(&format!("{key}.{other}"), message);
        }
    }

    fn check_regions(&self, key: &str, faults: &mut Faults) {
        // An endpoint of one's own may have regions of its own.
        let only_form = self.allow_unknown_regions || self.endpoint_url.is_some() || self.endpoints.ec2.is_some();
        let mut check = |key: &str, name: &str| {
            if !region::is_well_formed(name) {
                faults.add(key, format!("{name:?} is not the name of a region, as in eu-west-1 or us-gov-east-1"));
            } else if !only_form && !region::is_known(name) {
                let way = "if it is new, set allow_unknown_regions: true";
                faults.add(key, format!("{name:?} is no region that this release knows; {way}"));
            }
        };
        if let Some(name) = &self.sts_region {
            check(&format!("{key}.sts_region"), name);
        }
        let listed = self.regions.listed();
        for (index, name) in listed.iter().enumerate().filter(|(_, name)| !region::is_glob(name)) {
            check(&format!("{key}.regions.{index}"), name);
        }
        for (index, pattern) in listed.iter().enumerate().filter(|(_, name)| region::is_glob(name)) {
            let is_useful = region::is_well_formed_glob(pattern) && (only_form || region::matches_known(pattern));
            let message = format!("{pattern:?} matches no region that this release knows, as eu-* or us-west-? do");
            faults.unless(is_useful, &format!("{key}.regions.{index}"), message);
        }
        let distinct: BTreeSet<_> = listed.iter().collect();
        faults.unless(distinct.len() == listed.len(), &format!("{key}.regions"), "names a region twice");
        let names_some = self.regions == Regions::All || !listed.is_empty();
        faults.unless(names_some, &format!("{key}.regions"), "is empty; name some, as in [eu-west-1, us-*], or `all`");
    }

    fn check_accounts(&self, key: &str, faults: &mut Faults) {
        if let Some(credentials) = &self.credentials {
            credentials.check(&format!("{key}.credentials"), faults);
        }
        if let Some(organization) = &self.organization {
            organization.check(&format!("{key}.organization"), faults);
            let message = "is given beside accounts; one of the two is allowed in a source";
            faults.unless(self.accounts.is_empty(), &format!("{key}.organization"), message);
        }
        let mut seen = BTreeSet::new();
        for (index, account) in self.accounts.iter().enumerate() {
            let key = format!("{key}.accounts.{index}");
            account.check(&key, faults);
            let is_first = account.id().is_none_or(|id| seen.insert(id));
            let message = format!("{:?} is in an account that is listed before", account.role_arn);
            faults.unless(is_first, &format!("{key}.role_arn"), message);
        }
    }

    fn check_network(&self, key: &str, faults: &mut Faults) {
        let Endpoints { ec2, sts, organizations } = &self.endpoints;
        for (name, url) in [
            ("endpoint_url", &self.endpoint_url),
            ("endpoints.ec2", ec2),
            ("endpoints.sts", sts),
            ("endpoints.organizations", organizations),
            ("proxy", &self.proxy),
        ] {
            if let Some(url) = url {
                faults.address(&format!("{key}.{name}"), url);
            }
        }
        for (name, secret) in [("proxy_username", &self.proxy_username), ("proxy_password", &self.proxy_password)] {
            let message = "is given without proxy, or only one of proxy_username and proxy_password is";
            let is_whole = self.proxy.is_some() && self.proxy_username.is_some() == self.proxy_password.is_some();
            faults.unless(secret.is_none() || is_whole, &format!("{key}.{name}"), message);
        }
        let has_file = self.ca_file.as_ref().is_none_or(|file| !file.as_os_str().is_empty());
        faults.unless(has_file, &format!("{key}.ca_file"), "is empty; a path is needed");
    }

    fn check_calls(&self, key: &str, faults: &mut Faults) {
        for (name, values) in &self.filters {
            let key = format!("{key}.filters.{name}");
            let message = "is not allowed: it is how missing instances are asked for; use another filter";
            faults.unless(name != "instance-id", &key, message);
            let allowed = (1..=MAX_FILTER_VALUES).contains(&values.len());
            faults.unless(allowed, &key, format!("{} values are not allowed: 1 to {MAX_FILTER_VALUES}", values.len()));
        }
        faults.within(&format!("{key}.page_size"), i64::from(self.page_size.0), 5, 1000);
        let rate = self.calls_per_second;
        let message = format!("{rate} is not allowed: 0.1 to 20");
        faults.unless((0.1..=20.0).contains(&rate), &format!("{key}.calls_per_second"), message);
        let most = Duration::from_secs(300);
        faults.between(&format!("{key}.settling_delay"), self.settling_delay, Duration::ZERO, most);
    }

    /// Why two sources surely sweep the same account and region, where the configuration tells.
    pub(super) fn overlap(&self, other: &Self) -> Option<String> {
        let is_same_place = self.endpoint_url == other.endpoint_url && self.endpoints == other.endpoints;
        if !is_same_place || self.partition() != other.partition() || !self.regions.overlap(&other.regions) {
            return None;
        }
        if self.is_own_account() && other.is_own_account() {
            return (self.credentials == other.credentials).then(|| "the account of the same credentials".to_owned());
        }
        let ids = |source: &Self| source.accounts.iter().filter_map(|it| it.id().map(str::to_owned)).collect();
        let [one, another]: [BTreeSet<String>; 2] = [ids(self), ids(other)];
        one.intersection(&another).next().map(|account| format!("account {account}"))
    }
}
