//! Servers of a test's own, for what would hurt the other tests: an EC2 server that enforces IAM, a broker that goes
//! away. They listen on loopback and end when they are dropped.

#![allow(dead_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::kafka_proxy::KafkaProxy;
use super::process::signal;
use super::{server, wait_for};

/// A child that is killed when dropped.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// One that tells `file` what it has to say.
    fn start_telling(command: &mut Command, file: &Path) -> Self {
        let told = File::create(file).unwrap();
        Self::spawn(command.stdout(told.try_clone().unwrap()).stderr(told))
    }

    fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on, from below the range that Linux gives to outgoing connections. Given once: a server takes
/// its time to listen, and another test asks meanwhile.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(11000..31000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// The last twenty of a file.
fn last_lines(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A moto server.
pub struct Moto {
    _process: Process,
    scheme: &'static str,
    port: u16,
}

impl Moto {
    /// Starts one with more in its environment.
    pub fn start(env: &[(&str, &str)]) -> Self {
        Self::launch(env, None)
    }

    /// Starts one that speaks TLS, with `cert.pem` and `key.pem` of a folder.
    pub fn start_tls(folder: &Path) -> Self {
        Self::launch(&[], Some(folder))
    }

    fn launch(env: &[(&str, &str)], tls: Option<&Path>) -> Self {
        let port = free_port();
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/amis.json");
        let mut process = Process::start(
            Command::new(server("PYTHON"))
                .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
                .args(tls.iter().flat_map(|folder| {
                    [
                        "-c".into(),
                        folder.join("cert.pem").into_os_string(),
                        "-k".into(),
                        folder.join("key.pem").into_os_string(),
                    ]
                }))
                .env("MOTO_AMIS_PATH", images)
                .envs(env.iter().copied()),
        );
        wait_for("moto", Duration::from_secs(60), || {
            assert!(process.is_running(), "moto ended by itself");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { _process: process, scheme: if tls.is_some() { "https" } else { "http" }, port }
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }
}

/// The schema registry behind TLS.
pub struct SecureRegistry {
    _process: Process,
    port: u16,
}

impl SecureRegistry {
    /// One with `cert.pem` and `key.pem` of a folder, and what `tls_proxy.py` takes beside them.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut process = Process::start(
            Command::new(server("PYTHON"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/tls_proxy.py"))
                .args(["--port", &port.to_string(), "--to", &server("REGISTRY")])
                .arg("--cert")
                .arg(folder.join("cert.pem"))
                .arg("--key")
                .arg(folder.join("key.pem"))
                .args(arguments),
        );
        wait_for("the proxy", Duration::from_secs(60), || {
            assert!(process.is_running(), "the proxy ended by itself");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { _process: process, port }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// A Prometheus that scrapes and evaluates by `prometheus.yml` of a folder.
pub struct Prometheus {
    _process: Process,
    url: String,
}

impl Prometheus {
    /// Starts one; it answers when this returns. Its data are in the folder too.
    pub fn start(folder: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut process = Process::start(
            Command::new(Path::new(&server("PROMETHEUS")).join("prometheus"))
                .arg(format!("--web.listen-address={address}"))
                .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("data").display())),
        );
        wait_for("Prometheus", Duration::from_secs(60), || {
            assert!(process.is_running(), "Prometheus ended by itself");
            TcpStream::connect(&address).ok()
        });
        Self { _process: process, url: format!("http://{address}") }
    }

    /// What its API answers, member `data`.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> serde_json::Value {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), parameters).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.get(url).send().await.unwrap().text().await.unwrap()
        });
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }
}

/// A Kafka broker that can go away and come back, with its data and on its port.
pub struct Broker {
    process: Option<Process>,
    folder: TempDir,
    node: usize,
    port: u16,
    /// All controllers, as `kafka.py` takes them.
    quorum: String,
    heap: &'static str,
    settings: Vec<String>,
    /// What all its clients talk to in its place, brokers included.
    proxy: Option<KafkaProxy>,
}

impl Broker {
    /// Starts an empty one; it answers when this returns.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of its own, as in `message.max.bytes=5000000`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::of_its_own(settings).started()
    }

    /// The same with one more listener, as in `GUARDED://127.0.0.1:1234`.
    pub fn start_with_listener(listener: &str, settings: &[&str]) -> Self {
        let mut broker = Self::of_its_own(settings);
        let controller = broker.quorum.split('@').next_back().unwrap_or_default();
        let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://{controller},{listener}", broker.port);
        broker.settings.push(listeners);
        broker.started()
    }

    /// The same behind a proxy.
    pub fn start_behind_proxy(settings: &[&str]) -> Self {
        Self::of_its_own(settings).behind_proxy().started()
    }

    fn of_its_own(settings: &[&str]) -> Self {
        Self::new(1, &format!("1@127.0.0.1:{}", free_port()), "768m", settings)
    }

    fn new(node: usize, quorum: &str, heap: &'static str, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let (folder, quorum) = (tempfile::tempdir().unwrap(), quorum.to_owned());
        Self { process: None, folder, node, port: free_port(), quorum, heap, settings, proxy: None }
    }

    fn behind_proxy(mut self) -> Self {
        let proxy = KafkaProxy::start(self.port);
        self.settings.push(format!("advertised.listeners=PLAINTEXT://{}", proxy.address()));
        self.proxy = Some(proxy);
        self
    }

    fn started(mut self) -> Self {
        self.start_again();
        self
    }

    /// What clients take for `bootstrap.servers`.
    pub fn address(&self) -> String {
        match &self.proxy {
            Some(proxy) => proxy.address(),
            None => format!("127.0.0.1:{}", self.port),
        }
    }

    /// The proxy that it is behind.
    pub fn proxy(&self) -> &KafkaProxy {
        self.proxy.as_ref().expect("it is behind a proxy")
    }

    /// Starts it with the data that it had; it answers when this returns.
    pub fn start_again(&mut self) {
        self.launch();
        self.wait_until_it_answers();
    }

    fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/kafka.py");
        let process = Process::start_telling(
            Command::new(server("PYTHON"))
                .arg(script)
                .args(["--node", &self.node.to_string(), "--port", &self.port.to_string(), "--quorum", &self.quorum])
                .args(["--jars", &server("KAFKA_JARS"), "--java", &server("JAVA"), "--heap", self.heap])
                .arg("--dir")
                .arg(self.folder.path())
                .args(self.settings.iter().flat_map(|setting| ["--set", setting])),
            &self.told(),
        );
        self.process = Some(process);
    }

    /// What it said since it was started.
    fn told(&self) -> PathBuf {
        self.folder.path().join("told.txt")
    }

    fn wait_until_it_answers(&mut self) {
        let (address, node, told) = (self.address(), self.node, self.told());
        let process = self.process.as_mut().expect("it runs");
        wait_for("the broker", Duration::from_secs(240), || {
            assert!(process.is_running(), "the broker ended by itself:\n{}", last_lines(&told));
            // A client before the port is open would only log failures.
            TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &address).set("group.id", "test-reader");
            let client: BaseConsumer = config.create().unwrap();
            let metadata = client.fetch_metadata(None, Duration::from_secs(5)).ok()?;
            metadata.brokers().iter().any(|broker| broker.id() == node as i32).then_some(())
        });
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        signal(process.0.id(), "TERM");
        // A broker that waits for nobody takes about a second; what is left is killed.
        let ended = std::time::Instant::now() + Duration::from_secs(20);
        while process.is_running() && std::time::Instant::now() < ended {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs");
    }

    /// Its connections stay open, but it does nothing any more.
    pub fn pause(&self) {
        signal(self.process.as_ref().expect("it runs").0.id(), "STOP");
    }

    /// Ends a pause.
    pub fn resume(&self) {
        signal(self.process.as_ref().expect("it runs").0.id(), "CONT");
    }
}

/// Three brokers that replicate each other. Their internal topics have three replicas of which two must be in sync; so
/// have those that [`TestTopics`](super::kafka::TestTopics) creates on them.
pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    pub const SIZE: usize = 3;
    /// They take little memory each: what buffers Kafka allocates at the start is made smaller, too.
    const SMALL: [&str; 2] = ["log.cleaner.dedupe.buffer.size=4194304", "log.cleaner.backoff.ms=1000"];

    /// Starts empty ones with settings of their own; all of them answer when this returns.
    pub fn start(settings: &[&str]) -> Self {
        Self::started(settings, |broker| broker)
    }

    /// The same, each behind a proxy.
    pub fn start_behind_proxies(settings: &[&str]) -> Self {
        Self::started(settings, Broker::behind_proxy)
    }

    fn started(settings: &[&str], finish: impl Fn(Broker) -> Broker) -> Self {
        let quorum = (1..=Self::SIZE).map(|node| format!("{node}@127.0.0.1:{}", free_port()));
        let quorum = quorum.collect::<Vec<_>>().join(",");
        let settings = [&Self::SMALL, settings].concat();
        let broker = |node| finish(Broker::new(node, &quorum, "320m", &settings));
        let mut cluster = Self { brokers: (1..=Self::SIZE).map(broker).collect() };
        cluster.start_all_again();
        cluster
    }

    /// What clients take for `bootstrap.servers`.
    pub fn address(&self) -> String {
        self.brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",")
    }

    /// The ID of the broker that leads the controllers, as those that run know it.
    pub fn controller(&self) -> Option<i32> {
        let known = self.brokers.iter().filter(|broker| broker.process.is_some()).filter_map(|broker| {
            let path = broker.folder.path().join("data/__cluster_metadata-0/quorum-state");
            let state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
            Some((state["leaderEpoch"].as_i64()?, i32::try_from(state["leaderId"].as_i64()?).ok()?))
        });
        known.max().map(|(_, leader)| leader).filter(|leader| *leader > 0)
    }

    /// All of them, that were ended, start again at once: none answers before there is a majority.
    pub fn start_all_again(&mut self) {
        self.brokers.iter_mut().for_each(Broker::launch);
        self.brokers.iter_mut().for_each(Broker::wait_until_it_answers);
    }

    /// The broker of an ID: 1, 2 or 3.
    pub fn broker(&mut self, id: i32) -> &mut Broker {
        &mut self.brokers[usize::try_from(id - 1).unwrap()]
    }
}
