//! Guests beside the image: their images in memory, and `/chosen` nodes that describe them
//! (`GUESTS.md`).

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, ToPropertyValue};

use crate::board::{Board, Qemu};
use crate::image::{self, Recipe};
use crate::model::{RAM_BASE, memory_bytes};
use crate::qemu;
use crate::stop::Stop;
use crate::tool;

/// Images lie at multiples of this.
const STEP_BYTES: u64 = 2 << 20;
/// Memory of a guest unless asked otherwise.
const MEMORY_MIB: u64 = 64;

/// The arguments of every command that can start guests.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Run this guest: an arm64 Image, or the name of a guest of this repository, such as `first`
    /// (may be given more than once)
    #[arg(long, value_name = "PATH|NAME")]
    guest: Vec<String>,
    /// The devices of the guest, by commas: nodes by name, PCI functions as SSSS:BB:DD.F; once for
    /// each guest [default: all, to the first]
    #[arg(long, value_name = "LIST", requires = "guest")]
    guest_devices: Vec<String>,
    /// The CPUs of the guest, as FIRST-LAST; once for each guest [default: as many for each]
    #[arg(long, value_name = "RANGE", requires = "guest", value_parser = cpu_range)]
    guest_cpus: Vec<Cpus>,
    /// How much memory each guest gets, in MiB [default: 64]
    #[arg(long, value_name = "MIB", requires = "guest")]
    guest_memory: Option<u64>,
}

/// CPUs in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpus {
    first: u32,
    last: u32,
}

fn cpu_range(text: &str) -> Result<Cpus, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Cpus { first, last }),
        _ => Err("two numbers, such as 1-3".into()),
    }
}

/// A guest that is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// What it is called.
    pub(crate) name: String,
    /// Its arm64 Image.
    pub(crate) image: PathBuf,
    /// How much memory it gets.
    pub(crate) memory_bytes: u64,
    /// Its CPUs, by affinity: on `virt`, with fewer than 16, their numbers.
    pub(crate) cpus: Range<u32>,
    /// Its devices, as the node has them.
    pub(crate) devices: Vec<String>,
}

/// What is built when a guest of this repository is asked for by its name: `tests/guests/NAME`, whose
/// package is called `guest-NAME`.
fn recipe(name: &str) -> Option<Recipe> {
    let is_name = name.bytes().all(|it| it.is_ascii_lowercase() || it == b'-');
    let folder = tool::root().join("tests/guests").join(name);
    let package = format!("guest-{name}");
    let is_there = is_name && folder.join("src/main.rs").is_file();
    is_there.then(|| Recipe {
        suffix: format!("-{package}").leak(),
        package: package.leak(),
        feature: "image",
    })
}

/// The guest `name` of this repository, built.
///
/// # Errors
///
/// As [`image::build_from`].
pub(crate) fn build(board: &Board, name: &str) -> Result<PathBuf, Stop> {
    let recipe = recipe(name).ok_or_else(|| {
        Stop::CouldNotRun(format!("no guest `{name}`: neither a file nor one of ours"))
    })?;
    Ok(image::build_from(board, recipe)?.raw)
}

impl Arguments {
    /// Whether nobody asks for a guest.
    pub(crate) fn is_empty(&self) -> bool {
        self.guest.is_empty()
    }

    /// The guests asked for, on a machine with so many CPUs; those of this repository are built, also
    /// where nothing else is: their length is in the command line.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` for what is no guest; `Failed` for one that does not build.
    pub(crate) fn guests(
        &self,
        board: &Board,
        cpus: u32,
        all_devices: &[String],
    ) -> Result<Vec<Guest>, Stop> {
        let count = self.guest.len() as u32;
        let mut guests = Vec::new();
        for (at, asked) in self.guest.iter().enumerate() {
            let image = match Path::new(asked).is_file() {
                true => PathBuf::from(asked),
                false => build(board, asked)?,
            };
            let devices = match self.guest_devices.get(at) {
                Some(list) => list
                    .split(',')
                    .filter(|it| !it.is_empty())
                    .map(String::from)
                    .collect(),
                None if at == 0 && self.guest_devices.is_empty() => all_devices.to_vec(),
                None => Vec::new(),
            };
            let share = |at: u32| (cpus * at / count)..(cpus * (at + 1) / count);
            let asked_cpus = self.guest_cpus.get(at);
            guests.push(Guest {
                name: name(asked, at),
                image,
                memory_bytes: self.guest_memory.unwrap_or(MEMORY_MIB) << 20,
                cpus: asked_cpus.map_or_else(|| share(at as u32), |it| it.first..it.last + 1),
                devices,
            });
        }
        Ok(guests)
    }
}

/// A name for the guest from what was asked for: letters, digits and hyphens, each name once.
fn name(asked: &str, at: usize) -> String {
    let stem = Path::new(asked).file_stem();
    let stem = stem.map_or_else(String::new, |it| it.to_string_lossy().to_lowercase());
    let kept = stem
        .chars()
        .filter(|it| it.is_ascii_alphanumeric() || *it == '-');
    let kept: String = kept.take(12).collect();
    match (kept.is_empty(), at) {
        (true, at) => format!("guest-{at}"),
        (false, 0) => kept,
        (false, at) => format!("{kept}-{at}"),
    }
}

/// The PCI functions that the board gives QEMU to model, which its guests may have.
pub(crate) fn native_devices() -> Vec<String> {
    [
        "0000:00:02.0",
        "0000:00:03.0",
        "0000:00:04.0",
        "0000:01:00.0",
    ]
    .map(String::from)
    .to_vec()
}

/// A guest whose image has a place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    guest: Guest,
    at: u64,
    bytes: u64,
}

/// Gives each image a place at the top of RAM, below the bytes that are reserved there: the model's.
///
/// # Errors
///
/// `CouldNotRun` if an image cannot be read or there is no room.
pub(crate) fn place(
    guests: &[Guest],
    board: &Qemu,
    reserved_bytes: u64,
) -> Result<Vec<Placed>, Stop> {
    let no_room = || Stop::CouldNotRun(format!("no room for guests in `-m {}`", board.memory));
    let ram = memory_bytes(&board.memory).ok_or_else(no_room)?;
    let mut top = (RAM_BASE + ram)
        .checked_sub(reserved_bytes)
        .ok_or_else(no_room)?;
    let mut placed = Vec::new();
    for guest in guests {
        let image = &guest.image;
        let data = fs::metadata(image)
            .map_err(|why| Stop::CouldNotRun(format!("{}: {why}", image.display())))?;
        let bytes = data.len();
        let at = top.checked_sub(bytes).ok_or_else(no_room)? / STEP_BYTES * STEP_BYTES;
        // The image, its tree and the first guest's memory are below.
        if at < RAM_BASE + ram / 2 {
            return Err(no_room());
        }
        top = at;
        placed.push(Placed {
            guest: guest.clone(),
            at,
            bytes,
        });
    }
    Ok(placed)
}

/// QEMU's arguments that put the images into memory.
pub(crate) fn loaders(placed: &[Placed]) -> Vec<OsString> {
    let loader = |it: &Placed| {
        let file = qemu::option_value(&it.guest.image);
        let mut words = OsString::from(format!("loader,file={file}"));
        words.push(format!(",addr={:#x},force-raw=on", it.at));
        [OsString::from("-device"), words]
    };
    placed.iter().flat_map(loader).collect()
}

/// The tree in `file`, with the guests.
///
/// # Errors
///
/// A sentence, if it cannot be read or written.
pub(crate) fn describe(file: &Path, placed: &[Placed]) -> Result<(), String> {
    if placed.is_empty() {
        return Ok(());
    }
    let broken = |why: std::io::Error| format!("{}: {why}", file.display());
    let blob = fs::read(file).map_err(broken)?;
    let edited = edit(&blob, placed)?;
    fs::write(file, edited).map_err(broken)
}

fn edit(blob: &[u8], placed: &[Placed]) -> Result<Vec<u8>, String> {
    let fdt = Fdt::new(blob).map_err(|why| format!("QEMU's tree: {why}"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    if tree.root.child("chosen").is_none() {
        tree.root
            .add_child(DeviceTreeNode::new("chosen").map_err(|why| why.to_string())?);
    }
    let chosen = tree.root.child_mut("chosen").ok_or("no /chosen")?;
    for (number, placed) in placed.iter().enumerate() {
        chosen.add_child(node(number, placed)?);
    }
    Ok(tree.to_dtb())
}

fn node(number: usize, placed: &Placed) -> Result<DeviceTreeNode, String> {
    let Placed { guest, at, bytes } = placed;
    let mut node = DeviceTreeNode::new(format!("guest@{number}")).map_err(|why| why.to_string())?;
    set(&mut node, "compatible", "portcullis,guest")?;
    set(&mut node, "label", guest.name.as_str())?;
    set(&mut node, "image", words(&[*at, *bytes]))?;
    set(&mut node, "memory-size", words(&[guest.memory_bytes]))?;
    let cpus: Vec<u64> = guest.cpus.clone().map(u64::from).collect();
    set(&mut node, "cpus", words(&cpus))?;
    if !guest.devices.is_empty() {
        let texts: Vec<u8> = guest
            .devices
            .iter()
            .flat_map(|it| [it.as_bytes(), b"\0"].concat())
            .collect();
        set(&mut node, "devices", texts.as_slice())?;
    }
    Ok(node)
}

fn set(node: &mut DeviceTreeNode, name: &str, to: impl ToPropertyValue) -> Result<(), String> {
    let property = DeviceTreeProperty::new(name, to).map_err(|why| format!("{name}: {why}"))?;
    node.add_property(property);
    Ok(())
}

/// Numbers of two cells each.
fn words(numbers: &[u64]) -> Vec<u32> {
    numbers
        .iter()
        .flat_map(|it| [(it >> 32) as u32, *it as u32])
        .collect()
}

/// Where a run on QEMU's own SMMU leaves its tree.
pub(crate) fn native_tree(image: &image::Image) -> PathBuf {
    image.raw.with_extension("guests.dtb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::Property;

    fn guest(name: &str, cpus: Range<u32>) -> Placed {
        Placed {
            guest: Guest {
                name: name.into(),
                image: "/tmp/a,b.img".into(),
                memory_bytes: 64 << 20,
                cpus,
                devices: vec!["dma-test@5fc20000".into(), "0000:00:02.0".into()],
            },
            at: 0x5f80_0000,
            bytes: 0x1234,
        }
    }

    #[test]
    fn the_tree_gains_a_node_for_each_guest_and_keeps_what_chosen_has() {
        let mut tree = DeviceTree::new();
        let mut chosen = DeviceTreeNode::new("chosen").expect("a name");
        set(&mut chosen, "bootargs", "quiet").expect("text");
        tree.root.add_child(chosen);
        let blob = edit(&tree.to_dtb(), &[guest("a", 0..2), guest("b", 2..3)]).expect("good");
        let tree = DeviceTree::from_fdt(&Fdt::new(&blob).expect("what was written"));
        let bytes = |path: &str, name: &str| {
            let node = tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
            node.property(name).map(|it| it.value().to_vec())
        };
        assert_eq!(bytes("/chosen", "bootargs"), Some(b"quiet\0".to_vec()));
        let image = [0, 0, 0, 0, 0x5f, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
        assert_eq!(bytes("/chosen/guest@0", "image"), Some(image.to_vec()));
        let cpus = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(bytes("/chosen/guest@0", "cpus"), Some(cpus.to_vec()));
        assert_eq!(bytes("/chosen/guest@1", "label"), Some(b"b\0".to_vec()));
        let devices = b"dma-test@5fc20000\x000000:00:02.0\0";
        assert_eq!(bytes("/chosen/guest@1", "devices"), Some(devices.to_vec()));
    }

    #[test]
    fn an_image_is_loaded_raw_where_the_node_says() {
        let typed = loaders(&[guest("a", 0..1)]);
        let loader = "loader,file=/tmp/a,,b.img,addr=0x5f800000,force-raw=on";
        assert_eq!(typed, ["-device", loader]);
    }

    #[test]
    fn a_name_is_made_of_what_a_name_may_have_and_is_no_others() {
        assert_eq!(name("first", 0), "first");
        assert_eq!(name("/x/My_Kernel.img", 1), "mykernel-1");
        assert_eq!(name("...", 2), "guest-2");
        assert_eq!(name("a-very-long-name-indeed", 0), "a-very-long-");
    }

    #[test]
    fn a_range_of_cpus_is_one_number_or_two() {
        assert_eq!(cpu_range("3"), Ok(Cpus { first: 3, last: 3 }));
        assert_eq!(cpu_range("1-3"), Ok(Cpus { first: 1, last: 3 }));
        assert!(cpu_range("3-1").is_err() && cpu_range("").is_err());
    }
}
