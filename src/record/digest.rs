//! A short stand-in for all of a raw record that a mapping can see: where it is equal, the events are.
//!
//! Tags are written by whoever may launch instances, so nobody must be able to make two records with one stand-in. It is
//! made by a secret, which lies on the state topic beside it and nowhere else.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;

use highway::{HighwayHash as _, HighwayHasher, Key};

/// What digests are made by. Each process draws its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// That of this process.
    pub fn own() -> Self {
        static OWN: LazyLock<Secret> = LazyLock::new(|| {
            let mut secret = [0; 32];
            for word in secret.chunks_exact_mut(8) {
                word.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
            }
            Secret(secret)
        });
        *OWN
    }

    fn key(self) -> Key {
        let (words, _) = self.0.as_chunks();
        Key(std::array::from_fn(|index| u64::from_le_bytes(words[index])))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// HighwayHash by a secret, 128 bits: nobody can aim at it who does not know the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// What it is made by.
    pub secret: Secret,
    /// Of the record.
    pub hash: [u8; 16],
}

impl Digest {
    /// Of the value and of the headers that the mapping reads.
    pub fn by(secret: Secret, value: &[u8], account: Option<&str>, region: Option<&str>) -> Self {
        let mut hasher = HighwayHasher::new(secret.key());
        // The lengths, so that no part can pass for the end of what precedes it.
        for part in [account.unwrap_or_default().as_bytes(), region.unwrap_or_default().as_bytes(), value] {
            hasher.append(&(part.len() as u64).to_le_bytes());
            hasher.append(part);
        }
        let [high, low] = hasher.finalize128();
        Self { secret, hash: (u128::from(high) << 64 | u128::from(low)).to_le_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(value: &[u8], account: Option<&str>, region: Option<&str>) -> Digest {
        Digest::by(Secret([1; 32]), value, account, region)
    }

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
                assert_ne!(digest(value, account, region), digest(value_b, account_b, region_b));
            }
        }
    }

    #[test]
    fn each_bit_of_the_value_counts() {
        let value: Vec<u8> = (0..5000).map(|index| index as u8).collect();
        for byte in (0..value.len()).step_by(97) {
            let mut other = value.clone();
            other[byte] ^= 1;
            assert_ne!(digest(&value, None, None), digest(&other, None, None));
        }
    }

    #[test]
    fn each_byte_of_the_secret_counts() {
        let hash = |secret| Digest::by(Secret(secret), b"value", None, None).hash;
        for byte in 0..32 {
            let mut other = [1; 32];
            other[byte] ^= 1;
            assert_ne!(hash([1; 32]), hash(other), "{byte}");
        }
    }

    #[test]
    fn the_digest_is_the_same_in_every_build() {
        // States of the past are compared with it.
        let expected = [68, 26, 75, 28, 220, 178, 20, 151, 51, 0, 153, 35, 39, 207, 104, 97];
        assert_eq!(digest(b"{}", Some("123456789012"), Some("eu-west-1")).hash, expected);
    }

    #[test]
    fn a_secret_is_not_told() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret");
    }
}
