/*
 * settings.h: what the caching allocator can be told: whose decisions it makes (the profile), and
 * the keys of PYTORCH_CUDA_ALLOC_CONF.
 *
 * A settings struct owns nothing and can be copied. Begin with oom_allocator_settings_default(),
 * never with zeros. A bad string is OOM_USAGE, and the struct is then untouched.
 */
#ifndef OOM_HARNESS_MEMORY_SETTINGS_H
#define OOM_HARNESS_MEMORY_SETTINGS_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* id, name, whose decisions */
#define OOM_PROFILE_MAP(X) \
    X(PYTORCH_2_13, "pytorch-2.13", "PyTorch from 2.13 on: equal blocks are taken oldest first") \
    X(PYTORCH_2_11, "pytorch-2.11", "PyTorch up to 2.11: equal blocks are taken by address") \
    X(FIXED, "fixed", "2.13 without what its users suffer from")

enum oom_profile {
#define X(id, name, prose) OOM_PROFILE_##id,
    OOM_PROFILE_MAP(X)
#undef X
        OOM_PROFILE_COUNT
};

const char *oom_profile_name(enum oom_profile profile);
const char *oom_profile_prose(enum oom_profile profile);
/* Unknown: OOM_USAGE, with the nearest name. */
enum oom_status oom_profile_find(const char *name, enum oom_profile *out);

#define OOM_BACKEND_MAP(X) \
    X(NATIVE, "native") /* the caching allocator */ \
    X(DIRECT, "direct") /* one device allocation per tensor; no cache, no retry */

enum oom_backend {
#define X(id, name) OOM_BACKEND_##id,
    OOM_BACKEND_MAP(X)
#undef X
        OOM_BACKEND_COUNT
};

const char *oom_backend_name(enum oom_backend backend);

/* The keys of the string that this allocator acts on. */
#define OOM_SETTING_MAP(X) \
    X(BACKEND, "backend") \
    X(EXPANDABLE, "expandable_segments") \
    X(RESERVE, "expandable_segments_reserve") \
    X(LARGE_SEGMENT, "large_segment_size_mb") \
    X(MAX_SPLIT, "max_split_size_mb") \
    X(NON_SPLIT, "max_non_split_rounding_mb") \
    X(ROUNDUP, "roundup_power2_divisions") \
    X(GC, "garbage_collection_threshold") \
    X(FRACTION, "per_process_memory_fraction") \
    X(REJECT, "throw_on_cudamalloc_oom")

enum oom_setting {
#define X(id, name) OOM_SETTING_##id,
    OOM_SETTING_MAP(X)
#undef X
        OOM_SETTING_COUNT
};

const char *oom_setting_name(enum oom_setting setting);

enum { OOM_ROUNDUP_CLASSES = 16, OOM_CONF_MAX = 256 };

struct oom_allocator_settings {
    uint64_t trace_entries; /* ring of the newest events; 0: no trace */
    uint64_t guard_bytes;   /* guard region on each side of every block, multiple of 512, at most
                               1 GiB; 0: none. Guards change block sizes, and so what fits. */
    enum oom_profile profile;
    char conf[OOM_CONF_MAX];       /* the settings string as given, for reports */
    bool given[OOM_SETTING_COUNT]; /* named by that string */

    /* The keys of the string, as PyTorch documents them; sizes in bytes. */
    enum oom_backend backend;
    bool expandable_segments;
    double expandable_reserve_fraction; /* of the device; > 0 where the key gave a fraction, */
    uint64_t expandable_reserve_bytes;  /* > 0 where it gave GiB; both 0: 9/8 of the device */
    uint64_t large_segment_size;        /* 20 MiB */
    uint64_t max_split_size;            /* UINT64_MAX: no limit, the default */
    uint64_t max_non_split_rounding;    /* 20 MiB */
    uint32_t roundup_power2_divisions[OOM_ROUNDUP_CLASSES]; /* by floor(log2 MiB), 0: none */
    double garbage_collection_threshold; /* in (0, 1); 0: off. Acts only beside a fraction < 1,
                                            but for profile `fixed` */
    double per_process_memory_fraction;  /* in [0, 1]; 1: no limit beside the device's */
    bool throw_on_cudamalloc_oom;        /* reject before asking the device */
};

/* The defaults: no guards, a trace of 65536 events, an empty string, profile pytorch-2.13,
 * PyTorch's own values. */
struct oom_allocator_settings oom_allocator_settings_default(void);

/* Parses the grammar of PYTORCH_CUDA_ALLOC_CONF, strictly: a bad string is OOM_USAGE and the
 * failure names key, column, what is allowed and what PyTorch would have done with it. Keys that
 * settings->profile does not know (2.11 lacks the newer ones) are refused like unknown ones. As in
 * PyTorch, a new string sets the keys that it does not name back to their defaults, but for
 * expandable_segments, large_segment_size_mb and the device-side keys
 * (fraction, reject, reserve), which keep what *settings has. */
enum oom_status oom_allocator_settings_parse(const char *conf,
                                             struct oom_allocator_settings *settings);

/* As PyTorch itself reads it: separators are not looked at, numbers end at the first other
 * character, host-side keys are skipped. For strings found in recordings. What a strict reader
 * would have refused is said in `notes` (size n, one sentence each; "" when there is nothing);
 * what PyTorch refuses is left out and said there, too. */
void oom_allocator_settings_parse_leniently(const char *conf,
                                            struct oom_allocator_settings *settings, char *notes,
                                            size_t n);

/* The value of a setting in the string's own grammar ("False", "20", "[256:1,>:8]", "unlimited"
 * where there is no word for it). Returns `out`. */
const char *oom_setting_format(const struct oom_allocator_settings *settings,
                               enum oom_setting setting, char *out, size_t n);

/* One line of prose: what the key does. */
const char *oom_setting_prose(enum oom_setting setting);

#endif
