//! What is done to the pipeline, and when: a function of the seed alone.

use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    BrokerKilled,
    ControllerKilled,
    CoordinatorMoved,
    BrokersRestarted,
    BrokersKilled,
    BrokerFrozen,
    BrokerCut,
    NetworkCut,
    PartitionsAdded,
    TopicDeleted,
    AclRevoked,
    RegistryDown,
    RegistrySlow,
    Ec2Down,
    ClockAhead,
    ClockBehind,
    MapperKilled,
    MapperStopped,
    MapperFrozen,
    TransactionTimedOut,
    CollectorKilled,
    CollectorStopped,
    CollectorFrozen,
    /// How each run begins.
    RegistryDownAtStart,
    /// How each run ends: no partition can be taken away again.
    PartitionsAddedToRaw,
}

use Fault::*;

/// What goes on by itself, and is held against the fleet in the end.
const GOES_ON: &str = "goes on by itself";

impl Fault {
    pub const ALL: [Self; 25] = [
        BrokerKilled,
        ControllerKilled,
        CoordinatorMoved,
        BrokersRestarted,
        BrokersKilled,
        BrokerFrozen,
        BrokerCut,
        NetworkCut,
        PartitionsAdded,
        TopicDeleted,
        AclRevoked,
        RegistryDown,
        RegistrySlow,
        Ec2Down,
        ClockAhead,
        ClockBehind,
        MapperKilled,
        MapperStopped,
        MapperFrozen,
        TransactionTimedOut,
        CollectorKilled,
        CollectorStopped,
        CollectorFrozen,
        RegistryDownAtStart,
        PartitionsAddedToRaw,
    ];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            BrokerKilled => "broker killed, started again",
            ControllerKilled => "leader of the controllers killed, started again once another leads",
            CoordinatorMoved => {
                "coordinator of a group or of transactions moved: its broker stopped in order, started again"
            }
            BrokersRestarted => "all brokers restarted, one after the other",
            BrokersKilled => "all brokers killed at once, started again",
            BrokerFrozen => "broker frozen (SIGSTOP)",
            BrokerCut => "network to one broker cut and healed",
            NetworkCut => "network to all brokers cut and healed",
            PartitionsAdded => "partition added to the events",
            TopicDeleted => "topic of health events deleted, created anew",
            AclRevoked => "right to write events revoked, given back",
            RegistryDown => "schema registry down, a mapper started meanwhile",
            RegistrySlow => "schema registry slow, a mapper started meanwhile",
            Ec2Down => "EC2 answers 503",
            ClockAhead => "clock of a stage three hours ahead",
            ClockBehind => "clock of a stage two hours behind",
            MapperKilled => "mapper killed (SIGKILL)",
            MapperStopped => "mapper stopped (SIGTERM), started again",
            MapperFrozen => "mapper frozen (SIGSTOP) until its group gave it up",
            TransactionTimedOut => "mapper frozen in a transaction until Kafka aborted that",
            CollectorKilled => "collector killed (SIGKILL)",
            CollectorStopped => "collector stopped (SIGTERM), started again",
            CollectorFrozen => "collector frozen (SIGSTOP) until its group gave it up",
            RegistryDownAtStart => "schema registry down when the stages start",
            PartitionsAddedToRaw => "partition added to the raw records",
        }
    }

    /// What must follow, beside that nothing is lost, duplicated or wrong.
    pub fn expected(self) -> &'static str {
        match self {
            TopicDeleted => "health events are lost, and nothing else",
            AclRevoked => "mappers end by themselves; started again once allowed, they go on",
            RegistryDown => "mappers that run do not notice; the one that starts waits for it",
            RegistrySlow => "mappers that run do not notice; the one that starts is patient",
            Ec2Down => "no answer is not an empty answer: nothing is taken for gone",
            ClockAhead => "Kafka refuses records of more than an hour ahead; all goes on once the clock is right",
            ClockBehind => {
                "what is seen meanwhile counts as old, and is told once the clock is right; what is gone is told at once"
            }
            MapperStopped | CollectorStopped => "ends with 0, the others take over",
            MapperKilled | CollectorKilled => "its transaction is aborted, the others take over",
            MapperFrozen | CollectorFrozen => "the others take over; what it does when it wakes is refused",
            TransactionTimedOut => "it starts over from what was committed",
            RegistryDownAtStart => "mappers wait for it",
            PartitionsAddedToRaw => "both stages end with 1 and name what to do: keys would move",
            _ => GOES_ON,
        }
    }

    fn is_drawn(self) -> bool {
        !matches!(self, RegistryDownAtStart | PartitionsAddedToRaw)
    }

    /// Whether a process is killed in the middle of it, now and then.
    fn takes_company(self) -> bool {
        matches!(self, BrokerKilled | BrokersKilled | BrokerFrozen | BrokerCut | NetworkCut | ClockAhead | ClockBehind)
    }
}

/// A fault, and all that is left to chance about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    /// How long what can last does.
    pub length: Duration,
    /// Whom it hits.
    pub choice: usize,
    /// What happens in the middle of it.
    pub company: Option<Fault>,
}

/// Shortest cut of the network, and the like.
const SHORTEST: Duration = Duration::from_secs(5);

/// The faults of a run, without end: rounds in which each comes once, in another order each time. Most are short, some
/// last as long as `longest`.
pub fn schedule(seed: u64, longest: Duration) -> impl Iterator<Item = Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut round = Vec::new();
    std::iter::from_fn(move || {
        if round.is_empty() {
            round = Fault::ALL.into_iter().filter(|fault| fault.is_drawn()).collect();
            random.shuffle(&mut round);
        }
        let fault = round.pop()?;
        let share = random.f64().powi(3);
        let length = SHORTEST + longest.saturating_sub(SHORTEST).mul_f64(share);
        let company = [MapperKilled, CollectorKilled][random.usize(0..2)];
        let company = (random.bool() && fault.takes_company()).then_some(company);
        Some(Step { fault, length, choice: random.usize(0..60), company })
    })
}

#[test]
fn a_seed_is_a_schedule_and_each_round_has_every_fault() {
    let drawn: Vec<_> = Fault::ALL.into_iter().filter(|fault| fault.is_drawn()).collect();
    let steps = |seed| schedule(seed, Duration::from_secs(30)).take(3 * drawn.len()).collect::<Vec<_>>();
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));
    for round in steps(7).chunks(drawn.len()) {
        let mut faults: Vec<_> = round.iter().map(|step| step.fault).collect();
        faults.sort();
        assert_eq!(faults, drawn);
        assert!(round.iter().all(|step| SHORTEST <= step.length && step.length <= Duration::from_secs(30)));
    }
}
