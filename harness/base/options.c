#include "harness/base/options.h"

#include "harness/base/nearest.h"
#include "harness/base/sizes.h"
#include "harness/base/text.h"

#include <float.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 128, WHAT_MAX = 80 };

static const char *const yes_no[] = {"no", "yes", NULL};

const char *oom_option_source_name(enum oom_option_source source) {
    static const char *const names[] = {"default", "environment", "option"};
    return (unsigned)source < 3 ? names[source] : "unknown";
}

/* ---- one value into its field: a function per kind ---- */

static void range_of(const struct oom_option *row, double type_min, double type_max, double *min,
                     double *max) {
    bool any = row->min == 0 && row->max == 0;
    *min = any ? type_min : row->min;
    *max = any ? type_max : row->max;
}

static enum oom_status set_flag(const struct oom_option *row, const char *what, const char *text,
                                void *field) {
    int value = 1;
    (void)row;
    if (text != NULL) OOM_TRY(oom_choice_parse(what, text, yes_no, &value));
    *(bool *)field = value == 1;
    return OOM_OK;
}

static enum oom_status set_int(const struct oom_option *row, const char *what, const char *text,
                               void *field) {
    double min, max;
    int64_t value;
    range_of(row, INT_MIN, INT_MAX, &min, &max);
    OOM_TRY(oom_int64_parse(what, text, (int64_t)min, (int64_t)max, &value));
    *(int *)field = (int)value;
    return OOM_OK;
}

static enum oom_status set_uint64(const struct oom_option *row, const char *what, const char *text,
                                  void *field) {
    bool any = row->min == 0 && row->max == 0;
    return oom_uint64_parse(what, text, (uint64_t)row->min, any ? UINT64_MAX : (uint64_t)row->max,
                            field);
}

static enum oom_status set_size(const struct oom_option *row, const char *what, const char *text,
                                void *field) {
    for (int i = 0; row->names != NULL && row->names[i] != NULL; i++) {
        if (strcmp(text, row->names[i]) != 0) continue;
        *(uint64_t *)field = oom_option_size_name(i);
        return OOM_OK;
    }
    uint64_t value;
    double min, max;
    char least[24], most[24];
    range_of(row, 0, 0x1p63, &min, &max);
    OOM_TRY(oom_size_parse(what, text, &value));
    if ((double)value < min || (double)value > max)
        return oom_fail(OOM_USAGE, "%s: \"%.60s\" is not allowed; allowed: %s to %s", what, text,
                        oom_size_format((uint64_t)min, least, sizeof least),
                        oom_size_format((uint64_t)max, most, sizeof most));
    *(uint64_t *)field = value;
    return OOM_OK;
}

static enum oom_status set_double(const struct oom_option *row, const char *what, const char *text,
                                  void *field) {
    double min, max;
    range_of(row, -DBL_MAX, DBL_MAX, &min, &max);
    return oom_double_parse(what, text, min, max, field);
}

static enum oom_status set_choice(const struct oom_option *row, const char *what, const char *text,
                                  void *field) {
    return oom_choice_parse(what, text, row->names, field);
}

static enum oom_status set_text(const struct oom_option *row, const char *what, const char *text,
                                void *field) {
    (void)row, (void)what;
    *(const char **)field = text;
    return OOM_OK;
}

static enum oom_status set_path(const struct oom_option *row, const char *what, const char *text,
                                void *field) {
    if (*text == 0) return oom_fail(OOM_USAGE, "%s: \"\" is not allowed; allowed: a path", what);
    return set_text(row, what, text, field);
}

static enum oom_status set_duration(const struct oom_option *row, const char *what,
                                    const char *text, void *field) {
    double min, max, value;
    range_of(row, 0, DBL_MAX, &min, &max);
    OOM_TRY(oom_duration_parse(what, text, &value));
    if (!(value >= min && value <= max))
        return oom_fail(OOM_USAGE, "%s: \"%.60s\" is not allowed; allowed: %g s to %g s", what,
                        text, min, max);
    *(double *)field = value;
    return OOM_OK;
}

static enum oom_status set_list(const struct oom_option *row, const char *what, const char *text,
                                void *field) {
    struct oom_option_list *list = field;
    (void)row;
    if (list->count == OOM_OPTION_LIST_MAX)
        return oom_fail(OOM_USAGE, "%s: given more than %d times", what, OOM_OPTION_LIST_MAX);
    list->items[list->count++] = text;
    return OOM_OK;
}

static const struct {
    enum oom_status (*set)(const struct oom_option *row, const char *what, const char *text,
                           void *field);
    const char *metavar; /* NULL: takes no value */
} kinds[] = {
    [OOM_OPTION_FLAG] = {set_flag, NULL},           [OOM_OPTION_INT] = {set_int, "N"},
    [OOM_OPTION_UINT64] = {set_uint64, "N"},        [OOM_OPTION_SIZE] = {set_size, "SIZE"},
    [OOM_OPTION_DOUBLE] = {set_double, "X"},        [OOM_OPTION_CHOICE] = {set_choice, "NAME"},
    [OOM_OPTION_TEXT] = {set_text, "TEXT"},         [OOM_OPTION_PATH] = {set_path, "FILE"},
    [OOM_OPTION_DURATION] = {set_duration, "TIME"}, [OOM_OPTION_LIST] = {set_list, "TEXT"},
    [OOM_OPTION_PREFIX] = {set_list, "..."},
};

static void *field_of(const struct oom_option *row, void *destination) {
    return (char *)destination + row->offset;
}

/* ---- finding rows ---- */

static bool is_list(const struct oom_option *row) {
    return row->kind == OOM_OPTION_LIST || row->kind == OOM_OPTION_PREFIX;
}

/* `name` is what stands between the dashes and '=' or the end. */
static int row_by_name(const struct oom_options *options, const char *name, size_t bytes) {
    for (int i = 0; i < options->count; i++) {
        const struct oom_option *row = &options->rows[i];
        size_t own = strlen(row->name);
        bool prefix = row->kind == OOM_OPTION_PREFIX;
        if (prefix ? bytes > own : bytes == own) {
            if (memcmp(row->name, name, own) == 0) return i;
        }
    }
    return -1;
}

static int row_by_letter(const struct oom_options *options, char letter) {
    for (int i = 0; i < options->count; i++) {
        if (letter != 0 && options->rows[i].letter == letter) return i;
    }
    return -1;
}

static enum oom_status unknown(const struct oom_options *options, const char *argument) {
    const char *names[NAMES_MAX];
    char name[WHAT_MAX];
    int count = options->count < NAMES_MAX ? options->count : NAMES_MAX;
    const char *start = argument + strspn(argument, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(start, "="), start);
    for (int i = 0; i < count; i++) names[i] = options->rows[i].name;
    const char *nearest = oom_nearest_name(name, names, count);
    if (nearest == NULL)
        return oom_fail(OOM_USAGE, "unknown option \"%.80s\"; --help lists the options", argument);
    return oom_fail(OOM_USAGE, "unknown option \"%.80s\"; did you mean --%s?", argument, nearest);
}

/* ---- parsing ---- */

struct parser {
    const struct oom_options *options;
    int argc, at;
    char *const *argv;
    void *destination;
    enum oom_option_source *sources;
};

static enum oom_status assign(struct parser *parser, int index, enum oom_option_source source,
                              const char *what, const char *text) {
    const struct oom_option *row = &parser->options->rows[index];
    if (parser->sources != NULL) parser->sources[index] = source;
    return kinds[row->kind].set(row, what, text, field_of(row, parser->destination));
}

/* An option with a value that was not attached takes the next argument, unless that looks like an
 * option: "--control --quick" is a slip more often than a name. */
static enum oom_status option_value(struct parser *parser, const char *what, const char **text) {
    const char *next = parser->at + 1 < parser->argc ? parser->argv[parser->at + 1] : NULL;
    if (next == NULL) return oom_fail(OOM_USAGE, "%s: a value is missing", what);
    if (strncmp(next, "--", 2) == 0)
        return oom_fail(OOM_USAGE,
                        "%s: a value is missing before \"%.60s\" (if that is the value, "
                        "write %s=%.60s)",
                        what, next, what, next);
    parser->at++;
    *text = next;
    return OOM_OK;
}

static enum oom_status parse_long(struct parser *parser, const char *argument) {
    const char *name = argument + 2;
    size_t bytes = strcspn(name, "=");
    const char *text = name[bytes] == '=' ? name + bytes + 1 : NULL;
    int index = row_by_name(parser->options, name, bytes);
    if (index < 0) return unknown(parser->options, argument);
    enum oom_option_kind kind = parser->options->rows[index].kind;
    char what[WHAT_MAX];
    snprintf(what, sizeof what, "--%.*s", (int)bytes, name);
    if (kind == OOM_OPTION_PREFIX) text = argument;
    if (text == NULL && kinds[kind].metavar != NULL) OOM_TRY(option_value(parser, what, &text));
    return assign(parser, index, OOM_SOURCE_OPTION, what, text);
}

static enum oom_status parse_short(struct parser *parser, const char *argument) {
    int index = row_by_letter(parser->options, argument[1]);
    if (index < 0) return unknown(parser->options, argument);
    bool takes = kinds[parser->options->rows[index].kind].metavar != NULL;
    const char what[] = {'-', argument[1], 0};
    const char *text = argument[2] != 0 ? argument + 2 : NULL;
    if (text != NULL && !takes)
        return oom_fail(OOM_USAGE, "%s takes no value, and letters are not joined: \"%.60s\"", what,
                        argument);
    if (text != NULL && *text == '=') text++;
    if (text == NULL && takes) OOM_TRY(option_value(parser, what, &text));
    return assign(parser, index, OOM_SOURCE_OPTION, what, text);
}

static enum oom_status defaults_set(struct parser *parser) {
    for (int i = 0; i < parser->options->count; i++) {
        const struct oom_option *row = &parser->options->rows[i];
        char what[WHAT_MAX];
        if (is_list(row)) ((struct oom_option_list *)field_of(row, parser->destination))->count = 0;
        if (parser->sources != NULL) parser->sources[i] = OOM_SOURCE_DEFAULT;
        if (row->fallback == NULL) continue;
        snprintf(what, sizeof what, "default of --%.60s", row->name);
        OOM_TRY(assign(parser, i, OOM_SOURCE_DEFAULT, what, row->fallback));
    }
    return OOM_OK;
}

/* An empty variable counts as one that is not set. */
static enum oom_status environment_set(struct parser *parser) {
    for (int i = 0; i < parser->options->count; i++) {
        const struct oom_option *row = &parser->options->rows[i];
        const char *text = row->environment != NULL ? getenv(row->environment) : NULL;
        if (text == NULL || *text == 0) continue;
        OOM_TRY(assign(parser, i, OOM_SOURCE_ENVIRONMENT, row->environment, text));
    }
    return OOM_OK;
}

static enum oom_status arguments_set(struct parser *parser, const char **operands, int *count) {
    bool only_operands = false;
    for (*count = 0; parser->at < parser->argc; parser->at++) {
        const char *argument = parser->argv[parser->at];
        if (only_operands || argument[0] != '-' || argument[1] == 0) {
            operands[(*count)++] = argument;
        } else if (strcmp(argument, "--") == 0) {
            only_operands = true;
        } else {
            OOM_TRY(argument[1] == '-' ? parse_long(parser, argument)
                                       : parse_short(parser, argument));
        }
    }
    return OOM_OK;
}

enum oom_status oom_options_parse(const struct oom_options *options, int argc, char *const *argv,
                                  void *destination, const char **operands, int *operand_count,
                                  enum oom_option_source *sources) {
    struct parser parser = {options, argc, 0, argv, destination, sources};
    *operand_count = 0;
    OOM_TRY(defaults_set(&parser));
    OOM_TRY(environment_set(&parser));
    return arguments_set(&parser, operands, operand_count);
}

/* ---- help ---- */

static void append(char *out, size_t n, const char *format, const char *text) {
    size_t used = strlen(out);
    snprintf(out + used, n - used, format, text);
}

static void help_left(const struct oom_option *row, char *out, size_t n) {
    const char *metavar = row->metavar != NULL ? row->metavar : kinds[row->kind].metavar;
    const char letter[] = {row->letter, 0};
    out[0] = 0;
    append(out, n, row->letter != 0 ? "  -%s, " : "      ", letter);
    append(out, n, "--%s", row->name);
    if (metavar != NULL) append(out, n, row->kind == OOM_OPTION_PREFIX ? "%s" : " %s", metavar);
}

static void help_right(const struct oom_option *row, char *out, size_t n) {
    out[0] = 0;
    append(out, n, "%s", row->help);
    for (int i = 0; row->names != NULL && row->names[i] != NULL; i++) {
        const char *joint = i > 0                            ? ", %s"
                            : row->kind == OOM_OPTION_CHOICE ? " One of %s"
                                                             : " Also %s";
        append(out, n, joint, row->names[i]);
    }
    if (row->names != NULL) append(out, n, "%s", ".");
    if (row->fallback != NULL && row->fallback[0] != 0)
        append(out, n, " (default %s)", row->fallback);
    if (row->environment != NULL) append(out, n, " [%s]", row->environment);
}

void oom_options_help(const struct oom_options *options, FILE *out, int columns) {
    enum { LEFT_MAX = 30, GAP = 2 };
    char left[WHAT_MAX], right[1024];
    int width = 0;
    if (columns < 40) columns = 40;
    int limit = columns >= 64 ? LEFT_MAX : columns / 3;
    for (int i = 0; i < options->count; i++) {
        help_left(&options->rows[i], left, sizeof left);
        int own = oom_text_columns(left);
        if (options->rows[i].help != NULL && own <= limit && own > width) width = own;
    }
    int column = (width > 0 ? width : limit) + GAP;
    for (int i = 0; i < options->count; i++) {
        if (options->rows[i].help == NULL) continue;
        help_left(&options->rows[i], left, sizeof left);
        help_right(&options->rows[i], right, sizeof right);
        int own = oom_text_columns(left);
        bool beside = own + GAP <= column;
        fprintf(out, "%s%s%*s", left, beside ? "" : "\n", beside ? column - own : column, "");
        oom_text_wrap(out, right, column, column, columns);
    }
}
