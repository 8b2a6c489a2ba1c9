//! The stories, one file each, and the list of them.

mod adopt;
mod ats_holdout;
mod bind_twice;
mod daemon_fork;
mod device_resets_while_parked;
mod device_unplugged;
mod exec_keeps_handle;
mod exit_without_close;
mod global_entries;
mod guest_dies;
mod guest_starts_over;
mod hand_over;
mod handle_passed_on;
mod killed_in_the_middle;
mod late_sync;
mod misfit;
mod number_for_life;
mod one_space_many_devices;
mod owner_before_probe;
mod park_in_any_order;
mod publish_over_live;
mod quiet_after_release;
mod release_races_bind;
mod self_mapped_handle;
mod shared_smmu_dies;
mod stage1_unmap_under_dma;
mod stalled_when_killed;
mod still_firing_at_reuse;
mod storm;
mod sync_never_comes;
mod too_many;
mod two_in_a_group;
mod unbind_after_release;
mod unmap_under_dma;
mod window_is_sealed;

use crate::{Story, waiting};

/// All stories, in the order of the list that they come from.
pub const STORIES: &[Story] = &[
    exit_without_close::STORY,
    daemon_fork::STORY,
    exec_keeps_handle::STORY,
    adopt::STORY,
    unbind_after_release::STORY,
    publish_over_live::STORY,
    killed_in_the_middle::STORY,
    self_mapped_handle::STORY,
    bind_twice::STORY,
    number_for_life::STORY,
    one_space_many_devices::STORY,
    misfit::STORY,
    too_many::STORY,
    park_in_any_order::STORY,
    quiet_after_release::STORY,
    still_firing_at_reuse::STORY,
    device_resets_while_parked::STORY,
    device_unplugged::STORY,
    owner_before_probe::STORY,
    two_in_a_group::STORY,
    hand_over::STORY,
    release_races_bind::STORY,
    handle_passed_on::STORY,
    guest_dies::STORY,
    sync_never_comes::STORY,
    late_sync::STORY,
    shared_smmu_dies::STORY,
    stalled_when_killed::STORY,
    storm::STORY,
    ats_holdout::STORY,
    global_entries::STORY,
    unmap_under_dma::STORY,
    stage1_unmap_under_dma::STORY,
    guest_starts_over::STORY,
    window_is_sealed::STORY,
];

/// What is played at every point of a call: too long for every configuration.
pub const AT_EVERY_POINT: &[Story] = &[
    killed_in_the_middle::EVERYWHERE,
    waiting::RELEASE_BESIDE_SILENCE,
    waiting::OTHERS_GO_ON,
];

/// The story of this name.
pub fn find(name: &str) -> Option<&'static Story> {
    let mut all = STORIES.iter().chain(AT_EVERY_POINT);
    all.find(|story| story.name == name)
}
