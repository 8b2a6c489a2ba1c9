//! Picks the board whose constants go into the image, and the linker script.
//!
//! A folder `boards/NAME/` with a `board.rs` *is* a board: `PORTCULLIS_BOARD=NAME` (default
//! `qemu-virt`) chooses it. The library and the host's builds need none of this.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=PORTCULLIS_BOARD");
    println!("cargo:rerun-if-changed=linker.ld");
    println!("cargo:rerun-if-changed=boards");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    embed_guest();
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let name = env::var("PORTCULLIS_BOARD").unwrap_or_else(|_| "qemu-virt".into());
    let board = root.join("boards").join(&name).join("board.rs");
    assert!(
        board.is_file(),
        "no board `{name}`: {} does not exist",
        board.display()
    );
    println!("cargo:rustc-env=PORTCULLIS_BOARD_RS={}", board.display());
    // As link arguments of the binaries, not as rustflags: an environment's RUSTFLAGS cannot
    // replace them.
    // The prebuilt `core` keeps its tables of pointers in read-only sections; the image relocates
    // them all before it maps them read-only.
    println!("cargo:rustc-link-arg-bins=-znotext");
    println!(
        "cargo:rustc-link-arg-bins=-T{}",
        root.join("linker.ld").display()
    );
}

/// The guest that the image has with it: the arm64 Image that `PORTCULLIS_GUEST` names, or none.
fn embed_guest() {
    println!("cargo:rerun-if-env-changed=PORTCULLIS_GUEST");
    let guest = env::var_os("PORTCULLIS_GUEST").map(PathBuf::from);
    let guest = guest.unwrap_or_else(|| {
        let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
        let none = out.join("no-guest");
        std::fs::write(&none, []).expect("OUT_DIR can be written to");
        none
    });
    println!("cargo:rerun-if-changed={}", guest.display());
    println!("cargo:rustc-env=PORTCULLIS_GUEST_IMAGE={}", guest.display());
}
