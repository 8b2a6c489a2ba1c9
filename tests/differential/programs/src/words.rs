//! Where things are in the arena, and structures assembled by hand.

use crate::run::STREAM_TABLE;
use crate::step::{Command, Step};
use crate::word::{Word, arena, plain};

/// The StreamID of the first device.
pub const A: u32 = 0x10;
/// The StreamID of the second.
pub const B: u32 = 0x18;
/// The StreamID of one beyond the linear stream table.
pub const FAR: u32 = 0x100;

/// Context descriptors, 64 bytes each.
pub(crate) const CD_A: u64 = 0x5000;
pub(crate) const CD_B: u64 = 0x6000;
/// Stage 2: room for 16 concatenated tables, then tables of the next levels.
pub(crate) const S2_ROOT: u64 = 0x1_0000;
pub(crate) const S2_L2: u64 = 0x2_0000;
pub(crate) const S2_L3: u64 = 0x2_1000;
/// The stage 2 table of level 3 that shows the arena at [`WINDOW`].
pub(crate) const S2_WINDOW: u64 = 0x2_2000;
pub(crate) const S2_OTHER: u64 = 0x2_4000;
/// Stage 1 tables by the level at which they are with 4 KiB pages.
pub(crate) const S1_L0: u64 = 0x3_0000;
pub(crate) const S1_L1: u64 = 0x3_1000;
pub(crate) const S1_L2: u64 = 0x3_2000;
pub(crate) const S1_L3: u64 = 0x3_3000;
/// The same for TTB1.
pub(crate) const HIGH_L1: u64 = 0x3_4000;
pub(crate) const HIGH_L2: u64 = 0x3_5000;
pub(crate) const HIGH_L3: u64 = 0x3_6000;
/// Tables of 64 KiB.
pub(crate) const BIG_1: u64 = 0x4_0000;
pub(crate) const BIG_2: u64 = 0x5_0000;
pub(crate) const BIG_3: u64 = 0x6_0000;
/// Data, 64 KiB apart.
pub(crate) const D0: u64 = 0x10_0000;
pub(crate) const D1: u64 = 0x11_0000;
pub(crate) const D2: u64 = 0x12_0000;
pub(crate) const D3: u64 = 0x13_0000;

/// Where the common tables map data: index 0 of level 1, 0x80 of level 2, 0 of level 3.
pub(crate) const AT: u64 = 0x1000_0000;
/// Where the stage 2 of nested programs shows the arena: index 0x100 of level 2.
pub(crate) const WINDOW: u64 = 0x2000_0000;
/// An address with no memory behind it on either machine, within 44 bits.
pub(crate) const NOWHERE: u64 = 0xf00_0000_0000;
/// What lies in data pages for reads.
pub(crate) const TREASURE: u64 = 0x7ead_0000;

/// A stage 2 page: valid, page, write-back, readable and writable, inner shareable, AF (DDI 0487
/// D8.3).
pub(crate) const S2_PAGE: u64 = 0x7ff;
/// The same as a block.
pub(crate) const S2_BLOCK: u64 = 0x7fd;
/// S2AP of such a page, to be taken away.
pub(crate) const S2_READ: u64 = 1 << 6;
pub(crate) const S2_WRITE: u64 = 1 << 7;
/// AF of either stage.
pub(crate) const AF: u64 = 1 << 10;
/// A stage 1 page: valid, page, attribute 0, AP for both privileges readable and writable, inner
/// shareable, AF, nG.
pub(crate) const S1_PAGE: u64 = 0xf43;
/// The same as a block.
pub(crate) const S1_BLOCK: u64 = 0xf41;
/// nG.
pub(crate) const NG: u64 = 1 << 11;
/// `AP[2]`: read-only.
pub(crate) const AP_READ_ONLY: u64 = 1 << 7;
/// `AP[1]`: for EL0 too.
pub(crate) const AP_USER: u64 = 1 << 6;
/// A table descriptor of either stage.
pub(crate) const TABLE: u64 = 0b11;

/// STE word 1: SHCFG = incoming; CDs are fetched write-back, inner shareable.
pub(crate) const STE_WORD1: u64 = 1 << 44 | 3 << 6 | 1 << 4 | 1 << 2;
/// STE word 2: VMID 1, 39 bits of IPA from level 1, write-back walks, inner shareable, 4 KiB
/// granule, 44 bits of output, AA64, R.
pub(crate) const STE_WORD2: u64 =
    1 | 25 << 32 | 1 << 38 | 1 << 40 | 1 << 42 | 3 << 44 | 4 << 48 | 1 << 51 | 1 << 58;
/// STE word 0 without pointer: V and Config.
pub(crate) const BYPASS: u64 = 0b1001;
pub(crate) const STAGE1: u64 = 0b1011;
pub(crate) const STAGE2: u64 = 0b1101;
pub(crate) const BOTH: u64 = 0b1111;

/// CD word 0: 39 bits of VA from level 1, 4 KiB granule, write-back walks, inner shareable, no
/// TTB1, V, IPS of 44 bits, AA64, R, A, ASID 1.
pub(crate) const CD_WORD0: u64 = 25
    | 1 << 8
    | 1 << 10
    | 3 << 12
    | 1 << 30
    | 1 << 31
    | 4 << 32
    | 1 << 41
    | 1 << 45
    | 1 << 46
    | 1 << 48;
/// The same with TTB1: 39 bits, 4 KiB granule, walks as for TTB0.
pub(crate) const CD_BOTH_WORD0: u64 =
    CD_WORD0 & !(1 << 30) | 25 << 16 | 2 << 22 | 1 << 24 | 1 << 26 | 3 << 28;
/// MAIR: attribute 0 is Normal write-back.
pub(crate) const MAIR: u64 = 0xff;

/// The words of a stream's entry.
pub(crate) const fn ste(stream: u32, word0: Word, word2: u64, word3: Word) -> Step {
    Step::Entry(
        STREAM_TABLE + stream as u64 * 64,
        [word0, plain(STE_WORD1), plain(word2), word3],
    )
}

/// An entry with stage 2 alone, the root at its place.
pub(crate) const fn stage2(stream: u32, word2: u64) -> Step {
    ste(stream, plain(STAGE2), word2, arena(S2_ROOT))
}

/// An entry with stage 1 alone, the CD in the arena.
pub(crate) const fn stage1(stream: u32, cd: u64) -> Step {
    ste(stream, arena(cd | STAGE1), 1, plain(0))
}

/// An entry with both stages, the CD behind the window.
pub(crate) const fn nested(stream: u32, cd: u64, word2: u64) -> Step {
    ste(stream, plain(WINDOW | cd | BOTH), word2, arena(S2_ROOT))
}

/// A CD.
pub(crate) const fn cd(at: u64, word0: u64, ttb0: Word, ttb1: Word) -> Step {
    Step::Entry(at, [plain(word0), ttb0, ttb1, plain(MAIR)])
}

/// A CD of the common stage 1 tables, for a stream with stage 1 alone.
pub(crate) const fn low_cd(word0: u64) -> Step {
    cd(CD_A, word0, arena(S1_L1), plain(0))
}

/// Stage 2: from the root to level 3, whose entry 0 and its neighbours are free.
pub(crate) const S2_TABLES: Step = Step::All(&[
    Step::Store(S2_ROOT, arena(S2_L2 | TABLE)),
    Step::Store(S2_L2 + 0x80 * 8, arena(S2_L3 | TABLE)),
]);

/// The page at [`AT`] and 4096 bytes times `index`, in stage 2.
pub(crate) const fn s2_page(index: u64, word: Word) -> Step {
    Step::Store(S2_L3 + index * 8, word)
}

/// Stage 1, as [`S2_TABLES`].
pub(crate) const S1_TABLES: Step = Step::All(&[
    Step::Store(S1_L1, arena(S1_L2 | TABLE)),
    Step::Store(S1_L2 + 0x80 * 8, arena(S1_L3 | TABLE)),
]);

/// The same for TTB1, with the page at `D1`.
pub(crate) const HIGH_TABLES: Step = Step::All(&[
    Step::Store(HIGH_L1, arena(HIGH_L2 | TABLE)),
    Step::Store(HIGH_L2 + 0x80 * 8, arena(HIGH_L3 | TABLE)),
    Step::Store(HIGH_L3, arena(D1 | S1_PAGE)),
]);

/// As [`s2_page`], in stage 1.
pub(crate) const fn s1_page(index: u64, word: Word) -> Step {
    Step::Store(S1_L3 + index * 8, word)
}

/// Stage 1 of a nested stream, as [`S1_TABLES`], and the stage 2 that shows it the arena.
pub(crate) const NESTED_TABLES: Step = Step::All(&[
    Step::Store(S2_ROOT, arena(S2_L2 | TABLE)),
    Step::Store(S2_L2 + 0x100 * 8, arena(S2_WINDOW | TABLE)),
    Step::Fill {
        at: S2_WINDOW,
        count: 512,
        first: arena(S2_PAGE),
        stride: 0x1000,
    },
    Step::Store(S1_L1, plain(WINDOW | S1_L2 | TABLE)),
    Step::Store(S1_L2 + 0x80 * 8, plain(WINDOW | S1_L3 | TABLE)),
    s1_page(0, plain(WINDOW | D0 | S1_PAGE)),
    cd(CD_A, CD_WORD0, plain(WINDOW | S1_L1), plain(0)),
]);

/// The stage 2 entry of the window for the arena's page at `offset`.
pub(crate) const fn window(offset: u64, word: Word) -> Step {
    Step::Store(S2_WINDOW + offset / 0x1000 * 8, word)
}

/// CMD_CFGI_STE, Leaf = 1.
pub(crate) const fn cfgi_ste(stream: u32) -> Command {
    [plain(0x03 | (stream as u64) << 32), plain(1)]
}

/// CMD_CFGI_CD of index 0, Leaf = 1.
pub(crate) const fn cfgi_cd(stream: u32) -> Command {
    [plain(0x05 | (stream as u64) << 32), plain(1)]
}

/// CMD_TLBI_NH_ALL.
pub(crate) const fn nh_all(vmid: u64) -> Command {
    [plain(0x10 | vmid << 32), plain(0)]
}

/// CMD_TLBI_NH_ASID.
pub(crate) const fn nh_asid(vmid: u64, asid: u64) -> Command {
    [plain(0x11 | vmid << 32 | asid << 48), plain(0)]
}

/// CMD_TLBI_NH_VA of one page, Leaf = 1.
pub(crate) const fn nh_va(vmid: u64, asid: u64, va: u64) -> Command {
    [plain(0x12 | vmid << 32 | asid << 48), plain(va | 1)]
}

/// CMD_TLBI_NH_VAA of one page, Leaf = 1.
pub(crate) const fn nh_vaa(vmid: u64, va: u64) -> Command {
    [plain(0x13 | vmid << 32), plain(va | 1)]
}

/// CMD_TLBI_S12_VMALL.
pub(crate) const fn s12_vmall(vmid: u64) -> Command {
    [plain(0x28 | vmid << 32), plain(0)]
}

/// CMD_TLBI_S2_IPA of one page, Leaf = 1.
pub(crate) const fn s2_ipa(vmid: u64, ipa: u64) -> Command {
    [plain(0x2a | vmid << 32), plain(ipa | 1)]
}

/// The same of `number + 1` times `2^scale` pages of 4 KiB, without a hint of their level.
pub(crate) const fn s2_ipa_range(vmid: u64, ipa: u64, number: u64, scale: u64) -> Command {
    [
        plain(0x2a | number << 12 | scale << 20 | vmid << 32),
        plain(ipa | 1 << 10 | 1),
    ]
}

/// CMD_TLBI_NSNH_ALL.
pub(crate) const NSNH_ALL: Command = [plain(0x30), plain(0)];
/// CMD_CFGI_ALL.
pub(crate) const CFGI_ALL: Command = [plain(0x04), plain(31)];

/// Has the SMMU forget a stream's entry.
pub(crate) const FORGET_A: Step = Step::Commands(&[cfgi_ste(A)]);
