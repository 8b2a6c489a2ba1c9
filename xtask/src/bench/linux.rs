//! A stock Debian kernel on the same QEMU SMMUv3, beside ours: what either tells the SMMU of an NVMe
//! controller.
//!
//! | row | here | Linux |
//! |---|---|---|
//! | `qemu.attach` | a stream gets a stage 2 | the controller is found on its bus: its stream gets a domain |
//! | `qemu.detach` | a stream loses it, and the tag goes | the controller is taken from its bus |
//! | `qemu.unmap_8m` | 8 MiB are unmapped | 8 MiB are read: each request's memory is unmapped |
//! | `qemu.unbind`, `qemu.bind` | nothing alike | its driver lets go of it, and takes it |
//!
//! The kernel and a shell are packages of Debian's for arm64, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::{Object, ObjectSection};

use super::Wanted;
use super::initramfs::Archive;
use super::report::Row;
use super::trace::{self, Event, syncs};
use crate::board;
use crate::console::End;
use crate::foreign::Arm64;
use crate::guest::{self, Echo};
use crate::image::{self, Kind};
use crate::qemu;
use crate::stop::{Stop, progress};
use crate::tool;

/// What the rows call the peer.
const PEER: &str = "Debian's kernel";
/// A kernel with its drivers, whatever its version is now.
const KERNEL: &str = "linux-image-arm64";
const SHELL: (&str, &str) = ("busybox-static", "bin/busybox");
/// The driver; what it depends on comes before it.
const DRIVER: &str = "nvme";
const LIMIT: Duration = Duration::from_secs(300);
const BOARD: &str = "qemu-virt";

/// What the kernel's first program does. A line of the kernel's log comes out at once, before what
/// follows it is done. It leaves the machine on: a kernel that ends has the last word.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
say() { busybox sleep 0.2; echo "<1>portcullis: $1." > /dev/kmsg; busybox sleep 0.1; }
await() {
    tries=0
    while [ ! -b /dev/nvme0n1 ]; do
        tries=$((tries + 1))
        [ $tries -gt 600 ] && { echo "end: no NVMe" > /dev/console; busybox sleep 60; }
        busybox sleep 0.1
    done
    busybox sleep 0.5
}
while read module; do busybox insmod "/modules/$module"; done < /modules/order
await
for link in /sys/bus/pci/drivers/nvme/0*; do function=$(busybox readlink -f "$link"); done
address=${function##*/}
say read
busybox dd if=/dev/nvme0n1 of=/dev/null bs=1048576 count=8 2> /dev/null
say unbind
echo "$address" > /sys/bus/pci/drivers/nvme/unbind
say bind
echo "$address" > /sys/bus/pci/drivers/nvme/bind
await
say remove
echo 1 > "$function/remove"
say rescan
echo 1 > /sys/bus/pci/rescan
await
say over
echo "end: ok" > /dev/console
while true; do busybox sleep 60; done
"#;

/// What it prints before each of its steps, and at the end.
const STEPS: [&str; 6] = ["read", "unbind", "bind", "remove", "rescan", "over"];

/// What a kernel is started with.
struct Linux {
    kernel: PathBuf,
    initramfs: PathBuf,
}

/// The rows, or why there are none.
///
/// # Errors
///
/// `Failed` if what was started does not do what it did; that there is no kernel to be had is no
/// error, but the `Err` inside.
pub(super) fn rows(wanted: &Wanted, folder: &Path) -> Result<Result<Vec<Row>, String>, Stop> {
    if wanted.is_quick || !wanted.filter.may_want(&["qemu."]) {
        return Ok(Ok(Vec::new()));
    }
    qemu::ensure()?;
    let linux = match Linux::get(&folder.join("linux")) {
        Ok(linux) => linux,
        Err(why) => return Ok(Err(format!("Debian's kernel beside ours: {why}"))),
    };
    let theirs = linux.run(folder)?;
    let ours = ours(folder)?;
    compare(&ours, &theirs).map(Ok)
}

impl Linux {
    /// Debian's kernel with a shell and the driver, got when it is wanted for the first time.
    fn get(folder: &Path) -> Result<Self, Stop> {
        let linux = Self {
            kernel: folder.join("vmlinuz"),
            initramfs: folder.join("initramfs"),
        };
        if linux.kernel.is_file() && linux.initramfs.is_file() {
            return Ok(linux);
        }
        let apt = Arm64::begin(folder, KERNEL)?;
        let package = dependency(&tool::read(apt.run("apt-cache").args(["depends", KERNEL]))?)?;
        progress(&format!("getting {package} (some 60 MB)"));
        apt.unpack(&package)?;
        apt.unpack(SHELL.0)?;
        apt.end()?;
        let broken = |why| Stop::CouldNotRun(format!("{}: {why}", folder.display()));
        let version = package.trim_start_matches("linux-image-").to_owned();
        let initramfs = initramfs(folder, &version)?;
        fs::write(&linux.initramfs, initramfs).map_err(broken)?;
        // Last: that both files are there says that all is.
        fs::rename(
            folder.join("boot").join(format!("vmlinuz-{version}")),
            &linux.kernel,
        )
        .map_err(broken)?;
        Ok(linux)
    }

    /// Runs it, and says what it did.
    fn run(&self, folder: &Path) -> Result<Vec<Event>, Stop> {
        progress("running Debian's kernel with an NVMe behind QEMU's SMMUv3");
        let file = folder.join("linux.trace");
        let mut qemu = Command::new(qemu::PROGRAM);
        qemu.args([
            "-M",
            "virt,gic-version=3,iommu=smmuv3",
            "-cpu",
            "cortex-a72",
        ])
        .args([
            "-m", "1G", "-smp", "1", "-display", "none", "-monitor", "none",
        ])
        .args(["-serial", "stdio", "-net", "none", "-no-reboot"])
        .args([
            "-blockdev",
            "null-co,node-name=disk,size=67108864,read-zeroes=on",
        ])
        .args(["-device", "nvme,drive=disk,serial=PORTCULLIS0"])
        .arg("-kernel")
        .arg(&self.kernel)
        .arg("-initrd")
        .arg(&self.initramfs)
        .args([
            "-append",
            "console=ttyAMA0 quiet iommu.passthrough=0 iommu.strict=1 printk.devkmsg=on",
        ]);
        trace::record(&mut qemu, &file);
        let ran = guest::run(qemu, Some(LIMIT), Echo::Quiet, || ())?;
        match ran.end().map_err(Stop::Failed)? {
            End::Done => trace::read(&file),
            other => Err(Stop::Failed(format!("Debian's kernel ended with {other}"))),
        }
    }
}

/// The package that a package without content stands for.
fn dependency(listed: &str) -> Result<String, Stop> {
    listed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .ok_or_else(|| Stop::CouldNotRun(format!("apt names no kernel for {KERNEL}")))
}

/// The shell, the driver with all that it depends on, and what is to be done.
fn initramfs(folder: &Path, version: &str) -> Result<Vec<u8>, Stop> {
    let broken =
        |path: &Path, why: std::io::Error| Stop::CouldNotRun(format!("{}: {why}", path.display()));
    let mut archive = Archive::default();
    for name in ["bin", "dev", "proc", "sys", "modules"] {
        archive.folder(name);
    }
    archive.console();
    archive.file("init", INIT.as_bytes());
    let shell = folder.join(SHELL.1);
    archive.file(
        "bin/busybox",
        &fs::read(&shell).map_err(|why| broken(&shell, why))?,
    );
    let mut modules = Modules::find(&folder.join("lib/modules").join(version).join("kernel"))?;
    modules.want(DRIVER)?;
    let mut order = String::new();
    for (name, content) in &modules.wanted {
        archive.file(&format!("modules/{name}"), content);
        order += &format!("{name}\n");
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

/// A kernel's drivers, as files.
struct Modules {
    files: Vec<PathBuf>,
    /// In the order in which they go in.
    wanted: Vec<(String, Vec<u8>)>,
}

impl Modules {
    fn find(folder: &Path) -> Result<Self, Stop> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder)
                .map_err(|why| Stop::CouldNotRun(format!("{}: {why}", folder.display())))?;
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        Ok(Self {
            files,
            wanted: Vec::new(),
        })
    }

    /// Takes a module, after all that it depends on.
    fn want(&mut self, name: &str) -> Result<(), Stop> {
        let name = name.replace('-', "_");
        if self.wanted.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        // What is no file is part of the kernel.
        let Some(content) = self.read(&name)? else {
            return Ok(());
        };
        for dependency in depends(&content)? {
            self.want(&dependency)?;
        }
        self.wanted.push((name, content));
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Stop> {
        let is_it = |path: &&PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let stem = file.split('.').next().unwrap_or_default();
            stem.replace('-', "_") == name
        };
        let Some(path) = self.files.iter().find(is_it) else {
            return Ok(None);
        };
        let plain = path.with_extension("");
        let plain = match path.extension().is_some_and(|end| end == "xz") {
            true if plain.is_file() => plain,
            true => {
                tool::read(
                    Command::new("xz")
                        .args(["--decompress", "--keep"])
                        .arg(path),
                )?;
                plain
            }
            false => path.clone(),
        };
        fs::read(&plain)
            .map(Some)
            .map_err(|why| Stop::CouldNotRun(format!("{}: {why}", plain.display())))
    }
}

/// What a module depends on, as it says itself.
fn depends(module: &[u8]) -> Result<Vec<String>, Stop> {
    let broken = |why: object::Error| Stop::CouldNotRun(format!("a module: {why}"));
    let file = object::File::parse(module).map_err(broken)?;
    let Some(section) = file.section_by_name(".modinfo") else {
        return Ok(Vec::new());
    };
    let info = section.data().map_err(broken)?;
    let fields = info.split(|byte| *byte == 0);
    let names = fields
        .filter_map(|field| field.strip_prefix(b"depends="))
        .flat_map(|names| names.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty());
    Ok(names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// The image's self-check, in which an NVMe's stream gets a stage 2, and loses it.
fn ours(folder: &Path) -> Result<Vec<Event>, Stop> {
    let board = board::load(BOARD)?;
    let image = image::build(&board, Kind::Plain)?;
    progress("running the image with an NVMe behind QEMU's SMMUv3");
    let file = folder.join("image.trace");
    let mut qemu = qemu::with_kernel(qemu::machine(board.qemu()?, 1), &image.raw, "");
    trace::record(&mut qemu, &file);
    let ran = guest::run(qemu, Some(LIMIT), Echo::Quiet, || ())?;
    match ran.end().map_err(Stop::Failed)? {
        End::Done => trace::read(&file),
        other => Err(Stop::Failed(format!("the image ended with {other}"))),
    }
}

/// The check of the self-check in which it is done, and the one before it.
const CHECK: (&str, &str) = (
    "check stage2-protect-read-only: ok",
    "check nvme-identify-stage2: ok",
);

/// The three parts of that check's commands: what attaches, what unmaps, what detaches. Taking the
/// SMMU over comes before, shutting it after them.
fn parts<'a>(commands: &[&'a str]) -> Option<[Vec<&'a str>; 3]> {
    let is_ours = |name: &str| name == "CFGI_STE";
    let attach = commands.iter().position(|name| is_ours(name))?;
    let unmap = attach
        + commands[attach..]
            .iter()
            .position(|it| it.starts_with("TLBI_S2"))?;
    let detach = unmap + commands[unmap..].iter().position(|name| is_ours(name))?;
    let shut = commands[detach..]
        .iter()
        .position(|it| it.starts_with("CFGI_") && !is_ours(it))?;
    Some([
        commands[attach..unmap].to_vec(),
        commands[unmap..detach].to_vec(),
        commands[detach..detach + shut].to_vec(),
    ])
}

/// The commands about a stream's entry, of all that happened when a device came or went: from the
/// first to the SYNC behind the last of them, and of a tag of which it was the last user.
fn of_stream<'a>(commands: &[&'a str]) -> Vec<&'a str> {
    let is_of_it = |name: &str| {
        name.starts_with("CFGI_") || name.starts_with("PREFETCH") || name == "TLBI_NH_ASID"
    };
    let mut found = Vec::new();
    let mut open = false;
    for name in commands {
        if is_of_it(name) {
            open = true;
        } else if *name != "SYNC" {
            open = false;
        }
        if open {
            found.push(*name);
        }
    }
    found
}

fn compare(ours: &[Event], theirs: &[Event]) -> Result<Vec<Row>, Stop> {
    let lost = |what: &str| Stop::Failed(format!("the trace has no {what}"));
    let check = trace::between(ours, CHECK.0, CHECK.1).ok_or_else(|| lost(CHECK.1))?;
    let [attach, unmap, detach] = parts(&check).ok_or_else(|| lost("attach, unmap and detach"))?;
    let mut linux = Vec::new();
    for pair in STEPS.windows(2) {
        let marks = [0, 1].map(|at| format!("portcullis: {}.", pair[at]));
        let commands = trace::between(theirs, &marks[0], &marks[1]);
        linux.push(commands.ok_or_else(|| lost(pair[0]))?);
    }
    let [read, unbind, bind, remove, rescan] = &linux[..] else {
        return Err(lost("steps"));
    };
    let mut rows = Vec::new();
    let mut pair = |name: &str, ours: &[&str], theirs: &[&str]| {
        let row =
            |what: &str, value: u64| Row::new(format!("qemu.{name}.{what}"), value as f64, what);
        rows.push(row("syncs", syncs(ours)).beside(PEER, syncs(theirs) as f64));
        let commands = row("commands", ours.len() as u64);
        rows.push(commands.beside(PEER, theirs.len() as f64));
    };
    let (found, gone) = (of_stream(rescan), of_stream(remove));
    // What did not happen would look cheap.
    if found.is_empty() || gone.is_empty() || read.is_empty() || unbind.is_empty() {
        return Err(lost("commands of Debian's kernel for its steps"));
    }
    pair("attach", &attach, &found);
    pair("detach", &detach, &gone);
    pair("unmap_8m", &unmap, read);
    for (name, commands) in [("unbind", unbind), ("bind", bind)] {
        for (what, count) in [
            ("syncs", syncs(commands)),
            ("commands", commands.len() as u64),
        ] {
            let name = format!("qemu.linux_{name}.{what}");
            rows.push(Row::new(name, count as f64, what));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_cut_at_its_own_commands() {
        let commands = [
            "CFGI_STE_RANGE",
            "SYNC",
            "TLBI_NSNH_ALL",
            "SYNC",
            "CFGI_STE",
            "SYNC",
            "CFGI_STE",
            "SYNC",
            "TLBI_S2_IPA",
            "SYNC",
            "CFGI_STE",
            "SYNC",
            "TLBI_S12_VMALL",
            "SYNC",
            "CFGI_STE_RANGE",
            "SYNC",
        ];
        let [attach, unmap, detach] = parts(&commands).expect("all three are there");
        assert_eq!(attach, ["CFGI_STE", "SYNC", "CFGI_STE", "SYNC"]);
        assert_eq!(unmap, ["TLBI_S2_IPA", "SYNC"]);
        assert_eq!(detach, ["CFGI_STE", "SYNC", "TLBI_S12_VMALL", "SYNC"]);
        assert_eq!(parts(&commands[..8]), None);
    }

    #[test]
    fn of_a_device_that_comes_only_its_streams_commands_count() {
        let commands = [
            "CFGI_STE",
            "SYNC",
            "PREFETCH_CONFIG",
            "TLBI_NH_VA",
            "SYNC",
            "TLBI_NH_ASID",
            "SYNC",
        ];
        let expected = [
            "CFGI_STE",
            "SYNC",
            "PREFETCH_CONFIG",
            "TLBI_NH_ASID",
            "SYNC",
        ];
        assert_eq!(of_stream(&commands), expected);
    }

    #[test]
    fn the_kernels_name_is_what_its_package_depends_on() {
        let listed = "linux-image-arm64\n  Depends: linux-image-6.1.0-56-arm64\n";
        assert_eq!(dependency(listed), Ok("linux-image-6.1.0-56-arm64".into()));
        assert!(dependency("linux-image-arm64\n").is_err());
    }

    #[test]
    fn every_step_is_said_before_it_is_done() {
        for step in STEPS {
            assert!(INIT.contains(&format!("say {step}\n")), "{step}");
        }
    }
}
