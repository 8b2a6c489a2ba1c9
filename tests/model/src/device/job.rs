//! Jobs: from a doorbell to transactions, straight or through the ATC.

use super::frame::{self, command, control, flags};
use super::state::{Job, Late, Shot};
use super::{Device, End, Misconduct};
use crate::ats::{AtcInvalidation, AtsAnswer, AtsGrant, InvalidationAnswer};
use crate::stall::Finished;
use crate::transaction::{Access, Kind, Outcome, Transaction};

/// How often an access asks anew because its translation was invalidated on the way.
const MOST_ASKS: usize = 16;

impl Device {
    /// A store to COMMAND.
    pub(super) fn command(&self, value: u32) {
        let is_resetting = self.state().reset_until_us.is_some();
        let is_taken = !is_resetting
            && match value {
                command::START => self.start(),
                command::STOP => {
                    self.state().job = None;
                    true
                }
                command::RESET => {
                    self.state().reset();
                    self.smmu.endpoint_reset(self.stream);
                    true
                }
                command::TRANSLATE => self.ask_only(),
                command::REQUEST_PAGE => self.request_page(),
                _ => false,
            };
        self.state().is_refused = !is_taken;
    }

    fn start(&self) -> bool {
        let Some(job) = self.job() else { return false };
        let repeats = job.left.is_none();
        self.state().job = Some(job);
        if !repeats {
            self.fire(u32::MAX);
        }
        true
    }

    /// The job that the registers describe, if it is possible.
    fn job(&self) -> Option<Job> {
        let state = self.state();
        let registers = &state.job_registers;
        let fits = (1..=frame::MOST_BYTES).contains(&registers.length);
        let repeats = registers.flags & flags::REPEAT != 0;
        let job = Job {
            next: registers.iova,
            left: (!repeats).then_some(registers.shots.max(1)),
            pasid: state.pasid().ok()?,
            length: u64::from(registers.length),
            flags: registers.flags,
            stride: registers.stride,
        };
        (fits && state.is_on(control::ENABLE)).then_some(job)
    }

    /// Fires what a repeating job fires at one tick.
    pub(super) fn fire_repeating(&self) {
        let rate = {
            let state = self.state();
            let repeats = state.job.is_some_and(|job| job.left.is_none());
            if repeats {
                state.job_registers.rate.max(1)
            } else {
                0
            }
        };
        self.fire(rate);
    }

    /// Fires at most `most` shots of the running job.
    fn fire(&self, most: u32) {
        for _ in 0..most {
            let Some(job) = self.next_shot() else { return };
            for shot in pieces(&job) {
                self.access(&shot);
            }
        }
    }

    /// Takes one shot off the running job. A device that lost its enable issues nothing more.
    fn next_shot(&self) -> Option<Job> {
        let mut state = self.state();
        if !state.is_on(control::ENABLE) {
            state.job = None;
        }
        let job = state.job?;
        let left = job.left.map(|left| left - 1);
        state.job = (left != Some(0)).then_some(Job {
            next: job.next.wrapping_add(job.stride),
            left,
            ..job
        });
        Some(job)
    }

    /// One access, to its end or its stall.
    fn access(&self, shot: &Shot) {
        let (data, has_ats) = {
            let mut state = self.state();
            state.try_one(shot.pasid);
            if state.is_port_closed {
                return state.end(shot, End::Aborted);
            }
            (state.outgoing(shot), state.is_on(control::ATS))
        };
        let access = if shot.is_write() {
            Access::Write(data)
        } else {
            Access::Read(shot.bytes)
        };
        let plain = self.transaction(shot, access);
        if !has_ats {
            let outcome = self.smmu.transact(plain);
            return self.take_outcome(shot, outcome, false);
        }
        for _ in 0..MOST_ASKS {
            if let Err(end) = self.translate(shot) {
                return self.state().end(shot, end);
            }
            // It is used while the SMMU does nothing else: an answer to an invalidation tells it that
            // everything translated before is through (§3.9.1), whatever thread delivers it.
            let outcome = self.smmu.transact_now(|| {
                Some(Transaction {
                    address: self.held(shot)?,
                    kind: Kind::Translated,
                    ..plain.clone()
                })
            });
            if let Some(outcome) = outcome {
                return self.take_outcome(shot, outcome, true);
            }
        }
        self.state().end(shot, End::NotGranted);
    }

    fn transaction(&self, shot: &Shot, access: Access) -> Transaction {
        let kind = if shot.flags & flags::SPECULATIVE != 0 {
            Kind::Speculative
        } else {
            Kind::Ordinary
        };
        Transaction {
            stream: self.stream,
            substream: shot.pasid,
            address: shot.iova,
            access,
            is_privileged: shot.flags & flags::PRIVILEGED != 0,
            is_instruction: shot.is_instruction(),
            kind,
        }
    }

    /// Where `shot` goes by what the ATC holds.
    fn held(&self, shot: &Shot) -> Option<u64> {
        let state = self.state();
        state.atc.translate(
            shot.pasid,
            shot.iova,
            shot.is_write(),
            shot.is_instruction(),
        )
    }

    /// Has the ATC hold where `shot` goes, by asking if it does not.
    fn translate(&self, shot: &Shot) -> Result<(), End> {
        if self.held(shot).is_some() {
            let mut state = self.state();
            state.counters.atc_hits = state.counters.atc_hits.wrapping_add(1);
            return Ok(());
        }
        self.ask(shot)?;
        match self.held(shot) {
            Some(_) => Ok(()),
            None => Err(End::NotGranted),
        }
    }

    /// Asks for the translation of `shot` and keeps what is granted.
    fn ask(&self, shot: &Shot) -> Result<AtsGrant, End> {
        if self.state().is_port_closed {
            return Err(End::UnsupportedRequest);
        }
        let access = if shot.is_write() {
            Access::Write(vec![0; 8])
        } else {
            Access::Read(8)
        };
        let request = Transaction {
            address: shot.iova & !0xfff,
            kind: Kind::AtsRequest,
            ..self.transaction(shot, access)
        };
        // Kept before the SMMU goes on: no invalidation comes between a grant and its place.
        self.smmu.transact_then(request, |outcome| match outcome {
            Outcome::Ats(AtsAnswer::Success(grant)) if grant.can_read || grant.can_write => {
                self.state().atc.keep(shot.pasid, shot.iova, grant);
                Ok(grant)
            }
            Outcome::Ats(AtsAnswer::UnsupportedRequest) => Err(End::UnsupportedRequest),
            Outcome::Ats(AtsAnswer::CompleterAbort) => Err(End::CompleterAbort),
            _ => Err(End::NotGranted),
        })
    }

    /// TRANSLATE.
    fn ask_only(&self) -> bool {
        let shot = {
            let state = self.state();
            let Ok(pasid) = state.pasid() else {
                return false;
            };
            if !state.is_on(control::ATS) || !state.is_on(control::ENABLE) {
                return false;
            }
            Shot {
                iova: state.job_registers.iova,
                bytes: 8,
                offset: 0,
                pasid,
                flags: state.job_registers.flags,
            }
        };
        if let Err(end) = self.ask(&shot) {
            self.state().end(&shot, end);
        }
        true
    }

    /// REQUEST_PAGE.
    fn request_page(&self) -> bool {
        let request = {
            let state = self.state();
            let Ok(pasid) = state.pasid() else {
                return false;
            };
            let may_send = state.is_on(control::PRI) && state.is_on(control::ENABLE);
            if !may_send || state.is_port_closed {
                return false;
            }
            state.page_request(pasid)
        };
        self.smmu.page_request(request);
        true
    }

    fn take_outcome(&self, shot: &Shot, outcome: Outcome, is_translated: bool) {
        let mut state = self.state();
        match outcome {
            Outcome::Done { pa, data, .. } => state.land(shot, pa, &data, is_translated),
            Outcome::RazWi => state.end(shot, End::Ignored),
            Outcome::Stalled { ticket, .. } => {
                state.pending.push((ticket, Some(*shot)));
                state.end(shot, End::Stalled);
            }
            Outcome::Aborted | Outcome::Ats(_) => state.end(shot, End::Aborted),
        }
    }

    /// What became of an access that had stalled, if it is one of this device's.
    pub(super) fn take_finished(&self, finished: &Finished) {
        let shot = {
            let mut state = self.state();
            let found = state
                .pending
                .iter()
                .position(|(ticket, _)| *ticket == finished.ticket);
            match found {
                Some(at) => state.pending.swap_remove(at).1,
                None => return,
            }
        };
        // An access from before a reset has nobody left to hear of it.
        if let Some(shot) = shot {
            self.take_outcome(&shot, finished.outcome.clone(), false);
        }
    }

    /// An invalidation, answered as the ATC behaves.
    pub(super) fn invalidate(&self, invalidation: &AtcInvalidation) -> InvalidationAnswer {
        let misconduct = {
            let mut state = self.state();
            state.counters.invalidations = state.counters.invalidations.wrapping_add(1);
            if state.misconduct == Misconduct::Late {
                let due_us = state.now_us.saturating_add(u64::from(state.lateness_us));
                state.late.push(Late {
                    due_us,
                    invalidation: *invalidation,
                });
            }
            state.misconduct
        };
        match misconduct {
            Misconduct::Silent | Misconduct::Late => InvalidationAnswer::Later,
            Misconduct::Unsupported => InvalidationAnswer::UnsupportedRequest,
            Misconduct::Lies => InvalidationAnswer::Done,
            Misconduct::None => {
                self.forget(invalidation);
                InvalidationAnswer::Done
            }
        }
    }

    /// Forgets what is covered; an eager device asks for it again.
    pub(super) fn forget(&self, invalidation: &AtcInvalidation) {
        let (gone, is_eager) = {
            let mut state = self.state();
            let is_eager = state.is_on(control::EAGER) && state.is_on(control::ATS);
            (state.atc.invalidate(invalidation), is_eager)
        };
        for translation in gone.iter().filter(|_| is_eager) {
            let flags = if translation.grant.can_write {
                flags::WRITE
            } else {
                0
            };
            let shot = Shot {
                iova: translation.start,
                bytes: 8,
                offset: 0,
                pasid: translation.pasid,
                flags,
            };
            // A refusal is what an eager device risks; nothing was to be accessed.
            let _refusal = self.ask(&shot);
        }
    }
}

/// The accesses of one shot: one for every 4 KiB page that it touches.
fn pieces(job: &Job) -> impl Iterator<Item = Shot> {
    let job = *job;
    let mut offset = 0;
    std::iter::from_fn(move || {
        if offset == job.length {
            return None;
        }
        let iova = job.next.wrapping_add(offset);
        let bytes = (0x1000 - (iova & 0xfff)).min(job.length - offset);
        let shot = Shot {
            iova,
            bytes: bytes as usize,
            offset,
            pasid: job.pasid,
            flags: job.flags,
        };
        offset += bytes;
        Some(shot)
    })
}
