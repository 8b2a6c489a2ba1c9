//! Interrupts: wired pulses and messages (§3.18).

/// A wired interrupt output; all are edges.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Line {
    /// The event queue became non-empty.
    EventQueue,
    /// The PRI queue became non-empty (or, with LO, a request with Last arrived).
    PriQueue,
    /// A `CMD_SYNC` with CS = 1 completed.
    CommandSync,
    /// An error in GERROR became active.
    GlobalError,
}

/// One interrupt, as it left the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// A pulse on a wire.
    Wired(Line),
    /// A message written to memory.
    Message {
        /// Whose.
        line: Line,
        /// Where to.
        pa: u64,
        /// What.
        data: u32,
    },
    /// An event for processors that wait (SEV).
    Event,
}
