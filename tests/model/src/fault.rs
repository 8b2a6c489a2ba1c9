//! Faults that a test puts in.

use crate::event::EventType;

/// A read or write that the SMMU does for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    /// A command.
    Command,
    /// A level-1 stream table descriptor or a stream table entry.
    Stream,
    /// A level-1 context descriptor or a context descriptor.
    Context,
    /// A stage-1 translation table descriptor.
    Stage1,
    /// A stage-2 translation table descriptor.
    Stage2,
    /// A record of the event queue (a write).
    Event,
    /// A record of the PRI queue (a write).
    PageRequest,
    /// A message-signalled interrupt (a write).
    Msi,
}

/// Which faults are put in, until taken out again. The default is none.
///
/// Set with [`Smmu::set_faults`](crate::Smmu::set_faults). A count of `n` acts `n` times.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// So many more `CMD_SYNC`s complete before `sync_late_us` and `sync_never` act.
    pub sync_skip: u32,
    /// A `CMD_SYNC` takes this much longer, in microseconds.
    pub sync_late_us: u64,
    /// So many `CMD_SYNC`s are late; `None`: all.
    pub sync_late_count: Option<u32>,
    /// No `CMD_SYNC` completes, and so no later command is consumed.
    pub sync_never: bool,
    /// After this many more consumed commands the next one ends in `CERROR_ILL`.
    pub illegal_after: Option<u32>,
    /// After this many more consumed commands the fetch of the next ends in `CERROR_ABT`.
    pub abort_after: Option<u32>,
    /// The next so many `CMD_SYNC`s end in `CERROR_ATC_INV_SYNC`.
    pub atc_sync_errors: u32,
    /// Accesses of these kinds meet an external abort.
    pub aborts: Vec<Fetch>,
    /// Accesses to this word meet an external abort.
    pub abort_at: Option<u64>,
    /// Acknowledgements (CR0ACK, IRQ_CTRLACK, GBPA.Update) take this much longer, in microseconds.
    pub acknowledge_late_us: u64,
    /// After so many more acknowledgements one takes so many microseconds longer.
    pub acknowledge_once_late: Option<(u32, u64)>,
    /// CR0ACK, IRQ_CTRLACK and GBPA.Update never follow.
    pub acknowledge_never: bool,
    /// The event queue takes no record, as if full.
    pub event_queue_full: bool,
    /// The PRI queue takes no request, as if full.
    pub pri_queue_full: bool,
    /// Every ordinary transaction ends in this event instead (`F_UUT`, `F_TLB_CONFLICT`,
    /// `F_CFG_CONFLICT`).
    pub conflict: Option<EventType>,
}

impl Faults {
    /// How much longer the acknowledgement takes that is begun now.
    pub(crate) fn acknowledgement_us(&mut self) -> u64 {
        let once = match &mut self.acknowledge_once_late {
            Some((0, late_us)) => {
                let late_us = *late_us;
                self.acknowledge_once_late = None;
                late_us
            }
            Some((left, _)) => {
                *left -= 1;
                0
            }
            None => 0,
        };
        self.acknowledge_late_us + once
    }

    /// How much longer the `CMD_SYNC` takes that is begun now.
    pub(crate) fn lateness_us(&mut self) -> u64 {
        match &mut self.sync_late_count {
            _ if self.sync_skip != 0 => 0,
            Some(0) => 0,
            Some(left) => {
                *left -= 1;
                self.sync_late_us
            }
            None => self.sync_late_us,
        }
    }

    /// Whether an access of kind `fetch` at `pa` is to abort.
    pub(crate) fn abort(&self, fetch: Fetch, pa: u64) -> bool {
        self.aborts.contains(&fetch) || self.abort_at == Some(pa & !7)
    }
}
