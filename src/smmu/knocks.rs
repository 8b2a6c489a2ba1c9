//! Who knocked: streams that nobody published, and that tried.

use crate::id::StreamId;

/// How many streams are told apart.
pub const MAX_KNOCKS: usize = 16;

/// Streams that tried to reach memory and have no entry that lets them.
///
/// Bounded: the first [`MAX_KNOCKS`] by name, the rest as a number of attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Knocks {
    streams: [Option<Knock>; MAX_KNOCKS],
    others: u64,
}

/// One stream that tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knock {
    /// Which.
    pub stream: StreamId,
    /// How often it was seen to; events that were lost or merged are not counted.
    pub attempts: u64,
}

impl Knocks {
    pub(super) const fn new() -> Self {
        Self {
            streams: [None; MAX_KNOCKS],
            others: 0,
        }
    }

    pub(super) fn note(&mut self, stream: StreamId) {
        for slot in &mut self.streams {
            let knock = slot.get_or_insert(Knock {
                stream,
                attempts: 0,
            });
            if knock.stream == stream {
                knock.attempts = knock.attempts.saturating_add(1);
                return;
            }
        }
        self.others = self.others.saturating_add(1);
    }

    /// The streams, in the order in which they were first seen.
    pub fn streams(&self) -> impl Iterator<Item = Knock> + '_ {
        self.streams.iter().flatten().copied()
    }

    /// Attempts of streams that there was no room for.
    pub const fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart_until_there_is_no_room() {
        let mut knocks = Knocks::new();
        for round in 0..2 {
            for stream in 0..20 {
                knocks.note(StreamId::new(stream));
            }
            assert_eq!(knocks.others(), 4 * (round + 1));
        }
        assert_eq!(knocks.streams().count(), MAX_KNOCKS);
        assert!(knocks.streams().all(|knock| knock.attempts == 2));
        assert_eq!(
            knocks.streams().next().map(|knock| knock.stream),
            Some(StreamId::new(0))
        );
    }
}
