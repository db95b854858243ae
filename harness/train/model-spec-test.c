/*
 * model-spec-test.c: what is written is read back; every refusal names the key, the value that
 * stood there and what is allowed.
 */
#include "harness/train/model-spec.h"

#include "harness/base/rng.h"
#include "kernels/testing.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void model_spec_test(void);

static void canonical(void) {
    char text[OOM_SPEC_TEXT_MAX];
    struct oom_model_spec spec;
    TEST("model spec: a bare name gives every key its default, in the order of the table");
    CHECK_OK(oom_model_spec_parse("gpt", &spec));
    oom_model_spec_text(&spec, text);
    CHECK_STR(text, "gpt,layers=4,width=64,heads=4,context=64,vocab=256,batch=64,attention=tiled,"
                    "tied=0");
    CHECK_OK(oom_model_spec_parse("mlp", &spec));
    oom_model_spec_text(&spec, text);
    CHECK_STR(text, "mlp,layers=4,width=64,rows=64,vocab=16,batch=64");
    CHECK_OK(oom_model_spec_parse("cnn", &spec));
    oom_model_spec_text(&spec, text);
    CHECK_STR(text,
              "cnn,layers=4,width=16,image=16,stages=2,norm=batch,groups=4,vocab=10,batch=64");
    CHECK_EQ(oom_spec_rows(&spec), 1);
    CHECK_EQ(oom_spec_row_numbers(&spec), 16 * 16 * 3);
    TEST("model spec: keys in any order");
    CHECK_OK(oom_model_spec_parse("gpt,dropout=0.125,tied=1,attention=scores,layers=3", &spec));
    oom_model_spec_text(&spec, text);
    CHECK_STR(text, "gpt,layers=3,width=64,heads=4,context=64,vocab=256,batch=64,attention=scores,"
                    "tied=1,dropout=0.125");
    CHECK_EQ(oom_spec_rows(&spec), 64);
}

static bool same(const struct oom_model_spec *a, const struct oom_model_spec *b) {
    return a->kind == b->kind && a->layers == b->layers && a->width == b->width &&
           a->heads == b->heads && a->context == b->context && a->rows == b->rows &&
           a->vocab == b->vocab && a->batch == b->batch && a->attention == b->attention &&
           a->tied == b->tied && a->image == b->image && a->stages == b->stages &&
           a->norm == b->norm && a->groups == b->groups && a->dropout == b->dropout;
}

static int64_t draw(struct oom_rng *rng, int64_t most) {
    return 1 + (int64_t)oom_rng_below(rng, (uint32_t)most);
}

static void round_trip(void) {
    struct oom_rng rng = {3};
    TEST("model spec: 500 random specs survive being written and read");
    for (int i = 0; i < 500; i++) {
        enum oom_model_kind kind = (enum oom_model_kind)(i % OOM_MODEL_COUNT);
        struct oom_model_spec spec = oom_model_spec_default(kind), back;
        char text[OOM_SPEC_TEXT_MAX];
        bool gpt = kind == OOM_MODEL_GPT;
        spec.layers = draw(&rng, 4096);
        spec.width = draw(&rng, 65536);
        spec.vocab = 1 + draw(&rng, 1048575);
        spec.batch = draw(&rng, 64);
        if (kind == OOM_MODEL_CNN) {
            spec.stages = draw(&rng, 8);
            spec.layers = spec.stages * draw(&rng, 512);
            spec.image = (1 + draw(&rng, 31)) << (spec.stages - 1);
            spec.norm = oom_rng_below(&rng, 2);
            spec.groups = draw(&rng, 64);
            spec.width = spec.groups * draw(&rng, 64);
        } else {
            *(gpt ? &spec.context : &spec.rows) = draw(&rng, 4096);
        }
        if (gpt) {
            spec.heads = draw(&rng, 255);
            spec.width = spec.heads * draw(&rng, 256);
            spec.attention = oom_rng_below(&rng, 2);
            spec.tied = oom_rng_below(&rng, 2);
        }
        spec.dropout = i % 3 == 0 ? 0 : 0.95 * oom_rng_uniform(&rng);
        oom_model_spec_text(&spec, text);
        CHECK_OK(oom_model_spec_parse(text, &back));
        CHECK_MSG(same(&spec, &back), "%s", text);
    }
    TEST("model spec: the longest text of a model fits, all digits of the dropout with it");
    char text[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&(struct oom_model_spec){.kind = OOM_MODEL_GPT,
                                                 .layers = 4096,
                                                 .width = 65536,
                                                 .heads = 1024,
                                                 .context = 1048576,
                                                 .vocab = 1048576,
                                                 .batch = 1048576,
                                                 .attention = OOM_ATTENTION_SCORES,
                                                 .tied = 1,
                                                 .dropout = 0.0001234567890123457},
                        text);
    CHECK_STR(text, "gpt,layers=4096,width=65536,heads=1024,context=1048576,vocab=1048576,"
                    "batch=1048576,attention=scores,tied=1,dropout=0.0001234567890123457");
    TEST("model spec: a dropout is written with as few digits as read back as the same");
    oom_model_spec_text(&(struct oom_model_spec){.kind = OOM_MODEL_MLP, .dropout = 0.1}, text);
    CHECK_STR(strrchr(text, ','), ",dropout=0.1");
}

/* Up to three pieces that the message must hold. */
static const struct {
    const char *text, *pieces[3];
} refusals[] = {
    {"", {"unknown model ''", "gpt"}},
    {"gtp", {"unknown model 'gtp'", "nearest is 'gpt'"}},
    {"GPT", {"unknown model 'GPT'"}},
    {"transformer", {"unknown model 'transformer'", "mlp", "gpt"}},
    {"gpt,", {"model gpt", "''", "key=value"}},
    {"gpt,layers", {"model gpt", "'layers'", "key=value"}},
    {"gpt,layer=3", {"no key 'layer'", "nearest is 'layers'"}},
    {"gpt,rows=3", {"model gpt", "no key 'rows'"}},
    {"mlp,heads=3", {"model mlp", "no key 'heads'"}},
    {"mlp,dropuot=0.1", {"no key 'dropuot'", "nearest is 'dropout'"}},
    {"mlp,=3", {"no key ''"}},
    {"gpt,layers=", {"layers=:", "from 1 to 4096"}},
    {"gpt,layers=0", {"layers=0", "from 1 to 4096"}},
    {"gpt,layers=4097", {"layers=4097", "from 1 to 4096"}},
    {"gpt,layers=-1", {"layers=-1", "from 1 to 4096"}},
    {"gpt,layers=+1", {"layers=+1", "from 1 to 4096"}},
    {"gpt,layers= 1", {"layers= 1", "from 1 to 4096"}},
    {"gpt,layers=\t1", {"layers=\t1", "from 1 to 4096"}},
    {"gpt,layers=1 ", {"layers=1 ", "from 1 to 4096"}},
    {"gpt,layers=1.0", {"layers=1.0", "from 1 to 4096"}},
    {"gpt,layers=0x4", {"layers=0x4", "from 1 to 4096"}},
    {"gpt,layers=1=2", {"layers=1=2", "from 1 to 4096"}},
    {"gpt,batch=99999999999999999999", {"batch=99999999999999999999", "from 1 to 1048576"}},
    {"mlp,width=65537", {"width=65537", "from 1 to 65536"}},
    {"mlp,vocab=1", {"vocab=1", "from 2 to 1048576"}},
    {"gpt,tied=2", {"tied=2", "from 0 to 1"}},
    {"gpt,attention=flash", {"attention=flash", "tiled, scores"}},
    {"gpt,attention=1", {"attention=1", "tiled, scores"}},
    {"gpt,dropout=1", {"dropout=1", "from 0 to 0.95"}},
    {"gpt,dropout=-0.1", {"dropout=-0.1", "from 0 to 0.95"}},
    {"gpt,dropout=nan", {"dropout=nan", "from 0 to 0.95"}},
    {"gpt,dropout=0.5x", {"dropout=0.5x", "from 0 to 0.95"}},
    {"gpt,dropout= 0.5", {"dropout= 0.5", "from 0 to 0.95"}},
    {"gpt,dropout=", {"dropout=", "from 0 to 0.95"}},
    {"gpt,dropout=inf", {"dropout=inf", "from 0 to 0.95"}},
    {"cnn,heads=3", {"model cnn", "no key 'heads'"}},
    {"gpt,image=3", {"model gpt", "no key 'image'"}},
    {"cnn,norm=layer", {"norm=layer", "batch, group"}},
    {"cnn,layers=3,stages=2", {"layers=3", "multiple of stages=2"}},
    {"cnn,layers=3,stages=3,image=18", {"image=18", "multiple of 4", "3 stages"}},
    {"cnn,norm=group,groups=3", {"width=16", "multiple of groups=3"}},
    {"cnn,stages=9", {"stages=9", "from 1 to 8"}},
    {"gpt,width=64,heads=3", {"width=64", "multiple of heads=3"}},
    {"gpt,width=1028,heads=4", {"width/heads is 257", "1 to 256"}},
    {"cnn,image=4,stages=3,layers=3", {"image=4", "3 stages", "at least 8"}},
    {"gpt,layers=2,layers=3", {"layers stands twice"}},
    {"mlp,dropout=0.5,rows=2,dropout=0.5", {"dropout stands twice"}},
    {"gpt,batch=1048576,context=1048576,heads=64,attention=scores", {"1.8e+13", "7.4e+19"}},
    {"gpt,batch=1048576,context=1048576", {"about 2.8e+14"}},
    {"mlp,batch=1048576,rows=1048576,width=65536,vocab=1048576", {"about 1.2e+18"}},
    {"cnn,image=4096,batch=1048576", {"about 2.8e+14"}},
};

static void errors(void) {
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct oom_model_spec spec = {.layers = -7};
        TEST("model spec: '%s' is refused", refusals[i].text);
        oom_failure_clear();
        CHECK_EQ(oom_model_spec_parse(refusals[i].text, &spec), OOM_USAGE);
        CHECK_EQ(spec.layers, -7);
        const char *message = oom_failure_last()->message;
        for (int k = 0; k < 3 && refusals[i].pieces[k] != NULL; k++) {
            CHECK_MSG(strstr(message, refusals[i].pieces[k]) != NULL, "\"%s\" says '%s'", message,
                      refusals[i].pieces[k]);
        }
        oom_failure_clear();
    }
    TEST("model spec: a text of 512 characters is refused, not cut");
    char text[513];
    struct oom_model_spec spec;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    CHECK_EQ(oom_model_spec_parse(text, &spec), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "511 characters") != NULL);
    oom_failure_clear();
}

static void override(void) {
    struct oom_model_spec spec = oom_model_spec_default(OOM_MODEL_GPT), before;
    TEST("model spec: an override replaces its own keys and no other");
    spec.layers = 9;
    spec.dropout = 0.25;
    CHECK_OK(oom_model_spec_override("gpt,width=32", &spec));
    CHECK_EQ(spec.width, 32);
    CHECK_EQ(spec.layers, 9);
    CHECK(spec.dropout == 0.25);
    TEST("model spec: an override of another model, or one that does not go together, changes "
         "nothing");
    before = spec;
    CHECK_EQ(oom_model_spec_override("mlp,width=16", &spec), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "of model gpt") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_model_spec_override("gpt,layers=2,width=33", &spec), OOM_USAGE);
    CHECK(same(&spec, &before));
    oom_failure_clear();
}

void model_spec_test(void) {
    canonical();
    round_trip();
    errors();
    override();
    TEST("model spec: every model has a name and a line of prose");
    for (int i = 0; i < OOM_MODEL_COUNT; i++) {
        struct oom_model_spec spec;
        CHECK_OK(oom_model_spec_parse(oom_model_name((enum oom_model_kind)i), &spec));
        CHECK_EQ(spec.kind, i);
        CHECK(strlen(oom_model_prose((enum oom_model_kind)i)) > 10);
    }
}
