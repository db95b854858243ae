#include "harness/verify/verdict.h"

#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void verdict_test(void);

/* One letter per bit: t, f, or - for not reached. */
static struct oom_case_record with_bits(const char *letters) {
    struct oom_case_record record = {0};
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        enum oom_answer answer = letters[i] == 't'   ? OOM_TRUE
                                 : letters[i] == 'f' ? OOM_FALSE
                                                     : OOM_NOT_REACHED;
        if (letters[i] != '-')
            oom_record_bit(&record, (enum oom_bit)i, answer, "letter %c", letters[i]);
    }
    return record;
}

static struct oom_case_record decided(const char *letters) {
    struct oom_case_record record = with_bits(letters);
    oom_record_decide(&record);
    return record;
}

static struct oom_case_record decided_control(const char *letters, uint32_t expected) {
    struct oom_case_record record = with_bits(letters);
    record.is_control = true;
    record.expected_false = expected;
    oom_record_decide(&record);
    return record;
}

/* All 3^5 answers: only five true pass. */
static void cases(void) {
    int passed = 0;
    TEST("verdict: of 243 answers only five true pass");
    for (int n = 0; n < 243; n++) {
        char letters[6] = "";
        int rest = n;
        for (int i = 0; i < 5; i++, rest /= 3) letters[i] = "tf-"[rest % 3];
        struct oom_case_record record = decided(letters);
        passed += record.outcome == OOM_OUTCOME_PASS;
        CHECK((record.outcome == OOM_OUTCOME_PASS) == (record.reason[0] == 0));
        CHECK(record.outcome == OOM_OUTCOME_PASS || record.outcome == OOM_OUTCOME_FAIL);
    }
    CHECK_EQ(passed, 1);
    CHECK_EQ(decided("ttttt").outcome, OOM_OUTCOME_PASS);
    TEST("verdict: the reason names the bits");
    struct oom_case_record record = decided("ttftt");
    CHECK_STR(record.reason, "grad_match false");
    CHECK_STR(record.why[OOM_BIT_GRAD_MATCH], "letter f");
    record = decided("tf-t-");
    CHECK_STR(record.reason, "fits_with false; grad_match, state_restored not reached");
    record = decided("t----");
    CHECK_STR(record.reason, "fits_with, grad_match, data_intact, state_restored not reached");
    TEST("verdict: no bit answered is no check");
    record = decided("-----");
    CHECK_EQ(record.outcome, OOM_OUTCOME_FAIL);
    CHECK_STR(record.reason, "made no check");
    TEST("verdict: an answer out of range is no true");
    record = with_bits("ttttt");
    record.bits[3] = (enum oom_answer)7;
    oom_record_decide(&record);
    CHECK_EQ(record.outcome, OOM_OUTCOME_FAIL);
}

static void controls(void) {
    const uint32_t grad = 1u << OOM_BIT_GRAD_MATCH, data = 1u << OOM_BIT_DATA_INTACT;
    TEST("verdict: a control passes when exactly its bits turn, whatever is not reached");
    int passed = 0;
    for (int n = 0; n < 243; n++) {
        char letters[6] = "";
        int rest = n;
        bool exact = true;
        for (int i = 0; i < 5; i++, rest /= 3) {
            letters[i] = "tf-"[rest % 3];
            exact = exact && (letters[i] == 'f') == (i == OOM_BIT_GRAD_MATCH);
        }
        struct oom_case_record record = decided_control(letters, grad);
        CHECK_MSG((record.outcome == OOM_OUTCOME_PASS) == exact, "%s", letters);
        passed += record.outcome == OOM_OUTCOME_PASS;
    }
    CHECK_EQ(passed, 16); /* two ways for each of the other four */
    TEST("verdict: a control with one false bit too many, or too few");
    struct oom_case_record record = decided_control("ttfft", grad);
    CHECK_STR(record.reason, "must turn exactly: grad_match; turned: grad_match, data_intact");
    record = decided_control("ttftt", grad | data);
    CHECK_STR(record.reason, "must turn exactly: grad_match, data_intact; turned: grad_match");
    record = decided_control("ttttt", grad);
    CHECK_STR(record.reason, "must turn exactly: grad_match; turned: none");
    TEST("verdict: a control that names no bit, or none that there is, never passes");
    CHECK_EQ(decided_control("ttttt", 0).outcome, OOM_OUTCOME_FAIL);
    CHECK_EQ(decided_control("ttttt", 1u << OOM_BIT_COUNT).outcome, OOM_OUTCOME_FAIL);
    CHECK_EQ(decided_control("-----", grad).outcome, OOM_OUTCOME_FAIL);
    CHECK_STR(decided_control("-----", grad).reason, "made no check");
}

static struct oom_case_record decided_unequal(const char *letters, uint32_t expected) {
    struct oom_case_record record = with_bits(letters);
    record.expected_false = expected;
    oom_record_decide(&record);
    return record;
}

static void unequal(void) {
    const uint32_t grad = 1u << OOM_BIT_GRAD_MATCH;
    TEST("verdict: a case that must be unequal passes with that bit false and all others true");
    int passed = 0;
    for (int n = 0; n < 243; n++) {
        char letters[6] = "";
        int rest = n;
        for (int i = 0; i < 5; i++, rest /= 3) letters[i] = "tf-"[rest % 3];
        struct oom_case_record record = decided_unequal(letters, grad);
        bool pass = record.outcome == OOM_OUTCOME_PASS;
        CHECK_MSG(pass == (strcmp(letters, "ttftt") == 0), "%s", letters);
        passed += pass;
    }
    CHECK_EQ(passed, 1);
    struct oom_case_record record = decided_unequal("ttttt", grad);
    CHECK_STR(record.reason, "grad_match true, which mathematics makes false");
    CHECK(!oom_record_is_right(&record, OOM_BIT_GRAD_MATCH));
    CHECK(!oom_record_is_unequal(&record, OOM_BIT_GRAD_MATCH));
    record = decided_unequal("ft-tt", grad);
    CHECK_STR(record.reason, "oom_without false; grad_match not reached");
    record = decided_unequal("ttftt", grad);
    CHECK(oom_record_is_unequal(&record, OOM_BIT_GRAD_MATCH));
    CHECK(oom_record_is_right(&record, OOM_BIT_GRAD_MATCH));
    CHECK(!oom_record_is_unequal(&record, OOM_BIT_FITS_WITH));
    TEST("verdict: what was not asked is neither equal nor unequal");
    record = with_bits("ttftt");
    record.expected_false = grad;
    oom_record_bit(&record, OOM_BIT_GRAD_MATCH, OOM_NOT_ASKED, "the injected failure ended it");
    oom_record_decide(&record);
    CHECK_EQ(record.outcome, OOM_OUTCOME_PASS);
    CHECK(!oom_record_is_unequal(&record, OOM_BIT_GRAD_MATCH));
    TEST("verdict: a control's bits are right where they turned, and no case of inequality");
    record = decided_control("ttftt", grad);
    CHECK(oom_record_is_right(&record, OOM_BIT_GRAD_MATCH));
    CHECK(!oom_record_is_unequal(&record, OOM_BIT_GRAD_MATCH));
}

static void outcomes_kept(void) {
    static const enum oom_outcome kept[] = {OOM_OUTCOME_SKIP, OOM_OUTCOME_ERROR,
                                            OOM_OUTCOME_TIMEOUT};
    TEST("verdict: skip, error and timeout stay; a failure is decided anew");
    for (int i = 0; i < 3; i++) {
        struct oom_case_record record = with_bits("ttttt");
        record.outcome = kept[i];
        oom_record_decide(&record);
        CHECK_EQ(record.outcome, kept[i]);
    }
    struct oom_case_record record = with_bits("ttttt");
    record.outcome = OOM_OUTCOME_FAIL;
    oom_record_decide(&record);
    CHECK_EQ(record.outcome, OOM_OUTCOME_PASS);
    record = with_bits("tfttt");
    snprintf(record.reason, sizeof record.reason, "said before");
    oom_record_decide(&record);
    CHECK_STR(record.reason, "said before");
    TEST("verdict: names");
    CHECK_STR(oom_bit_name(OOM_BIT_STATE_RESTORED), "state_restored");
    CHECK_STR(oom_bit_name(OOM_BIT_COUNT), "unknown");
    CHECK_STR(oom_outcome_name(OOM_OUTCOME_TIMEOUT), "timeout");
    CHECK_STR(oom_outcome_name((enum oom_outcome) - 1), "unknown");
}

static void figures(void) {
    struct oom_case_record record = {0};
    char name[64];
    TEST("verdict: figures are found, replaced, and dropped when full");
    oom_record_number(&record, "peak_bytes", 12, "bytes");
    oom_record_text(&record, "class", "bitwise");
    oom_record_number(&record, "peak_bytes", 13, "bytes");
    CHECK_EQ(record.figure_count, 2);
    CHECK(oom_record_figure(&record, "peak_bytes")->value == 13);
    CHECK_STR(oom_record_figure(&record, "class")->text, "bitwise");
    CHECK(oom_record_figure(&record, "none") == NULL);
    for (int i = 0; i < OOM_FIGURES_MAX; i++) {
        snprintf(name, sizeof name, "figure_%d", i);
        oom_record_number(&record, name, i, "");
    }
    CHECK_EQ(record.figure_count, OOM_FIGURES_MAX);
    CHECK(oom_record_figure(&record, "figure_125")->value == 125); /* beside the first two */
    CHECK(oom_record_figure(&record, "figure_126") == NULL);
    TEST("verdict: a reason that is cut is cut between characters");
    char text[OOM_REASON_MAX + 10];
    memset(text, 'a', sizeof text);
    memcpy(text + OOM_REASON_MAX - 3, "\xe2\x86\x92", 4);
    oom_record_bit(&record, OOM_BIT_FITS_WITH, OOM_TRUE, "%s", text);
    CHECK_EQ(strlen(record.why[OOM_BIT_FITS_WITH]), OOM_REASON_MAX - 3);
    memcpy(text + OOM_REASON_MAX - 4, "\xe2\x86\x92", 4);
    oom_record_bit(&record, OOM_BIT_FITS_WITH, OOM_TRUE, "%s", text);
    CHECK_EQ(strlen(record.why[OOM_BIT_FITS_WITH]), OOM_REASON_MAX - 1);
    oom_record_bit(&record, OOM_BIT_COUNT, OOM_TRUE, "no such bit");
    CHECK(record.outcome == OOM_OUTCOME_PASS);
}

void verdict_test(void) {
    cases();
    controls();
    unequal();
    outcomes_kept();
    figures();
}
