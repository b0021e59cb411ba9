//! STS, EC2 and Organizations on loopback: notes who asks for what, and answers as a test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// As in `AssumeRole`.
    pub(super) action: String,
    /// Access key that signed it; empty: nobody did.
    pub(super) key: String,
    /// Region that it was signed for.
    pub(super) region: String,
    /// What it says: the parameters of a form, or the members of an object.
    pub(super) params: BTreeMap<String, String>,
}

impl Call {
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }
}

/// An answer: status and body.
pub(super) type Answer = (u16, String);
type Answers = dyn Fn(&Call) -> Option<Answer> + Send + Sync;

/// Our AWS.
pub(super) struct Fake {
    pub(super) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    clock: Arc<Mutex<SystemTime>>,
}

#[derive(Clone)]
struct Shared {
    calls: Arc<Mutex<Vec<Call>>>,
    clock: Arc<Mutex<SystemTime>>,
    answers: Arc<Answers>,
}

impl Fake {
    /// Answers as told, or as AWS would: keys `KEY-OF-<role>`, good for an hour, `eu-west-1` and `us-east-1`, account
    /// 999999999999.
    pub(super) async fn start(answers: impl Fn(&Call) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let (calls, clock) = (Arc::default(), Arc::new(Mutex::new(SystemTime::now())));
        let shared = Shared { calls: Arc::clone(&calls), clock: Arc::clone(&clock), answers: Arc::new(answers) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, calls, clock }
    }

    /// What was asked since the last time this was.
    pub(super) fn calls(&self) -> Vec<Call> {
        let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls.sort_by(|a, b| a.action.cmp(&b.action).then_with(|| a.params.cmp(&b.params)));
        calls
    }

    /// The same, in the order in which it was asked: action and who asked.
    pub(super) fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.calls.lock().unwrap()).into_iter().map(|call| (call.action, call.key)).collect()
    }

    pub(super) fn clock(&self) -> super::Clock {
        let clock = self.clock.clone();
        super::Clock::new(move || *clock.lock().unwrap())
    }

    pub(super) fn pass(&self, time: Duration) {
        *self.clock.lock().unwrap() += time;
    }
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let target = header("x-amz-target");
    let (action, params) = match target.split_once('.') {
        Some((_, action)) => {
            let members: BTreeMap<String, Value> = serde_json::from_str(&body).unwrap();
            let text = |value: Value| value.as_str().map_or(value.to_string(), str::to_owned);
            (action.to_owned(), members.into_iter().map(|(name, value)| (name, text(value))).collect())
        }
        None => {
            let url = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
            let mut params: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
            (params.remove("Action").unwrap_or_default(), params)
        }
    };
    // Credential=KEY/20260102/eu-west-1/sts/aws4_request
    let authorization = header("authorization");
    let credential = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
    let mut parts = credential.split('/');
    let key = parts.next().unwrap_or_default().to_owned();
    let region = parts.nth(1).unwrap_or_default().to_owned();
    let call = Call { action, key, region, params };
    shared.calls.lock().unwrap().push(call.clone());
    let now = *shared.clock.lock().unwrap();
    let (status, body) = (shared.answers)(&call).unwrap_or_else(|| usual(&call, now));
    (StatusCode::from_u16(status).unwrap(), body)
}

fn usual(call: &Call, now: SystemTime) -> Answer {
    match call.action.as_str() {
        "AssumeRole" | "AssumeRoleWithWebIdentity" => {
            let role = call.param("RoleArn").to_owned();
            keys(call, &format!("KEY-OF-{}", role.rsplit(':').nth(1).unwrap()), now + Duration::from_secs(3600))
        }
        "GetCallerIdentity" => (
            200,
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::999999999999:user/me</Arn>\
             <UserId>u</UserId><Account>999999999999</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
                .to_owned(),
        ),
        "DescribeRegions" => regions(&["us-east-1", "eu-west-1"]),
        action => (400, error("InvalidAction", &format!("{action} is not known here"))),
    }
}

/// Temporary keys.
pub(super) fn keys(call: &Call, key: &str, expiry: SystemTime) -> Answer {
    let action = &call.action;
    let expiry = chrono::DateTime::<chrono::Utc>::from(expiry).format("%Y-%m-%dT%H:%M:%SZ");
    let body = format!(
        "<{action}Response><{action}Result><Credentials><AccessKeyId>{key}</AccessKeyId>\
         <SecretAccessKey>assumed-secret</SecretAccessKey><SessionToken>assumed-token</SessionToken>\
         <Expiration>{expiry}</Expiration></Credentials></{action}Result></{action}Response>"
    );
    (200, body)
}

/// An answer of DescribeRegions.
pub(super) fn regions(names: &[&str]) -> Answer {
    let items: String = names.iter().map(|name| format!("<item><regionName>{name}</regionName></item>")).collect();
    (200, format!("<DescribeRegionsResponse><regionInfo>{items}</regionInfo></DescribeRegionsResponse>"))
}

/// An error, as STS and EC2 both read it.
pub(super) fn error(code: &str, message: &str) -> String {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    format!("<ErrorResponse>{error}<Errors>{error}</Errors></ErrorResponse>")
}

/// A page of accounts with these states, and the token of the next one.
pub(super) fn accounts(accounts: &[(&str, Value)], next: Option<&str>) -> Answer {
    let account = |(id, state): &(&str, Value)| {
        let mut account = state.clone();
        account["Id"] = json!(id);
        account
    };
    let accounts: Vec<_> = accounts.iter().map(account).collect();
    (200, json!({"Accounts": accounts, "NextToken": next}).to_string())
}

/// A page of organizational units.
pub(super) fn units(ids: &[&str]) -> Answer {
    let units: Vec<_> = ids.iter().map(|id| json!({"Id": id})).collect();
    (200, json!({"OrganizationalUnits": units}).to_string())
}
