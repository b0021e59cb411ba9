//! The accounts of an AWS Organization.

use std::collections::BTreeSet;
use std::future::Future;

use aws_sdk_organizations::Client;
use aws_sdk_organizations::types::{Account, AccountState, AccountStatus};

use super::super::fault::{Fault, FaultKind};
use super::classify;
use crate::config::Organization;

/// Pages of one list, at most; AWS allows 50 000 accounts, at twenty a page.
const MAX_PAGES: usize = 5000;
/// Organizational units that are looked into, at most; AWS allows 2000.
const MAX_UNITS: usize = 10_000;

/// The active accounts that are asked for. All or nothing: what cannot be listed might be what is to be left out.
pub(super) async fn accounts(client: &Client, wanted: &Organization) -> Result<BTreeSet<String>, Fault> {
    let excluded: BTreeSet<_> = wanted.exclude_ous.iter().cloned().collect();
    let mut accounts = if wanted.include_ous.is_empty() {
        let mut all = all(client).await?;
        for account in below(client, &wanted.exclude_ous, &BTreeSet::new()).await? {
            all.remove(&account);
        }
        all
    } else {
        below(client, &wanted.include_ous, &excluded).await?
    };
    for account in &wanted.exclude_accounts {
        accounts.remove(&account.0);
    }
    Ok(accounts)
}

async fn all(client: &Client) -> Result<BTreeSet<String>, Fault> {
    const CALL: &str = "ListAccounts";
    let accounts = pages(CALL, async |token| {
        let page = client.list_accounts().set_next_token(token).send().await.map_err(|error| classify(CALL, error))?;
        Ok((page.accounts.unwrap_or_default(), page.next_token))
    });
    ids(CALL, accounts.await?)
}

/// The accounts in these units and the units below them, but for the excluded ones and what is below those.
async fn below(client: &Client, units: &[String], excluded: &BTreeSet<String>) -> Result<BTreeSet<String>, Fault> {
    let (mut accounts, mut seen) = (BTreeSet::new(), excluded.clone());
    let mut open = units.to_vec();
    while let Some(unit) = open.pop() {
        if !seen.insert(unit.clone()) {
            continue;
        }
        if seen.len() > MAX_UNITS {
            let message = format!("ListOrganizationalUnitsForParent: more than {MAX_UNITS} organizational units");
            return Err(Fault::new(FaultKind::InvalidRequest, message));
        }
        let call = format!("ListAccountsForParent {unit}");
        let inside = pages(&call, async |token| {
            let request = client.list_accounts_for_parent().parent_id(&unit).set_next_token(token);
            let page = request.send().await.map_err(|error| classify(&call, error))?;
            Ok((page.accounts.unwrap_or_default(), page.next_token))
        });
        accounts.extend(ids(&call, inside.await?)?);
        let call = format!("ListOrganizationalUnitsForParent {unit}");
        let children = pages(&call, async |token| {
            let request = client.list_organizational_units_for_parent().parent_id(&unit).set_next_token(token);
            let page = request.send().await.map_err(|error| classify(&call, error))?;
            Ok((page.organizational_units.unwrap_or_default(), page.next_token))
        });
        open.extend(children.await?.into_iter().filter_map(|child| child.id));
    }
    Ok(accounts)
}

/// Page by page, since the SDK's paginator takes a repeated token for the end. An empty page may have a next one.
async fn pages<T, F>(call: &str, mut page: impl FnMut(Option<String>) -> F) -> Result<Vec<T>, Fault>
where
    F: Future<Output = Result<(Vec<T>, Option<String>), Fault>>,
{
    let (mut items, mut token) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let (more, next) = page(token.clone()).await?;
        items.extend(more);
        match next {
            None => return Ok(items),
            Some(next) if Some(&next) == token.as_ref() => {
                let message = format!("{call}: the answer repeats the token of its own page");
                return Err(Fault::new(FaultKind::RepeatedToken, message));
            }
            Some(next) => token = Some(next),
        }
    }
    Err(Fault::new(FaultKind::RepeatedToken, format!("{call}: no end after {MAX_PAGES} pages")))
}

fn ids(call: &str, accounts: Vec<Account>) -> Result<BTreeSet<String>, Fault> {
    let unreadable = || Fault::new(FaultKind::Unreadable, format!("{call}: an account has no ID"));
    accounts.into_iter().filter(is_active).map(|account| account.id.ok_or_else(unreadable)).collect()
}

/// `State` takes the place of `Status`, which AWS retires on 2026-09-09; either may be missing.
fn is_active(account: &Account) -> bool {
    match (&account.state, &account.status) {
        (Some(state), _) => *state == AccountState::Active,
        (None, status) => *status == Some(AccountStatus::Active),
    }
}
