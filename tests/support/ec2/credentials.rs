//! Where machines get their credentials from: the endpoints of containers (ECS, EKS Pod Identity), instances (IMDSv2)
//! and SSO, all in one server.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::json;

use super::wire::{Reply, Request, Server};

const ROLE: &str = "inventory";
const IMDS: &str = "/latest/meta-data/iam/security-credentials/";
const IMDS_TOKEN: &str = "imds-token";
/// What it hands out for secrets and tokens.
pub const SERVED_SECRET: &str = "canary-served";

/// The server. Each answer hands out keys of its own: `ASIA`, the kind in capitals, a number from 1 in four digits.
pub struct CredentialsServer {
    server: Server,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    lifetime: TimeDelta,
    /// What containers have to show.
    authorization: Option<String>,
    asked: Vec<String>,
    keys: usize,
}

impl CredentialsServer {
    /// Starts one whose keys are good for an hour.
    pub fn start() -> Self {
        let shared = Shared { lifetime: TimeDelta::hours(1), authorization: None, asked: Vec::new(), keys: 0 };
        let shared = Arc::new(Mutex::new(shared));
        let server = Server::start({
            let shared = shared.clone();
            move |request| std::future::ready(shared.lock().unwrap().answer(&request))
        });
        Self { server, shared }
    }

    /// How long the keys that are handed out from now on say that they are good.
    pub fn lifetime(&self, lifetime: TimeDelta) {
        self.shared.lock().unwrap().lifetime = lifetime;
    }

    /// From now on a container has to show this text in `Authorization`.
    pub fn require(&self, authorization: &str) {
        self.shared.lock().unwrap().authorization = Some(authorization.to_owned());
    }

    /// For `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn container_url(&self) -> String {
        format!("{}/container", self.server.url())
    }

    /// For `AWS_EC2_METADATA_SERVICE_ENDPOINT`, and the endpoint of SSO.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The paths that were asked for, oldest first.
    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().asked.clone()
    }
}

impl Shared {
    fn answer(&mut self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap_or_default();
        self.asked.push(path.to_owned());
        let has_token = request.header("x-aws-ec2-metadata-token") == Some(IMDS_TOKEN);
        match (request.method.as_str(), path) {
            ("PUT", "/latest/api/token") => {
                let mut reply = Reply::new(200, "text/plain", IMDS_TOKEN);
                reply.headers.push(("X-Aws-Ec2-Metadata-Token-Ttl-Seconds".to_owned(), "21600".to_owned()));
                reply
            }
            ("GET", path) if path.starts_with("/latest/") && !has_token => Reply::new(401, "text/plain", ""),
            ("GET", IMDS) => Reply::new(200, "text/plain", ROLE),
            ("GET", path) if path.strip_prefix(IMDS) == Some(ROLE) => {
                let (key, until) = self.hand_out("IMDS");
                json(json!({
                    "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": text(Utc::now()), "AccessKeyId": key,
                    "SecretAccessKey": SERVED_SECRET, "Token": SERVED_SECRET, "Expiration": text(until),
                }))
            }
            ("GET", "/container") => {
                let shown = request.header("authorization");
                if self.authorization.as_deref().is_some_and(|wanted| shown != Some(wanted)) {
                    return Reply::new(401, "text/plain", "");
                }
                let (key, until) = self.hand_out("CONTAINER");
                json(json!({
                    "AccessKeyId": key, "SecretAccessKey": SERVED_SECRET, "Token": SERVED_SECRET, "Expiration": text(until),
                }))
            }
            ("GET", "/federation/credentials") => {
                let (key, until) = self.hand_out("SSO");
                json(json!({"roleCredentials": {
                    "accessKeyId": key, "secretAccessKey": SERVED_SECRET, "sessionToken": SERVED_SECRET,
                    "expiration": until.timestamp_millis(),
                }}))
            }
            _ => Reply::new(404, "text/plain", ""),
        }
    }

    fn hand_out(&mut self, kind: &str) -> (String, DateTime<Utc>) {
        self.keys += 1;
        (format!("ASIA{kind}{:04}", self.keys), Utc::now() + self.lifetime)
    }
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn json(body: serde_json::Value) -> Reply {
    Reply::new(200, "application/json", body.to_string())
}
