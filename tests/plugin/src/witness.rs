//! What reached memory while somebody watched a PASID of a device.

use std::collections::HashMap;
use std::fmt;

use smmu_model::Landing;
use smmu_model::device::{Mark, MarkKind};

/// More are counted, and not kept.
const MOST: usize = 1 << 16;

/// A StreamID of an SMMU.
type Stream = (usize, u32);

/// From when to when a PASID of a device was watched, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    of: Stream,
    story: u32,
    pasid: Option<u32>,
    tried: u64,
    landed: u64,
    begin_us: u64,
    end_us: Option<u64>,
}

impl fmt::Display for Witness {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (smmu, stream) = self.of;
        writeln!(to, "\n[[witness]]\nsmmu = {smmu}\nstream = {stream:#x}")?;
        writeln!(to, "story = {}", self.story)?;
        if let Some(pasid) = self.pasid {
            writeln!(to, "pasid = {pasid:#x}")?;
        }
        writeln!(to, "tried = {}\nlanded = {}", self.tried, self.landed)?;
        writeln!(to, "begin_us = {}", self.begin_us)?;
        match self.end_us {
            Some(end_us) => writeln!(to, "end_us = {end_us}"),
            None => Ok(()),
        }
    }
}

/// All of them. While one is open its counts are what had been counted when it began.
#[derive(Default)]
pub(crate) struct Witnesses {
    landed: HashMap<(Stream, Option<u32>), u64>,
    all: Vec<Witness>,
    lost: u64,
}

impl Witnesses {
    /// An access reached memory.
    pub(crate) fn landed(&mut self, landing: &Landing) {
        let who = ((landing.smmu, landing.stream), landing.substream);
        *self.landed.entry(who).or_default() += 1;
    }

    fn landed_by(&self, of: Stream, pasid: Option<u32>) -> u64 {
        self.landed.get(&(of, pasid)).copied().unwrap_or(0)
    }

    /// A device was told to begin or to end one.
    pub(crate) fn mark(&mut self, of: Stream, mark: &Mark, now_us: u64) {
        let &Mark {
            kind,
            story,
            pasid,
            tried,
        } = mark;
        let landed = self.landed_by(of, pasid);
        match kind {
            MarkKind::Begin if self.all.len() == MOST => self.lost += 1,
            MarkKind::Begin => self.all.push(Witness {
                of,
                story,
                pasid,
                tried,
                landed,
                begin_us: now_us,
                end_us: None,
            }),
            MarkKind::End => {
                let mut open = self.all.iter_mut().rev();
                let one = open.find(|it| it.of == of && it.pasid == pasid && it.end_us.is_none());
                if let Some(one) = one {
                    one.tried = tried - one.tried;
                    one.landed = landed - one.landed;
                    one.end_us = Some(now_us);
                }
            }
        }
    }

    /// How many are not kept.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// All, as they would be if they ended now; `tried` says how much a device has tried.
    pub(crate) fn all(&self, tried: impl Fn(Stream, Option<u32>) -> u64) -> Vec<Witness> {
        let mut all = self.all.clone();
        for one in all.iter_mut().filter(|one| one.end_us.is_none()) {
            one.tried = tried(one.of, one.pasid) - one.tried;
            one.landed = self.landed_by(one.of, one.pasid) - one.landed;
        }
        all
    }
}
