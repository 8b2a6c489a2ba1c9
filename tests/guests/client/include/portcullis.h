/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The hypercalls of Portcullis, version 1.0: the numbers of ABI.md, which says what they mean. */
#ifndef PORTCULLIS_H
#define PORTCULLIS_H

#define PORTCULLIS_ABI_MAJOR 1
#define PORTCULLIS_ABI_MINOR 0

/* Discovery: 32-bit calls. */
#define PORTCULLIS_UID_CALL 0x8600FF01u
#define PORTCULLIS_REVISION_CALL 0x8600FF03u
#define PORTCULLIS_UID_0 0xd3f7a1c4u
#define PORTCULLIS_UID_1 0x5b0e4e63u
#define PORTCULLIS_UID_2 0x9a2d706fu
#define PORTCULLIS_UID_3 0x7274636cu

/* Calls: fast, 64-bit, in x0; HVC #0. */
#define PORTCULLIS_FEATURES        0xC6000000u
#define PORTCULLIS_DEVICE_INFO     0xC6000001u
#define PORTCULLIS_ATTACH          0xC6000002u
#define PORTCULLIS_DETACH          0xC6000003u
#define PORTCULLIS_DEVICE_RESET    0xC6000004u
#define PORTCULLIS_SPACE_CREATE    0xC6000005u
#define PORTCULLIS_BIND            0xC6000006u
#define PORTCULLIS_UNBIND          0xC6000007u
#define PORTCULLIS_INVALIDATE      0xC6000008u
#define PORTCULLIS_RELEASE         0xC6000009u
#define PORTCULLIS_FAULT_NEXT      0xC600000Au
#define PORTCULLIS_FAULT_ANSWER    0xC600000Bu
#define PORTCULLIS_RELEASE_ALL     0xC600000Cu
#define PORTCULLIS_LOG_READ        0xC600000Du
#define PORTCULLIS_CONSOLE_WRITE   0xC600000Eu
#define PORTCULLIS_STATS           0xC600000Fu
#define PORTCULLIS_INVALIDATE_LIST 0xC6000010u

/* attach: what untagged traffic does. */
#define PORTCULLIS_UNTAGGED_ABORT 0
#define PORTCULLIS_UNTAGGED_STAGE2 1

/* bind: by what. */
#define PORTCULLIS_BY_PASID 0
#define PORTCULLIS_BY_WHOLE_STREAM 1

/* space_create: which PASID, and flags. */
#define PORTCULLIS_ASK_ANY 0
#define PORTCULLIS_ASK_AT_MOST_BITS 1
#define PORTCULLIS_ASK_EXACTLY 2
#define PORTCULLIS_NO_GLOBAL 1

/* fault_answer. */
#define PORTCULLIS_RETRY 0
#define PORTCULLIS_ABORT 1

/* A range of invalidate_list; the list is aligned to 8 bytes, 64 of them at most. */
struct portcullis_range {
	unsigned long long address;
	unsigned long long bytes;
};
#define PORTCULLIS_MAX_RANGES 64
#define PORTCULLIS_MAX_TEXT 128

/* Codes: x0 as a signed number; 0 is success. */
#define PORTCULLIS_NOT_SUPPORTED      (-1)
#define PORTCULLIS_BAD_ARGUMENT       (-16)
#define PORTCULLIS_BAD_TCR            (-17)
#define PORTCULLIS_NOT_ITS_MEMORY     (-18)
#define PORTCULLIS_NO_SUCH_DEVICE     (-19)
#define PORTCULLIS_NO_SUCH_SPACE      (-20)
#define PORTCULLIS_NO_SUCH_HANDLE     (-21)
#define PORTCULLIS_NO_SUCH_FAULT      (-22)
#define PORTCULLIS_FOREIGN_SPACE      (-23)
#define PORTCULLIS_FOREIGN_HANDLE     (-24)
#define PORTCULLIS_FOREIGN_FAULT      (-25)
#define PORTCULLIS_NOT_OWNER          (-26)
#define PORTCULLIS_ATTACHED           (-27)
#define PORTCULLIS_NOT_ATTACHED       (-28)
#define PORTCULLIS_BOUND              (-29)
#define PORTCULLIS_FENCED             (-30)
#define PORTCULLIS_SMMU_DOWN          (-31)
#define PORTCULLIS_NOT_YET            (-32)
#define PORTCULLIS_UNPROTECTED        (-33)
#define PORTCULLIS_GUEST_ENDING       (-34)
#define PORTCULLIS_RELEASED           (-35)
#define PORTCULLIS_ALREADY_RELEASED   (-36)
#define PORTCULLIS_NO_PASIDS          (-37)
#define PORTCULLIS_PASID_TOO_WIDE     (-38)
#define PORTCULLIS_BOUND_OTHERWISE    (-39)
#define PORTCULLIS_PUBLISH_OVER_LIVE  (-40)
#define PORTCULLIS_MISFIT             (-41)
#define PORTCULLIS_UNWALKABLE         (-42)
#define PORTCULLIS_CONTEXTS           (-43)
#define PORTCULLIS_STREAM             (-44)
#define PORTCULLIS_STAGE2             (-45)
#define PORTCULLIS_WINDOW             (-46)
#define PORTCULLIS_NO_PASID           (-47)
#define PORTCULLIS_PASID_TAKEN        (-48)
#define PORTCULLIS_PASID_OUT_OF_RANGE (-49)
#define PORTCULLIS_NO_ASID            (-50)
#define PORTCULLIS_NO_MEMORY          (-51)
#define PORTCULLIS_FULL               (-52)
#define PORTCULLIS_QUOTA_SPACES       (-53)
#define PORTCULLIS_QUOTA_BINDINGS     (-54)
#define PORTCULLIS_QUOTA_HANDLES      (-55)
#define PORTCULLIS_QUOTA_TABLES       (-56)
#define PORTCULLIS_BUSY               (-57)
#define PORTCULLIS_WINDOW_NOT_MAPPED  (-58)
#define PORTCULLIS_NEVER_CAME         (-59)
#define PORTCULLIS_NO_SUCH_GUEST      (-60)
#define PORTCULLIS_NOT_CONFIRMED      (-64)
#define PORTCULLIS_NOT_HELD           (-65)
#define PORTCULLIS_CACHES_KEPT        (-66)
#define PORTCULLIS_NOT_RESET          (-67)
#define PORTCULLIS_NOT_RECOVERED      (-68)
#define PORTCULLIS_NO_SUCH_GROUP      (-96)
#define PORTCULLIS_NO_SUCH_SMMU       (-97)
#define PORTCULLIS_SMMU_TAKEN         (-98)
#define PORTCULLIS_OWNED              (-99)
#define PORTCULLIS_STALE_OWNERSHIP    (-100)
#define PORTCULLIS_GROUP_ATTACHED     (-101)
#define PORTCULLIS_STREAM_TAKEN       (-102)
#define PORTCULLIS_STREAMS            (-103)
#define PORTCULLIS_GROUP_FULL         (-104)
#define PORTCULLIS_HOSTS_TABLES       (-105)
#define PORTCULLIS_NOT_HOSTS          (-106)
#define PORTCULLIS_NO_SUCH_WINDOW     (-107)
#define PORTCULLIS_VMID_TAKEN         (-108)
#define PORTCULLIS_NO_VMID            (-109)

#endif
