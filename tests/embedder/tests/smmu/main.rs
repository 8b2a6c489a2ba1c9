//! One SMMU, driven by the library against the hostile model.

mod events;
mod sharing;
mod streams;
mod take_over;
mod trouble;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Frames, Platform, PoolShape};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{
    CommandError, Death, Firmware, HandshakeTimeout, QueueIndices, Refusal, Settings, Smmu,
    StreamError, TakeOverError, Unpublished, Unwalkable, invalidate, probe,
};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::spec::command::Command;
use portcullis::spec::event::EventKind;
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use portcullis_embedder::Hypervisor;
use smmu_model::{Faults, Fetch, Identity, Mode, Outcome, Transaction};

const FIRMWARE: Firmware = Firmware {
    is_coherent: true,
    queue_indices: QueueIndices::Page1,
};
const STREAM: StreamId = StreamId::new(0x110);
const IPA: Ipa = Ipa::new(0x4_0000_3000);
const LAST: StreamId = StreamId::new(0xffff);

/// Every way of being hostile, and as many seeds as are quick.
fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    take_over_with(host, |_| {})
}

fn take_over_with(host: &Hypervisor, adjust: impl FnOnce(&mut Settings)) -> Smmu<'_, Hypervisor> {
    let mut settings = Settings::new(LAST);
    adjust(&mut settings);
    Smmu::take_over(host, host.registers(0), FIRMWARE, settings).expect("it is taken over")
}

fn stage2(host: &Hypervisor, vmid: u16) -> Stage2<'_, Hypervisor> {
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
    Stage2::new(host, config).expect("there is memory")
}

fn page(host: &Hypervisor) -> Frames {
    host.allocate(12).expect("there is memory")
}

fn map(stage2: &mut Stage2<'_, Hypervisor>, ipa: Ipa, pa: Pa) {
    let mapped = stage2.map(ipa, pa, 0x1000, Attributes::MEMORY, PageSizes::PagesOnly);
    mapped.expect("it is mapped");
}

/// A device writes; whether it got through.
fn writes(host: &Hypervisor, stream: StreamId, at: Ipa) -> bool {
    let write = Transaction::write(stream.as_u32(), at.as_u64(), b"portcull");
    matches!(host.machine().smmu(0).transact(write), Outcome::Done { .. })
}

fn assert_clean(host: &Hypervisor, what: impl std::fmt::Debug) {
    let violations = host.machine().record().violations();
    assert!(violations.is_empty(), "{what:?}: {}", violations[0]);
}

fn syncs(host: &Hypervisor) -> u64 {
    host.machine().smmu(0).syncs()
}
