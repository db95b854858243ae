#include "harness/cli/cli.h"

#include "harness/base/nearest.h"
#include "harness/base/text.h"
#include "harness/cli/capabilities.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const struct oom_verb oom_verbs[] = {
    {"run", "[GLOB...]", "reproduce and verify (default: all)", oom_verb_run},
    {"list", "[GLOB...]", "scenarios, mitigations, controls, models, devices", oom_verb_list},
    {"explain", "NAME", "the lesson of a scenario, with the numbers of this capacity",
     oom_verb_explain},
    {"plan", "MODEL", "bytes needed, largest batch that fits; no device needed", oom_verb_plan},
    {"replay", "TRACE", "a recorded run under other settings: where it would OOM, the least card",
     oom_verb_replay},
    {"bench", "[GLOB...]", "measurements, beside others' where they are there", oom_verb_bench},
    {"grad", "--out FILE", "gradients of a given model, weights and batch (safetensors in and out)",
     oom_verb_grad},
    {"scenario", "NAME", NULL, oom_verb_scenario},
    {"step", "DIRECTORY", NULL, oom_verb_step},
    {0},
};

/* By its own name where that can be had: under valgrind /proc/self/exe is valgrind's tool when it
 * is executed, and ours when it is read. */
const char *oom_self(void) {
    static char path[PATH_MAX];
    static const char link[] = "/proc/self/exe";
    if (path[0] != 0) return path;
    ssize_t n = readlink(link, path, sizeof path - 1);
    bool there = n > 0 && access(path, X_OK) == 0; /* the file may have been replaced or removed */
    if (!there) snprintf(path, sizeof path, "%s", link);
    return path;
}

int oom_exit_for(enum oom_status status, const char *what) {
    const struct oom_failure *failure = oom_failure_last();
    const char *message = failure->status != OOM_OK ? failure->message : oom_status_text(status);
    char shown[4 * sizeof failure->message]; /* a message may quote a file, or an argument */
    fprintf(stderr, "oombench %s: %s\n", what,
            oom_text_show(message, strlen(message), shown, sizeof shown));
    if (status == OOM_USAGE) return OOM_EXIT_USAGE;
    if (status == OOM_NOTHING || status == OOM_ABSENT) return OOM_EXIT_NOTHING;
    return OOM_EXIT_HARNESS;
}

static int help(FILE *out) {
    fprintf(out,
            "oombench: makes GPU out-of-memory happen on purpose, and proves what cures it\n\n");
    for (const struct oom_verb *verb = oom_verbs; verb->name != NULL; verb++) {
        if (verb->summary == NULL) continue;
        fprintf(out, "  oombench %-8s %-10s  %s\n", verb->name, verb->operands, verb->summary);
    }
    fprintf(out, "\n`oombench VERB --help` lists a verb's options.\n");
    return OOM_EXIT_OK;
}

static int unknown(const char *name) {
    const char *known[16];
    int count = 0;
    for (const struct oom_verb *verb = oom_verbs; verb->name != NULL; verb++) {
        if (verb->summary != NULL) known[count++] = verb->name;
    }
    const char *near = oom_nearest_name(name, known, count);
    char shown[128];
    fprintf(stderr, "oombench: unknown verb '%s'%s%s%s; `oombench --help` lists them\n",
            oom_text_show(name, strlen(name), shown, sizeof shown),
            near != NULL ? ", nearest is '" : "", near != NULL ? near : "",
            near != NULL ? "'" : "");
    return OOM_EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        help(stderr);
        return OOM_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return help(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("oombench %s (%s)\n", oom_version(), oom_commit());
        oom_capabilities_print(stdout, oom_locale_is_utf8());
        return OOM_EXIT_OK;
    }
    for (const struct oom_verb *verb = oom_verbs; verb->name != NULL; verb++) {
        if (strcmp(argv[1], verb->name) == 0) return verb->main(argc - 2, argv + 2);
    }
    return unknown(argv[1]);
}
