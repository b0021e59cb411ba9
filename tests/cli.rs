//! The command line as a user meets it: exit codes, messages, signals, the admin port.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::kafka::{TestTopics, committed, ends, flush, producer, read_committed, send};
use crate::support::process::{Stage, config_file, rollcall};
use crate::support::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
/// What an operator is promised.
const END_WITHIN: Duration = Duration::from_secs(10);
const SECRET: &str = "hunter2-7f3a";

// === Running a command to its end ===

/// What a command came to.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Its complaint has all these parts.
    #[track_caller]
    fn complains_of(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} not in:\n{}", self.stderr);
        }
        self
    }

    #[track_caller]
    fn keeps(self, secret: &str) -> Self {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{}{}", self.stdout, self.stderr);
        self
    }

    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs it to its end; killed after a minute, so that nothing hangs.
fn end_of(command: &mut Command) -> Ended {
    let [stdout, stderr] = [(); 2].map(|()| NamedTempFile::new().unwrap());
    command.stdin(Stdio::null()).stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let status = wait_for("the end of the command", 2 * LIMIT, || {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        child.try_wait().unwrap()
    });
    let text = |file: NamedTempFile| std::fs::read_to_string(file.path()).unwrap();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn run(arguments: &[&str]) -> Ended {
    end_of(rollcall().args(arguments))
}

fn run_with(arguments: &[&str], config: &Value) -> Ended {
    end_of(rollcall().args(arguments).arg("--config").arg(config_file(config).path()))
}

fn ended(output: std::process::Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run_on(arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = rollcall();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    ended(child.wait_with_output().unwrap())
}

fn file_of(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// Its output goes to a reader that is gone.
fn into_nowhere(arguments: &[&str], input: &NamedTempFile) -> Ended {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = rollcall();
    command.args(arguments).stdin(std::fs::File::open(input.path()).unwrap()).stdout(writer).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    ended(child.wait_with_output().unwrap())
}

// === Usage ===

#[test]
fn help_and_version_are_success() {
    for arguments in [["--help"], ["--version"]] {
        assert!(run(&arguments).expect(0).stdout.contains("rollcall") || arguments == ["--help"]);
    }
    let help = run(&["--help"]).expect(0).stdout;
    for command in ["collect", "map", "run", "demo", "render", "tail", "topics", "config", "Exit codes"] {
        assert!(help.contains(command), "{command}");
    }
}

#[test]
fn wrong_usage_is_2() {
    run(&[]).expect(2).complains_of(&["Usage"]);
    run(&["sweep"]).expect(2).complains_of(&["sweep"]);
    run(&["map", "--fast"]).expect(2).complains_of(&["--fast"]);
    run(&["--set", "kafka.partitions", "config"]).expect(2).complains_of(&["kafka.partitions", "KEY=VALUE"]);
    run(&["render", "--observed-at", "yesterday"]).expect(2).complains_of(&["yesterday"]);
    run(&["render", "--profile", "splunk"]).expect(2).complains_of(&["splunk", "sekoia"]);
    run(&["demo", "--sweeps", "0"]).expect(2).complains_of(&["0"]);
}

// === Configuration ===

#[test]
fn an_unknown_key_or_a_bad_value_is_2_and_names_key_value_and_what_is_allowed() {
    for (setting, parts) in [
        ("kafka.bootstrap_server=x", ["kafka.bootstrap_server", "unknown field", "bootstrap_servers"]),
        ("mapper.profile=splunk", ["mapper.profile", "splunk", "sekoia"]),
        ("mapper.ignore.fields=[device.]", ["mapper.ignore.fields", "device.", "[].hostname"]),
        ("mapper.commit_interval=soon", ["mapper.commit_interval", "soon", "100ms"]),
        ("mapper.engines=0", ["mapper.engines", "0", "nonzero"]),
        ("kafka.partitions=0", ["kafka.partitions", "0", "1 to 10000"]),
        ("kafka.partitions=many", ["kafka.partitions", "many", "i32"]),
        ("kafka.topics.raw=ocsf.device.events", ["kafka.topics", "same name", "six"]),
        ("log.format=xml", ["log.format", "xml", "json"]),
        ("log.filter=rollcall=loud", ["log.filter", "rollcall=loud", "debug"]),
    ] {
        run(&["--set", setting, "config"]).expect(2).complains_of(&parts);
        let (key, value) = setting.split_once('=').unwrap();
        let variable = format!("ROLLCALL_{}", key.replace('.', "__").to_uppercase());
        end_of(rollcall().env(variable, value).arg("config")).expect(2).complains_of(&parts);
    }
}

#[test]
fn a_bad_file_is_2_and_is_named() {
    run(&["--config", "/no/such/file", "config"]).expect(2).complains_of(&["/no/such/file"]);
    for (text, complaint) in
        [("kafka: [", "line 1"), ("- a\n- b\n", "map of keys"), ("mapper: {profle: sekoia}", "mapper.profle")]
    {
        let file = file_of(text);
        let ended = run(&["--config", path(&file), "config"]).expect(2).complains_of(&[complaint]);
        if !complaint.contains('.') {
            ended.complains_of(&[path(&file)]);
        }
    }
}

#[test]
fn a_variable_wins_over_the_file_and_a_flag_over_the_variable() {
    let file = file_of("kafka: {bootstrap_servers: 'file:1', partitions: 3}\nmapper: {group_id: from-file}");
    let shown = |variable: Option<&str>, flags: &[&str]| {
        let mut command = rollcall();
        command
            .env("ROLLCALL_CONFIG", file.path())
            .envs(variable.map(|value| ("ROLLCALL_KAFKA__BOOTSTRAP_SERVERS", value)));
        let shown: Value = serde_saphyr::from_str(&end_of(command.args(flags).arg("config")).expect(0).stdout).unwrap();
        assert_eq!((&shown["kafka"]["partitions"], &shown["mapper"]["group_id"]), (&json!(3), &json!("from-file")));
        shown["kafka"]["bootstrap_servers"].as_str().unwrap().to_owned()
    };
    assert_eq!(shown(None, &[]), "file:1");
    assert_eq!(shown(Some("variable:1"), &[]), "variable:1");
    assert_eq!(shown(Some("variable:1"), &["--set", "kafka.bootstrap_servers=set:1"]), "set:1");
    assert_eq!(shown(Some("variable:1"), &["--bootstrap-servers", "flag:1"]), "flag:1");
}

#[test]
fn config_prints_what_is_in_effect_in_a_form_that_can_be_read_again() {
    let shown = run(&["--set", "mapper.commit_interval=250ms", "--set", "instance_id=7", "config"]).expect(0).stdout;
    assert!(shown.contains("commit_interval: 250ms") && shown.contains("raw: ec2.instances.raw"), "{shown}");
    let file = file_of(&shown);
    assert_eq!(run(&["--config", path(&file), "config"]).expect(0).stdout, shown);
}

#[test]
fn a_variable_of_somebody_else_is_no_concern_of_ours() {
    let odd = std::ffi::OsStr::from_bytes(b"\xFF");
    end_of(rollcall().env("ODD", odd).env("ROLLCALL_SERVICE_HOST", "10.0.0.1").arg("config")).expect(0);
}

#[test]
fn properties_of_librdkafka_can_be_set_one_by_one() {
    let file = file_of("kafka: {properties: {client.rack: a}}");
    let mut command = rollcall();
    command.env("ROLLCALL_KAFKA__PROPERTIES__SASL_PASSWORD", SECRET).args(["--config", path(&file)]);
    let shown = end_of(command.args(["--set", "kafka.properties.ssl.ca.location=/ca", "config"])).expect(0);
    let shown: Value = serde_saphyr::from_str(&shown.keeps(SECRET).stdout).unwrap();
    let names: Vec<_> = shown["kafka"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["client.rack", "sasl.password", "ssl.ca.location"]);
}

/// It would be said after a minute's wait for Kafka.
#[test]
fn a_collector_without_a_source_is_told_so_before_anything_is_waited_for() {
    for command in [&["collect"][..], &["collect", "--once"], &["run"]] {
        run(command).expect(2).complains_of(&["collector.sources: there are none", "configure at least one"]);
    }
}

#[test]
fn a_property_that_a_guarantee_hangs_on_is_refused_with_the_reason() {
    for (property, reason) in [
        ("isolation.level", "aborted records must not be read"),
        ("enable.auto.commit", "transaction"),
        ("transactional.id", "instance_id"),
        ("group.id", "mapper.group_id"),
        ("acks", "all replicas"),
        ("partitioner", "one partition"),
        ("group.protocol", "kafka.group_protocol"),
        ("group.instance.id", "kafka.static_membership"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ] {
        let key = format!("kafka.properties.{property}");
        run(&["--set", &format!("{key}=x"), "map"]).expect(2).complains_of(&[&key, "must not be set", reason]);
    }
}

#[test]
fn a_property_that_the_groups_protocol_does_not_have_is_refused_with_what_takes_its_place() {
    for (protocol, property, instead) in [
        ("consumer", "session.timeout.ms", "group.consumer.session.timeout.ms"),
        ("consumer", "heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
        ("classic", "group.remote.assignor", "cooperative-sticky"),
    ] {
        let (key, protocol_is) = (format!("kafka.properties.{property}"), format!("kafka.group_protocol={protocol}"));
        run(&["--set", &format!("{key}=3000"), "--set", &protocol_is, "map"]).expect(2).complains_of(&[
            &key,
            "kafka.group_protocol is",
            protocol,
            instead,
        ]);
    }
    run(&["--set", "kafka.group_protocol=eager", "map"]).expect(2).complains_of(&[
        "kafka.group_protocol",
        "eager",
        "classic",
        "consumer",
    ]);
}

#[test]
fn a_property_that_librdkafka_does_not_know_or_take_is_2() {
    run(&["--set", "kafka.properties.sasl.pasword=x-1", "map"])
        .expect(2)
        .complains_of(&["kafka.properties.sasl.pasword", "No such"]);
    run(&["--set", "kafka.properties.security.protocol=x-1", "map"])
        .expect(2)
        .complains_of(&["kafka.properties.security.protocol", "does not take"]);
}

// === Secrets ===

fn with_secrets(mut config: Value) -> Value {
    config["kafka"]["properties"] = json!({"sasl.username": "rollcall", "sasl.password": SECRET, "debug": "all"});
    let role = "arn:aws:iam::123456789012:role/rollcall";
    let aws = json!({"regions": ["eu-west-1"], "accounts": [{"role_arn": role, "external_id": SECRET}]});
    config["collector"]["sources"] = json!([{"name": "all", "aws": aws}]);
    config["log"]["filter"] = "trace".into();
    config["admin"]["token"] = format!("{SECRET}-{SECRET}").into();
    config
}

#[test]
fn config_redacts_secrets() {
    let shown = run_with(&["config"], &with_secrets(json!({}))).expect(0).keeps(SECRET).stdout;
    for line in ["sasl.password: (redacted)", "external_id: (redacted)", "token: (redacted)"] {
        assert!(shown.contains(line), "{line} not in:\n{shown}");
    }
}

#[test]
fn the_log_tells_the_configuration_and_no_secret_however_much_is_logged() {
    let config = with_secrets(TestTopics::named(1).config());
    run_with(&["map"], &config)
        .expect(1)
        .complains_of(&["starting", "(redacted)", "sasl.password", "librdkafka"])
        .keeps(SECRET);
}

#[test]
fn a_complaint_about_the_configuration_repeats_no_secret() {
    let set = |setting: &str| run(&["--set", setting, "config"]).expect(2).keeps(SECRET);
    set(&format!("kafka.properties.sasl.pasword={SECRET}")).complains_of(&["sasl.pasword"]);
    set(&format!("kafka.properties.security.protocol={SECRET}")).complains_of(&["security.protocol"]);
    set(&format!("kafka.properties={{\"sasl.password\": \"{SECRET}\"")).complains_of(&["kafka.properties", "line 1"]);
    set(&format!("kafka.properties={{sasl.password: [{SECRET}]}}")).complains_of(&["kafka.properties.sasl.password"]);
    let file = file_of(&format!("kafka:\n  properties:\n    sasl.password: \"{SECRET}\n    a: ["));
    run(&["--config", path(&file), "config"]).expect(2).keeps(SECRET).complains_of(&["line 3", path(&file)]);
    set(&format!("admin.token={SECRET}")).complains_of(&["admin.token", "16 or more"]);
    set(&format!("registry={{url: 'http://user:{SECRET}@registry'}}")).complains_of(&["registry.url", "secret"]);
}

// === policy ===

#[test]
fn policy_prints_what_each_role_needs_and_no_secret() {
    let config = with_secrets(json!({"log": {}, "kafka": {}}));
    let text = run_with(&["policy"], &config).expect(0).keeps(SECRET).stdout;
    let role = "arn:aws:iam::123456789012:role/rollcall";
    for part in [&format!("# Policy of {role}"), "ec2:DescribeInstances", "REPLACE_WITH_EXTERNAL_ID"] {
        assert!(text.contains(part), "{part} not in:\n{text}");
    }
    let json = run_with(&["policy", "--output", "json"], &config).expect(0).keeps(SECRET).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["policy"]["Statement"][0]["Resource"], json!([role]));
    assert_eq!(
        json[0]["roles"][0]["policy"]["Statement"][0]["Action"],
        json!(["ec2:DescribeInstances", "ec2:DescribeTags"])
    );
}

#[test]
fn policy_without_a_source_that_needs_one_is_2() {
    run(&["policy"]).expect(2).complains_of(&["collector.sources", "aws"]);
}

// === render ===

fn instance(id: &str) -> Value {
    json!({"InstanceId": id, "OwnerId": "123456789012", "State": {"Name": "running"}})
}

fn reservations() -> String {
    let reservation = |owner: &str, ids: &[&str]| {
        let instances: Vec<_> = ids.iter().map(|id| json!({"InstanceId": id, "ImageId": "ami-1"})).collect();
        json!({"OwnerId": owner, "ReservationId": "r-1", "Instances": instances})
    };
    json!({"Reservations": [reservation("111122223333", &["i-1", "i-2"]), reservation("012345678901", &["i-3"])]})
        .to_string()
}

const OBSERVED: [&str; 2] = ["--observed-at", "2026-01-01T00:00:00Z"];

#[test]
fn render_reads_what_the_cli_prints_from_a_file_or_standard_input() {
    let file = file_of(&reservations());
    let of_file = run(&["render", "--input", path(&file), OBSERVED[0], OBSERVED[1]]).expect(0);
    let events = of_file.lines();
    let told: Vec<_> = events.iter().map(|event| (&event["device"]["uid"], &event["device"]["org"]["uid"])).collect();
    let expected = [("i-1", "111122223333"), ("i-2", "111122223333"), ("i-3", "012345678901")];
    assert!(
        told.iter().zip(expected).all(|(told, (uid, org))| (told.0, told.1) == (&json!(uid), &json!(org))),
        "{told:?}"
    );
    assert_eq!(events.len(), expected.len());
    assert_eq!(events[0]["time"], 1_767_225_600);
    assert_eq!(of_file.stderr, "");
    for arguments in [vec!["render"], vec!["render", "--input", "-"]] {
        let of_stdin = run_on(&[&arguments[..], &OBSERVED].concat(), reservations().as_bytes()).expect(0);
        assert_eq!(of_stdin.stdout, of_file.stdout);
    }
}

#[test]
fn render_reads_instances_one_a_line() {
    let lines = format!("{}\n\n{}\n", instance("i-1"), instance("i-2"));
    let events = run_on(&["render"], lines.as_bytes()).expect(0).lines();
    assert_eq!((events.len(), &events[1]["device"]["uid"]), (2, &json!("i-2")));
}

#[test]
fn render_of_nothing_is_nothing() {
    assert_eq!(run_on(&["render"], b"").expect(0).stdout, "");
}

#[test]
fn render_takes_the_account_of_instances_that_do_not_name_theirs() {
    let lines = format!("{}\n{}", json!({"InstanceId": "i-1"}), instance("i-2"));
    let events = run_on(&["render", "--account", "999988887777"], lines.as_bytes()).expect(0).lines();
    let owners: Vec<_> = events.iter().map(|event| event["device"]["org"]["uid"].as_str().unwrap()).collect();
    assert_eq!(owners, ["999988887777", "123456789012"]);
}

#[test]
fn render_of_what_is_no_json_is_1_and_names_file_and_line() {
    let file = file_of(&format!("{}\n{{oops}}\n", instance("i-1")));
    run(&["render", "--input", path(&file)]).expect(1).complains_of(&[path(&file), "line 2"]);
    run_on(&["render"], b"\xFF\xFE").expect(1).complains_of(&["utf-8"]);
    run(&["render", "--input", "/no/such/file"]).expect(1).complains_of(&["/no/such/file"]);
}

#[test]
fn render_names_what_is_no_instance_and_renders_the_others() {
    let lines = format!("{}\n{}\n7\n[]\n{}\n", instance("i-1"), json!({"ImageId": "ami-1"}), instance("i-2"));
    let ended = run_on(&["render"], lines.as_bytes()).expect(1);
    let ended = ended.complains_of(&["instance 2 has no InstanceId", "instance 3 is not a JSON object"]);
    let told: Vec<_> = ended.lines().iter().map(|event| event["device"]["uid"].clone()).collect();
    assert_eq!(told, ["i-1", "i-2"]);
}

#[test]
fn render_names_members_that_it_cannot_read_and_that_is_success() {
    let odd = json!({"InstanceId": "i-1", "PublicIpAddress": 7}).to_string();
    let ended = run_on(&["render"], odd.as_bytes()).expect(0).complains_of(&["i-1", "PublicIpAddress"]);
    assert_eq!(ended.lines().len(), 1);
}

#[test]
fn render_of_profile_ocsf_wants_to_know_when_and_takes_the_region() {
    let lines = instance("i-1").to_string();
    let ended = run_on(&["render", "--profile", "ocsf"], lines.as_bytes()).expect(2);
    assert_eq!(ended.complains_of(&["ocsf", "--observed-at"]).stdout, "");
    let arguments = ["render", "--profile", "ocsf", "--region", "cn-north-1", OBSERVED[0], OBSERVED[1]];
    let event = run_on(&arguments, lines.as_bytes()).expect(0).lines().remove(0);
    assert_eq!(event["time"], 1_767_225_600_000_i64);
    assert_eq!(event["cloud"]["cloud_partition"], "aws-cn");
    assert_eq!(event["device"]["uid_alt"], "arn:aws-cn:ec2:cn-north-1:123456789012:instance/i-1");
    // Nothing depends on when it is rendered.
    assert_eq!(run_on(&arguments, lines.as_bytes()).expect(0).lines().remove(0), event);
}

#[test]
fn render_of_profile_cse_is_a_small_record() {
    let record =
        run_on(&["render", "--profile", "cse"], instance("i-1").to_string().as_bytes()).expect(0).lines().remove(0);
    assert_eq!((&record["uniqueId"], &record["_siemVendor"]), (&json!("123456789012-i-1"), &json!("Amazon")));
}

#[test]
fn a_reader_that_has_seen_enough_is_success() {
    // More than a pipe holds.
    let many = file_of(&(0..2000).map(|number| format!("{}\n", instance(&format!("i-{number}")))).collect::<String>());
    for arguments in [&["render"][..], &["config"]] {
        assert_eq!(into_nowhere(arguments, &many).expect(0).stderr, "");
    }
}

// === topics ===

/// What the output says of a topic, but that it has one replica, as all topics here do.
fn about<'a>(ended: &'a Ended, topic: &str) -> Vec<&'a str> {
    let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix(&format!("{topic}: ")));
    lines.filter(|line| !line.starts_with("warning: has one replica")).collect()
}

fn partitions_of(topic: &str) -> usize {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", server("KAFKA")).create().unwrap();
    consumer.fetch_metadata(Some(topic), END_WITHIN).unwrap().topics()[0].partitions().len()
}

const TOPICS: [&str; 6] = ["raw", "sweeps", "events", "state", "dlq", "health"];

#[test]
fn topics_tells_what_is_missing_creates_it_and_is_content() {
    let topics = TestTopics::named(3);
    let missing = run_with(&["topics"], &topics.config()).expect(1);
    for name in TOPICS {
        assert!(matches!(about(&missing, &topics.name(name))[..], [line] if line.contains("does not exist")), "{name}");
    }
    let created = run_with(&["topics", "--create"], &topics.config()).expect(0);
    // The test's Kafka is of one broker, and that is told.
    let is_fine = |line: &str| line.starts_with("ok, ") || line.starts_with("warning: has one replica");
    for name in TOPICS {
        assert!(matches!(about(&created, &topics.name(name))[..], ["created", line] if is_fine(line)), "{name}");
        assert_eq!(partitions_of(&topics.name(name)), if name == "health" { 1 } else { 3 }, "{name}");
    }
    // The number of partitions is for topics to be created; those that exist are never altered.
    let mut other = topics.config();
    other["kafka"]["partitions"] = 5.into();
    let again = [
        (&["topics", "--create"][..], topics.config()),
        (&["topics"], topics.config()),
        (&["topics", "--create"], other),
    ];
    for (arguments, config) in again {
        let again = run_with(arguments, &config).expect(0);
        for name in TOPICS {
            assert!(matches!(about(&again, &topics.name(name))[..], [line] if is_fine(line)), "{}", again.stdout);
        }
    }
    assert_eq!(partitions_of(&topics.name("state")), 3);
}

#[test]
fn a_topic_that_would_break_a_guarantee_is_named_and_the_mapper_does_not_start_on_it() {
    let topics = TestTopics::named(2);
    run_with(&["topics", "--create"], &topics.config()).expect(0);
    let misconfigured = |change: &dyn Fn(&mut Value)| {
        let mut config = topics.config();
        change(&mut config["kafka"]["topics"]);
        config
    };
    let wider = topics.name("wider");
    let mut more = misconfigured(&|names| names["state"] = wider.as_str().into());
    more["kafka"]["partitions"] = 3.into();
    run_with(&["topics", "--create"], &more).expect(1);
    let cases = [
        (more, wider, &["3 partitions", "raw has 2", "recreate"][..]),
        (
            misconfigured(&|names| names["state"] = topics.name("nowhere").into()),
            topics.name("nowhere"),
            &["does not exist", "rollcall topics --create"],
        ),
        (
            misconfigured(&|names| {
                names["state"] = topics.name("health").into();
                names["health"] = topics.name("state").into();
            }),
            topics.name("health"),
            &["cleanup.policy is delete", "set compact"],
        ),
        (
            misconfigured(&|names| {
                names["events"] = topics.name("sweeps").into();
                names["sweeps"] = topics.name("events").into();
            }),
            topics.name("sweeps"),
            &["cleanup.policy is compact", "set delete"],
        ),
        (
            misconfigured(&|names| {
                // A raw topic that takes as much as the dead letters, which need more.
                names["raw"] = topics.name("events").into();
                names["events"] = topics.name("dlq").into();
                names["dead_letters"] = topics.name("health").into();
                names["health"] = topics.name("raw").into();
            }),
            topics.name("health"),
            &["max.message.bytes is 8388608", "might not fit", "set at least 8454144"],
        ),
    ];
    for (config, topic, parts) in cases {
        let ended = run_with(&["topics"], &config).expect(1);
        let told = about(&ended, &topic).join("\n");
        assert!(
            told.contains("error: ") && parts.iter().all(|part| told.contains(part)),
            "{parts:?} not in:\n{}",
            ended.stdout
        );
        run_with(&["map"], &config).expect(1).complains_of(&[&[topic.as_str()], parts].concat());
    }
    assert!(committed(&topics.name("mapper"), &topics.name("raw"), 2).is_empty(), "nobody has joined the group");
}

#[test]
fn kafka_out_of_reach_is_1_and_names_the_address_and_its_key() {
    run(&["--bootstrap-servers", "127.0.0.1:1", "topics"]).expect(1).complains_of(&[
        "Kafka cannot be reached",
        "127.0.0.1:1",
        "kafka.bootstrap_servers",
    ]);
}

// === Stages and signals ===

/// Instances one a line.
fn fleet(count: usize) -> (NamedTempFile, Vec<String>) {
    let ids: Vec<_> = (0..count).map(|number| format!("i-{number:017x}")).collect();
    (file_of(&ids.iter().map(|id| format!("{}\n", instance(id))).collect::<String>()), ids)
}

/// A stage on a file of instances. Kafka takes no member for dead before the tests are over: it has to leave.
fn config_on(topics: &TestTopics, fleet: &NamedTempFile) -> Value {
    let mut config = topics.config();
    config["kafka"]["properties"] = json!({"session.timeout.ms": 120_000, "heartbeat.interval.ms": 200});
    config["collector"]["sources"] = json!([{"name": "fleet", "interval": "10s", "file": {"path": fleet.path()}}]);
    config
}

/// New instances at a steady rate, until it is told to end.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Load {
    fn start(topic: String) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = std::thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                let producer = producer();
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..20 {
                        let id = Self::id(sent.fetch_add(1, Ordering::Relaxed));
                        send(
                            &producer,
                            &topic,
                            Some(id.as_bytes()),
                            Some(instance(&id).to_string().as_bytes()),
                            &[],
                            None,
                        );
                    }
                    producer.poll(Duration::from_millis(10));
                }
                flush(&producer);
            }
        });
        Self { stop, sent, thread }
    }

    fn id(number: usize) -> String {
        format!("i-{number:017x}")
    }

    fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (0..self.sent.load(Ordering::Relaxed)).map(Self::id).collect()
    }
}

/// Asks it to end, which it does in time and with success.
#[track_caller]
fn end(mut stage: Stage, signal: &str) {
    stage.signal(signal);
    let status = stage.wait(END_WITHIN);
    assert_eq!(status.code(), Some(0), "{}", stage.tail());
}

/// Each of these was told once, as created, and nothing else was.
#[track_caller]
fn assert_told_once(topics: &TestTopics, ids: &BTreeSet<String>) {
    let events = read_committed(&topics.name("events"));
    assert!(events.iter().all(|event| event.header("change") == Some("created")));
    let told: BTreeSet<_> = events.iter().map(|event| event.key().to_owned()).collect();
    let lost = ids.difference(&told).count();
    assert_eq!((lost, events.len()), (0, ids.len()), "lost, told");
}

fn is_at_the_end(topics: &TestTopics) -> Option<()> {
    let (raw, group) = (topics.name("raw"), topics.name("mapper"));
    (committed(&group, &raw, topics.partitions) == ends(&raw, topics.partitions)).then_some(())
}

fn a_mapper_ends_under_load(signal: &str) {
    let topics = TestTopics::create(4);
    let config = config_on(&topics, &NamedTempFile::new().unwrap());
    let load = Load::start(topics.name("raw"));
    let mut first = Stage::start(&["map"], &config);
    first.wait_for("transaction committed", LIMIT);
    let mut config_of_second = config.clone();
    config_of_second["instance_id"] = "second".into();
    let mut second = Stage::start(&["map"], &config_of_second);
    second.wait_for("partition restored", LIMIT);
    first.wait_for("transaction opened", LIMIT);
    end(first, signal);
    // At once: the group would not miss a member that has not left for two minutes.
    wait_for("the second to have all partitions", LIMIT, || {
        (second.metric("rollcall_mapper_partitions", "running") == 4.0).then_some(())
    });
    let sent = load.end();
    wait_for("the second to reach the end", LIMIT, || is_at_the_end(&topics));
    end(second, signal);
    assert_told_once(&topics, &sent);
}

#[test]
fn a_mapper_under_load_ends_at_sigterm_and_leaves_its_partitions_to_the_next() {
    a_mapper_ends_under_load("TERM");
}

#[test]
fn a_mapper_under_load_ends_at_sigint_and_leaves_its_partitions_to_the_next() {
    a_mapper_ends_under_load("INT");
}

fn a_collector_ends_under_load(signal: &str) {
    let topics = TestTopics::create(2);
    let raw = topics.name("raw");
    let (file, ids) = fleet(20_000);
    let mut config = config_on(&topics, &file);
    // Half a second a page: there is time to come into the midst of a sweep.
    config["kafka"]["properties"]["linger.ms"] = 500.into();
    let collector = Stage::start(&["collect"], &config);
    wait_for("the first page", LIMIT, || ends(&raw, 2).values().any(|end| *end > 0).then_some(()));
    end(collector, signal);
    let published = read_committed(&raw);
    let keys: BTreeSet<_> = published.iter().map(|record| record.key().to_owned()).collect();
    assert!(published.len() < ids.len(), "it was not in the midst of its sweep");
    assert_eq!(keys.len(), published.len(), "nothing twice");
    assert_eq!(published.len() % 1000, 0, "whole pages");
    assert!(ids[..published.len()].iter().all(|id| keys.contains(id)), "in their order");
    // The next sweep starts over, as every sweep does.
    config["kafka"]["properties"]["linger.ms"] = 5.into();
    run_with(&["collect", "--once"], &config).expect(0);
    let published: Vec<_> = read_committed(&raw).iter().map(|record| record.key().to_owned()).collect();
    assert_eq!(published.len(), keys.len() + ids.len());
    assert!(published.iter().collect::<BTreeSet<_>>().into_iter().eq(&ids));
}

#[test]
fn a_collector_under_load_ends_at_sigterm_with_whole_pages() {
    a_collector_ends_under_load("TERM");
}

#[test]
fn a_collector_under_load_ends_at_sigint_with_whole_pages() {
    a_collector_ends_under_load("INT");
}

fn both_stages_end_under_load(signal: &str) {
    let topics = TestTopics::create(2);
    let (file, ids) = fleet(20_000);
    let config = config_on(&topics, &file);
    let mut both = Stage::start(&["run"], &config);
    // The collector says so too, but does not count records.
    while both.wait_for("transaction committed", LIMIT)["records"].is_null() {}
    end(both, signal);
    let told = read_committed(&topics.name("events")).len();
    assert!(0 < told && told < ids.len(), "{told} were told, it was not in the midst");
    let mut both = Stage::start(&["run"], &config);
    both.wait_for("sweep complete", LIMIT);
    wait_for("everything to be told", LIMIT, || {
        (read_committed(&topics.name("events")).len() >= ids.len()).then_some(())
    });
    end(both, signal);
    assert_told_once(&topics, &ids.into_iter().collect());
}

#[test]
fn both_stages_under_load_end_at_sigterm_and_go_on_where_they_were() {
    both_stages_end_under_load("TERM");
}

#[test]
fn both_stages_under_load_end_at_sigint_and_go_on_where_they_were() {
    both_stages_end_under_load("INT");
}

#[test]
fn a_stage_that_waits_for_kafka_ends_when_asked() {
    for command in ["map", "collect", "run"] {
        let mut config = config_on(&TestTopics::named(1), &NamedTempFile::new().unwrap());
        config["kafka"]["bootstrap_servers"] = "127.0.0.1:1".into();
        let mut stage = Stage::start(&[command], &config);
        stage.wait_for("admin port open", LIMIT);
        stage.signal("TERM");
        assert_eq!(stage.wait(END_WITHIN).code(), Some(1), "{command}");
        assert!(stage.tail().contains("stopped while waiting for Kafka"), "{}", stage.tail());
    }
}

#[test]
fn collect_once_is_1_where_a_sweep_is_incomplete() {
    let topics = TestTopics::create(1);
    let mut config = config_on(&topics, &file_of("[{\"InstanceId\": \"i-1\"}, oops"));
    config["collector"]["sources"][0]["file"]["path"] = "/no/such/file".into();
    run_with(&["collect", "--once"], &config).expect(1).complains_of(&["sweep incomplete", "/no/such/file"]);
}

// === The admin port ===

#[test]
fn the_admin_port_tells_metrics_liveness_and_readiness() {
    let topics = TestTopics::create(1);
    let mut mapper = Stage::start(&["map"], &topics.config());
    mapper.wait_until_ready();
    let metrics = mapper.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    for name in ["rollcall_build_info", "rollcall_mapper_partitions", "rollcall_mapper_commit_duration_seconds_bucket"]
    {
        assert!(metrics.contains(&format!("\n{name}")), "{name} not in {metrics}");
    }
    assert!(mapper.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(mapper.get("/readyz").ends_with("\r\n\r\nok\n"));
    assert!(mapper.get("/").starts_with("HTTP/1.1 200"));
    assert!(mapper.get("/no/such/page").starts_with("HTTP/1.1 404"));
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn what_a_stage_waits_for_is_told_as_not_ready_though_alive() {
    let topics = TestTopics::create(1);
    let mut config = topics.config();
    config["registry"] = json!({"url": "http://127.0.0.1:1"});
    config["mapper"]["encoding"] = "avro".into();
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_for("waiting for the schema registry", LIMIT);
    let ready = mapper.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("schema registry"), "{ready}");
    assert!(mapper.get("/healthz").starts_with("HTTP/1.1 200"));
    mapper.signal("TERM");
    assert_eq!(mapper.wait(END_WITHIN).code(), Some(1));
}

#[test]
fn an_admin_port_that_is_taken_is_1_and_names_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let set = [format!("admin.listen={address}"), format!("kafka.bootstrap_servers={}", server("KAFKA"))];
    run(&["--set", &set[0], "--set", &set[1], "map"]).expect(1).complains_of(&["admin.listen", &address, "free port"]);
}
