//! The operations: what comes before each, and what must be seen after it.

mod faults;
mod hosted;
mod memory;
mod spaces;

use portcullis::spec::ste::Ats;

use crate::stage::{Play, Setup, Stage};

const OFF: Setup = Setup {
    ats: Ats::Off,
    can_stall: false,
    is_coherent: true,
    bytes: 2 << 20,
};
const SPLIT: Setup = Setup {
    ats: Ats::Split,
    ..OFF
};
const FULL: Setup = Setup {
    ats: Ats::Full,
    ..OFF
};
const CLEANED: Setup = Setup {
    is_coherent: false,
    ..OFF
};
const STALLING: Setup = Setup {
    can_stall: true,
    ..OFF
};
const ROOMY: Setup = Setup {
    bytes: 6 << 20,
    ..OFF
};

const fn play(name: &'static str, setup: Setup, play: fn(&mut Stage<'_>)) -> Play {
    Play { name, setup, play }
}

pub(crate) const PLAYS: &[Play] = &[
    play("take over", OFF, spaces::take_over),
    play("shut down", OFF, spaces::shut_down),
    play("attach", OFF, spaces::attach),
    play("attach, full ATS", FULL, spaces::attach),
    play("attach to stage 2", OFF, spaces::attach_stage2),
    play("bind, first of its leaf", OFF, spaces::bind_first),
    play("bind a further one", OFF, spaces::bind_further),
    play("bind the whole stream", OFF, spaces::bind_whole),
    play("unbind", OFF, spaces::unbind),
    play("unbind, split ATS", SPLIT, spaces::unbind),
    play("unbind, full ATS", FULL, spaces::unbind),
    play("unbind the whole stream", OFF, spaces::unbind_whole),
    play("unbind after release", OFF, spaces::unbind_released),
    play("release", OFF, spaces::release),
    play("release, no globals", OFF, spaces::release_without_globals),
    play("release, split ATS", SPLIT, spaces::release),
    play("release, full ATS", FULL, spaces::release),
    play("release the whole stream", OFF, spaces::release_whole),
    play("release all", OFF, spaces::release_all),
    play("release all, full ATS", FULL, spaces::release_all),
    play("detach", OFF, spaces::detach),
    play("detach, full ATS", FULL, spaces::detach),
    play("remove a device", OFF, spaces::remove),
    play("destroy a guest", OFF, spaces::destroy),
    play("destroy a guest, full ATS", FULL, spaces::destroy),
    play("change hands", OFF, spaces::change_hands),
    play("change hands, full ATS", FULL, spaces::change_hands),
    play("hand over", OFF, spaces::hand_over),
    play("map", OFF, memory::map),
    play("unmap, stage 2 alone", OFF, memory::unmap_stage2),
    play("unmap, nested", OFF, memory::unmap),
    play("unmap, split ATS", SPLIT, memory::unmap),
    play("unmap, full ATS", FULL, memory::unmap),
    play("unmap a table", OFF, memory::unmap_table),
    play("unmap in a block", ROOMY, memory::unmap_in_block),
    play("protect", OFF, memory::protect),
    play("invalidate a page", OFF, memory::invalidate_page),
    play("invalidate a page, full ATS", FULL, memory::invalidate_page),
    play("invalidate a table", OFF, memory::invalidate_table),
    play("tidy a leaf", OFF, memory::tidy_leaf),
    play("tidy a device", OFF, memory::tidy_device),
    play("take an event", OFF, memory::take_event),
    play("retry what is stalled", STALLING, faults::retry),
    play("abort what is stalled", STALLING, faults::abort),
    play("abort what nobody answers", STALLING, faults::deadline),
    play("abort what was released", STALLING, faults::released),
    play("recover", OFF, faults::recover),
    play("recover after a halt", OFF, faults::recover_halted),
    play("recover a dead queue", OFF, faults::recover_dead),
    play("restore a fenced device", FULL, faults::restore),
    play("restore behind its port", FULL, faults::restore_port),
    play(
        "restore behind its port, split ATS",
        SPLIT,
        faults::restore_port,
    ),
    play("restore, no reset", OFF, faults::restore_refused),
    play("attach, host's tables", OFF, hosted::attach),
    play("confirm a host's change", OFF, hosted::confirm),
    play("destroy a guest, host's tables", OFF, hosted::destroy),
    play("attach, host's tables, full ATS", FULL, hosted::attach),
    play("confirm a host's change, split ATS", SPLIT, hosted::confirm),
    play("confirm a host's change, full ATS", FULL, hosted::confirm),
    play(
        "destroy a guest, host's tables, full ATS",
        FULL,
        hosted::destroy,
    ),
    play(
        "bind, first of its leaf, cleaned",
        CLEANED,
        spaces::bind_first,
    ),
    play("map, cleaned", CLEANED, memory::map),
    play("unmap a page, cleaned", CLEANED, memory::unmap_stage2),
    play("protect, cleaned", CLEANED, memory::protect),
    play("tidy a leaf, cleaned", CLEANED, memory::tidy_leaf),
];
