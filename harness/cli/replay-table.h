/*
 * replay-table.h: the answers of `oombench replay`: a row for each setting
 * asked about.
 *
 * A table owns its rows until oom_replay_table_free; zero-initialised is empty.
 * Failures are those of replay.h; settings that cannot be parsed are OOM_USAGE.
 */
#ifndef OOM_HARNESS_CLI_REPLAY_TABLE_H
#define OOM_HARNESS_CLI_REPLAY_TABLE_H

#include "harness/base/json-write.h"
#include "harness/memory/replay.h"

enum { OOM_REPLAY_CAPACITIES_MAX = 32, OOM_REPLAY_ROWS_MAX = 96 };

struct oom_replay_row {
    char name[OOM_CONF_MAX];           /* "recorded", "default", or the settings string */
    uint64_t least;                    /* bytes; 0: no card is enough */
    struct oom_replay_outcome endless; /* on a card without end */
    struct oom_replay_outcome at[OOM_REPLAY_CAPACITIES_MAX];
};

struct oom_replay_table {
    const struct oom_snapshot *snapshot;
    struct oom_replay_options options; /* of the recording; settings are the rows' */
    uint64_t events;                   /* of the device asked about */
    uint64_t capacities[OOM_REPLAY_CAPACITIES_MAX];
    int capacity_count;
    struct oom_replay_row *rows;
    int row_count;
};

/* conf NULL: as recorded. */
enum oom_status oom_replay_table_add(struct oom_replay_table *table, const char *name,
                                     const char *conf);
void oom_replay_table_free(struct oom_replay_table *table);

void oom_replay_table_print(const struct oom_replay_table *table, int columns);
/* One line: what the settings make of the card needed. */
void oom_replay_table_conclude(const struct oom_replay_table *table, int columns);
void oom_replay_table_json(const struct oom_replay_table *table, struct oom_json_writer *json);

#endif
