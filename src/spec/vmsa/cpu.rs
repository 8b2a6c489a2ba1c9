//! What a CPU's registers must say to walk a stage 2 (DDI 0487, `VTCR_EL2` and `VTTBR_EL2`).

use super::{Stage2Walk, WalkCoherency};
use crate::spec::bits::Field;

const T0SZ: Field = Field::bits(5, 0);
const SL0: Field = Field::bits(7, 6);
const IRGN0: Field = Field::bits(9, 8);
const ORGN0: Field = Field::bits(11, 10);
const SH0: Field = Field::bits(13, 12);
const TG0: Field = Field::bits(15, 14);
const PS: Field = Field::bits(18, 16);
const VS: Field = Field::bit(19);
const RES1: Field = Field::bit(31);

const VMID: Field = Field::bits(63, 48);

const WRITE_BACK: u64 = 1;
const NON_CACHEABLE: u64 = 0;
const INNER_SHAREABLE: u64 = 3;
const OUTER_SHAREABLE: u64 = 2;

/// The values of the two registers with which a CPU walks one stage 2.
///
/// The same policy as in an STE: no hardware update of flags, write-back walks where all walkers
/// are coherent. A VMID above 255 needs a CPU with 16 bits of it, and sets `VS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CpuWalk {
    /// `VTCR_EL2`.
    pub vtcr: u64,
    /// `VTTBR_EL2`, with `CnP` clear.
    pub vttbr: u64,
}

impl CpuWalk {
    /// What a CPU needs to walk what `walk` describes.
    pub const fn new(walk: &Stage2Walk) -> Self {
        let (cacheability, shareability) = match walk.coherency {
            WalkCoherency::Coherent => (WRITE_BACK, INNER_SHAREABLE),
            WalkCoherency::Clean => (NON_CACHEABLE, OUTER_SHAREABLE),
        };
        let geometry = &walk.geometry;
        let mut vtcr = [RES1.mask()];
        T0SZ.set(&mut vtcr, geometry.t0sz() as u64);
        SL0.set(&mut vtcr, geometry.sl0() as u64);
        IRGN0.set(&mut vtcr, cacheability);
        ORGN0.set(&mut vtcr, cacheability);
        SH0.set(&mut vtcr, shareability);
        TG0.set(&mut vtcr, geometry.tg() as u64);
        PS.set(&mut vtcr, geometry.ps() as u64);
        VS.set(&mut vtcr, (walk.vmid.as_u16() > 0xff) as u64);
        // Bits 51 to 48 of a root stand where one that has them is aligned past (FEAT_LPA).
        let root = walk.root.as_u64();
        let mut vttbr = [root & 0x0000_ffff_ffff_ffff | (root >> 46) & 0x3c];
        VMID.set(&mut vttbr, walk.vmid.as_u16() as u64);
        Self {
            vtcr: vtcr[0],
            vttbr: vttbr[0],
        }
    }
}
