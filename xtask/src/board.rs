//! The boards: each folder `boards/NAME` with a `board.toml` is one.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::stop::Stop;
use crate::tool;

/// What `board.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Board {
    /// The folder's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// One line.
    pub(crate) description: String,
    /// How the Image gets onto the board.
    pub(crate) deploy: String,
    /// How QEMU models it; nothing where QEMU does not.
    pub(crate) qemu: Option<Qemu>,
}

/// A board as QEMU models it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Qemu {
    /// The value of `-M`.
    pub(crate) machine: String,
    /// The value of `-cpu`.
    pub(crate) cpu: String,
    /// The value of `-m`.
    pub(crate) memory: String,
    /// Where QEMU puts the Image: the debugger's offset.
    pub(crate) image_address: u64,
    /// The values of `-device`.
    pub(crate) devices: Vec<String>,
    /// All else.
    pub(crate) args: Vec<String>,
}

fn could_not_read(path: &Path, error: impl std::fmt::Display) -> Stop {
    Stop::CouldNotRun(format!("{}: {error}", path.display()))
}

/// The names of all boards, sorted.
///
/// # Errors
///
/// `CouldNotRun` if the folder cannot be read.
pub(crate) fn names() -> Result<Vec<String>, Stop> {
    let folder = tool::root().join("boards");
    let entries = fs::read_dir(&folder).map_err(|error| could_not_read(&folder, error))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("board.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// The board called `name`.
///
/// # Errors
///
/// `CouldNotRun` with the names that exist if there is none of this name, or with the place in the
/// file if its `board.toml` does not parse.
pub(crate) fn load(name: &str) -> Result<Board, Stop> {
    let names = names()?;
    if !names.iter().any(|known| known == name) {
        return Err(Stop::CouldNotRun(format!(
            "no board `{name}`; the boards are: {}",
            names.join(", ")
        )));
    }
    let path = tool::root().join("boards").join(name).join("board.toml");
    let text = fs::read_to_string(&path).map_err(|error| could_not_read(&path, error))?;
    let mut board: Board = toml::from_str(&text).map_err(|error| could_not_read(&path, error))?;
    name.clone_into(&mut board.name);
    Ok(board)
}

impl Board {
    /// How QEMU models this board.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if it does not.
    pub(crate) fn qemu(&self) -> Result<&Qemu, Stop> {
        self.qemu.as_ref().ok_or_else(|| {
            Stop::CouldNotRun(format!(
                "QEMU does not model the board `{0}`; `cargo xtask image --board {0}` builds for it",
                self.name
            ))
        })
    }
}

/// `cargo xtask boards`.
///
/// # Errors
///
/// As [`names`] and [`load`].
pub(crate) fn list() -> Result<(), Stop> {
    for name in names()? {
        println!("{name:<16} {}", load(&name)?.description);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_of_the_repository_parses() {
        let names = names().expect("the boards");
        assert!(names.contains(&"qemu-virt".to_owned()));
        for name in names {
            let board = load(&name).expect("a board.toml that parses");
            assert_eq!(board.name, name);
            assert_eq!(board.description.lines().count(), 1, "{name}");
            assert!(!board.deploy.trim().is_empty(), "{name}");
        }
    }

    #[test]
    fn an_unknown_board_is_refused_with_the_names_that_exist() {
        for name in ["nix", "", ".", "../boards/qemu-virt"] {
            let Err(Stop::CouldNotRun(why)) = load(name) else {
                panic!("{name:?} was taken for a board");
            };
            assert!(why.contains("qemu-virt"), "{why}");
        }
    }

    #[test]
    fn a_board_without_qemu_says_what_can_be_done() {
        let mut board: Board =
            toml::from_str("description = \"d\"\ndeploy = \"e\"\n").expect("two keys suffice");
        board.name = "b".into();
        let why = board.qemu().expect_err("no [qemu]").to_string();
        assert!(why.contains("cargo xtask image --board b"), "{why}");
    }

    #[test]
    fn an_unknown_key_in_board_toml_is_an_error() {
        let text = "description = \"d\"\ndeploy = \"e\"\nmachine = \"virt\"\n";
        assert!(toml::from_str::<Board>(text).is_err());
    }
}
