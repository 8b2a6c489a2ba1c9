//! An SMMU: up, commands, entries, events. §numbers are of IHI 0070 G.b.

use core::cell::{Cell, UnsafeCell};

use crate::machine::{Frame, barrier, read, write};

/// Where the plugin's arguments put the SMMU.
const SMMU: Frame = Frame(0x43e0_0000);

const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const GBPA: u64 = 0x44;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;

const LOG2_STREAMS: u32 = 5;
const LOG2_COMMANDS: u32 = 6;
const LOG2_EVENTS: u32 = 5;

/// How often a register is read before its answer is given up.
const POLLS: u32 = 1_000_000;

/// Pages of zeros, each given once.
#[repr(C, align(4096))]
pub(crate) struct Pages<const COUNT: usize> {
    memory: UnsafeCell<[[u64; 512]; COUNT]>,
    taken: Cell<usize>,
}

// SAFETY: there is one CPU.
unsafe impl<const COUNT: usize> Sync for Pages<COUNT> {}

impl<const COUNT: usize> Pages<COUNT> {
    pub(crate) const fn new() -> Self {
        Self {
            memory: UnsafeCell::new([[0; 512]; COUNT]),
            taken: Cell::new(0),
        }
    }

    /// The next page.
    pub(crate) fn take(&self) -> Option<u64> {
        let at = self.taken.get();
        self.taken.set(at + 1);
        let first = self.memory.get().expose_provenance() as u64;
        (at < COUNT).then_some(first + at as u64 * 4096)
    }
}

/// The SMMU, its stream table and its queues.
pub(crate) struct Smmu {
    streams: u64,
    commands: u64,
    events: u64,
    produced: Cell<u32>,
}

impl Smmu {
    /// Takes the SMMU over with a table in which no stream has a valid entry (§3.11).
    pub(crate) fn up(pages: &Pages<64>) -> Option<Self> {
        let this = Self {
            streams: pages.take()?,
            commands: pages.take()?,
            events: pages.take()?,
            produced: Cell::new(0),
        };
        // Abort what comes while translation is off.
        SMMU.write32(GBPA, SMMU.read32(GBPA) | 1 << 20 | 1 << 31);
        this.poll(|| SMMU.read32(GBPA) >> 31 == 0)?;
        this.enable(0)?;
        // Tables and queues: write-back, inner shareable.
        SMMU.write32(0x28, 0xd75);
        SMMU.write32(0x2c, 0);
        SMMU.write64(0x80, this.streams);
        SMMU.write32(0x88, LOG2_STREAMS);
        SMMU.write64(0x90, this.commands | u64::from(LOG2_COMMANDS));
        SMMU.write32(CMDQ_PROD, 0);
        SMMU.write32(CMDQ_CONS, 0);
        SMMU.write64(0xa0, this.events | u64::from(LOG2_EVENTS));
        SMMU.write32(EVENTQ_PROD, 0);
        SMMU.write32(EVENTQ_CONS, 0);
        this.enable(1 << 3)?;
        // CFGI_ALL; then TLBI_NSNH_ALL and TLBI_EL2_ALL.
        this.run(&[[0x04, 31]])?;
        this.run(&[[0x30, 0], [0x20, 0]])?;
        this.enable(1 << 3 | 1 << 2)?;
        this.enable(1 << 3 | 1 << 2 | 1)?;
        Some(this)
    }

    fn poll(&self, mut is_done: impl FnMut() -> bool) -> Option<()> {
        (0..POLLS).find(|_| is_done()).map(|_| ())
    }

    fn enable(&self, cr0: u32) -> Option<()> {
        SMMU.write32(CR0, cr0);
        self.poll(|| SMMU.read32(CR0ACK) == cr0)
    }

    /// Issues the commands and a CMD_SYNC behind them, and waits until all are consumed (§4.7).
    fn run(&self, commands: &[[u64; 2]]) -> Option<()> {
        let mask = (2 << LOG2_COMMANDS) - 1;
        let mut produced = self.produced.get();
        for words in commands.iter().chain(&[[0x46, 0]]) {
            let slot = u64::from(produced) & ((1 << LOG2_COMMANDS) - 1);
            write(self.commands + slot * 16, words[0]);
            write(self.commands + slot * 16 + 8, words[1]);
            produced = (produced + 1) & mask;
        }
        self.produced.set(produced);
        // The commands, and what they are about, before the index that shows them (§3.5.3).
        barrier();
        SMMU.write32(CMDQ_PROD, produced);
        self.poll(|| SMMU.read32(CMDQ_CONS) & 0x00ff_ffff == produced)
    }

    /// Fills an entry from its second word on, then makes it valid by its first; the SMMU forgets
    /// what it may have read before each (§3.21.3).
    fn publish(&self, at: u64, words: [u64; 4], forget: &[[u64; 2]]) -> Option<()> {
        for (word, value) in (0..).zip(words).skip(1) {
            write(at + word * 8, value);
        }
        self.run(forget)?;
        write(at, words[0]);
        self.run(forget)
    }

    /// Has the SMMU walk anew: TLBI_NH_ALL of VMID 0.
    pub(crate) fn forget_spaces(&self) -> Option<()> {
        self.run(&[[0x10, 0]])
    }

    /// Lets `stream` translate by the eight contexts in the page at `contexts` (§5.2).
    pub(crate) fn publish_stream(&self, stream: u64, contexts: u64) -> Option<()> {
        // Valid, stage 1 alone, a linear table of 2^3 contexts.
        let word0 = 1 | 0b101 << 1 | contexts | 3 << 59;
        // No SubstreamID: abort. Contexts are write-back and inner shareable; SHCFG as it comes.
        let word1 = 1 << 2 | 1 << 4 | 3 << 6 | 1 << 44;
        let at = self.streams + stream * 64;
        self.publish(at, [word0, word1, 0, 0], &[[0x03 | stream << 32, 1]])
    }

    /// Has the SMMU read the context of `pasid` anew: CFGI_CD.
    pub(crate) fn forget_context(&self, streams: &[u64; 2], pasid: u64) -> Option<()> {
        self.run(&streams.map(|stream| [0x05 | pasid << 12 | stream << 32, 1]))
    }

    /// Gives `pasid` of `streams` the space at `root` (§5.4).
    pub(crate) fn publish_context(
        &self,
        streams: &[u64; 2],
        contexts: u64,
        pasid: u64,
        root: u64,
    ) -> Option<()> {
        // 39 bits, 4 KiB, write-back and inner shareable walks; no upper half; valid; 48 bits of
        // output; AArch64; faults are told (R) and abort (A); an ASID of its own set (ASET).
        let walk = 25 | 1 << 8 | 1 << 10 | 3 << 12;
        let word0 = walk | 1 << 30 | 1 << 31 | 5 << 32 | 1 << 41 | 7 << 45 | pasid << 48;
        let at = contexts + pasid * 64;
        let forget = streams.map(|stream| [0x05 | pasid << 12 | stream << 32, 1]);
        self.publish(at, [word0, root, 0, 0xff], &forget)
    }

    /// The type of the oldest event, which is waited for.
    pub(crate) fn event(&self) -> Option<u8> {
        // A CMD_SYNC shows the records of what ended before it (§4.7.3).
        self.run(&[])?;
        self.poll(|| SMMU.read32(EVENTQ_PROD) != SMMU.read32(EVENTQ_CONS))?;
        barrier();
        let found = read(self.events) as u8;
        barrier();
        SMMU.write32(EVENTQ_CONS, 1);
        Some(found)
    }
}
