//! `portcullis-probe.efi`: the report, on the console and in a file.
#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod efi;

/// There is nothing to probe from within another operating system.
#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("an EFI application: `cargo xtask probe` builds it and runs it in QEMU");
}
