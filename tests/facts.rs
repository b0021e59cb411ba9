//! What the design takes for granted of librdkafka and Apache Kafka, proved on them. When a new version breaks one of
//! these, the code that rests on it can change.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rollcall::kafka::statistics::nobody;
use rollcall::kafka::{Message, TransactionalProducer};

use crate::support::kafka::{TestTopics, committed, ends, flush, producer, send};
use crate::support::process::Stage;
use crate::support::{server, wait_for};

fn transactional(id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server("KAFKA")).set("transactional.id", id).set("linger.ms", "5");
    config
}

fn fill(producer: &BaseProducer, topic: &str) {
    for number in 0..200 {
        let key = format!("k{number}");
        producer.send(BaseRecord::to(topic).key(&key).payload("x")).map_err(|(error, _)| error).unwrap();
    }
}

#[test]
fn a_commit_without_draining_first_waits_out_a_poll() {
    let topics = TestTopics::create(1);
    let topic = topics.name("events");
    let naive: BaseProducer = transactional(&topics.name("naive")).create().unwrap();
    naive.init_transactions(Duration::from_secs(30)).unwrap();
    let mut ours =
        TransactionalProducer::new(transactional(&topics.name("ours")), Duration::from_secs(30), nobody()).unwrap();
    ours.renew().unwrap();

    let commit_of_naive = || {
        naive.begin_transaction().unwrap();
        fill(&naive, &topic);
        let began = Instant::now();
        naive.commit_transaction(Duration::from_secs(30)).unwrap();
        began.elapsed()
    };
    let mut commit_of_ours = || {
        ours.begin().unwrap();
        for _ in 0..200 {
            let message = Message {
                topic: &topic,
                partition: None,
                timestamp: None,
                key: Some(b"k"),
                value: Some(b"x"),
                headers: &[],
            };
            ours.send(message).unwrap();
        }
        let began = Instant::now();
        ours.commit().unwrap();
        began.elapsed()
    };
    // In turn; the fastest is what it takes when nothing else gets in the way.
    let times = (0..11).map(|_| [commit_of_naive(), commit_of_ours()]);
    let [naive, ours] = times.reduce(|[a, b], [c, d]| [a.min(c), b.min(d)]).unwrap();
    println!("fastest commit: {naive:?} as rdkafka does it, {ours:?} drained first");
    assert!(naive > ours * 2, "draining first no longer pays: {naive:?} against {ours:?}");
}

#[test]
fn an_abort_with_unserved_delivery_reports_hangs_for_its_whole_timeout() {
    let topics = TestTopics::create(1);
    let topic = topics.name("events");
    let naive: BaseProducer = transactional(&topics.name("naive")).create().unwrap();
    naive.init_transactions(Duration::from_secs(30)).unwrap();
    naive.begin_transaction().unwrap();
    fill(&naive, &topic);
    wait_for("the broker to have them", Duration::from_secs(60), || (ends(&topic, 1)[&0] >= 200).then_some(()));
    let began = Instant::now();
    let limit = Duration::from_secs(2);
    naive.abort_transaction(limit).expect_err("an abort that waits for reports nobody serves");
    assert!(began.elapsed() >= limit, "it came back after {:?}", began.elapsed());

    while naive.in_flight_count() > 0 {
        naive.poll(Duration::from_millis(1));
    }
    let began = Instant::now();
    naive.abort_transaction(Duration::from_secs(30)).unwrap();
    let drained = began.elapsed();
    assert!(drained < Duration::from_secs(20), "drained, it still took {drained:?}");

    let mut ours =
        TransactionalProducer::new(transactional(&topics.name("ours")), Duration::from_secs(30), nobody()).unwrap();
    ours.renew().unwrap();
    ours.begin().unwrap();
    for _ in 0..200 {
        ours.send(Message {
            topic: &topic,
            partition: None,
            timestamp: None,
            key: None,
            value: Some(b"x"),
            headers: &[],
        })
        .unwrap();
    }
    let began = Instant::now();
    ours.abort().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "ours took {:?}", began.elapsed());
}

/// Seconds of CPU that the mapper uses for what `publish` puts on raw.
fn cpu_for(mapper: &Stage, topics: &TestTopics, publish: impl FnOnce()) -> f64 {
    let before = mapper.cpu_seconds();
    publish();
    let (raw, group) = (topics.name("raw"), topics.name("mapper"));
    let end = ends(&raw, topics.partitions);
    wait_for("the end", Duration::from_secs(120), || (committed(&group, &raw, topics.partitions) == end).then_some(()));
    mapper.cpu_seconds() - before
}

#[test]
fn an_equal_digest_spares_most_of_the_work() {
    const RECORDS: usize = 20_000;
    let topics = TestTopics::create(1);
    let raw = topics.name("raw");
    let feed = producer();
    let publish = |padding: &dyn Fn(usize) -> String| {
        for number in 0..RECORDS {
            let device = number % 500;
            let filler = "x".repeat(2500);
            let id = format!("i-{device}");
            // White space changes the bytes and not what they mean.
            let value = format!(r#"{{"InstanceId":"{id}","Filler":"{filler}"}}{}"#, padding(number));
            send(&feed, &raw, Some(id.as_bytes()), Some(value.as_bytes()), &[], None);
        }
        flush(&feed);
    };
    publish(&|_| String::new());
    let mut mapper = Stage::start(&["map"], &topics.config());
    mapper.wait_until_ready();
    cpu_for(&mapper, &topics, || {});

    let equal = cpu_for(&mapper, &topics, || publish(&|_| String::new()));
    let different = cpu_for(&mapper, &topics, || publish(&|number| " ".repeat(1 + number / 500)));
    // All but the first of each device. It counts once it has heard of its commit.
    wait_for("unchanged records", Duration::from_secs(60), || {
        (mapper.metric("rollcall_mapper_records_total", "unchanged") as usize == 3 * RECORDS - 500).then_some(())
    });
    println!("{RECORDS} unchanged records: {equal:.2} s of CPU by digest, {different:.2} s parsed and compared");
    assert!(different > equal * 1.5, "the digest no longer pays: {equal:.2} s against {different:.2} s");
}

/// Stores rebalances, and answers them only when it is told to.
struct Deferred {
    assigned: Mutex<Vec<TopicPartitionList>>,
    closing: AtomicBool,
}

impl ClientContext for Deferred {}

impl ConsumerContext for Deferred {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !self.closing.load(Ordering::Relaxed) {
            self.assigned.lock().unwrap().push(list.clone());
        } else {
            consumer.incremental_unassign(list).unwrap();
        }
    }
}

#[test]
fn an_assignment_that_is_put_off_stops_the_partitions_that_are_already_there() {
    let topics = TestTopics::create(4);
    let raw = topics.name("raw");
    let member = |name: &str| {
        let context = Deferred { assigned: Mutex::default(), closing: AtomicBool::new(false) };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", server("KAFKA"))
            .set("group.id", topics.name("group"))
            .set("client.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "2000")
            .set("heartbeat.interval.ms", "200")
            .set("auto.offset.reset", "earliest");
        let consumer = BaseConsumer::from_config_and_context(&config, context).unwrap();
        consumer.subscribe(&[&raw]).unwrap();
        consumer
    };
    let take = |consumer: &BaseConsumer<Deferred>| consumer.context().assigned.lock().unwrap().pop();
    let feed = producer();
    let tick = |consumer: &BaseConsumer<Deferred>| {
        for partition in 0..4 {
            send(&feed, &raw, Some(b"k"), Some(b"x"), &[], Some(partition));
        }
        feed.poll(Duration::ZERO);
        consumer.poll(Duration::from_millis(20)).map(|message| message.unwrap().partition())
    };

    // Two members share the partitions.
    let (first, second) = (member("first"), member("second"));
    let mut owned = [Vec::new(), Vec::new()];
    wait_for("both to own two partitions", Duration::from_secs(30), || {
        for (consumer, owned) in [&first, &second].into_iter().zip(&mut owned) {
            let _ = tick(consumer);
            if let Some(list) = take(consumer) {
                consumer.incremental_assign(&list).unwrap();
            }
            *owned = consumer.assignment().unwrap().elements().iter().map(|element| element.partition()).collect();
        }
        (owned[0].len() == 2 && owned[1].len() == 2).then_some(())
    });
    let before = owned[0].clone();
    wait_for("records of the first", Duration::from_secs(10), || tick(&first).filter(|number| before.contains(number)));

    // One leaves: the other is assigned its partitions, and does not answer.
    second.context().closing.store(true, Ordering::Relaxed);
    drop(second);
    wait_for("the new assignment", Duration::from_secs(30), || {
        let _ = tick(&first);
        (!first.context().assigned.lock().unwrap().is_empty()).then_some(())
    });
    let began = Instant::now();
    let mut delivered = Vec::new();
    while began.elapsed() < Duration::from_secs(2) {
        delivered.extend(tick(&first));
    }
    assert_eq!(delivered, [] as [i32; 0], "partitions that were there all the time went on");

    // Answered at once, everything flows.
    first.incremental_assign(&take(&first).unwrap()).unwrap();
    let mut seen = [false; 4];
    wait_for("all four partitions", Duration::from_secs(10), || {
        // All that is there: one at a time, the backlog of one partition would hide the others for long.
        while let Some(message) = first.poll(Duration::from_millis(20)) {
            seen[usize::try_from(message.unwrap().partition()).unwrap()] = true;
        }
        (seen == [true; 4]).then_some(())
    });
    first.context().closing.store(true, Ordering::Relaxed);
}
