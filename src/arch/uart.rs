//! What takes characters and gives them: a PL011, or what speaks its SBSA subset, and a 16550.

use crate::hw::{Mmio, Registers};

/// PL011: data, and flags of which one says that the transmit FIFO is full, and one that the receive
/// FIFO is empty.
const DR: usize = 0x00;
const FR: usize = 0x18;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;

/// 16550, by register number: transmit holding and receive buffer, and line status of which one bit
/// says that the first is empty, and one that the second is not.
const THR: usize = 0;
const RBR: usize = 0;
const LSR: usize = 5;
const LSR_DR: u32 = 1;
const LSR_THRE: u32 = 1 << 5;
/// How many registers it has.
const NS16550_REGISTERS: usize = 8;

/// Whose registers they are. Speed and format are left as firmware has set them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Arm PL011, or the subset of it that SBSA demands.
    Pl011,
    /// 16550 and its relatives, such as the one on the LPC bus of HiSilicon's boards.
    Ns16550 {
        /// Registers are `2^log2_stride` bytes apart.
        log2_stride: u8,
        /// How wide an access is.
        width: Width,
    },
}

/// How wide an access to a 16550 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One byte.
    Bits8,
    /// Four bytes, of which the lowest counts.
    Bits32,
}

impl Kind {
    /// A 16550 whose registers are `2^log2_stride` bytes apart and accessed `access_bytes` wide;
    /// `None` if they would overlap, lie implausibly far apart, or be of another width.
    pub const fn ns16550(log2_stride: u8, access_bytes: u8) -> Option<Self> {
        let width = match access_bytes {
            1 if log2_stride <= 3 => Width::Bits8,
            4 if log2_stride == 2 || log2_stride == 3 => Width::Bits32,
            _ => return None,
        };
        Some(Self::Ns16550 { log2_stride, width })
    }

    /// How many bytes its registers take.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Pl011 => 0x1000,
            Self::Ns16550 { log2_stride, .. } => NS16550_REGISTERS << log2_stride,
        }
    }
}

/// A UART that characters go out of and come in by.
#[derive(Debug)]
pub struct Uart {
    registers: Mmio,
    kind: Kind,
}

impl Uart {
    /// The UART of this kind whose registers, all of [`Kind::size_bytes`], these are.
    pub const fn new(registers: Mmio, kind: Kind) -> Self {
        Self { registers, kind }
    }

    /// Whether a character that is put now would be lost.
    pub fn is_full(&self) -> bool {
        match self.kind {
            Kind::Pl011 => self.registers.read32(FR) & FR_TXFF != 0,
            Kind::Ns16550 { log2_stride, width } => {
                self.read(LSR << log2_stride, width) & LSR_THRE == 0
            }
        }
    }

    /// Takes a character that came in, if there is one.
    pub fn get(&self) -> Option<u8> {
        match self.kind {
            Kind::Pl011 => {
                let is_empty = self.registers.read32(FR) & FR_RXFE != 0;
                // Above the character there are flags of errors.
                (!is_empty).then(|| self.registers.read32(DR) as u8)
            }
            Kind::Ns16550 { log2_stride, width } => {
                let has_one = self.read(LSR << log2_stride, width) & LSR_DR != 0;
                has_one.then(|| self.read(RBR << log2_stride, width) as u8)
            }
        }
    }

    /// A register of a 16550.
    fn read(&self, at: usize, width: Width) -> u32 {
        match width {
            Width::Bits8 => self.registers.read8(at).into(),
            Width::Bits32 => self.registers.read32(at),
        }
    }

    /// Puts a character, whether or not there is room.
    pub fn put(&self, byte: u8) {
        match self.kind {
            Kind::Pl011 => self.registers.write32(DR, byte.into()),
            Kind::Ns16550 { log2_stride, width } => {
                let at = THR << log2_stride;
                match width {
                    Width::Bits8 => self.registers.write8(at, byte),
                    Width::Bits32 => self.registers.write32(at, byte.into()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::NonNull;

    /// A UART whose registers are `memory`.
    #[expect(unsafe_code, reason = "registers are played by memory")]
    fn uart(memory: &mut [u64; 8], kind: Kind) -> Uart {
        let base = NonNull::from(memory).cast();
        // SAFETY: the array outlives the UART in each test and is not touched while it is used.
        Uart::new(unsafe { Mmio::new(base, kind.size_bytes().min(64)) }, kind)
    }

    /// The 16550 on LPC that TaiShan 2280 V2's SPCR names: bytes, one behind another.
    #[test]
    fn a_16550_on_lpc_waits_for_bit_5_of_its_sixth_byte_and_takes_bytes_at_its_first() {
        let kind = Kind::ns16550(0, 1).expect("bytes");
        assert_eq!(kind.size_bytes(), 8);
        let mut memory = [0; 8];
        memory[0] = 0xffff_dfff_ffff_ff00;
        assert!(uart(&mut memory, kind).is_full());
        memory[0] = 0x0000_2000_0000_0000;
        assert!(!uart(&mut memory, kind).is_full());
        memory[0] = 0xffff_ffff_ffff_ffff;
        uart(&mut memory, kind).put(b'p');
        assert_eq!(memory[0], 0xffff_ffff_ffff_ff70);
        assert_eq!(memory[1..], [0; 7]);
    }

    #[test]
    fn a_16550_of_words_has_its_status_at_the_sixth_word() {
        let kind = Kind::ns16550(2, 4).expect("words");
        assert_eq!(kind.size_bytes(), 32);
        let mut memory = [0; 8];
        memory[2] = 0xffff_ffdf_0000_0000;
        assert!(uart(&mut memory, kind).is_full());
        memory[2] = 0x0000_0020_0000_0000;
        assert!(!uart(&mut memory, kind).is_full());
        uart(&mut memory, kind).put(b'p');
        assert_eq!(memory[0], 0x70);
    }

    #[test]
    fn a_16550_of_bytes_four_apart_is_accessed_by_bytes() {
        let kind = Kind::ns16550(2, 1).expect("bytes");
        let mut memory = [0; 8];
        memory[2] = 0x0000_0020_0000_0000;
        let uart = uart(&mut memory, kind);
        assert!(!uart.is_full());
        uart.put(b'p');
        assert_eq!(memory[0], 0x70);
    }

    #[test]
    fn a_pl011_is_full_by_bit_5_of_its_flags() {
        let mut memory = [0; 8];
        memory[3] = 0x20;
        assert!(uart(&mut memory, Kind::Pl011).is_full());
        memory[3] = 0xdf;
        let uart = uart(&mut memory, Kind::Pl011);
        assert!(!uart.is_full());
        uart.put(b'p');
        assert_eq!((memory[0], memory[3]), (0x70, 0xdf));
    }

    #[test]
    fn a_character_is_taken_where_there_is_one() {
        let mut memory = [0; 8];
        (memory[0], memory[3]) = (0xf78, 0x10);
        assert_eq!(uart(&mut memory, Kind::Pl011).get(), None);
        memory[3] = 0xef;
        assert_eq!(uart(&mut memory, Kind::Pl011).get(), Some(0x78));
        let kind = Kind::ns16550(0, 1).expect("bytes");
        memory[0] = 0x0000_fe00_0000_0078;
        assert_eq!(uart(&mut memory, kind).get(), None);
        memory[0] = 0x0000_0100_0000_0078;
        assert_eq!(uart(&mut memory, kind).get(), Some(0x78));
    }

    #[test]
    fn registers_that_would_overlap_are_no_16550() {
        for (log2_stride, access_bytes) in [(0, 4), (1, 4), (4, 1), (0, 0), (0, 2), (255, 1)] {
            assert_eq!(Kind::ns16550(log2_stride, access_bytes), None);
        }
    }
}
