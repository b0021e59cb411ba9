//! Short stand-ins for all of a raw record that a mapping can see: where they are equal, the events are.
//!
//! Tags are written by whoever may launch instances, so nobody must be able to make two records with one stand-in.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;

use highway::{HighwayHash as _, HighwayHasher, Key};

/// BLAKE3 hashes four chunks of 1 KiB side by side in the time that one takes.
const STRIDE: usize = 4096;
const CHUNK: usize = 1024;

/// BLAKE3, cut to 128 bits: collision-resistant, the same everywhere and for good, kept with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Digest of the value and of the headers that the mapping reads.
    pub fn of(value: &[u8], account: Option<&str>, region: Option<&str>) -> Self {
        let parts = parts(value, account, region);
        let mut bytes =
            Vec::with_capacity(STRIDE + 8 * parts.len() + parts.iter().map(|part| part.len()).sum::<usize>());
        // The lengths first, so that no part can pass for the end of what precedes it, nor what fills up for a part.
        parts.iter().for_each(|part| bytes.extend_from_slice(&(part.len() as u64).to_le_bytes()));
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        if bytes.len() > CHUNK {
            bytes.resize(bytes.len().next_multiple_of(STRIDE), 0);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        Self(digest)
    }
}

/// HighwayHash by a secret of this process, which nobody can aim at who does not know it: some four times as quick as a
/// [`Digest`], and worth nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance(pub [u8; 16]);

impl Glance {
    /// Of the same as [`Digest::of`].
    pub fn of(value: &[u8], account: Option<&str>, region: Option<&str>) -> Self {
        static SECRET: LazyLock<Key> =
            LazyLock::new(|| Key([(); 4].map(|()| RandomState::new().build_hasher().finish())));
        let mut hasher = HighwayHasher::new(*SECRET);
        for part in parts(value, account, region) {
            hasher.append(&(part.len() as u64).to_le_bytes());
            hasher.append(part);
        }
        let [high, low] = hasher.finalize128();
        Self((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }
}

fn parts<'a>(value: &'a [u8], account: Option<&'a str>, region: Option<&'a str>) -> [&'a [u8]; 3] {
    [account.unwrap_or_default().as_bytes(), region.unwrap_or_default().as_bytes(), value]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_passes_for_another() {
        let different = [
            (b"ab".as_slice(), Some("c"), None),
            (b"a", Some("bc"), None),
            (b"abc", None, None),
            (b"ab", None, Some("c")),
            (b"ab\0", Some("c"), None),
        ];
        for (index, (value, account, region)) in different.into_iter().enumerate() {
            for (value_b, account_b, region_b) in different.into_iter().skip(index + 1) {
                assert_ne!(Digest::of(value, account, region), Digest::of(value_b, account_b, region_b));
                assert_ne!(Glance::of(value, account, region), Glance::of(value_b, account_b, region_b));
            }
        }
    }

    #[test]
    fn what_fills_up_is_not_taken_for_the_value() {
        let digest = |length: usize| Digest::of(&vec![0; length], None, None);
        for length in [CHUNK - 24, CHUNK, 4000, 4072, 4096] {
            assert_ne!(digest(length), digest(length + 1), "{length}");
            assert_eq!(digest(length), digest(length));
        }
    }

    #[test]
    fn each_bit_of_the_value_counts() {
        let value: Vec<u8> = (0..5000).map(|index| index as u8).collect();
        for byte in (0..value.len()).step_by(97) {
            let mut other = value.clone();
            other[byte] ^= 1;
            assert_ne!(Digest::of(&value, None, None), Digest::of(&other, None, None));
            assert_ne!(Glance::of(&value, None, None), Glance::of(&other, None, None));
        }
    }
}
