/* Stands in for the planner until it is here. */
#include "harness/train/checkpoint-plan.h"
enum oom_status __attribute__((weak)) oom_checkpoint_chain_check(const struct oom_checkpoint_chain *chain) {
    (void)chain;
    return OOM_OK;
}
enum oom_status __attribute__((weak)) oom_checkpoint_budget(const struct oom_checkpoint_chain *chain, uint64_t bytes, struct oom_checkpoint_schedule *out) {
    (void)bytes;
    return oom_checkpoint_none(chain, out);
}
enum oom_status __attribute__((weak)) oom_checkpoint_minimum(const struct oom_checkpoint_chain *chain, uint64_t *bytes) {
    (void)chain;
    *bytes = 1;
    return OOM_OK;
}
enum oom_status __attribute__((weak)) oom_checkpoint_simulate(const struct oom_checkpoint_chain *chain, const struct oom_checkpoint_schedule *schedule, struct oom_checkpoint_outcome *out) {
    (void)chain;
    (void)schedule;
    *out = (struct oom_checkpoint_outcome){.peak = 1};
    return OOM_OK;
}
