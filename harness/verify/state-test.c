/* state-test.c: every kind of change that a failed step may leave behind is seen, and named. */
#include "harness/verify/state.h"

#include "harness/train/train-testing.h"

void state_test(void);

static struct rig rig;

static struct oom_state_print take(void) {
    struct oom_state_print print = {0};
    CHECK_OK(oom_state_take(rig.trainer, &print));
    return print;
}

static const char *changed(const struct oom_state_print *before) {
    struct oom_state_print after = take();
    const char *difference = oom_state_difference(before, &after);
    return difference != NULL ? difference : "nothing";
}

static void flip(struct oom_tensor tensor, uint64_t at) {
    struct oom_device *device = rig.session.device;
    uint8_t *byte = device->api->host_view(device, tensor.data + at);
    if (CHECK(byte != NULL)) *byte ^= 1;
}

static struct oom_parameter *last_parameter(void) {
    return &rig.trainer->parameters[rig.trainer->parameter_count - 1];
}

/* After a step: the optimizer has its states. */
static void begin(enum oom_gradients gradients) {
    rig_open(&rig, &(struct rig_options){.model = "gpt,layers=1,width=16,heads=2,context=8",
                                         .dtype = OOM_F32,
                                         .gradients = gradients,
                                         .optimizer = OOM_OPTIMIZER_ADAMW});
    rig_window(&rig, 4, 0, false);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = 4}, NULL));
}

static void contents(void) {
    begin(OOM_GRADIENTS_NONE);
    struct oom_state_print before = take();
    TEST("state: a look is no change");
    CHECK(before.gradients_clear);
    CHECK_STR(changed(&before), "nothing");
    TEST("state: the first and the last byte of every weight");
    for (int i = 0; i < rig.trainer->parameter_count; i++) {
        struct oom_parameter *p = &rig.trainer->parameters[i];
        for (int end = 0; end < 2; end++) {
            uint64_t at = end == 0 ? 0 : (uint64_t)oom_parameter_n(p) * 4 - 1;
            flip(p->value, at);
            CHECK_STR(changed(&before), "weights changed");
            flip(p->value, at);
        }
    }
    TEST("state: the first and the last byte of every optimizer state");
    for (int i = 0; i < rig.trainer->parameter_count * OOM_STATES; i++) {
        struct oom_parameter *p = &rig.trainer->parameters[i / OOM_STATES];
        uint64_t last = (uint64_t)oom_parameter_n(p) * 4 - 1;
        for (uint64_t at = 0; at <= last; at += last) {
            flip(p->state[i % OOM_STATES], at);
            CHECK_STR(changed(&before), "optimizer state changed");
            flip(p->state[i % OOM_STATES], at);
        }
    }
    CHECK_STR(changed(&before), "nothing");
    rig_close(&rig);
}

static void figures(void) {
    begin(OOM_GRADIENTS_NONE);
    struct oom_state_print before = take();
    TEST("state: the optimizer's step counter");
    rig.trainer->optimizer_steps++;
    CHECK_STR(changed(&before), "optimizer state changed");
    rig.trainer->optimizer_steps--;
    TEST("state: a state that is gone, or one that is there too early");
    struct oom_tensor *state = &last_parameter()->state[1], kept = *state;
    *state = (struct oom_tensor){0};
    CHECK_STR(changed(&before), "optimizer state changed");
    *state = kept;
    TEST("state: random numbers spent");
    rig.trainer->rng_step++;
    CHECK_STR(changed(&before), "random numbers were spent");
    rig.trainer->rng_step--;
    TEST("state: a tensor that nobody freed");
    struct oom_tensor leaked;
    CHECK_OK(oom_tensor_alloc(&rig.session, 1, OOM_TAG_OTHER, "leak", &leaked));
    CHECK_STR(changed(&before), "allocated bytes differ");
    CHECK_OK(oom_tensor_free(&rig.session, &leaked));
    TEST("state: gradients none: one that exists is not cleared, though it be zero");
    CHECK_OK(oom_parameter_gradient(rig.trainer, last_parameter()));
    CHECK_STR(changed(&before), "gradients were not cleared");
    CHECK_OK(oom_trainer_clear_gradients(rig.trainer));
    CHECK_STR(changed(&before), "nothing");
    rig_close(&rig);
    TEST("state: gradients zeroed: one byte of one of them");
    begin(OOM_GRADIENTS_ZEROED);
    before = take();
    CHECK(before.gradients_clear);
    uint64_t last = (uint64_t)oom_parameter_n(last_parameter()) * 4 - 1;
    flip(last_parameter()->gradient, last);
    CHECK_STR(changed(&before), "gradients were not cleared");
    flip(last_parameter()->gradient, last);
    CHECK_STR(changed(&before), "nothing");
    rig_close(&rig);
}

/* ---- reading in pieces ---- */

struct reader {
    uint64_t bytes, sum;
    int pieces, stop_at;
};

static enum oom_status read_piece(void *context, const void *data, size_t bytes) {
    struct reader *reader = context;
    for (size_t i = 0; i < bytes; i++) reader->sum += ((const uint8_t *)data)[i];
    reader->bytes += bytes;
    return ++reader->pieces == reader->stop_at ? OOM_IO : OOM_OK;
}

static void pieces(void) {
    enum { BYTES = 100001 };
    struct oom_tensor tensor;
    struct reader reader = {0};
    uint64_t sum = 0;
    TEST("state: a tensor is read once, in pieces, every byte of it");
    rig_open(&rig, &(struct rig_options){.model = "mlp,layers=1,width=4,rows=1"});
    CHECK_OK(oom_tensor_alloc(&rig.session, BYTES, OOM_TAG_OTHER, "bytes", &tensor));
    uint8_t *data = rig.session.device->api->host_view(rig.session.device, tensor.data);
    for (int i = 0; i < BYTES; i++) sum += data[i] = (uint8_t)(i % 251);
    CHECK_OK(oom_tensor_read(&rig.session, tensor, BYTES, read_piece, &reader));
    CHECK_EQ(reader.bytes, BYTES);
    CHECK_EQ(reader.sum, sum);
    CHECK(reader.pieces > 1);
    TEST("state: the reader stops where it is told to");
    reader = (struct reader){.stop_at = 2};
    CHECK_EQ(oom_tensor_read(&rig.session, tensor, BYTES, read_piece, &reader), OOM_IO);
    CHECK_EQ(reader.pieces, 2);
    CHECK_OK(oom_tensor_free(&rig.session, &tensor));
    rig_close(&rig);
}

void state_test(void) {
    contents();
    figures();
    pieces();
}
