//! The guest is linked as Portcullis' own image is: at 0, to run anywhere.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=../../../linker.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    // `core` keeps tables of pointers in read-only sections, which the entry relocates.
    println!("cargo:rustc-link-arg-bins=-znotext");
    println!(
        "cargo:rustc-link-arg-bins=-T{}",
        here.join("../../../linker.ld").display()
    );
}
