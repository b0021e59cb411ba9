//! Who may see what on the admin port.
//!
//! Without a token nobody is asked who they are, so only who is on this machine sees devices, and only under a name of
//! this machine: else any page in the operator's browser could have its own name resolve to it and read along. With a
//! token whoever brings it does, as a bearer token or, in a browser, as a cookie that is made from it.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST};
use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Secret;
use crate::status::report::Sight;

/// How long a browser stays signed in.
pub(super) const SIGNED_IN_FOR: TimeDelta = TimeDelta::hours(12);
/// Name of the cookie.
pub(super) const COOKIE_NAME: &str = "rollcall_session";
/// What the key of the cookies is derived for.
const PURPOSE: &str = "rollcall 2026-11-25 admin session cookie";

/// What is asked of who comes.
#[derive(Debug)]
pub(super) enum Door {
    /// Nothing: it is this machine's own.
    OwnMachine,
    /// Nothing, and nobody sees devices.
    Closed,
    /// The token.
    Token(Secret),
}

/// Why somebody is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Asked under a foreign name.
    Misdirected,
    /// A token that is not ours.
    WrongToken,
}

impl Door {
    pub(super) fn new(token: Option<&Secret>, is_loopback: bool) -> Self {
        match (token, is_loopback) {
            (Some(token), _) => Self::Token(token.clone()),
            (None, true) => Self::OwnMachine,
            (None, false) => Self::Closed,
        }
    }

    /// How much who asks with these headers may see.
    pub(super) fn sight(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Result<Sight, Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match self {
            Self::OwnMachine if text(HOST).is_some_and(is_own_name) => Ok(Sight::Operator),
            Self::OwnMachine => Err(Refusal::Misdirected),
            Self::Closed => Ok(Sight::Passerby),
            Self::Token(_) => {
                if let Some(given) = text(AUTHORIZATION) {
                    let (scheme, given) = given.split_once(' ').unwrap_or_default();
                    let is_ours = scheme.eq_ignore_ascii_case("bearer") && self.takes(given.trim());
                    return if is_ours { Ok(Sight::Operator) } else { Err(Refusal::WrongToken) };
                }
                let is_signed_in = cookies(headers).any(|cookie| self.takes_cookie(cookie, now));
                Ok(if is_signed_in { Sight::Operator } else { Sight::Passerby })
            }
        }
    }

    /// Whether this is the token. It takes equally long for all of one length.
    pub(super) fn takes(&self, given: &str) -> bool {
        // A `Hash` compares in constant time.
        matches!(self, Self::Token(token) if blake3::hash(given.as_bytes()) == blake3::hash(token.expose().as_bytes()))
    }

    /// The cookie of somebody who has brought the token: when it expires, and what only the token can have made of that.
    pub(super) fn cookie(&self, now: DateTime<Utc>) -> Option<String> {
        let expires = (now + SIGNED_IN_FOR).timestamp();
        Some(format!("{expires}.{}", self.seal(expires)?.to_hex()))
    }

    fn takes_cookie(&self, cookie: &str, now: DateTime<Utc>) -> bool {
        let read = || {
            let (expires, seal) = cookie.split_once('.')?;
            Some((expires.parse().ok()?, blake3::Hash::from_hex(seal).ok()?))
        };
        read().is_some_and(|(expires, seal)| expires > now.timestamp() && self.seal(expires) == Some(seal))
    }

    fn seal(&self, expires: i64) -> Option<blake3::Hash> {
        let Self::Token(token) = self else { return None };
        let key = blake3::derive_key(PURPOSE, token.expose().as_bytes());
        Some(blake3::keyed_hash(&key, &expires.to_be_bytes()))
    }
}

/// The values of our cookie: a browser may send several, of other paths.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let pairs = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = pairs.flat_map(|pairs| pairs.split(';'));
    pairs.filter_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// Whether a `Host` can only be this machine.
fn is_own_name(host: &str) -> bool {
    let port = host.rfind(':').filter(|colon| !host[*colon..].contains(']'));
    let name = &host[..port.unwrap_or(host.len())];
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_loopback = address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn door() -> Door {
        Door::Token(Secret::from(TOKEN))
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).unwrap()
    }

    fn asked(door: &Door, name: HeaderName, value: &str) -> Result<Sight, Refusal> {
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        door.sight(&headers, now())
    }

    fn with_cookie(door: &Door, cookie: &str) -> Sight {
        asked(door, COOKIE, &format!("other=1; {COOKIE_NAME}={cookie}")).unwrap()
    }

    #[test]
    fn the_token_lets_in_and_another_is_refused() {
        assert_eq!(asked(&door(), AUTHORIZATION, &format!("Bearer {TOKEN}")), Ok(Sight::Operator));
        assert_eq!(door().sight(&HeaderMap::new(), now()), Ok(Sight::Passerby));
        for wrong in ["Bearer", "Bearer ", "Bearer correct-horse-batter", "Basic correct-horse-battery"] {
            assert_eq!(asked(&door(), AUTHORIZATION, wrong), Err(Refusal::WrongToken), "{wrong}");
        }
    }

    #[test]
    fn a_cookie_is_good_until_it_expires() {
        let then = now() - SIGNED_IN_FOR;
        for (made, sight) in [(now(), Sight::Operator), (then + TimeDelta::seconds(1), Sight::Operator)] {
            assert_eq!(with_cookie(&door(), &door().cookie(made).unwrap()), sight);
        }
        assert_eq!(with_cookie(&door(), &door().cookie(then).unwrap()), Sight::Passerby);
    }

    #[test]
    fn a_forged_cookie_is_none() {
        let good = door().cookie(now()).unwrap();
        let (expires, seal) = good.split_once('.').unwrap();
        let later = expires.parse::<i64>().unwrap() + 3600;
        let foreign = Door::Token(Secret::from("another-token-of-length")).cookie(now()).unwrap();
        let short = &seal[..seal.len() - 2];
        for forged in
            [format!("{later}.{seal}"), foreign, format!("{expires}.{short}"), expires.to_owned(), String::new()]
        {
            assert_eq!(with_cookie(&door(), &forged), Sight::Passerby, "{forged}");
        }
    }

    #[test]
    fn without_a_token_only_this_machine_sees_devices_and_only_under_its_own_name() {
        let open = Door::new(None, true);
        for own in ["localhost:9464", "127.0.0.1:9464", "[::1]:9464", "LOCALHOST", "127.0.0.2", "[::1]"] {
            assert_eq!(asked(&open, HOST, own), Ok(Sight::Operator), "{own}");
        }
        for foreign in ["evil.example:9464", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io:80", "[::2]:1", ""]
        {
            assert_eq!(asked(&open, HOST, foreign), Err(Refusal::Misdirected), "{foreign}");
        }
        assert_eq!(open.sight(&HeaderMap::new(), now()), Err(Refusal::Misdirected));
        assert_eq!(asked(&Door::new(None, false), HOST, "localhost"), Ok(Sight::Passerby));
    }

    #[test]
    fn the_token_is_not_in_what_is_printed() {
        assert!(!format!("{:?}", door()).contains(TOKEN));
    }
}
