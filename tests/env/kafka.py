#!/usr/bin/env python3
"""Become one Kafka broker (and KRaft controller) on loopback.

The first start in a folder formats it; a later start goes on with the data there. Java replaces this process, so that
the broker can be stopped or killed by the process ID that the caller got.

A cluster of three: start nodes 1, 2 and 3, each with its own --port and --dir, and all with the same
--quorum 1@127.0.0.1:PORT,2@127.0.0.1:PORT,3@127.0.0.1:PORT (the controllers' ports).
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CLUSTER_ID = "cm9sbGNhbGwtdGVzdHMtMQ"

# The quick compiler and the simple collector: a broker starts sooner and leaves the cores to the tests.
QUICK = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"

# Internal topics take this many replicas at most, as in a cluster of that size.
MAX_REPLICAS = 3


def settings(args):
    """The broker's properties: Kafka's defaults but for what tests need."""
    controllers = dict(entry.split("@", 1) for entry in args.quorum.split(","))
    if str(args.node) not in controllers:
        sys.exit(f"kafka.py: --quorum {args.quorum} has no node {args.node}")
    replicas = min(len(controllers), MAX_REPLICAS)
    in_sync = max(1, replicas - 1)
    found = {
        "process.roles": "broker,controller",
        "node.id": args.node,
        "controller.quorum.voters": args.quorum,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{args.port},CONTROLLER://{controllers[str(args.node)]}",
        "log.dirs": args.dir / "data",
        # On a busy machine a cluster takes longer to form than the minute after which a broker gives up.
        "initial.broker.registration.timeout.ms": 240000,
        # A misspelt topic must be an error, as on any serious cluster.
        "auto.create.topics.enable": "false",
        # Consumer groups form at once, and tests may use short sessions.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 500,
        # The same for groups whose partitions the brokers share out: there the members set nothing.
        "group.consumer.min.session.timeout.ms": 500,
        "group.consumer.session.timeout.ms": 3000,
        "group.consumer.min.heartbeat.interval.ms": 100,
        "group.consumer.heartbeat.interval.ms": 200,
        # Kafka's defaults of 50 partitions each take seconds to create.
        "offsets.topic.num.partitions": 10,
        "transaction.state.log.num.partitions": 10,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }
    for pair in args.set:
        key, _, value = pair.partition("=")
        if key.endswith("+"):
            key = key[:-1]
            value = f"{found[key]},{value}"
        found[key] = value
    return found


def main():
    """Write the settings, format the folder if it is new, and become the broker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", type=int, default=1, help="this broker's number (default 1)")
    parser.add_argument("--port", type=int, required=True, help="port for clients")
    parser.add_argument("--quorum", required=True, help="all controllers: NODE@HOST:PORT,…")
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="the broker's folder")
    parser.add_argument("--heap", default="768m", help="Java heap (default 768m)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further broker setting; KEY+=VALUE adds to one")
    parser.add_argument("--jars", default=os.environ.get("ROLLCALL_TEST_KAFKA_JARS"), help="folder with Kafka's jars")
    parser.add_argument("--java", default=os.environ.get("ROLLCALL_TEST_JAVA", "java"), help="Java 17 or later")
    args = parser.parse_args()
    if not args.jars:
        parser.error("--jars or ROLLCALL_TEST_KAFKA_JARS is needed; `./dev servers` prints it")

    args.dir = args.dir.resolve()
    (args.dir / "tmp").mkdir(parents=True, exist_ok=True)
    properties = args.dir / "server.properties"
    properties.write_text("".join(f"{key}={value}\n" for key, value in settings(args).items()))

    java = [args.java, f"-Xmx{args.heap}", *os.environ.get("ROLLCALL_TEST_KAFKA_JVM", QUICK).split()]
    java += [f"-Djava.io.tmpdir={args.dir / 'tmp'}", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
    # What the brokers may read their keys from has to be allowed outside of their settings, too.
    allowed = [value for key, value in settings(args).items() if key.endswith("oauthbearer.jwks.endpoint.url")]
    java += [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={url}" for url in allowed]
    java += ["-cp", f"{args.jars}/*"]
    if not (args.dir / "data" / "meta.properties").exists():
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", str(properties)]
        subprocess.run(java + tool, check=True, stdin=subprocess.DEVNULL)
    os.chdir(args.dir)
    sys.stdout.flush()
    os.execvp(args.java, java + ["kafka.Kafka", str(properties)])


if __name__ == "__main__":
    main()
