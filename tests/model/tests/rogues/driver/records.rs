//! Tags, ATS, records and errors.

use super::*;

impl Driver {
    /// Gives a tag out again, once nothing of its last owner is left.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn take_tag(&mut self, flush: [u64; 2], claim: Claim) -> Result<(), Trouble> {
        let steps = vec![Step::Command(flush), Step::Sync, Step::Claim(claim)];
        self.run(Operation::TakeTag, steps)
    }

    /// Lets a stream ask for translations, then its device.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn enable_ats(&mut self, stream: u32, eats: u64) -> Result<(), Trouble> {
        let at = self.ste_at(stream) + 8;
        let word1 = self.machine.load(at).expect("in memory");
        let mut steps = visible(at, word1 | eats);
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::ChangeAts, steps)?;
        self.set_control(stream, frame::control::ENABLE | frame::control::ATS);
        Ok(())
    }

    /// Stops a device from asking, empties its ATC, then refuses its stream.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn disable_ats(&mut self, stream: u32) -> Result<(), Trouble> {
        self.set_control(stream, frame::control::ENABLE);
        let at = self.ste_at(stream) + 8;
        let word1 = self.machine.load(at).expect("in memory");
        let mut steps = Vec::new();
        for binding in self.bindings.iter().filter(|of| of.stream == stream) {
            let inv = words::atc_inv_all(stream, Some(binding.substream));
            steps.push(Step::Command(inv));
        }
        steps.extend([Step::Command(words::atc_inv_all(stream, None)), Step::Sync]);
        steps.extend(visible(at, word1 & !(3 << 28)));
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::ChangeAts, steps)
    }

    pub(super) fn set_control(&self, stream: u32, control: u32) {
        let of_stream = |device: &&Arc<Device>| device.read32(frame::STREAM) == stream;
        for device in self.devices.iter().filter(of_stream) {
            device.write32(frame::CONTROL, control);
        }
    }

    /// Takes the oldest event record, if there is one.
    pub(crate) fn take_event(&mut self) -> Option<[u64; 4]> {
        let producer = self.read(offset::EVENTQ_PROD);
        if producer & ((2 << EVENTQ_LOG2) - 1) == self.events_read {
            return None;
        }
        let at = EVENTQ + u64::from(self.events_read & ((1 << EVENTQ_LOG2) - 1)) * 32;
        self.events_read = (self.events_read + 1) & ((2 << EVENTQ_LOG2) - 1);
        let consumer = producer & 1 << 31 | self.events_read;
        let steps = vec![
            Step::Observe,
            Step::ReadEvent(at),
            Step::Release,
            Step::Write(offset::EVENTQ_CONS, consumer),
        ];
        self.run(Operation::TakeEvent, steps)
            .expect("no step of this waits");
        Some(self.event)
    }

    /// Acknowledges the active errors.
    pub(crate) fn acknowledge(&mut self) {
        let steps = vec![Step::Write(offset::GERRORN, self.read(offset::GERROR))];
        self.run(Operation::Acknowledge, steps)
            .expect("no step of this waits");
    }
}
