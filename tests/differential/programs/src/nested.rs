//! Both stages: CD, tables and output all go through stage 2.

use crate::step::{Program, Step};
use crate::word::{arena, block_of_arena, into_block, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;
const WRITE: Step = Step::Write(A, plain(AT));
const READ: Step = Step::Read(A, plain(AT));

/// A program with the common nested tables, some of which `change`, and then DMA.
macro_rules! program {
    ($name:literal, with $word2:expr, [$($change:expr),*], $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[
                NESTED_TABLES,
                Step::Store(D0, plain(TREASURE)),
                $($change,)*
                nested(A, CD_A, $word2),
                FORGET_A,
                $($step),+
            ],
        }
    };
    ($name:literal, [$($change:expr),*], $($step:expr),+) => {
        program!($name, with W2, [$($change),*], $($step),+)
    };
}

const fn page_without(offset: u64, bits: u64) -> Step {
    window(offset, arena(offset | S2_PAGE & !bits))
}

pub(crate) const PROGRAMS: &[Program] = &[
    program!(
        "nested-page",
        [],
        WRITE,
        Step::Write(A, plain(AT + 0xffc)),
        Step::Write(A, plain(AT + 0x1000))
    ),
    program!("nested-page-is-read", [], READ),
    program!(
        "nested-cd-not-mapped-in-stage-2",
        [window(CD_A, plain(0))],
        WRITE,
        READ
    ),
    program!(
        "nested-cd-readable-alone-is-enough",
        [page_without(CD_A, S2_WRITE)],
        WRITE
    ),
    program!(
        "nested-cd-not-readable-in-stage-2",
        [page_without(CD_A, S2_READ)],
        WRITE
    ),
    program!(
        "nested-cd-without-access-flag-in-stage-2",
        [page_without(CD_A, AF)],
        WRITE
    ),
    program!(
        "nested-cd-not-mapped-in-silence", with W2 & !(1 << 58), [window(CD_A, plain(0))], WRITE
    ),
    program!(
        "nested-cd-in-no-memory",
        [window(CD_A, plain(NOWHERE | S2_PAGE))],
        WRITE
    ),
    program!(
        "nested-cd-that-is-not-valid",
        [Step::Store(CD_A, plain(0))],
        WRITE
    ),
    program!(
        "nested-root-not-mapped-in-stage-2",
        [window(S1_L1, plain(0))],
        WRITE,
        READ
    ),
    program!(
        "nested-level-2-table-not-mapped-in-stage-2",
        [window(S1_L2, plain(0))],
        WRITE
    ),
    program!(
        "nested-level-3-table-not-mapped-in-stage-2",
        [window(S1_L3, plain(0))],
        WRITE,
        READ
    ),
    program!(
        "nested-table-readable-alone-is-enough",
        [page_without(S1_L3, S2_WRITE)],
        WRITE
    ),
    program!(
        "nested-table-not-readable-in-stage-2",
        [page_without(S1_L3, S2_READ)],
        WRITE
    ),
    program!(
        "nested-table-without-access-flag-in-stage-2",
        [page_without(S1_L3, AF)],
        WRITE
    ),
    program!(
        "nested-table-in-no-memory",
        [window(S1_L3, plain(NOWHERE | S2_PAGE))],
        WRITE
    ),
    program!(
        "nested-table-beyond-stage-2",
        [Step::Store(S1_L1, plain(1 << 39 | TABLE))],
        WRITE
    ),
    program!(
        "nested-output-not-mapped-in-stage-2",
        [window(D0, plain(0))],
        WRITE,
        READ
    ),
    program!(
        "nested-output-read-only-in-stage-2",
        [page_without(D0, S2_WRITE)],
        WRITE
    ),
    program!(
        "nested-output-read-only-in-stage-2-is-read",
        [page_without(D0, S2_WRITE)],
        READ
    ),
    program!(
        "nested-output-write-only-in-stage-2",
        [page_without(D0, S2_READ)],
        WRITE
    ),
    program!(
        "nested-output-write-only-in-stage-2-is-not-read",
        [page_without(D0, S2_READ)],
        READ
    ),
    program!(
        "nested-output-without-access-flag-in-stage-2",
        [page_without(D0, AF)],
        WRITE
    ),
    program!(
        "nested-output-not-mapped-in-silence", with W2 & !(1 << 58), [window(D0, plain(0))], WRITE
    ),
    program!(
        "nested-output-beyond-stage-2",
        [s1_page(0, plain(1 << 39 | S1_PAGE))],
        WRITE
    ),
    program!(
        "nested-output-beyond-s2ps",
        with put(put(W2, 37, 32, 28), 50, 48, 1),
        [window(D0, plain(1 << 36 | S2_PAGE))], WRITE
    ),
    program!("nested-stage-1-invalid", [s1_page(0, plain(0))], WRITE),
    program!(
        "nested-stage-1-read-only",
        [s1_page(0, plain(WINDOW | D0 | S1_PAGE | AP_READ_ONLY))],
        WRITE
    ),
    program!(
        "nested-stage-1-permission-comes-before-stage-2-translation",
        [
            s1_page(0, plain(WINDOW | D0 | S1_PAGE | AP_READ_ONLY)),
            window(D0, plain(0))
        ],
        WRITE
    ),
    program!(
        "nested-stage-1-access-flag-comes-before-stage-2-translation",
        [
            s1_page(0, plain(WINDOW | D0 | S1_PAGE & !AF)),
            window(D0, plain(0))
        ],
        WRITE
    ),
    program!(
        "nested-read-only-at-both-stages",
        [
            s1_page(0, plain(WINDOW | D0 | S1_PAGE | AP_READ_ONLY)),
            page_without(D0, S2_WRITE)
        ],
        WRITE
    ),
    program!(
        "nested-stage-1-silent-stage-2-not",
        [
            cd(CD_A, CD_WORD0 & !(1 << 45), plain(WINDOW | S1_L1), plain(0)),
            window(D0, plain(0))
        ],
        WRITE,
        Step::Write(A, plain(AT + 0x1000))
    ),
    program!(
        "nested-address-beyond-t0sz",
        [],
        Step::Write(A, plain(1 << 39 | AT))
    ),
    program!(
        "nested-block-of-stage-1-over-pages-of-stage-2",
        [
            Step::Store(S1_L2 + 0x80 * 8, plain(WINDOW | S1_BLOCK)),
            window(D1, arena(D2 | S2_PAGE)),
            window(D3, plain(0))
        ],
        Step::Write(A, plain(AT + D0 + 0x10)),
        Step::Write(A, plain(AT + D1 + 0x10)),
        Step::Write(A, plain(AT + D3)),
        Step::Write(A, plain(AT + D0 + 0x20))
    ),
    program!(
        "nested-page-of-stage-1-over-a-block-of-stage-2",
        [
            Step::Store(S2_L2 + 0x100 * 8, arena(S2_BLOCK)),
            s1_page(1, plain(WINDOW | D1 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(AT + 0x1ffc)),
        Step::Write(A, plain(AT + 0x2000))
    ),
    program!(
        "nested-blocks-at-both-stages",
        [
            Step::Store(S2_L2 + 0x100 * 8, arena(S2_BLOCK)),
            Step::Store(S1_L2 + 0x80 * 8, plain(WINDOW | S1_BLOCK))
        ],
        Step::Write(A, plain(AT + D0)),
        Step::Write(A, plain(AT + D3 + 0xffc))
    ),
    program!(
        "nested-block-of-1g-in-stage-2",
        [
            Step::Store(S2_ROOT + 8, block_of_arena(30, S2_BLOCK)),
            s1_page(0, into_block(30, 0x4000_0000 | D0 | S1_PAGE))
        ],
        WRITE,
        Step::Write(A, plain(AT + 0x1000))
    ),
    Program {
        name: "nested-stage-1-of-16k-over-stage-2-of-4k",
        steps: &[
            NESTED_TABLES,
            Step::Store(BIG_1 + 8 * 8, plain(WINDOW | BIG_2 | TABLE)),
            Step::Store(BIG_2, plain(WINDOW | D0 | S1_PAGE)),
            cd(
                CD_A,
                put(put(CD_WORD0, 7, 6, 2), 5, 0, 28),
                plain(WINDOW | BIG_1),
                plain(0),
            ),
            nested(A, CD_A, W2),
            FORGET_A,
            WRITE,
            Step::Write(A, plain(AT + 0x3ffc)),
            Step::Write(A, plain(AT + 0x4000)),
        ],
    },
    Program {
        name: "nested-stage-1-of-64k-over-stage-2-of-4k",
        steps: &[
            NESTED_TABLES,
            Step::Store(BIG_1, plain(WINDOW | BIG_2 | TABLE)),
            Step::Store(BIG_2 + 0x1000 * 8, plain(WINDOW | D0 | S1_PAGE)),
            window(D0 + 0x5000, arena((D1 + 0x5000) | S2_PAGE)),
            cd(
                CD_A,
                put(put(CD_WORD0, 7, 6, 1), 5, 0, 22),
                plain(WINDOW | BIG_1),
                plain(0),
            ),
            nested(A, CD_A, W2),
            FORGET_A,
            WRITE,
            Step::Write(A, plain(AT + 0xf008)),
            Step::Write(A, plain(AT + 0x5008)),
            Step::Write(A, plain(AT + 0x6008)),
        ],
    },
    Program {
        name: "nested-stage-1-of-4k-over-stage-2-of-64k",
        steps: &[
            NESTED_TABLES,
            // Index 1 of level 2 (512 MiB each) is the window; 64 KiB pages of the arena.
            Step::Store(BIG_1 + 8, arena(BIG_2 | TABLE)),
            Step::Fill {
                at: BIG_2,
                count: 32,
                first: arena(S2_PAGE),
                stride: 0x1_0000,
            },
            ste(
                A,
                plain(WINDOW | CD_A | BOTH),
                put(put(W2, 47, 46, 1), 37, 32, 22),
                arena(BIG_1),
            ),
            FORGET_A,
            WRITE,
            Step::Write(A, plain(AT + 0xffc)),
            Step::Write(A, plain(AT + 0x1000)),
        ],
    },
    Program {
        name: "nested-two-streams-of-one-guest",
        steps: &[
            NESTED_TABLES,
            Step::Store(HIGH_L1, plain(WINDOW | HIGH_L2 | TABLE)),
            Step::Store(HIGH_L2 + 0x80 * 8, plain(WINDOW | HIGH_L3 | TABLE)),
            Step::Store(HIGH_L3, plain(WINDOW | D1 | S1_PAGE)),
            cd(
                CD_B,
                put(CD_WORD0, 63, 48, 2),
                plain(WINDOW | HIGH_L1),
                plain(0),
            ),
            nested(A, CD_A, W2),
            nested(B, CD_B, W2),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            WRITE,
            Step::Write(B, plain(AT)),
            WRITE,
            Step::Write(B, plain(AT)),
        ],
    },
];
