//! What the plugin says of a run. `tests/plugin/src/verdict.rs` writes it, and says what it means.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// How a judgement begins where a rule was broken.
pub(crate) const OBJECTION: &str = "the model objects";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    version: u32,
    pub(crate) mode: String,
    pub(crate) seed: Option<u64>,
    pub(crate) time_us: u64,
    pub(crate) changes: u64,
    unreported: u64,
    first_unreported: Option<u64>,
    landings_lost: u64,
    witnesses_lost: u64,
    #[serde(default)]
    pub(crate) witness: Vec<Witness>,
    #[serde(default)]
    pub(crate) smmu: Vec<Smmu>,
    #[serde(default)]
    pub(crate) device: Vec<Device>,
    #[serde(default)]
    pub(crate) tolerated: Vec<Tolerated>,
    #[serde(default)]
    pub(crate) breach: Vec<Breach>,
    #[serde(default)]
    pub(crate) landing: Vec<Landing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Smmu {
    pub(crate) frame: u64,
    pub(crate) register_stores: u64,
    pub(crate) syncs: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Device {
    pub(crate) frame: u64,
    pub(crate) smmu: usize,
    pub(crate) stream: u32,
    pub(crate) register_stores: u64,
}

/// A rule that may be broken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tolerated {
    pub(crate) rule: String,
    pub(crate) text: String,
    pub(crate) times: u64,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breach {
    pub(crate) rule: String,
    pub(crate) told: String,
}

/// Accesses of one kind that reached one page.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Landing {
    pub(crate) smmu: usize,
    pub(crate) stream: u32,
    pub(crate) pasid: Option<u32>,
    pub(crate) page: u64,
    pub(crate) write: bool,
    pub(crate) accesses: u64,
    pub(crate) bytes: u64,
    pub(crate) first_us: u64,
    pub(crate) last_us: u64,
}

/// What a device was watched for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Witness {
    pub(crate) smmu: usize,
    pub(crate) stream: u32,
    pub(crate) story: u32,
    pub(crate) pasid: Option<u32>,
    pub(crate) tried: u64,
    pub(crate) landed: u64,
    pub(crate) begin_us: u64,
    pub(crate) end_us: Option<u64>,
}

/// Whether stores that were not reported count against the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreported {
    /// Yes: nobody else writes memory, and reports come in order.
    Fail,
    /// No: QEMU's own devices write, or CPUs run at once and a report may be on its way.
    Expected,
}

impl Verdict {
    /// Reads the file that the plugin left.
    ///
    /// # Errors
    ///
    /// A sentence, if there is none, or if it is not one.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path)
            .map_err(|why| format!("the plugin gave no verdict ({}: {why})", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let this: Self = toml::from_str(text).map_err(|why| why.to_string())?;
        match this.version {
            1 => Ok(this),
            other => Err(format!("version {other}, not 1")),
        }
    }

    /// Judges the run by it.
    ///
    /// # Errors
    ///
    /// A sentence, with the story: a rule was broken; an SMMU saw no register store; stores went
    /// unreported that should not have; or the record of what reached memory is not whole.
    pub(crate) fn judge(&self, unreported: Unreported) -> Result<(), String> {
        if let Some(breach) = self.breach.first() {
            return Err(format!("{OBJECTION}: {}", breach.told.trim_end()));
        }
        if self.smmu.is_empty() {
            return Err("the plugin had no SMMU".into());
        }
        if let Some(idle) = self.smmu.iter().find(|it| it.register_stores == 0) {
            return Err(format!(
                "the SMMU at {:#x} saw no store to its registers",
                idle.frame
            ));
        }
        if unreported == Unreported::Fail && self.unreported != 0 {
            return Err(format!(
                "{} words of the SMMUs' tables changed without a report, the first at {:#x}: \
                 a DC ZVA or a SETP?",
                self.unreported,
                self.first_unreported.unwrap_or(0)
            ));
        }
        if self.landings_lost != 0 {
            return Err(format!("{} landings were lost", self.landings_lost));
        }
        if self.witnesses_lost != 0 {
            return Err(format!("{} witnesses were lost", self.witnesses_lost));
        }
        Ok(())
    }
}

#[cfg(test)]
impl Verdict {
    /// One of a run in which nothing happened.
    pub(super) fn for_tests() -> Self {
        let text = "version = 1\nmode = \"polite\"\ntime_us = 1\nchanges = 0\nunreported = 0\n\
                    landings_lost = 0\nwitnesses_lost = 0\n";
        Self::parse(text).expect("a verdict")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = 1
mode = "chaotic"
seed = 3
time_us = 50
changes = 9
unreported = 0
landings_lost = 0
witnesses_lost = 0

[[smmu]]
frame = 0x5fc00000
register_stores = 12
syncs = 2

[[device]]
frame = 0x5fc20000
smmu = 0
stream = 0x10
register_stores = 4

[[landing]]
smmu = 0
stream = 0x10
pasid = 0x5
page = 0x48000000
write = true
accesses = 1
bytes = 8
first_us = 7
last_us = 7
"#;

    const BREACH: &str = "\n[[breach]]\nrule = \"LiveEntryTorn\"\ntold = \"a\\n  b\\n\"\n";

    fn judged(text: &str) -> Result<(), String> {
        Verdict::parse(text)?.judge(Unreported::Fail)
    }

    #[test]
    fn a_run_without_a_breach_is_good() {
        assert_eq!(judged(GOOD), Ok(()));
        let verdict = Verdict::parse(GOOD).expect("a verdict");
        assert_eq!(verdict.landing[0].pasid, Some(5));
    }

    #[test]
    fn everything_that_must_fail_a_run_does() {
        let wrong = [
            (format!("{GOOD}{BREACH}"), "the model objects: a\n  b"),
            (
                GOOD.replace("register_stores = 12", "register_stores = 0"),
                "no store",
            ),
            (
                GOOD.replace("unreported = 0", "unreported = 1\nfirst_unreported = 0x40"),
                "at 0x40",
            ),
            (
                GOOD.replace("landings_lost = 0", "landings_lost = 1"),
                "were lost",
            ),
            (
                GOOD.replace("witnesses_lost = 0", "witnesses_lost = 2"),
                "2 witnesses were lost",
            ),
            (GOOD.replace("version = 1", "version = 2"), "version 2"),
            (GOOD.replace("syncs = 2", "sinks = 2"), "sinks"),
            (String::new(), "version"),
        ];
        for (text, why) in wrong {
            let said = judged(&text).expect_err(why);
            assert!(said.contains(why), "{said}");
        }
        let none = Verdict::read(Path::new("no/such/file")).expect_err("no file");
        assert!(none.contains("no verdict"), "{none}");
    }

    #[test]
    fn what_others_write_counts_only_where_nobody_else_does() {
        let text = GOOD.replace("unreported = 0", "unreported = 1");
        let verdict = Verdict::parse(&text).expect("a verdict");
        assert_eq!(verdict.judge(Unreported::Expected), Ok(()));
    }
}
