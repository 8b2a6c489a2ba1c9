//! Event records (§7.3).

use crate::bits::{bit, field};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What kind of record an event is; the discriminant is its number.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum EventType {
            $($(#[$doc])* $name = $number,)*
        }

        impl EventType {
            /// The kind with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

events! {
    /// F_UUT: an unsupported upstream transaction.
    UnsupportedTransaction = 0x01,
    /// C_BAD_STREAMID.
    BadStreamId = 0x02,
    /// F_STE_FETCH.
    SteFetch = 0x03,
    /// C_BAD_STE.
    BadSte = 0x04,
    /// F_BAD_ATS_TREQ.
    BadAtsRequest = 0x05,
    /// F_STREAM_DISABLED.
    StreamDisabled = 0x06,
    /// F_TRANSL_FORBIDDEN.
    TranslationForbidden = 0x07,
    /// C_BAD_SUBSTREAMID.
    BadSubstreamId = 0x08,
    /// F_CD_FETCH.
    CdFetch = 0x09,
    /// C_BAD_CD.
    BadCd = 0x0a,
    /// F_WALK_EABT.
    WalkAbort = 0x0b,
    /// F_TRANSLATION.
    Translation = 0x10,
    /// F_ADDR_SIZE.
    AddressSize = 0x11,
    /// F_ACCESS.
    AccessFlag = 0x12,
    /// F_PERMISSION.
    Permission = 0x13,
    /// F_TLB_CONFLICT.
    TlbConflict = 0x20,
    /// F_CFG_CONFLICT.
    ConfigConflict = 0x21,
    /// E_PAGE_REQUEST.
    PageRequest = 0x24,
}

impl EventType {
    /// Whether it is one of the four faults that A, R and S of the faulting stage speak about.
    pub const fn is_translation_related(self) -> bool {
        matches!(
            self,
            Self::Translation | Self::AddressSize | Self::AccessFlag | Self::Permission
        )
    }

    /// Whether the record tells the address and direction of the transaction.
    const fn has_input(self) -> bool {
        self.is_translation_related()
            || matches!(
                self,
                Self::UnsupportedTransaction
                    | Self::BadAtsRequest
                    | Self::TranslationForbidden
                    | Self::WalkAbort
                    | Self::TlbConflict
                    | Self::PageRequest
            )
    }
}

/// What was being accessed when a fault happened (CLASS).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A context descriptor.
    Cd,
    /// A stage-1 translation table descriptor.
    TranslationTable,
    /// The input address.
    Input,
}

/// One event record, decoded. Fields that its kind does not have are 0, `false` or `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its kind.
    pub event_type: EventType,
    /// StreamID.
    pub stream: u32,
    /// SubstreamID, where SSV is 1 (for C_BAD_SUBSTREAMID: always).
    pub substream: Option<u32>,
    /// Stall and STAG.
    pub stag: Option<u16>,
    /// RnW: whether the transaction read.
    pub is_read: bool,
    /// InD.
    pub is_instruction: bool,
    /// PnU.
    pub is_privileged: bool,
    /// S2.
    pub is_stage2: bool,
    /// CLASS.
    pub class: Class,
    /// InputAddr.
    pub address: u64,
    /// IPA, or FetchAddr.
    pub second_address: u64,
    /// Reason.
    pub reason: u16,
}

impl Event {
    /// A record of `event_type` for `stream` with every other field clear.
    pub const fn new(event_type: EventType, stream: u32) -> Self {
        Self {
            event_type,
            stream,
            substream: None,
            stag: None,
            is_read: false,
            is_instruction: false,
            is_privileged: false,
            is_stage2: false,
            class: Class::Cd,
            address: 0,
            second_address: 0,
            reason: 0,
        }
    }

    /// The record's four words.
    pub(crate) fn encode(&self) -> [u64; 4] {
        let number = self.event_type as u64;
        let mut words = [number | u64::from(self.stream) << 32, 0, 0, 0];
        let has_substream = !matches!(
            self.event_type,
            EventType::StreamDisabled | EventType::TranslationForbidden
        );
        if let (Some(substream), true) = (self.substream, has_substream) {
            words[0] |= u64::from(substream) << 12;
            if self.event_type != EventType::BadSubstreamId {
                words[0] |= 1 << 11;
            }
        }
        match self.event_type {
            EventType::BadAtsRequest => self.encode_ats_request(&mut words),
            EventType::PageRequest => words[2] = self.address,
            EventType::TranslationForbidden => {
                words[1] |= u64::from(self.is_read) << 35;
                words[2] = self.address;
            }
            EventType::SteFetch | EventType::CdFetch => {
                words[1] = u64::from(self.reason);
                words[3] = self.second_address & 0x00ff_ffff_ffff_fff8;
            }
            EventType::UnsupportedTransaction => {
                words[1] = u64::from(self.reason) | self.direction();
                words[2] = self.address;
            }
            EventType::WalkAbort => {
                words[1] = u64::from(self.reason) | self.direction() | self.place();
                words[2] = self.address;
                words[3] = self.second_address & 0x00ff_ffff_ffff_fff8;
            }
            EventType::TlbConflict => {
                words[1] =
                    u64::from(self.reason) | self.direction() | u64::from(self.is_stage2) << 39;
                words[2] = self.address;
                words[3] = self.second_address & 0x00ff_ffff_ffff_f000;
            }
            EventType::ConfigConflict => words[1] = u64::from(self.reason),
            kind if kind.is_translation_related() => {
                words[1] = self.direction() | self.place();
                if let Some(stag) = self.stag {
                    words[1] |= u64::from(stag) | 1 << 31;
                }
                words[2] = self.address;
                words[3] = self.second_address & 0x00ff_ffff_ffff_f000;
            }
            _ => {}
        }
        words
    }

    fn encode_ats_request(&self, words: &mut [u64; 4]) {
        words[1] = self.direction();
        words[2] = self.address & !0xfff;
    }

    const fn direction(&self) -> u64 {
        let instruction = self.is_instruction && self.is_read;
        (self.is_privileged as u64) << 33 | (instruction as u64) << 34 | (self.is_read as u64) << 35
    }

    const fn place(&self) -> u64 {
        let class = match self.class {
            Class::Cd => 0,
            Class::TranslationTable => 1,
            Class::Input => 2,
        };
        (self.is_stage2 as u64) << 39 | class << 40
    }

    /// Whether two records of this kind that differ only within a page may be merged.
    pub(crate) const fn merges_within_page(&self) -> bool {
        matches!(
            self.event_type,
            EventType::TranslationForbidden | EventType::WalkAbort | EventType::TlbConflict
        ) || self.event_type.is_translation_related()
    }

    /// Reads a record; `None` if its number is none of [`EventType`]'s.
    pub fn decode(words: &[u64; 4]) -> Option<Self> {
        let event_type = EventType::from_number(field(words[0], 7, 0) as u8)?;
        let mut event = Self::new(event_type, field(words[0], 63, 32) as u32);
        if bit(words[0], 11) || event_type == EventType::BadSubstreamId {
            event.substream = Some(field(words[0], 31, 12) as u32);
        }
        if event_type.has_input() {
            event.is_privileged = bit(words[1], 33);
            event.is_instruction = bit(words[1], 34);
            event.is_read = bit(words[1], 35);
            event.address = words[2];
        }
        if event_type.is_translation_related() || event_type == EventType::WalkAbort {
            event.is_stage2 = bit(words[1], 39);
            event.class = match field(words[1], 41, 40) {
                0 => Class::Cd,
                1 => Class::TranslationTable,
                _ => Class::Input,
            };
        }
        if event_type.is_translation_related() {
            event.stag = bit(words[1], 31).then_some(field(words[1], 15, 0) as u16);
        } else {
            event.reason = field(words[1], 15, 0) as u16;
        }
        event.second_address = words[3];
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_stage_2_translation_fault_has_its_bits_in_place() {
        let event = Event {
            substream: Some(0x12345),
            stag: Some(0xbeef),
            is_read: true,
            is_privileged: true,
            is_stage2: true,
            class: Class::TranslationTable,
            address: 0x1234_5678_9abc_def0,
            second_address: 0x0000_8765_4321_0fff,
            ..Event::new(EventType::Translation, 0xabcd_0123)
        };
        let words = event.encode();
        assert_eq!(words[0], 0xabcd_0123_1234_5810);
        assert_eq!(words[1], 0x0000_018a_8000_beef);
        assert_eq!(words[2], 0x1234_5678_9abc_def0);
        assert_eq!(words[3], 0x0000_8765_4321_0000);
    }

    #[test]
    fn a_bad_substream_has_its_number_but_no_valid_bit() {
        let event = Event {
            substream: Some(9),
            ..Event::new(EventType::BadSubstreamId, 3)
        };
        assert_eq!(event.encode(), [0x0000_0003_0000_9008, 0, 0, 0]);
        assert_eq!(Event::decode(&event.encode()), Some(event));
    }
}
