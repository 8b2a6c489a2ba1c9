//! A story as it is played on one side: what is done, what came of it, and what harm that was.

use std::collections::BTreeMap;

use smmu_model::Rule;

use crate::side::{Exit, Groups, Harm, Spaces};

/// One step.
pub struct Line {
    /// What was done; the same on both sides.
    pub step: String,
    /// What came of it.
    pub outcome: String,
    /// It is what went wrong.
    pub is_harm: bool,
}

/// A story that was played on one side.
pub struct Played {
    /// The steps, in order.
    pub lines: Vec<Line>,
    /// What went wrong, in order.
    pub harms: Vec<Harm>,
    /// Which rules the driver broke, by the model.
    pub objections: Vec<Rule>,
}

#[derive(Default)]
struct Told {
    lines: Vec<Line>,
    harms: Vec<Harm>,
}

impl Told {
    fn tell(&mut self, step: String, outcome: String, harm: Option<Harm>) {
        self.lines.push(Line {
            step,
            outcome,
            is_harm: harm.is_some(),
        });
        self.harms.extend(harm);
    }

    fn end(self, objections: Vec<Rule>) -> Played {
        Played {
            lines: self.lines,
            harms: self.harms,
            objections,
        }
    }
}

/// Plays a story of processes on one side.
pub(crate) fn spaces(side: &mut dyn Spaces, story: fn(&mut Scene<'_>)) -> Played {
    let mut scene = Scene {
        side,
        told: Told::default(),
        owners: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    story(&mut scene);
    let Scene { side, told, .. } = scene;
    told.end(side.objections())
}

/// Plays a story of owners on one side.
pub(crate) fn groups(side: &mut dyn Groups, story: fn(&mut GroupScene<'_>)) -> Played {
    let mut scene = GroupScene {
        side,
        told: Told::default(),
    };
    story(&mut scene);
    let GroupScene { side, told } = scene;
    told.end(side.objections())
}

/// What a write of the device is to meet.
#[derive(Clone, Copy)]
pub(crate) enum Meets {
    /// The page of this process.
    PageOf(&'static str),
    /// Nothing.
    Nothing,
}

/// A story of processes under way.
pub(crate) struct Scene<'s> {
    side: &'s mut dyn Spaces,
    told: Told,
    /// Whose each page is.
    owners: BTreeMap<u64, &'static str>,
    /// The number that each file got, and whose memory it is to reach.
    files: BTreeMap<&'static str, (u32, &'static str)>,
}

impl Scene<'_> {
    /// A process starts.
    pub(crate) fn start(&mut self, process: &'static str) {
        self.side.start(process);
        self.owners.insert(self.side.page(process), process);
        self.told
            .tell(format!("{process} starts"), String::new(), None);
    }

    /// A process binds its memory through a file, which must work.
    pub(crate) fn bind(&mut self, process: &'static str, file: &'static str) {
        let step = format!("{process} binds by {file}");
        match self.side.bind(process, file) {
            Ok(number) => {
                self.files.insert(file, (number, process));
                self.told.tell(step, format!("PASID {number}"), None);
            }
            Err(why) => self.told.tell(step, why, Some(Harm::Refused)),
        }
    }

    /// A process exits; the kernel gives its page to somebody else.
    pub(crate) fn exit(&mut self, process: &'static str, next: &'static str) {
        let step = format!("{process} exits");
        match self.side.exit(process) {
            Exit::Gone => {
                self.owners.insert(self.side.page(process), next);
                self.told
                    .tell(step, format!("gone; its page is {next}'s"), None);
            }
            Exit::Kept(why) => self.told.tell(step, why, Some(Harm::NeverEnds)),
        }
    }

    /// The last reference to a file goes.
    pub(crate) fn close(&mut self, file: &'static str) {
        let outcome = match self.side.close(file) {
            Ok(()) => "done".to_owned(),
            Err(why) => why,
        };
        self.told.tell(format!("{file} is closed"), outcome, None);
    }

    /// A child inherits a file, and does nothing with it.
    pub(crate) fn inherit(&mut self, child: &'static str, file: &'static str) {
        self.told.tell(
            format!("{child} is forked, with {file} open"),
            String::new(),
            None,
        );
    }

    /// The holder of a file stops answering.
    pub(crate) fn fall_silent(&mut self, file: &'static str) {
        self.side.fall_silent(file);
        self.told
            .tell(format!("{file}'s holder hangs"), String::new(), None);
    }

    /// A process maps a file into its own memory.
    pub(crate) fn map_file(&mut self, process: &'static str, file: &'static str) {
        self.side.map_file(process, file);
        self.told.tell(
            format!("{process} maps {file} into itself"),
            String::new(),
            None,
        );
    }

    /// The device writes with the number that it was told of through a file.
    pub(crate) fn fire(&mut self, file: &'static str, meets: Meets) {
        let step = format!("device writes for {file}");
        let Some(&(number, process)) = self.files.get(file) else {
            self.told.tell(step, "it has no number".to_owned(), None);
            return;
        };
        let landed = self.side.fire(number).map(|pa| pa & !0xfff);
        let owner = landed.map(|page| self.owners.get(&page).copied().unwrap_or("nobody"));
        let (outcome, harm) = match (owner, meets) {
            (None, Meets::Nothing) => ("blocked".to_owned(), None),
            (None, Meets::PageOf(process)) => {
                (format!("BLOCKED; {process} lives"), Some(Harm::CutOff))
            }
            (Some(owner), Meets::PageOf(process)) if owner == process => {
                (format!("lands in {owner}'s page"), None)
            }
            (Some(owner), Meets::Nothing) if owner == process => {
                (format!("LANDS in {owner}'s page"), Some(Harm::StillReaches))
            }
            (Some(owner), _) => (
                format!("LANDS in {owner}'s page"),
                Some(Harm::ReachedAnothers),
            ),
        };
        self.told.tell(step, outcome, harm);
    }
}

/// Who gets the memory of processes that are gone.
pub(crate) const KERNEL: &str = "the kernel";

/// A story of owners under way.
pub(crate) struct GroupScene<'s> {
    side: &'s mut dyn Groups,
    told: Told,
}

impl GroupScene<'_> {
    /// The host's driver begins, before the SMMU is known.
    pub(crate) fn use_early(&mut self) {
        let outcome = self.side.use_early();
        self.told
            .tell("the host's driver uses DMA".to_owned(), outcome, None);
    }

    /// The SMMU is there.
    pub(crate) fn smmu_comes(&mut self) {
        let outcome = self.side.smmu_comes();
        self.told
            .tell("its SMMU is found".to_owned(), outcome, None);
    }

    /// A guest is to get the group, of which the host's driver has or has not let go.
    pub(crate) fn assign(&mut self) {
        let outcome = match self.side.assign() {
            Ok(()) => "it is the guest's".to_owned(),
            Err(why) => why,
        };
        self.told
            .tell("a guest asks for the group".to_owned(), outcome, None);
    }

    /// The host's driver leaves.
    pub(crate) fn unuse(&mut self) {
        let step = "the host's driver leaves".to_owned();
        match self.side.unuse() {
            Ok(outcome) => self.told.tell(step, outcome, None),
            Err(outcome) => self.told.tell(step, outcome, Some(Harm::CountWrong)),
        }
    }

    /// The device does what the host's driver told it.
    pub(crate) fn fire(&mut self) {
        let step = "device writes for the host".to_owned();
        let landed = self.side.fire().map(|pa| pa & !0xfff);
        if landed == Some(self.side.guest_page()) {
            let outcome = "LANDS in the guest's page".to_owned();
            self.told.tell(step, outcome, Some(Harm::ReachedAnothers));
        } else {
            let outcome = landed.map_or("blocked", |_| "lands in the host's page");
            self.told.tell(step, outcome.to_owned(), None);
        }
    }
}
