//! The scenarios, each by the name that it has in `scenarios.md`.

mod ats;
mod counts;
mod faults;
mod holders;
mod lives;
mod memory;
pub(crate) mod others;
pub(crate) mod races;
mod stalls;

use crate::story::Story;

const fn story(name: &'static str, play: fn(&crate::story::Stage) -> crate::story::Told) -> Story {
    Story {
        name,
        play,
        is_last: false,
    }
}

/// All of them, in the order in which they are played; the first is number 1. The last leaves an SMMU dead.
pub(crate) const ALL: &[Story] = &[
    story("exit-without-close", lives::exit_without_close),
    story("daemon-fork", holders::daemon_fork),
    story("exec-keeps-handle", lives::exec_keeps_handle),
    story("adopt", holders::adopt),
    story("unbind-after-release", lives::unbind_after_release),
    story("publish-over-live", lives::publish_over_live),
    story("self-mapped-handle", holders::self_mapped_handle),
    story("bind-twice", holders::bind_twice),
    story("number-for-life", lives::number_for_life),
    story("one-space-many-devices", memory::one_space_many_devices),
    story("misfit", memory::misfit),
    story("too-many", counts::too_many),
    story("park-in-any-order", holders::park_in_any_order),
    story("quiet-after-release", lives::quiet_after_release),
    story("still-firing-at-reuse", lives::still_firing_at_reuse),
    story(
        "device-resets-while-parked",
        lives::device_resets_while_parked,
    ),
    story("release-races-bind", races::release_races_bind),
    story("handle-passed-on", holders::handle_passed_on),
    story("stalled-when-killed", stalls::stalled_when_killed),
    story("global-entries", memory::global_entries),
    story("stage1-unmap-under-dma", memory::stage1_unmap_under_dma),
    story("guest-starts-over", counts::guest_starts_over),
    story("sync-never-comes", faults::sync_never_comes),
    story("late-sync", faults::late_sync),
    story("ats-holdout", ats::ats_holdout),
    story("guest-dies", others::guest_dies),
    story("storm", others::storm),
    Story {
        is_last: true,
        ..story("shared-smmu-dies", others::shared_smmu_dies)
    },
];
