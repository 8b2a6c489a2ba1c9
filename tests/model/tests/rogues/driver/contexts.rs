//! Context descriptors and their leaves; release.

use super::*;

impl Driver {
    /// A context table of 16 entries, or one with leaves.
    pub(crate) fn context_table(&mut self, has_leaves: bool) -> ContextTable {
        let at = self.frames(12);
        if has_leaves {
            ContextTable::TwoLevel(at)
        } else {
            ContextTable::Linear(at)
        }
    }

    /// Links a leaf of 64 invalid contexts into a table that `streams` use.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn add_leaf(
        &mut self,
        table: ContextTable,
        index: u32,
        streams: &[u32],
        guest: Option<&Guest>,
    ) -> Result<u64, Trouble> {
        let ContextTable::TwoLevel(at) = table else {
            panic!("a linear table has no leaves");
        };
        let leaf = self.frames(12);
        self.leaves.push((table, index, leaf));
        if let Some(guest) = guest {
            self.map_same(guest, leaf);
        }
        let mut steps = visible(at + u64::from(index) * 8, words::l1cd(leaf));
        for &stream in streams {
            steps.push(Step::Command(words::cfgi_cd_path(stream, index << 6)));
        }
        steps.push(Step::Sync);
        self.run(Operation::AddLeaf, steps)?;
        Ok(leaf)
    }

    /// Unlinks a leaf whose contexts are all invalid, and gives it back.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn remove_leaf(
        &mut self,
        table: ContextTable,
        index: u32,
        streams: &[u32],
    ) -> Result<(), Trouble> {
        let ContextTable::TwoLevel(at) = table else {
            panic!("a linear table has no leaves");
        };
        let mut steps = visible(at + u64::from(index) * 8, 0);
        for &stream in streams {
            steps.push(Step::Command(words::cfgi_cd_all(stream)));
        }
        steps.push(Step::Sync);
        let leaf = self.leaf(table, index);
        steps.extend(give_back(&[(leaf, 0x1000)]));
        self.run(Operation::RemoveLeaf, steps)?;
        self.leaves
            .retain(|(of, known, _)| (*of, *known) != (table, index));
        Ok(())
    }

    pub(super) fn leaf(&self, table: ContextTable, index: u32) -> u64 {
        let leaf = self
            .leaves
            .iter()
            .find(|(of, known, _)| (*of, *known) == (table, index));
        leaf.expect("a leaf").2
    }

    /// Where the context of a SubstreamID lies.
    pub(crate) fn cd_at(&self, table: ContextTable, substream: u32) -> u64 {
        match table {
            ContextTable::Linear(at) => at + u64::from(substream) * 64,
            ContextTable::TwoLevel(_) => {
                self.leaf(table, substream >> 6) + u64::from(substream & 63) * 64
            }
        }
    }

    /// Makes a context valid in the way of an entry (§3.21.3.1).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn bind(
        &mut self,
        stream: u32,
        table: ContextTable,
        substream: u32,
        space: &Space,
    ) -> Result<Binding, Trouble> {
        let at = self.cd_at(table, substream);
        let cd = bench::cd(space.asid, space.root);
        let steps = publish(at, &cd, cfgi_cd(stream, substream));
        let binding = Binding {
            stream,
            substream,
            asid: space.asid,
            at,
        };
        self.run(Operation::PublishCd, steps)?;
        self.bindings.push(binding);
        Ok(binding)
    }

    /// Makes a context invalid that two streams can reach.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unbind_shared(
        &mut self,
        binding: &Binding,
        other: u32,
        vmid: u16,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let mut steps = visible(binding.at, 0);
        steps.extend([
            Step::Command(cfgi_cd(binding.stream, binding.substream)),
            Step::Command(cfgi_cd(other, binding.substream)),
            Step::Sync,
            Step::Command(nh_all(vmid)),
            Step::Sync,
        ]);
        steps.extend(give_back(frees));
        self.run(Operation::RetractCd, steps)?;
        self.bindings.retain(|known| known != binding);
        Ok(())
    }

    /// Makes a context invalid; what the TLB holds of it stays for [`take_tag`](Self::take_tag).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn unbind_only(&mut self, binding: &Binding) -> Result<(), Trouble> {
        let mut steps = visible(binding.at, 0);
        let cfgi = cfgi_cd(binding.stream, binding.substream);
        steps.extend([Step::Command(cfgi), Step::Sync]);
        self.run(Operation::RetractCd, steps)?;
        self.bindings.retain(|known| known != binding);
        Ok(())
    }

    /// Replaces word 0 of a live context; what the TLB holds of the space is forgotten.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn change_cd(
        &mut self,
        binding: &Binding,
        vmid: u16,
        word0: u64,
    ) -> Result<(), Trouble> {
        let mut steps = visible(binding.at, word0);
        steps.extend([
            Step::Command(cfgi_cd(binding.stream, binding.substream)),
            Step::Sync,
            Step::Command(nh_all(vmid)),
            Step::Sync,
        ]);
        self.run(Operation::ChangeCd, steps)
    }

    /// Makes a context invalid and forgets what came through it. `has_atc`: the device's ATC too.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unbind(
        &mut self,
        binding: &Binding,
        vmid: u16,
        atc: Atc,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let (stream, substream) = (binding.stream, binding.substream);
        let mut steps = visible(binding.at, 0);
        steps.extend([
            Step::Command(cfgi_cd(stream, substream)),
            Step::Sync,
            Step::Command(nh_all(vmid)),
            Step::Sync,
        ]);
        if atc == Atc::Used {
            let inv = words::atc_inv_all(stream, Some(substream));
            steps.extend([Step::Command(inv), Step::Sync]);
        }
        steps.extend(give_back(frees));
        self.run(Operation::RetractCd, steps)?;
        self.bindings.retain(|known| known != binding);
        Ok(())
    }

    /// Releases a space: all its contexts become quiet, and one train of commands for all of them.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn release(
        &mut self,
        space: &Space,
        atc: Atc,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let of_space = |binding: &&Binding| binding.asid == space.asid;
        let bindings: Vec<Binding> = self.bindings.iter().filter(of_space).copied().collect();
        let (vmid, asid) = (space.vmid, space.asid);
        let mut steps = vec![Step::Claim(Claim::ReleaseBegins { vmid, asid })];
        for binding in &bindings {
            let word0 = self.machine.load(binding.at).expect("in memory");
            steps.push(Step::Store(binding.at, words::quiet(word0)));
            steps.push(Step::Clean(binding.at, 8));
        }
        steps.push(Step::Barrier);
        let cfgi = |binding: &Binding| Step::Command(cfgi_cd(binding.stream, binding.substream));
        steps.extend(bindings.iter().map(cfgi));
        steps.extend([Step::Sync, Step::Command(nh_all(vmid)), Step::Sync]);
        if atc == Atc::Used {
            let inv = |binding: &Binding| {
                Step::Command(words::atc_inv_all(binding.stream, Some(binding.substream)))
            };
            steps.extend(bindings.iter().map(inv));
            steps.push(Step::Sync);
        }
        steps.push(Step::Claim(Claim::ReleaseEnds { vmid, asid }));
        steps.extend(give_back(frees));
        self.run(Operation::Release, steps)
    }
}
