//! Processes of a guest: an address space, as its kernel has made it.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, Platform};
use portcullis::id::Asid;
use portcullis::space::{Ask, GuestId, SpaceConfig, SpaceError, SpaceId};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::vmsa::{Cacheability, Granule, Shareability};
use smmu_model::Claim;

use super::guest::Guest;
use super::{World, lock};

/// Where every process has its one page: 30 bits of address, so two tables lead to it.
pub const VA: u64 = 0x1234_5000;
/// Where no process has anything, in the same table.
pub const HOLE: u64 = VA + 0x1000;

/// A process that has an address space in the library.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name in the trace.
    pub name: String,
    /// Whose it is.
    pub guest: GuestId,
    /// Its guest's VMID.
    pub vmid: u16,
    /// The library's name for its address space.
    pub space: SpaceId,
    /// Its number.
    pub pasid: u32,
    /// Its ASID, as far as it is known: the model is told whose translations are whose.
    pub asid: Option<u16>,
    /// Its page.
    pub page: Pa,
    /// Its other page, mapped nowhere at first.
    pub spare: Pa,
    root: Ipa,
    tables: Pa,
}

impl<'h> World<'h> {
    /// A new process with a page at [`VA`], in a space of its own.
    pub fn process(&self, guest: &Guest) -> Process {
        let config = |walk| SpaceConfig {
            walk,
            pasid: Ask::Any,
            promises_no_global: false,
        };
        self.process_with(guest, config).expect("there are numbers")
    }

    /// A new process, whose space is made as `config` says.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    pub fn process_with(
        &self,
        guest: &Guest,
        config: impl FnOnce(Stage1Walk) -> SpaceConfig,
    ) -> Result<Process, SpaceError> {
        let (root, tables) = self.slot(guest);
        self.write_tables(root, tables, Ipa::new(root.as_u64() + 0x2000));
        let config = config(walk(root));
        let space = self.iommu.create_space(guest.id, &config)?;
        let pasid = self.iommu.pasid_of(guest.id, space)?.pasid.as_u32();
        // Both numbers of a space come from rows that go on in step, as long as nobody asks for a
        // certain PASID; `bind` looks whether that is so.
        let asid = (config.pasid == Ask::Any).then_some(pasid as u16);
        let process = Process {
            name: format!("process {pasid} of {}", guest.name),
            guest: guest.id,
            vmid: guest.vmid,
            space,
            pasid,
            asid,
            page: Pa::new(tables.as_u64() + 0x2000),
            spare: Pa::new(tables.as_u64() + 0x3000),
            root,
            tables,
        };
        self.say(|| format!("{} starts, with a page at {}", process.name, process.page));
        self.tell_of_new_numbers(&process);
        lock(&self.processes).push(process.clone());
        Ok(process)
    }

    /// The model hears that nothing of a former owner of these numbers may be left.
    fn tell_of_new_numbers(&self, process: &Process) {
        let machine = self.host.machine();
        let vmid = process.vmid;
        if let Some(asid) = process.asid {
            machine.claim(Claim::AsidTaken { vmid, asid });
        }
        for device in self.all_devices() {
            if device.is_attached_to(process.guest) {
                machine.claim(Claim::PasidTaken {
                    smmu: device.smmu,
                    stream: device.stream,
                    substream: process.pasid,
                });
            }
        }
    }

    /// The process' tables map [`VA`] to `page` of it, or to nothing.
    pub fn remap(&self, process: &Process, page: Option<Pa>) {
        match page {
            Some(page) => self.map(process, VA, page, |descriptor| descriptor),
            None => self.write_leaf(process, VA, Stage1Descriptor::INVALID),
        }
    }

    /// As [`remap`](Self::remap), with a descriptor that is made so.
    pub fn remap_as(
        &self,
        process: &Process,
        page: Pa,
        made: impl FnOnce(Stage1Descriptor) -> Stage1Descriptor,
    ) {
        self.map(process, VA, page, made);
    }

    /// The process' tables map `address`, near [`VA`], to `page` of it, with a descriptor that is
    /// made so.
    pub fn map(
        &self,
        process: &Process,
        address: u64,
        page: Pa,
        made: impl FnOnce(Stage1Descriptor) -> Stage1Descriptor,
    ) {
        let ipa = Ipa::new(process.root.as_u64() + (page.as_u64() - process.tables.as_u64()));
        let descriptor = made(Stage1Descriptor::page(ipa, PageAccess::ReadWrite));
        self.write_leaf(process, address, descriptor);
    }

    /// The process' tables map `address`, near [`VA`], to any page of its guest.
    pub fn map_ipa(&self, process: &Process, address: u64, ipa: Ipa) {
        let descriptor = Stage1Descriptor::page(ipa, PageAccess::ReadWrite);
        self.write_leaf(process, address, descriptor);
    }

    fn write_leaf(&self, process: &Process, address: u64, descriptor: Stage1Descriptor) {
        self.say(|| format!("{} has {address:#x} mapped otherwise", process.name));
        let leaf = Pa::new(process.tables.as_u64() + 0x1000);
        self.write_word(leaf, address >> 12 & 511, descriptor);
    }

    /// A guest's table of 16 KiB, empty.
    pub fn table_of_16k(&self, guest: &Guest) -> (Ipa, Pa) {
        self.slot(guest)
    }

    /// A guest writes one word of a table of its own.
    pub fn write_word(&self, table: Pa, index: u64, descriptor: Stage1Descriptor) {
        self.write(table, index, descriptor);
        self.host.barrier(Barrier::Publish);
    }

    /// The guest uses the pages and the tables of a dead process for something else: whoever still
    /// walks the tables comes out in a page of somebody's.
    pub fn reuse_memory(&self, process: &Process) {
        self.say(|| format!("the pages and tables of {} are used again", process.name));
        let elsewhere = Stage1Descriptor::page(process.root, PageAccess::ReadWrite);
        for index in [VA >> 21 & 511, VA >> 12 & 511] {
            self.write(process.tables, index, elsewhere);
            self.write(Pa::new(process.tables.as_u64() + 0x1000), index, elsewhere);
        }
        self.host.barrier(Barrier::Publish);
    }

    /// Where the guest sees the page of a process.
    pub fn ipa_of_page(&self, process: &Process) -> Ipa {
        Ipa::new(process.root.as_u64() + 0x2000)
    }

    /// Where stage 1 of a process starts.
    pub fn walk_of(&self, process: &Process) -> Stage1Walk {
        walk(process.root)
    }
}

/// 30 bits of address by two tables from `root` on.
fn walk(root: Ipa) -> Stage1Walk {
    Stage1Walk {
        // The space gets one of its own.
        asid: Asid::new(0),
        low: Some(Half {
            root,
            granule: Granule::Kib4,
            va_bits: 30,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        }),
        high: None,
        output_bits: 32,
        memory_types: 0xff,
    }
}
