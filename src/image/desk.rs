//! The monitor at the console: served by whichever CPU has nothing else to do.

use core::fmt::{self, Write};

use super::ending;
use super::hardware::tag;
use super::world::{self, Ending, World};
use portcullis::addr::Pa;
use portcullis::arch::cpu::Mutex;
use portcullis::arch::{Host, console, cpu, println};
use portcullis::guest::description::PlannedDevice;
use portcullis::guest::monitor::{GuestSeen, Monitor, Watched};
use portcullis::guest::psci::Power;
use portcullis::hw::DeviceTag;
use portcullis::smmu::Smmu;
use portcullis::space::{Iommu, SmmuId};

/// The boot argument that has a monitor, and the one with which it may change something.
const LOOK: &str = "monitor";
const CHANGE: &str = "monitor=change";
/// End of transmission: the way out, once no guest runs.
const END: u8 = 0x04;

/// Who talks with the person; `None` before the first word.
static MONITOR: Mutex<Option<Monitor>> = Mutex::new(None);

/// Whether there is a monitor.
pub(crate) fn is_open(world: &World) -> bool {
    has(world, LOOK) || has(world, CHANGE)
}

fn has(world: &World, name: &str) -> bool {
    let arguments = world.machine().bootargs.as_str();
    arguments.split(' ').any(|argument| argument == name)
}

/// Takes what was typed, and answers; another CPU may be at it, then it goes on.
pub(crate) fn serve(world: &'static World) {
    if !is_open(world) {
        return;
    }
    let Some(mut monitor) = MONITOR.try_lock() else {
        return;
    };
    let mut out = Console;
    let monitor = monitor.get_or_insert_with(|| {
        let monitor = Monitor::new();
        // A console takes everything.
        let _ = monitor.greet(&mut out);
        monitor
    });
    while let Some(byte) = console::typed() {
        if byte == END && world.is_over() {
            console::show("\n");
            ending::all_over(world);
        }
        let _ = monitor.take(byte, world, &mut out);
    }
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::show(text);
        Ok(())
    }
}

impl Watched<'static, Host> for World {
    fn iommu(&self) -> &Iommu<'static, Host> {
        &self.iommu
    }

    fn smmu(&self, id: SmmuId) -> Option<(&Smmu<'static, Host>, Pa)> {
        let place = usize::from(id.as_u8());
        let at = self.machine().smmus.get(place)?.registers.base();
        Some((world::smmu(place)?, at))
    }

    fn guest(&self, number: usize) -> Option<GuestSeen<'_>> {
        let (planned, slot) = self.planned(number)?;
        let state = slot.state.lock();
        let cpus = 0..planned.cpus.len();
        let is_on = |cpu: &usize| state.cpus.power(*cpu) == Power::On;
        Some(GuestSeen {
            name: planned.name.as_str(),
            id: state.built.as_ref().map(|built| built.id),
            cpus: planned.cpus.len() as u32,
            cpus_on: cpus.filter(is_on).count() as u32,
            memory_bytes: planned.memory.size_bytes(),
            devices: planned.devices.len() as u32,
            outside: slot.outside.load(core::sync::atomic::Ordering::Relaxed),
        })
    }

    fn machine(&self, out: &mut dyn Write) -> fmt::Result {
        let machine = self.machine();
        for memory in &machine.memory {
            let mib = memory.size_bytes() >> 20;
            writeln!(out, "memory {mib} MiB at {}", memory.base())?;
        }
        for (place, it) in machine.cpus.iter().enumerate() {
            let affinity = it.mpidr.as_u64();
            let here = if affinity == cpu::affinity() {
                ", this one"
            } else {
                ""
            };
            let guest = self.part_of(place).and_then(|(guest, number)| {
                let (planned, _) = self.planned(guest)?;
                Some((planned.name.as_str(), number))
            });
            match guest {
                Some((name, number)) => {
                    writeln!(out, "cpu {affinity:#x} is CPU {number} of {name}{here}")?;
                }
                None => writeln!(out, "cpu {affinity:#x} is nobody's{here}")?,
            }
        }
        if let Some(console) = machine.console {
            writeln!(out, "console at {}", console.base)?;
        }
        Ok(())
    }

    fn name_device(&self, of: DeviceTag, out: &mut dyn Write) -> fmt::Result {
        let machine = self.machine();
        let mut devices = machine.devices.iter().enumerate();
        if let Some((_, device)) =
            devices.find(|(place, _)| tag(PlannedDevice::Platform(*place)) == of)
        {
            return write!(out, "{}", device.name);
        }
        let mut functions = self.hardware.functions.iter().enumerate();
        match functions.find(|(place, _)| tag(PlannedDevice::Function(*place)) == of) {
            Some((_, function)) => write!(out, "{:04x}:{}", function.segment, function.rid),
            None => write!(out, "{}", of.0),
        }
    }

    fn may_change(&self) -> bool {
        has(self, CHANGE)
    }

    fn kill(&self, number: usize) -> Result<(), &'static str> {
        let (planned, slot) = self.planned(number).ok_or("there is no such guest")?;
        {
            let state = slot.state.lock();
            if state.built.is_none() {
                return Err("it has ended");
            }
            if state.inside == 0 {
                return Err("none of its CPUs is in it; try again");
            }
        }
        println!("guest {}: killed at the monitor", planned.name);
        self.end(planned, slot, Ending::Killed);
        Ok(())
    }
}
