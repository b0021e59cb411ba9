//! What cannot be mapped is kept as it came, with the reason; and where too much cannot be, its partition is held.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rollcall::record::partition_for;
use serde_json::{Value, json};

use crate::support::kafka::{Read, TestTopics, committed, ends, flush, producer, read_committed, send};
use crate::support::process::Stage;
use crate::support::{server, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Something wrong on the raw topic.
struct Bad {
    kind: &'static str,
    /// A part of the header `error`.
    says: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Where it is not the key that decides.
    partition: Option<i32>,
}

fn instance(id: &str) -> Value {
    json!({"InstanceId": id, "State": {"Name": "running"}})
}

fn id(number: usize) -> String {
    format!("i-{number:017x}")
}

/// IDs that belong into a partition.
fn ids_of(partition: i32, partitions: i32) -> impl Iterator<Item = String> {
    (0..).map(id).filter(move |id| partition_for(id.as_bytes(), partitions) == partition)
}

/// Headers as a foreign producer may write them: a name twice, no value, no text, names that Rollcall uses too.
const HEADERS: [(&str, Option<&[u8]>); 7] = [
    ("observed-at", Some(b"2026-01-01T00:00:00.000Z")),
    ("twice", Some(b"1")),
    ("twice", Some(b"2")),
    ("null", None),
    ("empty", Some(b"")),
    ("bytes", Some(&[0xFF, 0x00, 0xC3])),
    ("error", Some(b"of somebody else")),
];

fn headers() -> Vec<(String, Option<Vec<u8>>)> {
    HEADERS.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect()
}

fn send_bad(producer: &BaseProducer, topic: &str, bad: &Bad) {
    let headers =
        HEADERS.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
    record.key = bad.key.as_deref();
    record.payload = bad.value.as_deref();
    record.partition = bad.partition;
    producer.send(record).unwrap();
}

/// Everything that the contract sends to the dead letters.
fn bad_records(partitions: i32) -> Vec<Bad> {
    let home = partition_for(id(0).as_bytes(), partitions);
    let elsewhere = Some((home + 1) % partitions);
    let good = || Some(instance(&id(0)).to_string().into_bytes());
    let of = |kind, says, value: Option<Vec<u8>>| Bad { kind, says, key: Some(id(0).into()), value, partition: None };
    let large = json!({"InstanceId": id(0), "Padding": "x".repeat(2 << 20)}).to_string().into_bytes();
    let mut invalid = good().unwrap();
    invalid.splice(2..2, [0xFF]);
    vec![
        of("not-an-object", "line 1", Some(b"oops".to_vec())),
        of("not-an-object", "object", Some(b"[1, {\"InstanceId\": \"i-1\"}]".to_vec())),
        of("not-an-object", "EOF", Some(Vec::new())),
        of("no-instance-id", "InstanceId", Some(b"{\"State\": {\"Name\": \"running\"}}".to_vec())),
        of("too-large", "1048576", Some(large)),
        of("not-utf8", "UTF-8", Some(invalid)),
        of("foreign-key", "i-other", Some(instance("i-other").to_string().into_bytes())),
        Bad { partition: elsewhere, ..of("misrouted", "murmur2", good()) },
        Bad { partition: elsewhere, ..of("misrouted", "murmur2", None) },
        Bad { key: None, partition: Some(home), ..of("no-key", "no key", good()) },
        Bad { key: Some(Vec::new()), partition: Some(home), ..of("no-key", "no key", good()) },
        Bad { key: Some(vec![0xC3, 0x28]), partition: Some(home), ..of("unreadable-key", "UTF-8", good()) },
    ]
}

/// Where a dead letter lay, by its headers.
fn origin(letter: &Read) -> (i32, i64) {
    // Rollcall's headers are the last ones.
    let last = |name| letter.headers.iter().rfind(|(header, _)| header == name).and_then(|(_, value)| value.clone());
    let number = |name| String::from_utf8(last(name).unwrap()).unwrap().parse::<i64>().unwrap();
    (number("raw-partition") as i32, number("raw-offset"))
}

#[test]
fn what_cannot_be_mapped_lands_untouched_in_the_dead_letters_and_its_neighbours_flow() {
    let began = Utc::now();
    let topics = TestTopics::create(3);
    let (raw, producer, bad) = (topics.name("raw"), producer(), bad_records(topics.partitions));
    for (number, bad) in bad.iter().enumerate() {
        let good = id(1 + number);
        send(&producer, &raw, Some(good.as_bytes()), Some(instance(&good).to_string().as_bytes()), &[], None);
        send_bad(&producer, &raw, bad);
        flush(&producer);
    }
    let mut mapper = Stage::start(&["map"], &topics.config());
    let letters = wait_for("the dead letters", LIMIT, || {
        let letters = read_committed(&topics.name("dlq"));
        (letters.len() >= bad.len()).then_some(letters)
    });
    wait_for("the mapper to reach the end", LIMIT, || {
        (committed(&topics.name("mapper"), &raw, 3) == ends(&raw, 3)).then_some(())
    });

    let sent: BTreeMap<_, _> =
        read_committed(&raw).into_iter().map(|record| ((record.partition, record.offset), record)).collect();
    let mut kinds = BTreeMap::<_, usize>::new();
    for letter in &letters {
        let original = &sent[&origin(letter)];
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
        assert_eq!(original.headers, headers());
        assert_eq!(letter.headers[..HEADERS.len()], original.headers);
        let own = &letter.headers[HEADERS.len()..];
        let names: Vec<_> = own.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["error-kind", "error", "raw-topic", "raw-partition", "raw-offset", "raw-timestamp", "failed-at"]
        );
        let texts: Vec<_> =
            own.iter().map(|(_, text)| std::str::from_utf8(text.as_deref().unwrap()).unwrap()).collect();
        let is_it = |bad: &&Bad| bad.kind == texts[0] && (&bad.key, &bad.value) == (&letter.key, &letter.value);
        let bad = bad.iter().find(is_it).unwrap_or_else(|| panic!("{texts:?}"));
        assert!(texts[1].contains(bad.says), "{} not in {texts:?}", bad.says);
        assert_eq!(texts[2], raw);
        let failed_at = DateTime::parse_from_rfc3339(texts[5]).unwrap().to_utc();
        assert!(
            texts[5].ends_with('Z') && began - Duration::from_secs(1) < failed_at && failed_at < Utc::now(),
            "{texts:?}"
        );
        *kinds.entry(bad.kind).or_default() += 1;
    }
    assert_eq!(letters.len(), bad.len());
    for (kind, count) in kinds {
        assert_eq!(bad.iter().filter(|bad| bad.kind == kind).count(), count, "{kind}");
        assert_eq!(mapper.metric("rollcall_mapper_dead_letters_total", &format!("\"{kind}\"")), count as f64, "{kind}");
    }

    let mut told: Vec<_> = read_committed(&topics.name("events")).iter().map(|event| event.key().to_owned()).collect();
    told.sort();
    assert_eq!(told, (1..=bad.len()).map(id).collect::<Vec<_>>());
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn a_header_name_that_is_no_text_does_not_stop_the_mapper() {
    let topics = TestTopics::create(1);
    let raw = topics.name("raw");
    let mut kcat = std::process::Command::new(server("KCAT"));
    use std::os::unix::ffi::OsStrExt;
    kcat.args(["-b", &server("KAFKA"), "-P", "-t", &raw, "-k", &id(1), "-H"]);
    kcat.arg(std::ffi::OsStr::from_bytes(b"\xFF\xFE=1")).stdin(std::process::Stdio::piped());
    let mut child = kcat.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), instance(&id(1)).to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let producer = producer();
    send(&producer, &raw, Some(id(2).as_bytes()), Some(instance(&id(2)).to_string().as_bytes()), &[], None);
    flush(&producer);
    let mapper = Stage::start(&["map"], &topics.config());
    wait_for("both events", LIMIT, || (read_committed(&topics.name("events")).len() == 2).then_some(()));
    assert_eq!(mapper.stop(), Some(0));
}

#[test]
fn a_streak_of_rejections_holds_its_partition_until_somebody_has_looked_and_the_others_go_on() {
    const STREAK: usize = 5;
    const OTHERS: usize = 6_000;
    let topics = TestTopics::create(2);
    let (raw, events, group) = (topics.name("raw"), topics.name("events"), topics.name("mapper"));
    let producer = producer();
    let send = |id: &str, value: &[u8]| send(&producer, &raw, Some(id.as_bytes()), Some(value), &[], None);
    let held: Vec<_> = ids_of(0, 2).take(3).collect();
    let others: Vec<_> = ids_of(1, 2).take(OTHERS).collect();
    let good = |id: &str| instance(id).to_string().into_bytes();

    let mut config = topics.config();
    config["mapper"]["max_reject_streak"] = STREAK.into();
    // Long and large enough that all that is sent below shares a transaction.
    config["mapper"]["commit_interval"] = "2s".into();
    config["mapper"]["max_batch_records"] = 1_000_000.into();
    send(&held[0], &good(&held[0]));
    send(&others[0], &good(&others[0]));
    flush(&producer);
    let mut mapper = Stage::start(&["map"], &config);
    wait_for("the first events", LIMIT, || (read_committed(&events).len() == 2).then_some(()));

    // The first of them once more: what the mapper knew before the transaction that fails, it still knows after it.
    let (early, late) = others.split_at(OTHERS / 10);
    early.iter().for_each(|id| send(id, &good(id)));
    send(&held[1], &good(&held[1]));
    (0..STREAK).for_each(|_| send(&held[1], b"oops"));
    send(&held[2], &good(&held[2]));
    late.iter().for_each(|id| send(id, &good(id)));
    flush(&producer);
    let event = mapper.wait_for("partition held", LIMIT);
    assert_eq!(event["partition"], 0);
    wait_for("the other partition to be mapped to its end", LIMIT, || {
        (committed(&group, &raw, 2).get(&1) == ends(&raw, 2).get(&1)).then_some(())
    });

    let told = |ids: &[String]| -> Vec<String> {
        let told = read_committed(&events).into_iter().map(|event| event.key().to_owned());
        told.filter(|id| ids.contains(id)).collect()
    };
    assert_eq!(told(&held), held[..1], "what was committed before stands; of the batch that tripped, nothing");
    assert_eq!(committed(&group, &raw, 2)[&0], 1);
    assert!(read_committed(&topics.name("dlq")).is_empty());
    let told_of_others: Vec<_> =
        read_committed(&events).iter().map(|event| event.key().to_owned()).filter(|id| !held.contains(id)).collect();
    assert!(told_of_others == others, "{} of {OTHERS} others were told, each once and in order", told_of_others.len());

    let ready = mapper.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    for part in ["raw partition 0", "5 records in a row were rejected", "mapper.max_reject_streak"] {
        assert!(ready.contains(part), "{part:?} not in {ready}");
    }
    assert!(mapper.get("/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(mapper.metric("rollcall_mapper_partitions", "held"), 1.0);
    assert_eq!(mapper.stop(), Some(0));

    // Held again at the next start, and still nothing is lost: all of it comes once the limit is lifted.
    let mut mapper = Stage::start(&["map"], &config);
    mapper.wait_for("partition held", LIMIT);
    assert_eq!(mapper.stop(), Some(0));
    config["mapper"]["max_reject_streak"] = 0.into();
    let mapper = Stage::start(&["map"], &config);
    wait_for("the held partition to be mapped to its end", LIMIT, || {
        (committed(&group, &raw, 2) == ends(&raw, 2)).then_some(())
    });
    assert_eq!(mapper.stop(), Some(0));
    assert_eq!(told(&held), held);
    assert_eq!(read_committed(&events).len(), held.len() + others.len());
    assert_eq!(read_committed(&topics.name("dlq")).len(), STREAK);
}
