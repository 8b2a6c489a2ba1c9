//! What was typed behind the application's name.

use alloc::string::ToString as _;

use uefi::boot;
use uefi::proto::loaded_image::LoadedImage;

use super::raw;

/// What is wanted.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// Not `nopage`: a stop after each screen.
    pub(super) stops_at_pages: bool,
    /// `shutdown`: turn the machine off afterwards, for tests.
    pub(super) shuts_down: bool,
}

impl Options {
    /// As given by the shell, the boot loader or the boot entry.
    pub(super) fn given() -> Self {
        let image = raw::open::<LoadedImage>(boot::image_handle());
        // A boot entry may have bytes there that are no text: then nothing was asked for.
        let text = image
            .as_ref()
            .and_then(|it| it.load_options_as_cstr16().ok())
            .map(|text| text.to_string())
            .unwrap_or_default();
        let has = |word| text.split_ascii_whitespace().any(|it| it == word);
        Self {
            stops_at_pages: !has("nopage"),
            shuts_down: has("shutdown"),
        }
    }
}
