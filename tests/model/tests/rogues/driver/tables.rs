//! Translation tables of both stages.

use super::*;

impl Driver {
    /// A stage 2 without pages.
    pub(crate) fn guest(&mut self, vmid: u16) -> Guest {
        let (root, level2, level3) = self.tables(BASE >> 30);
        Guest {
            vmid,
            root,
            level2,
            level3,
        }
    }

    /// A stage 1 without pages. With a guest its tables are mapped in that one's stage 2; without
    /// one they are for streams of stage 1 alone.
    pub(crate) fn space(&mut self, vmid: u16, asid: u16, guest: Option<&Guest>) -> Space {
        let (root, level2, level3) = self.tables(0);
        if let Some(guest) = guest {
            for frame in [root, level2, level3] {
                self.map_same(guest, frame);
            }
        }
        Space {
            vmid,
            asid,
            root,
            level2,
            level3,
        }
    }

    /// Three levels of tables whose level-3 table stands at `slot` of the root.
    pub(super) fn tables(&mut self, slot: u64) -> (u64, u64, u64) {
        let [root, level2, level3] = [(); 3].map(|()| self.frames(12));
        let mut steps = visible(level2, table(level3));
        steps.extend(visible(root + 8 * slot, table(level2)));
        self.run(Operation::Map, steps)
            .expect("no step of a mapping waits");
        (root, level2, level3)
    }

    /// Maps a frame at its own address in stage 2.
    pub(crate) fn map_same(&mut self, guest: &Guest, frame: u64) {
        self.map_stage2(guest, frame, frame);
    }

    /// Maps a page in stage 2.
    pub(crate) fn map_stage2(&mut self, guest: &Guest, ipa: u64, pa: u64) {
        let steps = visible(stage2_slot(guest, ipa), s2_page(pa));
        self.run(Operation::Map, steps)
            .expect("no step of a mapping waits");
    }

    /// Maps a page in stage 1.
    pub(crate) fn map(&mut self, space: &Space, va: u64, descriptor: u64) {
        let steps = visible(stage1_slot(space, va), descriptor);
        self.run(Operation::Map, steps)
            .expect("no step of a mapping waits");
    }

    /// Unmaps pages from the stage 1 of a space that lives on.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unmap(
        &mut self,
        space: &Space,
        va: u64,
        pages: u64,
        atc: Atc,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let all = (0..pages).map(|page| va + 0x1000 * page);
        let mut steps = Vec::new();
        for va in all.clone() {
            steps.extend(visible(stage1_slot(space, va), 0));
        }
        let tlbi = |va| Step::Command(words::nh_va_leaf(space.vmid, space.asid, va));
        steps.extend(all.map(tlbi));
        steps.push(Step::Sync);
        if atc == Atc::Used {
            let last = va + 0x1000 * (pages - 1);
            for binding in self.bindings.iter().filter(|of| of.asid == space.asid) {
                let inv = words::atc_inv(binding.stream, Some(binding.substream), va, last);
                steps.push(Step::Command(inv));
            }
            steps.push(Step::Sync);
        }
        steps.extend(give_back(frees));
        self.run(Operation::Unmap, steps)
    }

    /// Unlinks the level-3 table of a space and gives it back.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn free_table(&mut self, space: &Space) -> Result<(), Trouble> {
        let mut steps = visible(space.level2, 0);
        let tlbi = |page: u64| Step::Command(words::nh_va(space.vmid, space.asid, page << 12));
        steps.extend((0..8).map(tlbi));
        steps.push(Step::Sync);
        steps.extend(give_back(&[(space.level3, 0x1000)]));
        self.run(Operation::FreeTable, steps)
    }

    /// Unmaps pages from stage 2 and gives them back. Where streams are nested, what was
    /// combined with stage 1 is forgotten too.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unmap_stage2(
        &mut self,
        guest: &Guest,
        ipa: u64,
        pages: u64,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let all = (0..pages).map(|page| ipa + 0x1000 * page);
        let mut steps = Vec::new();
        for ipa in all.clone() {
            steps.extend(visible(stage2_slot(guest, ipa), 0));
        }
        let has_ranges = self.read(offset::IDR3) >> 10 & 1 != 0;
        if has_ranges {
            steps.push(Step::Command(words::s2_ipa_range(guest.vmid, ipa, pages)));
        } else {
            steps.extend(all.map(|ipa| Step::Command(bench::s2_ipa(guest.vmid, ipa))));
        }
        steps.extend([Step::Sync, Step::Command(nh_all(guest.vmid)), Step::Sync]);
        steps.extend(give_back(frees));
        self.run(Operation::Stage2Unmap, steps)
    }

    /// Exchanges the page at `va` for another: break, forget, make (§3.21.1).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn exchange(
        &mut self,
        space: &Space,
        va: u64,
        descriptor: u64,
    ) -> Result<(), Trouble> {
        let slot = stage1_slot(space, va);
        let mut steps = visible(slot, 0);
        steps.extend([
            Step::Command(words::nh_va_leaf(space.vmid, space.asid, va)),
            Step::Sync,
        ]);
        steps.extend(visible(slot, descriptor));
        self.run(Operation::Exchange, steps)
    }
}
