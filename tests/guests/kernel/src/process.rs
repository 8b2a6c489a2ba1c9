//! Processes: an address space, and files that they share with others.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use portcullis_guest::{Error, Handle, Space};

use crate::calls::{self, EL2};
use crate::device::Device;
use crate::memory::{FIRST_VA, Memory};
use crate::pages::PAGE;

static FAILED_CLOSES: AtomicU32 = AtomicU32::new(0);

/// How many handles could not be dropped when their file was closed, since the last call.
pub(crate) fn failed_closes() -> u32 {
    FAILED_CLOSES.swap(0, Ordering::Relaxed)
}

/// An open file of a device: it holds a handle until the last who has it closes it.
pub(crate) struct File {
    handle: Cell<Option<Handle>>,
}

impl File {
    /// Binds `space` to the device.
    pub(crate) fn open(space: Space, device: &Device) -> Result<Rc<Self>, Error> {
        let handle = calls::bind(space, device)?;
        Ok(Rc::new(Self {
            handle: Cell::new(Some(handle)),
        }))
    }

    /// Drops what the file is bound to, and binds `space` in its place.
    pub(crate) fn take_over(&self, space: Space, device: &Device) -> Result<(), Error> {
        self.shut()?;
        self.handle.set(Some(calls::bind(space, device)?));
        Ok(())
    }

    /// Drops the handle before the file is closed.
    pub(crate) fn shut(&self) -> Result<(), Error> {
        self.handle
            .take()
            .map_or(Ok(()), |handle| EL2.unbind(handle))
    }

    /// Forgets the handle, as a kernel that was replaced does.
    pub(crate) fn forget(&self) {
        self.handle.set(None);
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.shut().is_err() {
            FAILED_CLOSES.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A process.
pub(crate) struct Process {
    pub(crate) memory: Memory,
    pub(crate) files: Vec<Rc<File>>,
    next_va: u64,
}

impl Process {
    pub(crate) fn new() -> Self {
        Self::of(Memory::new())
    }

    /// One with this address space.
    pub(crate) const fn of(memory: Memory) -> Self {
        Self {
            memory,
            files: Vec::new(),
            next_va: FIRST_VA,
        }
    }

    /// A new page: where the process has it, and where the guest does.
    pub(crate) fn page(&mut self) -> (u64, u64) {
        let va = self.next_va;
        self.next_va += PAGE;
        (va, self.memory.map_new(va))
    }

    /// Begins its pages elsewhere, so that none is where another process has one.
    pub(crate) fn begin_at(&mut self, page: u64) {
        self.next_va = FIRST_VA + page * PAGE;
    }

    /// The number by which devices know it.
    pub(crate) fn number(&mut self) -> Result<u32, Error> {
        self.memory.space().map(|space| space.pasid.number)
    }

    /// Lets a device use its address space, and keeps the file.
    pub(crate) fn open(&mut self, device: &Device) -> Result<Rc<File>, Error> {
        let file = File::open(self.memory.space()?, device)?;
        self.files.push(Rc::clone(&file));
        Ok(file)
    }

    /// A child: it has all files, and memory of its own.
    pub(crate) fn fork(&self) -> Self {
        let mut child = Self::new();
        child.files = self.files.clone();
        child
    }

    /// Replaces the address space; the files stay. Gives the pages of the old one, which are
    /// nobody's.
    pub(crate) fn exec(&mut self) -> Result<Vec<u64>, Error> {
        core::mem::replace(&mut self.memory, Memory::new()).end()
    }

    /// Ends: first the address space, then the files, each of which is closed if nobody else has
    /// it. Gives the pages, which are nobody's.
    pub(crate) fn exit(self) -> Result<Vec<u64>, Error> {
        let Self { memory, files, .. } = self;
        let pages = memory.end();
        drop(files);
        pages
    }
}
