//! Into the accounts of a source: which there are, in which regions, and a client for each.
//!
//! ```text
//!  credentials ──▶ roles to assume ──▶ keys of an account ──▶ EC2 client of a scope
//!  (chain, static, profile, token)     (renewed ahead)
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::identity::IdentityCache;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials as SdkCredentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::operation::describe_regions::DescribeRegionsOutput;
use serde_json::{Map, Value};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use super::super::fault::{Fault, FaultKind};
use super::super::source::{Discovery, Scope, Unknown};
use super::answer::Decoding;
use super::fault::Failure;
use super::keys::{Clock, Keys, Origin, Provider, believed_for};
use super::{http, organization};
use crate::collector::xml;
use crate::config::{Account, AwsSource, Credentials, Regions, Role, Secret};

/// How long accounts and regions are believed to stay the same.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Accounts that are asked for their regions at the same time.
const CONCURRENCY: usize = 8;

/// Who the caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Account ID, twelve digits.
    pub account: String,
    /// As in `arn:aws:sts::123456789012:assumed-role/rollcall/rollcall`.
    pub arn: String,
}

/// The accounts of one source.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    source: String,
    aws: AwsSource,
    clock: Clock,
    /// What all clients have in common, and the credentials of the process.
    base: OnceCell<Base>,
    /// Keys by the roles that lead to them.
    keys: Mutex<HashMap<String, Arc<Keys>>>,
    /// Who the credentials belong to.
    own: tokio::sync::Mutex<Remembered<Identity>>,
    known: tokio::sync::Mutex<Known>,
}

struct Base {
    config: SdkConfig,
    keys: Arc<Keys>,
}

#[derive(Default)]
struct Known {
    accounts: Remembered<Vec<String>>,
    regions: BTreeMap<String, Remembered<Vec<String>>>,
}

/// Something that AWS was asked for: the last answer, and what became of a later question.
struct Remembered<T> {
    value: Option<T>,
    fault: Option<Fault>,
    until: SystemTime,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { value: None, fault: None, until: SystemTime::UNIX_EPOCH }
    }
}

impl<T> Remembered<T> {
    /// Also after the clock was set back by hours.
    fn is_due(&self, now: SystemTime) -> bool {
        now >= self.until || now + KNOWN_FOR < self.until
    }

    fn put(&mut self, answer: Result<T, Fault>, now: SystemTime) {
        match answer {
            Ok(value) => *self = Self { value: Some(value), fault: None, until: now + KNOWN_FOR },
            Err(fault) => {
                self.until = now + believed_for(&fault);
                self.fault = Some(fault);
            }
        }
    }

    fn unknown(&self, account: Option<&str>) -> Option<Unknown> {
        Some(Unknown { account: account.map(str::to_owned), fault: self.fault.clone()? })
    }
}

impl Sessions {
    /// Of the source of that name. Nothing is asked for yet.
    pub fn new(source: &str, aws: AwsSource) -> Self {
        Self::with_clock(source, aws, Clock::new(SystemTime::now))
    }

    pub(super) fn with_clock(source: &str, aws: AwsSource, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            source: source.to_owned(),
            aws,
            clock,
            base: OnceCell::new(),
            keys: Mutex::default(),
            own: tokio::sync::Mutex::default(),
            known: tokio::sync::Mutex::default(),
        }))
    }

    /// The scopes. Asked for at most once an hour, and after a fault again in a minute at the soonest; what was known
    /// before a fault stays.
    pub async fn discover(&self) -> Discovery {
        let mut known = self.0.known.lock().await;
        let now = self.0.clock.now();
        if known.accounts.is_due(now) {
            known.accounts.put(self.0.accounts().await, now);
        }
        let accounts = known.accounts.value.clone().unwrap_or_default();
        known.regions.retain(|account, _| accounts.contains(account));
        let due =
            accounts.iter().filter(|account| known.regions.get(*account).is_none_or(|regions| regions.is_due(now)));
        for (account, regions) in self.regions_of(due.cloned().collect()).await {
            known.regions.entry(account).or_default().put(regions, now);
        }
        let mut discovery = Discovery::default();
        discovery.unknown.extend(known.accounts.unknown(None));
        for (account, regions) in &known.regions {
            discovery.unknown.extend(regions.unknown(Some(account)));
            discovery.scopes.extend(regions.value.iter().flatten().map(|region| Scope {
                source: self.0.source.clone(),
                account: Some(account.clone()),
                region: Some(region.clone()),
            }));
        }
        discovery
    }

    /// The regions of each account, several accounts at a time; one that fails does not hide the others.
    async fn regions_of(&self, accounts: Vec<String>) -> Vec<(String, Result<Vec<String>, Fault>)> {
        if let Some(names) = self.0.aws.regions.names() {
            return accounts.into_iter().map(|account| (account, Ok(names.to_vec()))).collect();
        }
        let slots = Arc::new(Semaphore::new(CONCURRENCY));
        let mut asking = JoinSet::new();
        for account in accounts {
            let (inner, slots) = (self.0.clone(), slots.clone());
            asking.spawn(async move {
                let _slot = slots.acquire_owned().await;
                let regions = inner.regions(&account).await;
                (account, regions)
            });
        }
        asking.join_all().await
    }

    /// A client for a scope. It does not try again: the caller does, by its own budget.
    ///
    /// Made anew each time, in less than a tenth of a millisecond: kept for 10 000 scopes, they would take 180 MB.
    /// Connections and keys are shared all the same.
    ///
    /// # Errors
    /// When there are no credentials for the account, with what has to be done about it.
    pub async fn ec2(&self, scope: &Scope) -> Result<aws_sdk_ec2::Client, Fault> {
        let keys = self.0.keys(scope.account.as_deref()).await?;
        // What the SDK would say of credentials that are not there is no help to anybody.
        keys.get().await?;
        let region = scope.region.as_deref().unwrap_or(self.0.aws.home_region());
        self.0.ec2_client(&keys, region, RetryConfig::disabled()).await
    }

    /// AWS says that the credentials of an account (`None`: the process's own) have expired: the next call has new ones.
    pub async fn refresh(&self, account: Option<&str>) {
        if let Ok(keys) = self.0.keys(account).await {
            keys.forget().await;
        }
    }

    /// The credentials of an account (`None`: the process's own).
    ///
    /// # Errors
    /// When there are none, with what has to be done about it.
    pub async fn credentials(&self, account: Option<&str>) -> Result<SdkCredentials, Fault> {
        self.0.keys(account).await?.get().await
    }

    /// Who the credentials of an account (`None`: the process's own) make us. Needs no permission.
    ///
    /// # Errors
    /// When there are no credentials, or STS does not take them.
    pub async fn identity(&self, account: Option<&str>) -> Result<Identity, Fault> {
        let keys = self.0.keys(account).await?;
        self.0.identity(&keys).await
    }
}

impl Inner {
    async fn base(&self) -> Result<&Base, Fault> {
        self.base.get_or_try_init(|| self.load()).await
    }

    async fn load(&self) -> Result<Base, Fault> {
        let aws = &self.aws;
        let client = http::client(aws).await?;
        let region = Region::new(aws.home_region().to_owned());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_secs(60))
            .operation_attempt_timeout(Duration::from_secs(60))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(client.clone())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard())
            .identity_cache(IdentityCache::no_cache());
        // Where they are not set, environment and profile may.
        if aws.fips {
            loader = loader.use_fips(true);
        }
        if aws.dual_stack {
            loader = loader.use_dual_stack(true);
        }
        if let Some(url) = &aws.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(Credentials::Profile(name)) = &aws.credentials {
            loader = loader.profile_name(name);
        }
        let config = loader.load().await;
        let origin = match &aws.credentials {
            None => {
                let missing = || Fault::new(FaultKind::Credentials, "the default chain of credentials is not there");
                let provider = config.credentials_provider().ok_or_else(missing)?;
                Origin::Sdk { provider, name: "the default chain of credentials".to_owned() }
            }
            Some(Credentials::Static(keys)) => {
                let token = keys.session_token.as_ref().map(|token| token.expose().to_owned());
                let secret = keys.secret_access_key.expose();
                let keys = SdkCredentials::new(&keys.access_key_id, secret, token, None, "rollcall");
                Origin::Sdk { provider: SharedCredentialsProvider::new(keys), name: "credentials.static".to_owned() }
            }
            Some(Credentials::Profile(profile)) => {
                let provider = ProviderConfig::without_region()
                    .with_region(Some(region))
                    .with_http_client(client)
                    .with_use_fips(config.use_fips())
                    .with_use_dual_stack(config.use_dual_stack());
                let provider =
                    ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(profile).build();
                Origin::Sdk { provider: SharedCredentialsProvider::new(provider), name: format!("profile {profile:?}") }
            }
            Some(Credentials::WebIdentity(web)) => {
                let sts = self.sts_client(&config);
                Origin::WebIdentity { web: web.clone(), sts }
            }
        };
        Ok(Base { keys: Arc::new(Keys::new(origin, self.clock.clone())), config })
    }

    fn sts_client(&self, config: &SdkConfig) -> aws_sdk_sts::Client {
        let mut builder = aws_sdk_sts::config::Builder::from(config);
        if let Some(url) = &self.aws.endpoints.sts {
            builder = builder.endpoint_url(url);
        }
        aws_sdk_sts::Client::from_conf(builder.build())
    }

    async fn ec2_client(
        &self,
        keys: &Arc<Keys>,
        region: &str,
        retry: RetryConfig,
    ) -> Result<aws_sdk_ec2::Client, Fault> {
        let config = Provider::config(keys, &self.base().await?.config);
        let region = aws_sdk_ec2::config::Region::new(region.to_owned());
        let mut builder = aws_sdk_ec2::config::Builder::from(&config).region(region).retry_config(retry);
        if let Some(url) = &self.aws.endpoints.ec2 {
            builder = builder.endpoint_url(url);
        }
        Ok(aws_sdk_ec2::Client::from_conf(builder.build()))
    }

    /// The keys of an account.
    async fn keys(&self, account: Option<&str>) -> Result<Arc<Keys>, Fault> {
        let roles = match account {
            None => Vec::new(),
            Some(account) => self.roles(account).await?,
        };
        let base = self.base().await?;
        let mut keys = base.keys.clone();
        let mut known = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut path = String::new();
        for role in roles {
            let external_id = role.external_id.as_ref().map(Secret::expose).unwrap_or_default();
            // Never shown; infallible.
            let _ = write!(path, "{}\n{}\n{external_id}\n", role.role_arn, role.session_name);
            let with = keys;
            let assumed = known.entry(path.clone()).or_insert_with(|| {
                let sts = self.sts_client(&Provider::config(&with, &base.config));
                Arc::new(Keys::new(Origin::Role { role, with, sts }, self.clock.clone()))
            });
            keys = assumed.clone();
        }
        Ok(keys)
    }

    /// The roles that lead into an account.
    async fn roles(&self, account: &str) -> Result<Vec<Role>, Fault> {
        if let Some(organization) = &self.aws.organization {
            let is_own = organization.include_own && self.own().await?.account == account;
            let role = organization.role(self.aws.partition().name, account);
            return Ok(if is_own { Vec::new() } else { vec![role] });
        }
        if self.aws.is_own_account() {
            return Ok(Vec::new());
        }
        let listed = self.aws.accounts.iter().find(|listed| listed.id() == Some(account));
        let message = || format!("account {account} is not among the accounts of source {:?}", self.source);
        listed.map(Account::chain).ok_or_else(|| Fault::new(FaultKind::InvalidRequest, message()))
    }

    /// Who the credentials belong to, as last told.
    async fn own(&self) -> Result<Identity, Fault> {
        let mut own = self.own.lock().await;
        let now = self.clock.now();
        if own.is_due(now) {
            let told = match self.base().await {
                Ok(base) => self.identity(&base.keys).await,
                Err(fault) => Err(fault),
            };
            own.put(told, now);
        }
        match (&own.value, &own.fault) {
            (Some(identity), _) => Ok(identity.clone()),
            (None, Some(fault)) => Err(fault.clone()),
            (None, None) => Err(Fault::new(FaultKind::Unavailable, "GetCallerIdentity: not asked yet")),
        }
    }

    async fn identity(&self, keys: &Arc<Keys>) -> Result<Identity, Fault> {
        keys.get().await?;
        let client = self.sts_client(&Provider::config(keys, &self.base().await?.config));
        let answer = client.get_caller_identity().send().await;
        let answer = answer.map_err(|error| {
            let failure = Failure::of(&format!("GetCallerIdentity as {keys}"), &error);
            failure.of_the_clock().unwrap_or(failure.fault)
        })?;
        let nameless = || Fault::new(FaultKind::Unreadable, "GetCallerIdentity: the answer names no account");
        let (Some(account), Some(arn)) = (answer.account, answer.arn) else { return Err(nameless()) };
        Ok(Identity { account, arn })
    }

    async fn accounts(&self) -> Result<Vec<String>, Fault> {
        if let Some(wanted) = &self.aws.organization {
            let keys = self.keys(None).await?;
            keys.get().await?;
            let config = Provider::config(&keys, &self.base().await?.config);
            let mut builder = aws_sdk_organizations::config::Builder::from(&config);
            if let Some(url) = &self.aws.endpoints.organizations {
                builder = builder.endpoint_url(url);
            }
            let client = aws_sdk_organizations::Client::from_conf(builder.build());
            let mut accounts = organization::accounts(&client, wanted).await?;
            if wanted.include_own {
                accounts.insert(self.own().await?.account);
            }
            return Ok(accounts.into_iter().collect());
        }
        if self.aws.is_own_account() {
            return Ok(vec![self.own().await?.account]);
        }
        Ok(self.aws.accounts.iter().filter_map(Account::id).map(str::to_owned).collect())
    }

    /// The regions of an account: those that are named, and those of the enabled ones that are meant.
    async fn regions(&self, account: &str) -> Result<Vec<String>, Fault> {
        let keys = self.keys(Some(account)).await?;
        keys.get().await?;
        let client = self.ec2_client(&keys, self.aws.home_region(), RetryConfig::standard()).await?;
        // Decoded like instances: the SDK takes an answer that is cut for a short list, and a region would be lost.
        let decoding = Decoding::new(xml::decode_regions, || DescribeRegionsOutput::builder().build());
        let sent = client.describe_regions().customize().interceptor(decoding.clone()).send().await;
        let call = format!("DescribeRegions in account {account}");
        let regions = decoding.answer(&call, sent).map_err(|failure| failure.fault)?.content;
        let name = |region: &Map<String, Value>| region.get("RegionName")?.as_str().map(str::to_owned);
        let enabled: Vec<_> = regions.iter().filter_map(name).collect();
        if enabled.is_empty() {
            let message = format!("DescribeRegions in account {account}: the answer names no region");
            return Err(Fault::new(FaultKind::Unreadable, message));
        }
        Ok(meant(&self.aws.regions, enabled))
    }
}

/// A region that is named stays, enabled or not: that it is not is a fault to be told, not a gap.
fn meant(regions: &Regions, enabled: Vec<String>) -> Vec<String> {
    let named = regions.listed().iter().filter(|name| !name.contains(['*', '?'])).cloned();
    let mut meant: Vec<_> = enabled.into_iter().filter(|region| regions.cover(region)).chain(named).collect();
    meant.sort();
    meant.dedup();
    meant
}

/// Two sources that sweep the same account and region, as far as their scopes tell.
pub fn overlap(scopes: &[Scope]) -> Option<(Scope, Scope)> {
    let mut seen: HashMap<(&str, &str), &Scope> = HashMap::new();
    for scope in scopes {
        let (Some(account), Some(region)) = (scope.account.as_deref(), scope.region.as_deref()) else { continue };
        let first = seen.entry((account, region)).or_insert(scope);
        if first.source != scope.source {
            return Some(((*first).clone(), scope.clone()));
        }
    }
    None
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
