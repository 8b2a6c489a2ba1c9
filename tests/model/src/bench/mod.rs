//! A small, right driver for tests of the model: bring-up, commands, events, entries.
//!
//! Its numbers are assembled by hand from the architecture, not taken from the model's decoders.

mod story;
mod tables;

pub use story::bind_dma_release;
pub use tables::{cd, cd_word0, quiet_word0, s1_page, ste_nested, ste_stage1};

use crate::{Barrier, Event, Identity, Machine, Mode, Settings, offset};

/// Where memory starts.
pub const BASE: u64 = 0x8000_0000;
/// How much there is.
pub const BYTES: u64 = 0x40_0000;
/// The command queue, 64 entries.
pub const CMDQ: u64 = BASE;
/// The event queue, 32 entries.
pub const EVENTQ: u64 = BASE + 0x1000;
/// The PRI queue, 32 entries.
pub const PRIQ: u64 = BASE + 0x2000;
/// The linear stream table, 64 entries.
pub const STREAMS: u64 = BASE + 0x4000;
/// Where free frames start; see [`Bench::frames`].
const FREE: u64 = BASE + 0x1_0000;

/// log2 of the entries of the command queue.
pub const CMDQ_LOG2: u32 = 6;
/// log2 of the entries of the event queue.
pub const EVENTQ_LOG2: u32 = 5;
/// log2 of the entries of the PRI queue.
pub const PRIQ_LOG2: u32 = 5;
/// log2 of the entries of the stream table.
pub const STREAMS_LOG2: u32 = 6;

/// A machine with one SMMU, and the driver's state.
#[derive(Debug)]
pub struct Bench {
    /// Memory, time, the SMMU.
    pub machine: Machine,
    producer: u32,
    events_read: u32,
    next_frame: u64,
}

impl Bench {
    /// A bench whose SMMU is up: queues on, a linear table of 64 entries with V=0, SMMUEN=1.
    pub fn up(identity: Identity, mode: Mode) -> Self {
        let mut bench = Self::off(identity, mode);
        bench.bring_up();
        bench
    }

    /// A bench whose SMMU is as after reset.
    pub fn off(identity: Identity, mode: Mode) -> Self {
        Self {
            machine: Machine::new(BASE, BYTES, Settings::new(identity, mode)),
            producer: 0,
            events_read: 0,
            next_frame: FREE,
        }
    }

    /// Reads a 32-bit register.
    pub fn read(&self, at: u64) -> u32 {
        self.machine.smmu(0).read32(at)
    }

    /// Writes a 32-bit register.
    pub fn write(&self, at: u64, value: u32) {
        self.machine.smmu(0).write32(at, value);
    }

    /// Writes a 64-bit register.
    pub fn write64(&self, at: u64, value: u64) {
        self.machine.smmu(0).write64(at, value);
    }

    /// Zeroed memory of `1 << log2` bytes, aligned to it.
    pub fn frames(&mut self, log2: u32) -> u64 {
        let size = 1 << log2;
        let at = self.next_frame.next_multiple_of(size);
        self.next_frame = at + size;
        assert!(
            self.next_frame <= BASE + BYTES,
            "the bench has no more memory"
        );
        at
    }

    /// Stores a word, without barrier.
    pub fn store(&self, pa: u64, value: u64) {
        self.machine.store(pa, value).expect("in memory");
    }

    /// Stores words 1 and up, then word 0, without barrier.
    pub fn store_words(&self, pa: u64, words: &[u64]) {
        for (at, &word) in words.iter().enumerate().skip(1) {
            self.store(pa + 8 * at as u64, word);
        }
        self.store(pa, words[0]);
    }

    /// Cleans where that is needed, then publishes.
    pub fn publish(&self) {
        self.machine.clean(BASE, BYTES);
        self.machine.barrier(Barrier::Publish);
    }

    /// Waits at most 1000 model microseconds for `what`.
    pub fn wait(&self, what: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..1000 {
            if what(self) {
                return true;
            }
            self.machine.advance(1);
        }
        what(self)
    }

    /// Writes CR0 and waits for the acknowledgement.
    pub fn cr0(&self, value: u32) {
        self.write(offset::CR0, value);
        assert!(
            self.wait(|bench| bench.read(offset::CR0ACK) == value),
            "CR0ACK"
        );
    }

    /// Registers, queues, an empty stream table, invalidation of everything, SMMUEN.
    pub fn bring_up(&mut self) {
        self.write(offset::CR1, 0xd75);
        self.write(offset::CR2, 0x2);
        self.write64(offset::STRTAB_BASE, STREAMS);
        self.write(offset::STRTAB_BASE_CFG, STREAMS_LOG2);
        self.write64(offset::CMDQ_BASE, CMDQ | u64::from(CMDQ_LOG2));
        self.write(offset::CMDQ_PROD, 0);
        self.write(offset::CMDQ_CONS, 0);
        self.write64(offset::EVENTQ_BASE, EVENTQ | u64::from(EVENTQ_LOG2));
        self.write(offset::EVENTQ_PROD, 0);
        self.write(offset::EVENTQ_CONS, 0);
        self.cr0(0x8);
        self.commands(&[CFGI_ALL, SYNC]);
        self.commands(&[NSNH_ALL, SYNC]);
        self.cr0(0xc);
        self.cr0(0xd);
    }

    /// Puts commands into the queue, publishes them and announces them.
    pub fn submit(&mut self, commands: &[[u64; 2]]) {
        for command in commands {
            let at = CMDQ + u64::from(self.producer & ((1 << CMDQ_LOG2) - 1)) * 16;
            self.store(at, command[0]);
            self.store(at + 8, command[1]);
            self.producer = (self.producer + 1) & ((2 << CMDQ_LOG2) - 1);
        }
        self.publish();
        self.write(offset::CMDQ_PROD, self.producer);
    }

    /// Submits commands and waits until they are consumed.
    pub fn commands(&mut self, commands: &[[u64; 2]]) {
        self.submit(commands);
        assert!(self.wait(Self::is_idle), "the commands were not consumed");
    }

    /// Whether every command is consumed.
    pub fn is_idle(&self) -> bool {
        self.read(offset::CMDQ_CONS) & ((2 << CMDQ_LOG2) - 1) == self.producer
    }

    /// Stores a stream table entry by the architecture's sequence: body, CFGI, SYNC, word 0, CFGI,
    /// SYNC.
    pub fn publish_ste(&mut self, stream: u32, words: &[u64; 8]) {
        let at = STREAMS + u64::from(stream) * 64;
        let cfgi = cfgi_ste(stream);
        for (word, &value) in words.iter().enumerate().skip(1) {
            self.store(at + 8 * word as u64, value);
        }
        self.publish();
        self.commands(&[cfgi, SYNC]);
        self.store(at, words[0]);
        self.publish();
        self.commands(&[cfgi, SYNC]);
    }

    /// The next event record's words, if there is one; gives its place back.
    pub fn next_raw_event(&mut self) -> Option<[u64; 4]> {
        let producer = self.read(offset::EVENTQ_PROD);
        if producer & ((2 << EVENTQ_LOG2) - 1) == self.events_read {
            return None;
        }
        self.machine.barrier(Barrier::Observe);
        let at = EVENTQ + u64::from(self.events_read & ((1 << EVENTQ_LOG2) - 1)) * 32;
        let words = [0, 8, 16, 24].map(|byte| self.machine.load(at + byte).expect("in memory"));
        self.events_read = (self.events_read + 1) & ((2 << EVENTQ_LOG2) - 1);
        self.machine.barrier(Barrier::Release);
        self.write(offset::EVENTQ_CONS, producer & 1 << 31 | self.events_read);
        Some(words)
    }

    /// The same, decoded.
    pub fn next_event(&mut self) -> Option<Event> {
        let words = self.next_raw_event()?;
        Some(Event::decode(&words).expect("a known kind"))
    }

    /// Asserts that no rule was broken.
    pub fn assert_clean(&self) {
        let violations = self.machine.record().violations();
        assert!(violations.is_empty(), "{}", violations[0]);
    }
}

/// CMD_SYNC without a signal.
pub const SYNC: [u64; 2] = [0x46, 0];
/// CMD_CFGI_ALL.
pub const CFGI_ALL: [u64; 2] = [0x04, 31];
/// CMD_TLBI_NSNH_ALL.
pub const NSNH_ALL: [u64; 2] = [0x30, 0];

/// CMD_CFGI_STE with Leaf = 1.
pub fn cfgi_ste(stream: u32) -> [u64; 2] {
    [0x03 | u64::from(stream) << 32, 1]
}

/// CMD_CFGI_CD with Leaf = 1.
pub fn cfgi_cd(stream: u32, substream: u32) -> [u64; 2] {
    [
        0x05 | u64::from(substream) << 12 | u64::from(stream) << 32,
        1,
    ]
}

/// CMD_TLBI_NH_ALL.
pub fn nh_all(vmid: u16) -> [u64; 2] {
    [0x10 | u64::from(vmid) << 32, 0]
}

/// CMD_TLBI_NH_ASID.
pub fn nh_asid(vmid: u16, asid: u16) -> [u64; 2] {
    [0x11 | u64::from(vmid) << 32 | u64::from(asid) << 48, 0]
}

/// CMD_TLBI_S12_VMALL.
pub fn s12_vmall(vmid: u16) -> [u64; 2] {
    [0x28 | u64::from(vmid) << 32, 0]
}

/// A stage-2-only entry: 4 KiB granule, 39-bit IPAs from level 1, 40-bit PAs, S2R = 1.
pub fn ste_stage2(vmid: u16, root: u64) -> [u64; 8] {
    // Config = 0b110, V = 1; SHCFG = 1 (use incoming).
    [0xd, 1 << 44, stage2_word(vmid), root, 0, 0, 0, 0]
}

/// Word 2 of such an entry: T0SZ = 25, SL0 = 1, SH0 = inner, OR0 = IR0 = WB, TG = 4K, PS = 40 bits,
/// AA64, PTW, R.
pub fn stage2_word(vmid: u16) -> u64 {
    u64::from(vmid)
        | 25 << 32
        | 1 << 38
        | 1 << 40
        | 1 << 42
        | 3 << 44
        | 2 << 48
        | 1 << 51
        | 1 << 54
        | 1 << 58
}

/// A stage-2 page descriptor: read and write, Normal write-back, inner shareable, AF.
pub fn s2_page(pa: u64) -> u64 {
    pa | 0b11 | 0b1111 << 2 | 0b11 << 6 | 0b11 << 8 | 1 << 10
}

/// A table descriptor.
pub fn table(pa: u64) -> u64 {
    pa | 0b11
}

/// CMD_TLBI_S2_IPA of one page with Leaf = 1.
pub fn s2_ipa(vmid: u16, ipa: u64) -> [u64; 2] {
    [
        0x2a | u64::from(vmid) << 32,
        ipa & 0x00ff_ffff_ffff_f000 | 1,
    ]
}
