/*
 * case.h: the processes of a case and their verdict.
 *
 * A case is one mitigation applied to one situation. Its jobs run in processes of their own, one
 * after the other: dry (what the unmitigated step needs; what the mitigated one will peak at),
 * unmitigated, mitigated, reference, guards. Then the files they left are compared. Jobs that
 * several cases share, and truths, are made once per court.
 *
 * A court owns a temporary directory with everything the jobs wrote, until oom_court_close.
 */
#ifndef OOM_HARNESS_VERIFY_CASE_H
#define OOM_HARNESS_VERIFY_CASE_H

#include "harness/verify/job.h"
#include "harness/verify/verdict.h"

/* What the mitigated run is compared with. */
enum oom_reference {
    OOM_REFERENCE_SIZES, /* a fresh process that begins at the sizes the mitigation found */
    OOM_REFERENCE_WHOLE, /* the whole batch in one piece */
};

struct oom_case {
    char id[OOM_ID_MAX];
    struct oom_job mitigated;   /* device, directory and capture are filled in */
    struct oom_job unmitigated; /* must run out of memory */
    struct oom_job guards;      /* the mitigated job at --quick size, with guard regions */
    bool has_guards;
    enum oom_reference reference;
    bool bitwise;     /* gradients, loss and the state left behind are equal bits */
    bool bounded;     /* gradients and loss agree with the truth within the class's bound */
    double need;      /* least peak of reserved bytes without limit / capacity; live if by_live */
    bool without_oom; /* the mitigated run may not meet a single OOM */
    bool at_the_edge; /* the size found is the largest: one more sample must fail */
    bool rates;       /* record the share of the largest size that fits, found on dry */
    uint64_t host_allowance;  /* bytes of host memory outside the arena; 0: 16 MiB */
    const char *const *extra; /* options passed on to the mitigated job's processes; NULL */
};

struct oom_court;

/* `self` is the path of this binary; timeout in seconds per process; progress may be NULL. */
struct oom_court_options {
    const char *self;
    double timeout;
    void (*progress)(void *user, const char *what);
    void *user;
};

enum oom_status oom_court_open(const struct oom_court_options *options, struct oom_court **out);
void oom_court_close(struct oom_court *court);

/* Runs the case and fills in bits, reasons and figures; the caller decides (oom_record_decide).
 * A harness failure (a job that could not be started, files that cannot be read) is a status. */
enum oom_status oom_case_run(struct oom_court *court, const struct oom_case *the_case,
                             struct oom_case_record *record);

#endif
