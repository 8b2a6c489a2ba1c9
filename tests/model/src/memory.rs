//! Memory as an SMMU and the devices behind it see it.

/// Nothing answers at a physical address (an external abort).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort;

/// Physical memory, as seen by the SMMU and by devices.
///
/// Words are little-endian, and 64-bit accesses are single-copy atomic. An implementation must
/// give the same answers when the same accesses come in the same order.
pub trait Memory: Send + Sync {
    /// The 64-bit word at `pa`, which is 8-byte aligned.
    ///
    /// # Errors
    ///
    /// [`Abort`] if nothing answers there.
    fn read64(&self, pa: u64) -> Result<u64, Abort>;

    /// Replaces the 64-bit word at `pa`, which is 8-byte aligned. A device's store.
    ///
    /// # Errors
    ///
    /// [`Abort`] if nothing answers there; nothing has changed.
    fn write64(&self, pa: u64, value: u64) -> Result<(), Abort>;

    /// Writes a word of a record or message that the driver will read (an event, a page request,
    /// an MSI's data).
    ///
    /// A memory with two views may keep it from the driver until the driver's barrier.
    ///
    /// # Errors
    ///
    /// [`Abort`] as for [`write64`](Self::write64).
    fn write64_for_driver(&self, pa: u64, value: u64) -> Result<(), Abort> {
        self.write64(pa, value)
    }

    /// Writes the 32 bits of a message at `pa`, which is 4-byte aligned.
    ///
    /// # Errors
    ///
    /// [`Abort`] as for [`write64`](Self::write64).
    fn write32_for_driver(&self, pa: u64, value: u32) -> Result<(), Abort> {
        let shift = 8 * (pa & 4);
        let word = self.read64(pa & !7)?;
        self.write64_for_driver(
            pa & !7,
            word & !(0xffff_ffff << shift) | u64::from(value) << shift,
        )
    }

    /// Whether the driver has stored to the word at `pa` and nothing yet obliges the SMMU to see
    /// it. `false` where every store is seen at once.
    fn is_unpublished(&self, pa: u64) -> bool {
        let _ = pa;
        false
    }

    /// Fills `into` from `pa` on.
    ///
    /// # Errors
    ///
    /// [`Abort`] if any byte does not answer.
    fn read(&self, pa: u64, into: &mut [u8]) -> Result<(), Abort> {
        let mut at = pa;
        let mut rest = into;
        while !rest.is_empty() {
            let word = self.read64(at & !7)?.to_le_bytes();
            let skip = (at & 7) as usize;
            let take = rest.len().min(8 - skip);
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&word[skip..skip + take]);
            rest = later;
            at = at.checked_add(take as u64).ok_or(Abort)?;
        }
        Ok(())
    }

    /// Writes `bytes` from `pa` on.
    ///
    /// # Errors
    ///
    /// [`Abort`] if some byte does not answer; those before it are written.
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Abort> {
        let mut at = pa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let skip = (at & 7) as usize;
            let take = rest.len().min(8 - skip);
            let word = if take == 8 {
                [0; 8]
            } else {
                self.read64(at & !7)?.to_le_bytes()
            };
            let mut new = word;
            new[skip..skip + take].copy_from_slice(&rest[..take]);
            self.write64(at & !7, u64::from_le_bytes(new))?;
            rest = &rest[take..];
            at = at.checked_add(take as u64).ok_or(Abort)?;
        }
        Ok(())
    }
}
