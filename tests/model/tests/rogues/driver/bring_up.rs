//! Switching the SMMU on and off.

use super::*;

impl Driver {
    /// Registers, queues, empty tables, invalidation of everything, SMMUEN (§3.11).
    ///
    /// # Errors
    ///
    /// [`Trouble`] if the hardware does not follow.
    pub(crate) fn bring_up(&mut self) -> Result<(), Trouble> {
        let cr0 = |value| {
            [
                Step::Write(offset::CR0, value),
                Step::AwaitRegister(offset::CR0ACK, u32::MAX, value),
            ]
        };
        let atschk = u32::from(self.setup.checks_ats) << 4;
        let idr0 = self.read(offset::IDR0);
        let (has_hyp, has_pri) = (idr0 >> 9 & 1 != 0, idr0 >> 16 & 1 != 0);
        let priqen = u32::from(has_pri) << 1;
        let (log2_size, format) = if self.setup.has_stream_arrays {
            (8, 1 << 16 | 6 << 6)
        } else {
            (6, 0)
        };
        (self.producer, self.events_read) = (0, 0);
        let mut steps = vec![
            Step::AwaitRegister(offset::GBPA, 1 << 31, 0),
            Step::Write(offset::GBPA, 1 << 31 | 1 << 20 | 1 << 12),
            Step::AwaitRegister(offset::GBPA, 1 << 31, 0),
        ];
        steps.extend(cr0(0));
        steps.extend([
            Step::Write(offset::CR1, 0xd75),
            Step::Write(offset::CR2, 0x2),
            Step::Write64(offset::STRTAB_BASE, STREAMS),
            Step::Write(offset::STRTAB_BASE_CFG, format | log2_size),
            Step::Write64(offset::CMDQ_BASE, CMDQ | u64::from(self.setup.cmdq_log2)),
            Step::Write(offset::CMDQ_PROD, 0),
            Step::Write(offset::CMDQ_CONS, 0),
            Step::Write64(offset::EVENTQ_BASE, EVENTQ | u64::from(EVENTQ_LOG2)),
            Step::Write(offset::EVENTQ_PROD, 0),
            Step::Write(offset::EVENTQ_CONS, 0),
        ]);
        if has_pri {
            steps.extend([
                Step::Write64(offset::PRIQ_BASE, PRIQ | u64::from(PRIQ_LOG2)),
                Step::Write(offset::PRIQ_PROD, 0),
                Step::Write(offset::PRIQ_CONS, 0),
            ]);
        }
        steps.extend(cr0(0x8));
        steps.extend([Step::Command(bench::CFGI_ALL), Step::Sync]);
        if has_hyp {
            steps.push(Step::Command(words::EL2_ALL));
        }
        steps.extend([Step::Command(bench::NSNH_ALL), Step::Sync]);
        steps.extend(cr0(0xc));
        steps.extend(cr0(0xc | priqen | atschk));
        steps.extend([
            Step::Write(offset::IRQ_CTRL, 0x5),
            Step::AwaitRegister(offset::IRQ_CTRLACK, u32::MAX, 0x5),
        ]);
        steps.extend(cr0(0xd | priqen | atschk));
        self.run(Operation::BringUp, steps)
    }

    /// Switches the SMMU off; GBPA aborts since bring-up.
    ///
    /// # Errors
    ///
    /// [`Trouble`] if CR0ACK does not follow.
    pub(crate) fn shut_down(&mut self, streams_with_ats: &[u32]) -> Result<(), Trouble> {
        for &stream in streams_with_ats {
            self.disable_ats(stream)?;
        }
        let steps = vec![
            Step::Write(offset::CR0, 0x8),
            Step::AwaitRegister(offset::CR0ACK, u32::MAX, 0x8),
            Step::Command(bench::CFGI_ALL),
            Step::Sync,
            Step::Command(bench::NSNH_ALL),
            Step::Sync,
            Step::Write(offset::CR0, 0),
            Step::AwaitRegister(offset::CR0ACK, u32::MAX, 0),
        ];
        self.run(Operation::ShutDown, steps)
    }
}
