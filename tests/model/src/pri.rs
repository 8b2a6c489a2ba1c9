//! Page requests and their answers (§8).

/// A page request of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// StreamID.
    pub stream: u32,
    /// SubstreamID, if any.
    pub substream: Option<u32>,
    /// The page, low 12 bits ignored.
    pub address: u64,
    /// Page request group, 9 bits.
    pub group: u16,
    /// Asks for reading.
    pub wants_read: bool,
    /// Asks for writing.
    pub wants_write: bool,
    /// Asks for execution; ignored without SubstreamID.
    pub wants_execute: bool,
    /// Asks for privileged access; ignored without SubstreamID.
    pub is_privileged: bool,
    /// The last of its group. With neither read nor write and with a SubstreamID it is a stop
    /// marker.
    pub is_last: bool,
}

/// What a group of page requests is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseCode {
    /// The pages are there, or retrying is worth it.
    Success,
    /// There is no such page.
    InvalidRequest,
    /// The device is not to ask again.
    Failure,
}

/// The answer to a page request group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageResponse {
    /// StreamID.
    pub stream: u32,
    /// SubstreamID, where the response carries one.
    pub substream: Option<u32>,
    /// Page request group.
    pub group: u16,
    /// What is answered.
    pub code: ResponseCode,
    /// Whether the SMMU answered by itself, not the driver by a command.
    pub is_automatic: bool,
}
