#include "harness/memory/pickle.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <string.h>

void pickle_test(void);

static struct oom_pickle p;

static enum oom_status parse(const void *bytes, size_t n) {
    oom_failure_clear();
    return oom_pickle_parse(&p, "test", bytes, n, NULL, 0, NULL, NULL);
}

/* The bytes are a string literal: its length is known. */
#define PARSE(text) parse((text), sizeof(text) - 1)

static const struct oom_pickle_value *item(uint64_t i) {
    return &oom_pickle_items(&p, oom_pickle_object(&p, &p.root))[i];
}

static bool said(const char *text) {
    return strstr(oom_failure_last()->message, text) != NULL;
}

/* Bytes as Python's own pickle writes them, or by its documented opcodes. */
static void values(void) {
    TEST("pickle: every kind of value");
    CHECK_OK(PARSE("\x80\x02](K\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x00\x8a\x01\x80\x8a\x09\xff\xff"
                   "\xff\xff\xff\xff\xff\xff\x00NG\x3f\xf8\x00\x00\x00\x00\x00\x00\x88\x89"
                   "X\x02\x00\x00\x00hi\x8c\x01x\x8d\x01\x00\x00\x00\x00\x00\x00\x00y"
                   ")K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87(K\x01t(K\x05K\x06"
                   "d(K\x07le."));
    CHECK_EQ(oom_pickle_object(&p, &p.root)->count, 20);
    static const int64_t integers[] = {255, 65535, -1, 0, -128};
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(item((uint64_t)i)->kind, OOM_PICKLE_INT);
        CHECK_EQ(item((uint64_t)i)->i, integers[i]);
    }
    CHECK(item(5)->kind == OOM_PICKLE_UINT && item(5)->u == UINT64_MAX);
    CHECK_EQ(item(6)->kind, OOM_PICKLE_NONE);
    CHECK(item(7)->kind == OOM_PICKLE_FLOAT && item(7)->number == 1.5);
    CHECK(item(8)->kind == OOM_PICKLE_BOOL && item(8)->i == 1 && item(9)->i == 0);
    CHECK(item(10)->length == 2 && memcmp(oom_pickle_text(&p, item(10)), "hi", 2) == 0);
    CHECK(*oom_pickle_text(&p, item(11)) == 'x' && *oom_pickle_text(&p, item(12)) == 'y');
    CHECK_EQ(oom_pickle_object(&p, item(13))->count, 0);
    CHECK_EQ(oom_pickle_object(&p, item(14))->count, 1);
    CHECK(item(15)->kind == OOM_PICKLE_PAIR && item(15)->u == (UINT64_C(1) << 32 | 2));
    CHECK_EQ(oom_pickle_object(&p, item(16))->count, 3);
    CHECK_EQ(oom_pickle_object(&p, item(17))->count, 1);
    CHECK_EQ(item(18)->kind, OOM_PICKLE_DICT);
    CHECK_EQ(oom_pickle_items(&p, oom_pickle_object(&p, item(18)))[1].i, 6);
    CHECK_EQ(item(19)->kind, OOM_PICKLE_LIST);
    oom_pickle_free(&p);
}

static void integers(void) {
    TEST("pickle: integers beyond 64 bits are kept apart from those within");
    static const struct {
        const char *bytes;
        int n, kind;
    } cases[] = {
        {"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80", 10, OOM_PICKLE_INT},
        {"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", 10, OOM_PICKLE_INT},
        {"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00", 11, OOM_PICKLE_UINT},
        {"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01", 11, OOM_PICKLE_BIG},
        {"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff", 11, OOM_PICKLE_BIG},
        {"\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x00\x00", 11, OOM_PICKLE_INT},
        {"\x8a\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", 12, OOM_PICKLE_BIG},
        {"\x8a\x0a\x00\x00\x00\x00\x00\x00\x00\x00\xff\x00", 12, OOM_PICKLE_BIG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[32] = "\x80\x04";
        memcpy(bytes + 2, cases[i].bytes, (size_t)cases[i].n);
        bytes[2 + cases[i].n] = '.';
        CHECK_OK(parse(bytes, (size_t)cases[i].n + 3));
        CHECK_EQ(p.root.kind, cases[i].kind);
        oom_pickle_free(&p);
    }
}

static void refused(void) {
    TEST("pickle: opcodes that call, unknown ones and malformed ones are refused, with the place");
    static const struct {
        const char *bytes;
        int n;
        const char *message;
    } cases[] = {
        {"\x80\x02"
         "cos\nsystem\n.",
         14, "byte 2: the opcode GLOBAL"},
        {"\x80\x04N\x93.", 5, "byte 3: the opcode STACK_GLOBAL"},
        {"\x80\x02NR.", 5, "REDUCE"},
        {"\x80\x02Nb.", 5, "BUILD"},
        {"\x80\x02i.", 4, "INST"},
        {"\x80\x02o.", 4, "OBJ"},
        {"\x80\x02\x81.", 4, "NEWOBJ"},
        {"\x80\x02\x92.", 4, "NEWOBJ_EX"},
        {"\x80\x02\x82\x01.", 5, "EXT1"},
        {"\x80\x02\x83\x01.", 5, "EXT2"},
        {"\x80\x02\x84\x01.", 5, "EXT4"},
        {"\x80\x02P.", 4, "PERSID"},
        {"\x80\x02Q.", 4, "BINPERSID"},
        {"\x80\x02U\x01x.", 6, "SHORT_BINSTRING"},
        {"\x80\x02\x01.", 4, "0x01 is no opcode"},
        {"\x80\x06N.", 4, "protocol 6"},
        {"\x80\x01N.", 4, "protocol 1"},
        {"N.", 2, "PROTO"},
        {"\x80\x02\x80\x02N.", 6, "PROTO may only"},
        {"\x80\x02.", 3, "STOP with 0 values"},
        {"\x80\x02NN.", 5, "STOP with 2 values"},
        {"\x80\x02(N.", 5, "MARK is still open"},
        {"\x80\x02N.\0\0\0\0", 8, "after the end"},
        {"\x80\x02N.x", 5, "after the end"},
        {"\x80\x02Na.", 5, "fewer values"},
        {"\x80\x02NNa.", 6, "no list"},
        {"\x80\x02]NNs.", 7, "no dict"},
        {"\x80\x02](N(a.", 8, "fewer values"},
        {"\x80\x02}(Nu.", 7, "a key without"},
        {"\x80\x02}]Ns.", 7, "a list or dict as a key"},
        {"\x80\x02u.", 4, "needs a MARK"},
        {"\x80\x02h\x00.", 5, "not written"},
        {"\x80\x02Nr\xff\xff\xff\xff.", 9, "beyond what the file can hold"},
        {"\x80\x02q\x00.", 5, "nothing on the stack"},
        {"\x80\x02X\xff\xff\xff\x7fhi.", 10, "2147483647 bytes, and 3"},
        {"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", 12, "18446744073709551615 bytes"},
        {"\x80\x02\x8a\x05"
         "ab.",
         7, "ends within an integer"},
        {"\x80\x04\x95\x05\0\0\0\0\0\0\0N.", 13, "a FRAME of 5 bytes, and 2"},
        {"\x80\x04\x95\x02\0\0\0\0\0\0\0M\x01\x02.", 15, "FRAME ends within an opcode"},
        {"\x80\x04\x95\x0c\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N..", 23, "a FRAME within"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_EQ(parse(cases[i].bytes, (size_t)cases[i].n), OOM_USAGE);
        CHECK_MSG(said(cases[i].message), "case %zu: %s", i, oom_failure_last()->message);
    }
}

/* What is left out of the file is still behind it: reading on would find it. */
static void truncated(void) {
    static const char whole[] =
        "\x80\x04}\x94(\x8c\x01"
        "aK\x01X\x01\0\0\0bM\x01\x02\x8c\x01"
        "cG\0\0\0\0\0\0\0\0\x8c\x01"
        "d\x8a\x05\x01\x02\x03\x04\x05\x8d\x04\0\0\0\0\0\0\0wxyz]\x94(K\x01K\x02"
        "eu.";
    TEST("pickle: cut anywhere it is refused for its end");
    CHECK_OK(parse(whole, sizeof whole - 1));
    oom_pickle_free(&p);
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        CHECK_EQ(parse(whole, n), OOM_USAGE);
        CHECK_MSG(said(n < 2 ? "PROTO" : "the file ends") || said("are left"), "%zu: %s", n,
                  oom_failure_last()->message);
    }
}

static void nesting(void) {
    static char bytes[2048];
    TEST("pickle: 64 levels are read, 65 are not, whatever nests them");
    for (int levels = 64; levels <= 65; levels++) {
        memcpy(bytes, "\x80\x02", 2);
        memset(bytes + 2, ']', (size_t)levels);
        memset(bytes + 2 + levels, 'a', (size_t)levels - 1);
        bytes[1 + 2 * levels] = '.';
        CHECK_EQ(parse(bytes, 2 + 2 * (size_t)levels), levels == 64 ? OOM_OK : OOM_USAGE);
        oom_pickle_free(&p);
        memset(bytes + 2, ')', 1);
        memset(bytes + 3, '\x85', (size_t)levels - 1);
        bytes[2 + levels] = '.';
        CHECK_EQ(parse(bytes, 3 + (size_t)levels), levels == 64 ? OOM_OK : OOM_USAGE);
        oom_pickle_free(&p);
    }
    memset(bytes + 2, '(', 65);
    CHECK_EQ(parse(bytes, 2000), OOM_USAGE);
    CHECK(said("marks nested"));
}

static void cycles(void) {
    char bytes[400] = "\x80\x04]\x94";
    size_t n = 4;
    TEST("pickle: a list within itself is harmless, however often");
    for (int i = 0; i < 100; i++, n += 3)
        memcpy(bytes + n,
               "h\x00"
               "a",
               3);
    bytes[n++] = '.';
    CHECK_OK(parse(bytes, n));
    CHECK_EQ(oom_pickle_object(&p, &p.root)->count, 100);
    CHECK(item(0)->u == p.root.u);
    oom_pickle_free(&p);
}

static void bounded(void) {
    enum { BYTES = 1 << 18 };
    static char bytes[BYTES];
    static const char *const fillings[] = {"]", "}",     ")",     "N",
                                           "(", "h\x00", "]\x94", "h\x00h\x00\x61"};
    TEST("pickle: memory stays in proportion to the file, whatever fills it");
    for (size_t i = 0; i < sizeof fillings / sizeof *fillings; i++) {
        size_t width = strlen(fillings[i]) + (strchr(fillings[i], 'h') != NULL ? 1 : 0);
        if (i == 7) width = 5;
        memcpy(bytes, "\x80\x04]\x94", 4);
        for (size_t at = 4; at + width < BYTES; at += width) memcpy(bytes + at, fillings[i], width);
        uint64_t before = oom_host_bytes_current();
        oom_host_peak_reset();
        CHECK_EQ(parse(bytes, BYTES), OOM_USAGE);
        CHECK(oom_host_bytes_peak() - before <= (uint64_t)200 * BYTES);
        CHECK_EQ(oom_host_bytes_current(), before);
    }
}

static enum oom_status take_pairs(void *context, struct oom_pickle *pickle,
                                  struct oom_pickle_object *object,
                                  const struct oom_pickle_value *items, uint64_t count) {
    (void)pickle;
    if (object->kind != OOM_PICKLE_DICT || count != 2 || items[0].word != 2) return OOM_OK;
    object->taken = 1;
    object->first = (uint64_t)items[1].i;
    ++*(int *)context;
    return OOM_OK;
}

static void batches(void) {
    static const char *const words[] = {"b", "a"};
    static const char bytes[] = "\x80\x02]}X\x01\0\0\0aK\x05sa}X\x01\0\0\0bK\x06sa.";
    int taken = 0;
    TEST("pickle: what the client takes is not kept; words are known by number");
    CHECK_OK(oom_pickle_parse(&p, "test", bytes, sizeof bytes - 1, words, 2, take_pairs, &taken));
    CHECK_EQ(taken, 1);
    CHECK_EQ(oom_pickle_object(&p, item(0))->taken, 1);
    CHECK_EQ(oom_pickle_object(&p, item(0))->first, 5);
    CHECK_EQ(oom_pickle_object(&p, item(0))->count, 0);
    CHECK_EQ(oom_pickle_object(&p, item(1))->count, 2);
    oom_pickle_free(&p);
}

static void no_memory(void) {
    static const char bytes[] = "\x80\x04]\x94(K\x01}\x94\x8c\x01xK\x01sK\x01\x85"
                                "e.";
    TEST("pickle: without host memory it says so and leaves nothing");
    uint64_t before = oom_host_bytes_current();
    int refusals = 0;
    for (uint64_t n = 1; n < 20; n++) {
        oom_host_fail_at(n);
        enum oom_status status = parse(bytes, sizeof bytes - 1);
        oom_host_fail_at(0);
        if (status == OOM_OK) break;
        CHECK_EQ(status, OOM_HOST_NOMEM);
        CHECK_EQ(oom_host_bytes_current(), before);
        refusals++;
    }
    CHECK(refusals >= 4);
    oom_pickle_free(&p);
}

void pickle_test(void) {
    values();
    integers();
    refused();
    truncated();
    nesting();
    cycles();
    bounded();
    batches();
    no_memory();
}
