//! What digests of many devices have in common: the secret and the rules of the process that made them, each once.

use std::collections::HashMap;

use crate::mapper::state::Known;
use crate::profile::Fingerprint;
use crate::record::{Digest, Secret};

/// The number of a secret and of rules.
pub(super) type Number = u32;

/// Secrets and rules by number. None is ever taken away: there is one for each run of a mapper whose states are still there.
#[derive(Debug, Default)]
pub(super) struct Origins {
    list: Vec<(Secret, Fingerprint)>,
    numbers: HashMap<(Secret, Fingerprint), Number>,
}

impl Origins {
    pub(super) fn number(&mut self, known: &Known) -> Number {
        let origin = (known.digest.secret, known.fingerprint);
        // Nearly always it is that of this process, or of the one before.
        if let Some(last) = self.list.last()
            && *last == origin
        {
            return (self.list.len() - 1) as Number;
        }
        *self.numbers.entry(origin).or_insert_with(|| {
            self.list.push(origin);
            (self.list.len() - 1) as Number
        })
    }

    pub(super) fn known(&self, number: Number, hash: [u8; 16]) -> Known {
        let (secret, fingerprint) = self.list[number as usize];
        Known { digest: Digest { secret, hash }, fingerprint }
    }

    /// What they take, at most.
    pub(super) fn bytes(&self) -> usize {
        let one = size_of::<(Secret, Fingerprint)>();
        (self.list.capacity() + 2 * self.numbers.capacity()) * one
    }
}
