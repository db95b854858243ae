/* report-pytorch.c: the text of PyTorch's own error, field by field, for those who compare. */
#include "harness/memory/internal.h"
#include "harness/memory/report-text.h"

static void pytorch_size(struct oom_text *text, const char *before, uint64_t bytes,
                         const char *after) {
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1024, "KiB"}, {1048576, "MiB"}, {1073741824, "GiB"}};
    int i = 0;
    if (bytes <= 1024) {
        oom_text_say(text, "%s%llu bytes%s", before, (unsigned long long)bytes, after);
        return;
    }
    while (i < 2 && (double)bytes > units[i + 1].unit) i++;
    oom_text_say(text, "%s%.2f %s%s", before, (double)bytes / units[i].unit, units[i].name, after);
}

static void pytorch_tail(struct oom_text *text, const struct oom_report *r,
                         enum oom_profile profile) {
    bool old = profile == OOM_PROFILE_PYTORCH_2_11;
    if (old || !r->settings.expandable_segments) {
        oom_text_say(text,
                     " If reserved but unallocated memory is large try setting "
                     "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
                     "fragmentation.  See documentation for Memory Management  (%s)",
                     old ? "https://pytorch.org/docs/stable/notes/cuda.html#environment-variables"
                         : "https://docs.pytorch.org/docs/stable/notes/cuda.html"
                           "#optimizing-memory-usage-with-pytorch-cuda-alloc-conf");
        return;
    }
    /* which options are named is PyTorch's, the sentence is not */
    uint64_t reserve = r->capacity + r->capacity / 8, asked = r->settings.expandable_reserve_bytes;
    double share = r->settings.expandable_reserve_fraction;
    if (asked == 0 && share > 0) {
        double bytes = share * (double)r->capacity;
        asked = bytes < (double)reserve ? (uint64_t)bytes : reserve;
    }
    if (asked > 0 && asked < reserve) reserve = asked;
    if (r->wanted <= r->capacity && r->wanted > reserve) {
        pytorch_size(text, " The expandable-segment reserve of ", reserve, " is smaller than the ");
        pytorch_size(text, "", r->wanted,
                     " asked for: see expandable_segments_reserve and "
                     "expandable_segments_reserve_by_class.");
        return;
    }
    oom_text_say(text, " Each segment reserves ~9/8 of device memory, times the number of streams: "
                       "see expandable_segments_reserve and "
                       "expandable_segments_reserve_by_class.");
}

int oom_report_pytorch_text(const struct oom_report *r, enum oom_profile profile, char *out,
                            size_t n) {
    static const uint64_t exa = (uint64_t)1 << 60;
    struct oom_text text = {out, n, 0};
    uint64_t in_private = r->private_cached, allocated = r->allocated + in_private;
    if (r->requested >= exa) {
        oom_text_say(&text, "CUDA out of memory. Tried to allocate more than 1EB memory.");
        return text.length;
    }
    if (r->rejected) {
        oom_text_say(&text, "CUDA out of memory. Allocation was preemptively rejected because it "
                            "would exceed per_process_memory_fraction limit. Requested size: ");
        pytorch_size(&text, "", r->requested, "");
        return text.length;
    }
    pytorch_size(&text, "CUDA out of memory. Tried to allocate ", r->wanted, ". GPU 0");
    pytorch_size(&text, " has a total capacity of ", r->capacity, " of which ");
    pytorch_size(&text, "", r->device_free, " is free. ");
    if (r->limit != OOM_NO_LIMIT) pytorch_size(&text, "", r->limit, " allowed; ");
    pytorch_size(&text, "Of the allocated memory ", allocated, " is allocated by PyTorch, ");
    if (in_private > 0) {
        pytorch_size(&text, "with ", in_private,
                     " allocated in private pools (e.g., CUDA Graphs), ");
    }
    pytorch_size(&text, "and ", r->reserved > allocated ? r->reserved - allocated : 0,
                 " is reserved by PyTorch but unallocated.");
    pytorch_tail(&text, r, profile);
    return text.length;
}
