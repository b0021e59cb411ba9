//! A broker that lets nobody in who cannot prove who they are, and allows nothing that is not granted: TLS, SASL, ACLs.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::python::authority;
use super::servers::{Broker, Process, free_port};
use super::{server, wait_for};

/// Parts of every secret: none may be in any output.
pub const SECRET: &str = "hunter2";
pub const PASSWORD: &str = "hunter2-password";
const IDP_SECRET: &str = "hunter2-client";
const OAUTH_CLIENT: &str = "rollcall-oidc";
const PACKAGE: &str = "org.apache.kafka.common.security";
/// Shorter than a test: sessions and tokens are renewed in it.
const TOKEN_SECONDS: u32 = 10;

/// The broker, its CA, and an identity provider that it trusts.
pub struct SecureKafka {
    broker: Broker,
    provider: Process,
    folder: TempDir,
    sasl: u16,
    mutual: u16,
    tokens: u16,
}

/// A permission: resource type, name (with `*` at its end a prefix), operation.
pub type Acl = (String, String, String);

impl SecureKafka {
    /// One for all tests that run at the time; it ends with the last of them.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<SecureKafka>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    fn start() -> Self {
        let folder = authority(&[]);
        let path = |name: &str| folder.path().join(name);
        let both = [std::fs::read(path("key.pem")).unwrap(), std::fs::read(path("cert.pem")).unwrap()].concat();
        std::fs::write(path("both.pem"), both).unwrap();
        let tokens = free_port();
        let mut provider = Process::start(
            Command::new(server("PYTHON"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/identity_provider.py"))
                .args(["--port", &tokens.to_string(), "--client", OAUTH_CLIENT, "--secret", IDP_SECRET])
                .args(["--life", &TOKEN_SECONDS.to_string(), "--dir"])
                .arg(folder.path()),
        );
        wait_for("the identity provider", Duration::from_secs(60), || {
            assert!(provider.is_running(), "the identity provider ended by itself");
            std::net::TcpStream::connect(("127.0.0.1", tokens)).ok()
        });
        let (sasl, mutual) = (free_port(), free_port());
        let login = |mechanism: &str, module: &str, options: &str| {
            format!("listener.name.sasl.{mechanism}.sasl.jaas.config={PACKAGE}.{module} required{options};")
        };
        let oauth = |name: &str, value: &str| format!("listener.name.sasl.oauthbearer.{name}={value}");
        let handler = format!("{PACKAGE}.oauthbearer.OAuthBearerValidatorCallbackHandler");
        let keys = format!("file://{}", path("keys.json").display());
        let settings = [
            format!("listeners+=SASL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL"
                .to_owned(),
            "inter.broker.listener.name=PLAINTEXT".to_owned(),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            // The brokers, and the test where it looks at what came of it: by the listener without TLS.
            "super.users=User:ANONYMOUS".to_owned(),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", path("both.pem").display()),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", path("ca.pem").display()),
            "listener.name.mutual.ssl.client.auth=required".to_owned(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
            login("plain", "plain.PlainLoginModule", &format!(" user_plain=\"{PASSWORD}\"")),
            login("scram-sha-256", "scram.ScramLoginModule", ""),
            login("scram-sha-512", "scram.ScramLoginModule", ""),
            login("oauthbearer", "oauthbearer.OAuthBearerLoginModule", ""),
            oauth("sasl.server.callback.handler.class", &handler),
            oauth("sasl.oauthbearer.jwks.endpoint.url", &keys),
            oauth("sasl.oauthbearer.expected.audience", "kafka"),
            oauth("sasl.oauthbearer.expected.issuer", "https://idp.test"),
            // A session ends with its token at the latest, unless it is proved anew.
            "connections.max.reauth.ms=3600000".to_owned(),
        ];
        let broker = Broker::start_with(&settings.each_ref().map(String::as_str));
        let started = Self { broker, provider, folder, sasl, mutual, tokens };
        started.grant(&[("scram-256", "SCRAM-SHA-256"), ("scram-512", "SCRAM-SHA-512")], &BTreeMap::new());
        // A first handshake takes a new broker its time, and a user until he is known.
        for way in [started.with_password("SCRAM-SHA-512", "scram-512"), started.with_certificate()] {
            let mut client = ClientConfig::new();
            for (name, value) in way["properties"].as_object().unwrap() {
                client.set(name, value.as_str().unwrap());
            }
            client.set("bootstrap.servers", way["bootstrap_servers"].as_str().unwrap());
            let client: BaseConsumer = client.create().unwrap();
            wait_for("the secure broker", Duration::from_secs(60), || {
                client.fetch_metadata(None, Duration::from_secs(5)).ok()
            });
        }
        started
    }

    /// Where everything is allowed to everybody, for the test's own eyes.
    pub fn open_address(&self) -> String {
        self.broker.address()
    }

    /// A file of the CA: `ca.pem`, `cert.pem`, `key.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives users of SCRAM the password, and permissions to whoever is named.
    pub fn grant(&self, users: &[(&str, &str)], acls: &BTreeMap<String, Vec<Acl>>) {
        let users: Vec<_> = users.iter().map(|(name, mechanism)| json!([name, mechanism, PASSWORD])).collect();
        let acls: Vec<_> =
            acls.iter().flat_map(|(user, acls)| acls.iter().map(move |(a, b, c)| json!([user, a, b, c]))).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kafka_access.py");
        let mut client = Command::new(server("PYTHON"))
            .args([script.as_os_str(), self.open_address().as_ref()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        client.stdin.take().unwrap().write_all(json!({"users": users, "acls": acls}).to_string().as_bytes()).unwrap();
        assert!(client.wait().unwrap().success(), "kafka_access.py failed");
    }

    /// Section `kafka` of a configuration, by user and password.
    pub fn with_password(&self, mechanism: &str, user: &str) -> Value {
        json!({
            "bootstrap_servers": format!("127.0.0.1:{}", self.sasl),
            "properties": {
                "security.protocol": "SASL_SSL", "ssl.ca.location": self.file("ca.pem"),
                "sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": PASSWORD,
            },
        })
    }

    /// The same by a certificate.
    pub fn with_certificate(&self) -> Value {
        json!({
            "bootstrap_servers": format!("127.0.0.1:{}", self.mutual),
            "properties": {
                "security.protocol": "SSL", "ssl.ca.location": self.file("ca.pem"),
                "ssl.certificate.location": self.file("cert.pem"), "ssl.key.location": self.file("key.pem"),
            },
        })
    }

    /// The same by tokens of the identity provider.
    pub fn with_tokens(&self) -> Value {
        json!({
            "bootstrap_servers": format!("127.0.0.1:{}", self.sasl),
            "properties": {"ssl.ca.location": self.file("ca.pem")},
            "oauth": {"oidc": {
                "token_url": format!("https://127.0.0.1:{}/token", self.tokens), "client_id": OAUTH_CLIENT,
                "client_secret": IDP_SECRET, "audience": "kafka", "ca_file": self.file("ca.pem"),
            }},
        })
    }

    /// The same by what MSK takes for tokens, and this broker does not.
    pub fn with_msk_iam(&self) -> Value {
        json!({
            "bootstrap_servers": format!("127.0.0.1:{}", self.sasl),
            "properties": {"ssl.ca.location": self.file("ca.pem")},
            "oauth": {"msk_iam": {
                "region": "eu-west-1",
                "credentials": {"static": {"access_key_id": "AKIAEXAMPLE", "secret_access_key": PASSWORD}},
            }},
        })
    }
}
