//! A bench with one page that every kind of stream can reach, and words assembled by hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use smmu_model::bench::{Bench, STREAMS};
use smmu_model::{
    AtcInvalidation, Endpoint, Identity, InvalidationAnswer, Mode, Outcome, PageResponse,
    StallModel, Transaction, offset,
};

/// The stream that tests use.
pub(crate) const SID: u32 = 5;
/// `SID` where records and commands have it.
pub(crate) const SID_BITS: u64 = (SID as u64) << 32;
/// The page's address through stage 1, through stage 2, and through both.
pub(crate) const VA: u64 = 0x4000_5000;
/// What the page's third word holds.
pub(crate) const MARK: u64 = 0x6b72_616d_6567_6170;
/// The VMID of the rig's entries.
pub(crate) const VMID: u64 = 7;
/// The ASID of the rig's context descriptor.
pub(crate) const ASID: u64 = 1;

/// V.
pub(crate) const V: u64 = 1;
/// RnW of a record's second word.
pub(crate) const RNW: u64 = 1 << 35;
/// S2 of a record's second word.
pub(crate) const S2: u64 = 1 << 39;
/// CLASS = TT of a record's second word.
pub(crate) const TT: u64 = 1 << 40;
/// CLASS = IN of a record's second word.
pub(crate) const IN: u64 = 2 << 40;

/// A stage-1 page: AttrIndx 0, AP[1], inner shareable, AF, nG.
pub(crate) const fn s1_page(pa: u64) -> u64 {
    pa | 0b11 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11
}

/// A stage-1 block.
pub(crate) const fn s1_block(pa: u64) -> u64 {
    s1_page(pa) & !2
}

/// A stage-2 page: Normal write-back, read and write, inner shareable, AF.
pub(crate) const fn s2_page(pa: u64) -> u64 {
    pa | 0b11 | 0xf << 2 | 3 << 6 | 3 << 8 | 1 << 10
}

/// A stage-2 block.
pub(crate) const fn s2_block(pa: u64) -> u64 {
    s2_page(pa) & !2
}

/// A table descriptor.
pub(crate) const fn table(pa: u64) -> u64 {
    pa | 0b11
}

/// `words` with bits `high..=low` of one word replaced.
pub(crate) const fn with(
    mut words: [u64; 8],
    word: usize,
    high: u32,
    low: u32,
    value: u64,
) -> [u64; 8] {
    let ones = u64::MAX >> (63 - (high - low));
    assert!(value <= ones, "the value does not fit the field");
    words[word] = words[word] & !(ones << low) | value << low;
    words
}

/// Memory with tables, and an SMMU that is up.
pub(crate) struct Rig {
    pub(crate) bench: Bench,
    identity: Identity,
    mode: Mode,
    /// The page that is mapped.
    pub(crate) page: u64,
    /// Stage 1: levels 1, 2 and 3.
    pub(crate) s1: [u64; 3],
    /// Stage 2: levels 1, 2 and 3 of `VA`, and the level 2 that maps memory to itself by blocks.
    pub(crate) s2: [u64; 4],
    /// A page of context descriptors; the first is [`Rig::cd`].
    pub(crate) cds: u64,
}

impl Rig {
    /// A rig over everything the model can do.
    pub(crate) fn full() -> Self {
        Self::new(Identity::full())
    }

    pub(crate) fn new(identity: Identity) -> Self {
        Self::in_mode(identity, Mode::Polite)
    }

    /// Stage 1 maps `VA` to the page; stage 2 maps `VA` to the page, and memory to itself.
    pub(crate) fn in_mode(identity: Identity, mode: Mode) -> Self {
        let mut bench = Bench::off(identity, mode);
        // Two tables, so that the root may also serve 40-bit addresses.
        let root = bench.frames(13);
        let mut frame = || bench.frames(12);
        let s1 = [frame(), frame(), frame()];
        let s2 = [root, frame(), frame(), frame()];
        let (cds, page) = (frame(), frame());
        bench.store(s1[0] + 8, table(s1[1]));
        bench.store(s1[1], table(s1[2]));
        bench.store(s1[2] + 5 * 8, s1_page(page));
        bench.store(s2[0] + 8, table(s2[1]));
        bench.store(s2[1], table(s2[2]));
        bench.store(s2[2] + 5 * 8, s2_page(page));
        bench.store(s2[0] + 2 * 8, table(s2[3]));
        bench.store(s2[3], s2_block(0x8000_0000));
        bench.store(s2[3] + 8, s2_block(0x8020_0000));
        bench.store(page + 0x10, MARK);
        let rig = Self {
            bench,
            identity,
            mode,
            page,
            s1,
            s2,
            cds,
        };
        rig.put_cd(0, &rig.cd());
        let mut rig = rig;
        rig.bench.bring_up();
        rig
    }

    const fn stalls(&self) -> u64 {
        matches!(self.identity.stall_model, StallModel::StallForced) as u64
    }

    /// Both stages bypassed; SHCFG = use incoming.
    pub(crate) const fn bypass(&self) -> [u64; 8] {
        [V | 4 << 1, 1 << 44, 0, 0, 0, 0, 0, 0]
    }

    /// Stage 1 only: one context descriptor, fetched as inner shareable write-back.
    pub(crate) const fn stage1(&self) -> [u64; 8] {
        let context = 1 << 2 | 1 << 4 | 3 << 6;
        [
            V | 5 << 1 | self.cds,
            context | 1 << 44,
            VMID,
            0,
            0,
            0,
            0,
            0,
        ]
    }

    /// Stage 2 only: 39-bit addresses from level 1 with 4 KiB pages, S2PS = 40 bits, S2R.
    pub(crate) const fn stage2(&self) -> [u64; 8] {
        let word2 = VMID
            | 25 << 32
            | 1 << 38
            | 1 << 40
            | 1 << 42
            | 3 << 44
            | 2 << 48
            | 1 << 51
            | self.stalls() << 57
            | 1 << 58;
        [V | 6 << 1, 1 << 44, word2, self.s2[0], 0, 0, 0, 0]
    }

    /// Both stages.
    pub(crate) const fn nested(&self) -> [u64; 8] {
        let (first, second) = (self.stage1(), self.stage2());
        [
            V | 7 << 1 | self.cds,
            first[1],
            second[2],
            second[3],
            0,
            0,
            0,
            0,
        ]
    }

    /// 39-bit addresses through TTB0 with 4 KiB pages, EPD1, IPS = 40 bits, A, R; MAIR0 = 0xff.
    pub(crate) const fn cd(&self) -> [u64; 8] {
        let word0 = 25
            | 1 << 8
            | 1 << 10
            | 3 << 12
            | 1 << 30
            | 1 << 31
            | 2 << 32
            | 1 << 41
            | self.stalls() << 44
            | 1 << 45
            | 1 << 46
            | ASID << 48;
        [word0, self.s1[0], 0, 0xff, 0, 0, 0, 0]
    }

    /// Stores a context descriptor into the table at `cds`, before anything can have read it.
    pub(crate) fn put_cd(&self, index: u64, words: &[u64; 8]) {
        self.bench.store_words(self.cds + index * 64, words);
        self.bench.publish();
    }

    /// Makes `words` the entry of [`SID`].
    pub(crate) fn install(&mut self, words: &[u64; 8]) {
        self.bench.publish_ste(SID, words);
    }

    /// Where the page is for a stream with this entry.
    pub(crate) const fn target(&self, words: &[u64; 8]) -> u64 {
        if words[0] >> 1 & 7 == 4 {
            self.page
        } else {
            VA
        }
    }

    pub(crate) fn transact(&self, transaction: Transaction) -> Outcome {
        self.bench.machine.smmu(0).transact(transaction)
    }

    /// A read of the page's third word by [`SID`] at `address` reads what is there.
    #[track_caller]
    pub(crate) fn reaches(&mut self, address: u64) {
        self.lands(read(address));
    }

    /// `transaction`, a read of 8 bytes at offset 0x10 of the page, reads what is there.
    #[track_caller]
    pub(crate) fn lands(&mut self, transaction: Transaction) {
        let outcome = self.transact(transaction);
        let Outcome::Done { pa, data, .. } = outcome else {
            panic!("{outcome:?}, {:x?}", self.bench.next_raw_event());
        };
        assert_eq!(pa, self.page + 0x10);
        assert_eq!(data, MARK.to_le_bytes());
        assert_eq!(self.bench.next_raw_event(), None);
    }

    /// `transaction` is aborted, and exactly `record` is recorded.
    #[track_caller]
    pub(crate) fn aborts(&mut self, transaction: Transaction, record: [u64; 4]) {
        assert_eq!(self.transact(transaction), Outcome::Aborted);
        self.recorded(record);
    }

    /// Exactly `record` is in the event queue.
    #[track_caller]
    pub(crate) fn recorded(&mut self, record: [u64; 4]) {
        self.settle();
        let got = self.bench.next_raw_event();
        assert_eq!(got, Some(record), "{got:x?}, expected {record:x?}");
        assert_eq!(self.bench.next_raw_event(), None);
    }

    /// `transaction` is aborted, and nothing is recorded.
    #[track_caller]
    pub(crate) fn aborts_silently(&mut self, transaction: Transaction) {
        assert_eq!(self.transact(transaction), Outcome::Aborted);
        self.settle();
        assert_eq!(self.bench.next_raw_event(), None);
    }

    /// Makes the records of what happened visible: a SYNC does, where they may be late.
    fn settle(&mut self) {
        if self.mode != Mode::Polite {
            self.bench.commands(&[[0x46, 0]]);
        }
    }
}

/// The modes in which a rule must hold, with a few seeds of the chaotic one.
pub(crate) const MODES: [Mode; 6] = [
    Mode::Polite,
    Mode::Forgetful,
    Mode::Hoarding,
    Mode::Chaotic { seed: 1 },
    Mode::Chaotic { seed: 2 },
    Mode::Chaotic { seed: 3 },
];

/// A read of 8 bytes at offset 0x10 of the page at `address` by [`SID`].
pub(crate) fn read(address: u64) -> Transaction {
    Transaction::read(SID, address | 0x10, 8)
}

/// A write of 8 bytes at offset 0x10 of the page at `address` by [`SID`].
pub(crate) fn write(address: u64) -> Transaction {
    Transaction::write(SID, address | 0x10, b"portcull")
}

/// A bench that is up with a stream table elsewhere: STRTAB_BASE and STRTAB_BASE_CFG as given.
pub(crate) fn restart_with_table(bench: &mut Bench, base: u64, config: u32) {
    bench.cr0(0xc);
    bench.write64(offset::STRTAB_BASE, base);
    bench.write(offset::STRTAB_BASE_CFG, config);
    bench.commands(&[[0x04, 31], [0x46, 0]]);
    bench.cr0(0xd);
}

/// Where the bench's linear table has the entry of `stream`.
pub(crate) const fn entry_address(stream: u32) -> u64 {
    STREAMS + stream as u64 * 64
}

impl Rig {
    /// The stage-1 entry in the EL2 world, or EL2-E2H with CR2.E2H.
    pub(crate) const fn el2(&self) -> [u64; 8] {
        with(self.stage1(), 1, 31, 30, 2)
    }

    /// The context descriptor with its TTB1 side on as well: 39 bits, 4 KiB, the same tables.
    pub(crate) const fn cd_both_halves(&self) -> [u64; 8] {
        let cd = with(
            self.cd(),
            0,
            30,
            16,
            25 | 2 << 6 | 1 << 8 | 1 << 10 | 3 << 12,
        );
        with(cd, 2, 63, 0, self.s1[0])
    }

    /// Rewrites CR2 while the SMMU is off for a moment.
    pub(crate) fn set_cr2(&mut self, value: u32) {
        self.bench.cr0(0xc);
        self.bench.write(offset::CR2, value);
        self.bench.commands(&[[0x04, 31], [0x46, 0]]);
        self.bench.commands(&[[0x20, 0], [0x30, 0], [0x46, 0]]);
        self.bench.cr0(0xd);
    }

    /// A stage-1 root like the rig's whose `VA` leads to another page, marked with `mark`; gives
    /// the root and the page.
    pub(crate) fn another_space(&mut self, mark: u64) -> (u64, u64) {
        let [root, level2, level3, page] = [(); 4].map(|()| self.bench.frames(12));
        self.bench.store(root + 8, table(level2));
        self.bench.store(level2, table(level3));
        self.bench.store(level3 + 5 * 8, s1_page(page));
        self.bench.store(page + 0x10, mark);
        self.bench.publish();
        (root, page)
    }
}

/// A device that notes what the SMMU tells it.
#[derive(Default)]
pub(crate) struct Device {
    pub(crate) invalidations: Mutex<Vec<AtcInvalidation>>,
    pub(crate) responses: Mutex<Vec<PageResponse>>,
    /// Invalidations are put off.
    pub(crate) is_slow: AtomicBool,
}

impl Device {
    /// A device behind the rig's stream.
    pub(crate) fn behind(rig: &Rig) -> Arc<Self> {
        let device = Arc::new(Self::default());
        let endpoint = Arc::clone(&device) as Arc<dyn Endpoint>;
        rig.bench.machine.smmu(0).attach_endpoint(SID, endpoint);
        device
    }

    pub(crate) fn take_invalidations(&self) -> Vec<AtcInvalidation> {
        std::mem::take(&mut self.invalidations.lock().expect("no panic held it"))
    }

    pub(crate) fn take_responses(&self) -> Vec<PageResponse> {
        std::mem::take(&mut self.responses.lock().expect("no panic held it"))
    }
}

impl Endpoint for Device {
    fn invalidate(&self, invalidation: AtcInvalidation) -> InvalidationAnswer {
        self.invalidations
            .lock()
            .expect("no panic held it")
            .push(invalidation);
        if self.is_slow.load(Ordering::Relaxed) {
            InvalidationAnswer::Later
        } else {
            InvalidationAnswer::Done
        }
    }

    fn page_response(&self, response: PageResponse) {
        self.responses
            .lock()
            .expect("no panic held it")
            .push(response);
    }
}
