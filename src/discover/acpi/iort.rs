//! IORT's nodes, each looked through once.

use super::maps::{Hop, IdMap, MAP_BYTES, hop};
use super::part::Part;
use super::tables::AcpiTables;
use crate::discover::list::List;
use crate::discover::refusal::Refusal;

/// What every node starts with.
pub(super) const NODE_BYTES: usize = 16;
/// More maps than any node in use has; reading them takes their square.
const MAX_MAPS: usize = 128;

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ItsGroup,
    NamedComponent,
    RootComplex,
    /// An SMMU that is none of version 3.
    OtherSmmu,
    SmmuV3,
    Rmr,
    /// A performance monitor, or what was not known when this was written.
    Other,
}

/// A node.
#[derive(Clone, Copy)]
pub(super) struct Node<'t> {
    pub(super) kind: Kind,
    pub(super) revision: u8,
    pub(super) part: Part<'t>,
    maps: Part<'t>,
    /// The map that is for the node's own MSIs, and for nobody behind it.
    own_map: Option<usize>,
}

/// Where a node is.
#[derive(Clone, Copy)]
struct Place {
    offset: u32,
    length: u16,
}

/// The table, every node of it sound and every reference leading to a node that ids may go to.
///
/// About 4 KiB.
pub(super) struct Iort<'t> {
    whole: Part<'t>,
    places: List<Place, 512>,
}

impl Kind {
    pub(super) const fn of(number: u8) -> Self {
        match number {
            0 => Self::ItsGroup,
            1 => Self::NamedComponent,
            2 => Self::RootComplex,
            3 => Self::OtherSmmu,
            4 => Self::SmmuV3,
            6 => Self::Rmr,
            _ => Self::Other,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ItsGroup => "ITS group",
            Self::NamedComponent => "named component",
            Self::RootComplex => "root complex",
            Self::OtherSmmu => "SMMU",
            Self::SmmuV3 => "SMMUv3",
            Self::Rmr => "RMR",
            Self::Other => "node",
        }
    }

    /// How many bytes a node has in front of its maps, at least.
    const fn body_bytes(self, revision: u8) -> usize {
        match (self, revision) {
            (Self::ItsGroup, _) => 20,
            (Self::NamedComponent, _) => 29,
            (Self::RootComplex, _) => 32,
            (Self::SmmuV3, 0) => 60,
            (Self::SmmuV3, _) => 68,
            (Self::Rmr, 0) => 24,
            (Self::Rmr, _) => 28,
            (Self::OtherSmmu | Self::Other, _) => NODE_BYTES,
        }
    }

    /// How near to memory it is. Ids go from a node to a nearer one, so they never go in a circle.
    const fn nearness(self) -> u8 {
        match self {
            Self::NamedComponent | Self::RootComplex | Self::Rmr => 0,
            Self::OtherSmmu | Self::SmmuV3 => 1,
            Self::ItsGroup => 2,
            Self::Other => 3,
        }
    }
}

impl<'t> Iort<'t> {
    /// The IORT of `tables`; `None` where there is none.
    pub(super) fn read(tables: &AcpiTables<'t>) -> Result<Option<Self>, Refusal> {
        let Some(whole) = tables.find("IORT")? else {
            return Ok(None);
        };
        let mut iort = Self {
            whole,
            places: List::new(),
        };
        let mut offset = whole.size(40)?;
        if offset < 48 {
            return Err(whole.value("offset of the nodes", offset as u64));
        }
        for _ in 0..whole.u32(36)? {
            let header = whole.part("node", offset, NODE_BYTES)?;
            let length = header.u16(1)?;
            if usize::from(length) < NODE_BYTES {
                return Err(header.value("length", length.into()));
            }
            let place = Place {
                offset: offset as u32,
                length,
            };
            iort.node_at(place)?;
            iort.places
                .push(place)
                .map_err(Refusal::too_many("nodes of IORT"))?;
            offset += usize::from(length);
        }
        iort.nodes().try_for_each(|node| iort.check(&node))?;
        Ok(Some(iort))
    }

    /// The table itself.
    pub(super) const fn whole(&self) -> &Part<'t> {
        &self.whole
    }

    /// All nodes, in the order of the table.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node<'t>> {
        // Every place was looked at when it was noted.
        self.places
            .iter()
            .filter_map(|place| self.node_at(*place).ok())
    }

    pub(super) fn nodes_of(&self, kind: Kind) -> impl Iterator<Item = Node<'t>> {
        self.nodes().filter(move |node| node.kind == kind)
    }

    /// The node that starts at `offset` of the table.
    pub(super) fn node(&self, offset: u32) -> Option<Node<'t>> {
        let place = self
            .places
            .binary_search_by_key(&offset, |place| place.offset);
        self.node_at(*self.places.get(place.ok()?)?).ok()
    }

    /// The place of the SMMUv3 at `offset` among the SMMUv3s; `None` if another node is there.
    pub(super) fn smmu_at(&self, offset: u32) -> Option<u8> {
        // Most ids of a table that means ill lead elsewhere, and must not cost a search.
        self.node(offset).filter(|node| node.kind == Kind::SmmuV3)?;
        let is_it = |node: Node<'t>| node.part.offset() == offset as usize;
        u8::try_from(self.nodes_of(Kind::SmmuV3).position(is_it)?).ok()
    }

    fn node_at(&self, place: Place) -> Result<Node<'t>, Refusal> {
        let (offset, length) = (place.offset as usize, usize::from(place.length));
        let kind = Kind::of(self.whole.u8(offset)?);
        let part = self.whole.part(kind.name(), offset, length)?;
        let revision = part.u8(3)?;
        let body_bytes = kind.body_bytes(revision);
        part.need(body_bytes)?;
        let (count, at) = (part.size(8)?, part.size(12)?);
        let maps = match count {
            0 => part.part("maps", length, 0)?,
            _ if at < body_bytes => return Err(part.value("offset of the maps", at as u64)),
            _ => part.part("maps", at, count.saturating_mul(MAP_BYTES))?,
        };
        Ok(Node {
            kind,
            revision,
            part,
            maps,
            own_map: own_map(kind, revision, &part, count)?,
        })
    }

    /// Refuses maps that are senseless, and references to where no id may go.
    fn check(&self, node: &Node<'t>) -> Result<(), Refusal> {
        if node.kind == Kind::Other {
            return Ok(());
        }
        if node.maps.size_bytes() > MAX_MAPS * MAP_BYTES {
            let (what, limit) = ("ID maps of one node", MAX_MAPS);
            return Err(Refusal::TooMany { what, limit });
        }
        for place in 0..node.map_count() {
            let part = node.maps.part("ID map", place * MAP_BYTES, MAP_BYTES)?;
            let to = IdMap::read(&part)?.to;
            let is_nearer = |next: &Node<'t>| next.kind.nearness() > node.kind.nearness();
            if self.node(to).filter(is_nearer).is_none() {
                let node = node.part.label();
                return Err(Refusal::Reference { node, to });
            }
        }
        Ok(())
    }
}

impl<'t> Node<'t> {
    fn map_count(&self) -> usize {
        self.maps.size_bytes() / MAP_BYTES
    }

    /// The map at this place, whoever it is for.
    fn map(&self, place: usize) -> Option<IdMap> {
        let part = self.maps.part("ID map", place * MAP_BYTES, MAP_BYTES);
        // Every map was read when the table was.
        part.and_then(|part| IdMap::read(&part)).ok()
    }

    /// The maps for ids that come to this node, in their order.
    ///
    /// Only where ids start may a map lead all of them to one.
    pub(super) fn maps(&self) -> impl Iterator<Item = IdMap> + Clone + use<'t> {
        let node = *self;
        (0..self.map_count())
            .filter(move |place| node.own_map != Some(*place))
            .filter_map(move |place| node.map(place))
            .filter(move |map| !map.is_single || node.kind.nearness() == 0)
    }

    /// Where the id `id` goes from here.
    pub(super) fn hop(&self, id: u32) -> Option<Hop> {
        hop(self.maps(), id)
    }

    /// Where its own MSIs go.
    pub(super) fn own_hop(&self) -> Option<Hop> {
        let map = self.map(self.own_map?)?;
        let (to, id) = (map.to, map.output_base);
        Some(Hop { to, id })
    }
}

/// The map that is for the SMMU's own MSIs (IORT, "SMMUv3 node", Device ID mapping index).
///
/// Before revision 5 there was no flag for it, and the index was good unless all its interrupts
/// were wires. One that is out of range is none, as with every operating system.
fn own_map(
    kind: Kind,
    revision: u8,
    part: &Part<'_>,
    count: usize,
) -> Result<Option<usize>, Refusal> {
    if kind != Kind::SmmuV3 || revision == 0 {
        return Ok(None);
    }
    let is_there = if revision < 5 {
        let wires = [part.u32(44)?, part.u32(48)?, part.u32(52)?, part.u32(56)?];
        wires.contains(&0)
    } else {
        part.u32(24)? & 1 << 4 != 0
    };
    let index = part.size(64)?;
    Ok(Some(index).filter(|index| is_there && *index < count))
}
