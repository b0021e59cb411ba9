//! A gate per account, so that bad credentials do not make for a call per region and sweep.
//!
//! Until a call has been answered otherwise than by "bad credentials", one is under way and the others wait for it.
//! Once they have proved bad, the gate is closed for a minute, and what comes is refused without a call. Then one asks
//! whether they are good by now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use super::call::{Access, Time};
use crate::collector::fault::{Fault, FaultKind};

/// How long a gate is closed.
const CLOSED_FOR: Duration = Duration::from_secs(60);

/// The gates of a source's accounts.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<Option<String>, Gate>>);

type Gate = Arc<tokio::sync::Mutex<State>>;

#[derive(Clone)]
enum State {
    /// Nothing is known yet.
    Untried,
    /// Nothing is wrong with the credentials, as far as is known.
    Open,
    /// The credentials are bad.
    Closed { since: Instant, fault: Fault },
}

/// Leave to make a call.
pub(super) struct Pass {
    gate: Gate,
    /// Held by the one whose call decides.
    deciding: Option<OwnedMutexGuard<State>>,
}

impl Gates {
    /// Leave to make a call, or the fault for which there is none.
    pub(super) async fn pass(
        &self,
        account: Option<&str>,
        access: &dyn Access,
        time: &dyn Time,
    ) -> Result<Pass, Fault> {
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let untried = || Arc::new(tokio::sync::Mutex::new(State::Untried));
            gates.entry(account.map(str::to_owned)).or_insert_with(untried).clone()
        };
        let mut state = gate.clone().lock_owned().await;
        match &*state {
            State::Open => Ok(Pass { gate, deciding: None }),
            State::Untried => Ok(Pass { gate, deciding: Some(state) }),
            State::Closed { since, fault } if time.now() < *since + CLOSED_FOR => Err(fault.clone()),
            State::Closed { fault, .. } => {
                let fault = fault.clone();
                // The keys, the token file or the trust policy may have been replaced.
                access.refresh(account).await;
                match access.identity(account).await {
                    Err(still) if still.kind == FaultKind::Credentials => {
                        *state = State::Closed { since: time.now(), fault: fault.clone() };
                        Err(fault)
                    }
                    Ok(_) => {
                        *state = State::Open;
                        Ok(Pass { gate, deciding: None })
                    }
                    Err(_) => {
                        *state = State::Untried;
                        Ok(Pass { gate, deciding: Some(state) })
                    }
                }
            }
        }
    }
}

impl Pass {
    /// The call was answered, or failed for another reason than the credentials.
    pub(super) fn opens(self) {
        if let Some(mut state) = self.deciding {
            *state = State::Open;
        }
    }

    /// The credentials have proved bad.
    pub(super) fn closes(self, fault: Fault, now: Instant) {
        let closed = State::Closed { since: now, fault };
        match self.deciding {
            Some(mut state) => *state = closed,
            // Somebody who has the lock is about to find out the same.
            None => {
                if let Ok(mut state) = self.gate.try_lock() {
                    *state = closed;
                }
            }
        }
    }
}
