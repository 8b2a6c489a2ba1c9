//! The way an emulator's plugin uses the model: memory of its own, stores noticed after the fact,
//! registers that are words of a page.

use std::sync::{Arc, Mutex};

use smmu_model::{
    Abort, Identity, Memory, Mode, Outcome, Record, Rule, Settings, Smmu, Transaction, offset,
};

const BYTES: usize = 0x10_0000;
const CMDQ: u64 = 0x1000;
const STREAMS: u64 = 0x4000;
const ROOT: u64 = 0x8000;

/// Memory whose every store is seen at once.
struct Ram(Mutex<Vec<u64>>);

impl Memory for Ram {
    fn read64(&self, pa: u64) -> Result<u64, Abort> {
        self.0
            .lock()
            .expect("no test panics with it")
            .get((pa / 8) as usize)
            .copied()
            .ok_or(Abort)
    }

    fn write64(&self, pa: u64, value: u64) -> Result<(), Abort> {
        let mut words = self.0.lock().expect("no test panics with it");
        *words.get_mut((pa / 8) as usize).ok_or(Abort)? = value;
        Ok(())
    }
}

/// The guest, and the page that it takes for the register frame.
struct Guest {
    ram: Arc<Ram>,
    record: Arc<Record>,
    smmu: Smmu,
    page: Vec<u32>,
}

impl Guest {
    fn new(mode: Mode) -> Self {
        let ram = Arc::new(Ram(Mutex::new(vec![0; BYTES / 8])));
        let record = Arc::new(Record::new());
        let memory = Arc::clone(&ram) as Arc<dyn Memory>;
        let smmu = Smmu::new(
            Settings::new(Identity::full(), mode),
            0,
            memory,
            Arc::clone(&record),
        );
        let mut guest = Self {
            ram,
            record,
            smmu,
            page: vec![0; (offset::PAGES_BYTES / 4) as usize],
        };
        guest.export();
        guest
    }

    fn export(&mut self) {
        let page = &mut self.page;
        self.smmu
            .export_registers(|at, value| page[(at / 4) as usize] = value);
    }

    /// A store to the page: it is there before the model hears of it.
    fn poke(&mut self, at: u64, value: u32) {
        self.page[(at / 4) as usize] = value;
        self.smmu.write_noticed(at, 4, u64::from(value));
        self.export();
    }

    fn poke64(&mut self, at: u64, value: u64) {
        self.smmu.write_noticed(at, 8, value);
        self.export();
    }

    fn peek(&self, at: u64) -> u32 {
        self.page[(at / 4) as usize]
    }

    fn store(&self, pa: u64, value: u64) {
        self.ram.write64(pa, value).expect("in memory");
        self.smmu.noticed_store(pa, None, value);
    }

    /// Lets model time pass until `at` reads `value`.
    fn wait(&mut self, at: u64, value: u32) {
        for _ in 0..100 {
            if self.peek(at) == value {
                return;
            }
            self.smmu.elapse(1);
            self.export();
        }
        panic!("{at:#x} stays {:#x}", self.peek(at));
    }

    fn up(&mut self) {
        self.poke(offset::CR1, 0xd75);
        self.poke(offset::CR2, 0);
        self.poke64(offset::STRTAB_BASE, STREAMS);
        self.poke(offset::STRTAB_BASE_CFG, 4);
        self.poke64(offset::CMDQ_BASE, CMDQ | 4);
        self.poke(offset::CMDQ_PROD, 0);
        self.poke(offset::CMDQ_CONS, 0);
        self.poke(offset::CR0, 8);
        self.wait(offset::CR0ACK, 8);
        // CFGI_ALL, SYNC, NSNH_ALL, SYNC.
        for (position, words) in (0..).zip([[0x4, 31], [0x46, 0], [0x30, 0], [0x46, 0]]) {
            self.store(CMDQ + position * 16, words[0]);
            self.store(CMDQ + position * 16 + 8, words[1]);
        }
        self.poke(offset::CMDQ_PROD, 4);
        self.wait(offset::CMDQ_CONS, 4);
        self.poke(offset::CR0, 9);
        self.wait(offset::CR0ACK, 9);
    }

    fn invalidate(&mut self, position: u32) {
        let at = CMDQ + u64::from(position) * 16;
        self.store(at, 0x3 | 2 << 32);
        self.store(at + 8, 1);
        self.store(at + 16, 0x46);
        self.poke(offset::CMDQ_PROD, position + 2);
        self.wait(offset::CMDQ_CONS, position + 2);
    }
}

#[test]
fn a_guest_that_only_stores_drives_a_stream_to_memory() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 5 }] {
        let mut guest = Guest::new(mode);
        guest.up();
        // Level 1 of 39 bits: a 1 GiB block at IPA 0, PA 0: read, write, write-back, AF.
        guest.store(ROOT, 0b01 | 0xf << 2 | 3 << 6 | 3 << 8 | 1 << 10);
        let word2 = 9 | 25 << 32 | 1 << 38 | 2 << 48 | 1 << 51;
        for (word, value) in [(1, 1 << 44), (2, word2), (3, ROOT)] {
            guest.store(STREAMS + 2 * 64 + 8 * word, value);
        }
        guest.invalidate(4);
        guest.store(STREAMS + 2 * 64, 0xd);
        guest.invalidate(6);
        let outcome = guest
            .smmu
            .transact(Transaction::write(2, 0x9010, b"emulator"));
        assert!(
            matches!(outcome, Outcome::Done { pa: 0x9010, .. }),
            "{mode:?}: {outcome:?}"
        );
        assert_eq!(
            guest.ram.read64(0x9010),
            Ok(u64::from_le_bytes(*b"emulator"))
        );
        assert_eq!(guest.record.violations(), []);
    }
}

#[test]
fn a_store_to_a_read_only_register_is_named_and_undone() {
    let mut guest = Guest::new(Mode::Polite);
    let idr0 = guest.peek(offset::IDR0);
    guest.poke(offset::IDR0, 0xdead_beef);
    assert_eq!(guest.peek(offset::IDR0), idr0);
    assert_eq!(guest.record.count(Rule::ReadOnlyWritten), 1);
}

#[test]
fn an_entry_torn_by_a_guest_is_named_although_old_values_are_not_known() {
    let mut guest = Guest::new(Mode::Hoarding);
    guest.up();
    guest.store(STREAMS + 2 * 64 + 24, ROOT);
    guest.store(STREAMS + 2 * 64 + 16, 9);
    guest.store(STREAMS + 2 * 64, 0xd);
    assert_eq!(guest.record.count(Rule::LiveEntryTorn), 1);
}
