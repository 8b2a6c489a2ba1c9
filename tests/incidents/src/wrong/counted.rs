//! Uses of DMA that are counted in the group of a device, if it has one.

use smmu_model::Rule;

use crate::kit::{GroupKit, Tables};
use crate::side::Groups;

/// A driver's use of DMA goes into its group's count, and a guest gets a group whose count is 0. A
/// device that has no group yet is given what it asks for, and counted nowhere.
pub(super) struct CountedWithoutGroup {
    kit: GroupKit,
    has_group: bool,
    uses: i32,
}

impl CountedWithoutGroup {
    pub(super) fn new() -> Self {
        Self {
            kit: GroupKit::new(),
            has_group: false,
            uses: 0,
        }
    }
}

impl Groups for CountedWithoutGroup {
    fn use_early(&mut self) -> String {
        if self.has_group {
            self.uses += 1;
        }
        "success; there is no group".to_owned()
    }

    fn smmu_comes(&mut self) -> String {
        self.has_group = true;
        self.kit.lead_to(Tables::Host);
        format!("a group; uses: {}", self.uses)
    }

    fn unuse(&mut self) -> Result<String, String> {
        if self.has_group {
            self.uses -= 1;
        }
        let uses = self.uses;
        if uses < 0 {
            return Err(format!("WARNING; uses: {uses}"));
        }
        Ok(format!("uses: {uses}"))
    }

    fn assign(&mut self) -> Result<(), String> {
        if self.uses > 0 {
            return Err(format!("refused; uses: {}", self.uses));
        }
        self.kit.lead_to(Tables::Guest);
        Ok(())
    }

    fn fire(&mut self) -> Option<u64> {
        self.kit.fire()
    }

    fn guest_page(&self) -> u64 {
        self.kit.guest_page()
    }

    fn objections(&self) -> Vec<Rule> {
        self.kit.objections()
    }
}
