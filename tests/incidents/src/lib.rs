//! Incidents: policies for PASIDs and owners that went wrong, each a small driver of its own on the
//! model of an SMMU, beside Portcullis on the same steps.
//!
//! A story (`stories`) is told once and played twice. What reached memory is the model's record to
//! say; whose memory that is, the story knows. `INCIDENTS.md` beside this crate is the page to read.

mod kit;
mod ours;
mod side;
mod stories;
mod tell;
mod wrong;

pub use side::Harm;
pub use tell::{Line, Played};

use side::{Groups, Spaces};
use tell::{GroupScene, Scene};

/// One incident: a policy, what it does wrong, and the story that shows it.
pub struct Incident {
    /// What it is called by.
    pub name: &'static str,
    /// The policy, in a line.
    pub policy: &'static str,
    /// What goes wrong with it.
    pub harm: Harm,
    story: Story,
}

/// A story, and who plays the wrong part in it.
enum Story {
    /// Of processes, their numbers, and those who hold them.
    Spaces(fn() -> Box<dyn Spaces>, fn(&mut Scene<'_>)),
    /// Of a group of functions, and who owns it.
    Groups(fn() -> Box<dyn Groups>, fn(&mut GroupScene<'_>)),
}

/// Both sides of an incident, on the same steps.
pub struct Both {
    /// The policy that went wrong.
    pub wrong: Played,
    /// Portcullis.
    pub ours: Played,
}

impl Both {
    /// Whether the wrong one went wrong as `incident` says, and Portcullis held: no harm, and no
    /// objection of the model's.
    pub fn is_as_told(&self, incident: &Incident) -> bool {
        self.wrong.harms.contains(&incident.harm)
            && self.ours.harms.is_empty()
            && self.ours.objections.is_empty()
    }
}

impl Incident {
    /// Plays it on both sides.
    pub fn play(&self) -> Both {
        match self.story {
            Story::Spaces(wrong, story) => Both {
                wrong: tell::spaces(&mut *wrong(), story),
                ours: ours::with_spaces(|side| tell::spaces(side, story)),
            },
            Story::Groups(wrong, story) => Both {
                wrong: tell::groups(&mut *wrong(), story),
                ours: ours::with_groups(|side| tell::groups(side, story)),
            },
        }
    }
}

/// All of them.
pub const INCIDENTS: &[Incident] = &[
    Incident {
        name: "freed-at-exit",
        policy: "the number is freed when its process exits; the CD stays until the file is closed",
        harm: Harm::ReachedAnothers,
        story: Story::Spaces(wrong::freed_at_exit, stories::exit_without_close),
    },
    Incident {
        name: "reused-over-live",
        policy: "as before, and a CD that is live already is given the new ASID and nothing else",
        harm: Harm::ReachedAnothers,
        story: Story::Spaces(wrong::freed_at_exit, stories::daemon_fork),
    },
    Incident {
        name: "closed-by-number",
        policy: "a file remembers its number; closing it retracts whatever CD has that number now",
        harm: Harm::CutOff,
        story: Story::Spaces(wrong::closed_by_number, stories::late_close),
    },
    Incident {
        name: "handle-keeps-space",
        policy: "a bind holds a reference to the address space, and a mapping in it holds the file",
        harm: Harm::NeverEnds,
        story: Story::Spaces(wrong::handle_keeps_space, stories::mapped_in_itself),
    },
    Incident {
        name: "second-bind-busy",
        policy: "a device and a number that are bound already are refused as busy",
        harm: Harm::Refused,
        story: Story::Spaces(wrong::second_bind_busy, stories::two_queues),
    },
    Incident {
        name: "busy-swallowed",
        policy: "the same refusal, taken for success: two files, one count",
        harm: Harm::CutOff,
        story: Story::Spaces(wrong::busy_swallowed, stories::two_queues),
    },
    Incident {
        name: "holders-called-back",
        policy: "who destroys a space calls every holder back, and waits until each has let go",
        harm: Harm::NeverEnds,
        story: Story::Spaces(
            wrong::holders_called_back,
            stories::holder_that_does_not_answer,
        ),
    },
    Incident {
        name: "lowest-free",
        policy: "a number that is free goes out at once, the lowest first",
        harm: Harm::ReachedAnothers,
        story: Story::Spaces(wrong::lowest_free, stories::job_still_in_the_device),
    },
    Incident {
        name: "counted-without-group",
        policy: "use and unuse of DMA are counted in the group; without one they just succeed",
        harm: Harm::ReachedAnothers,
        story: Story::Groups(wrong::counted_without_group, stories::owner_before_probe),
    },
];

/// The incident of that name.
pub fn find(name: &str) -> Option<&'static Incident> {
    INCIDENTS.iter().find(|incident| incident.name == name)
}
