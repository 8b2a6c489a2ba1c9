//! Commands (§4).

use super::bits::Field;
use crate::id::{StreamId, SubstreamId};

mod device;
mod tlbi;

pub use device::ResumeAction;
pub use tlbi::{TlbiRange, TlbiScope};

const OPCODE: Field = Field::bits(7, 0);
const SSID: Field = Field::bits(31, 12);
const SID: Field = Field::bits(63, 32);
const LEAF: Field = Field::bit(64);
const RANGE: Field = Field::bits(68, 64);

/// CMD_CFGI_STE_RANGE with this range is CMD_CFGI_ALL (§4.3.2).
const RANGE_ALL: u64 = 31;

/// A command as it lies in the queue: 16 bytes, little-endian, reserved bits 0.
///
/// A plain value: making one changes nothing. §4.1.
///
/// CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR have no constructor: they are hints, and some parts
/// must never be sent one (`hisilicon,broken-prefetch-cmd`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command([u64; 2]);

/// Which cached configuration a CMD_CFGI_STE drops besides the STE and its CDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CfgiScope {
    /// The STE alone (`Leaf == 1`).
    Leaf,
    /// The L1STD on the way to it as well (`Leaf == 0`).
    Path,
}

impl Command {
    const fn new(opcode: u64) -> Self {
        let mut words = [0; 2];
        OPCODE.set(&mut words, opcode);
        Self(words)
    }

    const fn with(mut self, field: Field, value: u64) -> Self {
        field.set(&mut self.0, value);
        self
    }

    /// CMD_CFGI_STE: drops what is cached of `stream`'s STE, and every CD and L1CD cached through it.
    /// Translations stay. §4.3.1.
    pub const fn cfgi_ste(stream: StreamId, scope: CfgiScope) -> Self {
        let leaf = match scope {
            CfgiScope::Leaf => 1,
            CfgiScope::Path => 0,
        };
        Self::new(0x03)
            .with(SID, stream.as_u32() as u64)
            .with(LEAF, leaf)
    }

    /// CMD_CFGI_ALL: drops all cached configuration. §4.3.2.
    pub const fn cfgi_all() -> Self {
        Self::new(0x04).with(RANGE, RANGE_ALL)
    }

    /// CMD_CFGI_CD: drops what is cached of `stream`'s CD number `index`, 0 where there is one, and
    /// of the L1CD on the way to it. Translations stay. §4.3.3.
    pub const fn cfgi_cd(stream: StreamId, index: SubstreamId) -> Self {
        Self::new(0x05)
            .with(SSID, index.as_u32() as u64)
            .with(SID, stream.as_u32() as u64)
    }

    /// CMD_CFGI_CD_ALL: drops every CD and L1CD that is cached of `stream`. §4.3.4.
    pub const fn cfgi_cd_all(stream: StreamId) -> Self {
        Self::new(0x06).with(SID, stream.as_u32() as u64)
    }

    /// CMD_SYNC that signals by the consumer index alone (`CS == 0`). §4.7.3.
    pub const fn sync() -> Self {
        Self::new(0x46)
    }

    /// A reserved opcode: what an SMMU must refuse with CERROR_ILL. For checks of that path alone.
    pub const fn reserved() -> Self {
        Self::new(0xff)
    }

    /// The two words, in the order of memory.
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// The command that lies in memory as `words`.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }
}

#[cfg(test)]
mod tests;
