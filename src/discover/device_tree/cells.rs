//! Numbers in properties, and addresses on their way up to the CPU.

use super::tokens::word;

/// How many words an address and a size have, in one node's children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cells {
    pub(super) address: usize,
    pub(super) size: usize,
}

impl Cells {
    /// What holds where a node says nothing (Devicetree Specification §2.3.5).
    pub(super) const DEFAULT: Self = Self {
        address: 2,
        size: 1,
    };
    /// PCI's addresses have three words, of which the first says which kind of space it is.
    pub(super) const PCI_ADDRESS: usize = 3;

    /// What `#address-cells` and `#size-cells` say; `None` if that makes no sense.
    pub(super) fn read(address: Option<&[u8]>, size: Option<&[u8]>) -> Option<Self> {
        let count = |value: Option<&[u8]>, default, limit| {
            let Some(value) = value else {
                return Some(default);
            };
            let count = Words::new(value).word().filter(|_| value.len() == 4)? as usize;
            Some(count).filter(|&count| count <= limit)
        };
        Some(Self {
            address: count(address, Self::DEFAULT.address, Self::PCI_ADDRESS)?,
            size: count(size, Self::DEFAULT.size, 2)?,
        })
    }

    /// How many bytes one `reg` entry has.
    pub(super) const fn entry_bytes(self) -> usize {
        (self.address + self.size) * 4
    }
}

/// The words of a property, taken one number after another.
#[derive(Clone, Copy)]
pub(super) struct Words<'t>(&'t [u8]);

impl<'t> Words<'t> {
    pub(super) const fn new(bytes: &'t [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next word.
    pub(super) fn word(&mut self) -> Option<u32> {
        let value = word(self.0, 0)?;
        self.0 = self.0.get(4..)?;
        Some(value)
    }

    /// The next `cells` words, 0 to 3 of them, as one number; `None` also if it has over 64 bits.
    pub(super) fn number(&mut self, cells: usize) -> Option<u64> {
        let mut value: u64 = 0;
        for _ in 0..cells {
            if value >> 32 != 0 {
                return None;
            }
            value = value << 32 | u64::from(self.word()?);
        }
        Some(value)
    }

    /// Passes over the next `cells` words.
    pub(super) fn skip(&mut self, cells: usize) -> Option<()> {
        self.0 = self.0.get(cells.checked_mul(4)?..)?;
        Some(())
    }
}

/// Whether a `status` says that the node may be used (Devicetree Specification §2.3.4).
pub(super) fn is_okay(status: &[u8]) -> bool {
    matches!(status, b"okay\0" | b"ok\0")
}

/// One bus on the way up.
#[derive(Clone, Copy)]
pub(super) struct Bus<'t> {
    /// What its children's addresses look like.
    pub(super) children: Cells,
    /// What its own addresses look like.
    pub(super) own: Cells,
    /// Its `ranges`; without it no address passes.
    pub(super) ranges: Option<&'t [u8]>,
}

impl Bus<'_> {
    /// Where the `size_bytes` bytes at `address` below this bus are above it; `None` if they are
    /// nowhere, or not in one piece.
    pub(super) fn pass(&self, address: u64, size_bytes: u64) -> Option<u64> {
        let ranges = self.ranges?;
        if ranges.is_empty() {
            return Some(address);
        }
        if self.children.address + self.own.address + self.children.size == 0 {
            return None;
        }
        let last = address.checked_add(size_bytes.saturating_sub(1))?;
        let mut words = Words::new(ranges);
        while !words.is_empty() {
            let child = words.number(self.children.address)?;
            let parent = words.number(self.own.address)?;
            let length = words.number(self.children.size)?;
            if let Some(inside) = address.checked_sub(child)
                && last - child < length
            {
                return parent.checked_add(inside);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(words: [u32; N]) -> std::vec::Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_number_has_as_many_words_as_asked_and_at_most_64_bits() {
        let data = bytes([1, 2, 0, 3, 4, 1, 0, 0]);
        let mut words = Words::new(&data);
        assert_eq!(words.number(0), Some(0));
        assert_eq!(words.number(2), Some(0x1_0000_0002));
        assert_eq!(words.number(3), Some(0x3_0000_0004));
        assert_eq!(words.number(3), None);
    }

    #[test]
    fn an_address_passes_a_bus_in_one_piece_or_not_at_all() {
        let ranges = bytes([0x1000, 0xa, 0, 0x1000, 0x2000, 0xb, 0, 0x1000]);
        let bus = Bus {
            children: Cells {
                address: 1,
                size: 1,
            },
            own: Cells {
                address: 2,
                size: 2,
            },
            ranges: Some(&ranges),
        };
        assert_eq!(bus.pass(0x1000, 0x1000), Some(0xa_0000_0000));
        assert_eq!(bus.pass(0x2ffc, 4), Some(0xb_0000_0ffc));
        assert_eq!(bus.pass(0x1800, 0x1000), None, "it spans two ranges");
        assert_eq!(bus.pass(0x3000, 4), None);
        assert_eq!(bus.pass(u64::MAX, 2), None);
        assert_eq!(
            Bus {
                ranges: None,
                ..bus
            }
            .pass(0x1000, 4),
            None
        );
        let straight = Bus {
            ranges: Some(&[]),
            ..bus
        };
        assert_eq!(straight.pass(0x3000, 4), Some(0x3000));
    }
}
