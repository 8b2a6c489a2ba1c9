//! What an operation cost.

use std::fmt;
use std::ops::Sub;

/// Counts of what passed between the library and its machine, of all SMMUs together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// CMD_SYNCs.
    pub syncs: u64,
    /// How often an SMMU was asked, after it was told something, how far it has got.
    pub waits: u64,
    /// Commands, CMD_SYNCs among them.
    pub commands: u64,
    /// Accesses to registers.
    pub accesses: u64,
    /// Allocations that were asked of the host.
    pub allocations: u64,
    /// What the SMMUs had cached for other guests before, and not any more.
    pub evictions: u64,
}

impl Counts {
    /// The same, of an operation whose trains are the same on each of `n` SMMUs, and whose
    /// allocations and evictions are those of all.
    pub const fn on(self, n: u64) -> Self {
        Self {
            syncs: self.syncs * n,
            waits: self.waits * n,
            commands: self.commands * n,
            accesses: self.accesses * n,
            ..self
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            syncs: self.syncs - before.syncs,
            waits: self.waits - before.waits,
            commands: self.commands - before.commands,
            accesses: self.accesses - before.accesses,
            allocations: self.allocations - before.allocations,
            evictions: self.evictions - before.evictions,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            syncs,
            waits,
            commands,
            accesses,
            allocations,
            evictions,
        } = self;
        write!(
            f,
            "{syncs:>6} {waits:>6} {commands:>9} {accesses:>9} {allocations:>12} {evictions:>10}"
        )
    }
}
