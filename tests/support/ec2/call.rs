//! A call of an AWS API, as far as it can be told from its request.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::wire::Request;

/// A call and what it was answered.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: DateTime<Utc>,
    /// As in `DescribeInstances`.
    pub action: String,
    /// As in `ec2`, from the signature; empty for a call that is not signed.
    pub service: String,
    /// From the signature; empty for a call that is not signed.
    pub region: String,
    /// From the signature; empty for a call that is not signed.
    pub access_key: String,
    /// The account of the role that the key was handed out for; `None` for keys of unknown origin.
    pub account: Option<String>,
    /// The form, or the query string.
    pub form: BTreeMap<String, String>,
    /// Which page of its listing is asked for, from 1.
    pub page: usize,
    /// What was answered; `None` while it is not, and where the connection was closed or hangs.
    pub status: Option<u16>,
    /// The code of the error that was answered.
    pub error: Option<String>,
}

impl Call {
    /// Reads a request. `page` and `account` are the caller's to find out.
    pub fn of(request: &Request) -> Self {
        let authorization = request.header("authorization").unwrap_or_default();
        let scope =
            authorization.split("Credential=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
        let mut scope = scope.split('/').map(str::to_owned);
        let access_key = scope.next().unwrap_or_default();
        let (region, service) = (scope.nth(1).unwrap_or_default(), scope.next().unwrap_or_default());
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        let mut form = pairs(query);
        let action = match request.header("x-amz-target") {
            Some(target) => target.rsplit('.').next().unwrap_or_default().to_owned(),
            None => {
                form.extend(pairs(std::str::from_utf8(&request.body).unwrap_or_default()));
                form.get("Action").cloned().unwrap_or_default()
            }
        };
        if let Ok(Value::Object(members)) = serde_json::from_slice(&request.body) {
            form.extend(members.into_iter().map(|(name, value)| match value {
                Value::String(text) => (name, text),
                other => (name, other.to_string()),
            }));
        }
        let at = Utc::now();
        Self { at, action, service, region, access_key, account: None, form, page: 1, status: None, error: None }
    }

    /// The token of the page that is asked for.
    pub fn token(&self) -> Option<&str> {
        self.form.get("NextToken").map(String::as_str).filter(|token| !token.is_empty())
    }

    /// The values of a list parameter: `NAME.1`, `NAME.2` …
    pub fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|index| self.form.get(&format!("{name}.{index}"))).map(String::as_str).collect()
    }

    /// The filters, by name.
    pub fn filters(&self) -> BTreeMap<&str, Vec<&str>> {
        let filters = (1..).map_while(|index| {
            let name = self.form.get(&format!("Filter.{index}.Name"))?;
            Some((name.as_str(), self.list(&format!("Filter.{index}.Value"))))
        });
        filters.collect()
    }

    /// Whether it asks for particular instances and not for what there is.
    pub fn is_by_id(&self) -> bool {
        self.form.contains_key("InstanceId.1")
            || ["instance-id", "resource-id"].iter().any(|name| self.filters().contains_key(name))
    }

    /// Whether it was refused for coming too soon.
    pub fn was_throttled(&self) -> bool {
        self.error.as_deref() == Some(super::fault::THROTTLED)
    }

    /// Where it belongs to: the account, or the key where that is not known, and the region.
    pub fn scope(&self) -> (String, String) {
        (self.account.clone().unwrap_or_else(|| self.access_key.clone()), self.region.clone())
    }
}

/// The decoded pairs of a form or query string.
pub fn pairs(encoded: &str) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://form/?{encoded}")).unwrap();
    url.query_pairs().into_owned().filter(|(name, _)| !name.is_empty()).collect()
}
