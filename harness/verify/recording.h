/*
 * recording.h: what the allocator of a job held and remembered when the job ended, as a snapshot
 * in the job's directory: to be replayed, and to be handed to people.
 *
 * Functions borrow everything. A snapshot that cannot be written or read is the harness's failure.
 */
#ifndef OOM_HARNESS_VERIFY_RECORDING_H
#define OOM_HARNESS_VERIFY_RECORDING_H

#include "harness/verify/court.h"

/* Writes <directory>/snapshot.pickle. */
enum oom_status oom_recording_write(const struct oom_job *job,
                                    const struct oom_allocator *allocator);

/* Is the recording of a run that failed, given to replay, decided alike to the last event, and does
 * it fail at the same allocation on a card of the same size? *wrong becomes NULL, or `why`. */
enum oom_status oom_recording_judge(const struct oom_hearing *failed, const char **wrong, char *why,
                                    size_t n);

/* Copies it to where people want it: files appear whole or not at all. */
enum oom_status oom_recording_export(const struct oom_hearing *hearing,
                                     const struct oom_exports *exports);

#endif
