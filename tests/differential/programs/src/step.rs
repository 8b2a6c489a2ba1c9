//! What a program is made of.

use crate::word::Word;

/// A short program: what is done to an SMMU that is up, with an empty stream table and all its
/// caches empty, and memory that holds zeros.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it shows, in words joined by hyphens; its own.
    pub name: &'static str,
    /// What is done, in order.
    pub steps: &'static [Step],
}

/// 16 bytes of the command queue.
pub type Command = [Word; 2];

/// One step of a program.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// These steps.
    All(&'static [Step]),
    /// Stores a word, so many bytes into the arena.
    Store(u64, Word),
    /// Stores four words, one after the other: an entry, the rest of which is 0.
    Entry(u64, [Word; 4]),
    /// Stores `count` words from `at` on, each `stride` more than the one before.
    Fill {
        /// Where the first goes, in bytes from the start of the arena.
        at: u64,
        /// How many.
        count: u64,
        /// The first.
        first: Word,
        /// How much more the next is.
        stride: u64,
    },
    /// Has the SMMU consume these commands and a CMD_SYNC.
    Commands(&'static [Command]),
    /// Puts a CMD_SYNC in place of the command at which the SMMU stopped, and acknowledges what
    /// GERROR has active.
    Repair,
    /// A device writes 4 bytes.
    Write(u32, Word),
    /// A device reads 4 bytes.
    Read(u32, Word),
    /// A device writes 4 bytes so many times, before anybody looks at the event queue.
    Burst(u32, Word, u32),
    /// Writes a 32-bit register.
    Register32(u64, u32),
    /// Writes a 64-bit register.
    Register64(u64, Word),
    /// Writes CR0, and waits for the acknowledgement.
    Cr0(u32),
    /// Writes GBPA, with Update, and waits until that is done.
    Gbpa(u32),
}
