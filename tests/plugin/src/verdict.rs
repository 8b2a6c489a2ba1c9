//! What is told of a run: a TOML file.
//!
//! | key | meaning |
//! |---|---|
//! | `version` | 1 |
//! | `mode`, `seed` | how hostile the SMMUs were; `seed` in the chaotic mode alone |
//! | `time_us` | model time of the last store to a frame or to watched memory, microseconds |
//! | `changes` | words of watched memory that CPUs changed |
//! | `unreported` | such words of which no store was reported; `first_unreported`: where the first is |
//! | `landings_lost` | landings that are not in the list; 0 unless one job has more than 65536 accesses |
//! | `[[smmu]]` | `frame`, `register_stores`, `syncs`: completed CMD_SYNCs |
//! | `[[device]]` | `frame`, `smmu`: which, `stream`, `register_stores` |
//! | `[[tolerated]]` | a rule that was to be tolerated: `rule`, `text`, and how many `times` it was broken |
//! | `[[breach]]` | a rule that was broken, and ended the run: `rule`, its name; `told`, its story |
//! | `witnesses_lost` | witnesses that are not in the list: more than 65536 |
//! | `[[witness]]` | what a device was watched for (its WITNESS register), in the order of their beginnings: `smmu`, `stream`, `story`, `pasid` if any, `tried`: accesses it tried meanwhile, `landed`: those of any device of that stream and PASID that reached memory, `begin_us`, `end_us` unless it was never ended |
//! | `[[landing]]` | accesses that reached memory: `smmu`, `stream`, `pasid` if any, `page`, `write`, `accesses`, `bytes`, `first_us`, `last_us` |
//!
//! Two runs with the same image, arguments and seed under `-icount` give the same file.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use smmu_model::{Landing, Mode, StoryLine, Violation};

use crate::options::Tolerance;
use crate::witness::Witness;
use crate::world::Store;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Words of watched memory that CPUs changed.
    pub changes: u64,
    /// Such words of which no store was reported.
    pub unreported: u64,
    /// Where the first of them is.
    pub first_unreported: Option<u64>,
    /// Violations that are told already.
    pub(crate) told: usize,
}

/// A rule that may be broken, and how often it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated {
    pub(crate) rule: Tolerance,
    pub(crate) times: u64,
}

impl Tolerated {
    pub(crate) const fn new(rule: Tolerance) -> Self {
        Self { rule, times: 0 }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Its name.
    pub rule: String,
    /// The whole story.
    pub told: String,
}

impl Breach {
    /// `violation`, set off by `cause` or by time; `writer` knows which instruction stored last at
    /// an address.
    pub(crate) fn of_rule(
        violation: &Violation,
        cause: Option<Store>,
        writer: impl Fn(u64) -> Option<u64>,
    ) -> Self {
        let mut told = violation.to_string();
        let mut addresses: Vec<u64> = violation
            .story
            .0
            .iter()
            .filter_map(|line| match line {
                StoryLine::Stored { pa, .. } => Some(*pa),
                StoryLine::Cached { origin, .. } => Some(origin.pa),
                StoryLine::Happened { .. } => None,
            })
            .collect();
        addresses.dedup();
        for pa in addresses {
            if let Some(pc) = writer(pa) {
                told += &format!("  {pa:#x} was last stored to by the instruction at {pc:#x}\n");
            }
        }
        if let Some(Store { pa, pc, .. }) = cause {
            told += &format!("  noticed at the store to {pa:#x} by the instruction at {pc:#x}\n");
        }
        Self {
            rule: format!("{:?}", violation.rule),
            told,
        }
    }

    /// `landing` reached what it must not: `what` says which place of the rule's name.
    pub(crate) fn of_landing(rule: &str, what: &str, landing: &Landing, now_us: u64) -> Self {
        let Landing {
            smmu,
            stream,
            pa,
            bytes,
            address,
            step,
            ..
        } = landing;
        let verb = if landing.is_write { "wrote" } else { "read" };
        let pasid = match landing.substream {
            Some(pasid) => format!(", PASID {pasid:#x},"),
            None => String::new(),
        };
        let mut told = format!(
            "{rule} at {now_us} us: stream {stream:#x} of SMMU {smmu}{pasid} {verb} {bytes} bytes at \
             {pa:#x}\n{what}\n"
        );
        let items = [
            ("stream table entry", landing.ste),
            ("context descriptor", landing.cd),
            ("translation", landing.translation),
        ];
        for (name, origin) in items {
            if let Some(it) = origin {
                told += &format!(
                    "  step {}: the SMMU read {:#018x} at {:#x} and kept it as {name}\n",
                    it.step, it.value, it.pa
                );
            }
        }
        told += &format!("  step {step}: the device put out address {address:#x}\n");
        Self {
            rule: rule.into(),
            told,
        }
    }
}

/// Whose accesses, where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Goal {
    smmu: usize,
    stream: u32,
    pasid: Option<u32>,
    page: u64,
    is_write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    accesses: u64,
    bytes: u64,
    first_us: u64,
    last_us: u64,
}

/// What reached memory, by who, how, and which page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landings(BTreeMap<Goal, Sum>);

impl Landings {
    pub(crate) fn add(&mut self, landing: &Landing, now_us: u64) {
        // No access goes past the end of its page.
        let goal = Goal {
            smmu: landing.smmu,
            stream: landing.stream,
            pasid: landing.substream,
            page: landing.pa & !0xfff,
            is_write: landing.is_write,
        };
        let sum = self.0.entry(goal).or_insert(Sum {
            accesses: 0,
            bytes: 0,
            first_us: now_us,
            last_us: now_us,
        });
        sum.accesses += 1;
        sum.bytes += landing.bytes as u64;
        sum.last_us = now_us;
    }
}

/// All of it; [`Display`](fmt::Display) gives the file.
#[derive(Clone, Debug)]
pub struct Verdict<'w> {
    pub(crate) mode: Mode,
    pub(crate) time_us: u64,
    pub(crate) counts: &'w Counts,
    pub(crate) landings_lost: u64,
    /// Frame, register stores, SYNCs.
    pub(crate) smmus: Vec<(u64, u64, u64)>,
    /// Frame, SMMU, StreamID, register stores.
    pub(crate) devices: Vec<(u64, usize, u32, u64)>,
    pub(crate) tolerated: &'w [Tolerated],
    pub(crate) breaches: &'w [Breach],
    pub(crate) landings: &'w Landings,
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) witnesses_lost: u64,
}

impl Verdict<'_> {
    /// The rules that were broken.
    pub fn breaches(&self) -> &[Breach] {
        self.breaches
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            changes,
            unreported,
            first_unreported,
            ..
        } = self.counts;
        writeln!(to, "version = 1")?;
        match self.mode {
            Mode::Polite => writeln!(to, "mode = \"polite\"")?,
            Mode::Forgetful => writeln!(to, "mode = \"forgetful\"")?,
            Mode::Hoarding => writeln!(to, "mode = \"hoarding\"")?,
            Mode::Chaotic { seed } => writeln!(to, "mode = \"chaotic\"\nseed = {seed}")?,
        }
        writeln!(to, "time_us = {}", self.time_us)?;
        writeln!(to, "changes = {changes}\nunreported = {unreported}")?;
        if let Some(pa) = first_unreported {
            writeln!(to, "first_unreported = {pa:#x}")?;
        }
        writeln!(to, "landings_lost = {}", self.landings_lost)?;
        writeln!(to, "witnesses_lost = {}", self.witnesses_lost)?;
        for (frame, stores, syncs) in &self.smmus {
            writeln!(to, "\n[[smmu]]\nframe = {frame:#x}")?;
            writeln!(to, "register_stores = {stores}\nsyncs = {syncs}")?;
        }
        for (frame, smmu, stream, stores) in &self.devices {
            writeln!(to, "\n[[device]]\nframe = {frame:#x}\nsmmu = {smmu}")?;
            writeln!(to, "stream = {stream:#x}\nregister_stores = {stores}")?;
        }
        for Tolerated { rule, times } in self.tolerated {
            writeln!(to, "\n[[tolerated]]\nrule = {}", Quoted(&rule.rule))?;
            writeln!(to, "text = {}\ntimes = {times}", Quoted(&rule.text))?;
        }
        for breach in self.breaches {
            writeln!(to, "\n[[breach]]\nrule = {}", Quoted(&breach.rule))?;
            writeln!(to, "told = {}", Quoted(&breach.told))?;
        }
        for witness in &self.witnesses {
            write!(to, "{witness}")?;
        }
        for (goal, sum) in &self.landings.0 {
            writeln!(
                to,
                "\n[[landing]]\nsmmu = {}\nstream = {:#x}",
                goal.smmu, goal.stream
            )?;
            if let Some(pasid) = goal.pasid {
                writeln!(to, "pasid = {pasid:#x}")?;
            }
            writeln!(to, "page = {:#x}\nwrite = {}", goal.page, goal.is_write)?;
            writeln!(to, "accesses = {}\nbytes = {}", sum.accesses, sum.bytes)?;
            writeln!(to, "first_us = {}\nlast_us = {}", sum.first_us, sum.last_us)?;
        }
        Ok(())
    }
}

/// A TOML basic string.
struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(to, "\\{char}")?,
                '\n' => to.write_str("\\n")?,
                control if control.is_control() => write!(to, "\\u{:04x}", u32::from(control))?,
                other => to.write_char(other)?,
            }
        }
        to.write_char('"')
    }
}
