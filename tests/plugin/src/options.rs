//! The plugin's arguments: `-plugin FILE,KEY=VALUE,...`.

use std::ops::Range;
use std::path::PathBuf;

use smmu_model::device::{Wiring, frame};
use smmu_model::{Identity, Mode, StallModel, Violation, offset};

/// Everything that the arguments say.
///
/// ```
/// let words = [
///     "ram=0x40000000+0x20000000", "verdict=v.toml", "mode=chaotic", "seed=7",
///     "smmu=0x5fc00000:full:no-16k", "device=0x5fc20000:smmu0:sid=0x10:pasid=16:atc",
/// ];
/// let options = smmu_plugin::options::Options::parse(words.iter().copied())?;
/// assert_eq!(options.ram, 0x4000_0000..0x6000_0000);
/// assert_eq!(options.devices[0].wiring.pasid_bits, 16);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `ram=BASE+BYTES`: guest RAM, physical addresses.
    pub ram: Range<u64>,
    /// `verdict=FILE`: where the [verdict](crate::verdict) goes.
    pub verdict: PathBuf,
    /// `mode=polite|forgetful|hoarding|chaotic` and `seed=N`; hoarding unless said.
    pub mode: Mode,
    /// `smmu=BASE:PRESET[:no-FEATURE...]`, one for each SMMU.
    pub smmus: Vec<Smmu>,
    /// `device=BASE:smmuN:sid=N[:pasid=BITS][:atc][:pri]`, one for each device.
    pub devices: Vec<Device>,
    /// `keep-out=BASE+BYTES`, any number: what no device may reach.
    pub kept: Vec<Range<u64>>,
    /// `sealed=on|off`: whether a device that writes to a live stream table entry, context descriptor,
    /// stage-2 table or queue ends the run; on unless said. Off where context descriptors are a
    /// guest's own.
    pub is_sealed: bool,
    /// `tolerate=RULE[:TEXT]`, any number: what ends no run.
    pub tolerated: Vec<Tolerance>,
    /// `tick-ns=N`: the least guest time between two moments at which the SMMUs act on their own;
    /// 1000 unless said.
    pub tick_ns: u64,
    /// `atc-timeout-us=N`: for how long an SMMU waits for a device's answer to an invalidation before
    /// it says that there is none; 100000 unless given.
    pub atc_timeout_us: u64,
}

/// A rule that the guest breaks on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// The rule's name.
    pub rule: String,
    /// How what was done begins, in the model's words; empty for whatever it was.
    pub text: String,
}

impl Tolerance {
    /// Whether `violation` is to be tolerated.
    pub fn covers(&self, violation: &Violation) -> bool {
        format!("{:?}", violation.rule) == self.rule && violation.what.starts_with(&self.text)
    }
}

/// One SMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smmu {
    /// Where its two register pages are, 128 KiB.
    pub base: u64,
    /// What its ID registers say.
    pub identity: Identity,
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where its [`frame`] is, 64 KiB.
    pub base: u64,
    /// Which SMMU it is behind.
    pub smmu: usize,
    /// Its StreamID and abilities.
    pub wiring: Wiring,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// A sentence that names the argument: unknown, malformed, missing, or frames that overlap,
    /// are not aligned to their size or lie outside RAM.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut ram = None;
        let mut verdict = None;
        let (mut mode, mut seed) = ("hoarding", 1);
        let (mut smmus, mut devices, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut tolerated = Vec::new();
        let mut is_sealed = true;
        let (mut tick_ns, mut atc_timeout_us) = (1000, 100_000);
        for word in words {
            let (key, value) = word.split_once('=').ok_or(format!("{word}: no value"))?;
            let wrong = || format!("{word}: not understood");
            match key {
                "ram" => ram = Some(range(value).ok_or_else(wrong)?),
                "verdict" => verdict = Some(PathBuf::from(value)),
                "mode" => mode = value,
                "seed" => seed = number(value).ok_or_else(wrong)?,
                "smmu" => smmus.push(smmu(value).ok_or_else(wrong)?),
                "device" => devices.push(device(value).ok_or_else(wrong)?),
                "keep-out" => kept.push(range(value).ok_or_else(wrong)?),
                "sealed" => {
                    is_sealed = match value {
                        "on" => true,
                        "off" => false,
                        _ => return Err(wrong()),
                    }
                }
                "tolerate" => {
                    let (rule, text) = value.split_once(':').unwrap_or((value, ""));
                    let (rule, text) = (rule.into(), text.into());
                    tolerated.push(Tolerance { rule, text });
                }
                "tick-ns" => {
                    let is_some = |ns: &u64| *ns != 0;
                    tick_ns = number(value).filter(is_some).ok_or_else(wrong)?;
                }
                "atc-timeout-us" => {
                    let is_some = |us: &u64| *us != 0;
                    atc_timeout_us = number(value).filter(is_some).ok_or_else(wrong)?;
                }
                _ => return Err(format!("{word}: no such argument")),
            }
        }
        let this = Self {
            ram: ram.ok_or("ram=BASE+BYTES is missing")?,
            verdict: verdict.ok_or("verdict=FILE is missing")?,
            mode: match mode {
                "polite" => Mode::Polite,
                "forgetful" => Mode::Forgetful,
                "hoarding" => Mode::Hoarding,
                "chaotic" => Mode::Chaotic { seed },
                other => return Err(format!("mode={other}: no such mode")),
            },
            smmus,
            devices,
            kept,
            is_sealed,
            tolerated,
            tick_ns,
            atc_timeout_us,
        };
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<(), String> {
        if self.smmus.is_empty() {
            return Err("smmu=BASE:PRESET is missing".into());
        }
        for range in self.kept.iter().chain([&self.ram]) {
            if range.start % 4096 != 0 || range.end % 4096 != 0 {
                return Err(format!("{range:#x?}: not whole pages"));
            }
        }
        let mut frames: Vec<Range<u64>> = self.frames().collect();
        frames.sort_by_key(|frame| frame.start);
        for frame in &frames {
            let is_inside = self.ram.start <= frame.start && frame.end <= self.ram.end;
            let bytes = frame.end - frame.start;
            if !is_inside || frame.start % bytes != 0 {
                return Err(format!(
                    "frame at {:#x}: not aligned, or not in RAM",
                    frame.start
                ));
            }
        }
        if let Some(pair) = frames.windows(2).find(|pair| pair[0].end > pair[1].start) {
            return Err(format!("frame at {:#x}: overlaps another", pair[1].start));
        }
        for (at, device) in self.devices.iter().enumerate() {
            let twin = |other: &Device| {
                other.smmu == device.smmu && other.wiring.stream == device.wiring.stream
            };
            if device.smmu >= self.smmus.len() {
                return Err(format!("device at {:#x}: no such SMMU", device.base));
            }
            if self.devices[..at].iter().any(twin) {
                return Err(format!(
                    "device at {:#x}: not alone with its StreamID",
                    device.base
                ));
            }
        }
        Ok(())
    }

    /// All register frames, SMMUs first.
    pub fn frames(&self) -> impl Iterator<Item = Range<u64>> {
        let smmus = self
            .smmus
            .iter()
            .map(|smmu| (smmu.base, offset::PAGES_BYTES));
        let devices = self.devices.iter().map(|it| (it.base, frame::FRAME_BYTES));
        smmus
            .chain(devices)
            .map(|(base, bytes)| base..base.saturating_add(bytes))
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn range(text: &str) -> Option<Range<u64>> {
    let (base, bytes) = text.split_once('+')?;
    let (base, bytes) = (number(base)?, number(bytes)?);
    (bytes != 0).then_some(base..base.checked_add(bytes)?)
}

fn smmu(text: &str) -> Option<Smmu> {
    let mut parts = text.split(':');
    let base = number(parts.next()?)?;
    let mut identity = match parts.next()? {
        "full" => Identity::full(),
        "qemu" => Identity::qemu(),
        "kunpeng-920" => Identity::kunpeng_920(),
        _ => return None,
    };
    for part in parts {
        match part {
            "no-16k" => identity.granule_16k = false,
            "no-64k" => identity.granule_64k = false,
            "no-ril" => identity.ril = false,
            "no-ats" => identity.ats = false,
            "no-cd2l" => identity.cd2l = false,
            "no-stalls" => {
                identity.stall_model = StallModel::TerminateOnly;
                identity.stall_max = 0;
            }
            _ => return None,
        }
    }
    Some(Smmu { base, identity })
}

fn device(text: &str) -> Option<Device> {
    let mut parts = text.split(':');
    let base = number(parts.next()?)?;
    let smmu = parts.next()?.strip_prefix("smmu")?.parse().ok()?;
    let stream = number(parts.next()?.strip_prefix("sid=")?)?;
    let mut wiring = Wiring::plain(u32::try_from(stream).ok()?);
    for part in parts {
        match part.split_once('=') {
            Some(("pasid", bits)) => {
                wiring.pasid_bits = bits.parse().ok().filter(|bits| *bits <= 20)?;
            }
            None if part == "atc" => wiring.has_atc = true,
            None if part == "pri" => wiring.has_pri = true,
            _ => return None,
        }
    }
    Some(Device { base, smmu, wiring })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 4] = [
        "ram=0x40000000+0x20000000",
        "verdict=v",
        "smmu=0x5fc00000:full",
        "device=0x5fc20000:smmu0:sid=16:pasid=20:atc:pri",
    ];

    fn with(more: &[&str]) -> Result<Options, String> {
        Options::parse(GOOD.iter().chain(more).copied())
    }

    #[test]
    fn what_is_left_out_has_a_value() {
        let options = with(&[]).expect("good words");
        assert_eq!(options.mode, Mode::Hoarding);
        assert_eq!(options.devices[0].wiring, Wiring::full(16));
        assert_eq!(options.tick_ns, 1000);
        assert_eq!(options.atc_timeout_us, 100_000);
        assert_eq!(options.frames().count(), 2);
        assert!(options.tolerated.is_empty() && options.is_sealed);
        let chaotic = with(&["mode=chaotic", "seed=0x10"]).expect("good words");
        assert_eq!(chaotic.mode, Mode::Chaotic { seed: 16 });
    }

    #[test]
    fn a_feature_can_be_left_out() {
        let options = with(&["smmu=0x5fc40000:full:no-16k:no-stalls"]).expect("good words");
        let identity = options.smmus[1].identity;
        assert!(!identity.granule_16k && identity.granule_64k);
        assert_eq!(identity.idr0() >> 24 & 3, 1);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let wrong = [
            "smmu",
            "colour=red",
            "ram=0x40000000",
            "ram=0x40000000+0",
            "mode=rude",
            "seed=x",
            "tick-ns=0",
            "atc-timeout-us=0",
            "sealed=maybe",
            "keep-out=0x40000000+1",
            "smmu=0x5fc40000:wide",
            "smmu=0x5fc40000:full:no-fun",
            "smmu=0x5fc10000:full",
            "smmu=0x5fc00000:full",
            "smmu=0x60000000:full",
            "device=0x5fc30000:smmu1:sid=1",
            "device=0x5fc30000:smmu0:sid=16",
            "device=0x5fc30000:smmu0:sid=1:pasid=21",
            "device=0x5fc30000:smmu0:sid=1:loud",
            "device=0x5fc30000:smmu0",
        ];
        for word in wrong {
            assert!(with(&[word]).is_err(), "{word}");
        }
        assert!(Options::parse(GOOD[1..].iter().copied()).is_err());
        assert!(Options::parse(GOOD[..1].iter().copied()).is_err());
        assert!(Options::parse(GOOD[..2].iter().copied()).is_err());
    }
}
