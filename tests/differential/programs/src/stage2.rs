//! Stage 2 alone.

use crate::step::{Program, Step};
use crate::word::{arena, block_of_arena, into_block, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;

/// One page at `AT`, with the given descriptor.
macro_rules! one_page {
    ($name:literal, $word:expr, $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[S2_TABLES, s2_page(0, $word), stage2(A, W2), FORGET_A, $($step),+],
        }
    };
}

pub(crate) const PROGRAMS: &[Program] = &[
    one_page!(
        "stage2-page",
        arena(D0 | S2_PAGE),
        Step::Write(A, plain(AT)),
        Step::Write(A, plain(AT + 0xffc)),
        Step::Write(A, plain(AT + 0x1000))
    ),
];
