/*
 * What mapping costs with many mappings: ranges looked at, which is a count and no time. A call
 * descends a fixed number of trees, so its cost grows with the logarithm of their sizes.
 */
#include "kernels/simulated/range.h"
#include "kernels/simulated/test-device.h"

#include <math.h>

void simulated_cost_test(void);

static const uint64_t handle_bytes = 3 * OOM_PAGE;

enum { MOST = 4000 };

struct cost { /* ranges looked at, in all */
    uint64_t make, map, touch, unmap;
};

static uint64_t since(uint64_t *visits) {
    uint64_t before = *visits;
    *visits = oom_range_visits();
    return *visits - before;
}

/* Mappings 0 .. count - 1 in an order without a pattern; prime to any count of these tests. */
static uint64_t shuffled(int i, int count) {
    return (uint64_t)i * 1327 % (uint64_t)count;
}

static struct cost measure(int count) {
    static oom_handle handles[MOST];
    uint64_t capacity = (uint64_t)24 << 30, visits = oom_range_visits();
    struct oom_device *dev = test_open("dry", capacity, OOM_SCHEDULE_LAZY);
    const struct oom_device_api *api = dev->api;
    struct cost cost;
    oom_devptr space;
    bool fine = api->reserve(dev, capacity, &space) == OOM_OK;
    for (int i = 0; i < count; i++) {
        fine = api->create(dev, handle_bytes, &handles[i]) == OOM_OK && fine;
    }
    cost.make = since(&visits);
    for (int i = 0; i < count; i++) {
        oom_devptr at = space + shuffled(i, count) * handle_bytes;
        fine = api->map(dev, at, handle_bytes, handles[i]) == OOM_OK && fine;
        fine = api->set_access(dev, at, handle_bytes, OOM_ACCESS_READ_WRITE) == OOM_OK && fine;
        fine = api->release(dev, handles[i]) == OOM_OK && fine;
    }
    CHECK_EQ(test_used(dev), (uint64_t)count * handle_bytes);
    cost.map = since(&visits);
    for (int i = 0; i < count; i++) { /* across two mappings, but for the last */
        oom_devptr at = space + shuffled(i, count) * handle_bytes + OOM_PAGE;
        uint64_t bytes = shuffled(i, count) == (uint64_t)count - 1 ? OOM_PAGE : handle_bytes;
        fine = api->fill(dev, at, 1, bytes, NULL) == OOM_OK && fine;
    }
    fine = api->sync(dev) == OOM_OK && fine;
    cost.touch = since(&visits);
    for (int i = 0; i < count; i++) {
        oom_devptr at = space + shuffled(count - 1 - i, count) * handle_bytes;
        fine = api->unmap(dev, at, handle_bytes) == OOM_OK && fine;
    }
    cost.unmap = since(&visits);
    CHECK(fine);
    CHECK_EQ(test_used(dev), 0);
    oom_device_close(dev);
    return cost;
}

static void check_growth(const char *what, uint64_t few, uint64_t many, int times) {
    double logarithm = log2(MOST);
    CHECK_MSG((double)many <= 20 * logarithm * MOST, "%s: %.1f for each of %d", what,
              (double)many / MOST, MOST);
    CHECK_MSG((double)many <= 2 * times * (double)few, "%s: %.1f and %.1f for each", what,
              (double)few / (MOST / times), (double)many / MOST);
    CHECK_MSG(many >= MOST, "%s: %llu counted", what, (unsigned long long)many);
}

void simulated_cost_test(void) {
    enum { TIMES = 8 };
    TEST("dry: %d mappings on 24 GiB: each costs like the logarithm of their number", MOST);
    struct cost few = measure(MOST / TIMES), many = measure(MOST);
    check_growth("create", few.make, many.make, TIMES);
    check_growth("map", few.map, many.map, TIMES);
    check_growth("touch", few.touch, many.touch, TIMES);
    check_growth("unmap", few.unmap, many.unmap, TIMES);
}
