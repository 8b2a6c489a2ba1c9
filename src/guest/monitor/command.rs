//! What was typed, understood.

use core::fmt;

use crate::addr::Iova;
use crate::id::{StreamId, SubstreamId};
use crate::space::{SmmuId, SpaceId};

/// A command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// What there is to say.
    Help,
    /// Memory, CPUs, console.
    Machine,
    /// The SMMUs.
    Smmus,
    /// Devices, their streams, and whose they are.
    Streams,
    /// The guests.
    Guests,
    /// The spaces of a guest.
    Spaces(&'a str),
    /// What a transaction would meet.
    Explain {
        /// Behind which SMMU.
        smmu: SmmuId,
        /// Whose.
        stream: StreamId,
        /// With which PASID.
        substream: Option<SubstreamId>,
        /// Where.
        address: Iova,
    },
    /// What devices did wrong.
    Faults,
    /// How much there is of everything.
    Stats,
    /// Takes a space away from all devices.
    Release(&'a str, SpaceName),
    /// Ends a guest.
    Kill(&'a str),
}

/// A space as `spaces` names it: its place, a point, its generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceName(pub SpaceId);

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, generation) = self.0.parts();
        write!(f, "{place}.{generation}")
    }
}

/// Why a line is no command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misunderstood<'a> {
    /// There is no such command.
    Unknown(&'a str),
    /// The command has other words behind it.
    Usage(&'static str),
    /// The word is no such thing.
    Not(&'a str, &'static str),
}

impl fmt::Display for Misunderstood<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "there is no `{word}`; try `help`"),
            Self::Usage(usage) => write!(f, "it is: {usage}"),
            Self::Not(word, what) => write!(f, "`{word}` is no {what}"),
        }
    }
}

/// The commands, how they are typed, and what they do.
pub(super) const USAGES: &[(&str, &str)] = &[
    ("help", "this"),
    ("machine", "memory, CPUs, console"),
    ("smmus", "the SMMUs, and how they are"),
    ("streams", "devices, their streams, whose they are"),
    ("guests", "the guests"),
    ("spaces GUEST", "the address spaces of a guest"),
    (
        "explain [SMMU:]STREAM PASID ADDR",
        "what a transaction would meet; PASID - is none",
    ),
    ("faults", "what devices did wrong"),
    ("stats", "how much there is of everything"),
    ("release GUEST SPACE", "take a space away from all devices"),
    ("kill GUEST", "end a guest"),
];

impl<'a> Command<'a> {
    /// The command of a line; `None` if there are no words on it.
    ///
    /// # Errors
    ///
    /// [`Misunderstood`].
    pub fn parse(line: &'a str) -> Result<Option<Self>, Misunderstood<'a>> {
        let mut words = [""; 5];
        let mut count = 0;
        for word in line.split_ascii_whitespace() {
            // One too many is as good as more.
            if let Some(slot) = words.get_mut(count) {
                *slot = word;
                count += 1;
            }
        }
        let [name, first, second, third, _] = words;
        let command = match (name, count) {
            ("", _) => return Ok(None),
            ("help", 1) => Self::Help,
            ("machine", 1) => Self::Machine,
            ("smmus", 1) => Self::Smmus,
            ("streams", 1) => Self::Streams,
            ("guests", 1) => Self::Guests,
            ("spaces", 2) => Self::Spaces(first),
            ("explain", 4) => explain(first, second, third)?,
            ("faults", 1) => Self::Faults,
            ("stats", 1) => Self::Stats,
            ("release", 3) => Self::Release(first, space(second)?),
            ("kill", 2) => Self::Kill(first),
            _ => {
                let usage = USAGES
                    .iter()
                    .find(|(usage, _)| usage.split(' ').next() == Some(name));
                return Err(match usage {
                    Some((usage, _)) => Misunderstood::Usage(usage),
                    None => Misunderstood::Unknown(name),
                });
            }
        };
        Ok(Some(command))
    }
}

fn explain<'a>(
    stream: &'a str,
    pasid: &'a str,
    address: &'a str,
) -> Result<Command<'a>, Misunderstood<'a>> {
    let (smmu, number) = stream.split_once(':').unwrap_or(("0", stream));
    let smmu = number_of(smmu).and_then(|it| SmmuId::new(u8::try_from(it).ok()?));
    let stream_id = number_of(number).and_then(|it| u32::try_from(it).ok());
    let (Some(smmu), Some(stream_id)) = (smmu, stream_id) else {
        return Err(Misunderstood::Not(stream, "stream"));
    };
    let substream = match pasid {
        "-" => None,
        text => {
            let number = number_of(text).and_then(|it| u32::try_from(it).ok());
            let substream = number.and_then(SubstreamId::new);
            Some(substream.ok_or(Misunderstood::Not(text, "PASID"))?)
        }
    };
    let address = number_of(address).ok_or(Misunderstood::Not(address, "address"))?;
    Ok(Command::Explain {
        smmu,
        stream: StreamId::new(stream_id),
        substream,
        address: Iova::new(address),
    })
}

fn space(text: &str) -> Result<SpaceName, Misunderstood<'_>> {
    let name = || {
        let (place, generation) = text.split_once('.')?;
        let place = u32::try_from(number_of(place)?).ok()?;
        Some(SpaceId::from_parts(place, number_of(generation)?))
    };
    name()
        .map(SpaceName)
        .ok_or(Misunderstood::Not(text, "space: PLACE.GENERATION"))
}

/// A number, decimal or with 0x before it.
pub(super) fn number_of(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    // `from_str_radix` takes a sign too.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString as _};

    use super::*;

    fn said(line: &str) -> String {
        match Command::parse(line) {
            Ok(command) => panic!("{line}: {command:?}"),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn every_command_is_understood() {
        assert_eq!(Command::parse("  "), Ok(None));
        assert_eq!(Command::parse(" guests "), Ok(Some(Command::Guests)));
        assert_eq!(Command::parse("spaces a"), Ok(Some(Command::Spaces("a"))));
        let space = SpaceName(SpaceId::from_parts(7, 0x10));
        assert_eq!(
            Command::parse("release b 7.16"),
            Ok(Some(Command::Release("b", space)))
        );
        assert_eq!(space.to_string(), "7.16");
        let explain = |smmu, stream, substream: Option<u32>, address| {
            Ok(Some(Command::Explain {
                smmu: SmmuId::new(smmu).expect("below 16"),
                stream: StreamId::new(stream),
                substream: substream.and_then(SubstreamId::new),
                address: Iova::new(address),
            }))
        };
        let found = Command::parse("explain 0x10 - 4096");
        assert_eq!(found, explain(0, 0x10, None, 4096));
        let found = Command::parse("explain 3:16 0x5 0xffffffffffffffff");
        assert_eq!(found, explain(3, 16, Some(5), u64::MAX));
        for (usage, _) in USAGES {
            let plain = usage.replace("[SMMU:]STREAM PASID ADDR", "1 2 3");
            let plain = plain.replace("SPACE", "1.1");
            assert!(Command::parse(&plain).is_ok(), "{plain}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused_by_its_word() {
        assert_eq!(said("reboot now"), "there is no `reboot`; try `help`");
        assert_eq!(said("kill"), "it is: kill GUEST");
        assert_eq!(said("kill a b"), "it is: kill GUEST");
        assert_eq!(said("guests 1 2 3 4 5 6 7"), "it is: guests");
        assert_eq!(said("explain x 1 2"), "`x` is no stream");
        assert_eq!(said("explain 16:1 1 2"), "`16:1` is no stream");
        assert_eq!(said("explain 1 0x100000 2"), "`0x100000` is no PASID");
        assert_eq!(said("explain 1 1 +2"), "`+2` is no address");
        assert_eq!(said("explain 1 1 0x"), "`0x` is no address");
        assert_eq!(said("release a 7"), "`7` is no space: PLACE.GENERATION");
    }
}
