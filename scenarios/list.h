/*
 * list.h: the registry: one line a scenario, in the order they run. Each has <name>.c and its
 * lesson <name>.md, with dashes for underscores.
 */
/* name, file of the lesson */
#define OOM_SCENARIO_MAP(X) \
    X(large_batch, "scenarios/large-batch.md") \
    X(stale_cache, "scenarios/stale-cache.md") \
    X(accumulation, "scenarios/accumulation.md") \
    X(precision, "scenarios/precision.md") \
    X(checkpointing, "scenarios/checkpointing.md") \
    X(fragmentation, "scenarios/fragmentation.md")
