/* The settings string, by both readers. What the strict one refuses changes nothing and has its
 * reason; what it accepts the lenient one reads alike, without a note, and every setting named
 * there, written by oom_setting_format, reads back as the same. */
#include "harness/memory/settings.h"

#include "harness/base/fuzz.h"

#include <stdio.h>
#include <string.h>

oom_fuzz_target settings_fuzz;

enum { CONF_MAX = 4096, NOTES_MAX = 512, VALUE_MAX = 256 };

static int wrong(const char *what, const char *conf, const char *detail) {
    fprintf(stderr, "settings: %s: \"%.400s\" %s\n", what, conf, detail);
    return 1;
}

static void start(struct oom_allocator_settings *out, enum oom_profile profile) {
    memset(out, 0, sizeof *out); /* padding too: settings are compared by memcmp */
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    memcpy(out, &settings, sizeof *out);
    out->profile = profile;
}

/* Every setting by its text; both were read from one string. */
static int differ(const struct oom_allocator_settings *a, const struct oom_allocator_settings *b,
                  const char *what, const char *conf) {
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        char x[VALUE_MAX], y[VALUE_MAX], both[3 * VALUE_MAX];
        oom_setting_format(a, (enum oom_setting)i, x, sizeof x);
        oom_setting_format(b, (enum oom_setting)i, y, sizeof y);
        if (strcmp(x, y) == 0) continue;
        snprintf(both, sizeof both, "%s: %s, %s", oom_setting_name((enum oom_setting)i), x, y);
        return wrong(what, conf, both);
    }
    return 0;
}

static int accepted(const char *conf, const struct oom_allocator_settings *strict) {
    struct oom_allocator_settings again, lenient;
    char notes[NOTES_MAX], text[OOM_SETTING_COUNT * VALUE_MAX];
    start(&lenient, strict->profile);
    oom_allocator_settings_parse_leniently(conf, &lenient, notes, sizeof notes);
    if (notes[0] != 0) return wrong("accepted strictly, yet noted leniently", conf, notes);
    if (differ(strict, &lenient, "the two readers differ", conf)) return 1;

    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        char value[VALUE_MAX];
        if (!strict->given[i]) continue;
        oom_setting_format(strict, (enum oom_setting)i, value, sizeof value);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s:%s", used > 0 ? "," : "",
                                 oom_setting_name((enum oom_setting)i), value);
    }
    if (used >= OOM_CONF_MAX) return 0; /* longer than a string may be */
    start(&again, strict->profile);
    if (oom_allocator_settings_parse(text, &again) != OOM_OK) {
        return wrong("written and refused", text, oom_failure_last()->message);
    }
    return differ(strict, &again, "written and read back", conf);
}

static int refused(const char *conf, enum oom_status status,
                   const struct oom_allocator_settings *settings) {
    struct oom_allocator_settings before;
    start(&before, settings->profile);
    if (status != OOM_USAGE)
        return wrong("refused by another status", conf, oom_status_name(status));
    if (oom_failure_last()->message[0] == 0) return wrong("refused without a word", conf, "");
    if (memcmp(&before, settings, sizeof before) != 0)
        return wrong("refused, yet changed", conf, "");
    return 0;
}

static int read_leniently(const char *conf, enum oom_profile profile) {
    struct oom_allocator_settings lenient;
    char notes[NOTES_MAX];
    start(&lenient, profile);
    memset(notes, 'x', sizeof notes);
    oom_allocator_settings_parse_leniently(conf, &lenient, notes, sizeof notes);
    return memchr(notes, 0, sizeof notes) == NULL ? wrong("notes without an end", conf, "") : 0;
}

/* The first byte chooses the profile. */
int settings_fuzz(const uint8_t *data, size_t n) {
    char conf[CONF_MAX];
    if (n == 0 || n > sizeof conf) return 0;
    enum oom_profile profile = (enum oom_profile)(data[0] % OOM_PROFILE_COUNT);
    memcpy(conf, data + 1, n - 1);
    conf[n - 1] = 0;
    struct oom_allocator_settings settings;
    start(&settings, profile);
    enum oom_status status = oom_allocator_settings_parse(conf, &settings);
    int bad = status == OOM_OK ? accepted(conf, &settings) : refused(conf, status, &settings);
    return bad || read_leniently(conf, profile);
}
