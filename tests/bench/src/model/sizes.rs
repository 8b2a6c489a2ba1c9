//! Bytes at rest, and of each object.

use portcullis::spec::ste::{Ats, Untagged};

use super::world::{Shape, World, guest_config};
use crate::Row;

/// Xen's queues of one SMMU: 524288 entries each, 8 MiB of commands and 16 MiB of events.
const XEN: (&str, u64) = ("Xen", 24 << 20);

/// What one of `count` takes, rounded up.
fn each_of(world: &mut World<'_>, count: u64, mut make: impl FnMut(&mut World<'_>)) -> u64 {
    let before = world.host.inner().bytes_out();
    for _ in 0..count {
        make(world);
    }
    (world.host.inner().bytes_out() - before).div_ceil(count)
}

/// The rows.
pub fn rows(each: &mut impl FnMut(Row)) {
    let rest = Shape::new(0).run(|_, smmus| smmus[0].size_bytes());
    let row = Row::new("rest.bytes_per_smmu", rest, "bytes");
    each(row.beside(XEN.0, XEN.1));
    objects(16, "", each);
    objects(8, ".pasids8", each);
}

/// Of guests whose PASIDs have so many bits; what stands behind the rows' names.
fn objects(pasid_bits: u8, more: &str, each: &mut impl FnMut(Row)) {
    let shape = Shape::new(16);
    shape.run(|host, smmus| {
        let mut world = World::with_pasids(host, smmus, pasid_bits);
        let mut each = |name: &str, bytes| each(Row::new(format!("{name}{more}"), bytes, "bytes"));
        let guest = each_of(&mut world, 16, |world| {
            world
                .iommu
                .create_guest(&guest_config(pasid_bits))
                .expect("there is room");
        });
        each("guest.bytes", guest);
        // Of devices of many groups, the groups too: as a machine has them.
        let mut stream = 0;
        let known = each_of(&mut world, 256, |world| {
            world.add_group(0, &[stream], Ats::Off);
            stream += 1;
        });
        each("device.known.bytes", known);
        let mut next = 0;
        let attached = each_of(&mut world, 256, |world| {
            let device = world.devices[next];
            next += 1;
            world
                .iommu
                .attach(world.guest, device, Untagged::Abort)
                .expect("attached");
        });
        each("device.attached.bytes", attached);
        let mut spaces = Vec::new();
        // As many as share pages of records, and have PASIDs.
        let count: u64 = if pasid_bits > 10 { 1024 } else { 192 };
        let space = each_of(&mut world, count, |world| {
            spaces.push(world.space_at(world.guest, 0x1000));
        });
        each("space.bytes", space);
        // Each space on one device, all on the same few: leaves of 64 CDs fill up.
        let mut next = 0;
        let binding = each_of(&mut world, count, |world| {
            let device = world.devices[next / (count as usize / 2)];
            let _handle = world.bind(spaces[next], device);
            next += 1;
        });
        each("binding.bytes", binding);
        each("device.bytes", known + attached);
    });
}
