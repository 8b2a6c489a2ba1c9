//! Decoding commands: parameters, reserved bits, and what is illegal (§4.1).

use crate::bits::{bit, field, keep};
use crate::command::{Command, Decoded, Fault, Signal, Span, Tlbi};
use crate::format::Granule;
use crate::ids::{Identity, StallModel};
use crate::pri::ResponseCode;
use crate::ste::World;

struct Words<'a> {
    dw: [u64; 2],
    id: &'a Identity,
    vhe: bool,
}

/// Decodes a command for an SMMU with these features; `vhe` is CR2.E2H.
///
/// # Errors
///
/// [`Fault::Illegal`]: the SMMU stops with CERROR_ILL.
pub(crate) fn decode(dw: [u64; 2], id: &Identity, vhe: bool) -> Result<Decoded, Fault> {
    Words { dw, id, vhe }.decode()
}

const SID: u64 = 0xffff_ffff_0000_0000;
const SSID: u64 = 0xffff_f000;
const SSV: u64 = 1 << 11;
const VMID: u64 = 0x0000_ffff_0000_0000;
const ASID: u64 = 0xffff_0000_0000_0000;
const RANGE: u64 = 0x01f1_f000;

impl Words<'_> {
    fn decode(&self) -> Result<Decoded, Fault> {
        let id = self.id;
        let opcode = field(self.dw[0], 7, 0);
        let s1 = |command, masks| self.if_there(id.stage1, command, masks);
        let s2 = |command, masks| self.if_there(id.stage2, command, masks);
        let hyp = |command, masks| self.if_there(id.has_hyp(), command, masks);
        let (stream, vmid, asid) = (self.stream(), self.vmid(), self.asid());
        let world = World::El1;
        match opcode {
            0x01 => self.legal(
                Command::PrefetchConfig {
                    stream,
                    substream: self.substream(),
                },
                [SID | SSID | SSV, 0],
            ),
            0x02 => self.legal(self.prefetch_address(), [SID | SSID | SSV, !0xc00]),
            0x03 => self.legal(
                Command::CfgiSte {
                    stream,
                    is_leaf: bit(self.dw[1], 0),
                },
                [SID, 1],
            ),
            0x04 => {
                let log2 = field(self.dw[1], 4, 0) as u32 + 1;
                let sid = if log2 == 32 { !0xff & SID } else { SID };
                self.legal(Command::CfgiRange { stream, log2 }, [sid, 0x1f])
            }
            0x05 => s1(
                Command::CfgiCd {
                    stream,
                    substream: self.ssid(),
                    is_leaf: bit(self.dw[1], 0),
                },
                [SID | SSID, 1],
            ),
            0x06 => s1(Command::CfgiCdAll { stream }, [SID, 0]),
            0x10 => s1(Command::Tlbi(Tlbi::NhAll { vmid }), [VMID, 0]),
            0x11 => s1(
                Command::Tlbi(Tlbi::Asid { world, vmid, asid }),
                [VMID | ASID, 0],
            ),
            0x12 => {
                let span = self.span(false)?;
                s1(
                    Command::Tlbi(Tlbi::Va {
                        world,
                        vmid,
                        asid,
                        span,
                    }),
                    [VMID | ASID | RANGE, !0x7e],
                )
            }
            0x13 => {
                let span = self.span(false)?;
                s1(
                    Command::Tlbi(Tlbi::Vaa { world, vmid, span }),
                    [VMID | RANGE, !0x7e],
                )
            }
            0x20 => hyp(Command::Tlbi(Tlbi::El2All), [0, 0]),
            0x21 => hyp(
                Command::Tlbi(Tlbi::Asid {
                    world: self.el2(),
                    vmid: 0,
                    asid,
                }),
                [ASID, 0],
            ),
            0x22 => {
                let span = self.span(false)?;
                let tlbi = Tlbi::Va {
                    world: self.el2(),
                    vmid: 0,
                    asid,
                    span,
                };
                hyp(Command::Tlbi(tlbi), [ASID | RANGE, !0x7e])
            }
            0x23 => {
                let span = self.span(false)?;
                hyp(
                    Command::Tlbi(Tlbi::Vaa {
                        world: self.el2(),
                        vmid: 0,
                        span,
                    }),
                    [RANGE, !0x7e],
                )
            }
            0x28 => s2(Command::Tlbi(Tlbi::S12Vmall { vmid }), [VMID, 0]),
            0x2a => {
                let span = self.span(true)?;
                s2(
                    Command::Tlbi(Tlbi::S2Ipa { vmid, span }),
                    [VMID | RANGE, 0x00ff_ffff_ffff_ff81],
                )
            }
            0x30 => self.legal(Command::Tlbi(Tlbi::NsnhAll), [0, 0]),
            0x40 => self.if_there(id.ats, self.atc_inv(), [SID | SSID | SSV | 0x200, !0xfc0]),
            0x41 => {
                let command = self.pri_resp()?;
                self.if_there(id.has_pri(), command, [SID | SSID | SSV, 0x31ff])
            }
            0x44 => self.if_there(self.stalls(), self.resume(), [SID | 0x3000, 0xffff]),
            0x45 => self.if_there(self.stalls(), Command::StallTerm { stream }, [SID, 0]),
            0x46 => self.sync(),
            _ => Err(Fault::Illegal),
        }
    }

    fn stalls(&self) -> bool {
        self.id.stall_model != StallModel::TerminateOnly
    }

    fn if_there(
        &self,
        is_there: bool,
        command: Command,
        masks: [u64; 2],
    ) -> Result<Decoded, Fault> {
        if !is_there {
            return Err(Fault::Illegal);
        }
        self.legal(command, masks)
    }

    /// `masks` are the parameter bits of the command, the opcode aside.
    fn legal(&self, command: Command, masks: [u64; 2]) -> Result<Decoded, Fault> {
        // SSec: a command for the Secure state on this queue.
        let has_ssec = matches!(field(self.dw[0], 7, 0), 0x01..=0x06 | 0x40 | 0x44 | 0x45);
        if has_ssec && bit(self.dw[0], 10) {
            return Err(Fault::Illegal);
        }
        let stray = self.dw[0] & !(masks[0] | 0xff) | self.dw[1] & !masks[1];
        let has_granule = self.id.ril && field(self.dw[1], 11, 10) != 0;
        let unranged = self.is_tlbi_by_address() && !has_granule;
        let stray_range = unranged && (self.dw[0] & RANGE != 0 || field(self.dw[1], 11, 8) != 0);
        Ok(Decoded {
            command,
            has_reserved_ones: stray != 0 || stray_range,
            is_misaligned: self.is_tlbi_by_address() && self.is_misaligned(),
        })
    }

    fn is_tlbi_by_address(&self) -> bool {
        matches!(field(self.dw[0], 7, 0), 0x12 | 0x13 | 0x22 | 0x23 | 0x2a)
    }

    fn stream(&self) -> u32 {
        field(self.dw[0], 63, 32) as u32
    }

    fn ssid(&self) -> u32 {
        field(self.dw[0], 31, 12) as u32
    }

    fn substream(&self) -> Option<u32> {
        bit(self.dw[0], 11).then(|| self.ssid())
    }

    fn vmid(&self) -> u16 {
        // Without stage 2 there are no VMIDs to match.
        if self.id.stage2 {
            field(self.dw[0], 47, 32) as u16
        } else {
            0
        }
    }

    fn asid(&self) -> u16 {
        field(self.dw[0], 63, 48) as u16
    }

    const fn el2(&self) -> World {
        if self.vhe { World::El2E2h } else { World::El2 }
    }

    /// The address range, with or without RIL (§4.4.1).
    fn span(&self, is_ipa: bool) -> Result<Span, Fault> {
        let top = if is_ipa { 55 } else { 63 };
        let first = keep(self.dw[1], top, 12);
        let tg = field(self.dw[1], 11, 10);
        let is_leaf = bit(self.dw[1], 0);
        let Some(granule) = Granule::command(tg).filter(|_| self.id.ril) else {
            let last = first | 0xfff;
            return Ok(Span {
                first,
                last,
                granule: None,
                level: 0,
                is_leaf,
            });
        };
        let (num, scale) = (field(self.dw[0], 16, 12), field(self.dw[0], 24, 20));
        let ttl = field(self.dw[1], 9, 8) as u32;
        // Without DS a 16 KiB granule has no level-1 leaves; TTL = 1 is reserved and acts as 0.
        let level = if granule == Granule::K16 && ttl == 1 {
            0
        } else {
            ttl
        };
        if num == 0 && scale == 0 && level == 0 {
            return Err(Fault::Illegal);
        }
        let bytes = u128::from(num + 1) << (scale as u32 + granule.page_bits());
        let last = (u128::from(first) + bytes - 1).min(u128::from(u64::MAX)) as u64;
        Ok(Span {
            first,
            last,
            granule: Some(granule),
            level,
            is_leaf,
        })
    }

    fn is_misaligned(&self) -> bool {
        let Some(granule) = Granule::command(field(self.dw[1], 11, 10)).filter(|_| self.id.ril)
        else {
            return false;
        };
        let ttl = field(self.dw[1], 9, 8) as u32;
        let level = if ttl == 0 || (granule == Granule::K16 && ttl == 1) {
            3
        } else {
            ttl
        };
        let first = keep(self.dw[1], 63, 12);
        first & ((1 << granule.level_log2(level)) - 1) != 0
    }

    fn prefetch_address(&self) -> Command {
        Command::PrefetchAddress {
            stream: self.stream(),
            substream: self.substream(),
            address: keep(self.dw[1], 63, 12),
            log2_pages: field(self.dw[1], 4, 0) as u32,
        }
    }

    fn atc_inv(&self) -> Command {
        let log2_bytes = field(self.dw[1], 5, 0) as u32 + 12;
        let log2_bytes = log2_bytes.min(64);
        let address = if log2_bytes == 64 {
            0
        } else {
            keep(self.dw[1], 63, 12) >> log2_bytes << log2_bytes
        };
        let substream = self.substream();
        Command::AtcInv {
            stream: self.stream(),
            substream,
            is_global: bit(self.dw[0], 9) && substream.is_some(),
            address,
            log2_bytes,
        }
    }

    fn pri_resp(&self) -> Result<Command, Fault> {
        let code = match field(self.dw[1], 13, 12) {
            0 => ResponseCode::Failure,
            1 => ResponseCode::InvalidRequest,
            2 => ResponseCode::Success,
            _ => return Err(Fault::Illegal),
        };
        Ok(Command::PriResp {
            stream: self.stream(),
            substream: self.substream(),
            group: field(self.dw[1], 8, 0) as u16,
            code,
        })
    }

    fn resume(&self) -> Command {
        Command::Resume {
            stream: self.stream(),
            stag: field(self.dw[1], 15, 0) as u16,
            retries: bit(self.dw[0], 12),
            aborts: bit(self.dw[0], 13) || self.id.term_abort_only,
        }
    }

    fn sync(&self) -> Result<Decoded, Fault> {
        let signal = match field(self.dw[0], 13, 12) {
            0 => Signal::None,
            1 => Signal::Interrupt {
                address: keep(self.dw[1], 55, 2),
                data: field(self.dw[0], 63, 32) as u32,
            },
            2 => Signal::Event,
            _ => return Err(Fault::Illegal),
        };
        self.legal(
            Command::Sync(signal),
            [0xffff_ffff_0fc0_3000, 0x00ff_ffff_ffff_fffc],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(dw: [u64; 2]) -> Option<Command> {
        decode(dw, &Identity::full(), false)
            .ok()
            .map(|decoded| decoded.command)
    }

    #[test]
    fn a_configuration_invalidation_names_its_stream() {
        assert_eq!(
            command([0x0000_1234_0000_0003, 1]),
            Some(Command::CfgiSte {
                stream: 0x1234,
                is_leaf: true
            })
        );
        assert_eq!(
            command([0x0000_0000_0000_0004, 31]),
            Some(Command::CfgiRange {
                stream: 0,
                log2: 32
            })
        );
    }

    #[test]
    fn a_range_invalidation_covers_num_plus_one_times_its_scale() {
        // TG = 1 (4 KiB), NUM = 7, SCALE = 1: 8 * 2 * 4 KiB.
        let Some(Command::Tlbi(Tlbi::S2Ipa { vmid, span })) =
            command([0x0000_0005_0010_702a, 0x4000_0000 | 1 << 10 | 1])
        else {
            panic!("not a stage 2 invalidation");
        };
        assert_eq!(vmid, 5);
        assert_eq!((span.first, span.last), (0x4000_0000, 0x4000_ffff));
        assert!(span.is_leaf);
    }

    #[test]
    fn the_reserved_range_combination_is_illegal() {
        assert_eq!(command([0x2a, 1 << 10]), None);
        assert!(command([0x2a, 1 << 10 | 3 << 8]).is_some());
    }

    #[test]
    fn commands_of_the_secure_state_and_unknown_ones_are_illegal() {
        for opcode in [0x00, 0x18, 0x1a, 0x50, 0x58, 0x60, 0x70, 0x80, 0xff] {
            assert_eq!(command([opcode, 0]), None, "{opcode:#x}");
        }
        assert_eq!(command([0x03 | 1 << 10, 0]), None);
        assert_eq!(command([0x46 | 3 << 12, 0]), None);
    }
}
