//! Memory types and shareability of what leaves the SMMU (§13; DDI 0487 D8).

use smmu_model::{Attributes, Cacheability, Identity, MemoryType, Outcome, Shareability};

use crate::kit::{Rig, VA, read, s1_page, s2_page, with};

const fn normal(cacheability: Cacheability) -> MemoryType {
    MemoryType::Normal {
        inner: cacheability,
        outer: cacheability,
    }
}

const BACK: MemoryType = normal(Cacheability::WriteBack);
const THROUGH: MemoryType = normal(Cacheability::WriteThrough);
const NON_CACHEABLE: MemoryType = normal(Cacheability::NonCacheable);

#[track_caller]
fn attributes(rig: &Rig, address: u64) -> Attributes {
    match rig.transact(read(address)) {
        Outcome::Done { attributes, .. } => attributes,
        other => panic!("{other:?}"),
    }
}

/// Stage 1 whose page has this MAIR byte (as Attr3) and SH.
fn stage1(byte: u64, share: u64) -> Attributes {
    let mut rig = Rig::full();
    rig.put_cd(0, &with(rig.cd(), 3, 31, 24, byte));
    let leaf = s1_page(rig.page) & !(3 << 8) | 3 << 2 | share << 8;
    rig.bench.store(rig.s1[2] + 40, leaf);
    rig.install(&rig.stage1());
    attributes(&rig, VA)
}

/// Both stages with this MAIR byte at stage 1 and this MemAttr at stage 2.
fn nested(byte: u64, mem_attr: u64, forced: u64) -> MemoryType {
    let mut rig = Rig::full();
    rig.put_cd(0, &with(rig.cd(), 3, 7, 0, byte));
    rig.bench.store(rig.s1[2] + 40, s1_page(VA));
    let leaf = s2_page(rig.page) & !(0xf << 2) | mem_attr << 2;
    rig.bench.store(rig.s2[2] + 40, leaf);
    rig.install(&with(rig.nested(), 1, 25, 25, forced));
    attributes(&rig, VA).memory
}

#[test]
fn mair_bytes_select_the_memory_type() {
    for (byte, memory) in [
        (0x00, MemoryType::DeviceNGnRnE),
        (0x04, MemoryType::DeviceNGnRE),
        (0x08, MemoryType::DeviceNGRE),
        (0x0c, MemoryType::DeviceGRE),
        (0x44, NON_CACHEABLE),
        (0xbb, THROUGH),
        (0xff, BACK),
    ] {
        assert_eq!(stage1(byte, 3).memory, memory, "{byte:#x}");
    }
}

#[test]
fn mair1_serves_the_upper_indices() {
    let mut rig = Rig::full();
    rig.put_cd(0, &with(rig.cd(), 3, 63, 32, 0x0800_0000));
    let leaf = s1_page(rig.page) | 7 << 2;
    rig.bench.store(rig.s1[2] + 40, leaf);
    rig.install(&rig.stage1());
    assert_eq!(attributes(&rig, VA).memory, MemoryType::DeviceNGRE);
}

#[test]
fn shareability_comes_from_the_descriptor() {
    assert_eq!(stage1(0xff, 0).shareability, Shareability::Non);
    assert_eq!(stage1(0xff, 2).shareability, Shareability::Outer);
    assert_eq!(stage1(0xff, 3).shareability, Shareability::Inner);
}

#[test]
fn device_and_non_cacheable_memory_is_outer_shareable() {
    assert_eq!(stage1(0x04, 0).shareability, Shareability::Outer);
    assert_eq!(stage1(0x44, 3).shareability, Shareability::Outer);
}

#[test]
fn the_stronger_memory_type_of_two_stages_wins() {
    for (byte, mem_attr, memory) in [
        (0xff, 0b1111, BACK),
        (0xff, 0b1010, THROUGH),
        (0xff, 0b0101, NON_CACHEABLE),
        (0xff, 0b0001, MemoryType::DeviceNGnRE),
        (0x44, 0b1111, NON_CACHEABLE),
        (0xbb, 0b1111, THROUGH),
        (0x0c, 0b0000, MemoryType::DeviceNGnRnE),
        (0x00, 0b0011, MemoryType::DeviceNGnRnE),
        (0x08, 0b1111, MemoryType::DeviceNGRE),
    ] {
        assert_eq!(nested(byte, mem_attr, 0), memory, "{byte:#x} {mem_attr:#b}");
    }
}

#[test]
fn forced_write_back_follows_its_own_encoding() {
    for (byte, mem_attr, memory) in [
        (0x44, 0b0110, BACK),
        (0x04, 0b0110, BACK),
        (0xff, 0b0101, NON_CACHEABLE),
        (0x04, 0b0101, MemoryType::DeviceNGnRE),
        (0xbb, 0b0111, THROUGH),
        (0x08, 0b0111, MemoryType::DeviceNGRE),
        (0xff, 0b0001, MemoryType::DeviceNGnRE),
        (0x0c, 0b0000, MemoryType::DeviceNGnRnE),
    ] {
        assert_eq!(nested(byte, mem_attr, 1), memory, "{byte:#x} {mem_attr:#b}");
    }
}

#[test]
fn the_stronger_shareability_of_two_stages_wins() {
    // (stage 1, stage 2, both)
    for (first, second, both) in [
        (0, 0, Shareability::Non),
        (0, 3, Shareability::Inner),
        (3, 0, Shareability::Inner),
        (2, 3, Shareability::Outer),
        (3, 2, Shareability::Outer),
    ] {
        let mut rig = Rig::full();
        let leaf = s1_page(VA) & !(3 << 8) | first << 8;
        rig.bench.store(rig.s1[2] + 40, leaf);
        let leaf = s2_page(rig.page) & !(3 << 8) | second << 8;
        rig.bench.store(rig.s2[2] + 40, leaf);
        rig.install(&rig.nested());
        assert_eq!(attributes(&rig, VA).shareability, both);
    }
}

/// A bypassed stream with this MTCFG and MemAttr, and SHCFG.
fn bypass(identity: Identity, memory: u64, share: u64) -> Attributes {
    let mut rig = Rig::new(identity);
    let entry = with(rig.bypass(), 1, 36, 32, memory);
    rig.install(&with(entry, 1, 45, 44, share));
    attributes(&rig, rig.page)
}

#[test]
fn the_incoming_type_is_kept_with_mtcfg_0() {
    assert_eq!(bypass(Identity::full(), 0x1, 1).memory, BACK);
}

#[test]
fn mtcfg_replaces_the_memory_type() {
    for (bits, memory) in [
        (0b0000, MemoryType::DeviceNGnRnE),
        (0b0001, MemoryType::DeviceNGnRE),
        (0b0010, MemoryType::DeviceNGRE),
        (0b0011, MemoryType::DeviceGRE),
        (0b0101, NON_CACHEABLE),
        (0b1010, THROUGH),
        (0b1111, BACK),
    ] {
        let got = bypass(Identity::full(), 0x10 | bits, 1);
        assert_eq!(got.memory, memory, "{bits:#b}");
    }
}

#[test]
fn reserved_memory_types_are_device_ngnrne() {
    for bits in [0b0100, 0b1000, 0b1100] {
        let got = bypass(Identity::full(), 0x10 | bits, 1);
        assert_eq!(got.memory, MemoryType::DeviceNGnRnE, "{bits:#b}");
    }
}

#[test]
fn shcfg_replaces_the_shareability() {
    for (bits, share) in [
        (0, Shareability::Non),
        (1, Shareability::Non),
        (2, Shareability::Outer),
        (3, Shareability::Inner),
    ] {
        let got = bypass(Identity::full(), 0, bits);
        assert_eq!(got.shareability, share, "{bits}");
    }
}

#[test]
fn type_overrides_need_attr_types_ovr() {
    let identity = Identity {
        attr_types_ovr: false,
        ..Identity::full()
    };
    let got = bypass(identity, 0x11, 3);
    assert_eq!((got.memory, got.shareability), (BACK, Shareability::Non));
}

#[test]
fn stage_2_combines_with_the_overridden_type() {
    let mut rig = Rig::full();
    // MTCFG, MemAttr = write-through.
    rig.install(&with(rig.stage2(), 1, 36, 32, 0x1a));
    assert_eq!(attributes(&rig, VA).memory, THROUGH);
}

#[test]
fn stage_1_replaces_the_overridden_type() {
    let mut rig = Rig::full();
    rig.install(&with(rig.stage1(), 1, 36, 32, 0x11));
    assert_eq!(attributes(&rig, VA).memory, BACK);
}
