//! From the linker's ELF to the arm64 Image that loaders take: the segments as they lie in memory,
//! from the lowest address on.

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, elf};

/// Where an Image says how many bytes of memory it takes.
const IMAGE_SIZE_AT: usize = 16;
/// Where an Image says that it is one.
const MAGIC_AT: usize = 56;
const MAGIC: &[u8] = b"ARM\x64";
/// Longer than any image of ours: an address that the linker got wrong.
const LIMIT_BYTES: u64 = 64 << 20;

/// The Image in `elf`.
///
/// # Errors
///
/// A sentence, if it is not a little-endian AArch64 ELF, has no segment to load or one outside its
/// file, does not begin with an Image header, or promises less memory in it than its segments take.
pub(crate) fn flatten(elf: &[u8]) -> Result<Vec<u8>, String> {
    let file: ElfFile64<'_, LittleEndian> =
        ElfFile64::parse(elf).map_err(|error| format!("not a little-endian ELF: {error}"))?;
    let endian = file.endian();
    let header = file.elf_header();
    if header.e_machine(endian) != elf::EM_AARCH64 {
        return Err("not an ELF for AArch64".into());
    }
    let loaded = || {
        file.elf_program_headers()
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .filter(|segment| segment.p_memsz(endian) > 0)
    };
    let base = loaded()
        .map(|segment| segment.p_paddr(endian))
        .min()
        .ok_or("the ELF has no segment to load")?;
    let mut image = Vec::new();
    let mut memory_bytes = 0;
    for segment in loaded() {
        let at = segment.p_paddr(endian) - base;
        let end = at.saturating_add(segment.p_memsz(endian));
        if end > LIMIT_BYTES {
            return Err(format!("a segment ends {end:#x} bytes after the first"));
        }
        let bytes = segment
            .data(endian, elf)
            .map_err(|()| "a segment lies outside the file")?;
        place(&mut image, at, bytes)?;
        memory_bytes = memory_bytes.max(end);
    }
    check_header(&image, memory_bytes)?;
    Ok(image)
}

fn place(image: &mut Vec<u8>, at: u64, bytes: &[u8]) -> Result<(), String> {
    let at = usize::try_from(at).map_err(|_| "an address past this machine's")?;
    let end = at + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image
        .get_mut(at..end)
        .ok_or("a segment past the image")?
        .copy_from_slice(bytes);
    Ok(())
}

fn check_header(image: &[u8], memory_bytes: u64) -> Result<(), String> {
    if !image
        .get(MAGIC_AT..)
        .is_some_and(|rest| rest.starts_with(MAGIC))
    {
        return Err("the image does not begin with an arm64 Image header".into());
    }
    let promised = image
        .get(IMAGE_SIZE_AT..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if promised < memory_bytes {
        return Err(format!(
            "the Image header promises {promised:#x} bytes, the segments take {memory_bytes:#x}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF of two segments: 64 bytes of Image header at `base`, four bytes (16 in memory) at
    /// `base + 0x100`.
    fn elf(base: u64, image_size: u64) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        bytes.resize(16, 0);
        bytes.extend(3_u16.to_le_bytes()); // ET_DYN
        bytes.extend(183_u16.to_le_bytes()); // EM_AARCH64
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(base.to_le_bytes()); // e_entry
        bytes.extend(64_u64.to_le_bytes()); // e_phoff
        bytes.extend(0_u64.to_le_bytes()); // e_shoff
        bytes.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 2, 64, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        segment(&mut bytes, 176, base, 64, 64);
        segment(&mut bytes, 240, base + 0x100, 4, 16);
        assert_eq!(bytes.len(), 176);
        bytes.extend([0xaa; 16]);
        bytes.extend(image_size.to_le_bytes());
        bytes.extend([0xbb; 32]);
        bytes.extend([0x41, 0x52, 0x4d, 0x64, 0, 0, 0, 0]);
        bytes.extend([1, 2, 3, 4]);
        bytes
    }

    fn segment(bytes: &mut Vec<u8>, offset: u64, address: u64, in_file: u64, in_memory: u64) {
        bytes.extend(1_u32.to_le_bytes()); // PT_LOAD
        bytes.extend(5_u32.to_le_bytes());
        for word in [offset, address, address, in_file, in_memory, 0x10] {
            bytes.extend(word.to_le_bytes());
        }
    }

    #[test]
    fn segments_lie_in_the_image_as_they_lie_in_memory() {
        for base in [0, 0x4020_0000] {
            let image = flatten(&elf(base, 0x110)).expect("a good ELF");
            assert_eq!(image.len(), 0x104);
            assert_eq!(image[..16], [0xaa; 16]);
            assert_eq!(image[56..60], [0x41, 0x52, 0x4d, 0x64]);
            assert_eq!(image[64..0x100], [0; 0xc0]);
            assert_eq!(image[0x100..], [1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_header_that_promises_too_little_memory_is_refused() {
        let why = flatten(&elf(0, 0x10f)).expect_err("16 bytes at 0x100 take 0x110");
        assert!(why.contains("promises 0x10f"), "{why}");
    }

    #[test]
    fn an_elf_without_an_image_header_is_refused() {
        let mut bytes = elf(0, 0x110);
        bytes[176 + 56] = 0;
        assert!(flatten(&bytes).is_err_and(|why| why.contains("Image header")));
    }

    #[test]
    fn other_machines_and_broken_files_are_refused() {
        let mut other = elf(0, 0x110);
        other[18] = 62; // EM_X86_64
        assert!(flatten(&other).is_err_and(|why| why.contains("AArch64")));
        let mut cut = elf(0, 0x110);
        cut.truncate(200);
        assert!(flatten(&cut).is_err_and(|why| why.contains("outside the file")));
        assert!(flatten(b"hello").is_err());
        assert!(flatten(&[]).is_err());
    }

    #[test]
    fn a_segment_far_away_is_refused() {
        let mut bytes = elf(0, 0x110);
        // The second segment's p_paddr.
        bytes[64 + 56 + 24..][..8].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
        assert!(flatten(&bytes).is_err_and(|why| why.contains("after the first")));
    }
}
