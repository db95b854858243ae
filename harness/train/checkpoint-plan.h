/*
 * checkpoint-plan.h: what to keep of a chain of stages and what to compute again, so that a step
 * stays within a byte budget. A pure computation: it knows figures, no device.
 *
 * The caller owns the chain's description and every schedule it is given (schedule_free); the
 * planner owns nothing between calls. OOM_USAGE: a description that contradicts itself, a count or
 * a budget that cannot be; OOM_INVALID: a schedule that cannot be run; OOM_HOST_NOMEM.
 *
 * The chain. Stage i of n (from 0) makes the boundary x(i+1) from x(i); its backward makes the
 * gradient dx(i) from dx(i+1), x(i) and what its forward saved. x(0) is given and lives throughout.
 * The loss belongs to the last stage's backward: BACKWARD(n-1) turns x(n) into dx(n) by itself.
 *
 * Every figure in bytes is a sum of whole tensors as they are allocated, each rounded up to 512 by
 * whoever describes the chain. A peak is the highest number of live bytes while the operation runs
 * LESS the live bytes when it began, as a dry run measures it: what the operation makes is in it,
 * what it frees on the way lowers it.
 *
 * The class of schedules is that of Beaumont, Eyraud-Dubois, Herrmann, Joly, Shilova, "Optimal
 * checkpointing for heterogeneous chains: how to train deep neural networks with limited memory"
 * (2019; "rotor"), persistent ones: a forward starts at the highest live boundary; a boundary once
 * kept (by CHECK, or by SAVE on either side of it) lives until its backward. Segments may nest:
 *     plan(s, e) =  SAVE(s) plan(s+1, e) BACKWARD(s)
 *                or CHECK(s) FREE(s+1) .. FREE(j-1) plan(j, e) plan(s, j),   s < j < e
 * Before it: Griewank, Walther, "Algorithm 799: revolve" (2000), for equal stages; Chen, Xu, Zhang,
 * Guestrin, "Training deep nets with sublinear memory cost" (2016), for sqrt(n) segments.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_PLAN_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_PLAN_H

#include "kernels/status.h"

/* name, prose */
#define OOM_CHECKPOINT_MAP(X) \
    X(FORWARD_FREE, "makes x(i+1), keeps nothing of the stage, frees x(i)") \
    X(FORWARD_CHECK, "makes x(i+1), keeps nothing of the stage but x(i): a checkpoint") \
    X(FORWARD_SAVE, "makes x(i+1), keeps x(i) and what the stage's backward needs") \
    X(BACKWARD, "makes dx(i), frees dx(i+1), what was saved, x(i+1), and x(i) unless it is read " \
                "on")

enum oom_checkpoint_kind {
#define X(name, prose) OOM_CHECKPOINT_##name,
    OOM_CHECKPOINT_MAP(X)
#undef X
        OOM_CHECKPOINT_KIND_COUNT
};

/* "FORWARD_FREE" and so on; a static string. */
const char *oom_checkpoint_kind_name(enum oom_checkpoint_kind kind);

struct oom_checkpoint_stage {
    uint64_t forward_flops, backward_flops; /* in one unit for the whole chain */
    uint64_t output;                        /* bytes of x(i+1) */
    uint64_t saved;    /* bytes that FORWARD_SAVE leaves beside x(i) and x(i+1) */
    uint64_t gradient; /* bytes of dx(i) */
    uint64_t left;     /* bytes that BACKWARD leaves for good (gradients of parameters) */
    uint64_t peak[OOM_CHECKPOINT_KIND_COUNT]; /* bytes above those live when it began */
    bool reads_output; /* its backward reads x(i+1): that lives to its end; else BACKWARD(i+1), the
                        * last to read it, frees it */
};

struct oom_checkpoint_chain {
    int count;      /* of stages, 1 .. OOM_CHECKPOINT_STAGES */
    uint64_t fixed; /* bytes that live throughout: weights, optimizer states */
    uint64_t input; /* bytes of x(0) */
    const struct oom_checkpoint_stage *stages; /* (count) */
};

enum { OOM_CHECKPOINT_STAGES = 512 };

struct oom_checkpoint_op {
    enum oom_checkpoint_kind kind;
    int stage;
};

/* Of a schedule for a budget: how good it is. */
struct oom_checkpoint_proof {
    bool exact;     /* none within the budget is better: flops == least */
    uint64_t flops; /* of forwards that it computes again */
    uint64_t least; /* proven: none within the budget computes fewer again */
    uint64_t work;  /* to find it: table entries looked at, the same on every machine */
};

/* Zeroed is the empty schedule. */
struct oom_checkpoint_schedule {
    struct oom_checkpoint_op *ops; /* (count), in the order they run */
    int count, capacity;
    struct oom_checkpoint_proof proof; /* zeroed where no budget was asked for */
};

void oom_checkpoint_schedule_free(struct oom_checkpoint_schedule *schedule);

/* Every forward saves. */
enum oom_status oom_checkpoint_none(const struct oom_checkpoint_chain *chain,
                                    struct oom_checkpoint_schedule *out);

/* `segments` of equal length, give or take a stage; the input of each is kept, all but the last are
 * computed again, once: at most one forward more. 1 .. count. */
enum oom_status oom_checkpoint_segments(const struct oom_checkpoint_chain *chain, int segments,
                                        struct oom_checkpoint_schedule *out);

/* The least s with s * s >= stages: how many segments "sqrt(n)" means. */
int oom_checkpoint_sqrt(int stages);

/* The least budget any schedule of the class stays within, in bytes, all that lives included. */
enum oom_status oom_checkpoint_minimum(const struct oom_checkpoint_chain *chain, uint64_t *bytes);

/* Some 2 to 3 s of a core and at most about a GiB of host memory; chains of real models mostly take
 * a tenth of it. */
#define OOM_CHECKPOINT_WORK UINT64_C(1500000000)

/* The schedule of least forward flops whose live bytes stay within the budget at every moment;
 * below the minimum OOM_USAGE, which states it. Sizes are not discretised: it is exact, unless so
 * much work (0: without limit) does not suffice; then it is the best found, and its proof says how
 * much better any other could be. The same work gives the same schedule on every machine. */
enum oom_status oom_checkpoint_budget_within(const struct oom_checkpoint_chain *chain,
                                             uint64_t bytes, uint64_t work,
                                             struct oom_checkpoint_schedule *out);

/* Within OOM_CHECKPOINT_WORK. */
enum oom_status oom_checkpoint_budget(const struct oom_checkpoint_chain *chain, uint64_t bytes,
                                      struct oom_checkpoint_schedule *out);

struct oom_checkpoint_outcome {
    uint64_t peak;        /* bytes */
    int peak_op;          /* the operation that first reaches it */
    uint64_t flops;       /* of everything that runs */
    uint64_t extra_flops; /* of these: of forwards beyond the first of their stage */
    int extra_forwards;   /* how many those are */
};

/* The judge: runs a schedule over the description. OOM_INVALID names the operation that lacks an
 * input, makes what is there already, or frees what is kept; or says what lives at the end. */
enum oom_status oom_checkpoint_simulate(const struct oom_checkpoint_chain *chain,
                                        const struct oom_checkpoint_schedule *schedule,
                                        struct oom_checkpoint_outcome *out);

/* OOM_USAGE where a figure contradicts another or is out of range; the others call it. */
enum oom_status oom_checkpoint_chain_check(const struct oom_checkpoint_chain *chain);

#endif
