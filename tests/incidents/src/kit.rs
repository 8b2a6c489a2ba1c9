//! What drivers of policies that go wrong share, and do right: entries published and retracted by the
//! architecture's sequences, on the model's own bench. What goes wrong is when they are asked to.

use std::collections::BTreeMap;

use smmu_model::bench::{
    BASE, Bench, SYNC, cd, cd_word0, cfgi_cd, nh_asid, s2_ipa, ste_nested, ste_stage2,
};
use smmu_model::{Identity, Mode, Outcome, Rule, Transaction};

use crate::side::rules;

const STREAM: u32 = 5;
const VMID: u16 = 7;
/// Where each process has its one page.
const VA: u64 = 0x1_2345_6000;
/// CDs in the table, as a power of two.
const LOG2_CDS: u32 = 4;

struct Process {
    root: u64,
    page: u64,
    asid: u16,
}

/// One SMMU, one nested stream, and processes.
pub(crate) struct Kit {
    bench: Bench,
    contexts: u64,
    processes: BTreeMap<&'static str, Process>,
}

impl Kit {
    /// A device whose stream is nested, with no CD.
    pub(crate) fn new() -> Self {
        let mut bench = Bench::up(Identity::full(), Mode::Hoarding);
        let root2 = bench.frames(12);
        let contexts = bench.frames(12);
        // The guest's addresses are the physical ones; memory that is taken later is mapped, too.
        for frame in (contexts..BASE + 0x20_0000).step_by(0x1000) {
            bench.map2(root2, frame, frame);
        }
        bench.publish_ste(STREAM, &ste_nested(VMID, root2, contexts, LOG2_CDS));
        Self {
            bench,
            contexts,
            processes: BTreeMap::new(),
        }
    }

    /// A process with a page and tables of its own.
    pub(crate) fn start(&mut self, name: &'static str) {
        let root = self.bench.frames(12);
        let page = self.bench.frames(12);
        self.bench.map1(root, VA, page);
        let asid = self.processes.len() as u16 + 1;
        self.processes.insert(name, Process { root, page, asid });
    }

    pub(crate) fn page(&self, name: &str) -> u64 {
        self.processes[name].page
    }

    fn at(&self, number: u32) -> u64 {
        self.contexts + u64::from(number) * 64
    }

    /// Whether the CD of a number is live.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        let word0 = self.bench.machine.load(self.at(number));
        word0.expect("in memory") & 1 << 31 != 0
    }

    /// Makes the CD of a number, which is not live, that of a process.
    pub(crate) fn publish(&mut self, number: u32, name: &str) {
        let Process { root, asid, .. } = self.processes[name];
        let at = self.at(number);
        self.bench.publish_cd(STREAM, number, at, &cd(asid, root));
    }

    /// Gives the CD of a number, which is live, the ASID of a process; its tables stay.
    pub(crate) fn replace_asid(&mut self, number: u32, name: &str) {
        let word0 = cd_word0(self.processes[name].asid);
        self.change(number, word0);
    }

    /// Takes the CD of a number away, and what is cached of the process.
    pub(crate) fn retract(&mut self, number: u32, name: &str) {
        self.change(number, 0);
        let asid = self.processes[name].asid;
        self.bench.commands(&[nh_asid(VMID, asid), SYNC]);
    }

    fn change(&mut self, number: u32, word0: u64) {
        self.bench.store(self.at(number), word0);
        self.bench.publish();
        self.bench.commands(&[cfgi_cd(STREAM, number), SYNC]);
    }

    /// The device writes with a number.
    pub(crate) fn fire(&mut self, number: u32) -> Option<u64> {
        let write = Transaction::write(STREAM, VA, b"incident").with_substream(number);
        landing(&self.bench, write)
    }

    pub(crate) fn objections(&self) -> Vec<Rule> {
        rules(self.bench.machine.record())
    }
}

/// Where a write landed, by the record.
fn landing(bench: &Bench, write: Transaction) -> Option<u64> {
    let record = bench.machine.record();
    let mark = record.mark();
    let outcome = bench.machine.smmu(0).transact(write);
    let landed = record.landed_since(mark).first().map(|it| it.pa);
    assert_eq!(landed.is_some(), matches!(outcome, Outcome::Done { .. }));
    landed
}

/// One SMMU and one stream that goes through the host's tables or a guest's.
pub(crate) struct GroupKit {
    bench: Bench,
    /// Of the host and of the guest: the root, and the page at [`VA`].
    tables: [(u64, u64); 2],
}

/// Whose tables a stream goes through.
#[derive(Clone, Copy)]
pub(crate) enum Tables {
    Host = 0,
    Guest = 1,
}

impl GroupKit {
    /// A stream that aborts.
    pub(crate) fn new() -> Self {
        let mut bench = Bench::up(Identity::full(), Mode::Hoarding);
        let tables = [0; 2].map(|_| {
            let (root, page) = (bench.frames(12), bench.frames(12));
            bench.map2(root, VA, page);
            (root, page)
        });
        Self { bench, tables }
    }

    pub(crate) fn guest_page(&self) -> u64 {
        self.tables[Tables::Guest as usize].1
    }

    /// Leads the stream, which aborts first, through other tables.
    pub(crate) fn lead_to(&mut self, whose: Tables) {
        self.bench.replace_ste_word0(STREAM, 0);
        let (root, _) = self.tables[whose as usize];
        let vmid = VMID + whose as u16;
        self.bench.publish_ste(STREAM, &ste_stage2(vmid, root));
        self.bench.commands(&[s2_ipa(vmid, VA), SYNC]);
    }

    /// The device writes.
    pub(crate) fn fire(&mut self) -> Option<u64> {
        landing(&self.bench, Transaction::write(STREAM, VA, b"incident"))
    }

    pub(crate) fn objections(&self) -> Vec<Rule> {
        rules(self.bench.machine.record())
    }
}
