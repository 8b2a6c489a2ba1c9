//! What an SMMU keeps.

pub(crate) mod config;
pub(crate) mod tlb;

/// Everything one SMMU keeps.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    pub(crate) config: config::ConfigCache,
    pub(crate) tlb: tlb::Tlb,
}
