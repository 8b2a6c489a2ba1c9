//! The policies, each a driver of its own over what they all do right ([`Kit`]).

mod called_back;
mod counted;
mod exit;
mod keeps;
mod lowest;
mod second;

use std::collections::BTreeSet;

use smmu_model::Rule;

use crate::kit::Kit;
use crate::side::{Exit, Groups, Spaces};

/// When numbers are given out and taken back, and CDs with them.
trait Policy {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String>;
    fn exit(&mut self, kit: &mut Kit, process: &str) -> Exit;
    fn close(&mut self, kit: &mut Kit, file: &str) -> Result<(), String>;
    /// The file's holder does not answer any more.
    fn fall_silent(&mut self, _file: &'static str) {}
    /// The file is kept by a mapping in the process' memory.
    fn map_file(&mut self, _process: &'static str, _file: &'static str) {}
}

struct Wrong<P> {
    kit: Kit,
    policy: P,
}

fn wrong(policy: impl Policy + 'static) -> Box<dyn Spaces> {
    let kit = Kit::new();
    Box::new(Wrong { kit, policy })
}

impl<P: Policy> Spaces for Wrong<P> {
    fn start(&mut self, process: &'static str) {
        self.kit.start(process);
    }

    fn page(&self, process: &str) -> u64 {
        self.kit.page(process)
    }

    fn bind(&mut self, process: &str, holder: &'static str) -> Result<u32, String> {
        self.policy.bind(&mut self.kit, process, holder)
    }

    fn exit(&mut self, process: &str) -> Exit {
        self.policy.exit(&mut self.kit, process)
    }

    fn close(&mut self, holder: &str) -> Result<(), String> {
        self.policy.close(&mut self.kit, holder)
    }

    fn fall_silent(&mut self, holder: &'static str) {
        self.policy.fall_silent(holder);
    }

    fn map_file(&mut self, process: &'static str, holder: &'static str) {
        self.policy.map_file(process, holder);
    }

    fn fire(&mut self, number: u32) -> Option<u64> {
        self.kit.fire(number)
    }

    fn objections(&self) -> Vec<Rule> {
        self.kit.objections()
    }
}

/// Numbers in use; the lowest that is free goes out first.
#[derive(Default)]
struct Numbers(BTreeSet<u32>);

impl Numbers {
    fn take(&mut self) -> u32 {
        let free = (1..).find(|number| !self.0.contains(number));
        let number = free.expect("few are taken");
        self.0.insert(number);
        number
    }

    fn free(&mut self, number: u32) {
        self.0.remove(&number);
    }
}

pub(crate) fn freed_at_exit() -> Box<dyn Spaces> {
    wrong(exit::FreedAtExit::default())
}

pub(crate) fn closed_by_number() -> Box<dyn Spaces> {
    wrong(exit::ClosedByNumber::default())
}

pub(crate) fn handle_keeps_space() -> Box<dyn Spaces> {
    wrong(keeps::HandleKeepsSpace::default())
}

pub(crate) fn second_bind_busy() -> Box<dyn Spaces> {
    wrong(second::OneBind::new(second::Busy::Told))
}

pub(crate) fn busy_swallowed() -> Box<dyn Spaces> {
    wrong(second::OneBind::new(second::Busy::Swallowed))
}

pub(crate) fn holders_called_back() -> Box<dyn Spaces> {
    wrong(called_back::HoldersCalledBack::default())
}

pub(crate) fn lowest_free() -> Box<dyn Spaces> {
    wrong(lowest::LowestFree::default())
}

pub(crate) fn counted_without_group() -> Box<dyn Groups> {
    Box::new(counted::CountedWithoutGroup::new())
}
