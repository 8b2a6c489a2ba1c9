//! Nothing in the probe's sources can write a register, or take the machine from firmware.

use std::fs;
use std::path::{Path, PathBuf};

/// What would have an effect on the machine. `ReadOnly` has writes that carry nothing out.
const FORBIDDEN: [&str; 10] = [
    "write_volatile",
    "asm!",
    "interfaces::Writeable",
    "interfaces::ReadWriteable",
    "exit_boot_services",
    "set_variable",
    "set_virtual_address_map",
    "connect_controller",
    "enable_memory",
    "enable_bus_master",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn no_source_names_what_would_change_the_machine() {
    let mut found = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 10, "{found:?}");
    for path in &found {
        let text = fs::read_to_string(path).expect("a source");
        for word in FORBIDDEN {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
        for (number, line) in text.lines().enumerate() {
            let is_a_write = line.contains("write32(") || line.contains("write64(");
            let is_in_vain = path.ends_with("read_only.rs") && line.trim_end().ends_with("{}");
            assert!(
                !is_a_write || is_in_vain,
                "{}:{}",
                path.display(),
                number + 1
            );
        }
    }
}
