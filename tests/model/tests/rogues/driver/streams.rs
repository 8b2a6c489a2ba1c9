//! Stream table entries and their arrays.

use super::*;

impl Driver {
    /// Where the entry of a stream lies.
    pub(crate) fn ste_at(&self, stream: u32) -> u64 {
        if self.setup.has_stream_arrays {
            let array = self.arrays.iter().find(|(index, _)| *index == stream >> 6);
            array.expect("an array").1 + u64::from(stream & 63) * 64
        } else {
            STREAMS + u64::from(stream) * 64
        }
    }

    /// Makes the entry of a stream valid: body, CFGI, SYNC, word 0, CFGI, SYNC (§3.21.3.1).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn publish_ste(&mut self, stream: u32, ste: &[u64; 8]) -> Result<(), Trouble> {
        let at = self.ste_at(stream);
        let steps = publish(at, ste, cfgi_ste(stream));
        self.run(Operation::PublishSte, steps)
    }

    /// Replaces one word of a live entry.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn change_ste(&mut self, stream: u32, word: u64, value: u64) -> Result<(), Trouble> {
        let at = self.ste_at(stream) + 8 * word;
        let mut steps = visible(at, value);
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::ChangeSte, steps)
    }

    /// Makes the entry of a stream invalid, forgets all that came through it, and gives back
    /// what it led to.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn retract_ste(
        &mut self,
        stream: u32,
        vmid: u16,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let mut steps = visible(self.ste_at(stream), 0);
        steps.extend([
            Step::Command(cfgi_ste(stream)),
            Step::Sync,
            Step::Command(s12_vmall(vmid)),
            Step::Sync,
        ]);
        steps.extend(give_back(frees));
        self.run(Operation::RetractSte, steps)
    }

    /// Makes the entry of a stream invalid; what the TLB holds of it stays for
    /// [`take_tag`](Self::take_tag).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn retract_ste_only(&mut self, stream: u32) -> Result<(), Trouble> {
        let mut steps = visible(self.ste_at(stream), 0);
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::RetractSte, steps)
    }

    /// Makes the entry of a stream invalid, with one barrier for the entry and the commands.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn retract_ste_by_one_barrier(&mut self, stream: u32) -> Result<(), Trouble> {
        let at = self.ste_at(stream);
        let mask = self.entries() - 1;
        let slot = |position: u32| CMDQ + u64::from(position & mask) * 16;
        let first = self.producer;
        let steps = vec![
            Step::AwaitRoom(2),
            Step::Enter(slot(first), cfgi_ste(stream)),
            Step::Clean(slot(first), 16),
            Step::Enter(slot(first + 1), bench::SYNC),
            Step::Clean(slot(first + 1), 16),
            Step::Store(at, 0),
            Step::Clean(at, 8),
            Step::Barrier,
            Step::Announce((first + 2) & (2 * self.entries() - 1)),
            Step::AwaitConsumed,
        ];
        self.run(Operation::RetractSte, steps)
    }

    /// Makes the entry of a stream invalid by 16 commands, of which the first is a SYNC that
    /// takes 40 microseconds; `end` waits for them or only submits them.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn retract_in_a_long_train(
        &mut self,
        stream: u32,
        vmid: u16,
        end: Step,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let late = |driver: &mut Self| {
            driver.machine.smmu(0).set_faults(Faults {
                sync_late_us: 40,
                ..Faults::default()
            });
        };
        let mut steps = vec![Step::Do(late)];
        steps.extend(visible(self.ste_at(stream), 0));
        steps.extend([Step::Command(bench::SYNC), Step::Submit]);
        steps.extend([
            Step::Command(cfgi_ste(stream)),
            Step::Command(bench::SYNC),
            Step::Command(s12_vmall(vmid)),
        ]);
        // Entries that do not matter, to make the train 16 commands long.
        steps.extend((0..11).map(|other| Step::Command(cfgi_ste(40 + other))));
        if matches!(end, Step::Submit) {
            steps.push(Step::Command(bench::SYNC));
        }
        steps.push(end);
        steps.extend(give_back(frees));
        self.run(Operation::RetractSte, steps)
    }

    /// Makes a stream abort silently, then ends everything of it that is stalled (§4.6.2).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn end_stalls(&mut self, stream: u32) -> Result<(), Trouble> {
        // V = 1, Config = abort.
        let mut steps = visible(self.ste_at(stream), 1);
        steps.extend([
            Step::Command(cfgi_ste(stream)),
            Step::Sync,
            Step::Command(words::stall_term(stream)),
            Step::Sync,
        ]);
        self.run(Operation::EndStalls, steps)
    }

    /// Ends a stalled access with an abort.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn answer_stall(&mut self, stream: u32, stag: u16) -> Result<(), Trouble> {
        let resume = words::resume_abort(stream, stag);
        let steps = vec![Step::Command(resume), Step::Sync];
        self.run(Operation::EndStalls, steps)
    }

    /// Leaves the SMMU as a crash does: off, its caches as they are, a stream's entry gone.
    ///
    /// # Errors
    ///
    /// [`Trouble`] if CR0ACK does not follow.
    pub(crate) fn stop_abruptly(&mut self, stream: u32) -> Result<(), Trouble> {
        let mut steps = vec![
            Step::Write(offset::CR0, 0),
            Step::AwaitRegister(offset::CR0ACK, u32::MAX, 0),
            Step::Write(offset::IRQ_CTRL, 0),
            Step::AwaitRegister(offset::IRQ_CTRLACK, u32::MAX, 0),
        ];
        steps.extend(visible(self.ste_at(stream), 0));
        self.run(Operation::ShutDown, steps)
    }

    /// Gives frames back that nothing leads to.
    pub(crate) fn free(&mut self, frees: Frames<'_>) {
        let steps = give_back(frees).collect();
        self.run(Operation::Free, steps)
            .expect("no step of this waits");
    }

    /// Links an array of 64 invalid entries into the level-1 table.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn add_array(&mut self, index: u32) -> Result<u64, Trouble> {
        let array = self.frames(12);
        self.arrays.push((index, array));
        let mut steps = visible(STREAMS + u64::from(index) * 8, words::l1std(array));
        steps.extend([Step::Command(words::cfgi_ste_path(index << 6)), Step::Sync]);
        self.run(Operation::AddArray, steps)?;
        Ok(array)
    }

    /// Unlinks an array whose entries are all invalid, and gives it back.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn remove_array(&mut self, index: u32) -> Result<(), Trouble> {
        let mut steps = visible(STREAMS + u64::from(index) * 8, 0);
        // CFGI_STE_RANGE of 64 streams: Range = 5.
        let range = [0x04 | u64::from(index << 6) << 32, 5];
        steps.extend([Step::Command(range), Step::Sync]);
        let array = self.arrays.iter().find(|(known, _)| *known == index);
        let array = array.expect("an array").1;
        steps.extend(give_back(&[(array, 0x1000)]));
        self.run(Operation::RemoveArray, steps)?;
        self.arrays.retain(|(known, _)| *known != index);
        Ok(())
    }
}
