//! Entries, descriptors and commands, assembled by hand from the architecture's positions.

use smmu_model::bench;

/// Which context table a stream has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ContextTable {
    /// 16 entries in a row.
    Linear(u64),
    /// Up to 1024 entries in leaves of 64.
    TwoLevel(u64),
}

/// A nested entry: contexts by SubstreamID, then stage 2. Traffic without SubstreamID is refused.
pub(crate) fn ste_nested(vmid: u16, stage2_root: u64, table: ContextTable) -> [u64; 8] {
    let (pointer, log2) = context_table(table);
    bench::ste_nested(vmid, stage2_root, pointer, log2)
}

/// An entry of stage 1 alone: contexts by SubstreamID, tagged by a VMID.
pub(crate) fn ste_stage1(vmid: u16, table: ContextTable) -> [u64; 8] {
    let (pointer, log2) = context_table(table);
    bench::ste_stage1(vmid, pointer, log2)
}

/// S1ContextPtr with S1Fmt, and S1CDMax.
const fn context_table(table: ContextTable) -> (u64, u32) {
    match table {
        ContextTable::Linear(at) => (at, 4),
        ContextTable::TwoLevel(at) => (at | 1 << 4, 10),
    }
}

/// EATS = 2 (split), in word 1 of an entry.
pub(crate) const EATS_SPLIT: u64 = 2 << 28;
/// EATS = 1 (full), in word 1 of an entry.
pub(crate) const EATS_FULL: u64 = 1 << 28;

/// Bits of word 0 of a context descriptor.
pub(crate) mod cd {
    pub(crate) const EPD0: u64 = 1 << 14;
    pub(crate) const V: u64 = 1 << 31;
    pub(crate) const S: u64 = 1 << 44;
    pub(crate) const R: u64 = 1 << 45;
    pub(crate) const A: u64 = 1 << 46;
    pub(crate) const ASET: u64 = 1 << 47;
}

/// Word 0 of a context that translates nothing any more, and records nothing.
pub(crate) fn quiet(word0: u64) -> u64 {
    (word0 | cd::EPD0 | cd::A) & !(cd::S | cd::R | cd::ASET)
}

/// A level-1 context descriptor.
pub(crate) fn l1cd(leaf: u64) -> u64 {
    leaf | 1
}

/// A level-1 stream table descriptor of a full array of 64.
pub(crate) fn l1std(array: u64) -> u64 {
    array | 7
}

/// A stage-1 page for all address spaces (nG = 0).
pub(crate) fn s1_global_page(pa: u64) -> u64 {
    bench::s1_page(pa) & !(1 << 11)
}

/// CMD_CFGI_STE with Leaf = 0.
pub(crate) fn cfgi_ste_path(stream: u32) -> [u64; 2] {
    [0x03 | u64::from(stream) << 32, 0]
}

/// CMD_CFGI_CD with Leaf = 0.
pub(crate) fn cfgi_cd_path(stream: u32, substream: u32) -> [u64; 2] {
    [
        0x05 | u64::from(substream) << 12 | u64::from(stream) << 32,
        0,
    ]
}

/// CMD_CFGI_CD_ALL.
pub(crate) fn cfgi_cd_all(stream: u32) -> [u64; 2] {
    [0x06 | u64::from(stream) << 32, 0]
}

/// CMD_TLBI_EL2_ALL.
pub(crate) const EL2_ALL: [u64; 2] = [0x20, 0];

/// CMD_TLBI_NH_VA of one page, any level.
pub(crate) fn nh_va(vmid: u16, asid: u16, va: u64) -> [u64; 2] {
    [0x12 | u64::from(vmid) << 32 | u64::from(asid) << 48, va]
}

/// CMD_TLBI_NH_VA of one page, last level only.
pub(crate) fn nh_va_leaf(vmid: u16, asid: u16, va: u64) -> [u64; 2] {
    [0x12 | u64::from(vmid) << 32 | u64::from(asid) << 48, va | 1]
}

/// CMD_TLBI_S2_IPA of `pages` pages of 4 KiB that are mapped at level 3.
pub(crate) fn s2_ipa_range(vmid: u16, ipa: u64, pages: u64) -> [u64; 2] {
    // NUM, SCALE = 0; TG = 4K, TTL = 3, Leaf.
    let low = 0x2a | (pages - 1) << 12 | u64::from(vmid) << 32;
    [low, ipa | 1 << 10 | 3 << 8 | 1]
}

/// CMD_ATC_INV of the pages from the one of `first` to the one of `last`.
pub(crate) fn atc_inv(stream: u32, substream: Option<u32>, first: u64, last: u64) -> [u64; 2] {
    let log2_pages = u64::BITS - ((first ^ last) >> 12).leading_zeros();
    let address = first >> 12 >> log2_pages << log2_pages << 12;
    [atc_word(stream, substream), address | u64::from(log2_pages)]
}

/// CMD_ATC_INV of everything.
pub(crate) fn atc_inv_all(stream: u32, substream: Option<u32>) -> [u64; 2] {
    [atc_word(stream, substream), 52]
}

fn atc_word(stream: u32, substream: Option<u32>) -> u64 {
    let tag = substream.map_or(0, |substream| 1 << 11 | u64::from(substream) << 12);
    0x40 | tag | u64::from(stream) << 32
}

/// CMD_RESUME: terminate with an abort.
pub(crate) fn resume_abort(stream: u32, stag: u16) -> [u64; 2] {
    [0x44 | 1 << 13 | u64::from(stream) << 32, u64::from(stag)]
}

/// CMD_STALL_TERM.
pub(crate) fn stall_term(stream: u32) -> [u64; 2] {
    [0x45 | u64::from(stream) << 32, 0]
}
