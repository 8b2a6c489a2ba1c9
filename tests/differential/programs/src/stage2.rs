//! Stage 2 alone: pages, permissions, sizes of addresses.

use crate::step::{Program, Step};
use crate::word::{arena, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;
const WRITE: Step = Step::Write(A, plain(AT));
const READ: Step = Step::Read(A, plain(AT));
/// 40 bits from level 1: 2 tables.
const W2_40: u64 = put(W2, 37, 32, 24);
/// Output of 36 and of 40 bits; the input has 36 bits, from level 1.
const W2_PS_36: u64 = put(put(W2, 37, 32, 28), 50, 48, 1);
const W2_PS_40: u64 = put(put(W2, 37, 32, 28), 50, 48, 2);

/// A program with the common tables and this descriptor of the page at `AT`.
macro_rules! page {
    ($name:literal, with $word2:expr, $word:expr, $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[
                S2_TABLES,
                s2_page(0, $word),
                Step::Store(D0, plain(TREASURE)),
                stage2(A, $word2),
                FORGET_A,
                $($step),+
            ],
        }
    };
    ($name:literal, $word:expr, $($step:expr),+) => {
        page!($name, with W2, $word, $($step),+)
    };
}

pub(crate) const PROGRAMS: &[Program] = &[
    page!(
        "stage2-page",
        arena(D0 | S2_PAGE),
        WRITE,
        Step::Write(A, plain(AT + 0xffc)),
        Step::Write(A, plain(AT + 0x1000)),
        Step::Write(A, plain(AT - 0x1000))
    ),
    page!(
        "stage2-ipa-of-an-event-is-a-pages",
        arena(D0 | S2_PAGE),
        Step::Write(A, plain(AT + 0x1ffc))
    ),
    page!("stage2-page-is-read", arena(D0 | S2_PAGE), READ),
    page!(
        "stage2-read-only-page-is-not-written",
        arena(D0 | S2_PAGE & !S2_WRITE),
        WRITE
    ),
    page!(
        "stage2-read-only-page-is-read",
        arena(D0 | S2_PAGE & !S2_WRITE),
        READ
    ),
    page!(
        "stage2-read-only-page-is-not-written-after-a-read",
        arena(D0 | S2_PAGE & !S2_WRITE),
        READ,
        WRITE
    ),
    page!(
        "stage2-write-only-page-is-written",
        arena(D0 | S2_PAGE & !S2_READ),
        WRITE
    ),
    page!(
        "stage2-write-only-page-is-not-read",
        arena(D0 | S2_PAGE & !S2_READ),
        READ
    ),
    page!(
        "stage2-write-only-page-is-not-read-after-a-write",
        arena(D0 | S2_PAGE & !S2_READ),
        WRITE,
        READ
    ),
    page!(
        "stage2-page-without-permission",
        arena(D0 | S2_PAGE & !S2_READ & !S2_WRITE),
        WRITE,
        READ
    ),
    page!(
        "stage2-page-without-access-flag",
        arena(D0 | S2_PAGE & !AF),
        WRITE,
        READ
    ),
    page!(
        "stage2-affd-lets-pages-without-access-flag-through",
        with W2 | 1 << 53, arena(D0 | S2_PAGE & !AF), WRITE
    ),
    page!(
        "stage2-access-flag-comes-before-permission",
        arena(D0 | S2_PAGE & !AF & !S2_WRITE),
        WRITE
    ),
    page!(
        "stage2-execute-never-does-not-concern-data",
        arena(D0 | S2_PAGE | 2 << 53),
        WRITE
    ),
    page!("stage2-invalid-page", arena(D0 | S2_PAGE & !1), WRITE, READ),
    page!(
        "stage2-block-at-level-3-is-invalid",
        arena(D0 | S2_BLOCK),
        WRITE
    ),
    page!("stage2-without-s2r-faults-in-silence", with W2 & !(1 << 58), plain(0), WRITE, READ),
    page!(
        "stage2-without-s2r-no-permission-in-silence",
        with W2 & !(1 << 58), arena(D0 | S2_PAGE & !S2_WRITE), WRITE
    ),
    page!(
        "stage2-device-memory-is-reached",
        arena(D0 | S2_PAGE & !(0xf << 2)),
        WRITE
    ),
    page!(
        "stage2-software-bits-are-ignored",
        arena(D0 | S2_PAGE | 0xf << 55),
        WRITE
    ),
    page!(
        "stage2-contiguous-pages",
        arena(D0 | S2_PAGE | 1 << 52),
        Step::Fill {
            at: S2_L3,
            count: 16,
            first: arena(D0 | S2_PAGE | 1 << 52),
            stride: 0x1000,
        },
        WRITE,
        Step::Write(A, plain(AT + 0x3000)),
        Step::Write(A, plain(AT + 0xf008)),
        Step::Write(A, plain(AT + 0x1_0000))
    ),
    page!(
        "stage2-40-bits-from-the-first-of-2-tables",
        with W2_40, arena(D0 | S2_PAGE), WRITE
    ),
    page!(
        "stage2-address-beyond-t0sz",
        arena(D0 | S2_PAGE),
        Step::Write(A, plain(1 << 39 | AT))
    ),
    page!(
        "stage2-address-beyond-44-bits",
        arena(D0 | S2_PAGE),
        Step::Write(A, plain(1 << 44 | AT))
    ),
    page!(
        "stage2-address-beyond-44-bits-in-silence-too-without-s2r",
        with W2 & !(1 << 58), arena(D0 | S2_PAGE), Step::Write(A, plain(1 << 44 | AT))
    ),
    page!(
        "stage2-highest-address",
        arena(D0 | S2_PAGE),
        Step::Write(A, plain(0xffff_ffff_ffff_fffc))
    ),
    page!("stage2-page-beyond-s2ps", with W2_PS_36, plain(1 << 36 | S2_PAGE), WRITE, READ),
    page!(
        "stage2-output-smaller-than-the-input",
        with put(W2, 50, 48, 1), arena(D0 | S2_PAGE), WRITE
    ),
    page!("stage2-page-within-s2ps-beyond-memory", with W2_PS_40, plain(1 << 36 | S2_PAGE), WRITE),
    page!(
        "stage2-page-beyond-the-output-size",
        plain(1 << 44 | S2_PAGE),
        WRITE
    ),
    Program {
        name: "two-streams-with-one-stage2",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            stage2(A, W2),
            stage2(B, W2),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            WRITE,
            Step::Write(B, plain(AT + 0x10)),
            Step::Write(B, plain(AT + 0x1000)),
        ],
    },
    Program {
        name: "two-streams-with-a-stage2-each",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            Step::Store(BIG_1, arena((BIG_1 + 0x1000) | TABLE)),
            Step::Store(BIG_1 + 0x1000 + 0x80 * 8, arena((BIG_1 + 0x2000) | TABLE)),
            Step::Store(BIG_1 + 0x2000, arena(D1 | S2_PAGE)),
            stage2(A, W2),
            ste(B, plain(STAGE2), put(W2, 15, 0, 2), arena(BIG_1)),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            WRITE,
            Step::Write(B, plain(AT)),
            WRITE,
            Step::Write(B, plain(AT)),
        ],
    },
];
