//! What Linux's SMMUv3 driver (of about 7.1) sends for the same operations, by the formulas of a study
//! of it.
//!
//! CMD_SYNCs, of a device with one stream: `ats` adds one for each invalidation of a device's own
//! cache. N is the bindings on one SMMU. Linux does one SMMU after the other, and waits for each SYNC.

/// Who is compared with.
pub const PEER: &str = "Linux, by formula";

const fn ats(has_ats: bool) -> u64 {
    has_ats as u64
}

/// An address space ends with N bindings: two for each CD that is made quiet, one for the ASID.
pub const fn release(bindings: u64, has_ats: bool) -> u64 {
    2 * bindings + 1 + ats(has_ats)
}

/// The first PASID of a device: a new leaf, a CD, and a new entry for its stream.
pub const fn first_bind(has_ats: bool) -> u64 {
    1 + 2 + 2 + ats(has_ats)
}

/// A further PASID of a device.
pub const fn further_bind(has_ats: bool) -> u64 {
    2 + ats(has_ats)
}

/// The last user of an address space unbinds it from a device that keeps other PASIDs.
pub const fn unbind(has_ats: bool) -> u64 {
    2 + ats(has_ats) + 1
}

/// A stream gets a stage 2 (from abort or bypass).
pub const fn attach(has_ats: bool) -> u64 {
    2 + ats(has_ats)
}

/// A stream loses its stage 2, of which it was the last user.
pub const fn detach(has_ats: bool) -> u64 {
    2 + 1 + ats(has_ats)
}

/// A VM ends with N devices on an SMMU: each is detached, the VMID is flushed with the last.
pub const fn guest_death(devices: u64, has_ats: bool) -> u64 {
    devices * (2 + ats(has_ats)) + 1
}

/// A group of n streams goes from one VM to another, stream by stream.
pub const fn handover(streams: u64, has_ats: bool) -> u64 {
    streams * (3 + ats(has_ats))
}

/// A range of a nesting parent is unmapped: the stage-2 range, then stage 1 of the VMID.
pub const fn nested_unmap(has_ats: bool) -> u64 {
    2 + ats(has_ats)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that the study of the driver names one by one.
    #[test]
    fn the_formulas_give_what_was_counted() {
        assert_eq!([1, 8, 64].map(|n| release(n, false)), [3, 17, 129]);
        assert_eq!((first_bind(false), first_bind(true)), (5, 6));
        assert_eq!((further_bind(false), further_bind(true)), (2, 3));
        assert_eq!((unbind(false), attach(false), detach(false)), (3, 2, 3));
        assert_eq!(handover(8, false), 24);
    }
}
