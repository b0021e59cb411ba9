//! The judge itself on small histories: a lost, a repeated and a wrong event are each found, and an honest run is clean.

use std::collections::BTreeMap;

use super::*;

const ID: &str = "i-1";

fn look(name: &str) -> Look {
    Look { name: name.to_owned(), state: "running".to_owned(), launched: "2026-01-01T00:00:00Z".to_owned() }
}

/// Records of one device, a second apart.
fn history(sights: Vec<Sight>) -> Vec<Raw> {
    let record = |(offset, sight): (usize, Sight)| {
        let shown = match &sight {
            Sight::Seen(look) => Some(look.name.clone()),
            Sight::Terminated => Some("terminated".to_owned()),
            Sight::Absent => None,
        };
        let (offset, at) = (offset as i64, 1000 * offset as i64);
        let sweep = Some(format!("sweep-{offset}"));
        Raw { partition: partition_of(ID, 4), offset, id: ID.to_owned(), at, sight, shown, sweep }
    };
    sights.into_iter().enumerate().map(record).collect()
}

/// Created, unchanged, renamed, absent, there again, terminated, and listed once more.
fn life() -> Vec<Raw> {
    let seen = |name| Sight::Seen(look(name));
    history(vec![
        seen("a"),
        seen("a"),
        seen("b"),
        Sight::Absent,
        seen("b"),
        Sight::Terminated,
        Sight::Absent,
        seen("b"),
    ])
}

/// What an honest mapper tells of it, and keeps.
fn honest(raw: &[Raw]) -> (Vec<Event>, BTreeMap<String, State>) {
    let events: Vec<_> = expected(raw)
        .into_iter()
        .enumerate()
        .map(|(number, (cause, Expected { id, revision, what, look }))| Event {
            partition: 0,
            offset: number as i64,
            id,
            cause,
            revision,
            what,
            look,
        })
        .collect();
    let state = |event: &Event| State {
        revision: event.revision,
        look: (event.what != What::Removed).then(|| event.look.clone()),
    };
    let states = events.last().map(|event| (event.id.clone(), state(event))).into_iter().collect();
    (events, states)
}

fn judge(change: impl FnOnce(&mut Vec<Event>, &mut BTreeMap<String, State>)) -> Findings {
    let raw = life();
    let (mut told, mut states) = honest(&raw);
    change(&mut told, &mut states);
    events(&raw, &told, &states, 4)
}

#[test]
fn the_rules_of_the_mapping_say_what_is_told() {
    let told: Vec<_> = expected(&life()).into_values().map(|due| (due.revision, due.what, due.look.name)).collect();
    let due = [
        (1, What::Created, "a"),
        (2, What::Updated, "b"),
        (3, What::Removed, "b"),
        (4, What::Created, "b"),
        (5, What::Removed, "b"),
    ];
    assert_eq!(told, due.map(|(revision, what, name)| (revision, what, name.to_owned())));
}

#[test]
fn what_was_observed_before_the_last_change_is_not_told() {
    let mut raw = history(vec![Sight::Seen(look("a")), Sight::Seen(look("b")), Sight::Absent, Sight::Seen(look("c"))]);
    raw[1].at = -1;
    assert_eq!(expected(&raw).len(), 3);
    raw[2].at = -1;
    assert_eq!(expected(&raw).into_values().map(|due| due.what).collect::<Vec<_>>(), [What::Created, What::Updated]);
    // Back at the same moment is not back.
    raw[2].at = 5000;
    raw[3].at = 5000;
    assert_eq!(expected(&raw).len(), 2);
}

#[test]
fn an_honest_run_is_clean() {
    assert_eq!(judge(|_, _| {}), Findings::default());
}

#[test]
fn a_lost_event_is_found() {
    for number in 0..5 {
        let Findings { lost, duplicated, wrong } = judge(|events, _| drop(events.remove(number)));
        assert_eq!((lost.len(), duplicated, wrong), (1, vec![], vec![]), "{lost:?}");
    }
}

#[test]
fn a_repeated_event_is_found_also_with_a_revision_of_its_own() {
    for revision in [2, 6] {
        let Findings { lost, duplicated, wrong } = judge(|events, _| {
            events.push(Event { offset: 9, revision, ..events[1].clone() });
        });
        assert_eq!((lost, duplicated.len(), wrong), (vec![], 1, vec![]), "{duplicated:?}");
    }
}

#[test]
fn a_wrong_event_is_found() {
    let wrong: [fn(&mut Event); 5] = [
        |event| event.look.name = "elsewhere".to_owned(),
        |event| event.what = What::Created,
        |event| event.revision = 7,
        |event| event.id = "i-2".to_owned(),
        // Made of a record that tells nothing new: there is no cause for it.
        |event| event.cause.1 = 1,
    ];
    for change in wrong {
        let findings = judge(|events, _| change(&mut events[1]));
        assert_eq!((findings.duplicated.len(), findings.wrong.len()), (0, 1), "{findings:?}");
    }
}

#[test]
fn events_of_a_device_in_the_wrong_order_are_found() {
    let findings = judge(|events, _| events.swap(1, 2));
    assert_eq!((findings.lost, findings.duplicated, findings.wrong.len()), (vec![], vec![], 1));
}

#[test]
fn a_state_that_is_not_that_of_the_last_event_is_found() {
    let wrong: [fn(&mut BTreeMap<String, State>); 4] = [
        |states| states.clear(),
        |states| states.get_mut(ID).unwrap().revision = 4,
        |states| states.get_mut(ID).unwrap().look = Some(look("b")),
        |states| drop(states.insert("i-2".to_owned(), State { revision: 1, look: None })),
    ];
    for change in wrong {
        let findings = judge(|_, states| change(states));
        assert_eq!((findings.lost, findings.duplicated, findings.wrong.len()), (vec![], vec![], 1));
    }
}

#[test]
fn a_record_in_a_foreign_partition_is_found() {
    let mut raw = life();
    let (told, states) = honest(&raw);
    raw.push(Raw { partition: 1 - partition_of(ID, 4).min(1), offset: 99, ..raw[1].clone() });
    assert_eq!(events(&raw, &told, &states, 4).wrong.len(), 1);
}

/// EC2 shows these in turn, for a second each.
fn shown(looks: &[Option<&str>]) -> Histories {
    let shown = looks.iter().enumerate().map(|(second, shown)| (1000 * second as i64, shown.map(str::to_owned)));
    BTreeMap::from([(ID.to_owned(), History { scope: "scope".to_owned(), shown: shown.collect() })])
}

#[test]
fn what_a_complete_sweep_did_not_publish_is_lost_where_it_was_shown_all_the_while() {
    let raw = history(vec![Sight::Seen(look("a")), Sight::Seen(look("b"))]);
    let histories = shown(&[Some("a"), Some("b"), None]);
    let lost = |id: &str, scope: &str, began, ended| {
        let sweep = Sweep { id: id.to_owned(), scope: scope.to_owned(), began, ended };
        sweeps(&raw, &histories, &[sweep], 0..=5000).lost.len()
    };
    assert_eq!((lost("sweep-0", "scope", 100, 900), lost("sweep-1", "scope", 1100, 1900)), (0, 0));
    assert_eq!(lost("sweep-0", "scope", 1100, 1900), 1, "it has published what was before");
    assert_eq!(lost("sweep-9", "scope", 100, 900), 1, "it has published nothing");
    assert_eq!(lost("sweep-9", "elsewhere", 100, 900), 0);
    assert_eq!(lost("sweep-9", "scope", 900, 1100), 0, "it changed meanwhile");
    assert_eq!(lost("sweep-9", "scope", 2100, 2900), 0, "it was not shown");
    assert_eq!(lost("sweep-9", "scope", 100, 90_000), 0, "its clock was stepped");
}

#[test]
fn records_follow_what_ec2_showed_and_may_miss_what_was_brief() {
    let raw = history(vec![Sight::Seen(look("a")), Sight::Seen(look("a")), Sight::Seen(look("c")), Sight::Absent]);
    let follow = |history: &[Option<&str>]| records(&raw, &shown(history), |_| false);
    assert!(follow(&[Some("a"), Some("b"), Some("c"), None]).is_clean());
    assert_eq!(follow(&[Some("a"), Some("b"), None]).wrong.len(), 1, "c was never shown");
    assert_eq!(follow(&[Some("c"), Some("a"), None]).wrong.len(), 1, "c was before a");
    assert_eq!(follow(&[Some("a"), Some("c")]).wrong.len(), 1, "it was always there");
    assert_eq!(follow(&[Some("a"), Some("c"), None, Some("d")]).lost.len(), 1, "it is there again");
    assert_eq!(records(&raw, &Histories::new(), |_| false).wrong.len(), 4);
    assert!(records(&raw, &Histories::new(), |id| id == ID).is_clean());
    assert_eq!(records(&[], &shown(&[Some("a")]), |_| false).lost.len(), 1);
    assert!(records(&[], &shown(&[Some("a"), None]), |_| false).is_clean());
}

#[test]
fn a_state_that_is_not_as_ec2_has_it_in_the_end_is_found() {
    let (_, states) = honest(&life()[..5]);
    let now = |look| BTreeMap::from([(ID.to_owned(), look)]);
    assert!(ends(&states, &now(Some(look("b")))).is_clean());
    assert_eq!(ends(&states, &now(Some(look("c")))).wrong.len(), 1);
    assert_eq!(ends(&states, &now(None)).wrong.len(), 1);
    assert_eq!(ends(&BTreeMap::new(), &now(Some(look("b")))).wrong.len(), 1);
    assert!(ends(&BTreeMap::new(), &now(None)).is_clean());
}

#[test]
fn keys_lie_where_java_puts_them() {
    // From the tests of Kafka's own client, org.apache.kafka.common.utils.UtilsTest: its hashes without their sign.
    let known = [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
    for (key, hash) in known {
        assert_eq!(partition_of(key, i32::MAX), hash & i32::MAX, "{key}");
    }
}
