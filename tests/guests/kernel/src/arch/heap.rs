//! Memory for `alloc`.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use buddy_system_allocator::Heap;
use spin::Mutex;

struct Shared(Mutex<Heap<24>>);

// SAFETY: the heap gives each block once until it comes back.
unsafe impl GlobalAlloc for Shared {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.0.lock().alloc(layout);
        block.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got it from `alloc` with this layout.
            unsafe { self.0.lock().dealloc(block, layout) };
        }
    }
}

#[global_allocator]
static HEAP: Shared = Shared(Mutex::new(Heap::new()));

/// Gives the heap memory of the guest that nobody else has.
pub(crate) fn give(memory: core::ops::Range<u64>) {
    let at = |address: u64| (super::LINEAR + address) as usize;
    // SAFETY: the caller has it, and it is mapped for ever.
    unsafe {
        HEAP.0.lock().add_to_heap(at(memory.start), at(memory.end));
    }
}
