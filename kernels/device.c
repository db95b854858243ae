/*
 * device.c: the devices by name. A device that is known but not part of this build has a reason
 * instead of a function.
 */
#include "kernels/device.h"

#include <string.h>

static const struct {
    const char *name;
    enum oom_status (*open)(const struct oom_device_options *options, struct oom_device **out);
    const char *absent; /* why there is no function */
} devices[] = {
    {"host", oom_host_open, NULL},
    {"dry", oom_dry_open, NULL},
    {"cuda", NULL, "the plugin liboombench-cuda.so is not built"},
};

enum oom_status oom_device_open(const char *name, const struct oom_device_options *options,
                                struct oom_device **out) {
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        if (strcmp(name, devices[i].name) != 0) continue;
        if (devices[i].open != NULL) return devices[i].open(options, out);
        return oom_fail(OOM_ABSENT, "device %s: %s", name, devices[i].absent);
    }
    return oom_fail(OOM_USAGE, "device \"%s\" is unknown: allowed are host, dry, cuda", name);
}

const char *oom_schedule_name(enum oom_schedule schedule) {
    static const char *const names[] = {
#define X(id, name) name,
        OOM_SCHEDULE_MAP(X)
#undef X
    };
    return (unsigned)schedule < OOM_SCHEDULE_COUNT ? names[schedule] : "unknown";
}

const char *oom_isa_name(enum oom_isa isa) {
    static const char *const names[] = {
#define X(id, name) name,
        OOM_ISA_MAP(X)
#undef X
    };
    return (unsigned)isa < OOM_ISA_COUNT ? names[isa] : "unknown";
}
