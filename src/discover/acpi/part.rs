//! A table, or a structure in one, read within its bounds.

use crate::addr::{Extent, Pa};
use crate::discover::list::Text;
use crate::discover::refusal::{NodeName, Refusal};

/// The bytes of a table, or of one structure in it.
#[derive(Clone, Copy)]
pub(super) struct Part<'t> {
    table: &'static str,
    /// What structure it is; empty for the table itself.
    kind: &'static str,
    /// Where in the table it starts, in bytes.
    offset: usize,
    bytes: &'t [u8],
}

impl<'t> Part<'t> {
    /// The whole of a table.
    pub(super) const fn whole(table: &'static str, bytes: &'t [u8]) -> Self {
        Self {
            table,
            kind: "",
            offset: 0,
            bytes,
        }
    }

    /// The structure of `size_bytes` bytes at `at`.
    ///
    /// # Errors
    ///
    /// [`Refusal::Length`] if it does not lie within this one.
    pub(super) fn part(
        &self,
        kind: &'static str,
        at: usize,
        size_bytes: usize,
    ) -> Result<Self, Refusal> {
        let end = at.saturating_add(size_bytes);
        self.need(end)?;
        Ok(Self {
            table: self.table,
            kind,
            offset: self.offset + at,
            bytes: self.bytes.get(at..end).unwrap_or(&[]),
        })
    }

    /// How many bytes it has.
    pub(super) const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Where in the table it starts, in bytes.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    /// All of its bytes.
    pub(super) const fn bytes(&self) -> &'t [u8] {
        self.bytes
    }

    /// Refuses one that has fewer than `needed_bytes` bytes.
    pub(super) fn need(&self, needed_bytes: usize) -> Result<(), Refusal> {
        if self.bytes.len() < needed_bytes {
            return Err(self.length(needed_bytes));
        }
        Ok(())
    }

    pub(super) fn u8(&self, at: usize) -> Result<u8, Refusal> {
        self.array(at).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&self, at: usize) -> Result<u16, Refusal> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&self, at: usize) -> Result<u32, Refusal> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&self, at: usize) -> Result<u64, Refusal> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// A size or an offset that is stored in 32 bits.
    pub(super) fn size(&self, at: usize) -> Result<usize, Refusal> {
        self.u32(at).map(|value| value as usize)
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Refusal> {
        self.bytes
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .copied()
            .ok_or_else(|| self.length(at.saturating_add(N)))
    }

    /// The text at `at`, up to a NUL or the end; what is no printable ASCII is a `?`.
    pub(super) fn text<const N: usize>(&self, at: usize) -> Text<N> {
        let bytes = self.bytes.get(at..).unwrap_or(&[]);
        let mut end = bytes.iter().take(N).take_while(|byte| **byte != 0).count();
        let mut copy = [0; N];
        for (to, from) in copy.iter_mut().zip(bytes) {
            let is_printable = from.is_ascii_graphic() || *from == b' ';
            *to = if is_printable { *from } else { b'?' };
        }
        while end > 0 && copy.get(end - 1) == Some(&b' ') {
            end -= 1;
        }
        Text::start_of(core::str::from_utf8(copy.get(..end).unwrap_or(&[])).unwrap_or(""))
    }

    /// The extent of `size_bytes` bytes at `base`, which `property` says.
    pub(super) fn extent(
        &self,
        property: &'static str,
        base: u64,
        size_bytes: u64,
    ) -> Result<Extent<Pa>, Refusal> {
        Extent::<Pa>::new(Pa::new(base), size_bytes)
            .filter(|_| base != 0 && size_bytes != 0)
            .ok_or_else(|| self.value(property, base))
    }

    /// What it is called in a refusal.
    pub(super) fn label(&self) -> NodeName {
        let Self {
            table,
            kind,
            offset,
            ..
        } = self;
        if kind.is_empty() {
            return Text::start_of(table);
        }
        Text::printed(format_args!("{kind} at {offset:#x} of {table}"))
    }

    fn length(&self, needed_bytes: usize) -> Refusal {
        Refusal::Length {
            node: self.label(),
            property: "length",
            found_bytes: self.bytes.len(),
            needed_bytes,
        }
    }

    pub(super) fn value(&self, property: &'static str, found: u64) -> Refusal {
        Refusal::Value {
            node: self.label(),
            property,
            found,
        }
    }

    pub(super) fn overlap(&self, what: &'static str, at: u64) -> Refusal {
        Refusal::Overlap {
            node: self.label(),
            what,
            at,
        }
    }
}
