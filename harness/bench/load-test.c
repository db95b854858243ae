/* The states that rows are measured in, looked at by the allocator's own walk. */
#include "harness/bench/load.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

void load_test(void);

static const uint64_t BOUNDLESS = (uint64_t)1 << 50;

struct census {
    uint64_t live, free;
};

static enum oom_status visit(const struct oom_block_view *block, void *context) {
    struct census *census = context;
    census->live += block->allocated;
    census->free += !block->allocated;
    return OOM_OK;
}

static struct census count(const struct oom_load *load) {
    struct census census = {0, 0};
    CHECK_OK(oom_allocator_walk(load->allocator, visit, &census));
    return census;
}

static void test_fill(void) {
    static const struct {
        uint64_t live, free;
    } states[] = {{1000, 1000}, {1000, 100}, {2000, 700}};
    struct oom_load *load;
    for (int i = 0; i < 3; i++) {
        TEST("load: %d live blocks, %d free ones between them", (int)states[i].live,
             (int)states[i].free);
        CHECK_OK(oom_load_create("dry", BOUNDLESS, 64, &load));
        CHECK_OK(oom_load_fill(load, states[i].live, states[i].free));
        struct census census = count(load);
        CHECK_EQ(census.live, states[i].live);
        /* and the ends of segments */
        CHECK_MSG(census.free >= states[i].free, "%d free", (int)census.free);

        uint64_t calls = oom_allocator_stats(load->allocator)->num_device_alloc;
        CHECK_OK(oom_load_pairs(load, 1000));
        CHECK_EQ(oom_allocator_stats(load->allocator)->num_device_alloc, calls);
        struct census after = count(load);
        CHECK(after.live == census.live && after.free == census.free);
        CHECK_OK(oom_allocator_check(load->allocator));
        oom_load_free(load);
    }
    TEST("load: pairs that miss the cache are not measured as if they hit it");
    CHECK_OK(oom_load_create("dry", BOUNDLESS, 64, &load));
    CHECK(oom_load_pairs(load, 1) == OOM_INTERNAL);
    oom_failure_clear();
    CHECK(oom_load_fill(load, 3, 4) == OOM_USAGE);
    oom_failure_clear();
    oom_load_free(load);
}

static void test_churn(void) {
    TEST("load: random frees keep the number of live blocks, and the seed decides them");
    uint64_t bytes[3];
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct oom_load *load;
        CHECK_OK(oom_load_create("dry", BOUNDLESS, 64, &load));
        CHECK_OK(oom_load_scatter(load, 500, 1 << 20, seed % 2));
        CHECK_OK(oom_load_churn(load, 5000));
        CHECK_EQ(count(load).live, 500);
        CHECK_EQ(oom_allocator_stats(load->allocator)->allocations, 500 + 500 + 5000);
        bytes[seed] = (uint64_t)oom_allocator_stats(load->allocator)->allocated_bytes[0].current;
        CHECK_OK(oom_allocator_check(load->allocator));
        oom_load_free(load);
    }
    CHECK(bytes[0] == bytes[2] && bytes[0] != bytes[1]);
}

static void test_uncached(void) {
    TEST("load: past the cache every pair is a device call and its release");
    struct oom_load *load;
    CHECK_OK(oom_load_create("dry", 64 << 20, 64, &load));
    CHECK_OK(oom_load_uncached(load, 25));
    const struct oom_allocator_stats *stats = oom_allocator_stats(load->allocator);
    CHECK_EQ(stats->num_device_alloc, 25);
    CHECK_EQ(stats->num_device_free, 25);
    oom_load_free(load);

    TEST("load: no host memory, at each place: a status, and nothing is kept");
    uint64_t before = oom_host_bytes_current();
    for (uint64_t k = 1; k <= 200; k += 3) {
        oom_host_fail_at(k);
        enum oom_status status = oom_load_create("dry", BOUNDLESS, 64, &load);
        if (status == OOM_OK) status = oom_load_scatter(load, 100, 1 << 20, 1);
        oom_host_fail_at(0);
        CHECK(status == OOM_OK || status == OOM_HOST_NOMEM);
        oom_load_free(load);
        oom_failure_clear();
        CHECK_EQ(oom_host_bytes_current(), before);
    }
}

void load_test(void) {
    test_fill();
    test_churn();
    test_uncached();
}
