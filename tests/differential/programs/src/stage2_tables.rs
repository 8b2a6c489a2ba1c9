//! Stage 2 alone: start levels, concatenated tables, granules, blocks, tables that lead nowhere.

use crate::step::{Program, Step};
use crate::word::{arena, block_of_arena, into_block, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;
const WRITE: Step = Step::Write(A, plain(AT));
const READ: Step = Step::Read(A, plain(AT));
/// 40, 41, 42 and 43 bits from level 1: 2, 4, 8 and 16 tables.
const W2_40: u64 = put(W2, 37, 32, 24);
const W2_41: u64 = put(W2, 37, 32, 23);
const W2_42: u64 = put(W2, 37, 32, 22);
const W2_43: u64 = put(W2, 37, 32, 21);
/// 44 bits from level 0.
const W2_44: u64 = put(put(W2, 37, 32, 20), 39, 38, 2);
/// 30 bits from level 2, and 34 with 16 tables.
const W2_30: u64 = put(put(W2, 37, 32, 34), 39, 38, 0);
const W2_34: u64 = put(put(W2, 37, 32, 30), 39, 38, 0);
/// 16 KiB: 36 bits from level 2; 40 bits from level 2 with 16 tables; 44 from level 1.
const W2_16K: u64 = put(put(put(W2, 47, 46, 2), 39, 38, 1), 37, 32, 28);
const W2_16K_40: u64 = put(W2_16K, 37, 32, 24);
const W2_16K_44: u64 = put(put(W2_16K, 37, 32, 20), 39, 38, 2);
/// 64 KiB: 42 bits from level 2; 44 from level 1; 46 would be 16 tables, 44 from level 2 are 4.
const W2_64K: u64 = put(put(put(W2, 47, 46, 1), 39, 38, 1), 37, 32, 22);
const W2_64K_44: u64 = put(put(W2_64K, 37, 32, 20), 39, 38, 2);
const W2_64K_4: u64 = put(W2_64K, 37, 32, 20);
/// Output of 36 bits; the input has 36 bits, from level 1.
const W2_PS_36: u64 = put(put(W2, 37, 32, 28), 50, 48, 1);

/// A program with these tables, the root at its place unless it says where.
macro_rules! tables {
    ($name:literal, $word2:expr, root $root:expr, [$($store:expr),+], $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[$($store),+, ste(A, plain(STAGE2), $word2, $root), FORGET_A, $($step),+],
        }
    };
    ($name:literal, $word2:expr, [$($store:expr),+], $($step:expr),+) => {
        tables!($name, $word2, root arena(S2_ROOT), [$($store),+], $($step),+)
    };
}

pub(crate) const PROGRAMS: &[Program] = &[
    tables!(
        "stage2-invalid-at-level-1",
        W2,
        [Step::Store(S2_ROOT + 8, plain(0))],
        Step::Write(A, plain(AT)),
        Step::Write(A, plain(0x70_1234_5000))
    ),
    tables!(
        "stage2-invalid-at-level-2",
        W2,
        [Step::Store(S2_ROOT, arena(S2_L2 | TABLE))],
        WRITE
    ),
    tables!("stage2-invalid-at-level-3", W2, [S2_TABLES], WRITE, READ),
    tables!(
        "stage2-block-of-2m",
        W2,
        [
            Step::Store(S2_ROOT, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_BLOCK))
        ],
        Step::Write(A, plain(AT + D0)),
        Step::Write(A, plain(AT + D1 + 0x1234)),
        Step::Write(A, plain(AT + 0x20_0000))
    ),
    tables!(
        "stage2-block-of-2m-read-only",
        W2,
        [
            Step::Store(D1 + 8, plain(TREASURE + 1)),
            Step::Store(S2_ROOT, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_BLOCK & !S2_WRITE))
        ],
        Step::Write(A, plain(AT + D0)),
        Step::Read(A, plain(AT + D1 + 8))
    ),
    tables!(
        "stage2-block-of-2m-without-access-flag",
        W2,
        [
            Step::Store(S2_ROOT, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_BLOCK & !AF))
        ],
        Step::Write(A, plain(AT + D0))
    ),
    tables!(
        "stage2-block-of-1g",
        W2,
        [Step::Store(S2_ROOT + 8, block_of_arena(30, S2_BLOCK))],
        Step::Write(A, into_block(30, 0x4000_0000 + D0)),
        Step::Write(A, into_block(30, 0x4000_0000 + D2 + 0xffc)),
        Step::Write(A, into_block(30, D0))
    ),
    tables!(
        "stage2-block-at-level-0-is-invalid",
        W2_44,
        [Step::Store(S2_ROOT, block_of_arena(39, S2_BLOCK))],
        Step::Write(A, arena(D0))
    ),
    tables!(
        "stage2-44-bits-from-level-0",
        W2_44,
        [
            Step::Store(S2_ROOT + 31 * 8, arena(S2_OTHER | TABLE)),
            Step::Store(S2_OTHER, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        Step::Write(A, plain(31 << 39 | AT)),
        Step::Write(A, plain(30 << 39 | AT)),
        Step::Write(A, plain(AT))
    ),
    tables!(
        "stage2-40-bits-from-2-tables",
        W2_40,
        [
            Step::Store(S2_ROOT + 0x1000, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        Step::Write(A, plain(1 << 39 | AT)),
        Step::Write(A, plain(AT)),
        Step::Write(A, plain(1 << 40 | AT))
    ),
    tables!(
        "stage2-41-bits-from-4-tables",
        W2_41,
        [
            Step::Store(S2_ROOT + 0x3000, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        Step::Write(A, plain(3 << 39 | AT)),
        Step::Write(A, plain(2 << 39 | AT))
    ),
    tables!(
        "stage2-42-bits-from-8-tables",
        W2_42,
        [
            Step::Store(S2_ROOT + 0x7000, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        Step::Write(A, plain(7 << 39 | AT)),
        Step::Write(A, plain(3 << 39 | AT))
    ),
    tables!(
        "stage2-43-bits-from-16-tables",
        W2_43,
        [
            Step::Store(S2_ROOT + 0xf000 + 511 * 8, arena(S2_L2 | TABLE)),
            Step::Store(S2_L2 + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        Step::Write(A, plain(0x1fff << 30 | AT)),
        Step::Write(A, plain(0x1ffe << 30 | AT))
    ),
    tables!(
        "stage2-30-bits-from-level-2",
        W2_30,
        [
            Step::Store(S2_ROOT + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(1 << 30 | AT))
    ),
    tables!(
        "stage2-34-bits-from-16-tables-of-level-2",
        W2_34,
        [
            Step::Store(S2_ROOT + 0xf000 + 0x80 * 8, arena(S2_L3 | TABLE)),
            s2_page(0, arena(D0 | S2_PAGE))
        ],
        Step::Write(A, plain(15 << 30 | AT)),
        WRITE
    ),
    tables!(
        "stage2-16k-page",
        W2_16K,
        [
            // Index 8 of level 2 (32 MiB each), 0 of level 3.
            Step::Store(S2_ROOT + 8 * 8, arena(S2_OTHER | TABLE)),
            Step::Store(S2_OTHER, arena(D0 | S2_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(AT + 0x3ffc)),
        Step::Write(A, plain(AT + 0x4000))
    ),
    tables!(
        "stage2-16k-block-of-32m",
        W2_16K,
        [Step::Store(S2_ROOT + 8 * 8, block_of_arena(25, S2_BLOCK))],
        Step::Write(A, into_block(25, AT + D1)),
        Step::Write(A, into_block(25, D1))
    ),
    tables!(
        "stage2-16k-40-bits-from-16-tables", W2_16K_40, root arena(BIG_1),
        [Step::Store(BIG_1 + 15 * 0x4000 + 8 * 8, block_of_arena(25, S2_BLOCK))],
        Step::Write(A, into_block(25, 15 << 36 | AT | D1)),
        Step::Write(A, into_block(25, 14 << 36 | AT | D1))
    ),
    tables!(
        "stage2-16k-44-bits-from-level-1",
        W2_16K_44,
        [
            Step::Store(S2_ROOT + 0xff * 8, arena(S2_OTHER | TABLE)),
            Step::Store(S2_OTHER + 8 * 8, block_of_arena(25, S2_BLOCK))
        ],
        Step::Write(A, into_block(25, 0xff << 36 | AT | D1)),
        Step::Write(A, into_block(25, 0xfe << 36 | AT | D1))
    ),
    tables!(
        "stage2-64k-page", W2_64K, root arena(BIG_1),
        [
            // Index 0 of level 2 (512 MiB each), 0x1000 of level 3.
            Step::Store(BIG_1, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2 + 0x1000 * 8, arena(D0 | S2_PAGE))],
        WRITE, Step::Write(A, plain(AT + 0xfffc)), Step::Write(A, plain(AT + 0x1_0000))
    ),
    tables!(
        "stage2-64k-block-of-512m", W2_64K, root arena(BIG_1),
        [Step::Store(BIG_1 + 3 * 8, block_of_arena(29, S2_BLOCK))],
        Step::Write(A, into_block(29, 0x6000_0000 + D1)), Step::Write(A, into_block(29, D1))
    ),
    tables!(
        "stage2-64k-44-bits-from-level-1",
        W2_64K_44,
        [
            Step::Store(S2_ROOT + 3 * 8, arena(BIG_1 | TABLE)),
            Step::Store(BIG_1 + 3 * 8, block_of_arena(29, S2_BLOCK))
        ],
        Step::Write(A, into_block(29, 3 << 42 | 0x6000_0000 | D1)),
        Step::Write(A, into_block(29, 2 << 42 | 0x6000_0000 | D1))
    ),
    tables!(
        "stage2-64k-44-bits-from-4-tables", W2_64K_4, root arena(BIG_1),
        [Step::Store(BIG_1 + 3 * 0x1_0000 + 3 * 8, block_of_arena(29, S2_BLOCK))],
        Step::Write(A, into_block(29, 3 << 42 | 0x6000_0000 | D1)),
        Step::Write(A, into_block(29, 2 << 42 | 0x6000_0000 | D1))
    ),
    tables!(
        "stage2-64k-block-at-level-1-is-invalid",
        W2_64K_44,
        [Step::Store(S2_ROOT, block_of_arena(42, S2_BLOCK))],
        Step::Write(A, arena(D1))
    ),
    tables!(
        "stage2-block-beyond-s2ps",
        W2_PS_36,
        [Step::Store(S2_ROOT, plain(1 << 36 | S2_BLOCK))],
        WRITE
    ),
    tables!(
        "stage2-table-beyond-s2ps",
        W2_PS_36,
        [Step::Store(S2_ROOT, plain(1 << 36 | TABLE))],
        WRITE
    ),
    tables!(
        "stage2-table-in-no-memory",
        W2,
        [Step::Store(S2_ROOT, plain(NOWHERE | TABLE))],
        WRITE,
        READ
    ),
    tables!(
        "stage2-root-in-no-memory", W2, root plain(NOWHERE), [Step::Store(S2_ROOT, plain(0))],
        WRITE
    ),
];
