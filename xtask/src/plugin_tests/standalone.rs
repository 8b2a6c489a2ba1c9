//! The image of `tests/plugin/standalone`: how it is built and run, and what it must come to.

use std::path::PathBuf;
use std::process::Command;

use crate::image::target_folder;
use crate::model::{Clock, Verdict};
use crate::qemu;
use crate::rust::{self, Part, TARGET};
use crate::stop::Stop;
use crate::tool;

pub(crate) const PACKAGE: &str = "smmu-plugin-standalone";
/// How often each of its CPUs has its device write.
const ROUNDS: u64 = 2000;

/// Which image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Right,
    /// Replaces a live translation without a break.
    Rogue,
    /// Changes a table by stores that QEMU tells no plugin of.
    Unreported,
}

impl Kind {
    const fn feature(self) -> &'static str {
        match self {
            Self::Right => "image",
            Self::Rogue => "rogue",
            Self::Unreported => "unreported",
        }
    }
}

/// Builds one.
///
/// # Errors
///
/// `CouldNotRun` if the target is missing and cannot be installed; `Failed` if it does not build.
pub(super) fn build(kind: Kind) -> Result<PathBuf, Stop> {
    rust::ensure(&[Part::Target])?;
    let folder = target_folder();
    tool::run(
        tool::cargo()
            .args(["build", "--release", "--package", PACKAGE])
            .args(["--features", kind.feature(), "--target", TARGET])
            .arg("--target-dir")
            .arg(&folder)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let folder = folder.join(TARGET).join("release");
    let built = folder.join(PACKAGE);
    // The next build for the other kind overwrites Cargo's file.
    let kept = folder.join(format!("{PACKAGE}-{}.elf", kind.feature()));
    std::fs::copy(&built, &kept)
        .map_err(|why| Stop::Failed(format!("{}: {why}", built.display())))?;
    Ok(kept)
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run<'a> {
    pub(super) image: PathBuf,
    pub(super) clock: Clock,
    /// More arguments of the plugin.
    pub(super) arguments: &'a str,
    pub(super) verdict: PathBuf,
}

impl Run<'_> {
    /// The command line, as `tests/plugin/README.md` has it.
    pub(super) fn command(&self) -> Command {
        let mut qemu = Command::new(qemu::PROGRAM);
        qemu.args([
            "-M",
            "virt,virtualization=on,gic-version=3,memory-backend=ram",
            "-object",
            "memory-backend-memfd,id=ram,size=64M",
        ]);
        qemu.args(["-m", "64M", "-cpu", "max", "-smp", "2"]);
        if self.clock == Clock::Instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        qemu.args(["-net", "none", "-no-reboot", "-kernel"]);
        qemu.arg(&self.image).arg("-plugin").arg(self.plugin());
        qemu
    }

    fn plugin(&self) -> String {
        [
            qemu::option_value(&crate::model::library()).as_str(),
            "ram=0x40000000+0x4000000",
            "smmu=0x43e00000:full",
            "device=0x43e20000:smmu0:sid=16:pasid=16:atc",
            "device=0x43e30000:smmu0:sid=17:pasid=16:atc",
            self.arguments,
            &format!("verdict={}", qemu::option_value(&self.verdict)),
        ]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(",")
    }
}

/// Wants that exactly what the image says it did has reached memory, by the model's word.
pub(super) fn landed(verdict: &Verdict) -> Result<(), String> {
    let found: Vec<_> = verdict
        .landing
        .iter()
        .map(|it| (it.stream, it.pasid, it.write, it.accesses, it.bytes))
        .collect();
    let wanted = [
        (16, Some(1), true, 1 + ROUNDS, 8 * (1 + ROUNDS)),
        (16, Some(2), true, 1, 8),
        (17, Some(2), true, ROUNDS, 8 * ROUNDS),
    ];
    if found != wanted {
        return Err(format!("{found:?} reached memory, not {wanted:?}"));
    }
    let page = |at: usize| verdict.landing.get(at).map(|it| it.page);
    if page(0) == page(1) || page(1) != page(2) {
        return Err("the two spaces do not have a page each".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_readme_has_the_command_line() {
        let run = Run {
            image: "IMAGE".into(),
            clock: Clock::Instructions,
            arguments: "mode=hoarding",
            verdict: "VERDICT".into(),
        };
        let library = qemu::option_value(&crate::model::library());
        let command = run.command();
        let words = command.get_args().map(|word| word.to_string_lossy());
        let typed = words.collect::<Vec<_>>().join(" ");
        let typed = typed.replace(&library, "target/release/libsmmu_plugin.so");
        let path = tool::root().join("tests/plugin/README.md");
        let readme = std::fs::read_to_string(path).expect("the README");
        let readme = readme.replace("\\\n", "");
        let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = format!("{} {typed} ```", qemu::PROGRAM);
        assert!(readme.contains(&wanted), "{wanted}");
    }
}
