//! Servers of a test's own, for what would hurt the other tests: an EC2 server that enforces IAM, a broker that goes
//! away. They listen on loopback and end when they are dropped.

#![allow(dead_code)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::process::signal;
use super::{server, wait_for};

/// A child that is killed when dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on, from below the range that Linux gives to outgoing connections.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(11000..31000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
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

/// A Kafka broker that can go away and come back, with its data and on its port.
pub struct Broker {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    controller: u16,
    settings: Vec<String>,
}

impl Broker {
    /// Starts an empty one; it answers when this returns.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of its own, as in `message.max.bytes=5000000`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut broker = Self { process: None, folder, port: free_port(), controller: free_port(), settings };
        broker.start_again();
        broker
    }

    /// What clients take for `bootstrap.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it with the data that it had; it answers when this returns.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/kafka.py");
        let quorum = format!("1@127.0.0.1:{}", self.controller);
        let mut process = Process::start(
            Command::new(server("PYTHON"))
                .arg(script)
                .args(["--port", &self.port.to_string(), "--quorum", &quorum])
                .args(["--jars", &server("KAFKA_JARS"), "--java", &server("JAVA")])
                .arg("--dir")
                .arg(self.folder.path())
                .args(self.settings.iter().flat_map(|setting| ["--set", setting])),
        );
        let address = self.address();
        wait_for("the broker", Duration::from_secs(90), || {
            assert!(process.is_running(), "the broker ended by itself");
            // A client before the port is open would only log failures.
            TcpStream::connect(&address).ok()?;
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &address).set("group.id", "test-reader");
            let client: BaseConsumer = config.create().unwrap();
            let metadata = client.fetch_metadata(None, Duration::from_secs(2)).ok()?;
            (!metadata.brokers().is_empty()).then_some(())
        });
        self.process = Some(process);
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
