//! What a call answers.

use super::Registers;

/// How many words a call answers, always.
const ALWAYS: usize = 3;
/// How many it can.
const MOST: usize = 17;

/// The words from `x1` on; `x1` to `x3` are 0 where a call has nothing to say there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Results {
    words: [u64; MOST],
    count: usize,
}

impl Results {
    pub(super) const NONE: Self = Self {
        words: [0; MOST],
        count: 0,
    };

    /// These words; at most 17.
    pub(super) fn of(words: &[u64]) -> Self {
        let mut results = Self::NONE;
        for (to, word) in results.words.iter_mut().zip(words) {
            *to = *word;
            results.count += 1;
        }
        results
    }

    /// A word and as many words of bytes as there are bytes.
    pub(super) fn of_bytes(first: u64, bytes: &[u8]) -> Self {
        let mut results = Self::of(&[first]);
        let (_, rest) = results.words.split_at_mut(1);
        for (to, eight) in rest.iter_mut().zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            *to = u64::from_le_bytes(word);
            results.count += 1;
        }
        results
    }

    /// Stores them behind `x0`; what is not among them stays as it was.
    pub(super) fn store(&self, registers: &mut Registers) {
        let count = self.count.max(ALWAYS);
        for (to, word) in registers.iter_mut().skip(1).zip(self.words).take(count) {
            *to = word;
        }
    }
}
