//! Packages by apt, on the machines where we may install.

use std::fs;
use std::process::Command;

use crate::stop::{Stop, progress};
use crate::tool;
use crate::version::Version;

/// The signatures of Debian's archive, where the package `debian-archive-keyring` has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The one file that this set-up adds to apt's sources.
const SOURCE_FILE: &str = "/etc/apt/sources.list.d/portcullis-backports.list";

/// apt, with the right to install.
pub(crate) struct Apt {
    prefix: &'static [&'static str],
}

/// One row of the sources that apt knows: an archive and one suite of it.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

impl Apt {
    /// apt, if it is here and we are root or may become root without a password.
    pub(crate) fn find() -> Option<Self> {
        if !tool::succeeds(Command::new("apt-get").arg("--version")) {
            return None;
        }
        let uid = tool::read(Command::new("id").arg("-u")).ok()?;
        if uid.trim() == "0" {
            return Some(Self { prefix: &[] });
        }
        tool::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(Self {
            prefix: &["sudo", "-n"],
        })
    }

    fn as_root(&self, program: &str) -> Command {
        let mut words = self.prefix.iter().copied().chain([
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "LC_ALL=C",
            program,
        ]);
        let mut command = Command::new(words.next().unwrap_or("env"));
        command.args(words);
        command
    }

    fn apt_get(&self, arguments: &[&str]) -> Result<(), Stop> {
        // Another apt at work is waited for, not an error.
        let mut command = self.as_root("apt-get");
        command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
        tool::read(command.args(arguments)).map(drop)
    }

    /// Installs `package` in version `least` or newer, from the machine's own suites or, on
    /// Debian, from the backports of its release.
    ///
    /// # Errors
    ///
    /// `Failed` if apt fails or has nothing new enough. A backports source that was added and
    /// cannot be read is taken out again.
    pub(crate) fn install_at_least(&self, package: &str, least: Version) -> Result<(), Stop> {
        progress("reading the package lists (apt-get update)");
        self.apt_get(&["update"])?;
        if candidate(package)?.is_some_and(|version| version >= least) {
            return self.install(package, None);
        }
        let Some(codename) = debian_codename() else {
            return Err(Stop::Failed(format!(
                "apt has no {package} of version {least} or newer"
            )));
        };
        let suite = format!("{codename}-backports");
        self.add_suite(&codename, &suite)?;
        self.install(package, Some(&suite))
    }

    /// Installs `package` in whatever version the machine's own suites have.
    ///
    /// # Errors
    ///
    /// `Failed` if apt fails.
    pub(crate) fn install_any(&self, package: &str) -> Result<(), Stop> {
        progress("reading the package lists (apt-get update)");
        self.apt_get(&["update"])?;
        self.install(package, None)
    }

    fn install(&self, package: &str, suite: Option<&str>) -> Result<(), Stop> {
        let from = suite.map_or(String::new(), |suite| format!(" from {suite}"));
        progress(&format!("installing {package}{from} (apt-get, some 25 MB)"));
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        if let Some(suite) = suite {
            arguments.extend(["-t", suite]);
        }
        arguments.push(package);
        self.apt_get(&arguments)
    }

    fn add_suite(&self, codename: &str, suite: &str) -> Result<(), Stop> {
        let Some(line) = missing_source(&sources()?, codename, suite)? else {
            return Ok(());
        };
        progress(&format!("adding the suite {suite} in {SOURCE_FILE}"));
        tool::feed(self.as_root("tee").arg(SOURCE_FILE), &line)?;
        progress(&format!("reading the package lists of {suite}"));
        self.apt_get(&["update"]).inspect_err(|_| {
            let _ = tool::read(self.as_root("rm").args(["-f", SOURCE_FILE]));
        })
    }
}

/// The line that makes `suite` known, from the archive that has `codename`; `None` if `suite` is
/// known already: to apt a second entry for one suite, with another key, is an error.
///
/// # Errors
///
/// `Failed` if no source has `codename`.
fn missing_source(known: &[Source], codename: &str, suite: &str) -> Result<Option<String>, Stop> {
    if known.iter().any(|source| source.suite == suite) {
        return Ok(None);
    }
    let release = known.iter().find(|source| source.suite == codename);
    let Source { uri, .. } = release
        .ok_or_else(|| Stop::Failed(format!("apt's sources do not name the suite {codename}")))?;
    Ok(Some(format!(
        "deb [signed-by={KEYRING}] {uri} {suite} main\n"
    )))
}

/// The codename of this Debian release; `None` on anything else.
pub(crate) fn debian_codename() -> Option<String> {
    codename_of(&fs::read_to_string("/etc/os-release").ok()?)
}

fn codename_of(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    if value("ID")? != "debian" {
        return None;
    }
    value("VERSION_CODENAME").map(str::to_owned)
}

/// The version of `package` that a plain install would bring.
///
/// # Errors
///
/// As `apt-cache` ends.
fn candidate(package: &str) -> Result<Option<Version>, Stop> {
    let mut command = Command::new("apt-cache");
    let policy = tool::read(command.env("LC_ALL", "C").args(["policy", package]))?;
    Ok(candidate_of(&policy))
}

fn candidate_of(policy: &str) -> Option<Version> {
    let full = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let upstream = full.split_once(':').map_or(full, |(_epoch, rest)| rest);
    Version::at_start_of(upstream)
}

fn sources() -> Result<Vec<Source>, Stop> {
    let mut command = Command::new("apt-get");
    command.args([
        "-o",
        // Without this apt names only what an update has already read.
        "APT::Get::IndexTargets::ReleaseInfo=false",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]);
    tool::read(&mut command).map(|rows| sources_of(&rows))
}

fn sources_of(rows: &str) -> Vec<Source> {
    rows.lines()
        .filter_map(|row| row.split_once(' '))
        .map(|(uri, suite)| Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_indextargets_name_archive_and_suite() {
        let rows = "http://deb.example.org/debian/ bookworm\n\
                    http://deb.example.org/debian-security/ bookworm-security\n";
        let sources = sources_of(rows);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].uri, "http://deb.example.org/debian/");
        assert_eq!(sources[0].suite, "bookworm");
        assert_eq!(sources[1].suite, "bookworm-security");
    }

    #[test]
    fn backports_come_from_the_archive_of_the_release_and_only_once() {
        let release = "http://deb.example.org/debian-security/ bookworm-security\n\
                       http://deb.example.org/debian/ bookworm\n";
        let line = missing_source(&sources_of(release), "bookworm", "bookworm-backports");
        let expected = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                        http://deb.example.org/debian/ bookworm-backports main\n";
        assert_eq!(line, Ok(Some(expected.into())));
        let both = format!("{release}http://deb.example.org/debian/ bookworm-backports\n");
        let line = missing_source(&sources_of(&both), "bookworm", "bookworm-backports");
        assert_eq!(line, Ok(None));
        let other = missing_source(&sources_of(release), "trixie", "trixie-backports");
        assert!(matches!(other, Err(Stop::Failed(_))));
    }

    #[test]
    fn the_candidate_is_compared_without_its_epoch() {
        let policy = "qemu-system-arm:\n  Installed: (none)\n  \
                      Candidate: 1:7.2+dfsg-7+deb12u18+b3\n  Version table:\n";
        assert_eq!(candidate_of(policy), Some(Version { major: 7, minor: 2 }));
        assert_eq!(candidate_of("x:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_of(""), None);
    }

    #[test]
    fn only_debian_has_a_suite_of_backports() {
        let debian = "ID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(codename_of(debian).as_deref(), Some("bookworm"));
        let quoted = "VERSION_CODENAME=\"trixie\"\nID=\"debian\"\n";
        assert_eq!(codename_of(quoted).as_deref(), Some("trixie"));
        let derived = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
        assert_eq!(codename_of(derived), None);
        assert_eq!(codename_of("ID=debian\n"), None);
    }
}
