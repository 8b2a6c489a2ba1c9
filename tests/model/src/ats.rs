//! ATS: translation requests, translated traffic, invalidation of devices' caches (§3.9).

/// What a successful translation request grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtsGrant {
    /// The translated address (PA, or IPA with split stages), aligned to its size.
    pub address: u64,
    /// log2 of the bytes that it covers.
    pub log2_bytes: u32,
    /// Reads are permitted.
    pub can_read: bool,
    /// Writes are permitted.
    pub can_write: bool,
    /// Instruction fetches are permitted; only if asked for.
    pub can_execute: bool,
}

/// The answer to a translation request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtsAnswer {
    /// Success; with neither read nor write there is no translation.
    Success(AtsGrant),
    /// Unsupported Request: ATS is off for this stream.
    UnsupportedRequest,
    /// Completer Abort: the configuration is broken.
    CompleterAbort,
}

/// An invalidation that the SMMU sends to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtcInvalidation {
    /// Names this invalidation in [`Smmu::answer_invalidation`](crate::Smmu::answer_invalidation).
    pub id: u64,
    /// The StreamID that the command named.
    pub stream: u32,
    /// The SubstreamID, where SSV was 1.
    pub substream: Option<u32>,
    /// G: all SubstreamIDs.
    pub is_global: bool,
    /// The first byte, aligned to the size.
    pub address: u64,
    /// log2 of the bytes covered, at least 12; 64: everything.
    pub log2_bytes: u32,
}

/// How a device answers an invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidationAnswer {
    /// It is done.
    Done,
    /// Unsupported Request: completes the command without error and without guarantee.
    UnsupportedRequest,
    /// It will be answered later, by [`Smmu::answer_invalidation`](crate::Smmu::answer_invalidation),
    /// or never.
    Later,
}

/// A device behind the SMMU, as far as the SMMU talks to it.
///
/// Called with no lock of the model held, so it may call the [`Smmu`](crate::Smmu) back.
pub trait Endpoint: Send + Sync {
    /// An invalidation has arrived.
    fn invalidate(&self, invalidation: AtcInvalidation) -> InvalidationAnswer;

    /// An answer to a page request has arrived.
    fn page_response(&self, response: crate::pri::PageResponse) {
        let _ = response;
    }
}
