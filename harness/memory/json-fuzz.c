/* Our own traces and results files, of any bytes: refused with a message, or read, written and read
 * again without a difference. */
#include "harness/base/fuzz.h"
#include "harness/memory/snapshot-fuzzing.h"
#include "harness/memory/snapshot-parts.h"

oom_fuzz_target json_fuzz;

int json_fuzz(const uint8_t *data, size_t n) {
    struct oom_snapshot snapshot = {0};
    uint64_t before = oom_host_bytes_current();
    oom_failure_clear();
    oom_host_peak_reset();
    enum oom_status status = oom_snapshot_parse_json("fuzz", data, n, "", &snapshot);
    return fuzz_judge("json", status, n, before, &snapshot);
}
