//! The stories, one file each, and the list of them.

mod adopt;
mod bind_twice;
mod daemon_fork;
mod exec_keeps_handle;
mod exit_without_close;
mod handle_passed_on;
mod number_for_life;
mod park_in_any_order;
mod self_mapped_handle;
mod unbind_after_release;

use crate::Story;

/// All stories, in the order of the list that they come from.
pub const STORIES: &[Story] = &[
    exit_without_close::STORY,
    daemon_fork::STORY,
    exec_keeps_handle::STORY,
    adopt::STORY,
    unbind_after_release::STORY,
    self_mapped_handle::STORY,
    bind_twice::STORY,
    number_for_life::STORY,
    park_in_any_order::STORY,
    handle_passed_on::STORY,
];

/// The story of this name.
pub fn find(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}
