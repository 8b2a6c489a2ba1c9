//! Lines of text, by EL2.

use core::fmt::{self, Write as _};

use portcullis_guest::{Hvc, Portcullis};

struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let portcullis = Portcullis::new(Hvc);
        portcullis
            .console_write(text.as_bytes())
            .map_err(|_| fmt::Error)
    }
}

pub(crate) fn print(text: fmt::Arguments<'_>) {
    // Nobody is left to tell that nobody hears.
    let _ = Out.write_fmt(text);
    let _ = Out.write_str("\n");
}

macro_rules! println {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}
pub(crate) use println;
