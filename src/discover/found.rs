//! What the first look finds, before anything else is believed.

use super::quirks::Quirks;
use super::refusal::NodeName;
use crate::addr::{Extent, Pa};

/// An SMMU, as far as it must be known to switch it to abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundSmmu {
    /// What firmware calls it.
    pub name: NodeName,
    /// Its registers.
    pub registers: Extent<Pa>,
    /// What must be done differently.
    pub quirks: Quirks,
    /// Whether firmware says that it may be used; always with ACPI, which does not list others.
    ///
    /// One that may not must not be touched: it may have no power or no clock, or be the secure
    /// world's, and an access would then end in an abort that nobody can take yet. That fails
    /// closed all the same, because devices behind it are [`Unprotected`](super::StreamsOf)
    /// and are given to nobody. A HiSilicon D05 has such a one in front of its PCIe.
    pub is_enabled: bool,
}
