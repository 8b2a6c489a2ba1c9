//! The same tables by the crate `aarch64-paging`, which knows nothing of this one.
//!
//! It builds 4 KiB tables with a single root; what it cannot shape is compared nowhere here.

use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes as Peer};
use aarch64_paging::paging::{Constraints, MemoryRegion, RootTable, Stage2 as PeerStage2};
use aarch64_paging::target::TargetAllocator;
use portcullis::addr::{Ipa, Pa};
use portcullis::hw::testing::HostPlatform;
use portcullis::space::stage2::PageSizes;
use portcullis::spec::vmsa::{
    Access, Attributes, Cacheability, DeviceKind, Execute, Granule, MemoryType, Permissions,
    Shareability,
};

use super::walker::contents;
use super::{GIB, KIB4, MIB2, stage2};

/// Where the peer's tables are said to lie; a table's number follows from its address.
const BASE: u64 = 0x1_0000_0000;

/// The leaves in the peer's tables: input address, span, descriptor.
fn peer_leaves(bytes: &[u8], table: u64, level: u32, ipa: u64, found: &mut Vec<(u64, u32, u64)>) {
    let log2_span = 12 + 9 * (3 - level);
    for index in 0..512 {
        let at = (table - BASE + 8 * index) as usize;
        let word = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let ipa = ipa + (index << log2_span);
        match word & 0b11 {
            0b11 if level < 3 => peer_leaves(bytes, word & 0xffff_ffff_f000, level + 1, ipa, found),
            0b11 | 0b01 => found.push((ipa, log2_span, word)),
            _ => {}
        }
    }
}

const REGIONS: &[(u64, u64, u64)] = &[
    (0, 0x8000_0000, KIB4),
    (3 * KIB4, 0x9000_1000, 7 * KIB4),
    (2 * MIB2, 0x8000_0000, 3 * MIB2),
    (16 * MIB2 - KIB4, 0x8020_0000 - KIB4, MIB2 + 2 * KIB4),
    (GIB, 2 * GIB, GIB),
    (
        3 * GIB - MIB2 - KIB4,
        5 * GIB - MIB2 - KIB4,
        2 * GIB + 2 * MIB2 + 3 * KIB4,
    ),
    (8 * GIB, 8 * GIB + KIB4, 2 * MIB2),
];

fn compare(ipa_bits: u8, root_level: usize, sizes: PageSizes, attributes: Attributes, peer: Peer) {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, ipa_bits);
    let mut theirs = RootTable::new(TargetAllocator::new(BASE), root_level, PeerStage2);
    let constraints = match sizes {
        PageSizes::Largest => Constraints::NO_CONTIGUOUS_HINT,
        PageSizes::PagesOnly => Constraints::NO_CONTIGUOUS_HINT | Constraints::NO_BLOCK_MAPPINGS,
    };
    for (ipa, pa, size) in REGIONS.iter().copied() {
        let size = if sizes == PageSizes::PagesOnly {
            size % GIB
        } else {
            size
        };
        if size == 0 {
            continue;
        }
        tables
            .map(Ipa::new(ipa), Pa::new(pa), size, attributes, sizes)
            .expect("it is free");
        let region = MemoryRegion::new(ipa as usize, (ipa + size) as usize);
        let flags = Peer::VALID | Peer::ACCESS_FLAG | peer;
        theirs
            .map_range(&region, PhysicalAddress(pa as usize), flags, constraints)
            .expect("the peer maps it too");
    }
    let bytes = theirs.translation().as_bytes();
    let mut expected = Vec::new();
    peer_leaves(&bytes, BASE, root_level as u32, 0, &mut expected);
    let found = contents(&platform, &tables.walk());
    let leaves: Vec<_> = found
        .leaves
        .iter()
        .map(|leaf| (leaf.ipa, leaf.log2_bytes, leaf.word))
        .collect();
    assert!(expected.len() > 1000);
    assert!(leaves == expected, "{attributes:?}");
    let peer_tables = bytes.len() as u64 / KIB4;
    assert!(
        (found.tables.len() as u64) < peer_tables,
        "the root and these are no more than the peer's"
    );
}

fn kinds() -> Vec<(Attributes, Peer)> {
    let with = |access, execute, memory, shareability| Attributes {
        permissions: Permissions { access, execute },
        memory,
        shareability,
    };
    let normal = |outer, inner| MemoryType::Normal { outer, inner };
    let (nc, wt, wb) = (
        Cacheability::NonCacheable,
        Cacheability::WriteThrough,
        Cacheability::WriteBack,
    );
    vec![
        (
            Attributes::MEMORY,
            Peer::XN
                | Peer::S2AP_ACCESS_RW
                | Peer::SH_INNER
                | Peer::MEMATTR_NORMAL_OUTER_WB
                | Peer::MEMATTR_NORMAL_INNER_WB,
        ),
        (
            with(
                Access::ReadOnly,
                Execute::Allowed,
                normal(wt, nc),
                Shareability::Non,
            ),
            Peer::S2AP_ACCESS_RO
                | Peer::SH_NONE
                | Peer::MEMATTR_NORMAL_OUTER_WT
                | Peer::MEMATTR_NORMAL_INNER_NC,
        ),
        (
            with(
                Access::WriteOnly,
                Execute::Never,
                normal(nc, wb),
                Shareability::Outer,
            ),
            Peer::XN
                | Peer::S2AP_ACCESS_WO
                | Peer::SH_OUTER
                | Peer::MEMATTR_NORMAL_OUTER_NC
                | Peer::MEMATTR_NORMAL_INNER_WB,
        ),
        (
            with(
                Access::None,
                Execute::Never,
                MemoryType::Device(DeviceKind::NGnRE),
                Shareability::Outer,
            ),
            Peer::XN | Peer::S2AP_ACCESS_NONE | Peer::SH_OUTER | Peer::MEMATTR_DEVICE_nGnRE,
        ),
        (
            with(
                Access::ReadWrite,
                Execute::Never,
                MemoryType::Device(DeviceKind::GRE),
                Shareability::Outer,
            ),
            Peer::XN | Peer::S2AP_ACCESS_RW | Peer::SH_OUTER | Peer::MEMATTR_DEVICE_GRE,
        ),
    ]
}

#[test]
fn leaves_are_those_of_an_independent_implementation() {
    for (attributes, peer) in kinds() {
        compare(39, 1, PageSizes::Largest, attributes, peer);
        compare(48, 0, PageSizes::Largest, attributes, peer);
        compare(39, 1, PageSizes::PagesOnly, attributes, peer);
    }
}
