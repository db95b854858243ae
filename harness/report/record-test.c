#include "harness/report/record.h"

#include "harness/base/rng.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void record_test(void);

static void random_text(struct oom_rng *rng, char *out, size_t room) {
    static const char *const pieces[] = {
        "a",        "Z", "\"", "\\", "\n",           "\x01",
        "/",        "'", "#",  " ",  "\xe2\x86\x92", "\xf0\x9f\x98\x80",
        "\xc3\xa9", "0"};
    size_t used = 0;
    uint32_t wanted = oom_rng_below(rng, (uint32_t)room);
    for (;;) {
        const char *piece = pieces[oom_rng_below(rng, sizeof pieces / sizeof *pieces)];
        if (used + strlen(piece) > wanted) break;
        memcpy(out + used, piece, strlen(piece));
        used += strlen(piece);
    }
    out[used] = 0;
}

static double random_value(struct oom_rng *rng) {
    static const double some[] = {0, -0.0, 1, 1e308, 5e-324, 9007199254740991.0, 0.1};
    uint32_t which = oom_rng_below(rng, 10);
    if (which == 7) return (double)INFINITY;
    if (which == 8) return -(double)INFINITY;
    return which < 7 ? some[which] : oom_rng_uniform(rng) * 1e9;
}

static void random_record(struct oom_rng *rng, struct oom_case_record *record) {
    *record = (struct oom_case_record){0};
    snprintf(record->id, sizeof record->id, "large_batch/halving/gpt/f32/n=%u",
             oom_rng_below(rng, 100));
    record->outcome = (enum oom_outcome)oom_rng_below(rng, OOM_OUTCOME_COUNT);
    random_text(rng, record->reason, sizeof record->reason);
    record->is_control = oom_rng_below(rng, 2);
    record->expected_false = oom_rng_below(rng, 32); /* of a case: what must be unequal */
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        record->bits[i] = (enum oom_answer)oom_rng_below(rng, 3);
        random_text(rng, record->why[i], sizeof record->why[i]);
    }
    record->seconds = random_value(rng);
    record->figure_count = (int)oom_rng_below(rng, OOM_FIGURES_MAX + 1);
    for (int i = 0; i < record->figure_count; i++) {
        struct oom_figure *figure = &record->figures[i];
        snprintf(figure->name, sizeof figure->name, "figure_%d", i);
        random_text(rng, figure->unit, sizeof figure->unit);
        if (oom_rng_below(rng, 2)) random_text(rng, figure->text, sizeof figure->text);
        figure->value = random_value(rng);
    }
}

/* Texts up to their NUL, numbers by their bits. */
static bool same(const struct oom_case_record *a, const struct oom_case_record *b) {
    bool equal = strcmp(a->id, b->id) == 0 && a->outcome == b->outcome &&
                 strcmp(a->reason, b->reason) == 0 && a->is_control == b->is_control &&
                 a->expected_false == b->expected_false && a->figure_count == b->figure_count &&
                 memcmp(&a->seconds, &b->seconds, sizeof a->seconds) == 0;
    for (int i = 0; i < OOM_BIT_COUNT; i++)
        equal = equal && a->bits[i] == b->bits[i] && strcmp(a->why[i], b->why[i]) == 0;
    for (int i = 0; equal && i < a->figure_count; i++) {
        const struct oom_figure *x = &a->figures[i], *y = &b->figures[i];
        equal = strcmp(x->name, y->name) == 0 && strcmp(x->unit, y->unit) == 0 &&
                strcmp(x->text, y->text) == 0 && memcmp(&x->value, &y->value, 8) == 0;
    }
    return equal;
}

static void round_trips(void) {
    struct oom_rng rng = {6};
    struct oom_case_record record, back;
    int differ = 0;
    TEST("record: 500 drawn records come back as they were, each from one line");
    for (int i = 0; i < 500; i++) {
        char *line = NULL;
        random_record(&rng, &record);
        CHECK_OK(oom_record_write(&record, &line));
        if (line == NULL) break;
        CHECK(strchr(line, '\n') == NULL);
        CHECK_OK(oom_record_read(line, strlen(line), &back));
        differ += !same(&record, &back);
        oom_host_free(line);
    }
    CHECK_EQ(differ, 0);
    TEST("record: NaN, and fields full of bytes that are no UTF-8");
    char *line;
    record = (struct oom_case_record){.id = "a/b", .seconds = (double)NAN};
    memset(record.reason, 0xff, sizeof record.reason - 1);
    CHECK_OK(oom_record_write(&record, &line));
    CHECK_OK(oom_record_read(line, strlen(line), &back));
    CHECK(isnan(back.seconds));
    CHECK(strlen(back.reason) == OOM_REASON_MAX - 1 && back.reason[OOM_REASON_MAX - 2] == '?');
    oom_host_free(line);
}

#define BITS \
    "\"bits\":{\"oom_without\":true,\"fits_with\":true,\"grad_match\":null," \
    "\"data_intact\":false,\"state_restored\":true}"
#define HEAD "{\"id\":\"a/b\",\"outcome\":\"pass\",\"reason\":\"\","
#define TAIL "\"why\":{},\"seconds\":1,\"figures\":[]}"

static void hostile(void) {
    static const char good[] = HEAD BITS "," TAIL;
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "1",
        "null",
        HEAD TAIL,
        HEAD BITS "," TAIL "x",
        "{\"id\":\"a b\",\"outcome\":\"pass\",\"reason\":\"\"," BITS "," TAIL,
        "{\"id\":\"\",\"outcome\":\"pass\",\"reason\":\"\"," BITS "," TAIL,
        "{\"id\":7,\"outcome\":\"pass\",\"reason\":\"\"," BITS "," TAIL,
        "{\"id\":\"a\",\"outcome\":\"passed\",\"reason\":\"\"," BITS "," TAIL,
        "{\"id\":\"a\",\"outcome\":\"pass\"," BITS "," TAIL,
        "{\"id\":\"a\",\"outcome\":\"pass\",\"reason\":\"x\\u0000y\"," BITS "," TAIL,
        HEAD "\"extra\":1," BITS "," TAIL,
        HEAD "\"id\":\"c\"," BITS "," TAIL,
        HEAD "\"control\":[\"no_bit\"]," BITS "," TAIL,
        HEAD "\"control\":[\"grad_match\",\"grad_match\"]," BITS "," TAIL,
        HEAD "\"control\":true," BITS "," TAIL,
        HEAD "\"bits\":{\"oom_without\":true}," TAIL,
        HEAD "\"bits\":{\"oom_without\":1,\"fits_with\":true,\"grad_match\":null,"
             "\"data_intact\":false,\"state_restored\":true}," TAIL,
        HEAD "\"bits\":{\"oom_withou\":true,\"fits_with\":true,\"grad_match\":null,"
             "\"data_intact\":false,\"state_restored\":true}," TAIL,
        HEAD BITS ",\"why\":{\"x\":\"\"},\"seconds\":1,\"figures\":[]}",
        HEAD BITS ",\"why\":{\"grad_match\":1},\"seconds\":1,\"figures\":[]}",
        HEAD BITS ",\"why\":{},\"seconds\":\"soon\",\"figures\":[]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{}]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{\"name\":\"\",\"value\":1}]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{\"name\":\"a\"}]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{\"name\":\"a\",\"value\":1,\"x\":1}]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{\"name\":\"a\",\"value\":1},"
                  "{\"name\":\"a\",\"value\":1}]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{\"name\":\"a\",\"value\":1,"
                  "\"unit\":\"twelve bytes\"}]}",
        HEAD BITS ",\"why\":{},\"seconds\":1,\"figures\":[{\"name\":\"a\",\"value\":null}]}",
    };
    struct oom_case_record out = {.id = "untouched"};
    TEST("record: hostile lines are refused and change nothing");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        oom_failure_clear();
        CHECK_MSG(oom_record_read(bad[i], strlen(bad[i]), &out) == OOM_USAGE, "taken: %s", bad[i]);
    }
    CHECK_STR(out.id, "untouched");
    oom_failure_clear();
    CHECK_OK(oom_record_read(good, strlen(good), &out));
    CHECK_STR(out.id, "a/b");
    TEST("record: ids and figures beyond their room");
    char line[20000], id[OOM_ID_MAX + 1];
    memset(id, 'a', sizeof id - 1);
    id[OOM_ID_MAX] = 0;
    for (int over = 1; over >= 0; over--) {
        snprintf(line, sizeof line, "{\"id\":\"%s\",\"outcome\":\"pass\",\"reason\":\"\",%s,%s",
                 id + !over, BITS, TAIL);
        CHECK_EQ(oom_record_read(line, strlen(line), &out), over ? OOM_USAGE : OOM_OK);
        oom_failure_clear();
    }
    for (int count = OOM_FIGURES_MAX; count <= OOM_FIGURES_MAX + 1; count++) {
        int used =
            snprintf(line, sizeof line, "%s%s,\"why\":{},\"seconds\":1,\"figures\":[", HEAD, BITS);
        for (int i = 0; i < count; i++)
            used += snprintf(line + used, sizeof line - (size_t)used,
                             "%s{\"name\":\"f%d\",\"value\":1}", i > 0 ? "," : "", i);
        snprintf(line + used, sizeof line - (size_t)used, "]}");
        CHECK_EQ(oom_record_read(line, strlen(line), &out),
                 count == OOM_FIGURES_MAX ? OOM_OK : OOM_USAGE);
        oom_failure_clear();
    }
}

static void mutations(void) {
    static const char pieces[] = "{}[]\",:\\u0eE+-.19tfnabit_ \x80\xe2\xff\n";
    struct oom_rng rng = {7};
    struct oom_case_record record, back, again;
    char *line = NULL;
    int taken = 0, broken = 0;
    TEST("record: 40000 mutations of a line: refused, or read as something that round-trips");
    do {
        random_record(&rng, &record);
    } while (record.figure_count < 2 || record.figure_count > 4);
    for (int i = 0; i < OOM_BIT_COUNT; i++)
        snprintf(record.why[i], sizeof record.why[i], "reason %d", i);
    CHECK_OK(oom_record_write(&record, &line));
    size_t bytes = line != NULL ? strlen(line) : 0;
    uint64_t before = oom_host_bytes_current();
    for (int i = 0; line != NULL && i < 40000; i++) {
        char *text = oom_host_alloc(bytes);
        if (text == NULL) break;
        memcpy(text, line, bytes);
        for (uint32_t k = 0, n = 1 + oom_rng_below(&rng, 3); k < n; k++)
            text[oom_rng_below(&rng, (uint32_t)bytes)] =
                pieces[oom_rng_below(&rng, sizeof pieces - 1)];
        size_t kept = oom_rng_below(&rng, 5) == 0 ? oom_rng_below(&rng, (uint32_t)bytes) : bytes;
        bool read = oom_record_read(text, kept, &back) == OOM_OK;
        oom_host_free(text);
        oom_failure_clear();
        if (!read) continue;
        char *rewritten = NULL;
        taken++;
        bool trip = oom_record_write(&back, &rewritten) == OOM_OK &&
                    oom_record_read(rewritten, strlen(rewritten), &again) == OOM_OK;
        bool nan = trip && (isnan(back.seconds) || isnan(back.figures[0].value));
        broken += !(trip && (nan || same(&back, &again)));
        oom_host_free(rewritten);
    }
    CHECK_EQ(broken, 0);
    CHECK(taken > 100); /* mutations within texts are records still */
    CHECK_EQ(oom_host_bytes_current(), before);
    oom_host_free(line);
}

void record_test(void) {
    round_trips();
    hostile();
    mutations();
}
