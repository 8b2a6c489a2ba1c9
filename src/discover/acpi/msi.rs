//! Which DeviceID an ITS sees with a device's MSIs, for a report.

use super::iort::{Iort, Kind, Node};
use super::maps::Hop;
use super::streams::segment_of;
use super::tables::AcpiTables;
use crate::discover::bridge::Rid;
use crate::discover::refusal::Refusal;

/// Where a device's MSIs go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msis {
    /// The ITS, as MADT numbers it: the first of the group.
    pub its: u32,
    /// What the ITS takes the device for.
    pub device_id: u32,
}

impl AcpiTables<'_> {
    /// Where the MSIs of the PCI function `rid` of segment `segment` go, through an SMMU or not;
    /// `None` if IORT leads them to no ITS.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if IORT makes no sense.
    pub fn msis_of(&self, segment: u16, rid: Rid) -> Result<Option<Msis>, Refusal> {
        let Some(iort) = Iort::read(self)? else {
            return Ok(None);
        };
        let node = iort
            .nodes_of(Kind::RootComplex)
            .find(|node| segment_of(node) == Ok(segment));
        let hop = node.and_then(|node| node.hop(rid.as_u16().into()));
        Ok(hop.and_then(|hop| follow(&iort, hop)))
    }

    /// Where the MSIs of the device at `place` of [`Machine::devices`](crate::discover::Machine) go,
    /// where all of them go to one place.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if IORT makes no sense.
    pub fn msis_of_device(&self, place: usize) -> Result<Option<Msis>, Refusal> {
        let Some(iort) = Iort::read(self)? else {
            return Ok(None);
        };
        let node = iort.nodes_of(Kind::NamedComponent).nth(place);
        let all = |node: Node<'_>| {
            let mut found = node.maps().filter(|map| map.is_single).filter_map(|map| {
                let (to, id) = (map.to, map.output_base);
                follow(&iort, Hop { to, id })
            });
            let first = found.next()?;
            found.all(|other| other == first).then_some(first)
        };
        Ok(node.and_then(all))
    }

    /// Where the MSIs of the SMMU itself go that is at `place` of
    /// [`Machine::smmus`](crate::discover::Machine); `None` if it has wires, or nothing.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if IORT makes no sense.
    pub fn msis_of_smmu(&self, place: usize) -> Result<Option<Msis>, Refusal> {
        let Some(iort) = Iort::read(self)? else {
            return Ok(None);
        };
        let node = iort.nodes_of(Kind::SmmuV3).nth(place);
        let hop = node.and_then(|node| node.own_hop());
        Ok(hop.and_then(|hop| follow(&iort, hop)))
    }
}

/// Follows an id to the ITS: through an SMMU, if at all, and no further node.
fn follow(iort: &Iort<'_>, hop: Hop) -> Option<Msis> {
    let node = iort.node(hop.to)?;
    let (group, device_id) = match node.kind {
        Kind::SmmuV3 | Kind::OtherSmmu => {
            let behind = node.hop(hop.id)?;
            (iort.node(behind.to)?, behind.id)
        }
        _ => (node, hop.id),
    };
    if group.kind != Kind::ItsGroup || group.part.u32(16).ok()? == 0 {
        return None;
    }
    Some(Msis {
        its: group.part.u32(20).ok()?,
        device_id,
    })
}
