#include "harness/memory/address-map.h"

#include "harness/base/rng.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

void address_map_test(void);

enum { KEYS = 700, STEPS = 60000 };

/* Against an array with a place for every key. */
static void random_script(uint64_t stride) {
    static uint64_t wanted[KEYS];
    struct oom_address_map map = {0};
    struct oom_rng rng = {5};
    uint64_t count = 0, wrong = 0;
    for (int i = 0; i < KEYS; i++) wanted[i] = UINT64_MAX;
    for (uint64_t step = 0; step < STEPS; step++) {
        uint64_t i = oom_rng_next(&rng) % KEYS, found = UINT64_MAX;
        bool has = oom_address_map_get(&map, i * stride, &found);
        if (has != (wanted[i] != UINT64_MAX) || (has && found != wanted[i])) wrong++;
        if (oom_rng_next(&rng) % 2 == 0) {
            oom_address_map_remove(&map, i * stride);
            count -= wanted[i] != UINT64_MAX;
            wanted[i] = UINT64_MAX;
        } else {
            if (oom_address_map_put(&map, i * stride, step) != OOM_OK) wrong++;
            count += wanted[i] == UINT64_MAX;
            wanted[i] = step;
        }
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(map.count, count);
    oom_address_map_free(&map);
}

void address_map_test(void) {
    TEST("address map: a random script gives what an array gives");
    random_script(1);
    random_script(512);
    random_script(UINT64_C(1) << 52);
    TEST("address map: without memory it is as before");
    struct oom_address_map map = {0};
    uint64_t before = oom_host_bytes_current(), value;
    oom_host_fail_at(1);
    CHECK_EQ(oom_address_map_put(&map, 1, 1), OOM_HOST_NOMEM);
    oom_host_fail_at(0);
    CHECK(!oom_address_map_get(&map, 1, &value));
    CHECK_EQ(oom_host_bytes_current(), before);
    oom_failure_clear();
}
