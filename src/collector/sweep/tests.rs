//! Sweeps of a scripted source, and what they hand over, without Kafka.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::collector::ledger::Acceptance;
use crate::collector::publisher::Publication;
use crate::collector::source::{BoxFuture, Discovery, Pages, TagsById};
use crate::config::rules::Rule;

/// What a source says: its listing, and what it says of single instances.
#[derive(Default)]
struct Script {
    listing: Vec<Value>,
    /// Ends the listing with a fault.
    broken: bool,
    by_id: Vec<Value>,
    tags: TagsById,
    is_filtered: bool,
}

struct Once<'a>(&'a Script, bool);

impl Pages for Once<'_> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Page>, Fault>> {
        let first = !std::mem::replace(&mut self.1, true);
        let page = first.then(|| page(&self.0.listing));
        let broken = !first && self.0.broken;
        Box::pin(async move { if broken { Err(Fault::new(FaultKind::Unreadable, "cut")) } else { Ok(page) } })
    }
}

fn page(instances: &[Value]) -> Page {
    Page { observed_at: Utc::now(), instances: instances.iter().map(Instance::of_value).collect() }
}

impl Source for Script {
    fn scopes(&self) -> BoxFuture<'_, Discovery> {
        Box::pin(async { Discovery::default() })
    }
    fn pages(&self, _: &Scope) -> Box<dyn Pages + '_> {
        Box::new(Once(self, false))
    }
    fn second_look(&self) -> Option<&dyn SecondLook> {
        Some(self)
    }
}

impl SecondLook for Script {
    fn instances<'a>(&'a self, _: &'a Scope, ids: &'a [String]) -> BoxFuture<'a, Result<Page, Fault>> {
        let is_wanted = |instance: &&Value| ids.iter().any(|id| instance["InstanceId"] == **id);
        let found: Vec<_> = self.by_id.iter().filter(is_wanted).cloned().collect();
        let page = page(&found);
        Box::pin(async { Ok(page) })
    }
    fn tags<'a>(&'a self, _: &'a Scope, ids: &'a [String]) -> BoxFuture<'a, Result<TagsById, Fault>> {
        let tags = self.tags.iter().filter(|(id, _)| ids.contains(id)).map(|(id, tags)| (id.clone(), tags.clone()));
        let tags = tags.collect();
        Box::pin(async { Ok(tags) })
    }
    fn identity<'a>(&'a self, _: &'a Scope) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async { Ok("the caller".to_owned()) })
    }
    fn is_filtered(&self) -> bool {
        self.is_filtered
    }
}

/// A scope with its memory, swept by scripts.
struct Bench {
    ledger: Ledger,
    rules: Rules,
    filters: i64,
    /// What was handed over, transaction by transaction.
    handed: Arc<Mutex<Vec<Vec<Outgoing>>>>,
    /// Whether Kafka answers. Where it does not, what was handed over may be committed or not.
    answers: bool,
}

impl Bench {
    fn new() -> Self {
        Self { ledger: Ledger::default(), rules: Rules::default(), filters: 0, handed: Arc::default(), answers: true }
    }

    fn with_rules(rules: Value) -> Self {
        let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
        Self { rules: Rules::new(&rules, None).unwrap(), ..Self::new() }
    }

    async fn sweep(&mut self, script: &Script) -> Swept {
        let scope = Scope { source: "s".to_owned(), account: None, region: None };
        let (publisher, mut queue) = Publisher::new();
        let handed = self.handed.clone();
        let answers = self.answers;
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(Publication { records, done, .. }) = queue.recv().await {
                handed.lock().unwrap().push(records);
                if answers {
                    let _ = done.send(Ok(()));
                } else {
                    unanswered.push(done);
                }
            }
        });
        let slots = Semaphore::new(1);
        let sweeper = Sweeper {
            scope: &scope,
            source: script,
            labels: &Labels::default(),
            rules: &self.rules,
            publisher: &publisher,
            lease: Lease { partition: 0, epoch: 1 },
            settling_delay: Duration::ZERO,
            give_up_after: if answers { Duration::from_secs(60) } else { Duration::from_millis(50) },
            filters: self.filters,
            slots: &slots,
            stop: &CancellationToken::new(),
        };
        sweeper.sweep(slots.try_acquire().unwrap(), &mut self.ledger).await.unwrap()
    }

    /// Keys of the raw records since the last call, `-` before those of tombstones.
    fn raw(&self) -> Vec<String> {
        let handed = std::mem::take(&mut *self.handed.lock().unwrap());
        let raw = handed.into_iter().flatten().filter(|record| record.destination == Destination::Raw);
        let sign = |record: &Outgoing| if record.value.is_some() { "" } else { "-" };
        raw.map(|record| format!("{}{}", sign(&record), record.key.unwrap())).collect()
    }
}

fn instance(id: &str, state: &str) -> Value {
    json!({"InstanceId": id, "State": {"Name": state}, "Tags": [{"Key": "Name", "Value": id}]})
}

fn listing(instances: &[(&str, &str)]) -> Script {
    Script { listing: instances.iter().map(|(id, state)| instance(id, state)).collect(), ..Script::default() }
}

#[tokio::test]
async fn what_is_not_listed_is_asked_for_and_what_comes_back_is_published() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "running")])).await;
    bench.raw();
    let lapse = Script { by_id: vec![instance("i-2", "running")], ..listing(&[("i-1", "running")]) };
    for _ in 0..3 {
        assert_eq!(bench.sweep(&lapse).await.verdict, Verdict::Complete);
        assert_eq!(bench.raw(), ["i-1", "i-2"]);
    }
    assert_eq!(bench.ledger.suspects(), 0);
}

#[tokio::test]
async fn gone_takes_two_complete_sweeps_and_an_incomplete_one_does_not_count() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "running")])).await;
    let one = || listing(&[("i-1", "running")]);
    let cut = Script { broken: true, ..one() };
    bench.raw();
    for script in [&one(), &cut, &cut] {
        bench.sweep(script).await;
        assert_eq!(bench.raw(), ["i-1"]);
    }
    assert_eq!(bench.sweep(&one()).await.tally.removed, 1);
    assert_eq!(bench.raw(), ["i-1", "-i-2"]);
}

#[tokio::test]
async fn what_may_have_been_published_is_missed_and_what_may_be_gone_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "terminated")])).await;
    // A ghost in the making: i-3 is on the topic, or not, and will never be listed again. Neither will i-2.
    bench.answers = false;
    assert_eq!(bench.sweep(&listing(&[("i-1", "running"), ("i-3", "running")])).await.verdict, Verdict::Incomplete);
    bench.answers = true;
    bench.raw();
    let one = listing(&[("i-1", "running")]);
    assert_eq!(bench.sweep(&one).await.tally.removed, 1);
    assert_eq!(bench.raw(), ["i-1", "-i-2"]);
    assert_eq!(bench.sweep(&one).await.tally.removed, 1);
    assert_eq!(bench.raw(), ["i-1", "-i-3"]);
}

#[tokio::test]
async fn what_may_have_been_told_to_the_memory_is_told_again() {
    let mut bench = Bench { answers: false, ..Bench::new() };
    let one = listing(&[("i-1", "running")]);
    bench.sweep(&one).await;
    bench.answers = true;
    bench.handed.lock().unwrap().clear();
    bench.sweep(&one).await;
    let handed = bench.handed.lock().unwrap();
    assert!(handed.iter().flatten().any(|record| record.key.as_deref() == Some("s/-/-/i-1")));
}

#[tokio::test]
async fn what_changes_the_memory_is_in_the_transaction_of_its_page_and_the_verdict_in_the_last() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "running")])).await;
    let handed = std::mem::take(&mut *bench.handed.lock().unwrap());
    let keys = |records: &[Outgoing]| records.iter().map(|record| record.key.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        handed.iter().map(|records| keys(records)).collect::<Vec<_>>(),
        [vec!["i-1", "s/-/-/i-1", "s/-/-"], vec!["s/-/-"]]
    );
    bench.sweep(&listing(&[("i-1", "running")])).await;
    let handed = std::mem::take(&mut *bench.handed.lock().unwrap());
    assert_eq!(keys(&handed[0]), ["i-1", "s/-/-"], "what is known already is not written again");
}

#[tokio::test]
async fn tags_that_vanish_are_asked_for_before_that_is_believed() {
    let mut bench = Bench::new();
    let tagged = instance("i-1", "running");
    bench.sweep(&Script { listing: vec![tagged.clone()], ..Script::default() }).await;
    let bare = json!({"InstanceId": "i-1", "State": {"Name": "running"}});
    let tags = vec![json!({"Key": "Name", "Value": "i-1"}).as_object().unwrap().clone()];
    let stripped = Script { listing: vec![bare.clone()], tags: [("i-1".to_owned(), tags)].into(), ..Script::default() };
    let value = |bench: &Bench| {
        let handed = std::mem::take(&mut *bench.handed.lock().unwrap());
        handed[0][0].value.clone().unwrap()
    };
    let before = value(&bench);
    assert_eq!(bench.sweep(&stripped).await.tally.tags_restored, 1);
    assert_eq!(value(&bench), before);
    bench.sweep(&Script { listing: vec![bare], ..Script::default() }).await;
    assert!(!String::from_utf8(value(&bench)).unwrap().contains("Tags"), "really deleted");
}

#[tokio::test]
async fn other_filters_put_what_they_leave_out_out_of_scope() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "running"), ("i-3", "terminated")])).await;
    bench.raw();
    bench.filters = 7;
    let swept = bench.sweep(&Script { is_filtered: true, ..listing(&[("i-1", "running")]) }).await;
    assert_eq!((swept.tally.out_of_scope, swept.tally.removed), (1, 1), "the terminated one is gone all the same");
    for _ in 0..2 {
        bench.sweep(&Script { is_filtered: true, ..listing(&[("i-1", "running")]) }).await;
    }
    assert_eq!(bench.raw(), ["i-1", "-i-3", "i-1", "i-1"]);
    bench.filters = 0;
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "running")])).await;
    assert_eq!(bench.ledger.alive(), 2, "and back");
}

#[tokio::test]
async fn what_a_filter_no_longer_lists_is_published_once_more_and_then_out_of_scope() {
    let mut bench = Bench::new();
    bench.filters = 7;
    let filtered = |script: Script| Script { is_filtered: true, ..script };
    bench.sweep(&filtered(listing(&[("i-1", "running"), ("i-2", "running"), ("i-3", "running")]))).await;
    bench.raw();
    let by_id = vec![instance("i-2", "stopped"), instance("i-3", "terminated")];
    let script = filtered(Script { by_id, ..listing(&[("i-1", "running")]) });
    assert_eq!(bench.sweep(&script).await.tally.out_of_scope, 1);
    assert_eq!(bench.raw(), ["i-1", "i-2", "i-3"]);
    bench.sweep(&script).await;
    assert_eq!(bench.raw(), ["i-1"]);
    assert_eq!(bench.ledger.len(), 2, "the terminated one is told and forgotten");
}

#[tokio::test]
async fn what_a_filter_no_longer_lists_since_it_is_shutting_down_is_followed_to_its_end() {
    let mut bench = Bench::new();
    bench.filters = 7;
    let filtered = |by_id: &[(&str, &str)]| {
        let by_id = by_id.iter().map(|(id, state)| instance(id, state)).collect();
        Script { is_filtered: true, by_id, ..listing(&[("i-1", "running")]) }
    };
    let both = Script { is_filtered: true, ..listing(&[("i-1", "running"), ("i-2", "running")]) };
    bench.sweep(&both).await;
    bench.raw();
    bench.sweep(&filtered(&[("i-2", "shutting-down")])).await;
    bench.sweep(&filtered(&[("i-2", "terminated")])).await;
    assert_eq!(bench.raw(), ["i-1", "i-2", "i-1", "i-2"]);
    assert_eq!(bench.ledger.len(), 1);
    bench.sweep(&both).await;
    bench.sweep(&filtered(&[("i-2", "shutting-down")])).await;
    bench.sweep(&filtered(&[])).await;
    assert_eq!(bench.raw(), ["i-1", "i-2", "i-1", "i-2", "i-1", "-i-2"], "or gone unseen");
}

#[tokio::test]
async fn of_an_instance_that_is_twice_on_a_page_the_last_counts() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "pending"), ("i-2", "running"), ("i-1", "running")])).await;
    assert_eq!(bench.ledger.entry("i-1").unwrap().state, InstanceState::Running);
    assert_eq!(bench.raw(), ["i-2", "i-1"]);
}

#[tokio::test]
async fn a_tombstone_is_not_older_than_what_was_published_whatever_the_clocks_say() {
    let mut bench = Bench::new();
    bench.sweep(&listing(&[("i-1", "terminated")])).await;
    // As another replica may have written it, whose clock is ahead.
    let ahead = Utc::now().timestamp_millis() + 120_000;
    bench.ledger.head.as_mut().unwrap().observed = ahead;
    bench.handed.lock().unwrap().clear();
    bench.sweep(&listing(&[])).await;
    let handed = bench.handed.lock().unwrap();
    let tombstone = handed.iter().flatten().find(|record| record.key.as_deref() == Some("i-1")).unwrap();
    let observed_at = tombstone.headers.iter().find(|(name, _)| name == "observed-at").unwrap().1.clone().unwrap();
    let at = DateTime::parse_from_rfc3339(std::str::from_utf8(&observed_at).unwrap()).unwrap();
    assert_eq!(at.timestamp_millis(), ahead);
    assert_eq!(tombstone.timestamp, Some(ahead), "Kafka's time, before which the mapper takes it to be seen");
}

#[tokio::test]
async fn what_may_be_committed_or_not_is_remembered_as_if_it_were() {
    let mut ledger = Ledger::default();
    let entry = Entry { state: InstanceState::Running, tagged: false, standing: Standing::Present };
    ledger.doubt(vec![Change::Entry("i-1".into(), Some(entry)), Change::Entry("i-2".into(), None)]);
    ledger.begin();
    assert_eq!(ledger.missing().len(), 1, "missed when it is not seen");
    assert_ne!(ledger.entry("i-1"), Some(entry), "and written again when it is");
}

#[tokio::test]
async fn what_a_rule_denies_is_not_published_and_known_ones_are_out_of_scope_but_their_end_is_told() {
    let mut bench = Bench::with_rules(json!([{"deny": {"field": "State.Name", "matches": ["stopped", "terminated"]}}]));
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "running"), ("i-3", "stopped"), ("i-4", "terminated")])).await;
    assert_eq!(bench.raw(), ["i-1", "i-2"]);
    bench.sweep(&listing(&[("i-1", "running"), ("i-2", "stopped"), ("i-3", "stopped")])).await;
    bench.sweep(&listing(&[("i-1", "running")])).await;
    bench.sweep(&listing(&[("i-1", "running")])).await;
    assert_eq!(bench.raw(), ["i-1", "i-1", "i-1"], "nothing is removed");
    bench.sweep(&listing(&[("i-1", "terminated"), ("i-2", "terminated")])).await;
    assert_eq!(bench.raw(), ["-i-1", "-i-2"]);
}

#[tokio::test]
async fn the_rules_hold_for_what_has_no_id_too() {
    let mut bench = Bench::with_rules(json!([{"mask": {"field": "Secret"}}, {"deny": {"field": "Private"}}]));
    let listing = vec![json!({"Secret": "s3cret"}), json!({"Private": "yes"}), json!("neither")];
    bench.sweep(&Script { listing, ..Script::default() }).await;
    let handed = bench.handed.lock().unwrap();
    let dead: Vec<_> = handed[0].iter().filter(|record| record.destination == Destination::DeadLetters).collect();
    let text = |record: &Outgoing| String::from_utf8(record.value.clone().unwrap()).unwrap();
    assert_eq!(dead.iter().map(|record| text(record)).collect::<Vec<_>>(), ["{\"Secret\":\"#####\"}", "\"neither\""]);
}

#[tokio::test]
async fn what_vanishes_in_bulk_is_held_and_who_asked_is_told() {
    let mut bench = Bench::new();
    let ids: Vec<_> = (0..30).map(|number| format!("i-{number}")).collect();
    let fleet = |count: usize| listing(&ids.iter().take(count).map(|id| (id.as_str(), "running")).collect::<Vec<_>>());
    bench.sweep(&fleet(30)).await;
    let swept = bench.sweep(&fleet(10)).await;
    assert_eq!(swept.verdict, Verdict::Held);
    assert!(swept.fault.unwrap().message.contains("asked as the caller"));
    assert_eq!(bench.ledger.head.as_ref().unwrap().missing, 20);
    bench.ledger.acceptance = Some(Acceptance { missing: 20, at: 0 });
    assert_eq!(bench.sweep(&fleet(10)).await.verdict, Verdict::Complete);
    assert_eq!((bench.ledger.suspects(), bench.ledger.acceptance), (20, None), "accepted, once");
    assert_eq!(bench.sweep(&fleet(30)).await.verdict, Verdict::Complete);
    assert_eq!(bench.ledger.head.as_ref().unwrap().missing, 0);
}
