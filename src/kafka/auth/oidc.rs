//! A token of an identity provider, by the grant of client credentials (RFC 6749, 4.4).

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Token;
use crate::config::Oidc;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Many times the largest token that a broker takes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
const MAX_PEM_BYTES: u64 = 1 << 20;
/// What is believed where the provider does not say it, though it should.
const UNTOLD_LIFE: Duration = Duration::from_secs(300);
/// A token that is good for longer is fetched anew all the same.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What the provider answers; of a refusal only the code, since what else is said may repeat the question.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
}

/// Asks once.
pub(super) async fn fetch(oidc: &Oidc) -> Result<Token, String> {
    let failed = |reason: &str| format!("kafka.oauth.oidc: {}: {reason}", oidc.token_url);
    let client = client(oidc).await?;
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(oidc.scope.iter().map(|scope| ("scope", &**scope)));
    form.extend(oidc.audience.iter().map(|audience| ("audience", &**audience)));
    let body = reqwest::Url::parse_with_params("http://form", &form).map_err(|error| failed(&error.to_string()))?;
    let request = client
        .post(&oidc.token_url)
        .basic_auth(&oidc.client_id, Some(oidc.client_secret.expose()))
        .header("accept", "application/json")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.query().unwrap_or_default().to_owned());
    let asked = SystemTime::now();
    let mut response = request.send().await.map_err(|error| failed(&in_words(&error)))?;
    let (status, mut body) = (response.status(), Zeroizing::new(Vec::new()));
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&in_words(&error)))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(failed(&format!("an answer of more than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    read(oidc, status, &body, asked).map_err(|reason| failed(&reason))
}

/// What an answer says. Pure.
fn read(oidc: &Oidc, status: StatusCode, body: &[u8], asked: SystemTime) -> Result<Token, String> {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    let code = answer.as_ref().and_then(|answer| answer.error.as_deref());
    let is_code = |code: &&str| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let code = code.filter(is_code).map(|code| format!(" ({code})")).unwrap_or_default();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN) {
        let what = "the provider does not know this client: check client_id, client_secret and scope";
        return Err(format!("{}{code}: {what}", status.as_u16()));
    }
    if !status.is_success() {
        return Err(format!("{}{code}", status.as_u16()));
    }
    let no_token = || "the answer has no access_token: check token_url".to_owned();
    let answer = answer.ok_or_else(no_token)?;
    let value = answer.access_token.map(Zeroizing::new).filter(|token| !token.is_empty()).ok_or_else(no_token)?;
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the answer's access_token has characters that no token has".to_owned());
    }
    let life = answer.expires_in.map_or(UNTOLD_LIFE, Duration::from_secs).min(LONGEST_LIFE);
    Ok(Token { value, principal: oidc.client_id.clone(), expires: asked + life })
}

async fn client(oidc: &Oidc) -> Result<Client, String> {
    // The secret is for the configured address, not for where that one points to.
    let mut client = Client::builder().timeout(ANSWER_WITHIN).redirect(Policy::none());
    if let Some(path) = &oidc.ca_file {
        let invalid = |reason: &str| format!("kafka.oauth.oidc.ca_file: {path:?}: {reason}");
        let size = tokio::fs::metadata(path).await.map_err(|error| invalid(&error.to_string()))?.len();
        if size > MAX_PEM_BYTES {
            return Err(invalid("is too large"));
        }
        let pem = tokio::fs::read(path).await.map_err(|error| invalid(&error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
        let unreadable = || invalid("holds no certificate in PEM form, or one that cannot be read");
        client = client.tls_certs_merge(certificates.ok_or_else(unreadable)?);
    }
    client.build().map_err(|error| format!("kafka.oauth.oidc: {}", in_words(&error)))
}

/// The causes of an error, each once; without its own text, which only repeats the address.
fn in_words(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let mut words: Vec<_> = causes.map(ToString::to_string).collect();
    words.dedup();
    if words.is_empty() { "no answer".to_owned() } else { words.join(": ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(status: u16, body: &str) -> Result<Token, String> {
        let oidc = json!({"token_url": "https://idp/", "client_id": "rollcall", "client_secret": "hunter2"});
        let oidc = serde_json::from_value(oidc).unwrap();
        read(&oidc, StatusCode::from_u16(status).unwrap(), body.as_bytes(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_token_lives_as_long_as_the_provider_says_within_a_day() {
        for (life, expected) in [("60", 60), ("null", 300), ("99999999", 24 * 3600)] {
            let token = answered(200, &format!(r#"{{"access_token": "a.b.c", "expires_in": {life}}}"#)).unwrap();
            assert_eq!((token.value.as_str(), token.principal.as_str()), ("a.b.c", "rollcall"));
            assert_eq!(token.expires, SystemTime::UNIX_EPOCH + Duration::from_secs(expected));
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_code_and_nothing_that_could_be_a_secret_is_repeated() {
        for (status, body, part) in [
            (
                401,
                r#"{"error": "invalid_client", "error_description": "hunter2"}"#,
                "401 (invalid_client): the provider",
            ),
            (400, r#"{"error": "Hunter2 hunter2"}"#, "400: the provider"),
            (503, "hunter2", "503"),
            (200, "hunter2", "no access_token"),
            (200, r#"{"access_token": ""}"#, "no access_token"),
            (200, r#"{"access_token": "hunter2\r\n"}"#, "characters that no token has"),
        ] {
            let told = answered(status, body).err().unwrap();
            assert!(told.contains(part) && !told.contains("hunter2"), "{body}: {told}");
        }
    }
}
