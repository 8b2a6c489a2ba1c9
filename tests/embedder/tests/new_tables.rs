//! SMMUs that must be told of new tables (HiSilicon erratum 162100602): the commands sent, by hand.

mod sent;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Platform, PoolShape};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{
    CommandError, ContextShape, Firmware, QueueIndices, Settings, Smmu, StreamError, Unwalkable,
    invalidate,
};
use portcullis::space::nesting::{Nesting, NestingError};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config, Stage2Error, View};
use portcullis::space::window::{Window, WindowError};
use portcullis::spec::ste::{CdFormat, Untagged};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use portcullis_embedder::Hypervisor;
use smmu_model::{Faults, Identity, Mode, Outcome, Transaction};

use sent::commands;

const STREAM: StreamId = StreamId::new(0x110);
const IPA: u64 = 0x4_0000_3000;
const WINDOW: Ipa = Ipa::new(0x70_0000_0000);
const KIB4: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB: u64 = 0x4000_0000;

/// §4.4.3 and §4.7.3 by hand: CMD_TLBI_S2_IPA of VMID 7, with `Leaf` in bit 0 of its second word;
/// CMD_TLBI_S12_VMALL; CMD_SYNC.
const S2_IPA: u64 = 0x7_0000_002a;
const S12_VMALL: u64 = 0x7_0000_0028;
const SYNC: u64 = 0x46;
fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xffff));
    settings.needs_flush_of_new_tables = true;
    Smmu::take_over(host, host.registers(0), firmware, settings).expect("it is taken over")
}

fn stage2(host: &Hypervisor, bbm: BbmLevel) -> Stage2<'_, Hypervisor> {
    let config = Stage2Config {
        granule: Granule::Kib4,
        ipa_bits: 40,
        oas_bits: 40,
        bbm,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 3,
        },
        vmid: Vmid::new(7),
    };
    Stage2::new(host, config).expect("there is memory")
}

fn assert_told(found: &[[u64; 2]], expected: &[[u64; 2]]) {
    let (sync, told) = found.split_last().expect("a SYNC at the end");
    assert_eq!(sync[0] & 0xff, SYNC, "{found:x?}");
    assert_eq!(told, expected, "{found:x?}");
}

fn map(stage2: &mut Stage2<'_, Hypervisor>, smmu: &Smmu<'_, Hypervisor>, ipa: u64, bytes: u64) {
    map_to(stage2, smmu, ipa, ipa & 0xffff_ffff, bytes);
}

fn map_to(
    stage2: &mut Stage2<'_, Hypervisor>,
    smmu: &Smmu<'_, Hypervisor>,
    ipa: u64,
    pa: u64,
    bytes: u64,
) {
    let (memory, sizes) = (Attributes::MEMORY, PageSizes::Largest);
    let (ipa, pa) = (Ipa::new(ipa), Pa::new(pa));
    let change = stage2.map_flushed(View::Both, ipa, pa, bytes, memory, sizes);
    invalidate(&[smmu], change.expect("it is mapped")).expect("it is confirmed");
}

#[test]
fn a_new_table_is_followed_by_an_invalidation_of_its_range_and_walks() {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, BbmLevel::Level0).flushing_new_tables();
    let mut told = |ipa, bytes| commands(&host, || map(&mut stage2, &smmu, ipa, bytes));
    let table_of = |ipa: u64| [S2_IPA, ipa & !(MIB2 - 1)];
    // Two tables, both reached by an address that the last one covers.
    assert_told(&told(IPA, KIB4), &[table_of(IPA)]);
    // The table is there: nothing new, nothing told.
    assert_eq!(told(IPA + KIB4, KIB4), [[0; 2]; 0]);
    // Both ends of a range have a table, though it is shorter than what one covers.
    let across = IPA + 0x100 * MIB2 - 0x1_0000;
    let both = [table_of(across), table_of(across + MIB2)];
    assert_told(&told(across, 0x2_0000), &both);
    // Only a table of blocks, at the level above.
    let block = 0x10_0000_0000;
    assert_told(&told(block, MIB2), &[[S2_IPA, block]]);
    assert_eq!(told(block + MIB2, MIB2), [[0; 2]; 0]);
    // Blocks of 1 GiB in the root's own table.
    assert_eq!(told(0x20_0000_0000, GIB), [[0; 2]; 0]);
    // More commands than are worth it.
    let many = 0x30_0000_0000 + MIB2;
    assert_told(&told(many, 33 * MIB2), &[[S12_VMALL, 0]]);
}

#[test]
fn where_there_are_ranges_one_command_has_all_tables() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, BbmLevel::Level0).flushing_new_tables();
    let (memory, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
    let told = commands(&host, || {
        let (ipa, bytes) = (Ipa::new(GIB), 16 * MIB2);
        let change = stage2.map_flushed(View::Both, ipa, Pa::new(GIB), bytes, memory, sizes);
        invalidate(&[&smmu], change.expect("it is mapped")).expect("it is confirmed");
    });
    // §4.4.1.1: 8192 granules of 4 KiB are 8 times 2^10: NUM 7 at [16:12], SCALE 10 at [24:20], TG 1
    // at [11:10] of the second word.
    assert_told(&told, &[[S2_IPA | 7 << 12 | 10 << 20, GIB | 1 << 10]]);
}

#[test]
fn other_smmus_are_told_nothing() {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, BbmLevel::Level0);
    let told = commands(&host, || map(&mut stage2, &smmu, IPA, KIB4));
    assert_eq!(told, [[0; 2]; 0]);
}

#[test]
fn such_an_smmu_walks_no_stage_2_that_does_not_tell_of_new_tables() {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let smmu = take_over(&host);
    let silent = stage2(&host, BbmLevel::Level0);
    let refused = smmu.publish(&[STREAM], &silent.walk());
    let why = StreamError::Unwalkable(Unwalkable::NewTables);
    assert_eq!(refused, Err(why));
    let telling = silent.flushing_new_tables();
    assert_eq!(smmu.publish(&[STREAM], &telling.walk()), Ok(()));
}

#[test]
fn what_would_not_tell_of_new_tables_is_refused_and_changes_nothing() {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let mut stage2 = stage2(&host, BbmLevel::Level0).flushing_new_tables();
    let mut window = Window::new(&host, &mut stage2, WINDOW, MIB2).expect("it is free");
    let (memory, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
    let mapped = stage2.map(Ipa::new(IPA), Pa::new(0), KIB4, memory, sizes);
    assert_eq!(mapped, Err(Stage2Error::FlushNeeded));
    let sealed = window.seal(&mut stage2, 12).err();
    assert_eq!(sealed, Some(WindowError::Stage2(Stage2Error::FlushNeeded)));
    assert_eq!(stage2.query(Ipa::new(IPA)), None);
    assert_eq!((stage2.table_pages(), window.sealed_pages()), (0, 0));
    // Everything else is refused as it would be otherwise.
    let change = stage2.map_flushed(View::Both, WINDOW, Pa::new(0), KIB4, memory, sizes);
    let refused = Stage2Error::InWindow { window: WINDOW };
    assert_eq!(change.err(), Some(refused));
    assert_eq!(stage2.table_pages(), 0);
}

/// The commands of unmapping the first page of a block, whose table is new.
fn of_a_cut(bbm: BbmLevel, flushes: bool) -> Vec<[u64; 2]> {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let smmu = take_over(&host);
    let mut stage2 = match flushes {
        true => stage2(&host, bbm).flushing_new_tables(),
        false => stage2(&host, bbm),
    };
    map(&mut stage2, &smmu, GIB, MIB2);
    if bbm == BbmLevel::Level1 {
        let splitting = stage2.split(Ipa::new(GIB), KIB4).expect("it can be split");
        let splitting = invalidate(&[&smmu], splitting).expect("it is confirmed");
        return commands(&host, || {
            let tables = invalidate(&[&smmu], splitting.finish());
            assert_eq!(tables.expect("it is confirmed").pages(), 0);
        });
    }
    let change = stage2.unmap(Ipa::new(GIB), KIB4).expect("it is unmapped");
    commands(&host, || {
        let tables = invalidate(&[&smmu], change).expect("it is confirmed");
        stage2.reclaim(tables).expect("its own");
    })
}

#[test]
fn a_table_in_the_place_of_a_block_takes_what_walks_cached_with_it() {
    let leaf = 1;
    assert_told(&of_a_cut(BbmLevel::Level1, false), &[[S2_IPA, GIB | leaf]]);
    assert_told(&of_a_cut(BbmLevel::Level1, true), &[[S2_IPA, GIB]]);
    // With the page that goes, by pages: more than are worth it.
    let told = of_a_cut(BbmLevel::Level2, true);
    assert!(
        told.iter().all(|command| command[1] & leaf == 0),
        "{told:x?}"
    );
    assert_told(&told, &[[S12_VMALL, 0]]);
}

#[test]
fn devices_reach_what_was_mapped_under_them_in_every_mode() {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    let modes = [Mode::Polite, Mode::Forgetful, Mode::Hoarding];
    for mode in modes.into_iter().chain(seeds) {
        let host = Hypervisor::new(Identity::kunpeng_920(), mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, BbmLevel::Level0).flushing_new_tables();
        let page = host.allocate(12).expect("there is memory");
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        let writes = || {
            let write = Transaction::write(STREAM.as_u32(), IPA, b"portcull");
            matches!(host.machine().smmu(0).transact(write), Outcome::Done { .. })
        };
        assert!(!writes(), "{mode:?}: nothing is mapped");
        map_to(&mut stage2, &smmu, IPA, page.base().as_u64(), KIB4);
        assert!(writes(), "{mode:?}: it is mapped");
        let violations = host.machine().record().violations();
        assert!(violations.is_empty(), "{mode:?}: {}", violations[0]);
    }
}

#[test]
fn an_smmu_says_who_made_it_in_one_word() {
    for iidr in [0x0005_1736, 0xabcd_e736, 0] {
        let identity = Identity {
            iidr,
            ..Identity::kunpeng_920()
        };
        let host = Hypervisor::new(identity, Mode::Polite);
        let smmu = take_over(&host);
        assert_eq!(smmu.features().implementation.iidr(), iidr);
    }
}

/// Contexts whose root is one page.
const SHAPE: ContextShape = ContextShape::BySubstream {
    log2_contexts: 8,
    format: CdFormat::Leaves4K,
    untagged: Untagged::Abort,
};

#[test]
fn the_window_of_cds_is_told_of_before_a_device_has_it() {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, BbmLevel::Level0).flushing_new_tables();
    let mut window = Window::new(&host, &mut stage2, WINDOW, MIB2).expect("it is free");
    let mut nesting = Nesting {
        stage2: &mut stage2,
        window: &mut window,
        smmus: &[&smmu],
    };
    let told = commands(&host, || {
        let made = nesting.contexts(&smmu, &[STREAM], &SHAPE);
        assert!(made.is_ok());
    });
    assert_told(&told, &[[S2_IPA, WINDOW.as_u64()]]);
    // The window's table is there by now.
    let other = StreamId::new(0x111);
    let told = commands(&host, || {
        let made = nesting.contexts(&smmu, &[other], &SHAPE);
        assert!(made.is_ok());
    });
    assert_eq!(told, [[0; 2]; 0]);
}

#[test]
fn a_window_that_an_smmu_does_not_know_of_is_not_used() {
    let host = Hypervisor::new(Identity::kunpeng_920(), Mode::Polite);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, BbmLevel::Level0).flushing_new_tables();
    let mut window = Window::new(&host, &mut stage2, WINDOW, MIB2).expect("it is free");
    let faults = Faults {
        sync_never: true,
        ..Faults::default()
    };
    host.machine().smmu(0).set_faults(faults);
    let mut nesting = Nesting {
        stage2: &mut stage2,
        window: &mut window,
        smmus: &[&smmu],
    };
    let made = nesting.contexts(&smmu, &[STREAM], &SHAPE).err();
    assert!(
        matches!(
            made,
            Some(NestingError::NotConfirmed(CommandError::SyncTimeout { .. }))
        ),
        "{made:?}"
    );
    assert_eq!(window.sealed_pages(), 1, "lost, and counted");
}
