//! Packages of another architecture, unpacked below the target folder and never installed.
//!
//! A machine must not be taught a second architecture for the sake of a file: apt gets them with
//! lists and caches of its own, and needs no rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stop::{Stop, progress};
use crate::tool;

/// apt with everything that it keeps below one folder, for arm64 alone.
pub(crate) struct Arm64<'a> {
    folder: &'a Path,
}

impl<'a> Arm64<'a> {
    /// Empties `folder` and reads the package lists into it.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if the folder cannot be made; as apt ends.
    pub(crate) fn begin(folder: &'a Path, what: &str) -> Result<Self, Stop> {
        let broken = |why| broken(folder, &why);
        // What an earlier try may have left would be taken for this one's.
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(broken)?;
        }
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).map_err(broken)?;
        }
        progress(&format!(
            "getting {what} for arm64 (apt-get, some 20 MB of lists)"
        ));
        let apt = Self { folder };
        tool::read(apt.run("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// An apt program that changes nothing outside of the folder.
    pub(crate) fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder)
            .env("LC_ALL", "C")
            .arg("-q");
        let here = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            ("APT::Architecture", "arm64".into()),
            ("APT::Architectures", "arm64".into()),
            // It belongs to whoever runs this, whom apt's own user may not be able to read.
            ("APT::Sandbox::User", "root".into()),
            ("Dir::State", here("state")),
            // What is installed here is of another architecture.
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", here("cache")),
        ];
        for (name, value) in options {
            command.args(["-o", &format!("{name}={value}")]);
        }
        command
    }

    /// Gets `package` and unpacks it into the folder.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if apt leaves no package; as apt and dpkg end.
    pub(crate) fn unpack(&self, package: &str) -> Result<(), Stop> {
        tool::read(self.run("apt-get").args(["download", package]))?;
        let file = self.package()?;
        tool::read(
            Command::new("dpkg-deb")
                .arg("-x")
                .args([&file, self.folder]),
        )?;
        fs::remove_file(&file).map_err(|why| broken(self.folder, &why))
    }

    fn package(&self) -> Result<PathBuf, Stop> {
        fs::read_dir(self.folder)
            .map_err(|why| broken(self.folder, &why))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|end| end == "deb"))
            .ok_or_else(|| Stop::CouldNotRun("apt-get left no package".into()))
    }

    /// Forgets the lists.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if they cannot be removed.
    pub(crate) fn end(self) -> Result<(), Stop> {
        let lists = fs::remove_dir_all(self.folder.join("state"));
        lists.map_err(|why| broken(self.folder, &why))
    }
}

fn broken(folder: &Path, why: &std::io::Error) -> Stop {
    Stop::CouldNotRun(format!("{}: {why}", folder.display()))
}
