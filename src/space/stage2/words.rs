//! Refusals in words.

use core::fmt;

use super::Stage2Error;
use crate::hw::NoTables;
use crate::spec::vmsa::GeometryError;

impl fmt::Display for Stage2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(why) => why.fmt(f),
            Self::NotWholePages { ipa, size_bytes } => {
                write!(f, "{size_bytes:#x} bytes at IPA {ipa} are not whole pages")
            }
            Self::NotAPage { pa } => write!(f, "memory at {pa} does not begin a page"),
            Self::PastInput { ipa_bits } => {
                write!(f, "the range runs past {ipa_bits}-bit input addresses")
            }
            Self::PastOutput { output_bits } => {
                write!(f, "the memory runs past {output_bits}-bit output addresses")
            }
            Self::AlreadyMapped { ipa } => write!(f, "IPA {ipa} is mapped already"),
            Self::NotMapped { ipa } => write!(f, "IPA {ipa} is not mapped"),
            Self::SplitNeeded { ipa, log2_bytes } => write!(
                f,
                "the range ends within the leaf of 2^{log2_bytes} bytes at IPA {ipa}, which is in use"
            ),
            Self::BreakNeeded { ipa, log2_bytes } => write!(
                f,
                "the leaf of 2^{log2_bytes} bytes at IPA {ipa} cannot change its size in use (BBML 0)"
            ),
            Self::OtherView { ipa } => {
                write!(f, "the root's entry for IPA {ipa} is for other walkers")
            }
            Self::OneRoot => f.write_str("devices and CPUs share the one root"),
            Self::InWindow { window } => {
                write!(f, "only the window at {window} changes what is in it")
            }
            Self::ForeignChange => f.write_str("the change is another stage 2's"),
            Self::FlushNeeded => {
                f.write_str("some SMMU must be told of tables that this may make (162100602)")
            }
            Self::NoTables(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for NoTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrames { log2_bytes } => {
                write!(f, "no memory for tables: 2^{log2_bytes} bytes")
            }
            Self::FramesTooHigh { base } => {
                write!(
                    f,
                    "memory for tables at {base} is past the output addresses"
                )
            }
            Self::OverQuota { pages, quota_pages } => {
                write!(
                    f,
                    "{pages} table pages would be more than the quota of {quota_pages}"
                )
            }
        }
    }
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchOutputSize { oas_bits } => {
                write!(f, "no output address has {oas_bits} bits")
            }
            Self::InputTooWide { ipa_bits, at_most } => {
                write!(
                    f,
                    "{ipa_bits}-bit input addresses are wider than {at_most} bits"
                )
            }
            Self::InputTooNarrow { ipa_bits, at_least } => {
                write!(
                    f,
                    "{ipa_bits}-bit input addresses are narrower than {at_least} bits"
                )
            }
            Self::NoSuchStart { start } => {
                write!(f, "no walk of that size starts at level {}", start.as_u8())
            }
        }
    }
}

impl core::error::Error for Stage2Error {}
impl core::error::Error for NoTables {}
impl core::error::Error for GeometryError {}
