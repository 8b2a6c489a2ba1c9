//! Under which other RIDs what a function does may come.

use super::config::Ecam;
use super::refusal::Refusal;
use super::scan::{DOWNSTREAM_PORT, EXPRESS_CAPABILITY, MAX_DEPTH, ROOT_PORT};
use crate::discover::Rid;
use crate::hw::Registers;

/// PCIe §7.5.3.2: device/port types of bridges.
const UPSTREAM_PORT: u8 = 5;
const TO_PCI: u8 = 7;

/// The RIDs that bridges above a function put in the place of its own, at most one a bridge.
///
/// Not all that comes from behind such a bridge need have one of them, so the function's own RID
/// counts too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aliases {
    rids: [Rid; MAX_DEPTH],
    count: u8,
}

impl Aliases {
    /// Every bridge above passes RIDs on, as those of PCI Express do.
    pub const NONE: Self = Self {
        rids: [Rid::from_u16(0); MAX_DEPTH],
        count: 0,
    };

    /// These and `alias`; only bridges that are not too deep are gone behind, so that there is room.
    pub(super) fn and(mut self, alias: Option<Rid>) -> Self {
        if let (Some(alias), Some(slot)) = (alias, self.rids.get_mut(usize::from(self.count))) {
            *slot = alias;
            self.count += 1;
        }
        self
    }

    /// The RIDs, those of the outermost bridge first.
    pub fn as_slice(&self) -> &[Rid] {
        self.rids.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

impl<R: Registers> Ecam<R> {
    /// The RID that the bridge `rid` puts in the place of those of the functions behind it, on bus
    /// `secondary` and further; `None` if it passes theirs on.
    ///
    /// A port of PCI Express passes them on. A bridge from PCI Express to PCI answers for what is
    /// behind it as function 0 of device 0 of its secondary bus (PCIe-to-PCI/PCI-X Bridge 1.0
    /// §2.3). Any other bridge is taken to use its own: PCI knows no RIDs that it could pass on.
    ///
    /// # Errors
    ///
    /// [`Refusal::CapabilityPlace`] and [`Refusal::CapabilityLoop`] if it does not say what it is,
    /// [`Refusal::NoSuchBus`].
    pub fn alias_behind(&self, rid: Rid, secondary: u8) -> Result<Option<Rid>, Refusal> {
        Ok(match self.port_type(rid)? {
            Some(ROOT_PORT | UPSTREAM_PORT | DOWNSTREAM_PORT) => None,
            Some(TO_PCI) => Rid::new(secondary, 0, 0),
            Some(_) | None => Some(rid),
        })
    }

    /// What PCI Express calls the device or port; `None` if it is none of PCI Express.
    pub(super) fn port_type(&self, rid: Rid) -> Result<Option<u8>, Refusal> {
        match self.capability(rid, EXPRESS_CAPABILITY) {
            Ok(at) => Ok(Some((self.read(rid, at)? >> 20 & 0xf) as u8)),
            Err(Refusal::NoCapability { .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}
