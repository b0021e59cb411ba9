//! A stand-in for EC2 in tests: says what it was told to say, byte for byte, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{BehaviorVersion, Region};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Api;
use super::call::{Access, CallObserver, Time};
use super::session::Identity;
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::source::{BoxFuture, Page, Pages, Scope};
use crate::config::AwsSource;

/// The secret of the credentials, which must not be seen anywhere.
pub(super) const SECRET: &str = "hush-hush";

/// What the stand-in says to one request.
#[derive(Clone)]
pub(super) struct Reply {
    status: u16,
    headers: String,
    body: String,
    /// What the header `Content-Length` promises beyond the body.
    lacking: usize,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: String::new(), body: body.into(), lacking: 0 }
    }

    pub(super) fn with(mut self, header: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{header}: {value}\r\n"));
        self
    }

    pub(super) fn lacking(mut self, bytes: usize) -> Self {
        self.lacking = bytes;
        self
    }

    /// A page of instances.
    pub(super) fn page(ids: &[&str], token: Option<&str>) -> Self {
        let instances = ids
            .iter()
            .map(|id| format!("<item><instanceId>{id}</instanceId><imageId>ami-{}</imageId></item>", &id[2..]));
        let token = token.map(|token| format!("<nextToken>{token}</nextToken>")).unwrap_or_default();
        Self::new(
            200,
            format!(
                "<DescribeInstancesResponse><reservationSet><item><instancesSet>{}</instancesSet></item></reservationSet>\
                 {token}</DescribeInstancesResponse>",
                instances.collect::<String>()
            ),
        )
    }

    /// An error as EC2 writes it.
    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(
            status,
            format!(
                "<?xml version=\"1.0\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>no &amp; no</Message></Error>\
                 </Errors><RequestID>r-e-q</RequestID></Response>"
            ),
        )
        .with("x-amzn-RequestId", "r-e-q")
    }
}

/// An endpoint, the sessions and the clock of one test.
pub(super) struct StandIn {
    pub api: Api,
    pub time: Arc<TestTime>,
    pub access: Arc<TestAccess>,
    pub observed: Arc<Observed>,
    endpoint: Arc<Endpoint>,
}

#[derive(Default)]
struct Endpoint {
    replies: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<String>>,
}

impl StandIn {
    /// Says this, in this order.
    pub(super) async fn says(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::of(AwsSource::default(), replies).await
    }

    pub(super) async fn of(aws: AwsSource, replies: impl IntoIterator<Item = Reply>) -> Self {
        let endpoint = Arc::new(Endpoint::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        let time = Arc::new(TestTime { began: Instant::now(), slept: Mutex::default() });
        let access = Arc::new(TestAccess::new(&url));
        let observed = Arc::new(Observed::default());
        let mut api = Api::new(access.clone(), time.clone(), &aws, Duration::from_secs(600));
        api.calls.observed_by(observed.clone());
        let stand_in = Self { api, time, access, observed, endpoint };
        stand_in.says_next(replies);
        stand_in
    }

    pub(super) fn says_next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.endpoint.replies.lock().expect("no panic").extend(replies);
    }

    /// The bodies of the requests so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.endpoint.requests.lock().expect("no panic").clone()
    }

    /// All pages of a sweep.
    pub(super) async fn sweep(&self) -> Result<Vec<Page>, Fault> {
        self.sweep_of("eu-west-1").await
    }

    pub(super) async fn sweep_of(&self, region: &str) -> Result<Vec<Page>, Fault> {
        let mut pages = super::Ec2Pages::new(&self.api, &scope(region));
        let mut received = Vec::new();
        while let Some(page) = pages.next().await? {
            received.push(page);
        }
        Ok(received)
    }
}

pub(super) fn scope(region: &str) -> Scope {
    Scope { source: "s".to_owned(), account: Some("123456789012".to_owned()), region: Some(region.to_owned()) }
}

/// The instances of the pages.
pub(super) fn ids(pages: &[Page]) -> Vec<&str> {
    pages.iter().flat_map(|page| &page.instances).filter_map(|instance| instance.id.as_deref()).collect()
}

/// The member of each instance.
pub(super) fn members(pages: &[Page], name: &str) -> Vec<Value> {
    pages
        .iter()
        .flat_map(|page| &page.instances)
        .map(|instance| instance.to_map().and_then(|mut members| members.remove(name)).unwrap_or_default())
        .collect()
}

async fn serve(mut stream: TcpStream, endpoint: Arc<Endpoint>) {
    let mut request = Vec::new();
    let body = loop {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await.expect("a request");
        assert_ne!(length, 0, "the client went away");
        request.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let promised = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() == promised.parse::<usize>().expect("a length") {
            break body.to_owned();
        }
    };
    endpoint.requests.lock().expect("no panic").push(body);
    let reply = endpoint.replies.lock().expect("no panic").pop_front();
    let reply = reply.unwrap_or_else(|| Reply::error(418, "NothingToSay"));
    let Reply { status, headers, body, lacking } = reply;
    let length = body.len() + lacking;
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).await.expect("an answer");
}

/// A clock that stands still but for what is slept.
pub(super) struct TestTime {
    began: Instant,
    slept: Mutex<Vec<Duration>>,
}

impl TestTime {
    pub(super) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().expect("no panic").clone()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.slept.lock().expect("no panic").push(time);
    }
}

impl Time for TestTime {
    fn now(&self) -> Instant {
        self.began + self.slept().into_iter().sum::<Duration>()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.pass(time);
        Box::pin(tokio::task::yield_now())
    }
}

/// Sessions with one kind of credentials.
pub(super) struct TestAccess {
    client: aws_sdk_ec2::Client,
    /// Whether AWS takes the credentials.
    pub identity: Mutex<Result<(), FaultKind>>,
    pub refreshed: AtomicUsize,
    pub identified: AtomicUsize,
}

impl TestAccess {
    fn new(url: &str) -> Self {
        let config = aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .endpoint_url(url)
            .credentials_provider(Credentials::new("AKIA", SECRET, None, None, "test"))
            .retry_config(RetryConfig::disabled());
        Self {
            client: aws_sdk_ec2::Client::from_conf(config.build()),
            identity: Mutex::new(Ok(())),
            refreshed: AtomicUsize::new(0),
            identified: AtomicUsize::new(0),
        }
    }
}

impl Access for TestAccess {
    fn ec2<'a>(&'a self, _: &'a Scope) -> BoxFuture<'a, Result<aws_sdk_ec2::Client, Fault>> {
        Box::pin(async { Ok(self.client.clone()) })
    }

    fn refresh<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, ()> {
        self.refreshed.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {})
    }

    fn identity<'a>(&'a self, account: Option<&'a str>) -> BoxFuture<'a, Result<Identity, Fault>> {
        self.identified.fetch_add(1, Ordering::Relaxed);
        let arn = "arn:aws:iam::123456789012:user/me".to_owned();
        let account = account.unwrap_or_default().to_owned();
        let identity = *self.identity.lock().expect("no panic");
        let identity = identity.map(|()| Identity { account, arn });
        Box::pin(async { identity.map_err(|kind| Fault::new(kind, "GetCallerIdentity: no")) })
    }
}

/// What the observer was told.
#[derive(Default)]
pub(super) struct Observed {
    calls: Mutex<Vec<(&'static str, &'static str)>>,
    waited: Mutex<Duration>,
}

impl Observed {
    pub(super) fn calls(&self) -> Vec<(&'static str, &'static str)> {
        self.calls.lock().expect("no panic").clone()
    }

    pub(super) fn waited(&self) -> Duration {
        *self.waited.lock().expect("no panic")
    }
}

impl CallObserver for Observed {
    fn called(&self, call: &'static str, code: &'static str) {
        self.calls.lock().expect("no panic").push((call, code));
    }

    fn waited(&self, time: Duration) {
        *self.waited.lock().expect("no panic") += time;
    }
}
