/* What messages about pickles say: the names of opcodes that are not read, and values. */
#include "harness/memory/pickle.h"

#include "harness/base/text.h"

#include <inttypes.h>
#include <stdio.h>

/* Opcodes that name a class or call something: the reason why Python's own reader is unsafe. */
static const char *const calling_names[256] = {
    ['c'] = "GLOBAL",   [0x93] = "STACK_GLOBAL", ['R'] = "REDUCE",  ['b'] = "BUILD",
    ['i'] = "INST",     ['o'] = "OBJ",           [0x81] = "NEWOBJ", [0x92] = "NEWOBJ_EX",
    [0x82] = "EXT1",    [0x83] = "EXT2",         [0x84] = "EXT4",   ['P'] = "PERSID",
    ['Q'] = "BINPERSID"};

static const char *const other_names[256] = {['0'] = "POP",
                                             ['1'] = "POP_MARK",
                                             ['2'] = "DUP",
                                             ['F'] = "FLOAT",
                                             ['I'] = "INT",
                                             ['L'] = "LONG",
                                             ['S'] = "STRING",
                                             ['T'] = "BINSTRING",
                                             ['U'] = "SHORT_BINSTRING",
                                             ['V'] = "UNICODE",
                                             ['g'] = "GET",
                                             ['p'] = "PUT",
                                             ['B'] = "BINBYTES",
                                             ['C'] = "SHORT_BINBYTES",
                                             [0x8b] = "LONG4",
                                             [0x8e] = "BINBYTES8",
                                             [0x8f] = "EMPTY_SET",
                                             [0x90] = "ADDITEMS",
                                             [0x91] = "FROZENSET",
                                             [0x96] = "BYTEARRAY8",
                                             [0x97] = "NEXT_BUFFER",
                                             [0x98] = "READONLY_BUFFER"};

const char *oom_pickle_opcode_name(uint8_t opcode, bool *calls) {
    *calls = calling_names[opcode] != NULL;
    return *calls ? calling_names[opcode] : other_names[opcode];
}

enum { SHOWN = 40 }; /* bytes of a text */

const char *oom_pickle_describe(const struct oom_pickle *pickle,
                                const struct oom_pickle_value *value, char *out, size_t n) {
    static const char *const names[] = {
        [OOM_PICKLE_UNSET] = "nothing", [OOM_PICKLE_NONE] = "None",
        [OOM_PICKLE_FLOAT] = "a float", [OOM_PICKLE_PAIR] = "a tuple",
        [OOM_PICKLE_TUPLE] = "a tuple", [OOM_PICKLE_LIST] = "a list",
        [OOM_PICKLE_DICT] = "a dict",   [OOM_PICKLE_BIG] = "an integer beyond 64 bits"};
    char text[4 * SHOWN + 1];
    switch ((enum oom_pickle_kind)value->kind) {
    case OOM_PICKLE_BOOL:
        snprintf(out, n, "%s", value->i != 0 ? "True" : "False");
        break;
    case OOM_PICKLE_INT:
        snprintf(out, n, "%" PRId64, value->i);
        break;
    case OOM_PICKLE_UINT:
        snprintf(out, n, "%" PRIu64, value->u);
        break;
    case OOM_PICKLE_TEXT:
        snprintf(out, n, "'%s'",
                 oom_text_show(oom_pickle_text(pickle, value),
                               value->length < SHOWN ? value->length : SHOWN, text, sizeof text));
        break;
    default:
        snprintf(out, n, "%s", names[value->kind]);
        break;
    }
    return out;
}
