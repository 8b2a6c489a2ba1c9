//! One node of a sound tree, and its properties by meaning.

use fdt::node::FdtNode;

use super::cells::{Bus, Cells, Words, is_okay};
use crate::addr::{Extent, Pa};
use crate::discover::list::Text;
use crate::discover::refusal::{NodeName, Refusal};

/// A node, and through its parents the way to the root.
///
/// Parents are links on the stack: nodes are nested at most [`MAX_DEPTH`](super::tokens::MAX_DEPTH)
/// deep, so no walk needs more room than that.
///
/// What a node hands down, or is asked on the way up from every node below it, is read once when
/// the walk comes to it: otherwise one node with very many properties would make the walk
/// quadratic.
#[derive(Clone, Copy)]
pub(super) struct Node<'p, 't> {
    node: FdtNode<'t, 't>,
    parent: Option<&'p Node<'p, 't>>,
    is_enabled: bool,
    is_coherent: bool,
    ranges: Option<&'t [u8]>,
    /// `None` if what it says of them makes no sense.
    cells: Option<Cells>,
}

impl<'p, 't> Node<'p, 't> {
    pub(super) fn root(node: FdtNode<'t, 't>) -> Self {
        Self::read(node, None)
    }

    fn read(node: FdtNode<'t, 't>, parent: Option<&'p Node<'p, 't>>) -> Self {
        let mut found = Self {
            node,
            parent,
            is_enabled: parent.is_none_or(|parent| parent.is_enabled),
            is_coherent: parent.is_some_and(|parent| parent.is_coherent),
            ranges: None,
            cells: None,
        };
        let (mut address, mut size) = (None, None);
        for property in node.properties() {
            let value = property.value;
            match property.name {
                "status" => found.is_enabled &= is_okay(value),
                "dma-coherent" => found.is_coherent = true,
                "dma-noncoherent" => found.is_coherent = false,
                "ranges" => found.ranges = found.ranges.or(Some(value)),
                "#address-cells" => address = address.or(Some(value)),
                "#size-cells" => size = size.or(Some(value)),
                _ => {}
            }
        }
        found.cells = Cells::read(address, size);
        found
    }

    pub(super) fn children<'s>(&'s self) -> impl Iterator<Item = Node<'s, 't>> + use<'s, 'p, 't> {
        self.node
            .children()
            .map(|node| Node::read(node, Some(self)))
    }

    /// The first child with this name.
    pub(super) fn child<'s>(&'s self, name: &str) -> Option<Node<'s, 't>> {
        self.children().find(|child| child.name() == name)
    }

    /// Calls `visit` with this node and all below it, parents first, as long as it says `true`
    /// for the parent.
    pub(super) fn walk(
        &self,
        visit: &mut dyn FnMut(&Node<'_, 't>) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        if visit(self)? {
            for child in self.children() {
                child.walk(visit)?;
            }
        }
        Ok(())
    }

    pub(super) const fn name(&self) -> &'t str {
        self.node.name
    }

    pub(super) const fn parent(&self) -> Option<&'p Node<'p, 't>> {
        self.parent
    }

    /// The name, for a refusal.
    pub(super) fn label(&self) -> NodeName {
        let name = if self.parent.is_none() {
            "/"
        } else {
            self.name()
        };
        Text::start_of(name)
    }

    pub(super) fn property(&self, name: &str) -> Option<&'t [u8]> {
        let mut properties = self.node.properties();
        properties
            .find(|found| found.name == name)
            .map(|found| found.value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// The text in `name`, up to its NUL; `None` also if it is no text.
    pub(super) fn text(&self, name: &str) -> Option<&'t str> {
        self.texts(name).next()
    }

    /// The texts in `name`, each ended by a NUL; what is no UTF-8 is left out.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &'t str> + use<'t> {
        let mut texts = self.property(name).unwrap_or(&[]).split(|&byte| byte == 0);
        // What stands behind the last NUL is no text.
        texts.next_back();
        texts.filter_map(|text| core::str::from_utf8(text).ok())
    }

    /// Whether it is compatible with one of `those`.
    pub(super) fn is_compatible(&self, those: &[&str]) -> bool {
        self.texts("compatible").any(|text| those.contains(&text))
    }

    /// Whether firmware says that it, and all above it, may be used.
    pub(super) const fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether its DMA snoops the CPUs' caches: said of it, or of the nearest above it.
    pub(super) const fn is_coherent(&self) -> bool {
        self.is_coherent
    }

    /// The one word in `property`, if it is there.
    pub(super) fn word(&self, property: &'static str) -> Result<Option<u32>, Refusal> {
        let Some(value) = self.property(property) else {
            return Ok(None);
        };
        match value.first_chunk() {
            Some(bytes) if value.len() == 4 => Ok(Some(u32::from_be_bytes(*bytes))),
            _ => Err(self.length(property, value, 4)),
        }
    }

    /// What its children's addresses look like.
    pub(super) fn cells(&self) -> Result<Cells, Refusal> {
        self.cells.ok_or_else(|| {
            let (address, size) = ("#address-cells", "#size-cells");
            let is_address = Cells::read(self.property(address), None).is_none();
            let property = if is_address { address } else { size };
            let value = self.property(property).unwrap_or(&[]);
            match Words::new(value).word() {
                Some(found) if value.len() == 4 => self.value(property, found.into()),
                _ => self.length(property, value, 4),
            }
        })
    }

    /// What its own addresses look like.
    pub(super) fn own_cells(&self) -> Result<Cells, Refusal> {
        self.parent.map_or(Ok(Cells::DEFAULT), Node::cells)
    }

    /// The entries of `reg`, address and size as its parent bus has them.
    pub(super) fn reg(
        &self,
    ) -> Result<impl Iterator<Item = (u64, u64)> + Clone + use<'t>, Refusal> {
        let value = self.property("reg").unwrap_or(&[]);
        let cells = self.own_cells()?;
        let entry_bytes = cells.entry_bytes();
        if entry_bytes == 0 || !value.len().is_multiple_of(entry_bytes) {
            return Err(self.length("reg", value, entry_bytes));
        }
        Ok(value.chunks_exact(entry_bytes).map_while(move |entry| {
            let mut words = Words::new(entry);
            Some((words.number(cells.address)?, words.number(cells.size)?))
        }))
    }

    /// The extents in `reg`, as the CPU sees them.
    pub(super) fn extents(
        &self,
    ) -> Result<impl Iterator<Item = Result<Extent<Pa>, Refusal>> + use<'_, 'p, 't>, Refusal> {
        Ok(self
            .reg()?
            .map(|(address, size)| self.extent(address, size)))
    }

    /// The first extent in `reg`, as the CPU sees it.
    pub(super) fn first_extent(&self) -> Result<Option<Extent<Pa>>, Refusal> {
        self.extents()?.next().transpose()
    }

    /// The first extent in `reg`, which must be there and not empty.
    pub(super) fn needed_extent(&self) -> Result<Extent<Pa>, Refusal> {
        match self.first_extent()? {
            Some(extent) if extent.size_bytes() > 0 => Ok(extent),
            Some(_) => Err(self.value("reg", 0)),
            None => Err(self.missing("reg")),
        }
    }

    /// Where the CPU sees the `size_bytes` bytes at `address` of its parent bus.
    pub(super) fn extent(&self, address: u64, size_bytes: u64) -> Result<Extent<Pa>, Refusal> {
        let mut above = address;
        let mut bus = self.parent;
        while let Some(node) = bus
            && let Some(parent) = node.parent
        {
            let way = Bus {
                children: node.cells()?,
                own: parent.cells()?,
                ranges: node.ranges,
            };
            above = way
                .pass(above, size_bytes)
                .ok_or(self.unreachable(address))?;
            bus = node.parent;
        }
        Extent::<Pa>::new(Pa::new(above), size_bytes).ok_or(self.unreachable(address))
    }

    pub(super) fn phandle(&self) -> Result<Option<u32>, Refusal> {
        match self.word("phandle")? {
            None => self.word("linux,phandle"),
            found => Ok(found),
        }
    }

    pub(super) fn length(
        &self,
        property: &'static str,
        value: &[u8],
        needed_bytes: usize,
    ) -> Refusal {
        Refusal::Length {
            node: self.label(),
            property,
            found_bytes: value.len(),
            needed_bytes,
        }
    }

    pub(super) fn missing(&self, property: &'static str) -> Refusal {
        Refusal::Missing {
            node: self.label(),
            property,
        }
    }

    pub(super) fn value(&self, property: &'static str, found: u64) -> Refusal {
        Refusal::Value {
            node: self.label(),
            property,
            found,
        }
    }

    fn unreachable(&self, address: u64) -> Refusal {
        Refusal::Unreachable {
            node: self.label(),
            address,
        }
    }
}
