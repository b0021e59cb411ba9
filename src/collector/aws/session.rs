//! Credentials, regions and accounts: who calls, and where.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_ec2::config::Region;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use tokio::sync::OnceCell;

use super::classify;
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::source::{Discovery, Scope, Unknown};
use crate::config::{Account, AwsSource};

/// Who calls, as AWS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// The user or the session of a role.
    pub arn: String,
}

/// The sessions of one source.
pub struct Sessions {
    source: String,
    aws: AwsSource,
    /// Credentials of the process, made at the first use.
    base: OnceCell<SdkConfig>,
}

impl Sessions {
    /// Those of a source.
    pub fn new(source: &str, aws: AwsSource) -> Self {
        Self { source: source.to_owned(), aws, base: OnceCell::new() }
    }

    /// The scopes of the source.
    pub async fn discover(&self) -> Discovery {
        let accounts = match self.aws.accounts.as_slice() {
            [] => match self.identity(None).await {
                Ok(identity) => vec![identity.account],
                Err(fault) => {
                    return Discovery { scopes: Vec::new(), unknown: vec![Unknown { account: None, fault }] };
                }
            },
            accounts => accounts.iter().filter_map(Account::id).map(str::to_owned).collect(),
        };
        let regions = &self.aws.regions;
        let scope = |account: &String, region: &String| Scope {
            source: self.source.clone(),
            account: Some(account.clone()),
            region: Some(region.clone()),
        };
        let scopes = accounts.iter().flat_map(|account| regions.iter().map(move |region| scope(account, region)));
        Discovery { scopes: scopes.collect(), unknown: Vec::new() }
    }

    /// A client that does not try again by itself.
    ///
    /// # Errors
    /// When there are no credentials.
    pub async fn ec2(&self, scope: &Scope) -> Result<aws_sdk_ec2::Client, Fault> {
        let base = self.base().await;
        let mut config = aws_sdk_ec2::config::Builder::from(base);
        config = config.region(scope.region.clone().map(Region::new)).retry_config(RetryConfig::disabled());
        let account = self.aws.accounts.iter().find(|account| account.id() == scope.account.as_deref());
        if let Some(account) = account {
            config = config.credentials_provider(assume(account, base).await);
        }
        Ok(aws_sdk_ec2::Client::from_conf(config.build()))
    }

    /// Forgets the credentials of an account.
    pub async fn refresh(&self, _account: Option<&str>) {}

    /// Who the credentials belong to.
    ///
    /// # Errors
    /// When AWS does not say.
    pub async fn identity(&self, _account: Option<&str>) -> Result<Identity, Fault> {
        let client = aws_sdk_sts::Client::new(self.base().await);
        let identity = client.get_caller_identity().send().await;
        let identity = identity.map_err(|error| classify("GetCallerIdentity", error))?;
        let account = identity
            .account
            .ok_or_else(|| Fault::new(FaultKind::Unreadable, "GetCallerIdentity: the answer names no account"))?;
        Ok(Identity { account, arn: identity.arn.unwrap_or_default() })
    }

    async fn base(&self) -> &SdkConfig {
        let load = || async {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(Duration::from_secs(60))
                .operation_timeout(Duration::from_secs(180));
            let mut loader = aws_config::from_env().timeout_config(timeouts.build());
            if let Some(url) = &self.aws.endpoint_url {
                loader = loader.endpoint_url(url);
            }
            // STS is asked in a region that is surely enabled: the first one that is swept.
            if let Some(region) = self.aws.regions.first() {
                loader = loader.region(Region::new(region.clone()));
            }
            loader.load().await
        };
        self.base.get_or_init(load).await
    }
}

async fn assume(account: &Account, base: &SdkConfig) -> AssumeRoleProvider {
    let mut role = AssumeRoleProvider::builder(&account.role_arn).session_name(&account.session_name).configure(base);
    if let Some(external_id) = &account.external_id {
        role = role.external_id(external_id.expose());
    }
    role.build().await
}
