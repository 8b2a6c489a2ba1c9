//! What each command shows.

use core::fmt::{self, Write};

use super::command::{Command, SpaceName, USAGES, number_of};
use super::{Columns, GuestSeen, Watched};
use crate::hw::Platform;
use crate::smmu::StallModel;
use crate::space::{DeviceState, GuestId, MAX_SMMUS, Reached, SmmuId, SpaceState};

/// Does what a command says, and tells of it.
pub(super) fn carry_out<'p, P: Platform + 'p>(
    command: Command<'_>,
    watched: &impl Watched<'p, P>,
    out: &mut Columns<'_>,
) -> fmt::Result {
    let view = View { watched };
    match command {
        Command::Help => help(watched.may_change(), out),
        Command::Machine => watched.machine(out),
        Command::Smmus => view.smmus(out),
        Command::Streams => view.streams(out),
        Command::Guests => view.guests(out),
        Command::Spaces(guest) => match view.guest(guest) {
            Some((_, guest)) => view.spaces(guest, out),
            None => no_guest(guest, out),
        },
        Command::Explain {
            smmu,
            stream,
            substream,
            address,
        } => match watched.smmu(smmu) {
            Some((smmu, _)) => writeln!(out, "{}", smmu.explain(stream, substream, address)),
            None => writeln!(out, "there is no SMMU {smmu}"),
        },
        Command::Faults => view.faults(out),
        Command::Stats => view.stats(out),
        Command::Release(..) | Command::Kill(_) if !watched.may_change() => writeln!(
            out,
            "the boot arguments do not allow it (monitor=change does)"
        ),
        Command::Release(guest, space) => match view.guest(guest) {
            Some((_, guest)) => view.release(guest, space, out),
            None => no_guest(guest, out),
        },
        Command::Kill(guest) => match view.guest(guest) {
            Some((number, guest)) => view.kill(number, guest, out),
            None => no_guest(guest, out),
        },
    }
}

fn no_guest(name: &str, out: &mut Columns<'_>) -> fmt::Result {
    writeln!(out, "there is no guest `{name}`")
}

fn help(may_change: bool, out: &mut Columns<'_>) -> fmt::Result {
    for (usage, what) in USAGES {
        writeln!(out, "{usage:<33} {what}")?;
    }
    if !may_change {
        writeln!(out, "release and kill: not allowed by the boot arguments")?;
    }
    Ok(())
}

/// A name, cut to its column.
struct Cut<'a>(&'a str, usize);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, width) = self;
        let cut = name.get(..*width).unwrap_or(name);
        write!(f, "{cut:<width$}")
    }
}

/// A number of bytes in the largest unit that it is a whole number of.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            0 => (0, "B"),
            bytes if bytes.trailing_zeros() >= 30 => (bytes >> 30, "GiB"),
            bytes if bytes.trailing_zeros() >= 20 => (bytes >> 20, "MiB"),
            bytes if bytes.trailing_zeros() >= 10 => (bytes >> 10, "KiB"),
            bytes => (bytes, "B"),
        };
        let digits = if unit == "B" { 8 } else { 6 };
        write!(f, "{number:>digits$} {unit}")
    }
}

struct View<'a, W> {
    watched: &'a W,
}

impl<'a, W> View<'a, W> {
    /// The guest that is meant, by its name or its number.
    fn guest<'p, P: Platform + 'p>(&self, meant: &str) -> Option<(usize, GuestSeen<'a>)>
    where
        W: Watched<'p, P>,
    {
        let mut guests = self.guests_seen();
        let named = guests.find(|(_, guest)| guest.name == meant);
        let by_number = || {
            let number = usize::try_from(number_of(meant)?).ok()?;
            Some((number, self.watched.guest(number)?))
        };
        named.or_else(by_number)
    }

    fn guests_seen<'p, P: Platform + 'p>(
        &self,
    ) -> impl Iterator<Item = (usize, GuestSeen<'a>)> + use<'a, 'p, P, W>
    where
        W: Watched<'p, P>,
    {
        let watched = self.watched;
        (0..usize::MAX).map_while(move |number| Some((number, watched.guest(number)?)))
    }

    fn name_of<'p, P: Platform + 'p>(&self, id: GuestId) -> &'a str
    where
        W: Watched<'p, P>,
    {
        let mut guests = self.guests_seen();
        let found = guests.find(|(_, guest)| guest.id == Some(id));
        found.map_or("?", |(_, guest)| guest.name)
    }

    fn smmus<'p, P: Platform + 'p>(&self, out: &mut Columns<'_>) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        writeln!(
            out,
            "SMMU registers          StreamID PASID ASID VMID OAS stalls  ATS  state"
        )?;
        for id in (0..MAX_SMMUS as u8).filter_map(SmmuId::new) {
            let Some((smmu, at)) = self.watched.smmu(id) else {
                continue;
            };
            let features = smmu.features();
            let stalls = match features.stalls {
                StallModel::Either => "yes",
                StallModel::Terminate => "no",
                StallModel::Forced => "forced",
            };
            let ats = match (features.has_ats, features.has_split_ats) {
                (false, _) => "no",
                (true, false) => "full",
                (true, true) => "split",
            };
            let state = if smmu.death().is_some() { "DEAD" } else { "up" };
            writeln!(
                out,
                "{:>4} {:#018x} {:>8} {:>5} {:>4} {:>4} {:>3} {stalls:<6}  {ats:<5} {state}",
                id.as_u8(),
                at.as_u64(),
                features.stream_bits,
                features.substream_bits,
                features.asid_bits,
                features.vmid_bits,
                features.output_bits,
            )?;
        }
        Ok(())
    }

    fn streams<'p, P: Platform + 'p>(&self, out: &mut Columns<'_>) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        writeln!(
            out,
            "SMMU stream     and device                   guest        goes to  spaces"
        )?;
        let iommu = self.watched.iommu();
        let mut from = 0;
        while let Some(device) = iommu.next_device(&mut from) {
            match (device.smmu, device.stream) {
                (Some(smmu), Some(stream)) => {
                    write!(out, "{:>4} {:#010x} ", smmu.as_u8(), stream.as_u32())?;
                }
                _ => write!(out, "   - {:<10} ", "-")?,
            }
            match device.streams {
                0 | 1 => write!(out, "    ")?,
                more => write!(out, "+{:<2} ", more - 1)?,
            }
            let mut name = Named::default();
            self.watched.name_device(device.tag, &mut name)?;
            write!(out, "{} ", Cut(name.text(), 24))?;
            let (guest, goes) = match device.state {
                DeviceState::Detached => ("-", "nowhere"),
                DeviceState::Fenced => ("-", "FENCED"),
                DeviceState::Attached(guest) => {
                    let goes = match device.reach {
                        Reached::Nothing => "nowhere",
                        Reached::Stage2 => "stage 2",
                        Reached::Pasids => "PASIDs",
                        Reached::Whole => "1 space",
                    };
                    (self.name_of(guest), goes)
                }
            };
            writeln!(out, "{} {goes:<8} {:>6}", Cut(guest, 12), device.bindings)?;
        }
        Ok(())
    }

    fn guests<'p, P: Platform + 'p>(&self, out: &mut Columns<'_>) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        writeln!(
            out,
            "  # guest            state    CPUs on     memory devices spaces  outside"
        )?;
        for (number, guest) in self.guests_seen() {
            let life = guest
                .id
                .and_then(|id| self.watched.iommu().life_of(id).ok());
            let state = match life {
                Some(crate::space::GuestLife::Running) => "runs",
                Some(crate::space::GuestLife::Dying) => "dying",
                Some(crate::space::GuestLife::Lost) => "LOST",
                None => "ended",
            };
            let counts = guest.id.and_then(|id| self.watched.iommu().counts(id).ok());
            writeln!(
                out,
                "{number:>3} {} {state:<8} {:>4} {:>2} {} {:>7} {:>6} {:>8}",
                Cut(guest.name, 16),
                guest.cpus,
                guest.cpus_on,
                Bytes(guest.memory_bytes),
                guest.devices,
                counts.map_or(0, |counts| counts.spaces),
                guest.outside,
            )?;
        }
        Ok(())
    }

    fn spaces<'p, P: Platform + 'p>(
        &self,
        guest: GuestSeen<'_>,
        out: &mut Columns<'_>,
    ) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        let Some(id) = guest.id else {
            return writeln!(out, "guest {} has ended", guest.name);
        };
        writeln!(
            out,
            "space             PASID  ASID state      bound handles"
        )?;
        let mut from = 0;
        while let Some(space) = self.watched.iommu().next_space(id, &mut from) {
            let state = match space.state {
                SpaceState::Live => "live",
                SpaceState::Releasing => "releasing",
                SpaceState::Parked => "parked",
                SpaceState::Draining => "draining",
            };
            let lost = if space.is_lost { " LOST" } else { "" };
            let mut name = Named::default();
            write!(name, "{}", SpaceName(space.id))?;
            writeln!(
                out,
                "{} {:>6} {:>5} {state:<10} {:>5} {:>7}{lost}",
                Cut(name.text(), 16),
                space.pasid.pasid.as_u32(),
                space.asid.as_u16(),
                space.bindings,
                space.handles,
            )?;
        }
        Ok(())
    }

    fn faults<'p, P: Platform + 'p>(&self, out: &mut Columns<'_>) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        let iommu = self.watched.iommu();
        writeln!(out, "guest            to be read   lost stalled")?;
        for (_, guest) in self.guests_seen() {
            let Some(id) = guest.id else { continue };
            let (Ok(counts), Ok(lost)) = (iommu.counts(id), iommu.lost_faults(id)) else {
                continue;
            };
            writeln!(
                out,
                "{} {:>10} {lost:>6} {:>7}",
                Cut(guest.name, 16),
                counts.faults,
                counts.stalls,
            )?;
        }
        for id in (0..MAX_SMMUS as u8).filter_map(SmmuId::new) {
            let Some((smmu, _)) = self.watched.smmu(id) else {
                continue;
            };
            let knocks = smmu.knocks();
            for knock in knocks.streams() {
                writeln!(
                    out,
                    "SMMU {id}: stream {:#x}, which nobody has, tried {} times",
                    knock.stream.as_u32(),
                    knock.attempts,
                )?;
            }
            if knocks.others() != 0 {
                writeln!(out, "SMMU {id}: others tried {} times", knocks.others())?;
            }
        }
        Ok(())
    }

    fn stats<'p, P: Platform + 'p>(&self, out: &mut Columns<'_>) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        let iommu = self.watched.iommu();
        writeln!(
            out,
            "guest            spaces parked drains lost bound handles PASIDs ASIDs devices"
        )?;
        for (_, guest) in self.guests_seen() {
            let Some(counts) = guest.id.and_then(|id| iommu.counts(id).ok()) else {
                continue;
            };
            writeln!(
                out,
                "{} {:>6} {:>6} {:>6} {:>4} {:>5} {:>7} {:>6} {:>5} {:>7}",
                Cut(guest.name, 16),
                counts.spaces,
                counts.parked,
                counts.draining,
                counts.lost,
                counts.bindings,
                counts.handles,
                counts.pasids,
                counts.asids,
                counts.devices,
            )?;
        }
        writeln!(out, "books    {}", Bytes(iommu.size_bytes()))?;
        for id in (0..MAX_SMMUS as u8).filter_map(SmmuId::new) {
            if let Some((smmu, _)) = self.watched.smmu(id) {
                writeln!(out, "SMMU {id:<3} {}", Bytes(smmu.size_bytes()))?;
            }
        }
        Ok(())
    }

    fn release<'p, P: Platform + 'p>(
        &self,
        guest: GuestSeen<'_>,
        space: SpaceName,
        out: &mut Columns<'_>,
    ) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        let Some(id) = guest.id else {
            return writeln!(out, "guest {} has ended", guest.name);
        };
        match self.watched.iommu().release(id, space.0) {
            Ok(()) => writeln!(out, "space {space} of {}: released", guest.name),
            Err(why) => writeln!(out, "space {space} of {}: {why}", guest.name),
        }
    }

    fn kill<'p, P: Platform + 'p>(
        &self,
        number: usize,
        guest: GuestSeen<'_>,
        out: &mut Columns<'_>,
    ) -> fmt::Result
    where
        W: Watched<'p, P>,
    {
        match self.watched.kill(number) {
            Ok(()) => writeln!(out, "guest {}: it ends", guest.name),
            Err(why) => writeln!(out, "guest {}: {why}", guest.name),
        }
    }
}

/// A name of at most 24 bytes; what is longer is cut.
#[derive(Default)]
struct Named {
    bytes: [u8; 24],
    count: usize,
}

impl Named {
    fn text(&self) -> &str {
        // Nothing but ASCII was put there.
        core::str::from_utf8(&self.bytes[..self.count]).unwrap_or("")
    }
}

impl Write for Named {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let Some(slot) = self.bytes.get_mut(self.count) else {
                break;
            };
            // A space would be a place to break the line.
            *slot = if byte.is_ascii_graphic() { byte } else { b'?' };
            self.count += 1;
        }
        Ok(())
    }
}
