//! Circular queues: base, indices and wrap bits (§3.5.1).

use crate::bits::{align_down, keep};

/// A queue's place and size, from its BASE register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Queue {
    /// Physical address of entry 0, as the hardware aligns it.
    pub(crate) base: u64,
    /// log2 of the number of entries.
    pub(crate) log2_entries: u32,
    log2_entry_bytes: u32,
}

impl Queue {
    /// The queue that `register` describes; its size is capped to `max_log2`.
    pub(crate) fn new(register: u64, max_log2: u8, log2_entry_bytes: u32) -> Self {
        let log2_entries = ((register & 0x1f) as u32).min(u32::from(max_log2));
        let align = (log2_entries + log2_entry_bytes).max(5);
        Self {
            base: align_down(keep(register, 55, 5), align),
            log2_entries,
            log2_entry_bytes,
        }
    }

    /// Index and wrap bits of a PROD or CONS register.
    pub(crate) const fn position(self, register: u32) -> u32 {
        register & ((2 << self.log2_entries) - 1)
    }

    const fn index(self, position: u32) -> u32 {
        position & ((1 << self.log2_entries) - 1)
    }

    /// How many entries lie between `cons` and `prod`; more than the queue has: inconsistent.
    pub(crate) const fn used(self, prod: u32, cons: u32) -> u32 {
        self.position(prod.wrapping_sub(cons))
    }

    pub(crate) const fn entries(self) -> u32 {
        1 << self.log2_entries
    }

    /// Whether the two positions can occur.
    pub(crate) const fn is_consistent(self, prod: u32, cons: u32) -> bool {
        self.used(self.position(prod), self.position(cons)) <= self.entries()
    }

    pub(crate) const fn is_full(self, prod: u32, cons: u32) -> bool {
        self.used(self.position(prod), self.position(cons)) >= self.entries()
    }

    /// The position after `position`.
    pub(crate) const fn next(self, position: u32) -> u32 {
        self.position(position.wrapping_add(1))
    }

    /// The physical address of the entry at `position`.
    pub(crate) fn address(self, position: u32) -> u64 {
        self.base + (u64::from(self.index(position)) << self.log2_entry_bytes)
    }

    /// The position whose entry holds `pa`, as a distance from `cons`, if it lies in the queue.
    pub(crate) fn distance_of(self, pa: u64, cons: u32) -> Option<u32> {
        let slot = pa.checked_sub(self.base)? >> self.log2_entry_bytes;
        let slot = u32::try_from(slot).ok()?;
        (slot < self.entries()).then(|| slot.wrapping_sub(self.index(cons)) & (self.entries() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_full_differ_by_the_wrap_bit() {
        let queue = Queue::new(0x1000 | 3, 19, 4);
        assert_eq!(queue.used(0b0011, 0b0011), 0);
        assert!(queue.is_full(0b1011, 0b0011));
        assert!(!queue.is_consistent(0b1100, 0b0011));
        assert_eq!(queue.next(0b1111), 0);
        assert_eq!(queue.address(0b1001), 0x1010);
    }

    #[test]
    fn a_queue_of_one_entry_has_only_a_wrap_bit() {
        let queue = Queue::new(0x1000, 19, 4);
        assert_eq!(queue.entries(), 1);
        assert!(queue.is_full(1, 0));
        assert_eq!(queue.address(1), 0x1000);
    }

    #[test]
    fn the_base_is_aligned_to_the_size_and_the_size_is_capped() {
        let queue = Queue::new(0x12_3460 | 31, 8, 4);
        assert_eq!(queue.log2_entries, 8);
        assert_eq!(queue.base, 0x12_3000);
    }

    #[test]
    fn an_address_is_found_by_its_distance_from_the_consumer() {
        let queue = Queue::new(0x1000 | 3, 19, 4);
        assert_eq!(queue.distance_of(0x1018, 0b1111), Some(2));
        assert_eq!(queue.distance_of(0x1080, 0), None);
        assert_eq!(queue.distance_of(0xff8, 0), None);
    }
}
