//! A disk with the application on it, as UEFI wants one: a FAT file system.

use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Write};
use std::path::Path;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Room for the application and what it leaves.
const SIZE_BYTES: u64 = 4 << 20;
/// What UEFI's shell runs by itself.
const SCRIPT: &[u8] = b"@echo -off\r\nfs0:\r\n\\EFI\\probe.efi nopage shutdown\r\n";

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

/// Makes the disk, in place of any that was there.
pub(super) fn make(path: &Path, application: &[u8]) -> Result<()> {
    let disk = open(path)?;
    disk.set_len(0)?;
    disk.set_len(SIZE_BYTES)?;
    fatfs::format_volume(&disk, FormatVolumeOptions::new())?;
    let files = FileSystem::new(&disk, FsOptions::new())?;
    let root = files.root_dir();
    root.create_file("startup.nsh")?.write_all(SCRIPT)?;
    let folder = root.create_dir("EFI")?;
    folder.create_file("probe.efi")?.write_all(application)
}

/// What the application saved.
pub(super) fn saved(path: &Path) -> Result<String> {
    let disk = open(path)?;
    let files = FileSystem::new(&disk, FsOptions::new())?;
    let mut text = String::new();
    files
        .root_dir()
        .open_file("EFI/portcullis-probe.txt")?
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_holds_the_application_and_nothing_saved() {
        let path = std::env::temp_dir().join(format!("portcullis-disk-{}", std::process::id()));
        make(&path, b"MZ").expect("a disk");
        assert!(saved(&path).is_err());
        let disk = open(&path).expect("the disk");
        let files = FileSystem::new(&disk, FsOptions::new()).expect("a file system");
        let mut read = Vec::new();
        let file = files.root_dir().open_file("EFI/probe.efi");
        file.expect("the file")
            .read_to_end(&mut read)
            .expect("its bytes");
        assert_eq!(read, b"MZ");
        std::fs::remove_file(&path).expect("it was there");
    }
}
