//! AWS with faults: a proxy before an EC2 server, which forwards every call untouched but for the rules of the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;

use super::call::Call;
use super::fault::{AFTER_NOTHING, Fault, Play, Rule, When, edit, error};
use super::wire::{Ending, Reply, Request, Server};

/// The proxy. Every scope that asks through it is told apart by the signature of its calls.
pub struct FaultProxy {
    server: Server,
    shared: Arc<Shared>,
}

/// Names a rule, so that it can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleId(u64);

struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    rules: Vec<(RuleId, Rule)>,
    expired: BTreeSet<String>,
    /// The accounts that keys were handed out for.
    accounts: BTreeMap<String, String>,
    /// Which page a token leads to.
    pages: BTreeMap<(String, String, String), usize>,
    next_rule: u64,
}

impl FaultProxy {
    /// Starts one before the server with that URL.
    pub fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_end_matches('/').to_owned();
        let shared = Arc::new(Shared { upstream, state: Mutex::default(), changed: Condvar::new() });
        // Loopback, past any proxy that the environment names.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let server = Server::start({
            let shared = shared.clone();
            move |request| answer(shared.clone(), client.clone(), request)
        });
        Self { server, shared }
    }

    /// What clients take for the endpoint of every service.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Plays a fault from now on. Rules are played in the order in which they came.
    pub fn when(&self, when: When, fault: Fault) -> RuleId {
        let mut state = self.shared.state.lock().unwrap();
        state.next_rule += 1;
        let id = RuleId(state.next_rule);
        state.rules.push((id, Rule::new(when, fault)));
        id
    }

    /// Ends a rule.
    pub fn lift(&self, rule: RuleId) {
        self.shared.state.lock().unwrap().rules.retain(|(id, _)| *id != rule);
    }

    /// Ends every rule; keys that have expired stay so.
    pub fn lift_all(&self) {
        self.shared.state.lock().unwrap().rules.clear();
    }

    /// From now on this key gets `ExpiredToken` (EC2: `RequestExpired`).
    pub fn expire(&self, access_key: &str) {
        self.shared.state.lock().unwrap().expired.insert(access_key.to_owned());
    }

    /// The same for every key that was seen until now; new ones are good.
    pub fn expire_all(&self) {
        let mut state = self.shared.state.lock().unwrap();
        let keys: Vec<_> =
            state.calls.iter().map(|call| call.access_key.clone()).filter(|key| !key.is_empty()).collect();
        state.expired.extend(keys);
    }

    /// Every call until now.
    pub fn log(&self) -> Vec<Call> {
        self.shared.state.lock().unwrap().calls.clone()
    }

    /// The calls of an action in a region until now.
    pub fn calls(&self, action: &str, region: &str) -> Vec<Call> {
        let state = self.shared.state.lock().unwrap();
        state.calls.iter().filter(|call| call.action == action && call.region == region).cloned().collect()
    }

    /// Waits until the log gives something.
    ///
    /// # Panics
    /// After `limit`, naming what was waited for.
    pub fn wait_until<T>(&self, what: &str, limit: Duration, mut found: impl FnMut(&[Call]) -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(found) = found(&state.calls) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {limit:?} in vain for {what}; {} calls came", state.calls.len());
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// A call from its request to its answer, with its entry in the log.
async fn answer(shared: Arc<Shared>, client: reqwest::Client, request: Request) -> Reply {
    let (index, call, plays, expired) = shared.take(&request);
    let mut edits = Vec::new();
    let mut reply = expired.then(|| match call.service.as_str() {
        "ec2" => error(&call, "RequestExpired", 400, "Request has expired."),
        "sts" => error(&call, "ExpiredToken", 403, "The security token included in the request is expired"),
        _ => error(&call, "ExpiredTokenException", 400, "The security token included in the request is expired"),
    });
    for play in plays {
        match play {
            Play::Later(time) => tokio::time::sleep(time).await,
            Play::Instead(other) => drop(reply.get_or_insert(other)),
            Play::Edited(fault, random) => edits.push((fault, random)),
        }
    }
    let mut reply = match reply {
        Some(reply) => reply,
        None => {
            let reply = forward(&shared.upstream, &client, &request, &call).await;
            shared.learn(&call, &reply);
            reply
        }
    };
    for (fault, random) in edits {
        edit(&fault, random, &call, &mut reply);
    }
    reply.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    shared.note(index, &reply);
    reply
}

impl Shared {
    /// Notes the call and asks the rules.
    fn take(&self, request: &Request) -> (usize, Call, Vec<Play>, bool) {
        let mut call = Call::of(request);
        let mut state = self.state.lock().unwrap();
        call.account = state.accounts.get(&call.access_key).cloned();
        call.page = call.token().map_or(1, |token| {
            let (account, region) = call.scope();
            // A listing that began before its key was known, or elsewhere: not the first page, that is sure.
            state.pages.get(&(account, region, token.to_owned())).copied().unwrap_or(2)
        });
        let expired = state.expired.contains(&call.access_key);
        // One answer in place of the true one is enough; what comes behind it has not been played.
        let mut plays = Vec::new();
        for (_, rule) in &mut state.rules {
            let play = if expired { None } else { rule.play(&call) };
            let ends = matches!(play, Some(Play::Instead(_)));
            plays.extend(play);
            if ends {
                break;
            }
        }
        state.calls.push(call.clone());
        let index = state.calls.len() - 1;
        drop(state);
        self.changed.notify_all();
        (index, call, plays, expired)
    }

    /// Learns from a true answer whose a key is, and which page a token leads to.
    fn learn(&self, call: &Call, reply: &Reply) {
        let is_role = call.action.starts_with("AssumeRole");
        if reply.status != 200 || !(is_role || call.action.starts_with("Describe")) {
            return;
        }
        let Ok(text) = std::str::from_utf8(&reply.body) else { return };
        let mut state = self.state.lock().unwrap();
        if is_role {
            let role = call.form.get("RoleArn").map(String::as_str).unwrap_or_default();
            let account = role.split(':').nth(4).unwrap_or_default().to_owned();
            if let Some(key) = between(text, "<AccessKeyId>") {
                state.accounts.insert(key.to_owned(), account);
            }
        } else if let Some(token) = between(text, "<nextToken>").filter(|token| !token.is_empty()) {
            let token = quick_xml::escape::unescape(token).unwrap().into_owned();
            let (account, region) = call.scope();
            state.pages.insert((account, region, token), call.page + 1);
        }
    }

    /// Notes what was answered.
    fn note(&self, index: usize, reply: &Reply) {
        let mut state = self.state.lock().unwrap();
        if let Some(call) = state.calls.get_mut(index) {
            let is_sent = matches!(reply.ending, Ending::Whole | Ending::Short);
            call.status = is_sent.then_some(reply.status);
            call.error = if reply.status == 200 { None } else { code(&reply.body) };
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// The call's answer by the server behind: the same bytes in both directions, signature and host included.
async fn forward(upstream: &str, client: &reqwest::Client, request: &Request, call: &Call) -> Reply {
    let mut body = request.body.clone();
    if call.token() == Some(AFTER_NOTHING) {
        body = without_token(&call.form);
    }
    let method = request.method.parse().unwrap();
    let mut forwarded = client.request(method, format!("{upstream}{}", request.path)).body(body);
    for (name, value) in &request.headers {
        if !["content-length", "connection", "accept-encoding"].contains(&name.to_ascii_lowercase().as_str()) {
            forwarded = forwarded.header(name, value);
        }
    }
    let answered = async {
        let response = forwarded.send().await?;
        let mut reply = Reply::xml(response.status().as_u16(), "");
        let known = response.headers().iter().filter(|(name, _)| !is_of_connection(name.as_str()));
        reply.headers = known.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        reply.body = response.bytes().await?;
        Ok::<_, reqwest::Error>(reply)
    };
    answered.await.unwrap_or_else(|failure| Reply::xml(502, format!("the server behind the proxy: {failure}")))
}

fn is_of_connection(header: &str) -> bool {
    ["content-length", "connection", "transfer-encoding", "keep-alive"].contains(&header)
}

fn without_token(form: &BTreeMap<String, String>) -> Bytes {
    let mut url = reqwest::Url::parse("http://form/").unwrap();
    url.query_pairs_mut().extend_pairs(form.iter().filter(|(name, _)| *name != "NextToken"));
    url.query().unwrap_or_default().to_owned().into()
}

/// The code of an error, in any of the three forms.
fn code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(text) {
        return Some(json["__type"].as_str()?.to_owned());
    }
    between(text, "<Code>").map(str::to_owned)
}

/// The text of the first element with that start tag. No parsing: a page may have megabytes.
fn between<'a>(xml: &'a str, tag: &str) -> Option<&'a str> {
    Some(xml.split_once(tag)?.1.split_once('<')?.0)
}
