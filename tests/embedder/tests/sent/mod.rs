//! The commands that an SMMU was sent, as they stand in its queue.

use portcullis_embedder::Hypervisor;

/// IHI 0070 §6.2.
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;

/// The commands that `what` puts into the queue of the host's first SMMU, two words each; fewer than
/// the queue has room for.
pub(crate) fn commands(host: &Hypervisor, what: impl FnOnce()) -> Vec<[u64; 2]> {
    let registers = host.machine().smmu(0);
    let first = registers.read32(CMDQ_PROD);
    what();
    let end = registers.read32(CMDQ_PROD);
    let base = registers.read64(CMDQ_BASE);
    let (log2_entries, base) = (base & 0x1f, base & 0x00ff_ffff_ffff_ffe0);
    let entries = 1 << log2_entries;
    let word = |at| host.machine().load(at).expect("the queue's memory");
    // Beside the index, one bit says how often it has wrapped.
    let count = end.wrapping_sub(first) & (2 * entries - 1);
    (0..count)
        .map(|place| u64::from(first.wrapping_add(place) & (entries - 1)))
        .map(|place| base + 16 * place)
        .map(|at| [word(at), word(at + 8)])
        .collect()
}
