#include "harness/memory/snapshot.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void snapshot_rmm_test(void);

static struct oom_snapshot s;

static enum oom_status parse(const char *text) {
    oom_failure_clear();
    return oom_snapshot_parse("log", text, strlen(text), NULL, &s);
}

#define HEADER "Thread,Time,Action,Pointer,Size,Stream\n"
#define FIRST "1,10:00:00.000001,allocate,0x100,1024,0x0\n"

static void usual(void) {
    TEST("rmm: allocations, frees and failures become events");
    CHECK_OK(parse(HEADER FIRST "2,10:00:01:000005,allocate,0x200,77,0x55\n\r\n"
                                "1,10:00:02.5,free,0x100,1024,0x0\n"
                                "1,10:00:03,allocate failure,(nil),99999999999,0x0"));
    CHECK_EQ(s.kind, OOM_SNAPSHOT_KIND_RMM);
    CHECK(s.device_count == 1 && s.segment_count == 0 && s.event_count == 5);
    static const uint8_t actions[] = {OOM_ACTION_ALLOC, OOM_ACTION_ALLOC, OOM_ACTION_FREE_REQUESTED,
                                      OOM_ACTION_FREE_COMPLETED, OOM_ACTION_OOM};
    static const uint64_t bytes[] = {1024, 77, 1024, 1024, 99999999999};
    static const uint64_t times[] = {1, 1000005, 2500000, 2500000, 3000000};
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(s.events[i].action, actions[i]);
        CHECK_EQ(s.events[i].bytes, bytes[i]);
        CHECK_EQ(s.events[i].time_us, UINT64_C(36000000000) + times[i]);
    }
    CHECK(s.events[0].address == 0x100 && s.events[1].stream == 0x55 && s.events[4].address == 0);
    oom_snapshot_free(&s);
}

static void columns(void) {
    TEST("rmm: columns in any order, a line end of Windows, midnight, a pointer used twice");
    CHECK_OK(parse("Stream,Size, Pointer ,Action,Time,More\r\n"
                   "0x0,5,0x200,allocate,23:59:59.999999,x\r\n"
                   "0x0,5,0x200,free,00:00:00.000001,x\r\n"
                   "0x0,6,0x200,allocate,00:00:00.000002,x\r\n"));
    CHECK_EQ(s.event_count, 4);
    CHECK_EQ(s.events[1].time_us - s.events[0].time_us, 2);
    CHECK_EQ(s.events[3].bytes, 6);
    oom_snapshot_free(&s);
    CHECK_OK(parse(HEADER "1,10:00:00,allocate,0x0,0,0x0\n1,10:00:00,free,(nil),0,0x0\n"));
    CHECK_EQ(s.event_count, 0);
    oom_snapshot_free(&s);
}

static void mistakes(void) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"Thread,Time,Action,Pointer,Stream\n", "line 1: no column is named Size"},
        {"Time,Time,Action,Pointer,Size,Stream\n", "line 1: two columns are named Time"},
        {HEADER "1,10:00:00.0,allocate,0x100\n", "line 2: 4 columns; Size is column 5"},
        {HEADER "1,10:00:00.0,allocate,zero,1,0x0\n", "line 2: column 4 (Pointer) is 'zero'"},
        {HEADER "1,10:00:00.0,allocate,0x1,-1,0x0\n", "line 2: column 5 (Size) is '-1'"},
        {HEADER "1,10:00:00.0,allocate,0x1,1e3,0x0\n", "column 5 (Size) is '1e3'"},
        {HEADER "1,10:00:00.0,allocate,0x10000000000000000,1,0x0\n", "column 4 (Pointer)"},
        {HEADER "1,10:00:00.0,allocate,0x1,18446744073709551616,0x0\n", "column 5 (Size)"},
        {HEADER "1,10:60:00.0,allocate,0x1,1,0x0\n", "column 2 (Time) is '10:60:00.0'"},
        {HEADER "1,10:00,allocate,0x1,1,0x0\n", "column 2 (Time)"},
        {HEADER "1,10:00:00.,allocate,0x1,1,0x0\n", "column 2 (Time)"},
        {HEADER "1,10:00:00,resize,0x1,1,0x0\n", "column 3 (Action) is 'resize'"},
        {HEADER "1,10:00:00,\033[2J,0x1,1,0x0\n", "column 3 (Action) is '\\x1b[2J'"},
        {HEADER "1,10:00:00,allocate,0x1,1,\n", "column 6 (Stream) is ''"},
        {HEADER FIRST "1,10:00:01,free,0x101,1024,0x0\n",
         "line 3: column 4 (Pointer) is '0x101'; a "
         "pointer that is allocated"},
        {HEADER FIRST FIRST, "line 3: column 4 (Pointer) is '0x100'; a pointer that is not"},
        {HEADER FIRST "1,10:00:01,free,0x100,1000,0x0\n", "line 3: column 5 (Size) is '1000'"},
    };
    TEST("rmm: mistakes are refused with line and column");
    uint64_t before = oom_host_bytes_current();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_EQ(parse(cases[i].text), OOM_USAGE);
        const char *message = oom_failure_last()->message;
        CHECK_MSG(strstr(message, cases[i].message) != NULL, "%s", message);
    }
    CHECK_EQ(oom_host_bytes_current(), before);
    oom_failure_clear();
}

void snapshot_rmm_test(void) {
    usual();
    columns();
    mistakes();
}
