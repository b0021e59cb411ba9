//! What may be concluded from what a complete sweep did not list. Pure.
//!
//! An instance is gone on two signs: it was absent from two complete sweeps (one, if it was last seen on its way out),
//! and asking for it by its ID does not bring it back either. When too much vanishes at once nothing is concluded, for
//! then it is more likely that the question is wrong: another account, a filter, a region that is no longer enabled.

use compact_str::CompactString;

use super::ledger::{Acceptance, Entry, Missing, Standing};

/// Complete sweeps that must miss an instance that was last seen alive.
const ABSENCES: u8 = 2;
/// More than so many must vanish at once, and
const LEAST_HELD: usize = 10;
/// more than so many of a hundred, before an operator is asked.
const SHARE_HELD: usize = 30;

/// A complete sweep that did not list everything that is known.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// What was neither listed nor came back when it was asked for.
    pub missing: Vec<Missing>,
    /// Known instances that should have been listed, the missing ones included, without those on their way out.
    pub alive: usize,
    /// What an operator has accepted.
    pub acceptance: Option<Acceptance>,
    /// When this sweep began, seconds since the epoch.
    pub began: u32,
    /// When the complete sweep before this one began, if there was one.
    pub previous: Option<u32>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Conclusion {
    /// Nothing: so many vanished at once that somebody must look first.
    Held {
        /// How many.
        missing: usize,
    },
    /// For each missing instance a step.
    Counted {
        /// The steps.
        steps: Vec<Step>,
    },
}

/// What follows for one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Not yet enough.
    Suspect(CompactString, Entry),
    /// It is gone.
    Gone {
        /// Its ID.
        id: CompactString,
        /// When the last sweep began that listed it, seconds since the epoch, as far as is known.
        last_seen: Option<u32>,
    },
}

/// Whether so many are too many to be believed without an operator, who has not accepted them.
pub fn is_held(vanished: usize, alive: usize, acceptance: Option<Acceptance>) -> bool {
    let is_too_much = vanished > LEAST_HELD && vanished * 100 > alive * SHARE_HELD;
    is_too_much && acceptance.is_none_or(|accepted| vanished as i64 > accepted.missing)
}

/// Those that vanished with this sweep, unexpectedly.
pub fn vanished(missing: &[Missing]) -> usize {
    let is_fresh = |missing: &&Missing| {
        let is_unmissed = matches!(missing.entry.standing, Standing::Present | Standing::IN_DOUBT);
        is_unmissed && !missing.entry.state.is_ending()
    };
    missing.iter().filter(is_fresh).count()
}

/// Draws the conclusion.
pub fn conclude(evidence: &Evidence) -> Conclusion {
    let vanished = vanished(&evidence.missing);
    if is_held(vanished, evidence.alive, evidence.acceptance) {
        return Conclusion::Held { missing: vanished };
    }
    let steps = evidence.missing.iter().map(|missing| step(missing, evidence)).collect();
    Conclusion::Counted { steps }
}

fn step(Missing { id, entry }: &Missing, evidence: &Evidence) -> Step {
    let (before, first_missed, last_seen) = match entry.standing {
        Standing::IN_DOUBT => (0, evidence.began, 0),
        Standing::Suspect { absences, first_missed, last_seen } => {
            // A sweep that died over its conclusions is no complete one: what it counted does not count.
            let is_on_record = evidence.previous.is_some_and(|previous| previous >= first_missed);
            let absences = if is_on_record { absences } else { 0 };
            (absences, if absences == 0 { evidence.began } else { first_missed }, last_seen)
        }
        Standing::Present | Standing::OutOfScope => (0, evidence.began, evidence.previous.unwrap_or_default()),
    };
    let absences = before.saturating_add(1);
    let needed = if entry.state.is_ending() { 1 } else { ABSENCES };
    if absences >= needed {
        Step::Gone { id: id.clone(), last_seen: (last_seen > 0).then_some(last_seen) }
    } else {
        Step::Suspect(id.clone(), Entry { standing: Standing::Suspect { absences, first_missed, last_seen }, ..*entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::ledger::InstanceState;

    fn present(state: InstanceState) -> Entry {
        Entry { state, tagged: false, standing: Standing::Present }
    }

    fn missing(count: usize, entry: Entry) -> Vec<Missing> {
        (0..count).map(|number| Missing { id: format!("i-{number}").into(), entry }).collect()
    }

    fn evidence(missing: Vec<Missing>, alive: usize) -> Evidence {
        Evidence { missing, alive, acceptance: None, began: 2000, previous: Some(1000) }
    }

    fn steps(evidence: &Evidence) -> Vec<Step> {
        match conclude(evidence) {
            Conclusion::Counted { steps } => steps,
            held => panic!("{held:?}"),
        }
    }

    #[test]
    fn a_running_instance_is_gone_after_the_second_complete_sweep_that_misses_it() {
        let first = steps(&evidence(missing(1, present(InstanceState::Running)), 5));
        let Step::Suspect(_, suspect) = &first[0] else { panic!("{first:?}") };
        let once = Standing::Suspect { absences: 1, first_missed: 2000, last_seen: 1000 };
        assert_eq!(suspect.standing, once);
        let second = Evidence { began: 3000, previous: Some(2000), ..evidence(missing(1, *suspect), 5) };
        assert_eq!(steps(&second), [Step::Gone { id: "i-0".into(), last_seen: Some(1000) }]);
    }

    #[test]
    fn what_a_sweep_counted_that_died_before_its_verdict_does_not_count() {
        let suspect = Standing::Suspect { absences: 1, first_missed: 1500, last_seen: 900 };
        let again = evidence(missing(1, Entry { standing: suspect, ..present(InstanceState::Running) }), 5);
        let steps = steps(&again);
        let once = Standing::Suspect { absences: 1, first_missed: 2000, last_seen: 900 };
        assert!(matches!(&steps[0], Step::Suspect(_, entry) if entry.standing == once), "{steps:?}");
    }

    #[test]
    fn one_that_is_in_doubt_is_gone_after_two_and_counts_as_vanished_with_the_first() {
        let doubtful = Entry { standing: Standing::IN_DOUBT, ..present(InstanceState::Running) };
        let first = steps(&evidence(missing(1, doubtful), 5));
        let once = Standing::Suspect { absences: 1, first_missed: 2000, last_seen: 0 };
        let suspect = Entry { standing: once, ..doubtful };
        assert_eq!(first, [Step::Suspect("i-0".into(), suspect)]);
        let second = Evidence { began: 3000, previous: Some(2000), ..evidence(missing(1, suspect), 5) };
        assert_eq!(steps(&second), [Step::Gone { id: "i-0".into(), last_seen: None }]);
        assert_eq!(conclude(&evidence(missing(31, doubtful), 100)), Conclusion::Held { missing: 31 });
    }

    #[test]
    fn one_that_was_on_its_way_out_is_gone_after_the_first() {
        for state in [InstanceState::ShuttingDown, InstanceState::Terminated] {
            let gone = steps(&evidence(missing(1, present(state)), 5));
            assert_eq!(gone, [Step::Gone { id: "i-0".into(), last_seen: Some(1000) }]);
        }
    }

    #[test]
    fn more_than_ten_and_more_than_thirty_percent_at_once_are_held() {
        let alive = InstanceState::Running;
        let held =
            |count, of| matches!(conclude(&evidence(missing(count, present(alive)), of)), Conclusion::Held { .. });
        assert!(!held(10, 10), "ten may vanish: a small fleet is not held for ever");
        assert!(held(11, 11));
        assert!(held(31, 100));
        assert!(!held(30, 100));
    }

    #[test]
    fn what_was_terminated_or_suspect_does_not_count_towards_too_much() {
        let terminated = missing(50, present(InstanceState::Terminated));
        assert_eq!(steps(&evidence(terminated, 20)).len(), 50);
        let suspect = Standing::Suspect { absences: 1, first_missed: 1000, last_seen: 0 };
        let suspects = missing(50, Entry { standing: suspect, ..present(InstanceState::Running) });
        assert_eq!(steps(&evidence(suspects, 60)).len(), 50);
    }

    #[test]
    fn an_operator_can_accept_as_many_as_were_seen_and_not_one_more() {
        let fleet = |count| evidence(missing(count, present(InstanceState::Running)), 100);
        let acceptance = Some(Acceptance { missing: 60, at: 0 });
        let steps = steps(&Evidence { acceptance, ..fleet(60) });
        assert!(steps.iter().all(|step| matches!(step, Step::Suspect(..))), "still two sweeps");
        assert_eq!(conclude(&Evidence { acceptance, ..fleet(61) }), Conclusion::Held { missing: 61 });
    }
}
