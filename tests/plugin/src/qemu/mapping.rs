//! Where in this process QEMU keeps the guest's RAM.

use std::sync::atomic::AtomicU64;

/// The name that Linux gives to what `-object memory-backend-memfd` makes.
const NAME: &str = "/memfd:memory-backend-memfd";

/// The words of the guest's RAM of `bytes` bytes.
///
/// # Errors
///
/// A sentence, unless there is exactly one mapping of that size that
/// `-object memory-backend-memfd` made.
pub(super) fn guest_ram(bytes: u64) -> Result<&'static [AtomicU64], String> {
    let path = "/proc/self/maps";
    let maps = std::fs::read_to_string(path).map_err(|why| format!("{path}: {why}"))?;
    let start = find(&maps, bytes)?;
    let words = usize::try_from(bytes / 8).map_err(|why| why.to_string())?;
    let first = std::ptr::with_exposed_provenance::<AtomicU64>(start);
    // SAFETY: QEMU maps the guest's RAM there, readable and writable, until it ends. It is shared
    // with CPUs and devices, as atomics may be.
    Ok(unsafe { std::slice::from_raw_parts(first, words) })
}

/// The first address of the one mapping of `bytes` bytes.
fn find(maps: &str, bytes: u64) -> Result<usize, String> {
    let found: Vec<(u64, u64)> = maps.lines().filter_map(mapping).collect();
    let mut fitting = found.iter().filter(|(_, size)| *size == bytes);
    match (fitting.next(), fitting.next()) {
        (Some((start, _)), None) => Ok(*start as usize),
        (Some(_), Some(_)) => Err(format!("two mappings of {NAME} have {bytes:#x} bytes")),
        (None, _) if found.is_empty() => Err(format!(
            "no mapping of {NAME}; QEMU needs -object memory-backend-memfd,id=ID,size=BYTES and \
             -M ...,memory-backend=ID"
        )),
        (None, _) => Err(format!("no mapping of {NAME} has {bytes:#x} bytes")),
    }
}

/// Start and size, if `line` tells of a mapping of the right name from its start.
fn mapping(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_first = words.nth(1)?.bytes().all(|digit| digit == b'0');
    let name = words.nth(2)?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    (name == NAME && is_first).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0a00000-55d0c0e00000 r--p 00000000 fe:00 1234 /usr/bin/qemu-system-aarch64
7f1000000000-7f1020000000 rw-s 00000000 00:01 2049 /memfd:memory-backend-memfd (deleted)
7f1020000000-7f1020001000 ---p 00000000 00:00 0
7f1030000000-7f1030400000 rw-s 00000000 00:01 2050 /memfd:tcg-jit (deleted)
";

    #[test]
    fn the_ram_is_found_by_name_and_size() {
        assert_eq!(find(MAPS, 0x2000_0000), Ok(0x7f10_0000_0000));
        assert!(find(MAPS, 0x40_0000).is_err_and(|why| why.contains("0x400000 bytes")));
        assert!(find("", 0x1000).is_err_and(|why| why.contains("-object")));
        let twice = format!("{MAPS}{MAPS}");
        assert!(find(&twice, 0x2000_0000).is_err_and(|why| why.contains("two")));
    }
}
