//! QEMU's side: what it calls, and what is called of it.
//!
//! All CPUs' threads call in at once, unless QEMU runs with `-icount`. A store that concerns nobody
//! takes no lock.
//!
//! Which CPU calls is not asked: where CPUs take turns (`-icount`, `-smp 1`, one thread) QEMU bakes the
//! number of the CPU that first ran a translation into it. For the same reason time is counted here
//! and not by QEMU's scoreboards: QEMU 10.0 multiplies that baked-in number in place, and every other
//! use of the same constant in the translation, the guest's included, becomes another (seen with two
//! CPUs: a `1` turned into 64).
#![allow(
    unsafe_code,
    reason = "QEMU's plugin interface is C's: raw pointers, and functions found by name"
)]

mod api;
mod mapping;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::process::abort;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::options::Options;
use crate::ram::Ram;
use crate::world::{Store, World};
use api::{Api, Insn, MemInfo, Tb};

/// Tells QEMU for which version of its plugin interface this is written: that of QEMU 9.2, the
/// first to tell the value of a store.
#[unsafe(no_mangle)]
pub(crate) static qemu_plugin_version: c_int = 4;

/// Between two ticks there is at most so many times the time that the options ask for.
const RAREST: u64 = 64;

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

struct Plugin {
    api: Api,
    options: Options,
    /// Guest time: one nanosecond for each instruction, whichever CPU runs it; a translation block
    /// counts whole when it begins.
    now_ns: AtomicU64,
    /// When the next tick comes.
    next_tick_ns: AtomicU64,
    /// How long after the one before.
    pause_ns: AtomicU64,
    started: OnceLock<Started>,
}

/// What there is once the machine has RAM.
struct Started {
    ram: Arc<Ram>,
    world: Mutex<World>,
}

/// Says on stderr why there is no run, and ends the process: a run without the model must not look
/// like one with it.
fn refuse(why: &str) -> ! {
    eprintln!("smmu-plugin: {why}");
    exit(2)
}

/// Ends the process now: QEMU's own exit would wait for CPUs, and this is one of their threads.
fn exit(status: c_int) -> ! {
    unsafe extern "C" {
        safe fn _exit(status: c_int) -> !;
    }
    _exit(status)
}

/// Called by QEMU when it loads the plugin.
///
/// # Safety
///
/// As QEMU's documentation has it: `arguments` are `count` C strings.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    let words: Vec<String> = (0..count)
        .map(|at| {
            let word = arguments.wrapping_add(at);
            // SAFETY: QEMU gives so many pointers.
            let word = unsafe { *word };
            // SAFETY: each is a C string.
            unsafe { CStr::from_ptr(word) }
        })
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let options = match Options::parse(words.iter().map(String::as_str)) {
        Ok(options) => options,
        Err(why) => refuse(&why),
    };
    let api = match Api::find() {
        Ok(api) => api,
        Err(name) => refuse(&format!("this QEMU has no {name}; 9.2 or newer is needed")),
    };
    let plugin = Plugin {
        now_ns: AtomicU64::new(0),
        next_tick_ns: AtomicU64::new(options.tick_ns),
        pause_ns: AtomicU64::new(options.tick_ns),
        started: OnceLock::new(),
        api,
        options,
    };
    if PLUGIN.set(plugin).is_err() {
        refuse("loaded twice");
    }
    // SAFETY: both are functions of the type that QEMU asks for, and stay.
    unsafe {
        (api.register_tb_trans)(id, on_translation);
    }
    // SAFETY: as above.
    unsafe {
        (api.register_atexit)(id, on_exit, std::ptr::null_mut());
    }
    0
}

impl Plugin {
    fn started(&self) -> &Started {
        self.started.get_or_init(|| {
            let Options { ram, .. } = &self.options;
            let words = match mapping::guest_ram(ram.end - ram.start) {
                Ok(words) => words,
                Err(why) => refuse(&why),
            };
            let frames = self.options.frames().collect();
            let ram = Arc::new(Ram::new(ram.start, words, frames));
            let world = World::new(self.options.clone(), Arc::clone(&ram));
            Started {
                ram,
                world: Mutex::new(world),
            }
        })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        let world = &self.started().world;
        world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `instructions` pass, and ticks when it is time.
    ///
    /// While nothing happens the ticks grow rarer, down to one in [`RAREST`]; a store to a frame or
    /// to watched memory brings them back to where they were.
    fn pass(&self, instructions: u64) {
        let now_ns = self.now_ns.fetch_add(instructions, Ordering::SeqCst) + instructions;
        if now_ns < self.next_tick_ns.load(Ordering::Relaxed) {
            return;
        }
        let mut world = self.world();
        world.tick(now_ns);
        self.look_at(&world);
        let most = self.options.tick_ns.saturating_mul(RAREST);
        let pause_ns = self.pause_ns.load(Ordering::Relaxed).saturating_mul(2);
        self.pause(
            now_ns,
            if world.is_busy() {
                0
            } else {
                pause_ns.min(most)
            },
        );
    }

    /// Has the next tick come after `pause_ns`, or the shortest pause if that is more.
    fn pause(&self, now_ns: u64, pause_ns: u64) {
        let pause_ns = pause_ns.max(self.options.tick_ns);
        self.pause_ns.store(pause_ns, Ordering::Relaxed);
        self.next_tick_ns
            .store(now_ns.saturating_add(pause_ns), Ordering::Relaxed);
    }

    fn look_at(&self, world: &World) {
        if world.is_over() {
            for breach in world.verdict().breaches() {
                eprintln!("smmu-plugin: {}", breach.told);
            }
            self.write(world);
            exit(1);
        }
    }

    fn write(&self, world: &World) {
        let path = &self.options.verdict;
        if let Err(why) = std::fs::write(path, world.verdict().to_string()) {
            refuse(&format!("{}: {why}", path.display()));
        }
    }

    /// The part of a store that lies in one page.
    fn store(&self, info: MemInfo, pa: u64, bytes: u64, pc: u64) {
        let started = self.started();
        let ram = &started.ram;
        if ram.around_frames().contains(&pa) || ram.is_watched(pa) {
            let reported = self.api.value(info, bytes);
            let now_ns = self.now_ns.load(Ordering::SeqCst);
            let store = Store {
                pa,
                bytes,
                reported,
                pc,
            };
            let mut world = self.world();
            world.store(now_ns, store);
            self.look_at(&world);
            self.pause(now_ns, 0);
        }
    }
}

/// Has each store of a new translation reported, and its instructions counted.
extern "C" fn on_translation(_id: u64, tb: *mut Tb) {
    let Some(plugin) = PLUGIN.get() else { abort() };
    // Before the first instruction of the guest: the frames show the registers.
    plugin.started();
    let api = &plugin.api;
    // SAFETY: QEMU gives a translation block, which lasts while this runs.
    let count = unsafe { (api.tb_n_insns)(tb) };
    api.report_block(tb, on_block, count);
    for at in 0..count {
        // SAFETY: as above, and it has so many instructions.
        let insn: *mut Insn = unsafe { (api.tb_get_insn)(tb, at) };
        api.report_stores(insn, on_store);
    }
}

extern "C" fn on_block(_cpu: c_uint, instructions: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { abort() };
    plugin.pass(instructions.addr() as u64);
}

extern "C" fn on_store(_cpu: c_uint, info: MemInfo, va: u64, pc: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { abort() };
    let pc = pc.addr() as u64;
    let bytes = plugin.api.bytes(info);
    // What does not fit into the page goes on in the next, wherever that is.
    let here = bytes.min(4096 - (va & 4095));
    if let Some(pa) = plugin.api.physical(info, va) {
        plugin.store(info, pa, here, pc);
    }
    if here < bytes
        && let Some(pa) = plugin.api.physical(info, va.wrapping_add(here))
    {
        plugin.store(info, pa, bytes - here, pc);
    }
}

extern "C" fn on_exit(_id: u64, _: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { abort() };
    plugin.write(&plugin.world());
}
