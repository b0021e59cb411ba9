#!/usr/bin/env python3
"""Start the servers of the tests, run a command with their addresses in its environment, stop them.

servers.py [COMMAND ARGUMENT…]: without a command it prints the addresses as `export` lines and waits for Ctrl-C.
Called by ./dev, with the Python of the test environment; ./dev sets the variables that it reads. The exit code is the
command's; 1 if a server failed, 130 or 143 after Ctrl-C or SIGTERM.
"""

import ctypes
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS = 180
STOP_SECONDS = 10
REGISTRY_PATH = "/apis/ccompat/v7"

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def say(text):
    """Progress goes to stderr; stdout carries only the addresses, or what the command prints."""
    print(text, file=sys.stderr, flush=True)


class Interruption:
    """The signal that asks for the end, if one came. A flag, not an exception: no started process is ever forgotten."""

    def __init__(self):
        self.signum = None
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._note)

    def _note(self, signum, _frame):
        self.signum = self.signum or signum


class ServerFailed(Exception):
    """A server ended by itself or was not ready in time."""

    def __init__(self, server, what):
        super().__init__(f"{server.name} {what}")
        self.log = server.log


class Server:
    """One server process in a session of its own, so that Ctrl-C at the terminal does not end it before the tests."""

    def __init__(self, name, command, ready, folder, extra_env=()):
        self.name = name
        self.ready = ready
        self.log = folder / "logs" / f"{name}.log"
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **dict(extra_env)},
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def check(self):
        """Raise if the server has ended."""
        if has_ended(self.process):
            raise ServerFailed(self, "ended by itself")

    def is_ready(self):
        """Whether the server answers; raise when it has ended or its time is up."""
        self.check()
        if self.ready():
            return True
        if time.monotonic() - self.started > START_SECONDS:
            raise ServerFailed(self, f"was not ready after {START_SECONDS} s")
        return False


def end_with_parent():
    """In the child: ask Linux to end it even if this program is killed with SIGKILL.

    To run code there is safe while this program has no threads: all servers start before the first Kafka client.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def has_ended(process):
    """Whether the process has ended. It stays a zombie until `end`, so that its ID cannot become a stranger's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(processes):
    """SIGTERM to all and what they started, SIGKILL to what is left after some seconds; wait for every one."""
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        while not has_ended(process) and time.monotonic() < deadline:
            time.sleep(0.02)
        # Also when it has ended: something that it started may have outlived it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count):
    """Ports that nobody listens on, from below the range that Linux gives to outgoing connections."""
    held = []
    while len(held) < count:
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", random.randint(11000, 31000)))
            held.append(sock)
        except OSError:
            sock.close()
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def http_answers(url):
    """Whether a GET of the URL succeeds, whatever proxy the environment names."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
            return True
    except OSError:
        return False


def kafka_answers(bootstrap):
    """Whether the cluster's metadata names a broker that is up."""
    try:
        with socket.create_connection(("127.0.0.1", int(bootstrap.rsplit(":", 1)[1])), timeout=1):
            pass
        return bool(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=2).brokers)
    except (OSError, KafkaException):
        return False


def start_all(folder, servers):
    """Start every server, adding each to `servers` at once; return the addresses as environment variables."""
    java = os.environ["ROLLCALL_TEST_JAVA"]
    jars = pathlib.Path(os.environ["ROLLCALL_TEST_JARS"])
    broker_port, controller_port, registry_port, ec2_port = free_ports(4)
    bootstrap = f"127.0.0.1:{broker_port}"
    registry = f"http://127.0.0.1:{registry_port}{REGISTRY_PATH}"
    ec2 = f"http://127.0.0.1:{ec2_port}"

    broker = [sys.executable, HERE / "kafka.py", "--node", "1", "--port", str(broker_port)]
    broker += ["--quorum", f"1@127.0.0.1:{controller_port}", "--dir", folder / "kafka"]
    broker += ["--jars", jars / "kafka", "--java", java]
    servers.append(Server("kafka", broker, lambda: kafka_answers(bootstrap), folder))

    (folder / "registry").mkdir()
    runner = next((jars / "registry").glob("*-runner.jar"))
    registry_java = [java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    registry_java += [f"-Djava.io.tmpdir={folder / 'registry'}", "-Dquarkus.http.host=127.0.0.1"]
    registry_java += [f"-Dquarkus.http.port={registry_port}", "-jar", runner]
    access_log = {"ENABLE_ACCESS_LOG": "true"}
    servers.append(Server("registry", registry_java, lambda: http_answers(f"{registry}/subjects"), folder, access_log))

    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ec2_port)]
    # Moto's own list of images has none for arm64.
    images = {"MOTO_AMIS_PATH": str(HERE / "amis.json")}
    servers.append(Server("ec2", moto, lambda: http_answers(f"{ec2}/moto-api/data.json"), folder, images))

    return {
        "ROLLCALL_TEST_KAFKA": bootstrap,
        "ROLLCALL_TEST_REGISTRY": registry,
        "ROLLCALL_TEST_EC2": ec2,
        "ROLLCALL_TEST_PYTHON": sys.executable,
        "ROLLCALL_TEST_KCAT": os.environ["ROLLCALL_TEST_KCAT"],
        # For tests that start brokers of their own with tests/env/kafka.py.
        "ROLLCALL_TEST_KAFKA_JARS": str(jars / "kafka"),
        "ROLLCALL_TEST_JAVA": java,
        # Helm and the schemas of tests/env/go-modules.txt; prometheus and promtool.
        "ROLLCALL_TEST_FROM_GO": os.environ["ROLLCALL_TEST_FROM_GO"],
        "ROLLCALL_TEST_PROMETHEUS": os.environ["ROLLCALL_TEST_PROMETHEUS"],
        "ROLLCALL_TEST_AXE": os.environ["ROLLCALL_TEST_AXE"],
        # The clients' folder is part of the checkout.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Where a proxy is set, loopback goes past it.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def await_all(servers, interruption):
    """Return when every server is ready or a signal came."""
    waiting = list(servers)
    while waiting and not interruption.signum:
        for server in list(waiting):
            if server.is_ready():
                say(f"    {server.name}: ready after {time.monotonic() - server.started:.1f} s")
                waiting.remove(server)
        time.sleep(0.1)


def run(command, environment, interruption):
    """Run the command to its end, or until a signal asks for ours; return its exit code."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)
    while not interruption.signum and not has_ended(process):
        time.sleep(0.05)
    # Also after a normal end: a test must not leave anything running.
    end([process])
    return process.returncode


def serve(servers, environment, interruption):
    """Print the addresses and wait for a signal; a server that ends by itself is an error."""
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}", flush=True)
    say("==> the servers are up; Ctrl-C stops them")
    while not interruption.signum:
        for server in servers:
            server.check()
        time.sleep(0.2)


def work(command, folder, servers, interruption):
    """Everything between the empty folder and the teardown; returns the exit code."""
    environment = start_all(folder, servers)
    await_all(servers, interruption)
    code = 0
    if not interruption.signum:
        if command:
            say(f"==> {shlex.join(command)}")
            code = run(command, environment, interruption)
            for server in servers:
                if has_ended(server.process):
                    say(f"==> {server.name} had ended by itself meanwhile")
        else:
            serve(servers, environment, interruption)
    if interruption.signum:
        # To stop the servers by Ctrl-C is how `./dev servers` is meant to end.
        return 0 if not command and interruption.signum == signal.SIGINT else 128 + interruption.signum
    # As a shell gives the code of a command that a signal ended.
    return code if code >= 0 else 128 - code


def clean_up(folder, code):
    """Remove all data, and after success the logs too."""
    if code == 0:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for entry in folder.iterdir():
        if entry.name != "logs":
            shutil.rmtree(entry, ignore_errors=True)
    say(f"==> exit code {code}; the servers' logs are kept in {folder / 'logs'}")


def main():
    """Run `work` and tear down whatever happened in it."""
    interruption = Interruption()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rollcall-servers-"))
    (folder / "logs").mkdir()
    servers = []
    code = 1
    try:
        say(f"==> starting Kafka, the schema registry and the EC2 server (logs: {folder / 'logs'})")
        code = work(sys.argv[1:], folder, servers, interruption)
    except ServerFailed as failure:
        say(f"error: {failure}\n--- the end of {failure.log}:")
        say("\n".join(failure.log.read_text(errors="replace").splitlines()[-20:]))
    except OSError as failure:
        say(f"error: {failure}")
    finally:
        end([server.process for server in reversed(servers)])
        clean_up(folder, code)
    sys.exit(code)


if __name__ == "__main__":
    main()
