//! What is seen while a program runs, as lines that two SMMUs can be compared by.

use core::fmt::{self, Display};

use crate::run::ARENA_BYTES;
use crate::word::Word;

/// One thing seen. Its text holds no address of the machine: an address in the arena is told
/// relative to it.
#[derive(Clone, Copy, Debug)]
pub enum Observation {
    /// A device wrote.
    Wrote {
        /// Its StreamID.
        stream: u32,
        /// Where to.
        to: Word,
        /// How far into the arena it landed, if it did.
        landed: Option<u64>,
    },
    /// A device read.
    Read {
        /// Its StreamID.
        stream: u32,
        /// Where from.
        from: Word,
        /// What came; 0 is what a device gets that gets nothing.
        found: u32,
    },
    /// A device wrote many times.
    Burst {
        /// Its StreamID.
        stream: u32,
        /// Where to.
        to: Word,
        /// How often.
        times: u32,
        /// How many of the writes landed.
        landed: u32,
    },
    /// An event record.
    Event(Record),
    /// The state of the queues and of GERROR.
    State(State),
    /// The SMMU did not do in time what it was told.
    Stuck(&'static str),
}

/// An event record and what is needed to tell it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The four words.
    pub words: [u64; 4],
    /// Where the arena is.
    pub arena: u64,
    /// The address that the device put out last.
    pub sent: u64,
}

/// Queues and errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// Which of the commands of the program, from 0, the SMMU stopped at; `None`: all consumed.
    pub stopped_at: Option<u32>,
    /// CMDQ_CONS.ERR; only told while CMDQ_ERR is active, when it is valid.
    pub error: u32,
    /// The active bits of GERROR.
    pub active: u32,
    /// Whether EVENTQ_PROD.OVFLG tells of a loss that is not acknowledged.
    pub overflow: bool,
}

impl Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrote { stream, to, landed } => {
                write!(f, "stream {stream:#x} writes at {to}: ")?;
                match landed {
                    Some(offset) => write!(f, "landed at arena+{offset:#x}"),
                    None => f.write_str("did not land"),
                }
            }
            Self::Read {
                stream,
                from,
                found,
            } => write!(f, "stream {stream:#x} reads at {from}: {found:#x}"),
            Self::Burst {
                stream,
                to,
                times,
                landed,
            } => write!(
                f,
                "stream {stream:#x} writes {times} times at {to}: {landed} landed"
            ),
            Self::Event(record) => record.fmt(f),
            Self::State(state) => state.fmt(f),
            Self::Stuck(what) => write!(f, "stuck: {what}"),
        }
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stopped_at {
            None => f.write_str("commands consumed")?,
            Some(command) => write!(f, "stopped at command {command}")?,
        }
        if self.active & 1 != 0 {
            write!(f, " with error {}", self.error)?;
        }
        write!(f, ", GERROR {:#x}", self.active)?;
        if self.overflow {
            f.write_str(", events lost")?;
        }
        Ok(())
    }
}

const fn bits(word: u64, high: u32, low: u32) -> u64 {
    word >> low & u64::MAX >> (63 - (high - low))
}

/// Which fields a record has (§7.3).
struct Fields {
    name: &'static str,
    has_access: bool,
    second: Second,
}

enum Second {
    None,
    Ipa,
    FetchAddress,
}

const fn fields(number: u64) -> Fields {
    let (name, has_access, second) = match number {
        0x02 => ("C_BAD_STREAMID", false, Second::None),
        0x03 => ("F_STE_FETCH", false, Second::FetchAddress),
        0x04 => ("C_BAD_STE", false, Second::None),
        0x08 => ("C_BAD_SUBSTREAMID", false, Second::None),
        0x09 => ("F_CD_FETCH", false, Second::FetchAddress),
        0x0a => ("C_BAD_CD", false, Second::None),
        0x0b => ("F_WALK_EABT", true, Second::FetchAddress),
        0x10 => ("F_TRANSLATION", true, Second::Ipa),
        0x11 => ("F_ADDR_SIZE", true, Second::Ipa),
        0x12 => ("F_ACCESS", true, Second::Ipa),
        0x13 => ("F_PERMISSION", true, Second::Ipa),
        _ => ("another event", false, Second::None),
    };
    Fields {
        name,
        has_access,
        second,
    }
}

impl Display for Record {
    /// Every bit is told, save those that the architecture leaves UNKNOWN or to the
    /// implementation: the SubstreamID without SSV, the IPA of a stage 1 fault, Reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [w0, w1, w2, w3] = self.words;
        let Fields {
            name,
            has_access,
            second,
        } = fields(bits(w0, 7, 0));
        write!(f, "event {name} of stream {:#x}", bits(w0, 63, 32))?;
        let mut rest = [w0 & 0x700, w1, w2, w3];
        if bits(w0, 11, 11) == 1 {
            write!(f, " substream {:#x}", bits(w0, 31, 12))?;
        }
        if has_access {
            f.write_str(if bits(w1, 35, 35) == 1 {
                " read"
            } else {
                " write"
            })?;
            if bits(w1, 33, 33) == 1 {
                f.write_str(" privileged")?;
            }
            f.write_str(if bits(w1, 39, 39) == 1 { " S2" } else { " S1" })?;
            f.write_str(match bits(w1, 41, 40) {
                0 => " CD",
                1 => " TT",
                2 => " IN",
                _ => " CLASS=3",
            })?;
            write!(f, " at {}", self.place(w2))?;
            rest[1] &= !(0b11_1000_1010 << 32);
            rest[2] = 0;
        }
        match second {
            Second::None => {}
            Second::Ipa if bits(w1, 39, 39) == 1 => {
                write!(f, " IPA {}", self.place(w3))?;
                rest[3] = 0;
            }
            Second::Ipa => rest[3] = 0,
            Second::FetchAddress => {
                write!(f, " fetch {}", self.place(w3))?;
                // Reason.
                rest[1] &= !0xffff;
                rest[3] = 0;
            }
        }
        if rest != [0; 4] {
            let [w0, w1, w2, w3] = rest.map(|word| self.place(word));
            write!(f, " other bits {w0} {w1} {w2} {w3}")?;
        }
        Ok(())
    }
}

impl Record {
    /// An address, told by what it is near: the text is the same wherever the arena is.
    fn place(&self, address: u64) -> impl Display + use<> {
        let offset = address.wrapping_sub(self.arena);
        let sent = self.sent;
        fmt::from_fn(move |f| {
            if address == sent & !0xfff && address != 0 {
                f.write_str("the page sent")
            } else if address == sent {
                f.write_str("the address sent")
            } else if offset < ARENA_BYTES {
                write!(f, "arena+{offset:#x}")
            } else {
                write!(f, "{address:#x}")
            }
        })
    }
}
