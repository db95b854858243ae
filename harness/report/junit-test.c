#include "harness/report/sample-records.h"

#include "harness/base/text.h"

#include <ctype.h>

void junit_test(void);

/* A small reader: elements nest, attributes are quoted, characters and references are XML's. */
struct xml {
    const char *at;
    char stack[16][32];
    int depth, elements;
};

static bool characters(struct xml *xml, char end) {
    for (; *xml->at != end; xml->at++) {
        unsigned char c = (unsigned char)*xml->at;
        if (c == 0 || c == '<') return false;
        if (c < 0x20 && c != '\n' && c != '\t') return false;
        if (c >= 0x80) {
            int length = oom_utf8_length(xml->at, strlen(xml->at));
            if (length == 0) return false;
            xml->at += length - 1;
        }
        if (c != '&') continue;
        static const char *const known[] = {"&amp;",  "&lt;",  "&gt;", "&quot;",
                                            "&apos;", "&#10;", "&#9;"};
        bool good = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            good |= strncmp(xml->at, known[i], strlen(known[i])) == 0;
        if (!good) return false;
    }
    return true;
}

static bool name(struct xml *xml, char *out, size_t room) {
    size_t n = 0;
    while ((isalpha((unsigned char)*xml->at) || *xml->at == '-') && n + 1 < room)
        out[n++] = *xml->at++;
    out[n] = 0;
    return n > 0;
}

static bool tag(struct xml *xml) {
    char text[32];
    xml->at++;
    if (*xml->at == '/') {
        xml->at++;
        return name(xml, text, sizeof text) && *xml->at++ == '>' && xml->depth > 0 &&
               strcmp(xml->stack[--xml->depth], text) == 0;
    }
    if (xml->depth == 16 || !name(xml, xml->stack[xml->depth], 32)) return false;
    xml->elements++;
    while (*xml->at == ' ') {
        xml->at++;
        if (!name(xml, text, sizeof text) || *xml->at++ != '=' || *xml->at++ != '"') return false;
        if (!characters(xml, '"')) return false;
        xml->at++;
    }
    bool empty = *xml->at == '/';
    xml->at += empty;
    xml->depth += !empty;
    return *xml->at++ == '>';
}

static bool is_well_formed(const char *text, int *elements) {
    static const char head[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    struct xml xml = {.at = text + sizeof head - 1};
    if (strncmp(text, head, sizeof head - 1) != 0) return false;
    do {
        if (!tag(&xml)) return false;
        if (xml.depth > 0 && !characters(&xml, '<')) return false;
    } while (xml.depth > 0);
    *elements = xml.elements;
    return strcmp(xml.at, "\n") == 0;
}

void junit_test(void) {
    const struct oom_report_paths paths = {.format = OOM_FORMAT_JUNIT};
    int elements = 0;
    TEST("junit: the reader of this test refuses what is no XML");
    CHECK(
        !is_well_formed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a><b></a></b>\n", &elements));
    CHECK(!is_well_formed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>&</a>\n", &elements));
    CHECK(!is_well_formed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"\x01\"/>\n",
                          &elements));
    TEST("junit: every sort of record");
    char *text = oom_sample_capture(&paths, 0, OOM_SAMPLE_COUNT);
    if (text == NULL) return;
    CHECK(is_well_formed(text, &elements));
    /* testsuites, 3 suites with properties of 3, 11 cases, 7 with an outcome, one unequal */
    CHECK_EQ(elements, 1 + 3 * 5 + 11 + 7 + 1);
    CHECK(strstr(text, "<testsuites name=\"oombench\" tests=\"11\" failures=\"4\" errors=\"2\"") !=
          NULL);
    CHECK(strstr(text, "<testsuite name=\"large_batch\" tests=\"4\" failures=\"2\" errors=\"0\" "
                       "skipped=\"0\" time=\"5.000\"") != NULL);
    CHECK(strstr(text, "<testcase classname=\"large_batch.halving\" name=\"gpt/f32\" "
                       "time=\"1.250\"/>") != NULL);
    CHECK(strstr(text, "<skipped message=\"absent: # TODO it&apos;s") != NULL);
    CHECK(strstr(text, "<error message=\"killed by SIGSEGV\" type=\"error\">") != NULL);
    CHECK(strstr(text, "type=\"timeout\"") != NULL);
    const char *output = strstr(text, "<system-out>");
    CHECK(output != NULL && strstr(output + 1, "<system-out>") == NULL);
    CHECK(strstr(text, "grad_match: false: not equal, as it must be: 0.2 # of ||g||\n") > output);
    oom_host_free(text);
    TEST("junit: nothing selected is still a document");
    text = oom_sample_capture(&paths, 0, 0);
    CHECK(text != NULL && is_well_formed(text, &elements));
    oom_host_free(text);
}
