//! The report in a file.

use alloc::format;
use alloc::string::{String, ToString as _};

use uefi::fs::FileSystem;
use uefi::proto::device_path::media::FilePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::fs::SimpleFileSystem;
use uefi::{CString16, boot};

use super::raw;

const NAME: &str = "portcullis-probe.txt";

/// Saves `text` beside the application; says where, or why not.
pub(super) fn save(text: &str) -> String {
    match try_save(text) {
        Ok(path) => format!("This report is saved as {path}"),
        Err(why) => format!("This report is NOT saved in a file: {why}"),
    }
}

fn try_save(text: &str) -> Result<String, String> {
    let image = raw::open::<LoadedImage>(boot::image_handle()).ok_or("no loaded image")?;
    let device = image
        .device()
        .ok_or("the application came from no device")?;
    let files = raw::open::<SimpleFileSystem>(device)
        .ok_or("the application came from a device without a file system")?;
    let path = beside(&image);
    let name = CString16::try_from(path.as_str()).map_err(|_| "its path is no text")?;
    FileSystem::new(files)
        .write(name.as_ref(), text)
        .map_err(|error| error.to_string())?;
    Ok(path)
}

/// The path of the file: the application's, with another last component.
fn beside(image: &LoadedImage) -> String {
    let mut path = String::new();
    let nodes = image.file_path().into_iter().flat_map(|it| it.node_iter());
    for node in nodes {
        if let Ok(file) = <&FilePath>::try_from(node)
            && let Ok(name) = file.path_name().to_cstring16()
        {
            path += "\\";
            path += &name.to_string();
        }
    }
    let folder = path.rfind('\\').map_or("", |end| &path[..end]);
    let mut whole = String::new();
    for part in folder.split('\\').filter(|part| !part.is_empty()) {
        whole += "\\";
        whole += part;
    }
    whole + "\\" + NAME
}
