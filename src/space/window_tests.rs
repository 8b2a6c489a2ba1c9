//! Windows without an SMMU: what is shown, and what comes back.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::hw::PoolShape;
use crate::hw::testing::HostPlatform;
use crate::space::stage2::Stage2Config;
use crate::spec::vmsa::{Attributes, BbmLevel, Granule, Permissions, WalkCoherency};

const BASE: Ipa = Ipa::new(0x7f_0001_0000);
const BYTES: u64 = 0x2_0000;

fn stage2(platform: &HostPlatform, granule: Granule) -> Stage2<'_, HostPlatform> {
    stage2_of(platform, granule, 32)
}

fn stage2_of(
    platform: &HostPlatform,
    granule: Granule,
    quota_pages: u64,
) -> Stage2<'_, HostPlatform> {
    let config = Stage2Config {
        granule,
        ipa_bits: 40,
        // The host's addresses are the physical ones here.
        oas_bits: 48,
        bbm: BbmLevel::Level2,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages,
            log2_pages_per_chunk: 2,
        },
        vmid: Vmid::new(3),
    };
    Stage2::new(platform, config).expect("there is memory")
}

fn take<'p>(
    window: &mut Window<'p, HostPlatform>,
    stage2: &mut Stage2<'p, HostPlatform>,
    sealed: Sealed,
) {
    let change = window.unseal(stage2, sealed).expect("its own");
    let unsealed = change.without_any_smmu();
    window
        .give_back(stage2, unsealed)
        .expect("it is the window's");
}

#[test]
fn what_is_sealed_is_zeros_in_read_only_pages_whatever_its_size() {
    for granule in [Granule::Kib4, Granule::Kib16, Granule::Kib64] {
        let platform = HostPlatform::new();
        let mut stage2 = stage2(&platform, granule);
        let mut window = Window::new(&platform, &mut stage2, BASE, BYTES).expect("it is free");
        let sealed = window.seal(&mut stage2, 16).expect("there is room");
        assert!(sealed.ipa().is_aligned(16));
        let log2_page = granule.log2_bytes();
        for page in 0..1_u64 << (16 - log2_page) {
            let offset = page << log2_page;
            let ipa = Ipa::new(sealed.ipa().as_u64() + offset);
            let mapping = stage2.query(ipa).expect("it is mapped");
            let read_only = Attributes {
                permissions: Permissions::READ_ONLY,
                ..Attributes::MEMORY
            };
            assert_eq!(mapping.attributes, read_only);
            assert_eq!(mapping.log2_bytes, log2_page, "never merged");
            let words = platform.read(mapping.pa, 1 << (log2_page - 3));
            assert_eq!(words, Some(std::vec![0; 1 << (log2_page - 3)]));
        }
        take(&mut window, &mut stage2, sealed);
        assert_eq!(stage2.query(BASE), None);
        assert!(window.close(&mut stage2).is_ok());
        assert_eq!(stage2.dismantle().without_any_smmu().free(), 0);
        assert_eq!(platform.bytes_out(), 0, "{granule:?}");
    }
}

#[test]
fn a_window_is_full_when_nothing_aligned_is_free() {
    let platform = HostPlatform::new();
    let mut stage2 = stage2(&platform, Granule::Kib4);
    // 32 pages, from an address that is a multiple of 64 KiB and no more.
    let mut window = Window::new(&platform, &mut stage2, BASE, BYTES).expect("it is free");
    let mut pages: Vec<Sealed> = (0..16)
        .map(|_| window.seal(&mut stage2, 12).expect("there is room"))
        .collect();
    let large = window.seal(&mut stage2, 16).expect("the other half");
    assert_eq!(large.ipa().as_u64(), BASE.as_u64() + 0x1_0000);
    assert_eq!(window.sealed_pages(), 32);
    for log2_bytes in [12, 16, 17, 63, 64, 255] {
        let full = WindowError::Full { log2_bytes };
        assert_eq!(window.seal(&mut stage2, log2_bytes), Err(full));
    }
    // Two pages side by side, of which the first is at an odd place, are no larger page.
    for number in [6, 5] {
        let page = pages.remove(number);
        take(&mut window, &mut stage2, page);
    }
    let full = WindowError::Full { log2_bytes: 13 };
    assert_eq!(window.seal(&mut stage2, 13), Err(full));
    let page = window.seal(&mut stage2, 12).expect("there are two");
    assert_eq!(page.ipa().as_u64(), BASE.as_u64() + 0x5000);
    let window = window.close(&mut stage2).err();
    assert!(window.is_some(), "it is not empty");
}

#[test]
fn what_is_refused_takes_nothing() {
    let platform = HostPlatform::new();
    let mut stage2 = stage2(&platform, Granule::Kib4);
    let page = platform.allocate(12).expect("there is memory");
    let inside = Ipa::new(BASE.as_u64() + 0x7000);
    let sizes = crate::space::stage2::PageSizes::PagesOnly;
    stage2
        .map(inside, page.base(), 0x1000, Attributes::MEMORY, sizes)
        .expect("nobody has it");
    let before = platform.bytes_out();
    let mut window = |base, bytes| Window::new(&platform, &mut stage2, base, bytes).err();
    assert_eq!(
        window(BASE, BYTES),
        Some(WindowError::Stage2(Stage2Error::AlreadyMapped {
            ipa: inside
        }))
    );
    assert_eq!(
        window(BASE, (MAX_PAGES + 1) << 12),
        Some(WindowError::TooLarge {
            pages: MAX_PAGES + 1,
            at_most: MAX_PAGES
        })
    );
    let past = Ipa::new((1 << 40) - 0x1000);
    let ipa_bits = 40;
    assert_eq!(
        window(past, 0x2000),
        Some(WindowError::Stage2(Stage2Error::PastInput { ipa_bits }))
    );
    assert_eq!(platform.bytes_out(), before);
    // The first range is still anybody's.
    let change = stage2.unmap(inside, 0x1000).expect("it is mapped");
    stage2.reclaim(change.without_any_smmu()).expect("its own");
    let mut window = Window::new(&platform, &mut stage2, BASE, BYTES).expect("it is free");
    let before = (platform.bytes_out(), stage2.table_pages());
    platform.fail_after(Some(0));
    let no_frames = WindowError::NoFrames { log2_bytes: 12 };
    assert_eq!(window.seal(&mut stage2, 12), Err(no_frames));
    platform.fail_after(None);
    assert_eq!((platform.bytes_out(), stage2.table_pages()), before);
    assert_eq!(window.sealed_pages(), 0);
    platform.free(page);
    // Two tables lead to a page.
    let mut small = stage2_of(&platform, Granule::Kib4, 1);
    let mut window = Window::new(&platform, &mut small, BASE, BYTES).expect("it is free");
    let before = platform.bytes_out();
    assert!(matches!(
        window.seal(&mut small, 12),
        Err(WindowError::Stage2(Stage2Error::NoTables(_)))
    ));
    assert_eq!(platform.bytes_out(), before);
    assert_eq!(window.sealed_pages(), 0);
}
