//! Which of the addresses that a guest names are its own memory.

use super::NotItsMemory;
use crate::addr::{Extent, Ipa, Pa};

/// Memory of a guest: where it sees it, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Where the guest sees it.
    pub ipa: Extent<Ipa>,
    /// Where it starts.
    pub pa: Pa,
}

/// Calls `each` with every piece of `[from, from + bytes)` and how many bytes of it came before, in
/// order; not at all, if a part is not in `ram`.
///
/// # Errors
///
/// [`NotItsMemory`]: some of it is in none of `ram`, or the range wraps.
pub fn pieces(
    ram: &[Ram],
    from: Ipa,
    bytes: u64,
    mut each: impl FnMut(Extent<Pa>, u64),
) -> Result<(), NotItsMemory> {
    walk(ram, from, bytes, |_, _| {})?;
    walk(ram, from, bytes, &mut each)
}

fn walk(
    ram: &[Ram],
    from: Ipa,
    bytes: u64,
    mut each: impl FnMut(Extent<Pa>, u64),
) -> Result<(), NotItsMemory> {
    let mut done = 0;
    while done < bytes {
        let at = from.checked_add(done).ok_or(NotItsMemory { at: from })?;
        let piece = ram.iter().find(|ram| ram.ipa.contains(at));
        let piece = piece.ok_or(NotItsMemory { at })?;
        let inside = at.as_u64() - piece.ipa.base().as_u64();
        let size = (piece.ipa.size_bytes() - inside).min(bytes - done);
        let pa = piece.pa.checked_add(inside);
        let extent = pa.and_then(|pa| Extent::<Pa>::new(pa, size));
        each(extent.ok_or(NotItsMemory { at })?, done);
        done += size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn ram(ipa: u64, bytes: u64, pa: u64) -> Ram {
        let ipa = Extent::<Ipa>::new(Ipa::new(ipa), bytes).expect("in range");
        let pa = Pa::new(pa);
        Ram { ipa, pa }
    }

    /// Where a piece is, how many bytes it has, and how many came before.
    type Piece = (u64, u64, u64);

    fn found(from: u64, bytes: u64) -> (Result<(), u64>, Vec<Piece>) {
        let ram = [
            ram(0x4000_0000, 0x2000, 0x8000_0000),
            ram(0x4000_2000, 0x1000, 0x9000_0000),
            ram(0x5000_0000, 0x1000, 0x9000_1000),
        ];
        let mut found = Vec::new();
        let outcome = pieces(&ram, Ipa::new(from), bytes, |extent, before| {
            found.push((extent.base().as_u64(), extent.size_bytes(), before));
        });
        (outcome.map_err(|outside| outside.at.as_u64()), found)
    }

    #[test]
    fn a_range_is_found_piece_by_piece_or_not_at_all() {
        assert_eq!(
            found(0x4000_1ff8, 16),
            (Ok(()), [(0x8000_1ff8, 8, 0), (0x9000_0000, 8, 8)].into())
        );
        assert_eq!(found(0x4000_2ff8, 16), (Err(0x4000_3000), [].into()));
        assert_eq!(found(0x3fff_fff8, 16), (Err(0x3fff_fff8), [].into()));
        assert_eq!(found(0x5000_0ff0, 16).0, Ok(()));
        assert_eq!(found(0x5000_0ff0, u64::MAX), (Err(0x5000_1000), [].into()));
        assert_eq!(found(u64::MAX, 16), (Err(u64::MAX), [].into()));
        assert_eq!(found(0x1234, 0), (Ok(()), [].into()));
    }
}
