//! `--smmu model`: the model of `tests/model` in QEMU, by the plugin of `tests/plugin`.

mod cast;
mod layout;
pub(crate) mod scenarios;
mod tree;
mod verdict;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::board::Qemu;
use crate::guests::Guest;
use crate::image::{self, Image};
use crate::qemu;
use crate::stop::{Stop, progress};
use crate::tool;

pub(crate) use cast::Cast;
pub(crate) use layout::{DEVICES, Layout, RAM_BASE, RESERVED_BYTES, memory_bytes};
use layout::{MOST_DEVICES, MOST_SMMUS};
pub(crate) use verdict::{OBJECTION, Unreported, Verdict};

/// The package of the plugin.
const PACKAGE: &str = "smmu-plugin";
/// SMMUs unless asked otherwise.
const SMMUS: u8 = 2;

/// Whose SMMUs a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Whose {
    /// QEMU's own, without PASIDs
    #[default]
    Native,
    /// The model's
    Model,
    /// Both
    Both,
}

/// How hostile the model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Remembers what was used, acts at once
    Polite,
    /// Remembers nothing
    Forgetful,
    /// Fetches ahead, forgets nothing, acts as late as it may
    #[default]
    Hoarding,
    /// Draws every choice by its seed
    Chaotic,
}

/// The arguments of every command that can run on the model.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Whose SMMUs the machine has
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t)]
    smmu: Whose,
    /// How hostile the model's SMMUs are [default: hoarding]
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
    /// What the chaotic mode draws by [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many SMMUs the model has; the second has no 16 KiB granule [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_SMMUS)))]
    smmus: Option<u8>,
    /// How many devices each SMMU of the model has; all but the third take PASIDs [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(i64::from(DEVICES)..=i64::from(MOST_DEVICES)))]
    devices: Option<u8>,
}

impl Arguments {
    /// The model as asked for, or `None` where it is not.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` for arguments of the model without the model.
    pub(crate) fn model(&self) -> Result<Option<Model>, Stop> {
        let counts = self.smmus.is_some() || self.devices.is_some();
        let asks = self.mode.is_some() || self.seed.is_some() || counts;
        let has_native = match self.smmu {
            Whose::Native if asks => {
                return Err(Stop::CouldNotRun(
                    "`--mode`, `--seed`, `--smmus` and `--devices` are the model's: add `--smmu model`"
                        .into(),
                ));
            }
            Whose::Native => return Ok(None),
            Whose::Model => false,
            Whose::Both => true,
        };
        Ok(Some(Model {
            has_native,
            mode: self.mode.unwrap_or_default(),
            seed: self.seed.unwrap_or(1),
            smmus: self.smmus.unwrap_or(SMMUS),
            devices_each: self.devices.unwrap_or(DEVICES),
            clock: Clock::Instructions,
            has_deaths: false,
        }))
    }
}

/// What a machine's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// A nanosecond for each instruction, one CPU at a time: the same run every time.
    Instructions,
    /// The host's, every CPU on a thread of its own.
    Host,
}

/// The model, beside QEMU's SMMU or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) has_native: bool,
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
    pub(crate) smmus: u8,
    /// Devices behind each of them.
    pub(crate) devices_each: u8,
    pub(crate) clock: Clock,
    /// SMMUs die, so that the last fence falls: an SMMU is turned off although devices use ATS, which
    /// nobody can tell them any more.
    pub(crate) has_deaths: bool,
}

impl Model {
    /// The names of the nodes of its devices.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if the board's memory is too little or not understood.
    pub(crate) fn devices(&self, board: &Qemu) -> Result<Vec<String>, Stop> {
        let layout = self.layout(board)?;
        Ok(layout.devices.iter().map(layout::Device::node).collect())
    }

    /// What it takes at the top of RAM.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        layout::reserved_bytes(self.smmus, self.devices_each)
    }

    /// The guests that play the scenarios, with the kernel at `image`.
    ///
    /// # Errors
    ///
    /// As [`devices`](Self::devices).
    pub(crate) fn guests(
        &self,
        board: &Qemu,
        cast: Cast,
        image: &Path,
    ) -> Result<Vec<Guest>, Stop> {
        Ok(cast.guests(&self.layout(board)?, image))
    }
}

/// Files of one run.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    tree: PathBuf,
    verdict: PathBuf,
}

impl Files {
    /// Files beside the image, called after the run.
    pub(crate) fn of(image: &Image, run: &str) -> Self {
        Self {
            tree: image.raw.with_extension(format!("{run}.dtb")),
            verdict: image.raw.with_extension(format!("{run}.verdict.toml")),
        }
    }

    /// The machine's device tree.
    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    /// What the plugin says of the run.
    pub(crate) fn verdict(&self) -> &Path {
        &self.verdict
    }
}

impl Model {
    /// The machine that `board` models, with this model's SMMUs; nothing is built or run for it.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if the board's memory is too little or not understood.
    pub(crate) fn machine(
        &self,
        board: &Qemu,
        cpus: u32,
        image: &Image,
        files: &Files,
    ) -> Result<Command, Stop> {
        let layout = self.layout(board)?;
        let own = self.without_plugin(board);
        let own = Qemu {
            machine: format!("{},memory-backend=ram", own.machine),
            ..own
        };
        let mut qemu = qemu::machine(&own, cpus);
        qemu.arg("-object")
            .arg(format!("memory-backend-memfd,id=ram,size={}", board.memory));
        if self.clock == Clock::Instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.arg("-dtb").arg(&files.tree);
        qemu.arg("-plugin")
            .arg(self.plugin(&layout, image, board, files));
        Ok(qemu)
    }

    fn layout(&self, board: &Qemu) -> Result<Layout, Stop> {
        let memory = &board.memory;
        layout::memory_bytes(memory)
            .and_then(|bytes| Layout::new(bytes, self.smmus, self.devices_each))
            .ok_or_else(|| Stop::CouldNotRun(format!("no room for the model in `-m {memory}`")))
    }

    /// The machine as QEMU alone has it.
    fn without_plugin(&self, board: &Qemu) -> Qemu {
        let parts = board.machine.split(',');
        let kept: Vec<&str> = parts
            .filter(|part| self.has_native || !part.starts_with("iommu="))
            .chain(["dtb-randomness=off"])
            .collect();
        Qemu {
            machine: kept.join(","),
            ..board.clone()
        }
    }

    /// The value of `-plugin`.
    fn plugin(&self, layout: &Layout, image: &Image, board: &Qemu, files: &Files) -> OsString {
        let mode = match self.mode {
            Mode::Polite => "polite",
            Mode::Forgetful => "forgetful",
            Mode::Hoarding => "hoarding",
            Mode::Chaotic => "chaotic",
        };
        let mut words = layout.arguments();
        words.push(format!("mode={mode}"));
        words.push(format!("seed={}", self.seed));
        // The self-check sends it on purpose, to see its issuer told and nobody else.
        words.push("tolerate=CommandIllegal:0xff 0x0 at".into());
        if let Some(bytes) = image_bytes(&image.raw) {
            words.push(format!("keep-out={:#x}+{bytes:#x}", board.image_address));
        }
        if self.has_deaths {
            words.push("tolerate=DisabledWithAts".into());
        }
        // Well below what the image waits for a SYNC.
        words.push("atc-timeout-us=5000".into());
        words.push(format!("verdict={}", qemu::option_value(&files.verdict)));
        let mut value = OsString::from(qemu::option_value(&library()));
        for word in words {
            value.push(",");
            value.push(word);
        }
        value
    }

    /// Builds the plugin and writes the tree: what [`machine`](Self::machine) counts on. Removes
    /// what an earlier run said.
    ///
    /// # Errors
    ///
    /// `Failed` if the plugin does not build or QEMU does not tell its tree; `CouldNotRun` if files
    /// cannot be written.
    pub(crate) fn prepare(&self, board: &Qemu, cpus: u32, files: &Files) -> Result<(), Stop> {
        let layout = self.layout(board)?;
        let broken =
            |why: std::io::Error| Stop::CouldNotRun(format!("{}: {why}", files.tree.display()));
        qemu::dump_tree(&self.without_plugin(board), cpus, &files.tree)?;
        let own = fs::read(&files.tree).map_err(broken)?;
        let edited = tree::edit(&own, &layout).map_err(Stop::Failed)?;
        fs::write(&files.tree, edited).map_err(broken)?;
        match fs::remove_file(&files.verdict) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(broken(why)),
            _ => Ok(()),
        }
    }

    /// What the plugin says of the run that is over.
    ///
    /// # Errors
    ///
    /// A sentence, if it says nothing, or what fails the run ([`Verdict::judge`]).
    pub(crate) fn verdict(&self, files: &Files) -> Result<Verdict, String> {
        let verdict = Verdict::read(&files.verdict)?;
        let is_alone = !self.has_native && self.clock == Clock::Instructions;
        verdict.judge(if is_alone {
            Unreported::Fail
        } else {
            Unreported::Expected
        })?;
        Ok(verdict)
    }
}

/// How many bytes the image at `path` takes in memory, by its header; whole pages.
fn image_bytes(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).ok()?;
    let size = bytes
        .get(16..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)?;
    Some(size.next_multiple_of(4096)).filter(|bytes| *bytes != 0)
}

/// Builds the plugin.
///
/// # Errors
///
/// `Failed` if it does not build.
pub(crate) fn build() -> Result<(), Stop> {
    progress("building the plugin");
    tool::run(
        tool::cargo()
            .args(["build", "--release", "--package", PACKAGE, "--target-dir"])
            .arg(image::target_folder()),
    )
}

/// Where the plugin is built.
pub(crate) fn library() -> PathBuf {
    image::target_folder()
        .join("release")
        .join("libsmmu_plugin.so")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Qemu {
        Qemu {
            machine: "virt,virtualization=on,iommu=smmuv3".into(),
            cpu: "max".into(),
            memory: "64M".into(),
            image_address: 0x4020_0000,
            devices: Vec::new(),
            args: Vec::new(),
        }
    }

    fn typed(arguments: &Arguments) -> String {
        let model = arguments.model().expect("good").expect("the model");
        let image = Image {
            raw: "no-such.img".into(),
            symbols: "no-such.elf".into(),
        };
        let files = Files::of(&image, "boot");
        let qemu = model
            .machine(&board(), 2, &image, &files)
            .expect("enough memory");
        tool::as_typed(&qemu)
    }

    #[test]
    fn with_the_model_alone_the_machine_has_no_other_smmu() {
        let arguments = Arguments {
            smmu: Whose::Model,
            ..Arguments::default()
        };
        let typed = typed(&arguments);
        for part in [
            "-M 'virt,virtualization=on,dtb-randomness=off,memory-backend=ram' ",
            "-object 'memory-backend-memfd,id=ram,size=64M'",
            "-icount 'shift=0,sleep=off'",
            "-dtb no-such.boot.dtb",
            ",mode=hoarding,seed=1,",
            "verdict=no-such.boot.verdict.toml",
        ] {
            assert!(typed.contains(part), "{part} is not in {typed}");
        }
        assert_eq!(typed.matches(",smmu=").count(), 2);
    }

    #[test]
    fn with_both_the_machine_keeps_its_own() {
        let arguments = Arguments {
            smmu: Whose::Both,
            mode: Some(Mode::Chaotic),
            seed: Some(7),
            smmus: Some(1),
            devices: Some(6),
        };
        let typed = typed(&arguments);
        assert!(typed.contains("iommu=smmuv3,dtb-randomness=off,memory-backend=ram"));
        assert!(typed.contains(",mode=chaotic,seed=7,"));
        assert_eq!(typed.matches(",smmu=").count(), 1);
        assert_eq!(typed.matches(",device=").count(), 6);
    }

    #[test]
    fn what_is_the_models_is_refused_without_it() {
        assert!(Arguments::default().model().is_ok_and(|it| it.is_none()));
        let seed = Arguments {
            seed: Some(1),
            ..Arguments::default()
        };
        assert!(matches!(seed.model(), Err(Stop::CouldNotRun(_))));
        let devices = Arguments {
            devices: Some(DEVICES),
            ..Arguments::default()
        };
        assert!(matches!(devices.model(), Err(Stop::CouldNotRun(_))));
    }
}
