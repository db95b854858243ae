/* inject-case.c: a case whose mitigated run meets failures on purpose.
 *
 * One call that fails costs a dry run and a run of the mitigated job, for need, unmitigated step,
 * references and truths are remembered by the court. `every` costs as many of these as the steps
 * make calls of alloc. */
#include "harness/verify/case.h"
#include "harness/verify/court.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

/* Calls of alloc in the steps of the mitigated job; and the budget of checkpointing that it chooses
 * before them: a search that need not be repeated for each of the calls. */
static enum oom_status count_calls(struct oom_court *court, const struct oom_case *the_case,
                                   uint64_t *out, uint64_t *budget) {
    struct oom_job job = the_case->mitigated;
    const struct oom_hearing *hearing;
    snprintf(job.device, sizeof job.device, "dry");
    job.capture = false;
    OOM_TRY(oom_court_hear(court, "dry-calls", &job, the_case->extra, &hearing));
    *out = hearing->finished ? hearing->result.step_calls : 0;
    *budget = hearing->finished ? hearing->result.fit.budget : 0;
    return OOM_OK;
}

static enum oom_status run_one(struct oom_court *court, const struct oom_case *the_case,
                               const struct oom_injection *injection,
                               struct oom_case_record *record) {
    struct oom_case with = *the_case;
    with.injection = *injection;
    OOM_TRY(oom_case_run(court, &with, record));
    oom_record_decide(record);
    return OOM_OK;
}

static double figure(const struct oom_case_record *record, const char *name) {
    const struct oom_figure *found = oom_record_figure(record, name);
    return found != NULL ? found->value : 0;
}

/* Each call in turn, until one does not pass; its record is the case's. */
static enum oom_status run_every(struct oom_court *court, const struct oom_case *the_case,
                                 uint64_t calls, struct oom_case_record *record) {
    const struct oom_case_record announced = *record;
    double recovered = 0, ended = 0;
    uint64_t done = 0;
    for (record->outcome = OOM_OUTCOME_PASS; done < calls && record->outcome == OOM_OUTCOME_PASS;
         done++) {
        *record = announced;
        OOM_TRY(run_one(court, the_case, &(struct oom_injection){.at = done + 1}, record));
        if (figure(record, "injected") > 0 && record->outcome == OOM_OUTCOME_PASS) {
            bool end = figure(record, "injected_end") > 0;
            recovered += !end;
            ended += end;
        }
    }
    oom_record_number(record, "injected_runs", (double)done, "");
    oom_record_number(record, "injected_recovered", recovered, "");
    oom_record_number(record, "injected_ended", ended, "");
    return OOM_OK;
}

/* A failure is told with the call that was made to fail. */
static void name_call(struct oom_case_record *record, uint64_t calls) {
    char reason[OOM_REASON_MAX];
    const struct oom_figure *call = oom_record_figure(record, "injected_at");
    if (record->outcome == OOM_OUTCOME_PASS || call == NULL) return;
    snprintf(reason, sizeof reason, "with %.70s of %llu failing: %.120s", call->text,
             (unsigned long long)calls, record->reason);
    memcpy(record->reason, reason, sizeof reason);
}

static enum oom_status skip(struct oom_case_record *record, uint64_t calls) {
    record->outcome = OOM_OUTCOME_SKIP;
    if (calls == 0) {
        snprintf(record->reason, sizeof record->reason,
                 "a table of dry runs has no mitigated steps to fail in");
    } else {
        snprintf(record->reason, sizeof record->reason,
                 "there is no such call to fail: its steps make %llu", (unsigned long long)calls);
    }
    return OOM_OK;
}

enum oom_status oom_case_inject(struct oom_court *court, const struct oom_case *the_case,
                                const struct oom_injection *injection,
                                struct oom_case_record *record) {
    struct oom_case planned = *the_case;
    uint64_t calls = 0, budget = 0;
    snprintf(record->id, sizeof record->id, "%s", the_case->id);
    if (the_case->table.count > 0) return skip(record, 0);
    OOM_TRY(count_calls(court, the_case, &calls, &budget));
    if (budget > 0) planned.mitigated.trainer.checkpoint_budget = budget;
    if (calls == 0) return oom_fail(OOM_INTERNAL, "the mitigated job's steps make no allocation");
    if (injection->at > calls) return skip(record, calls);
    enum oom_status status = injection->every ? run_every(court, &planned, calls, record)
                                              : run_one(court, &planned, injection, record);
    if (status == OOM_OK) oom_record_number(record, "calls", (double)calls, "");
    if (status == OOM_OK) name_call(record, calls);
    return status;
}
