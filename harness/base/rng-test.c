#include "harness/base/rng.h"

#include "kernels/testing.h"

void rng_test(void);

void rng_test(void) {
    struct oom_rng rng = {1234567};
    TEST("rng: the published outputs of splitmix64 for seed 1234567");
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u,
                                        9817491932198370423u, 4593380528125082431u,
                                        16408922859458223821u};
    for (int i = 0; i < 5; i++) CHECK(oom_rng_next(&rng) == expected[i]);
    TEST("rng: uniform numbers have the moments of uniform numbers");
    double sum = 0, squares = 0;
    bool inside = true;
    for (int i = 0; i < 100000; i++) {
        double u = oom_rng_uniform(&rng);
        inside = inside && u >= 0 && u < 1;
        sum += u;
        squares += u * u;
    }
    CHECK(inside);
    CHECK(sum / 100000 > 0.495 && sum / 100000 < 0.505);           /* 5 sigma */
    CHECK(squares / 100000 > 0.3286 && squares / 100000 < 0.3381); /* 5 sigma */
    TEST("rng: below reaches every number and no other");
    unsigned seen = 0;
    for (int i = 0; i < 1000; i++) seen |= 1u << oom_rng_below(&rng, 5);
    CHECK_EQ(seen, 31);
    TEST("rng: derived seeds differ by seed and by name");
    CHECK(oom_seed_derive(1, "a") == oom_seed_derive(1, "a"));
    CHECK(oom_seed_derive(1, "a") != oom_seed_derive(2, "a"));
    CHECK(oom_seed_derive(1, "a") != oom_seed_derive(1, "b"));
    CHECK(oom_seed_derive(1, "") != oom_seed_derive(1, "a"));
}
