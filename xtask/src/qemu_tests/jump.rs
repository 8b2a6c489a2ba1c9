//! Starting the image as a loader other than `-kernel` might: from the machine's first exception
//! level, at another address, with any tree.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::cases::Tree;
use crate::board::Qemu;
use crate::qemu;
use crate::stop::Stop;

/// Where a jump's parts lie: QEMU's own tree fills the first MiB of RAM.
const JUMP_AT: u64 = 0x4010_0000;
const IMAGE_AT: u64 = 0x4140_0000;
const TREE_AT: u64 = 0x4800_0000;

/// Sets the big-endian word at `at`; nothing if there is none.
pub(super) fn set_word(tree: &mut [u8], at: usize, value: u32) {
    if let Some(word) = tree.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *word = value.to_be_bytes();
    }
}

/// The big-endian word at `at`.
pub(super) fn word(tree: &[u8], at: usize) -> Option<u32> {
    tree.get(at..)?
        .first_chunk()
        .map(|word| u32::from_be_bytes(*word))
}

/// Code that puts `x0` into x0 and jumps to `to`.
fn code(x0: u64, to: u64) -> Vec<u8> {
    let instructions: [u32; 4] = [
        0x5800_0080, // ldr x0, .+16
        0x5800_00b0, // ldr x16, .+20
        0xd61f_0200, // br x16
        0xd503_201f, // nop
    ];
    let mut bytes: Vec<u8> = instructions.map(u32::to_le_bytes).concat();
    bytes.extend(x0.to_le_bytes());
    bytes.extend(to.to_le_bytes());
    bytes
}

/// Lets QEMU's generic loader put code, image and tree into the memory of `machine`, and its first
/// CPU at the code. `model` is what `machine` was made of with `cpus` CPUs; files go to `folder`.
///
/// # Errors
///
/// `CouldNotRun` if a file cannot be written; as QEMU ends when it is asked for its tree.
pub(super) fn prepare(
    mut machine: Command,
    (model, cpus): (&Qemu, u32),
    image: &Path,
    tree: &Tree,
    folder: &Path,
) -> Result<Command, Stop> {
    let broken = |error| Stop::CouldNotRun(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(broken)?;
    let code_file = folder.join("code");
    let x0 = match tree {
        Tree::None => 0,
        Tree::Own | Tree::Damaged(_) => TREE_AT,
    };
    fs::write(&code_file, code(x0, IMAGE_AT)).map_err(broken)?;
    load(&mut machine, &code_file, JUMP_AT, ",cpu-num=0");
    load(&mut machine, image, IMAGE_AT, "");
    if x0 != 0 {
        let tree_file = folder.join("tree");
        qemu::dump_tree(model, cpus, &tree_file)?;
        if let Tree::Damaged(damage) = tree {
            let mut bytes = fs::read(&tree_file).map_err(broken)?;
            damage(&mut bytes);
            fs::write(&tree_file, bytes).map_err(broken)?;
        }
        load(&mut machine, &tree_file, TREE_AT, "");
    }
    Ok(machine)
}

fn load(machine: &mut Command, file: &Path, at: u64, more: &str) {
    let file = qemu::option_value(file);
    let value = format!("loader,file={file},addr={at:#x},force-raw=on{more}");
    machine.args(["-device", &value]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_loads_from_behind_its_instructions() {
        let bytes = code(0x1111, 0x2222);
        assert_eq!(bytes.len(), 32);
        // LDR (literal) is 0x58000000 | imm19 << 5 | Rt, in words from itself.
        let first = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        assert_eq!(first, 0x5800_0000 | ((16 / 4) << 5));
        let second = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        assert_eq!(second, 0x5800_0000 | (((24 - 4) / 4) << 5) | 16);
        assert_eq!(bytes[16..18], [0x11, 0x11]);
        assert_eq!(bytes[24..26], [0x22, 0x22]);
    }

    #[test]
    fn words_are_big_endian_and_none_lies_outside() {
        let mut tree = [0; 12];
        set_word(&mut tree, 8, 0x0102_0304);
        assert_eq!(tree[8..], [1, 2, 3, 4]);
        assert_eq!(word(&tree, 8), Some(0x0102_0304));
        set_word(&mut tree, 9, 5);
        assert_eq!(tree[8..], [1, 2, 3, 4]);
        assert_eq!(word(&tree, 9), None);
    }
}
