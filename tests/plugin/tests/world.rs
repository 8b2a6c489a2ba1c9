//! The world without QEMU: stores that were done and are then told, as the plugin's callbacks do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use smmu_model::device::frame;
use smmu_model::{Memory as _, offset};
use smmu_plugin::options::Options;
use smmu_plugin::ram::Ram;
use smmu_plugin::verdict::Breach;
use smmu_plugin::world::{Store, World};

const BASE: u64 = 0x4000_0000;
const STREAMS: u64 = BASE + 0x1000;
const COMMANDS: u64 = BASE + 0x2000;
const EVENTS: u64 = BASE + 0x3000;
const CONTEXTS: u64 = BASE + 0x4000;
const ROOT: u64 = BASE + 0x5000;
const PAGE: u64 = BASE + 0x20_0000;
const SMMU: u64 = BASE + 0x40_0000;
const DEVICE: u64 = BASE + 0x42_0000;
const ARGUMENTS: [&str; 4] = [
    "ram=0x40000000+0x800000",
    "verdict=unused",
    "smmu=0x40400000:full",
    "device=0x40420000:smmu0:sid=3:pasid=8:atc",
];

/// A guest: it stores, and reads what is there.
struct Guest {
    ram: Arc<Ram>,
    world: World,
    now_ns: u64,
    produced: u32,
}

impl Guest {
    fn new(more: &[&str]) -> Self {
        let words = ARGUMENTS.iter().chain(more).copied();
        let options = Options::parse(words).expect("good arguments");
        let memory: Vec<AtomicU64> = (0..0x10_0000).map(|_| AtomicU64::new(0)).collect();
        let frames = options.frames().collect();
        let ram = Arc::new(Ram::new(BASE, memory.leak(), frames));
        Self {
            world: World::new(options, Arc::clone(&ram)),
            ram,
            now_ns: 0,
            produced: 0,
        }
    }

    /// Stores without a report, as `DC ZVA` does.
    fn poke(&self, pa: u64, bytes: u64, value: u64) {
        let shift = 8 * (pa & 7);
        let mask = u64::MAX >> (64 - 8 * bytes) << shift;
        let old = self.ram.peek(pa);
        self.ram.poke(pa, old & !mask | value << shift & mask);
    }

    fn report(&mut self, pa: u64, bytes: u64, reported: [u64; 2]) {
        self.now_ns += 1;
        let store = Store {
            pa,
            bytes,
            reported,
            pc: 0x4020_0000 + self.now_ns * 4,
        };
        self.world.store(self.now_ns, store);
    }

    fn store(&mut self, pa: u64, bytes: u64, value: u64) {
        self.poke(pa, bytes, value);
        self.report(pa, bytes, [value, 0]);
    }

    /// STP of two 64-bit registers.
    fn store_pair(&mut self, pa: u64, values: [u64; 2]) {
        self.poke(pa, 8, values[0]);
        self.poke(pa + 8, 8, values[1]);
        self.report(pa, 16, values);
    }

    fn load32(&self, pa: u64) -> u32 {
        (self.ram.peek(pa) >> (8 * (pa & 4))) as u32
    }

    fn wait(&mut self, at: u64, value: u32) {
        for _ in 0..100 {
            if self.load32(SMMU + at) == value {
                return;
            }
            self.now_ns += 1000;
            self.world.tick(self.now_ns);
        }
        panic!("{at:#x} stays {:#x}", self.load32(SMMU + at));
    }

    fn register(&mut self, at: u64, bytes: u64, value: u64) {
        self.store(SMMU + at, bytes, value);
    }

    /// Issues the commands and a SYNC, each by a pair of stores that is reported once.
    fn run(&mut self, commands: &[[u64; 2]]) {
        for words in commands.iter().chain(&[[0x46, 0]]) {
            let at = COMMANDS + u64::from(self.produced & 15) * 16;
            self.store_pair(at, *words);
            self.produced = (self.produced + 1) & 31;
        }
        let produced = self.produced;
        self.register(offset::CMDQ_PROD, 4, produced.into());
        self.wait(offset::CMDQ_CONS, produced);
    }

    /// Queues and streams on.
    fn up(&mut self) {
        self.register(offset::CR1, 4, 0xd75);
        self.register(offset::CR2, 4, 0);
        self.register(offset::STRTAB_BASE, 8, STREAMS);
        self.register(offset::STRTAB_BASE_CFG, 4, 3);
        self.register(offset::CMDQ_BASE, 8, COMMANDS | 4);
        self.register(offset::CMDQ_PROD, 4, 0);
        self.register(offset::CMDQ_CONS, 4, 0);
        self.register(offset::EVENTQ_BASE, 8, EVENTS | 4);
        self.register(offset::EVENTQ_PROD, 4, 0);
        self.register(offset::EVENTQ_CONS, 4, 0);
        self.enable(8);
        self.run(&[[0x04, 31]]);
        self.run(&[[0x30, 0], [0x20, 0]]);
        self.enable(12);
        self.enable(13);
    }

    fn enable(&mut self, cr0: u32) {
        self.register(offset::CR0, 4, cr0.into());
        self.wait(offset::CR0ACK, cr0);
    }

    /// Stream 3 has one context, PASID 1, which maps the first GiB of RAM one to one by a block.
    fn publish(&mut self) {
        // Block, unprivileged read and write, inner shareable, accessed, not global.
        let block = BASE | 1 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11;
        self.store(ROOT + 8, 8, block);
        let walk = 25 | 1 << 8 | 1 << 10 | 3 << 12;
        let context = walk | 1 << 30 | 1 << 31 | 5 << 32 | 1 << 41 | 7 << 45 | 1 << 48;
        let entry = 1 | 0b101 << 1 | CONTEXTS | 3 << 59;
        let at = STREAMS + 3 * 64;
        self.store(CONTEXTS + 64 + 8, 8, ROOT);
        self.store(CONTEXTS + 64 + 24, 8, 0xff);
        self.store(CONTEXTS + 64, 8, context);
        self.store(at + 8, 8, 1 << 2 | 1 << 4 | 3 << 6 | 1 << 44);
        self.run(&[[0x03 | 3 << 32, 1]]);
        self.store(at, 8, entry);
        self.run(&[[0x03 | 3 << 32, 1]]);
    }

    /// Has the device write eight bytes at `address` under PASID 1.
    fn dma(&mut self, address: u64, value: u64) {
        let stores = [
            (frame::CONTROL, 4, 1),
            (frame::IOVA, 8, address),
            (frame::PASID, 4, 1 | 1 << 31),
            (frame::LENGTH, 4, 8),
            (frame::FLAGS, 4, 1),
            (frame::PATTERN, 8, value),
            (frame::COMMAND, 4, 1),
        ];
        for (at, bytes, value) in stores {
            self.store(DEVICE + at, bytes, value);
        }
    }

    fn ready(more: &[&str]) -> Self {
        let mut guest = Self::new(more);
        guest.up();
        guest.publish();
        guest
    }

    fn rules(&self) -> Vec<String> {
        let verdict = self.world.verdict();
        let breaches: &[Breach] = verdict.breaches();
        breaches.iter().map(|it| it.rule.clone()).collect()
    }

    fn verdict(&self) -> String {
        self.world.verdict().to_string()
    }

    fn says(&self, line: &str) -> bool {
        self.verdict().lines().any(|it| it == line)
    }
}

#[test]
fn a_guest_that_only_stores_drives_a_pasid_to_memory() {
    for mode in ["polite", "forgetful", "hoarding", "chaotic"] {
        let mut guest = Guest::ready(&[&format!("mode={mode}"), "seed=9"]);
        guest.dma(PAGE + 0x10, 0x1122_3344_5566_7788);
        assert_eq!(guest.ram.peek(PAGE + 0x10), 0x1122_3344_5566_7788, "{mode}");
        assert_eq!(guest.load32(DEVICE + frame::DONE), 1);
        assert_eq!(guest.rules(), [""; 0], "{mode}");
        for line in [
            "pasid = 0x1",
            "page = 0x40200000",
            "accesses = 1",
            "unreported = 0",
        ] {
            assert!(guest.says(line), "{mode}: {line}: {}", guest.verdict());
        }
    }
}

#[test]
fn the_same_stores_give_the_same_verdict_and_another_seed_another_run() {
    let run = |seed: &str| {
        let mut guest = Guest::ready(&["mode=chaotic", seed]);
        guest.dma(PAGE, 1);
        guest.verdict()
    };
    assert_eq!(run("seed=5"), run("seed=5"));
    let others: std::collections::BTreeSet<String> =
        (0..8).map(|seed| run(&format!("seed={seed}"))).collect();
    assert_eq!(others.len(), 8);
}

#[test]
fn an_acknowledgement_takes_model_time() {
    let mut guest = Guest::new(&[]);
    guest.register(offset::GBPA, 4, 1 << 31 | 1 << 20);
    assert_eq!(guest.load32(SMMU + offset::GBPA) >> 31, 1);
    guest.world.tick(1_999);
    assert_eq!(guest.load32(SMMU + offset::GBPA) >> 31, 1);
    guest.world.tick(3_000);
    assert_eq!(guest.load32(SMMU + offset::GBPA), 1 << 20);
}

#[test]
fn what_is_read_only_is_put_back_and_named() {
    let mut guest = Guest::new(&[]);
    let idr0 = guest.load32(SMMU + offset::IDR0);
    assert_ne!(idr0, 0);
    guest.register(offset::IDR0, 4, 0xdead_beef);
    assert_eq!(guest.load32(SMMU + offset::IDR0), idr0);
    assert_eq!(guest.rules(), ["ReadOnlyWritten"]);
    let mut guest = Guest::new(&[]);
    guest.store(DEVICE + frame::STREAM, 4, 77);
    assert_eq!(guest.load32(DEVICE + frame::STREAM), 3);
    guest.register(0xf000, 4, 5);
    assert_eq!(guest.load32(SMMU + 0xf000), 0);
}

#[test]
fn a_register_takes_stores_of_its_own_size_alone() {
    let mut guest = Guest::new(&[]);
    guest.store_pair(SMMU + offset::CMDQ_BASE, [COMMANDS | 4, 0]);
    assert_eq!(guest.rules(), ["RegisterAccessSize"]);
    assert_eq!(guest.ram.peek(SMMU + offset::CMDQ_BASE), 0);
    let mut guest = Guest::new(&[]);
    guest.register(offset::CR1, 1, 0x75);
    assert_eq!(guest.rules(), ["RegisterAccessSize"]);
}

#[test]
fn a_devices_buffer_takes_pairs_and_nothing_narrower_than_a_word() {
    let mut guest = Guest::new(&[]);
    guest.store_pair(DEVICE + frame::BUFFER + 16, [1, 2]);
    guest.store(DEVICE + frame::BUFFER + 24, 1, 9);
    assert_eq!(guest.ram.peek(DEVICE + frame::BUFFER + 16), 1);
    assert_eq!(guest.ram.peek(DEVICE + frame::BUFFER + 24), 2);
    assert_eq!(guest.rules(), [""; 0]);
}

#[test]
fn a_report_of_what_was_not_stored_is_no_store() {
    let mut guest = Guest::ready(&[]);
    let at = STREAMS + 3 * 64;
    let before = guest.verdict();
    // A CAS that does not match: the report has the value that it would have stored.
    guest.report(at, 8, [0, 0]);
    guest.dma(PAGE, 7);
    assert_eq!(guest.ram.peek(PAGE), 7);
    let changes = |verdict: &str| {
        let line = verdict.lines().find(|it| it.starts_with("changes = "));
        line.map(str::to_owned)
    };
    assert_eq!(changes(&guest.verdict()), changes(&before));
}

#[test]
fn a_live_entry_that_is_torn_ends_the_run_with_its_story() {
    let mut guest = Guest::ready(&[]);
    guest.dma(PAGE, 7);
    // Another root and another size of addresses, one after the other.
    guest.store(CONTEXTS + 64 + 8, 8, ROOT + 0x1000);
    let word0 = guest.ram.peek(CONTEXTS + 64);
    guest.store(CONTEXTS + 64, 8, word0 + 3);
    assert!(guest.world.is_over());
    assert_eq!(guest.rules()[0], "LiveEntryTorn");
    let verdict = guest.verdict();
    // The store that it was noticed at, and where in the guest's code that is.
    let noticed = format!(
        "noticed at the store to {:#x} by the instruction at {:#x}",
        CONTEXTS + 64,
        0x4020_0000 + guest.now_ns * 4
    );
    assert!(verdict.contains(&noticed), "{verdict}");
    assert!(
        verdict.contains("[[breach]]\nrule = \"LiveEntryTorn\"\ntold = \""),
        "{verdict}"
    );
}

#[test]
fn stores_that_nobody_reported_are_counted_when_the_smmu_meets_them() {
    let mut guest = Guest::ready(&["mode=polite"]);
    guest.dma(PAGE, 7);
    assert!(guest.says("unreported = 0"));
    // As a DC ZVA would: the context is gone, and only memory says so.
    guest.poke(CONTEXTS + 64, 8, 0);
    guest.run(&[[0x05 | 1 << 12 | 3 << 32, 1]]);
    guest.dma(PAGE, 8);
    assert_eq!(guest.ram.peek(PAGE), 7);
    assert!(guest.says("unreported = 1"), "{}", guest.verdict());
    assert!(guest.says("first_unreported = 0x40004040"));
}

#[test]
fn a_device_that_reaches_a_structure_or_what_is_kept_out_ends_the_run() {
    let places = [
        (
            CONTEXTS + 0x400,
            "keep-out=0x40004000+0x1000",
            "KeptOutReached",
        ),
        (CONTEXTS + 64 + 16, "mode=polite", "StructureReached"),
        (STREAMS + 3 * 64 + 32, "mode=polite", "StructureReached"),
        (COMMANDS + 0x80, "mode=polite", "StructureReached"),
        (EVENTS + 0x100, "mode=polite", "StructureReached"),
    ];
    for (at, argument, rule) in places {
        let mut guest = Guest::ready(&[argument]);
        guest.dma(PAGE, 7);
        assert_eq!(guest.rules(), [""; 0]);
        guest.dma(at, 8);
        assert_eq!(
            guest.rules().first().map(String::as_str),
            Some(rule),
            "{at:#x}"
        );
    }
    let mut guest = Guest::ready(&["mode=polite", "sealed=off"]);
    guest.dma(CONTEXTS + 64 + 16, 8);
    assert_eq!(guest.rules(), [""; 0]);
}

#[test]
fn a_devices_frame_is_no_memory_for_dma() {
    let mut guest = Guest::ready(&[]);
    guest.dma(DEVICE + frame::CONTROL, 0);
    assert_eq!(guest.load32(DEVICE + frame::ABORTED), 1);
    assert_eq!(guest.load32(DEVICE + frame::CONTROL), 1);
}

#[test]
fn what_is_tolerated_is_counted_and_nothing_like_it_is() {
    let illegal = |more: &[&str], command: u64| {
        let mut guest = Guest::ready(more);
        let at = COMMANDS + u64::from(guest.produced & 15) * 16;
        guest.store_pair(at, [command, 0]);
        let produced = guest.produced + 1;
        guest.register(offset::CMDQ_PROD, 4, produced.into());
        guest.world.tick(guest.now_ns + 100_000);
        guest
    };
    let tolerate = "tolerate=CommandIllegal:0xff 0x0 at";
    let guest = illegal(&[tolerate], 0xff);
    assert_eq!(guest.rules(), [""; 0]);
    assert!(guest.says("times = 1"), "{}", guest.verdict());
    assert_eq!(illegal(&[tolerate], 0xfe).rules(), ["CommandIllegal"]);
    assert_eq!(illegal(&[], 0xff).rules(), ["CommandIllegal"]);
}

#[test]
fn the_ram_is_read_as_devices_see_it() {
    let guest = Guest::new(&[]);
    guest.poke(PAGE, 8, 5);
    assert_eq!(guest.ram.read64(PAGE), Ok(5));
}

#[test]
fn a_witness_counts_what_was_tried_and_what_reached_memory_with_its_pasid_alone() {
    use frame::witness::{BEGIN, WITH_PASID};
    let mut guest = Guest::ready(&[]);
    guest.dma(PAGE, 1);
    guest.store(DEVICE + frame::STORY, 4, 9);
    let mark = |guest: &mut Guest, value: u32| {
        guest.store(DEVICE + frame::WITNESS, 4, value.into());
    };
    mark(&mut guest, WITH_PASID | BEGIN | 1);
    mark(&mut guest, WITH_PASID | BEGIN | 2);
    guest.dma(PAGE, 2);
    guest.dma(PAGE, 3);
    guest.dma(PAGE + (1 << 31), 4);
    mark(&mut guest, WITH_PASID | 1);
    guest.dma(PAGE, 5);
    let verdict = guest.verdict();
    let witnesses: Vec<&str> = verdict.split("\n[[").collect();
    let found: Vec<&&str> = witnesses
        .iter()
        .filter(|part| part.starts_with("witness]]"))
        .collect();
    assert_eq!(found.len(), 2, "{verdict}");
    let says = |at: usize, lines: &[&str]| {
        let all = lines
            .iter()
            .all(|line| found[at].lines().any(|it| it == *line));
        assert!(all, "{}", found[at]);
    };
    says(0, &["smmu = 0", "stream = 0x3", "story = 9", "pasid = 0x1"]);
    says(0, &["tried = 3", "landed = 2"]);
    assert!(found[0].contains("end_us"));
    says(1, &["pasid = 0x2", "tried = 0", "landed = 0"]);
    assert!(!found[1].contains("end_us"), "nobody ended it");
}
