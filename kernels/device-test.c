#include "kernels/device.h"
#include "kernels/testing.h"

#include <string.h>

void device_test(void);

void device_test(void) {
    struct oom_device *dev = NULL;
    TEST("device: opened by name");
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "host" : "dry";
        CHECK_OK(oom_device_open(name, NULL, &dev));
        if (dev == NULL) continue;
        CHECK_STR(dev->api->name, name);
        CHECK_EQ(dev->api->api_version, OOM_DEVICE_API_VERSION);
        oom_device_close(dev);
        dev = NULL;
    }
    oom_device_close(NULL);

    TEST("device: unknown is a wrong usage, known but not there is absent");
    CHECK_EQ(oom_device_open("gpu", NULL, &dev), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "\"gpu\"") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_device_open("cuda", NULL, &dev), OOM_ABSENT);
    CHECK(strstr(oom_failure_last()->message, "not built") != NULL);
    CHECK(dev == NULL);
    oom_failure_clear();

    TEST("device: names of schedules and instruction sets");
    CHECK_STR(oom_schedule_name(OOM_SCHEDULE_LAZY), "lazy");
    CHECK_STR(oom_schedule_name(OOM_SCHEDULE_SEEDED), "seeded");
    CHECK_STR(oom_schedule_name(OOM_SCHEDULE_THREADS), "threads");
    CHECK_STR(oom_schedule_name(OOM_SCHEDULE_COUNT), "unknown");
    CHECK_STR(oom_isa_name(OOM_ISA_AVX2), "avx2");
    CHECK_STR(oom_isa_name(OOM_ISA_COUNT), "unknown");
}
