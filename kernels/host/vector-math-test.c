/*
 * Vectors and scalars share one source (math-f32.h, math-f64.h): their bits must agree, here for
 * the baseline's vectors; the ops' tests compare the instruction sets.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/op-testing.h"

void vector_math_test(void);

enum { ROUNDS = 20000 };

/* Infinities, zeros and NaN now and then, else every magnitude. */
#define SAMPLE(real, round, lane, exponents) \
    ((round) % 50 != 0 \
         ? (real)ldexp(test_uniform(-1, 1), (int)test_uniform(-(exponents), exponents)) \
     : (lane) == 0 ? (real)INFINITY \
     : (lane) == 1 ? (real)NAN \
                   : (real)-0.0)

#define SAME(a, b) ((a) != (a) ? (b) != (b) : memcmp(&(a), &(b), sizeof(a)) == 0)

#define CHECK_FUNCTION(function, real, v, s, LANES) \
    do { \
        oom_##v y = function##_##v(x); \
        for (int i = 0; i < LANES; i++) { \
            real one = function##_##s(x[i]), lane = y[i]; \
            CHECK_MSG(SAME(one, lane), #function "(%a): %a, vector %a", (double)x[i], (double)one, \
                      (double)lane); \
        } \
    } while (0)

#define COMPARE(real, v, s, LANES, exponents) \
    static void compare_##v(void) { \
        for (int round = 0; round < ROUNDS; round++) { \
            oom_##v x = {0}, sine, cosine; \
            for (int i = 0; i < LANES; i++) x[i] = SAMPLE(real, round, i, exponents); \
            CHECK_FUNCTION(oom_exp, real, v, s, LANES); \
            CHECK_FUNCTION(oom_log, real, v, s, LANES); \
            CHECK_FUNCTION(oom_tanh, real, v, s, LANES); \
            CHECK_FUNCTION(oom_erf, real, v, s, LANES); \
            CHECK_FUNCTION(oom_gelu, real, v, s, LANES); \
            CHECK_FUNCTION(oom_gelu_slope, real, v, s, LANES); \
            oom_sincospi_##v(x, &sine, &cosine); \
            for (int i = 0; i < LANES; i++) { \
                real one_sine, one_cosine, lane_sine = sine[i], lane_cosine = cosine[i]; \
                oom_sincospi_##s(x[i], &one_sine, &one_cosine); \
                CHECK(SAME(one_sine, lane_sine) && SAME(one_cosine, lane_cosine)); \
            } \
        } \
    }

COMPARE(float, vf, f32, OOM_VF_LANES, 12)
COMPARE(double, vd, f64, OOM_VD_LANES, 15)

void vector_math_test(void) {
    TEST("math: vectors of f32 give the scalars' bits");
    compare_vf();
    TEST("math: vectors of f64 give the scalars' bits");
    compare_vd();
}
