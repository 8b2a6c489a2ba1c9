//! Instructions that store and that QEMU tells no plugin of.
//!
//! EL2 must not use them on memory that an SMMU may read: the model would see the change late, or
//! not at all. That the image has none anywhere is more than that, and can be seen in its bytes.

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, elf};

/// A kind of them: an instruction is of it if it has these bits of the mask.
struct Kind {
    name: &'static str,
    mask: u32,
    bits: u32,
}

/// Encodings of DDI 0487: `DC` is `SYS #3, C7, C4, #op2`; CPY and SET are one class, C4.1.94 "Memory
/// Copy and Memory Set".
const KINDS: [Kind; 4] = [
    Kind {
        name: "DC ZVA",
        mask: 0xffff_ffe0,
        bits: 0xd50b_7420,
    },
    Kind {
        name: "DC GVA",
        mask: 0xffff_ffe0,
        bits: 0xd50b_7460,
    },
    Kind {
        name: "DC GZVA",
        mask: 0xffff_ffe0,
        bits: 0xd50b_7480,
    },
    Kind {
        name: "CPY or SET",
        mask: 0xfb20_0c00,
        bits: 0x1900_0400,
    },
];

/// Wants that no executable segment of `file` has such an instruction.
///
/// # Errors
///
/// A sentence: the first one found and where, or what is wrong with the file.
pub(super) fn has_none(file: &[u8]) -> Result<(), String> {
    let elf: ElfFile64<'_, LittleEndian> =
        ElfFile64::parse(file).map_err(|why| format!("not an ELF: {why}"))?;
    let endian = elf.endian();
    let headers = elf.elf_header().program_headers(endian, file);
    let headers = headers.map_err(|why| why.to_string())?;
    let mut words = 0;
    for segment in headers {
        let is_code =
            segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian).contains(elf::PF_X);
        if !is_code {
            continue;
        }
        let bytes = segment.data(endian, file);
        let bytes = bytes.map_err(|()| "a segment lies outside the file")?;
        words += bytes.len() / 4;
        if let Some((at, kind)) = find(bytes) {
            let at = segment.p_vaddr(endian) + at as u64;
            return Err(format!("{kind} at {at:#x}, which no plugin is told of"));
        }
    }
    if words == 0 {
        return Err("the ELF has no code".into());
    }
    Ok(())
}

/// The first such instruction: its offset and its name.
fn find(code: &[u8]) -> Option<(usize, &'static str)> {
    let (words, _) = code.as_chunks();
    let words = words.iter().map(|bytes| u32::from_le_bytes(*bytes));
    words.enumerate().find_map(|(at, word)| {
        let kind = KINDS.iter().find(|kind| word & kind.mask == kind.bits)?;
        Some((4 * at, kind.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(word: u32) -> Option<&'static str> {
        find(&word.to_le_bytes()).map(|(_, name)| name)
    }

    #[test]
    fn the_instructions_are_known_by_their_words() {
        // As LLVM assembles them.
        let known = [
            (0xd50b_7420, "DC ZVA"),     // dc zva, x0
            (0xd50b_743f, "DC ZVA"),     // dc zva, xzr
            (0xd50b_7463, "DC GVA"),     // dc gva, x3
            (0xd50b_7481, "DC GZVA"),    // dc gzva, x1
            (0x19c2_0420, "CPY or SET"), // setp [x0]!, x1!, x2
            (0x19c2_4420, "CPY or SET"), // setm [x0]!, x1!, x2
            (0x19c2_8420, "CPY or SET"), // sete [x0]!, x1!, x2
            (0x1dc2_0420, "CPY or SET"), // setgp [x0]!, x1!, x2
            (0x1901_0440, "CPY or SET"), // cpyfp [x0]!, [x1]!, x2!
            (0x1d01_0440, "CPY or SET"), // cpyp [x0]!, [x1]!, x2!
            (0x1d41_0440, "CPY or SET"), // cpym [x0]!, [x1]!, x2!
            (0x1d81_0440, "CPY or SET"), // cpye [x0]!, [x1]!, x2!
        ];
        for (word, kind) in known {
            assert_eq!(name(word), Some(kind), "{word:#x}");
        }
    }

    #[test]
    fn what_is_near_them_is_not_taken_for_them() {
        let others = [
            0xd50b_7a20, // dc cvac, x0
            0xd50b_7e20, // dc civac, x0
            0xf900_0020, // str x0, [x1]
            0xa900_0440, // stp x0, x1, [x2]
            0x1900_0020, // stlurb w0, [x1]
            0x3820_0041, // ldaddb w0, w1, [x2]
            0xd503_201f, // nop
        ];
        for word in others {
            assert_eq!(name(word), None, "{word:#x}");
        }
    }

    #[test]
    fn a_file_without_code_proves_nothing() {
        assert!(has_none(b"").is_err());
    }
}
