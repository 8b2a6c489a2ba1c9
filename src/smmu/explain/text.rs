//! Explanations in words.

use core::fmt;

use super::{Explanation, Found, Outcome, Purpose, Reason, Stage, Stop, Structure};

impl Reason {
    /// The event that the SMMU records, if it records any, and where the manual has it.
    pub const fn event(&self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::GateShut | Self::EntryAborts => return None,
            Self::StreamTooLarge { .. } | Self::NoEntry { .. } => ("C_BAD_STREAMID", "7.3.3"),
            Self::EntryInvalid | Self::EntryIllegal(_) => ("C_BAD_STE", "7.3.5"),
            Self::SubstreamMissing | Self::SubstreamZero => ("F_STREAM_DISABLED", "7.3.7"),
            Self::NoSubstreams | Self::SubstreamTooLarge { .. } | Self::NoContext { .. } => {
                ("C_BAD_SUBSTREAMID", "7.3.9")
            }
            Self::ContextInvalid | Self::ContextIllegal(_) => ("C_BAD_CD", "7.3.11"),
            Self::InputTooWide { .. } => ("F_ADDR_SIZE", "7.3.14"),
            Self::Stage { stop, .. } => stop.event(),
        })
    }

    /// Where the manual says that it aborts.
    const fn section(&self) -> &'static str {
        match self {
            Self::GateShut => "6.3.15",
            Self::StreamTooLarge { .. } => "3.3.1",
            Self::NoEntry { .. } => "5.1",
            Self::EntryInvalid | Self::EntryAborts | Self::EntryIllegal(_) => "5.2",
            Self::NoSubstreams
            | Self::SubstreamTooLarge { .. }
            | Self::SubstreamMissing
            | Self::SubstreamZero => "5.2",
            Self::NoContext { .. } => "5.3",
            Self::ContextInvalid | Self::ContextIllegal(_) => "5.4",
            Self::InputTooWide { .. } | Self::Stage { .. } => "3.4",
        }
    }
}

impl Stop {
    const fn event(&self) -> (&'static str, &'static str) {
        match self {
            Self::OutOfRange { .. } | Self::WalksOff | Self::Invalid(_) => {
                ("F_TRANSLATION", "7.3.13")
            }
            Self::OutputSize(_) => ("F_ADDR_SIZE", "7.3.14"),
            Self::AccessFlag(_) => ("F_ACCESS", "7.3.15"),
            Self::Permission(_) | Self::DeviceMemory(_) => ("F_PERMISSION", "7.3.16"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.stream)?;
        if let Some(substream) = self.substream {
            write!(f, " with SubstreamID {:#x}", substream.as_u32())?;
        }
        write!(f, " at {}, by the tables in memory now:", self.address)?;
        if let Some(entry) = &self.entry {
            write!(f, "\n  the entry at {} {}", entry.at, Config(entry.word))?;
            if entry.word & 0b1001 == 0b1001 && entry.word & 0b0100 != 0 {
                write!(f, ", VMID {}, tables at {}", entry.vmid, entry.root)?;
            }
        }
        if let Some(context) = &self.context {
            write!(f, "\n  the context at {:#x}", context.at)?;
            write!(f, " has ASID {}", context.asid)?;
        }
        if let Some(intermediate) = self.intermediate {
            write!(f, "\n  stage 1 makes {intermediate:#x} of it")?;
        }
        write!(f, "\n  {}", self.outcome)
    }
}

/// The first word of an entry.
struct Config(u64);

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0 & 1, self.0 >> 1 & 0b111) {
            (0, _) => "is not valid",
            (_, 0b000..=0b011) => "aborts",
            (_, 0b100) => "bypasses both stages",
            (_, 0b101) => "has stage 1 alone",
            (_, 0b110) => "has stage 2 alone",
            _ => "has both stages",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reaches {
                pa,
                can_read,
                can_write,
            } => {
                let what = match (can_read, can_write) {
                    (true, true) => "to read and write",
                    (true, false) => "to read; a write is F_PERMISSION (§7.3.16)",
                    (false, true) => "to write; a read is F_PERMISSION (§7.3.16)",
                    (false, false) => "neither to read nor to write: F_PERMISSION (§7.3.16)",
                };
                write!(f, "it reaches {pa}, {what}")
            }
            Self::Bypasses => f.write_str("it passes untranslated"),
            Self::Aborts(reason) => {
                write!(f, "it aborts: {reason} (§{})", reason.section())?;
                match reason.event() {
                    Some((event, section)) => write!(f, ", {event} (§{section})"),
                    None => f.write_str(", no event"),
                }
            }
            Self::Unreadable { what, at } => {
                write!(f, "{what} at {at} cannot be read from here")
            }
        }
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1Std => "the level 1 stream table descriptor",
            Self::Ste => "the stream table entry",
            Self::L1Cd => "the level 1 context descriptor",
            Self::Cd => "the context descriptor",
            Self::Descriptor(Stage::One) => "the stage 1 descriptor",
            Self::Descriptor(Stage::Two) => "the stage 2 descriptor",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "stage 1",
            Self::Two => "stage 2",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GateShut => f.write_str("translation is off and GBPA.ABORT on"),
            Self::StreamTooLarge { log2_streams } => {
                write!(f, "the stream table has 2^{log2_streams} entries")
            }
            Self::NoEntry { at, word } => {
                write!(
                    f,
                    "the level 1 descriptor at {at}, {word:#x}, has no entry for it"
                )
            }
            Self::EntryInvalid => f.write_str("the entry is not valid"),
            Self::EntryAborts => f.write_str("the entry says so"),
            Self::EntryIllegal(what) => write!(f, "the entry is ILLEGAL: {what}"),
            Self::NoSubstreams => f.write_str("the stream has no SubstreamIDs"),
            Self::SubstreamTooLarge { log2_contexts } => {
                write!(f, "the stream has 2^{log2_contexts} SubstreamIDs")
            }
            Self::SubstreamMissing => f.write_str("S1DSS wants a SubstreamID"),
            Self::SubstreamZero => f.write_str("S1DSS keeps SubstreamID 0 for traffic without one"),
            Self::NoContext { at, word } => {
                write!(
                    f,
                    "the level 1 context descriptor at {at:#x}, {word:#x}, is not valid"
                )
            }
            Self::ContextInvalid => f.write_str("the context is not valid"),
            Self::ContextIllegal(what) => write!(f, "the context is ILLEGAL: {what}"),
            Self::InputTooWide { bits } => write!(f, "the address has more than {bits} bits"),
            Self::Stage {
                stage,
                input,
                purpose,
                stop,
            } => {
                let of = match purpose {
                    Purpose::Input => "",
                    Purpose::Table => ", where a stage 1 descriptor lies",
                    Purpose::Context => ", where a context descriptor lies",
                };
                write!(f, "{stage} of {input:#x}{of}: {stop}")
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, at, word } = self;
        write!(f, "the level {level} descriptor at {at:#x}, {word:#x},")
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { bits } => write!(f, "the tables resolve {bits} bits"),
            Self::WalksOff => f.write_str("walks are off (EPD)"),
            Self::Invalid(found) => write!(f, "{found} is not valid"),
            Self::OutputSize(found) => write!(f, "{found} leads past the output addresses"),
            Self::AccessFlag(found) => write!(f, "{found} has no access flag"),
            Self::Permission(found) => write!(f, "{found} does not permit it"),
            Self::DeviceMemory(found) => write!(f, "{found} is Device memory (S2PTW)"),
        }
    }
}
