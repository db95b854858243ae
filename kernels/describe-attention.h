/*
 * describe-attention.h: the descriptions of attention in both kinds; a part of ops.c, whose words
 * it is written in. The causal square of a head has T (T + 1) / 2 pairs.
 */

struct heads {
    uint64_t rows;      /* B * T * NH */
    uint64_t states;    /* B * T * C */
    uint64_t squares;   /* B * NH * T * T */
    uint64_t triangles; /* B * NH * T (T + 1) / 2: what a causal op touches */
    double pairs;       /* the same */
    double per_head;    /* D */
};

/* channels 0: the op knows no channels. */
static struct heads heads_of(struct sheet *s, int64_t batch, int64_t positions, int64_t channels,
                             int64_t heads) {
    uint64_t tokens = area(batch, positions), rows = times(tokens, (uint64_t)heads);
    struct heads h = {rows, 0, 0, 0, 0, 0};
    h.states = times(tokens, (uint64_t)channels);
    h.squares = times(rows, (uint64_t)positions);
    h.triangles = times(rows, (uint64_t)positions + 1) / 2;
    h.pairs = (double)h.triangles;
    if (heads < 1) return h; /* refused already */
    h.per_head = (double)(channels / heads);
    if (channels % heads != 0) {
        reject(s, "heads is %lld, allowed is a divisor of channels %lld", (long long)heads,
               (long long)channels);
    }
    return h;
}

#define HEADS(channels) \
    DTYPE(dtype); \
    struct heads h = heads_of(s, a->batch, a->positions, channels, a->heads)
#define DIMS_BTCH DIM(batch), DIM(positions), DIM(channels), DIM(heads)
#define SQUARE(field, direction) PART(field, direction, h.squares, h.triangles)
#define OF_QKV(field, direction, parts) \
    PART(field, direction, times(h.states, 3), times(h.states, parts))

DESCRIBE(attention_scores_forward) {
    DIMS_BTCH;
    HEADS(a->channels);
    OF_QKV(qkv, READ, 2);
    SQUARE(scores, WRITE);
    FLOPS((2 * h.per_head + 1) * h.pairs);
}

DESCRIBE(attention_softmax_forward) {
    DIM(batch), DIM(positions), DIM(heads);
    HEADS(0);
    SQUARE(scores, READ);
    SQUARE(probs, WRITE);
    FLOPS(5 * h.pairs); /* max, -, exp, +, / */
}

DESCRIBE(attention_values_forward) {
    DIMS_BTCH;
    HEADS(a->channels);
    SQUARE(probs, READ);
    OF_QKV(qkv, READ, 1);
    WRITE(out, h.states);
    FLOPS(2 * h.per_head * h.pairs);
}

DESCRIBE(attention_values_backward) {
    DIMS_BTCH;
    HEADS(a->channels);
    READ(dout, h.states);
    SQUARE(probs, READ);
    OF_QKV(qkv, READ, 1);
    SQUARE(dprobs, WRITE);
    OF_QKV(dqkv, WRITE, 1);
    FLOPS(4 * h.per_head * h.pairs);
}

DESCRIBE(attention_softmax_backward) {
    DIM(batch), DIM(positions), DIM(heads);
    HEADS(0);
    SQUARE(probs, READ);
    SQUARE(dprobs, READ);
    SQUARE(dscores, WRITE);
    FLOPS(4 * h.pairs);
}

DESCRIBE(attention_scores_backward) {
    DIMS_BTCH;
    HEADS(a->channels);
    SQUARE(dscores, READ);
    OF_QKV(qkv, READ, 2);
    OF_QKV(dqkv, WRITE, 2);
    FLOPS(4 * h.per_head * h.pairs + 2 * (double)h.states); /* two products, both scaled */
}

DESCRIBE(attention_tiled_forward) {
    DIMS_BTCH;
    HEADS(a->channels);
    OF_QKV(qkv, READ, 3);
    WRITE(out, h.states);
    WRITE_WIDE(lse, h.rows);
    FLOPS((4 * h.per_head + 6) * h.pairs + 2 * (double)h.rows); /* the three stages; lse: log, + */
}

DESCRIBE(attention_tiled_backward) {
    DIMS_BTCH;
    HEADS(a->channels);
    uint64_t sums = oom_dtype_is_half(a->dtype) ? h.states : 0, kept = plus(h.rows, sums);
    s->workspace = times(kept, s->wide);
    READ(dout, h.states);
    READ(out, h.states);
    OF_QKV(qkv, READ, 3);
    READ_WIDE(lse, h.rows);
    OF_QKV(dqkv, WRITE, 3);
    UPDATE_WIDE(workspace, kept);
    /* five products, scale, - lse, exp, - delta, * P; delta; dq and dk scaled */
    FLOPS((10 * h.per_head + 5) * h.pairs + 4 * (double)h.states);
}
