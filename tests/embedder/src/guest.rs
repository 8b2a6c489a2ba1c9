//! A guest with stage 2, a window and address spaces of its own, for tests of what nests in it.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, Frames, Platform, PoolShape};
use portcullis::id::{Asid, StreamId, SubstreamId, Vmid};
use portcullis::smmu::{
    Context, ContextShape, Contexts, Firmware, QueueIndices, Settings, Smmu, invalidate,
};
use portcullis::space::nesting::Nesting;
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::space::window::Window;
use portcullis::spec::command::Command;
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::ste::{CdFormat, Untagged};
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Cacheability, Granule, Shareability, WalkCoherency,
};
use smmu_model::{Mode, Outcome, Transaction};

use crate::Hypervisor;

/// A stream.
pub const STREAM: StreamId = StreamId::new(0x110);
/// Another of the same device.
pub const ALIAS: StreamId = StreamId::new(0x111);
/// Another device's, in another part of the table.
pub const OTHER: StreamId = StreamId::new(0x2117);
/// Where the guest's memory is.
pub const DATA: Ipa = Ipa::new(0x4_0000_0000);
/// Where what was never to be walked leads.
pub const TRAP: Ipa = Ipa::new(0x4_000f_f000);
/// Where the guest's own tables are.
pub const TABLE: Ipa = Ipa::new(0x4_0010_0000);
/// Where devices see their contexts.
pub const WINDOW: Ipa = Ipa::new(0x70_0000_0000);
/// How much they can see there.
pub const WINDOW_BYTES: u64 = 4 << 20;
/// Where each of its address spaces has its one page: 30 bits of address, so one level leads to it.
pub const VA: u64 = 0x1234_5000;

/// Every way of being hostile, and as many seeds as are quick.
pub fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

/// Takes the first SMMU over, with 2^16 streams.
pub fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let settings = Settings::new(StreamId::new(0xffff));
    Smmu::take_over(host, host.registers(0), firmware, settings).expect("it is taken over")
}

/// A guest with one page of memory and the tables of some address spaces.
pub struct Guest<'p> {
    host: &'p Hypervisor,
    /// Its stage 2.
    pub stage2: Stage2<'p, Hypervisor>,
    /// Where its devices see their contexts.
    pub window: Window<'p, Hypervisor>,
    /// Its memory and where it sees it, the page at [`DATA`] first.
    pub memory: Vec<(Ipa, Frames)>,
}

impl<'p> Guest<'p> {
    /// A guest with this VMID.
    pub fn new(host: &'p Hypervisor, vmid: u16) -> Self {
        let config = Stage2Config {
            granule: Granule::Kib4,
            ipa_bits: 40,
            oas_bits: 40,
            bbm: BbmLevel::Level0,
            coherency: WalkCoherency::Coherent,
            tables: PoolShape {
                quota_pages: 64,
                log2_pages_per_chunk: 3,
            },
            vmid: Vmid::new(vmid),
        };
        let mut stage2 = Stage2::new(host, config).expect("there is memory");
        let window = Window::new(host, &mut stage2, WINDOW, WINDOW_BYTES).expect("it is free");
        let mut guest = Self {
            host,
            stage2,
            window,
            memory: Vec::new(),
        };
        guest.give(DATA);
        guest.lay_trap();
        guest
    }

    /// Tables that lead elsewhere, where a root is that was not written yet: at 0. What is walked by
    /// a CD of which only the first word is new lands there, and stays cached under its ASID.
    fn lay_trap(&mut self) {
        self.tables(Ipa::new(0), TRAP);
        self.give(TRAP);
    }

    /// Its memory as the nesting of devices needs it.
    pub fn nesting<'a>(
        &'a mut self,
        smmus: &'a [&'a Smmu<'p, Hypervisor>],
    ) -> Nesting<'a, 'p, Hypervisor> {
        Nesting {
            stage2: &mut self.stage2,
            window: &mut self.window,
            smmus,
        }
    }

    /// Maps a fresh page, full of zeros, at `ipa`.
    pub fn give(&mut self, ipa: Ipa) {
        let page = self.host.allocate(12).expect("there is memory");
        page.fill(self.host, 0);
        let sizes = PageSizes::PagesOnly;
        self.stage2
            .map(ipa, page.base(), 0x1000, Attributes::MEMORY, sizes)
            .expect("it is mapped");
        self.memory.push((ipa, page));
    }

    /// Where its data is.
    pub fn data(&self) -> Pa {
        self.memory[0].1.base()
    }

    /// The guest makes an address space that maps [`VA`] to its data; two tables of its own.
    pub fn space(&mut self, asid: u16) -> Stage1Walk {
        self.space_to(asid, DATA)
    }

    /// The guest makes an address space that maps [`VA`] to `page`; two tables of its own.
    pub fn space_to(&mut self, asid: u16, page: Ipa) -> Stage1Walk {
        let root = Ipa::new(TABLE.as_u64() + u64::from(asid) * 0x2000);
        self.tables(root, page);
        Stage1Walk {
            asid: Asid::new(asid),
            low: Some(Half {
                root,
                granule: Granule::Kib4,
                va_bits: 30,
                top_byte: TopByte::Checked,
                inner: Cacheability::WriteBack,
                outer: Cacheability::WriteBack,
                shareability: Shareability::Inner,
            }),
            high: None,
            output_bits: 40,
            memory_types: 0xff,
        }
    }

    /// Two tables, from `l2` on, that map [`VA`] to `to`.
    pub fn tables(&mut self, l2: Ipa, to: Ipa) {
        let l3 = Ipa::new(l2.as_u64() + 0x1000);
        for (table, index, descriptor) in [
            (l2, VA >> 21 & 511, Stage1Descriptor::table(l3)),
            (
                l3,
                VA >> 12 & 511,
                Stage1Descriptor::page(to, PageAccess::ReadWrite),
            ),
        ] {
            self.give(table);
            let (_, page) = self.memory.last().expect("just given");
            let words = page.words(self.host);
            self.host.store(&words[index as usize], descriptor.as_u64());
        }
        self.host.barrier(Barrier::Publish);
    }

    /// Takes the tables of an address space out of the guest, and gives their memory back.
    pub fn forget_space(&mut self, asid: u16, smmu: &Smmu<'p, Hypervisor>) {
        let first = TABLE.as_u64() + u64::from(asid) * 0x2000;
        let change = self.stage2.unmap(Ipa::new(first), 0x2000);
        let gone = invalidate(&[smmu], change.expect("mapped")).expect("confirmed");
        self.stage2.reclaim(gone).expect("its own");
        let is_its = |(ipa, _): &mut (Ipa, Frames)| ipa.as_u64() & !0x1fff == first;
        for (_, page) in self.memory.extract_if(.., is_its) {
            self.host.free(page);
        }
    }

    /// Makes memory again of contexts that no stream leads to.
    pub fn unseal(&mut self, smmu: &Smmu<'p, Hypervisor>, contexts: Contexts<'p, Hypervisor>) {
        let Ok(detached) = smmu.dismantle(contexts) else {
            panic!("a stream leads there")
        };
        let change = self.window.unseal_all(&mut self.stage2, detached);
        let gone = invalidate(&[smmu], change.ok().expect("its own")).expect("confirmed");
        let taken = self.window.give_back(&mut self.stage2, gone);
        assert!(taken.is_ok());
    }

    /// Ends the guest, whose streams are all retracted and whose window is empty.
    pub fn end(self, smmu: &Smmu<'p, Hypervisor>) {
        let Self {
            host,
            mut stage2,
            window,
            memory,
        } = self;
        assert_eq!(window.sealed_pages(), 0);
        assert!(window.close(&mut stage2).is_ok());
        let over = invalidate(&[smmu], stage2.dismantle()).expect("it is confirmed");
        assert_eq!(over.free(), 0);
        memory.into_iter().for_each(|(_, page)| host.free(page));
    }
}

/// The context of this SubstreamID.
pub fn substream(number: u32) -> Context {
    Context::Substream(SubstreamId::new(number).expect("20 bits"))
}

/// Contexts by SubstreamID.
pub fn by_substream(log2_contexts: u8, format: CdFormat, untagged: Untagged) -> ContextShape {
    ContextShape::BySubstream {
        log2_contexts,
        format,
        untagged,
    }
}

/// 4096 contexts in small leaves; untagged traffic aborts.
pub const SMALL: ContextShape = ContextShape::BySubstream {
    log2_contexts: 12,
    format: CdFormat::Leaves4K,
    untagged: Untagged::Abort,
};

/// Where a device's write at `address` lands.
pub fn lands(host: &Hypervisor, write: Transaction) -> Option<Pa> {
    let mark = host.machine().record().mark();
    let outcome = host.machine().smmu(0).transact(write);
    let landed = host.machine().record().landed_since(mark);
    assert_eq!(matches!(outcome, Outcome::Done { .. }), !landed.is_empty());
    landed.first().map(|landing| Pa::new(landing.pa))
}

/// Where a write with this SubstreamID lands.
pub fn tagged(host: &Hypervisor, stream: StreamId, number: u32) -> Option<Pa> {
    let write = Transaction::write(stream.as_u32(), VA, b"portcull");
    lands(host, write.with_substream(number))
}

/// Where a write without a SubstreamID lands.
pub fn untagged(host: &Hypervisor, stream: StreamId, address: u64) -> Option<Pa> {
    lands(
        host,
        Transaction::write(stream.as_u32(), address, b"portcull"),
    )
}

/// How many events there are, those on their way too: a SYNC brings them (§4.7.3).
pub fn events(smmu: &Smmu<'_, Hypervisor>) -> u32 {
    let ticket = smmu.submit(&[&[]]).expect("there is room");
    smmu.wait(ticket).expect("it is confirmed");
    smmu.service(u32::MAX, |_| {}).events.events
}

/// How many SYNCs `work` takes.
pub fn syncs<R>(host: &Hypervisor, work: impl FnOnce() -> R) -> (u64, R) {
    let before = host.machine().smmu(0).syncs();
    let result = work();
    (host.machine().smmu(0).syncs() - before, result)
}

/// Has the SMMU forget stage 1 of a VM, and confirm it.
pub fn flush(smmu: &Smmu<'_, Hypervisor>, vmid: Vmid) {
    let ticket = smmu
        .submit(&[&[Command::tlbi_nh_all(vmid)]])
        .expect("there is room");
    smmu.wait(ticket).expect("it is confirmed");
}

/// Panics if the model has found a violation.
pub fn assert_clean(host: &Hypervisor, what: impl std::fmt::Debug) {
    let violations = host.machine().record().violations();
    assert!(violations.is_empty(), "{what:?}: {}", violations[0]);
}
