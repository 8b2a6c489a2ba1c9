//! What each side of a story can do: the policy that went wrong, and Portcullis.

use smmu_model::Rule;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Harm {
    /// A device reached memory that is somebody else's by then.
    ReachedAnothers,
    /// A device reached memory of a process that is gone.
    StillReaches,
    /// DMA of a living process was cut off.
    CutOff,
    /// What must work was refused.
    Refused,
    /// What was to end does not: its memory never comes back.
    NeverEnds,
    /// More was given up than was ever taken.
    CountWrong,
}

impl Harm {
    /// In words, for the verdict.
    pub const fn words(self) -> &'static str {
        match self {
            Self::ReachedAnothers => "DMA ran in memory that is somebody else's",
            Self::StillReaches => "DMA of a process that is gone went on",
            Self::CutOff => "DMA of a living process was cut off",
            Self::Refused => "what must work was refused",
            Self::NeverEnds => "what was to end does not, and its memory never comes back",
            Self::CountWrong => "more was given up than was ever taken",
        }
    }
}

/// What became of a process that exited.
pub(crate) enum Exit {
    /// It is gone: the kernel gives its memory to whomever it likes.
    Gone,
    /// Its memory is not free, and why.
    Kept(String),
}

/// Processes whose memory one device reaches by their numbers.
///
/// A holder is an open file of the device: whoever has it, in whatever process.
pub(crate) trait Spaces {
    /// A process starts, with one page of its own.
    fn start(&mut self, process: &'static str);
    /// Where that page is.
    fn page(&self, process: &str) -> u64;
    /// A process binds its memory to the device through a file; the number that it got.
    fn bind(&mut self, process: &str, holder: &'static str) -> Result<u32, String>;
    /// A process exits, whoever still holds what.
    fn exit(&mut self, process: &str) -> Exit;
    /// The last reference to a file goes.
    fn close(&mut self, holder: &str) -> Result<(), String>;
    /// From here on the holder of a file does not answer.
    fn fall_silent(&mut self, holder: &'static str);
    /// A process keeps a file by a mapping in its own memory.
    fn map_file(&mut self, process: &'static str, holder: &'static str);
    /// The device writes, tagged with a number; where that landed, by the model's record.
    fn fire(&mut self, number: u32) -> Option<u64>;
    /// Which rules the driver has broken, each once.
    fn objections(&self) -> Vec<Rule>;
}

/// A function of a group, its host's driver, and a guest that wants the group.
pub(crate) trait Groups {
    /// The host's driver begins to use DMA, before the SMMU is known.
    fn use_early(&mut self) -> String;
    /// The SMMU is there now.
    fn smmu_comes(&mut self) -> String;
    /// The host's driver leaves; how many uses are left, or what is said of it.
    fn unuse(&mut self) -> Result<String, String>;
    /// The group is given to a guest.
    fn assign(&mut self) -> Result<(), String>;
    /// The device writes where the host's driver told it to; where that landed.
    fn fire(&mut self) -> Option<u64>;
    /// Where the guest's page is.
    fn guest_page(&self) -> u64;
    /// Which rules the driver has broken, each once.
    fn objections(&self) -> Vec<Rule>;
}

/// Each rule once, in the order in which they were broken.
pub(crate) fn rules(record: &smmu_model::Record) -> Vec<Rule> {
    let mut rules = Vec::new();
    for violation in record.violations() {
        if !rules.contains(&violation.rule) {
            rules.push(violation.rule);
        }
    }
    rules
}
