//! What an explanation says, the model does: two readings of the architecture, one memory.

use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::{Frames, Platform, PoolShape};
use portcullis::id::{StreamId, SubstreamId, Vmid};
use portcullis::smmu::{
    Explanation, Firmware, Outcome as Said, QueueIndices, Reason, Settings, Smmu, Unpublished,
};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::spec::event::Event;
use portcullis::spec::vmsa::{
    Access, Attributes, BbmLevel, Execute, Granule, Permissions, WalkCoherency,
};
use portcullis_embedder::Hypervisor;
use smmu_model::{Identity, Mode, Outcome, Transaction};

const STREAM: StreamId = StreamId::new(0x110);

fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xffff));
    settings.unpublished = Unpublished::Recorded;
    Smmu::take_over(host, host.registers(0), firmware, settings).expect("it is taken over")
}

fn stage2(host: &Hypervisor, granule: Granule) -> Stage2<'_, Hypervisor> {
    let config = Stage2Config {
        granule,
        ipa_bits: 36,
        oas_bits: 40,
        coherency: WalkCoherency::Coherent,
        bbm: BbmLevel::Level2,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 3,
        },
        vmid: Vmid::new(7),
    };
    Stage2::new(host, config).expect("there is memory")
}

/// What a transaction does, and the event that it leaves, if it does.
fn happens(
    host: &Hypervisor,
    smmu: &Smmu<'_, Hypervisor>,
    transaction: Transaction,
) -> (bool, Option<Event>) {
    let outcome = host.machine().smmu(0).transact(transaction);
    let ticket = smmu.submit(&[&[]]).expect("there is room");
    smmu.wait(ticket).expect("it is confirmed");
    let mut found = None;
    smmu.service(u32::MAX, |event| found = Some(event));
    (matches!(outcome, Outcome::Done { .. }), found)
}

/// The name of the event that an explanation expects of an access that needs `may`.
fn expected(
    said: &Explanation,
    may: impl Fn(bool, bool) -> bool,
) -> Result<Pa, Option<&'static str>> {
    match said.outcome {
        Said::Reaches {
            pa,
            can_read,
            can_write,
        } if may(can_read, can_write) => Ok(pa),
        Said::Reaches { .. } => Err(Some("F_PERMISSION")),
        Said::Aborts(reason) => Err(reason.event().map(|(name, _)| name)),
        Said::Bypasses | Said::Unreadable { .. } => panic!("{said}"),
    }
}

fn agrees(
    host: &Hypervisor,
    smmu: &Smmu<'_, Hypervisor>,
    stream: StreamId,
    substream: Option<u32>,
    address: u64,
) {
    let tag = substream.map(|number| SubstreamId::new(number).expect("20 bits"));
    let said = smmu.explain(stream, tag, Iova::new(address));
    let tagged = |transaction: Transaction| match substream {
        Some(number) => transaction.with_substream(number),
        None => transaction,
    };
    let mark = host.machine().record().mark();
    let write = tagged(Transaction::write(stream.as_u32(), address, b"portcull"));
    let (is_done, event) = happens(host, smmu, write);
    let landed = host.machine().record().landed_since(mark);
    match expected(&said, |_, can_write| can_write) {
        Ok(pa) => {
            assert!(is_done, "{said}");
            assert_eq!(landed.first().map(|it| it.pa), Some(pa.as_u64()), "{said}");
        }
        Err(name) => {
            assert!(!is_done, "{said}");
            assert_eq!(event.map(|event| event.kind.name()), name, "{said}");
        }
    }
    let read = tagged(Transaction::read(stream.as_u32(), address, 8));
    let (is_done, event) = happens(host, smmu, read);
    match expected(&said, |can_read, _| can_read) {
        Ok(_) => assert!(is_done, "{said}"),
        Err(name) => {
            assert!(!is_done, "{said}");
            assert_eq!(event.map(|event| event.kind.name()), name, "{said}");
        }
    }
}

fn map(stage2: &mut Stage2<'_, Hypervisor>, ipa: u64, frames: &Frames, access: Access) {
    let attributes = Attributes {
        permissions: Permissions {
            access,
            execute: Execute::Never,
        },
        ..Attributes::MEMORY
    };
    let size_bytes = frames.size_bytes();
    stage2
        .map(
            Ipa::new(ipa),
            frames.base(),
            size_bytes,
            attributes,
            PageSizes::Largest,
        )
        .expect("it is mapped");
}

#[test]
fn the_model_does_what_an_explanation_says() {
    for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
        let host = Hypervisor::new(Identity::full(), Mode::Forgetful);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, granule);
        smmu.publish(&[STREAM], &stage2.walk()).expect("published");
        let accesses = [
            Access::None,
            Access::ReadOnly,
            Access::WriteOnly,
            Access::ReadWrite,
        ];
        let page = host.allocate(granule.log2_bytes()).expect("memory");
        let block = host.allocate(21).expect("memory");
        for (access, ipa) in accesses.into_iter().zip((0x4000_0000..).step_by(1 << 30)) {
            map(&mut stage2, ipa, &page, access);
            map(&mut stage2, ipa + (1 << 21), &block, access);
            for inside in [0, 0x238, 0xff8, 1 << 21, (2 << 21) - 8, 2 << 21] {
                agrees(&host, &smmu, STREAM, None, ipa + inside);
            }
        }
        for address in [0, 1 << 36, (1 << 36) - 8, 1 << 40, 1 << 55, u64::MAX - 7] {
            agrees(&host, &smmu, STREAM, None, address);
        }
        agrees(&host, &smmu, STREAM, Some(5), 0x4000_0000);
        for stream in [0x111, 0x5000, 0xffff, 0x1_0000] {
            agrees(&host, &smmu, StreamId::new(stream), None, 0x4000_0000);
        }
    }
}

#[test]
fn an_smmu_that_was_shut_is_explained_too() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    smmu.slam().expect("it shuts");
    let said = smmu.explain(STREAM, None, Iova::new(0x1000));
    assert_eq!(said.outcome, Said::Aborts(Reason::GateShut));
}

/// What the SMMU cached and what memory says part where an invalidation is owed: the explanation
/// is of memory.
#[test]
fn an_explanation_is_of_memory_and_not_of_what_is_cached() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, Granule::Kib4);
    let page = host.allocate(12).expect("memory");
    map(&mut stage2, 0x4000_0000, &page, Access::ReadWrite);
    smmu.publish(&[STREAM], &stage2.walk()).expect("published");
    let is_done = || {
        let write = Transaction::write(STREAM.as_u32(), 0x4000_0000, b"portcull");
        matches!(host.machine().smmu(0).transact(write), Outcome::Done { .. })
    };
    assert!(is_done());
    let change = stage2
        .unmap(Ipa::new(0x4000_0000), 0x1000)
        .expect("unmapped");
    let said = smmu.explain(STREAM, None, Iova::new(0x4000_0000));
    assert!(said.to_string().contains("F_TRANSLATION"), "{said}");
    assert!(is_done(), "until it is told");
    drop(change);
}
