/* judge-memory.c: did everything in memory keep its contents, and is the state what it was? */
#include "harness/verify/proceedings.h"

#include <stdio.h>

/* ---- data_intact ---- */

void oom_judge_data(struct oom_proceedings *p) {
    const struct oom_hearing *h = p->mitigated, *g = p->guards;
    char why[OOM_REASON_MAX];
    if (!h->finished || (g != NULL && !g->finished)) {
        snprintf(why, sizeof why, "the %s process ended: %s", h->finished ? "guards" : "mitigated",
                 h->finished ? g->end : h->end);
        oom_judge_bit(p, OOM_BIT_DATA_INTACT, false, why);
        return;
    }
    const struct oom_job_result *r = &h->result;
    if (oom_strayed(h)) {
        snprintf(why, sizeof why, "it used memory that was not there: %.160s", r->message);
        oom_judge_bit(p, OOM_BIT_DATA_INTACT, false, why);
        return;
    }
    if (r->canary_checks == 0 || r->parameter_checks < r->steps_done) {
        oom_record_bit(p->record, OOM_BIT_DATA_INTACT, OOM_NOT_REACHED, "nothing was checked");
        return;
    }
    bool intact = r->canary_bad == 0 && r->parameter_bad == 0 && r->kept_bad == 0;
    uint64_t blocks = g != NULL ? g->result.guards_bad : 0;
    bool guarded = g == NULL || (oom_completed(g) && g->result.guard_checks > 0 && blocks == 0 &&
                                 g->result.canary_bad == 0 && g->result.parameter_bad == 0);
    if (g != NULL && !oom_completed(g)) {
        snprintf(why, sizeof why, "the guards pass did not finish: %.120s", g->result.message);
    } else {
        snprintf(why, sizeof why,
                 "canaries: %llu bytes changed in %d looks; parameters: changed in %d of %d looks; "
                 "guards: %llu of the blocks' damaged; kept results: %llu changed",
                 (unsigned long long)r->canary_bad, r->canary_checks, r->parameter_bad,
                 r->parameter_checks, (unsigned long long)blocks, (unsigned long long)r->kept_bad);
    }
    oom_judge_bit(p, OOM_BIT_DATA_INTACT, intact && guarded, why);
}

/* ---- state_restored ---- */

/* OOMs of real attempts: in a finished run each was followed by a recovery. */
static int count_retried(const struct oom_job_result *result) {
    int retried = 0;
    for (int i = 0; i < result->attempt_count; i++) {
        retried += result->attempts[i].status == OOM_NOMEM && !result->attempts[i].trial;
    }
    return retried;
}

void oom_judge_state(struct oom_proceedings *p) {
    const struct oom_hearing *h = p->mitigated;
    char why[OOM_REASON_MAX];
    if (!h->finished) {
        oom_record_bit(p->record, OOM_BIT_STATE_RESTORED, OOM_NOT_REACHED, "the process ended");
        return;
    }
    const struct oom_job_result *r = &h->result;
    if (r->restored_bad > 0) {
        snprintf(why, sizeof why, "between the OOM and the retry: %s (%d of %d)", r->restored_why,
                 r->restored_bad, r->restored_checks);
        oom_judge_bit(p, OOM_BIT_STATE_RESTORED, false, why);
        return;
    }
    if (r->skip_bad > 0) {
        snprintf(why, sizeof why, "of %d steps %d left something behind that they should not: %s",
                 r->skip_checks, r->skip_bad, r->skip_why);
        oom_judge_bit(p, OOM_BIT_STATE_RESTORED, false, why);
        return;
    }
    if (!r->torn_down) {
        oom_record_bit(p->record, OOM_BIT_STATE_RESTORED, OOM_NOT_REACHED, "no teardown");
        return;
    }
    bool clean = r->left_allocated == 0 && r->left_reserved == 0;
    if (r->restored_checks != count_retried(r)) {
        clean = false;
        snprintf(why, sizeof why, "%d OOMs were survived, but the state was looked at %d times",
                 count_retried(r), r->restored_checks);
    } else if (!clean) {
        snprintf(why, sizeof why, "after teardown %llu bytes are allocated and %llu reserved",
                 (unsigned long long)r->left_allocated, (unsigned long long)r->left_reserved);
    } else if (r->skipped > 0) {
        snprintf(why, sizeof why,
                 "%d steps left out changed nothing but the scale; nothing left after teardown",
                 r->skipped);
    } else if (r->restored_checks > 0) {
        snprintf(why, sizeof why, "as before in %d of %d retries; nothing left after teardown",
                 r->restored_checks, r->restored_checks);
    } else {
        snprintf(why, sizeof why, "no OOM in the mitigated run; nothing left after teardown");
    }
    oom_judge_bit(p, OOM_BIT_STATE_RESTORED, clean, why);
}
