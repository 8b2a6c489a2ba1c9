//! Stage 1 alone: levels, granules, blocks, both halves of the addresses, tables that lead nowhere.

use crate::step::{Program, Step};
use crate::word::{Word, arena, block_of_arena, into_block, plain, put};
use crate::words::*;

const W0: u64 = CD_WORD0;
const BOTH0: u64 = CD_BOTH_WORD0;
const WRITE: Step = Step::Write(A, plain(AT));
/// The lowest address of TTB1 with 39 bits, and its page at the place of [`AT`].
const HIGH: u64 = 0xffff_ff80_0000_0000;
const HIGH_AT: u64 = HIGH | AT;
const READ: Step = Step::Read(A, plain(AT));
/// 36 bits of output.
const IPS_36: u64 = put(W0, 34, 32, 1);
/// 48 bits from level 0; 36 bits from level 1; 25 bits from level 2... of 4 KiB.
const W0_48: u64 = put(W0, 5, 0, 16);
const W0_30: u64 = put(W0, 5, 0, 34);
/// 16 KiB: 36 bits from level 2; 47 bits from level 1; 48 bits from level 0.
const W0_16K: u64 = put(put(W0, 7, 6, 2), 5, 0, 28);
const W0_16K_47: u64 = put(W0_16K, 5, 0, 17);
const W0_16K_48: u64 = put(W0_16K, 5, 0, 16);
/// 64 KiB: 42 bits from level 2; 48 bits from level 1; 29 bits from level 3.
const W0_64K: u64 = put(put(W0, 7, 6, 1), 5, 0, 22);
const W0_64K_48: u64 = put(W0_64K, 5, 0, 16);
const W0_64K_29: u64 = put(W0_64K, 5, 0, 35);

/// A program with these tables and this CD.
macro_rules! tables {
    ($name:literal, $cd:expr, [$($store:expr),+], $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[$($store),+, $cd, stage1(A, CD_A), FORGET_A, $($step),+],
        }
    };
}

/// A program with tables for both halves.
macro_rules! halves {
    ($name:literal, $word0:expr, $($step:expr),+) => {
        tables!(
            $name,
            cd(CD_A, $word0, arena(S1_L1), arena(HIGH_L1)),
            [S1_TABLES, s1_page(0, arena(D0 | S1_PAGE)), HIGH_TABLES],
            $($step),+
        )
    };
}

const fn root(word0: u64, ttb0: Word) -> Step {
    cd(CD_A, word0, ttb0, plain(0))
}

pub(crate) const PROGRAMS: &[Program] = &[
    tables!(
        "stage1-invalid-at-level-1",
        low_cd(W0),
        [S1_TABLES],
        WRITE,
        Step::Write(A, plain(0x70_1234_5000))
    ),
    tables!(
        "stage1-invalid-at-level-2",
        low_cd(W0),
        [Step::Store(S1_L1, arena(S1_L2 | TABLE))],
        WRITE
    ),
    tables!(
        "stage1-invalid-at-level-3",
        low_cd(W0),
        [S1_TABLES],
        WRITE,
        READ
    ),
    tables!(
        "stage1-block-of-2m",
        low_cd(W0),
        [
            Step::Store(S1_L1, arena(S1_L2 | TABLE)),
            Step::Store(S1_L2 + 0x80 * 8, arena(S1_BLOCK))
        ],
        Step::Write(A, plain(AT + D0)),
        Step::Write(A, plain(AT + D2 + 0x2344)),
        Step::Write(A, plain(AT + 0x20_0000))
    ),
    tables!(
        "stage1-block-of-1g",
        low_cd(W0),
        [Step::Store(S1_L1 + 8, block_of_arena(30, S1_BLOCK))],
        Step::Write(A, into_block(30, 0x4000_0000 + D0)),
        Step::Write(A, into_block(30, D0))
    ),
    tables!(
        "stage1-block-of-2m-read-only",
        low_cd(W0),
        [
            Step::Store(S1_L1, arena(S1_L2 | TABLE)),
            Step::Store(S1_L2 + 0x80 * 8, arena(S1_BLOCK | AP_READ_ONLY))
        ],
        Step::Write(A, plain(AT + D0))
    ),
    tables!(
        "stage1-48-bits-from-level-0",
        root(W0_48, arena(S1_L0)),
        [
            Step::Store(S1_L0 + 511 * 8, arena(S1_L1 | TABLE)),
            Step::Store(S1_L0 + 255 * 8, arena(S1_L1 | TABLE)),
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE))
        ],
        Step::Write(A, plain(511 << 39 | AT)),
        Step::Write(A, plain(255 << 39 | AT)),
        Step::Write(A, plain(1 << 39 | AT)),
        Step::Write(A, plain(1 << 48 | AT))
    ),
    tables!(
        "stage1-block-at-level-0-is-invalid",
        root(W0_48, arena(S1_L0)),
        [Step::Store(S1_L0, block_of_arena(39, S1_BLOCK))],
        Step::Write(A, arena(D0))
    ),
    tables!(
        "stage1-30-bits-from-level-2",
        root(W0_30, arena(S1_L2)),
        [
            Step::Store(S1_L2 + 0x80 * 8, arena(S1_L3 | TABLE)),
            s1_page(0, arena(D0 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(1 << 30 | AT))
    ),
    tables!(
        "stage1-16k-page",
        root(W0_16K, arena(BIG_1)),
        [
            Step::Store(BIG_1 + 8 * 8, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2, arena(D0 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(AT + 0x3ffc)),
        Step::Write(A, plain(AT + 0x4000))
    ),
    tables!(
        "stage1-16k-block-of-32m",
        root(W0_16K, arena(BIG_1)),
        [Step::Store(BIG_1 + 8 * 8, block_of_arena(25, S1_BLOCK))],
        Step::Write(A, into_block(25, AT + D1)),
        Step::Write(A, into_block(25, D1))
    ),
    tables!(
        "stage1-16k-47-bits-from-level-1",
        root(W0_16K_47, arena(BIG_1)),
        [
            Step::Store(BIG_1 + 2047 * 8, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2 + 8 * 8, arena(BIG_3 | TABLE)),
            Step::Store(BIG_3, arena(D0 | S1_PAGE))
        ],
        Step::Write(A, plain(2047 << 36 | AT)),
        Step::Write(A, plain(2046 << 36 | AT))
    ),
    tables!(
        "stage1-16k-48-bits-from-level-0",
        root(W0_16K_48, arena(S1_L0)),
        [
            Step::Store(S1_L0 + 8, arena(BIG_1 | TABLE)),
            Step::Store(BIG_1, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2 + 8 * 8, arena(BIG_3 | TABLE)),
            Step::Store(BIG_3, arena(D0 | S1_PAGE))
        ],
        Step::Write(A, plain(1 << 47 | AT)),
        WRITE
    ),
    tables!(
        "stage1-16k-block-at-level-1-is-invalid",
        root(W0_16K_47, arena(BIG_1)),
        [Step::Store(BIG_1, block_of_arena(36, S1_BLOCK))],
        Step::Write(A, arena(D1))
    ),
    tables!(
        "stage1-64k-page",
        root(W0_64K, arena(BIG_1)),
        [
            Step::Store(BIG_1, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2 + 0x1000 * 8, arena(D0 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(AT + 0xfffc)),
        Step::Write(A, plain(AT + 0x1_0000))
    ),
    tables!(
        "stage1-64k-block-of-512m",
        root(W0_64K, arena(BIG_1)),
        [Step::Store(BIG_1 + 3 * 8, block_of_arena(29, S1_BLOCK))],
        Step::Write(A, into_block(29, 0x6000_0000 + D1)),
        Step::Write(A, into_block(29, D1))
    ),
    tables!(
        "stage1-64k-48-bits-from-level-1",
        root(W0_64K_48, arena(S1_L0)),
        [
            Step::Store(S1_L0 + 63 * 8, arena(BIG_1 | TABLE)),
            Step::Store(BIG_1 + 8191 * 8, block_of_arena(29, S1_BLOCK))
        ],
        Step::Write(A, into_block(29, 63 << 42 | 8191 << 29 | D1)),
        Step::Write(A, into_block(29, 62 << 42 | 8191 << 29 | D1))
    ),
    tables!(
        "stage1-64k-29-bits-from-level-3",
        root(W0_64K_29, arena(BIG_1)),
        [Step::Store(BIG_1 + 0x1000 * 8, arena(D0 | S1_PAGE))],
        WRITE,
        Step::Write(A, plain(1 << 29 | AT))
    ),
    tables!(
        "stage1-64k-block-at-level-1-is-invalid",
        root(W0_64K_48, arena(S1_L0)),
        [Step::Store(S1_L0, block_of_arena(42, S1_BLOCK))],
        Step::Write(A, arena(D1))
    ),
    halves!(
        "stage1-both-halves",
        BOTH0,
        WRITE,
        Step::Write(A, plain(HIGH_AT)),
        Step::Write(A, plain(HIGH_AT + 0x1000))
    ),
    halves!(
        "stage1-addresses-between-the-halves",
        BOTH0,
        Step::Write(A, plain(1 << 39 | AT)),
        Step::Write(A, plain(HIGH_AT & !(1 << 39))),
        Step::Write(A, plain(1 << 55 | AT)),
        Step::Write(A, plain(0x5500_0000_0000_0000 | AT)),
        Step::Write(A, plain(HIGH_AT & !(0xff << 56)))
    ),
    halves!(
        "stage1-tbi0-ignores-the-top-byte-of-low-addresses",
        BOTH0 | 1 << 38,
        Step::Write(A, plain(0x5500_0000_0000_0000 | AT)),
        Step::Write(A, plain(0x5580_0000_0000_0000 | AT)),
        Step::Write(A, plain(HIGH_AT & !(0xaa << 56)))
    ),
    halves!(
        "stage1-tbi1-ignores-the-top-byte-of-high-addresses",
        BOTH0 | 1 << 39,
        Step::Write(A, plain(HIGH_AT & !(0xff << 56))),
        Step::Write(A, plain(0x5500_0000_0000_0000 | AT))
    ),
    halves!(
        "stage1-epd1-forbids-high-addresses",
        BOTH0 | 1 << 30,
        Step::Write(A, plain(HIGH_AT)),
        WRITE
    ),
    halves!(
        "stage1-epd0-forbids-low-addresses",
        BOTH0 | 1 << 14,
        WRITE,
        Step::Write(A, plain(HIGH_AT))
    ),
    halves!(
        "stage1-epd0-and-epd1-forbid-all",
        BOTH0 | 1 << 30 | 1 << 14,
        WRITE,
        Step::Write(A, plain(HIGH_AT))
    ),
    halves!(
        "stage1-tg0-is-not-looked-at-with-epd0",
        put(BOTH0, 7, 6, 3) | 1 << 14,
        Step::Write(A, plain(HIGH_AT))
    ),
    halves!(
        "stage1-t0sz-is-not-looked-at-with-epd0",
        put(BOTH0, 5, 0, 63) | 1 << 14,
        Step::Write(A, plain(HIGH_AT))
    ),
    tables!(
        "stage1-16k-in-the-high-half",
        cd(CD_A, put(BOTH0, 23, 22, 1), arena(S1_L1), arena(BIG_1)),
        [
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            // 39 bits: 8 entries of level 1, then levels 2 and 3.
            Step::Store(BIG_1, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2 + 8 * 8, arena(BIG_3 | TABLE)),
            Step::Store(BIG_3, arena(D1 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(HIGH_AT)),
        Step::Write(A, plain(HIGH_AT + 0x3ffc))
    ),
    tables!(
        "stage1-64k-in-the-high-half",
        cd(CD_A, put(BOTH0, 23, 22, 3), arena(S1_L1), arena(BIG_1)),
        [
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            Step::Store(BIG_1, arena(BIG_2 | TABLE)),
            Step::Store(BIG_2 + 0x1000 * 8, arena(D1 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(HIGH_AT)),
        Step::Write(A, plain(HIGH_AT + 0xfffc))
    ),
    tables!(
        "stage1-aptable-forbids-writes",
        low_cd(W0),
        [
            Step::Store(S1_L1, arena(S1_L2 | TABLE)),
            Step::Store(S1_L2 + 0x80 * 8, arena(S1_L3 | TABLE | 2 << 61)),
            s1_page(0, arena(D0 | S1_PAGE))
        ],
        WRITE
    ),
    tables!(
        "stage1-aptable-of-a-higher-table-forbids-writes",
        low_cd(W0),
        [
            Step::Store(S1_L1, arena(S1_L2 | TABLE | 2 << 61)),
            Step::Store(S1_L2 + 0x80 * 8, arena(S1_L3 | TABLE)),
            s1_page(0, arena(D0 | S1_PAGE))
        ],
        WRITE
    ),
    Program {
        name: "stage1-had0-ignores-aptable",
        steps: &[
            Step::Store(S1_L1, arena(S1_L2 | TABLE)),
            Step::Store(S1_L2 + 0x80 * 8, arena(S1_L3 | TABLE | 2 << 61)),
            s1_page(0, arena(D0 | S1_PAGE)),
            cd(CD_A, W0, arena(S1_L1 | 1 << 1), plain(0)),
            stage1(A, CD_A),
            FORGET_A,
            WRITE,
        ],
    },
    tables!(
        "stage1-block-beyond-ips",
        low_cd(IPS_36),
        [Step::Store(S1_L1, plain(1 << 36 | S1_BLOCK))],
        WRITE
    ),
    tables!(
        "stage1-table-beyond-ips",
        low_cd(IPS_36),
        [Step::Store(S1_L1, plain(1 << 36 | TABLE))],
        WRITE
    ),
    tables!(
        "stage1-table-in-no-memory",
        low_cd(W0),
        [Step::Store(S1_L1, plain(NOWHERE | TABLE))],
        WRITE,
        READ
    ),
    tables!(
        "stage1-root-in-no-memory",
        root(W0, plain(NOWHERE)),
        [S1_TABLES],
        WRITE
    ),
    tables!(
        "cd-ttb0-beyond-ips",
        root(IPS_36, arena(S1_L1 | 1 << 36)),
        [S1_TABLES],
        WRITE
    ),
    tables!(
        "cd-ttb0-beyond-the-output-size",
        root(W0, arena(S1_L1 | 1 << 44)),
        [S1_TABLES],
        WRITE
    ),
];
