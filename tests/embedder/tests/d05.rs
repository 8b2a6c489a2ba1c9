//! SMMUs of D05's kind (Kunpeng 916): StreamIDs of 19 bits, and no CMD_PREFETCH.

mod sent;

use portcullis::addr::Ipa;
use portcullis::hw::{Platform, PoolShape};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu, TakeOverError, invalidate};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use portcullis_embedder::Hypervisor;
use smmu_model::{Identity, Mode, Outcome, Transaction};

use sent::commands;

/// The last stream that D05's tables name, a SAS controller's, and one of a PCIe slot.
const SAS0: StreamId = StreamId::new(0x4_0900);
const SLOT: StreamId = StreamId::new(0x2_f800);
const IPA: Ipa = Ipa::new(0x1_0000_3000);

const D05: Identity = Identity {
    sid_bits: 20,
    ..Identity::kunpeng_920()
};

fn take_over(host: &Hypervisor) -> Result<Smmu<'_, Hypervisor>, TakeOverError> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    Smmu::take_over(host, host.registers(0), firmware, Settings::new(SAS0))
}

fn writes(host: &Hypervisor, stream: StreamId) -> bool {
    let write = Transaction::write(stream.as_u32(), IPA.as_u64(), b"portcull");
    matches!(host.machine().smmu(0).transact(write), Outcome::Done { .. })
}

/// The life of a guest with both streams.
fn live(host: &Hypervisor, smmu: &Smmu<'_, Hypervisor>) {
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
        vmid: Vmid::new(7),
    };
    let mut stage2 = Stage2::new(host, config).expect("there is memory");
    let page = host.allocate(12).expect("there is memory");
    let (memory, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
    let mapped = stage2.map(IPA, page.base(), 0x1000, memory, sizes);
    mapped.expect("it is mapped");
    for stream in [SAS0, SLOT] {
        assert!(!writes(host, stream), "nobody published it");
        smmu.publish(&[stream], &stage2.walk())
            .expect("it is published");
        assert!(writes(host, stream), "it is published and mapped");
    }
    let change = stage2.unmap(IPA, 0x1000).expect("it is unmapped");
    let tables = invalidate(&[smmu], change).expect("it is confirmed");
    stage2.reclaim(tables).expect("its own");
    smmu.retract(&[SAS0, SLOT]).expect("they are retracted");
    assert!(!writes(host, SAS0) && !writes(host, SLOT));
}

#[test]
fn streams_up_to_0x40900_live_in_a_table_of_two_levels() {
    let host = Hypervisor::new(D05, Mode::Polite);
    let smmu = take_over(&host).expect("it is taken over");
    live(&host, &smmu);
    let violations = host.machine().record().violations();
    assert!(violations.is_empty(), "{}", violations[0]);
    // 2^19 entries of 64 bytes would be 32 MiB.
    assert!(host.bytes_out() < 1 << 20, "{}", host.bytes_out());
}

#[test]
fn without_a_second_level_so_many_streams_are_refused_for_want_of_memory() {
    let one_level = Identity {
        st_level2: false,
        ..D05
    };
    let host = Hypervisor::new(one_level, Mode::Polite);
    let refused = take_over(&host).err();
    assert!(
        matches!(refused, Some(TakeOverError::NoFrames { .. })),
        "{refused:?}"
    );
}

#[test]
fn no_prefetch_is_sent_in_a_whole_life() {
    let host = Hypervisor::new(D05, Mode::Polite);
    let smmu = take_over(&host).expect("it is taken over");
    let sent = commands(&host, || live(&host, &smmu));
    let opcodes: Vec<_> = sent.iter().map(|command| command[0] & 0xff).collect();
    // §4.1.1: CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR.
    let prefetches = [0x01, 0x02];
    assert!(!opcodes.iter().any(|opcode| prefetches.contains(opcode)));
    // It is a trace: CMD_CFGI_STE and CMD_SYNC are in it.
    assert!(
        opcodes.contains(&0x03) && opcodes.contains(&0x46),
        "{opcodes:x?}"
    );
}
