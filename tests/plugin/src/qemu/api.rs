//! The functions of QEMU's plugin interface that are used, found by name.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// A translation block.
#[repr(C)]
pub(super) struct Tb([u8; 0]);
/// An instruction of one.
#[repr(C)]
pub(super) struct Insn([u8; 0]);
/// Where an access went.
#[repr(C)]
pub(super) struct HwAddr([u8; 0]);
/// What kind of access it was.
pub(super) type MemInfo = u32;

/// The value of an access: `kind` is 0 for 8 bits, to 4 for 128.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct MemValue {
    kind: c_int,
    low: u64,
    high: u64,
}

type OnTranslation = extern "C" fn(u64, *mut Tb);
type OnExit = extern "C" fn(u64, *mut c_void);
type OnExecution = extern "C" fn(c_uint, *mut c_void);
type OnAccess = extern "C" fn(c_uint, MemInfo, u64, *mut c_void);

const NO_REGISTERS: c_int = 0;
const STORES: c_int = 2;

macro_rules! api {
    ($($field:ident: $name:literal, fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions.
        #[derive(Clone, Copy)]
        pub(super) struct Api {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// Finds all of them in the program that runs.
            ///
            /// # Errors
            ///
            /// The name of the first that is not there.
            pub(super) fn find() -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        let found = find($name).ok_or($name.to_str().unwrap_or("a function"))?;
                        // SAFETY: the function of this name has this type since QEMU 9.2.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(found) }
                    },)*
                })
            }
        }
    };
}

api! {
    register_tb_trans: c"qemu_plugin_register_vcpu_tb_trans_cb", fn(u64, OnTranslation);
    register_atexit: c"qemu_plugin_register_atexit_cb", fn(u64, OnExit, *mut c_void);
    tb_n_insns: c"qemu_plugin_tb_n_insns", fn(*const Tb) -> usize;
    tb_get_insn: c"qemu_plugin_tb_get_insn", fn(*const Tb, usize) -> *mut Insn;
    insn_vaddr: c"qemu_plugin_insn_vaddr", fn(*const Insn) -> u64;
    register_mem: c"qemu_plugin_register_vcpu_mem_cb",
        fn(*mut Insn, OnAccess, c_int, c_int, *mut c_void);
    register_tb_exec: c"qemu_plugin_register_vcpu_tb_exec_cb",
        fn(*mut Tb, OnExecution, c_int, *mut c_void);
    size_shift: c"qemu_plugin_mem_size_shift", fn(MemInfo) -> c_uint;
    mem_value: c"qemu_plugin_mem_get_value", fn(MemInfo) -> MemValue;
    get_hwaddr: c"qemu_plugin_get_hwaddr", fn(MemInfo, u64) -> *mut HwAddr;
    is_io: c"qemu_plugin_hwaddr_is_io", fn(*const HwAddr) -> bool;
    phys_addr: c"qemu_plugin_hwaddr_phys_addr", fn(*const HwAddr) -> u64;
}

/// The function of this name in the program that runs.
fn find(name: &CStr) -> Option<*mut c_void> {
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    // SAFETY: a null handle means the program and all it has loaded; `name` is a C string.
    let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

impl Api {
    /// Has `call` called with `count` whenever `tb` is begun.
    pub(super) fn report_block(&self, tb: *mut Tb, call: OnExecution, count: usize) {
        let count = std::ptr::without_provenance_mut(count);
        // SAFETY: called while QEMU translates `tb`; the pointer is only handed on.
        unsafe { (self.register_tb_exec)(tb, call, NO_REGISTERS, count) };
    }

    /// Has `call` called after each store of `insn`, with the virtual address of `insn`.
    pub(super) fn report_stores(&self, insn: *mut Insn, call: OnAccess) {
        // SAFETY: called while QEMU translates the block of `insn`.
        let pc = unsafe { (self.insn_vaddr)(insn) };
        let pc = std::ptr::without_provenance_mut(pc as usize);
        // SAFETY: as above; the pointer is only handed on.
        unsafe { (self.register_mem)(insn, call, NO_REGISTERS, STORES, pc) };
    }

    /// How many bytes an access has.
    pub(super) fn bytes(&self, info: MemInfo) -> u64 {
        // SAFETY: takes a number apart.
        1 << (unsafe { (self.size_shift)(info) } & 7)
    }

    /// What the access that is being reported stored, in `bytes` bytes.
    pub(super) fn value(&self, info: MemInfo, bytes: u64) -> [u64; 2] {
        // SAFETY: called from a report of an access, for that access.
        let value = unsafe { (self.mem_value)(info) };
        match bytes {
            // A shorter value leaves what is above it undefined.
            1..8 => [value.low & ((1 << (8 * bytes)) - 1), 0],
            8 => [value.low, 0],
            _ => [value.low, value.high],
        }
    }

    /// Where in guest memory the access that is being reported touched the page of `va`; `None`
    /// if that is no memory.
    pub(super) fn physical(&self, info: MemInfo, va: u64) -> Option<u64> {
        // SAFETY: called from a report of an access, for that access.
        let at = unsafe { (self.get_hwaddr)(info, va) };
        if at.is_null() {
            return None;
        }
        // SAFETY: good until the report returns.
        if unsafe { (self.is_io)(at) } {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { (self.phys_addr)(at) })
    }
}
