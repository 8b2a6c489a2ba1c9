//! Lines for EL2's console.

use core::fmt::{self, Write};

use spin::Mutex;

use crate::calls::EL2;

/// What one call carries.
const MOST: usize = 128;

struct Buffer {
    bytes: [u8; MOST],
    count: usize,
}

static BUFFER: Mutex<Buffer> = Mutex::new(Buffer {
    bytes: [0; MOST],
    count: 0,
});

impl Buffer {
    fn flush(&mut self) {
        if self.count != 0 {
            // There is nobody to tell of a console that is not there.
            let _ = EL2.console_write(&self.bytes[..self.count]);
            self.count = 0;
        }
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.count == MOST {
                self.flush();
            }
            self.bytes[self.count] = byte;
            self.count += 1;
        }
        Ok(())
    }
}

/// Writes a line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut buffer = BUFFER.lock();
    // The buffer takes everything.
    let _ = writeln!(buffer, "{text}");
    buffer.flush();
}

/// Writes a line, as `format!` does.
#[macro_export]
macro_rules! say {
    ($($what:tt)*) => { $crate::console::line(format_args!($($what)*)) };
}
