/*
 * verdict.h: the five bits of a case, and the record of one case that every report is made from.
 *
 * A record owns nothing on the heap: it can be copied, kept in arrays and sent between processes
 * as one line of JSON (report/record.h).
 */
#ifndef OOM_HARNESS_VERIFY_VERDICT_H
#define OOM_HARNESS_VERIFY_VERDICT_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

#define OOM_BIT_MAP(X) \
    X(OOM_WITHOUT, "oom_without") /* the unmitigated step really ran out of memory */ \
    X(FITS_WITH, "fits_with")     /* the mitigated one finished under the cap, as predicted */ \
    X(GRAD_MATCH, "grad_match")   /* its gradients and loss agree with the reference */ \
    X(DATA_INTACT, "data_intact") /* canaries, parameters and guards kept their contents */ \
    X(STATE_RESTORED, "state_restored") /* between OOM and retry, and after teardown */

enum oom_bit {
#define X(id, name) OOM_BIT_##id,
    OOM_BIT_MAP(X)
#undef X
        OOM_BIT_COUNT
};

/* Not reached is neither true nor false: without a finished step there is no gradient to judge.
 * Not asked: this case has nothing that could answer (a table made on the dry device computes no
 * gradients); `why` says so, and the other bits decide. */
enum oom_answer { OOM_NOT_REACHED, OOM_FALSE, OOM_TRUE, OOM_NOT_ASKED };

/* What a case comes to. An error is the harness's own failure, a crash or a timeout. */
#define OOM_OUTCOME_MAP(X) \
    X(PASS, "pass") \
    X(FAIL, "fail") \
    X(SKIP, "skip") \
    X(ERROR, "error") \
    X(TIMEOUT, "timeout")

enum oom_outcome {
#define X(id, name) OOM_OUTCOME_##id,
    OOM_OUTCOME_MAP(X)
#undef X
        OOM_OUTCOME_COUNT
};

const char *oom_bit_name(enum oom_bit bit);
const char *oom_outcome_name(enum oom_outcome outcome);

enum {
    OOM_ID_MAX = 160,
    OOM_REASON_MAX = 240,
    OOM_FIGURES_MAX = 128,
    OOM_REPORT_TEXT_MAX = 2048,
};

/* A named number (with its unit: "bytes", "flop", "attempts", "" ...) or a named text. */
struct oom_figure {
    char name[40];
    char unit[12];
    double value;   /* integers below 2^53 are exact; text figures: unused */
    char text[128]; /* "" for a number */
};

struct oom_case_record {
    char id[OOM_ID_MAX]; /* scenario/mitigation/model/dtype[/variant] or .../control/<name> */
    enum oom_outcome outcome;
    char reason[OOM_REASON_MAX]; /* of a skip, a failure, an error; else "" */

    bool is_control; /* a wrong twin: passes when exactly `expected_false` turned false */
    /* Set of bits, 1 << enum oom_bit: those that a control's mistake must turn; of a case, those
     * that mathematics makes false without any mistake. */
    uint32_t expected_false;

    enum oom_answer bits[OOM_BIT_COUNT];
    char why[OOM_BIT_COUNT][OOM_REASON_MAX]; /* what decided the bit: figures, in words */

    char oom_report[OOM_REPORT_TEXT_MAX]; /* of the unmitigated run's failure, for people; or "" */

    double seconds;
    int figure_count;
    struct oom_figure figures[OOM_FIGURES_MAX];
};

/* Adds a figure; a full record drops it (no figure is worth failing a case for). */
void oom_record_number(struct oom_case_record *record, const char *name, double value,
                       const char *unit);
void oom_record_text(struct oom_case_record *record, const char *name, const char *text);
/* NULL if there is none of that name. */
const struct oom_figure *oom_record_figure(const struct oom_case_record *record, const char *name);

/* Sets bit and reason. */
void oom_record_bit(struct oom_case_record *record, enum oom_bit bit, enum oom_answer answer,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Is the bit as it has to be? Not asked is; not reached never is. */
bool oom_record_is_right(const struct oom_case_record *record, enum oom_bit bit);
/* False, as it has to be, with no mistake about: of a case, not of a control. */
bool oom_record_is_unequal(const struct oom_case_record *record, enum oom_bit bit);

/* Decides the outcome from the bits: a case passes with all right that were asked; a control when
 * exactly the expected bits are false and no other (not reached counts as neither). A record on
 * which no bit was answered fails ("made no check"). SKIP, ERROR and TIMEOUT set before are kept.
 */
void oom_record_decide(struct oom_case_record *record);

#endif
