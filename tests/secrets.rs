//! Secrets stay secret. Each that can be configured is a canary, on servers that take them and on servers that refuse
//! them, with all that can be logged; then nothing that was printed, logged, served or written has one in it.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rollcall::config;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::collector::access::NOTHING;
use crate::support::ec2::{CredentialsServer, Fault, FaultProxy, SERVED_SECRET, on};
use crate::support::kafka::TestTopics;
use crate::support::process::{Stage, config_file, rollcall};
use crate::support::servers::{Broker, SecureRegistry, free_port};
use crate::support::stages::wait_until_mapped;
use crate::support::{python, server};

const LIMIT: Duration = Duration::from_secs(120);
/// With who waits for servers that refuse it.
const PATIENCE: Duration = Duration::from_secs(30);
/// What no output may have in it: the beginning of each canary; in base64 too, at each of its three places in a group.
const SONG: [&str; 4] = ["canary", "Y2FuYXJ5", "NhbmFyeS", "jYW5hcn"];

/// The secret of that name.
fn canary(name: &str) -> String {
    format!("canary-{}-0123456789abcdef", name.replace('.', "-"))
}

/// Every field of the configuration that is a secret, as in `Registry.password`: by the source, so that none is forgotten.
fn secrets(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            secrets(&entry, found);
        } else {
            let mut owner = String::new();
            for line in std::fs::read_to_string(&entry).unwrap().lines() {
                if let Some(rest) = line.strip_prefix("pub struct ") {
                    owner = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
                } else if let Some((field, kind)) = line.strip_prefix("    pub ").and_then(|rest| rest.split_once(": "))
                    && kind.contains("Secret")
                {
                    found.insert(format!("{owner}.{field}"));
                }
            }
        }
    }
}

#[test]
fn every_secret_of_the_configuration_is_planted() {
    let mut found = BTreeSet::new();
    secrets(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config"), &mut found);
    assert!(found.contains("Registry.password") && found.contains("Role.external_id"), "{found:?}");
    let place = Place { url: "http://a".into(), folder: tempfile::tempdir().unwrap(), registry: "https://a".into() };
    let text = place.configs(&TestTopics::named(1)).map(|config| config.to_string()).concat();
    let missing: Vec<_> = found.iter().filter(|name| !text.contains(&canary(name))).collect();
    assert!(missing.is_empty(), "not in Place::configs: {missing:?}");
}

/// Where the servers are that a configuration names, and the files.
struct Place {
    url: String,
    folder: TempDir,
    registry: String,
}

impl Place {
    /// A file with that content.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Secrets that are right, secrets that are not, and a token's for a broker that takes none.
    fn configs(&self, topics: &TestTopics) -> [Value; 3] {
        let ca = self.folder.path().join("ca.pem");
        let mut right = topics.config();
        right["kafka"]["partitions"] = 1.into();
        right["kafka"]["properties"].as_object_mut().unwrap().extend(
            json!({
                "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "rollcall",
                "sasl.password": {"file": self.file("kafka", &canary("Kafka.properties"))},
                "ssl.key.password": canary("Kafka.properties"), "debug": "conf,security,protocol",
            })
            .as_object()
            .unwrap()
            .clone(),
        );
        right["registry"] = json!({"url": self.registry, "ca_file": ca, "token": canary("Registry.token")});
        right["mapper"]["encoding"] = "avro".into();
        right["collector"]["hash_key"] = canary("Collector.hash_key").into();
        right["collector"]["sources"] = self.sources();
        right["admin"]["token"] = canary("Admin.token").into();
        right["log"] = json!({"format": "json", "filter": "trace"});
        let mut wrong = right.clone();
        wrong["kafka"]["properties"]["sasl.username"] = "nobody".into();
        wrong["registry"] =
            json!({"url": self.registry, "ca_file": ca, "username": "nobody", "password": canary("Registry.password")});
        wrong["log"]["format"] = "text".into();
        let mut provider = right.clone();
        for name in ["sasl.mechanism", "sasl.username", "sasl.password"] {
            provider["kafka"]["properties"].as_object_mut().unwrap().remove(name);
        }
        provider["kafka"]["oauth"] = json!({"oidc": {
            "token_url": self.url, "client_id": "rollcall", "client_secret": canary("Oidc.client_secret")}});
        [right, wrong, provider]
    }

    fn sources(&self) -> Value {
        let role = |number: u64| format!("arn:aws:iam::{:012}:role/inventory", 100_000_000_000 + number);
        let keys = json!({"static": {
            "access_key_id": "AKIDSTATIC", "secret_access_key": canary("StaticKeys.secret_access_key"),
            "session_token": canary("StaticKeys.session_token"),
        }});
        let aws = |credentials: Value, more: Value| {
            let mut aws = json!({"regions": ["eu-west-1"], "endpoint_url": self.url, "settling_delay": "0s", "calls_per_second": 20.0});
            aws.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            if !credentials.is_null() {
                aws["credentials"] = credentials;
            }
            aws
        };
        let account = json!({
            "role_arn": role(1), "external_id": canary("Account.external_id"),
            "via": [{"role_arn": role(2), "external_id": canary("Role.external_id")}],
        });
        let web = json!({"web_identity": {"role_arn": role(3), "token_file": self.file("web", &canary("web"))}});
        let organization = json!({"role_name": "inventory", "external_id": canary("Organization.external_id")});
        let proxy = json!({"proxy": self.url, "proxy_username": canary("AwsSource.proxy_username"),
            "proxy_password": canary("AwsSource.proxy_password"), "endpoint_url": "http://ec2.example.com"});
        let instance = json!([{"InstanceId": "i-0a", "State": {"Name": "running"}, "Tags": [
            {"Key": "Name", "Value": "quiet"}, {"Key": "mask", "Value": canary("mask")}, {"Key": "hash", "Value": canary("hash")},
        ]}]);
        let of = |name: &str, aws: Value| json!({"name": name, "give_up_after": "15s", "aws": aws});
        json!([
            of("keys", aws(keys.clone(), json!({"accounts": [account]}))),
            of("web", aws(web, json!({}))),
            of("organization", aws(keys.clone(), json!({"organization": organization, "regions": ["eu-west-2"]}))),
            of("proxy", aws(keys, proxy)),
            of("environment", aws(Value::Null, json!({}))),
            of("profile", aws(json!({"profile": "inventory"}), json!({}))),
            {"name": "file", "file": {"path": self.file("instances", &instance.to_string())}, "rules": [
                {"mask": {"field": "Tags[mask]", "with": "***"}}, {"hash": {"field": "Tags[hash]"}},
            ]},
        ])
    }

    /// Secrets of the environment.
    fn env(&self) -> Vec<(String, String)> {
        let shared = format!(
            "[inventory]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = {}\naws_session_token = {}\n",
            canary("profile"),
            canary("profile-token")
        );
        let mut env: Vec<_> = NOTHING.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        env.extend(
            [
                ("AWS_SHARED_CREDENTIALS_FILE", self.file("shared", &shared)),
                ("AWS_ACCESS_KEY_ID", "AKIDENV".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", canary("env")),
                ("AWS_SESSION_TOKEN", canary("env-token")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        env
    }
}

/// Everything that got out.
#[derive(Default)]
struct Heard(Vec<(String, Vec<u8>)>);

impl Heard {
    fn add(&mut self, from: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((from.into(), text.into()));
    }

    /// Runs commands side by side until they end, or for that long; what they said.
    fn run(&mut self, commands: &[&str], config: &Value, env: &[(String, String)], patience: Duration) -> String {
        let (file, deadline) = (config_file(config), Instant::now() + patience);
        let start = |command: &&str| {
            let mut program = rollcall();
            program.args(command.split(' ')).arg("--config").arg(file.path());
            program.envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
            let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let read = [drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap())];
            (command.to_string(), child, read)
        };
        let running: Vec<_> = commands.iter().map(start).collect();
        let mut said = String::new();
        for (command, mut child, read) in running {
            end(&mut child, deadline);
            for stream in read {
                let text = stream.join().unwrap();
                said.push_str(&String::from_utf8_lossy(&text));
                self.add(command.clone(), text);
            }
        }
        said
    }

    /// Fails where there is a canary in it, and tells what is around.
    fn check(&self) {
        let mut sung = Vec::new();
        for (from, text) in &self.0 {
            let text = String::from_utf8_lossy(text);
            for line in text.lines() {
                if let Some(at) = SONG.iter().find_map(|song| line.find(song)) {
                    let around =
                        |place: usize| line.char_indices().map(|(at, _)| at).take_while(|it| *it <= place).last();
                    let (begin, end) = (around(at.saturating_sub(200)).unwrap(), around(at + 60).unwrap());
                    sung.push(format!("{from}: …{}…", &line[begin..end]));
                }
            }
        }
        let count = sung.len();
        sung.truncate(20);
        assert!(sung.is_empty(), "{count} times, as in\n{}", sung.join("\n"));
    }
}

/// Reads to the end on a thread of its own.
fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut read = Vec::new();
        from.read_to_end(&mut read).unwrap();
        read
    })
}

/// Waits for its end; who waits for servers that refuse it is ended.
fn end(child: &mut Child, deadline: Instant) {
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A broker that lets in who has the password, and the tests by another door.
fn broker() -> (Broker, String) {
    let port = free_port();
    let users = format!(
        "listener.name.guarded.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_rollcall=\"{}\";",
        canary("Kafka.properties")
    );
    let broker = Broker::start_with_listener(
        &format!("GUARDED://127.0.0.1:{port}"),
        &[
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
            "listener.name.guarded.sasl.enabled.mechanisms=PLAIN",
            &users,
        ],
    );
    (broker, format!("127.0.0.1:{port}"))
}

#[test]
fn no_secret_is_printed_logged_served_or_written() {
    let (broker, guarded) = broker();
    let ec2 = FaultProxy::start(&server("EC2"));
    let folder = tempfile::tempdir().unwrap();
    python::client("make_ca.py", &["--dir", folder.path().to_str().unwrap()]);
    let bearer = format!("Bearer {}", canary("Registry.token"));
    let registry = SecureRegistry::start(folder.path(), &["--authorization", &bearer]);
    let place = Place { url: ec2.url(), folder, registry: registry.url() };
    let topics = TestTopics::create_on(&broker.address(), 1);
    let [mut right, mut wrong, mut provider] = place.configs(&topics);
    for config in [&mut right, &mut wrong, &mut provider] {
        config["kafka"]["bootstrap_servers"] = guarded.clone().into();
    }
    let (env, mut heard) = (place.env(), Heard::default());
    // What a log line or a panic would print of it, though none does today.
    for config in [&right, &wrong, &provider] {
        heard.add("the configuration", format!("{:#?}", config::parse(&config.to_string(), &[]).unwrap()));
    }

    // Where everything is as it should be.
    let swept = heard.run(&["collect --once"], &right, &env, LIMIT);
    assert!(swept.contains("\"level\":\"TRACE\""), "all that can be logged is");
    assert!(topics.read("raw").iter().any(|record| record.key() == "i-0a"), "{swept}");
    let actions: BTreeSet<_> = ec2.log().into_iter().map(|call| call.action).collect();
    let expected = ["AssumeRole", "AssumeRoleWithWebIdentity", "DescribeInstances"];
    assert!(expected.iter().all(|action| actions.contains(*action)), "{actions:?}");
    let env_refs: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut mapper = Stage::start_with_env(&["map"], &right, &env_refs);
    mapper.wait_until_ready();
    wait_until_mapped(&topics);
    for path in ["/metrics", "/readyz", "/healthz", "/", "/status"] {
        let answer = mapper.get(path);
        heard.add(path, answer);
    }
    mapper.signal("TERM");
    mapper.wait(LIMIT);
    mapper.tail();
    heard.add("map, log", mapper.seen.iter().map(|event| format!("{event}\n")).collect::<String>());
    let asked = [
        "config",
        "check",
        "topics",
        "policy",
        "sweeps list",
        "sweeps reconcile --dry-run",
        "replay --in-place --dry-run",
    ];
    heard.run(&asked, &right, &env, LIMIT);
    let read =
        ["raw", "events", "state", "sweeps", "health", "dead-letters"].map(|topic| format!("tail {topic} --until-end"));
    heard.run(&read.each_ref().map(String::as_str), &right, &env, LIMIT);

    // Where nothing is: AWS tells a wrong signature by what it would have signed.
    let signed = format!(
        "The Canonical String for this request should have been 'POST\n/\nx-amz-security-token:{}'",
        canary("env-token")
    );
    let message = format!("The request signature we calculated does not match the signature you provided. {signed}");
    ec2.when(on("AssumeRole"), Fault::Error("SignatureDoesNotMatch".to_owned(), 403, message.clone()));
    ec2.when(on("DescribeInstances"), Fault::Error("SignatureDoesNotMatch".to_owned(), 403, message));
    let asked = [
        "config",
        "check",
        "collect --once",
        "map",
        "topics",
        "tail raw --until-end",
        "schema check",
        "schema register",
    ];
    let said = heard.run(&asked, &wrong, &env, PATIENCE);
    for part in ["SASL authentication error", "SignatureDoesNotMatch", "401"] {
        assert!(said.contains(part), "{part}");
    }
    let said = heard.run(&["check", "topics"], &provider, &env, PATIENCE);
    assert!(said.contains("kafka.oauth.oidc"), "{said}");
    // Kafka takes it, AWS does not: what the health topic says of that.
    heard.run(&["collect --once"], &right, &env, LIMIT);
    heard.run(&["tail health --until-end"], &right, &env, LIMIT);

    // Keys that a server hands out, and a proxy that the environment names.
    let handed_out = CredentialsServer::start();
    let mut env = place.env();
    env.retain(|(name, _)| !name.starts_with("AWS_SE") && name != "AWS_ACCESS_KEY_ID");
    env.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), handed_out.container_url()));
    env.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(), canary("container")));
    heard.run(&["check"], &right, &env, LIMIT);
    assert!(SERVED_SECRET.contains(SONG[0]) && !handed_out.asked().is_empty());
    for name in ["HTTPS_PROXY", "HTTP_PROXY"] {
        env.push((name.to_owned(), format!("http://{}:{}@127.0.0.1:1", canary("proxy"), canary("proxy"))));
    }
    env.push(("NO_PROXY".to_owned(), String::new()));
    env.push(("no_proxy".to_owned(), String::new()));
    heard.run(&["check", "schema check"], &right, &env, LIMIT);

    for topic in ["raw", "events", "state", "sweeps", "health", "dlq"] {
        for record in topics.read_uncommitted(topic) {
            heard.add(
                topic,
                format!("{:?} {}", record.headers, String::from_utf8_lossy(record.key.as_deref().unwrap_or_default())),
            );
            heard.add(topic, record.value.unwrap_or_default());
        }
    }
    heard.check();
    drop(broker);
}
