//! Short programs for an SMMUv3: what is put into memory and registers, and which DMA is tried.
//!
//! They are run on two SMMUs that were written from the same architecture by different people:
//! QEMU's own, and the model in `tests/model`. What is seen ([`Observation`]) must be the same.
//! Nothing here says what the right answer is.
//!
//! Every word is assembled by hand from the positions that IHI 0070 G.b prints (§ numbers are of
//! it); there is no encoder of a driver or of the model here.
#![no_std]
#![forbid(unsafe_code)]

mod cached_entries;
mod cached_translations;
mod commands;
mod nested;
mod observation;
mod run;
mod stage1;
mod stage1_tables;
mod stage2;
mod stage2_tables;
mod step;
mod streams;
mod two_levels;
mod word;
mod words;

pub use observation::{Observation, Record, State};
pub use run::{ARENA_BYTES, Target, run};
pub use step::{Command, Program, Step};
pub use word::{Word, arena, block_of_arena, into_block, plain};
pub use words::{A, B, FAR};

/// All programs, in the order in which they must run: QEMU's SMMU stays with a two-level stream
/// table until it is reset, so those come last.
pub fn programs() -> impl Iterator<Item = &'static Program> {
    let rooms: [&'static [Program]; 10] = [
        streams::PROGRAMS,
        stage2::PROGRAMS,
        stage2_tables::PROGRAMS,
        stage1::PROGRAMS,
        stage1_tables::PROGRAMS,
        nested::PROGRAMS,
        cached_translations::PROGRAMS,
        cached_entries::PROGRAMS,
        commands::PROGRAMS,
        two_levels::PROGRAMS,
    ];
    rooms.into_iter().flatten()
}
