#include "harness/base/safetensors-testing.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void safetensors_write_test(void);

static char directory[PATH_MAX - 64], path[PATH_MAX];

static int files_in_directory(void) {
    char command[PATH_MAX + 64], answer[32] = "";
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", directory);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL) return -1;
    bool got = fgets(answer, sizeof answer, pipe) != NULL;
    pclose(pipe);
    return got ? atoi(answer) : -1;
}

static void check_file(const char *expected, size_t bytes) {
    char *text = NULL;
    size_t n = 0;
    CHECK_OK(oom_file_read(path, 1 << 20, &text, &n));
    CHECK_EQ(n, bytes);
    CHECK(n == bytes && memcmp(text, expected, n) == 0);
    oom_host_free(text);
}

static void writes(void) {
    struct oom_safetensors_writer writer;
    struct oom_safetensors file;
    struct image image = image_raw(recorded, sizeof recorded - 1);
    static const float values[] = {0, 1, 2, 3, 4, 5};
    TEST("safetensors: writes, in pieces, the bytes that the Python package wrote");
    CHECK_OK(oom_safetensors_writer_open(&writer, path));
    CHECK_OK(oom_safetensors_writer_tensor(&writer, "attn.0", OOM_F32, 3, (int64_t[]){1, 2, 3}));
    for (int i = 0; i < 6; i++)
        CHECK_OK(oom_safetensors_writer_data(&writer, "attn.0", &values[i], 4));
    CHECK(access(path, F_OK) != 0);
    CHECK_OK(oom_safetensors_writer_commit(&writer));
    static const char small[] =
        "@\0\0\0\0\0\0\0{\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[0,24]}}"
        "\0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\0\0\xa0@";
    check_file(small, sizeof small - 1);

    TEST("safetensors: what was read is written again with the same bytes");
    CHECK_OK(image_read(image, &file));
    CHECK_OK(
        oom_safetensors_write(path, file.tensors, file.count, file.metadata, file.metadata_count));
    check_file(recorded, sizeof recorded - 1);
    oom_safetensors_close(&file);
    CHECK_OK(oom_safetensors_open(path, &file));
    recorded_check(&file);
    oom_safetensors_close(&file);
    oom_host_free(image.block);

    TEST("safetensors: an empty file is 16 bytes");
    CHECK_OK(oom_safetensors_write(path, NULL, 0, NULL, 0));
    check_file("\10\0\0\0\0\0\0\0{}      ", 16);
    CHECK_OK(oom_safetensors_open(path, &file));
    CHECK_EQ(file.count, 0);
    oom_safetensors_close(&file);
    CHECK_EQ(files_in_directory(), 1); /* no temporary file is left */
}

/* Seeded values of every dtype and rank, written and read. */
static void round_trips(void) {
    enum { COUNT = 40 };
    struct oom_safetensors_tensor tensors[COUNT];
    struct oom_safetensors file;
    char names[COUNT][16];
    static uint8_t data[1 << 16];
    uint64_t state = 5;
    for (size_t i = 0; i < sizeof data; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        data[i] = (uint8_t)(state >> 56);
    }
    TEST("safetensors: %d tensors of every dtype and rank come back", COUNT);
    for (int i = 0; i < COUNT; i++) {
        tensors[i] = (struct oom_safetensors_tensor){.name = names[i], .data = data + i};
        tensors[i].dtype = (enum oom_dtype)(i % OOM_DTYPE_COUNT);
        tensors[i].rank = i % (OOM_SAFETENSORS_RANK_MAX + 1);
        for (int k = 0; k < tensors[i].rank; k++) tensors[i].shape[k] = (i + k) % 4;
        snprintf(names[i], sizeof names[i], "t%d\t\"", i * 7 % COUNT);
    }
    CHECK_OK(oom_safetensors_write(path, tensors, COUNT, NULL, 0));
    CHECK_OK(oom_safetensors_open(path, &file));
    CHECK_EQ(file.count, COUNT);
    for (int i = 0; i < file.count; i++) {
        const struct oom_safetensors_tensor *tensor = &file.tensors[i];
        uint64_t count = 1;
        for (int k = 0; k < tensors[i].rank; k++) count *= (uint64_t)tensors[i].shape[k];
        CHECK_STR(tensor->name, names[i]);
        CHECK_OK(oom_safetensors_expect(&file, names[i], tensors[i].dtype, tensors[i].rank,
                                        tensors[i].shape, NULL));
        CHECK_EQ(tensor->count, count);
        CHECK_EQ(tensor->bytes, count * oom_dtype_bytes(tensor->dtype));
        CHECK(memcmp(tensor->data, data + i, tensor->bytes) == 0);
    }
    oom_safetensors_close(&file);
}

/* What is done with an open writer for the file that exists; its failure, and the old file stays.
 */
static void misuse(enum oom_status (*use)(struct oom_safetensors_writer *), const char *message) {
    struct oom_safetensors_writer writer;
    uint64_t before = oom_host_bytes_current();
    oom_failure_clear();
    CHECK_OK(oom_safetensors_writer_open(&writer, path));
    CHECK_EQ(use(&writer), OOM_INVALID);
    CHECK_EQ(oom_safetensors_writer_commit(&writer), OOM_INVALID); /* sticky, or found now */
    CHECK_MSG(strstr(oom_failure_last()->message, message) != NULL, "%s: %s", message,
              oom_failure_last()->message);
    oom_failure_clear();
    CHECK_EQ(oom_host_bytes_current(), before);
    check_file("old", 3);
    CHECK_EQ(files_in_directory(), 1);
}

#define SAY(name, n) oom_safetensors_writer_tensor(w, name, OOM_U8, 1, (int64_t[]){n})
#define GIVE(name, n) oom_safetensors_writer_data(w, name, "abcdefgh", n)

static enum oom_status use_twice(struct oom_safetensors_writer *w) {
    return SAY("a", 1), SAY("b", 1), SAY("a", 1), GIVE("a", 1);
}
static enum oom_status use_reserved(struct oom_safetensors_writer *w) {
    return SAY("__metadata__", 1), GIVE("__metadata__", 1);
}
static enum oom_status use_latin(struct oom_safetensors_writer *w) {
    return SAY("\xe4", 1), GIVE("\xe4", 1);
}
static enum oom_status use_key_twice(struct oom_safetensors_writer *w) {
    oom_safetensors_writer_metadata(w, "k", "1");
    oom_safetensors_writer_metadata(w, "k", "2");
    return GIVE("a", 1);
}
static enum oom_status use_latin_value(struct oom_safetensors_writer *w) {
    return oom_safetensors_writer_metadata(w, "k", "\xe4"), GIVE("a", 1);
}
static enum oom_status use_negative(struct oom_safetensors_writer *w) {
    return SAY("a", -1);
}
static enum oom_status use_huge(struct oom_safetensors_writer *w) {
    return oom_safetensors_writer_tensor(w, "a", OOM_F64, 1, (int64_t[]){INT64_MAX / 4});
}
static enum oom_status use_huge_together(struct oom_safetensors_writer *w) {
    return SAY("a", INT64_MAX), SAY("b", INT64_MAX), GIVE("a", 1);
}
static enum oom_status use_rank(struct oom_safetensors_writer *w) {
    return oom_safetensors_writer_tensor(w, "a", OOM_U8, 9, (int64_t[9]){1});
}
static enum oom_status use_order(struct oom_safetensors_writer *w) {
    return SAY("a", 1), SAY("e", 0), SAY("b", 1), GIVE("e", 0), GIVE("b", 1);
}
static enum oom_status use_too_much(struct oom_safetensors_writer *w) {
    return SAY("a", 3), GIVE("a", 2), GIVE("a", 2);
}
static enum oom_status use_after(struct oom_safetensors_writer *w) {
    return SAY("a", 3), GIVE("a", 3), GIVE("a", 1);
}
static enum oom_status use_late(struct oom_safetensors_writer *w) {
    return SAY("a", 3), GIVE("a", 1), SAY("b", 3);
}
static enum oom_status use_late_metadata(struct oom_safetensors_writer *w) {
    return SAY("a", 3), GIVE("a", 1), oom_safetensors_writer_metadata(w, "k", "v");
}
static enum oom_status use_too_little(struct oom_safetensors_writer *w) {
    CHECK_OK((SAY("a", 3), GIVE("a", 2)));
    return OOM_INVALID;
}
static enum oom_status use_abandoned(struct oom_safetensors_writer *w) {
    oom_safetensors_writer_abandon(w);
    oom_safetensors_writer_abandon(w); /* harmless */
    return SAY("a", 3);
}

static void misuses(void) {
    TEST("safetensors: a writer refuses what no reader would take, and leaves the old file");
    CHECK_OK(oom_file_write(path, "old", 3));
    misuse(use_twice, "tensor \"a\" twice");
    misuse(use_reserved, "no tensor may be named __metadata__");
    misuse(use_latin, "is not UTF-8");
    misuse(use_key_twice, "__metadata__: key \"k\" twice");
    misuse(use_latin_value, "the value of \"k\" is not UTF-8");
    misuse(use_negative, "\"a\": a dtype or shape that cannot be written");
    misuse(use_huge, "\"a\": a dtype or shape that cannot be written");
    misuse(use_huge_together, "tensor \"b\": a dtype, a shape or a file of more bytes");
    misuse(use_rank, "\"a\": a dtype or shape that cannot be written");
    misuse(use_order, "\"b\": its data do not come next");
    misuse(use_too_much, "\"a\": more data than dtype and shape take");
    misuse(use_after, "\"a\": data after the last tensor's");
    misuse(use_late, "\"b\": a tensor after the first data");
    misuse(use_late_metadata, "\"k\": metadata after the first data");
    misuse(use_too_little, "\"a\": not all of its data were given");
    misuse(use_abandoned, "that is not open");
}

static void files(void) {
    struct oom_safetensors file;
    struct oom_safetensors_writer writer;
    char other[PATH_MAX];
    TEST("safetensors: files that cannot be read or written");
    CHECK_OK(oom_file_write(path, "", 0));
    CHECK_EQ(oom_safetensors_open(path, &file), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "0 bytes; a safetensors file has at least") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_safetensors_open(directory, &file), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "must be a regular file") != NULL);
    oom_failure_clear();
    snprintf(other, sizeof other, "%s/pipe", directory);
    CHECK_EQ(mkfifo(other, 0600), 0);
    CHECK_EQ(oom_safetensors_open(other, &file), OOM_USAGE); /* and does not wait */
    oom_failure_clear();
    unlink(other);
    CHECK_EQ(oom_safetensors_open(other, &file), OOM_IO);
    CHECK_EQ(oom_failure_last()->native, 2); /* ENOENT */
    oom_failure_clear();
    snprintf(other, sizeof other, "%s/none/x", directory);
    CHECK_EQ(oom_safetensors_writer_open(&writer, other), OOM_IO);
    CHECK_EQ(oom_safetensors_writer_commit(&writer), OOM_IO);
    oom_failure_clear();
    if (access("/dev/full", W_OK) == 0) {
        static const char zeros[1 << 16];
        struct oom_safetensors_tensor big = {.name = "a", .rank = 1, .shape = {1 << 14}};
        big.data = zeros;
        CHECK_EQ(oom_safetensors_write("/dev/full", &big, 1, NULL, 0), OOM_IO);
        oom_failure_clear();
    }
    TEST("safetensors: host memory that fails at any place of writing");
    struct image image = image_raw(recorded, sizeof recorded - 1);
    CHECK_OK(image_read(image, &file));
    uint64_t before = oom_host_bytes_current(), n = 0;
    enum oom_status status;
    CHECK_OK(oom_file_write(path, "old", 3));
    do {
        oom_host_fail_at(++n);
        oom_failure_clear();
        status = oom_safetensors_write(path, file.tensors, file.count, file.metadata,
                                       file.metadata_count);
        oom_host_fail_at(0);
        if (status == OOM_OK) break;
        CHECK_EQ(status, OOM_HOST_NOMEM);
        check_file("old", 3);
        CHECK_EQ(oom_host_bytes_current(), before);
    } while (n < 100);
    CHECK(n > 10 && n < 100);
    oom_failure_clear();
    check_file(recorded, sizeof recorded - 1);
    oom_safetensors_close(&file);
    oom_host_free(image.block);
}

void safetensors_write_test(void) {
    if (oom_directory_temporary(directory, sizeof directory) != OOM_OK) {
        TEST("safetensors: a directory for files");
        CHECK(false);
        return;
    }
    snprintf(path, sizeof path, "%s/a.safetensors", directory);
    writes();
    round_trips();
    misuses();
    files();
    CHECK_OK(oom_directory_remove(directory));
}
