//! A disk with the application on it, as UEFI wants one: a FAT file system.

use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Write};
use std::path::Path;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Where the application is on every disk.
pub(super) const APPLICATION: &str = "EFI/tools/portcullis-probe.efi";
/// Where it is to leave its report: beside itself.
const REPORT: &str = "EFI/tools/portcullis-probe.txt";
/// Room for a boot loader, the application and what it leaves.
const SIZE_BYTES: u64 = 16 << 20;

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

/// Makes the disk with these files, in place of any that was there.
pub(super) fn make(path: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let disk = open(path)?;
    disk.set_len(0)?;
    disk.set_len(SIZE_BYTES)?;
    fatfs::format_volume(&disk, FormatVolumeOptions::new())?;
    let volume = FileSystem::new(&disk, FsOptions::new())?;
    for (name, bytes) in files {
        // As it stands in a path of UEFI's: folders first.
        for (end, _) in name.match_indices('/') {
            volume.root_dir().create_dir(&name[..end])?;
        }
        volume.root_dir().create_file(name)?.write_all(bytes)?;
    }
    Ok(())
}

/// What the application saved.
pub(super) fn saved(path: &Path) -> Result<String> {
    let disk = open(path)?;
    let volume = FileSystem::new(&disk, FsOptions::new())?;
    let mut text = String::new();
    volume
        .root_dir()
        .open_file(REPORT)?
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_holds_its_files_and_nothing_saved() {
        let path = std::env::temp_dir().join(format!("portcullis-disk-{}", std::process::id()));
        let files: [(&str, &[u8]); 2] = [(APPLICATION, b"MZ"), ("startup.nsh", b"reset")];
        make(&path, &files).expect("a disk");
        assert!(saved(&path).is_err());
        let disk = open(&path).expect("the disk");
        let volume = FileSystem::new(&disk, FsOptions::new()).expect("a file system");
        for (name, bytes) in files {
            let mut read = Vec::new();
            let file = volume.root_dir().open_file(name);
            file.expect("the file")
                .read_to_end(&mut read)
                .expect("its bytes");
            assert_eq!(read, bytes, "{name}");
        }
        std::fs::remove_file(&path).expect("it was there");
    }
}
