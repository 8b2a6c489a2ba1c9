//! What is measured.

use portcullis_guest::{
    Ask, By, Code, Counter, Device, Error, Globals, Handle, Hvc, Portcullis, Range, Space,
    TableRegisters, Untagged,
};

use crate::clock;
use crate::console::println;

/// How often each call is measured.
const TIMES: usize = 8;
/// Devices at most: as many as a guest can have.
const MOST_DEVICES: usize = 72;
/// A list for EL2 to read; caches are off, so it is where it is.
static LIST: [Range; 64] = [Range {
    address: 0x1234_5000,
    bytes: 0x1000,
}; 64];

type El2 = Portcullis<Hvc>;

/// The least instructions of some turns, less those of counting.
struct Least {
    name: &'static str,
    overhead: u64,
    least: u64,
}

impl Least {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            overhead: clock::overhead(),
            least: u64::MAX,
        }
    }

    fn turn<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let (count, said) = clock::count(act);
        self.least = self.least.min(count.saturating_sub(self.overhead));
        said
    }

    fn tell(&self) {
        println!("measure {} {}", self.name, self.least);
    }
}

/// An address space of nothing: tables of zeros.
fn space(el2: &El2) -> Result<Space, Error> {
    let tables = TableRegisters {
        // Nothing is walked: no device is told to do anything.
        ttbr0: 0x4000_0000,
        ttbr1: 0,
        tcr: 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32,
        mair: 0xff,
    };
    el2.space_create(&tables, Ask::Any, Globals::MayBe)
}

/// Everything.
pub(crate) fn all(el2: &El2) -> Result<(), Error> {
    let mut features = Least::of("features");
    let mut stats = Least::of("stats");
    let mut fault_next = Least::of("fault_next, none");
    for _ in 0..TIMES {
        features.turn(|| el2.features())?;
        stats.turn(|| el2.stats(Counter::Spaces))?;
        fault_next.turn(|| el2.fault_next())?;
    }
    [features, stats, fault_next].iter().for_each(Least::tell);
    let devices = el2.features()?.devices;
    println!("measure devices {devices}");
    if devices == 0 {
        return Ok(());
    }
    attach_and_detach(el2)?;
    el2.attach(Device(0), Untagged::Abort)?;
    let takes_pasids = el2.device_info(Device(0))?.takes_pasids;
    if takes_pasids {
        by_pasid(el2)?;
        invalidations(el2)?;
        releases(el2, devices.min(MOST_DEVICES as u32))?;
    } else {
        whole(el2)?;
    }
    Ok(())
}

fn attach_and_detach(el2: &El2) -> Result<(), Error> {
    let (mut attach, mut detach) = (Least::of("attach"), Least::of("detach"));
    for _ in 0..TIMES {
        attach.turn(|| el2.attach(Device(0), Untagged::Abort))?;
        detach.turn(|| el2.detach(Device(0)))?;
    }
    [attach, detach].iter().for_each(Least::tell);
    Ok(())
}

fn by_pasid(el2: &El2) -> Result<(), Error> {
    let mut create = Least::of("space_create");
    let mut first = Least::of("bind, first of a leaf");
    let mut further = Least::of("bind, further PASID");
    let mut again = Least::of("bind, again");
    let mut not_last = Least::of("unbind, not the last");
    let mut last = Least::of("unbind, the last");
    for _ in 0..TIMES {
        let (a, b) = (create.turn(|| space(el2))?, space(el2)?);
        let one = first.turn(|| el2.bind(a.id, Device(0), By::Pasid))?;
        let two = further.turn(|| el2.bind(b.id, Device(0), By::Pasid))?;
        let three = again.turn(|| el2.bind(b.id, Device(0), By::Pasid))?;
        not_last.turn(|| el2.unbind(three))?;
        last.turn(|| el2.unbind(two))?;
        el2.release_all()?;
        let gone = el2.unbind(one).err().and_then(|error| error.code());
        assert!(gone == Some(Code::NoSuchHandle), "it was dropped");
    }
    for it in [create, first, further, again, not_last, last] {
        it.tell();
    }
    Ok(())
}

fn invalidations(el2: &El2) -> Result<(), Error> {
    let space = space(el2)?;
    el2.bind(space.id, Device(0), By::Pasid)?;
    let mut page = Least::of("invalidate, a page");
    let mut list = Least::of("invalidate_list, 64 pages");
    for _ in 0..TIMES {
        page.turn(|| el2.invalidate(space.id, LIST[0]))?;
        list.turn(|| el2.invalidate_list(space.id, LIST.as_ptr() as u64, LIST.len()))?;
    }
    [page, list].iter().for_each(Least::tell);
    el2.release_all()
}

fn releases(el2: &El2, devices: u32) -> Result<(), Error> {
    let mut able = [Device(0); MOST_DEVICES];
    let mut count = 1;
    for number in 1..devices {
        let device = Device(number);
        el2.attach(device, Untagged::Abort)?;
        if el2.device_info(device)?.takes_pasids {
            able[count] = device;
            count += 1;
        }
    }
    let sizes = [
        (1, "release, 1 binding"),
        (2, "release, 2 bindings"),
        (8, "release, 8 bindings"),
        (64, "release, 64 bindings"),
    ];
    for (bindings, name) in sizes.into_iter().filter(|(bindings, _)| *bindings <= count) {
        let mut release = Least::of(name);
        for _ in 0..TIMES {
            let space = space(el2)?;
            let mut handles = [None::<Handle>; MOST_DEVICES];
            for (device, handle) in able.iter().zip(&mut handles).take(bindings) {
                *handle = Some(el2.bind(space.id, *device, By::Pasid)?);
            }
            release.turn(|| el2.release(space.id))?;
            for handle in handles.into_iter().flatten() {
                el2.unbind(handle)?;
            }
        }
        release.tell();
    }
    Ok(())
}

fn whole(el2: &El2) -> Result<(), Error> {
    let mut bind = Least::of("bind, whole stream");
    let mut release = Least::of("release, whole stream");
    let mut unbind = Least::of("unbind, whole stream");
    for _ in 0..TIMES {
        let space = space(el2)?;
        let handle = bind.turn(|| el2.bind(space.id, Device(0), By::WholeStream))?;
        release.turn(|| el2.release(space.id))?;
        unbind.turn(|| el2.unbind(handle))?;
        el2.attach(Device(0), Untagged::Abort)?;
    }
    [bind, release, unbind].iter().for_each(Least::tell);
    Ok(())
}
