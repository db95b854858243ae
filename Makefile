# oombench. `make help` lists the targets; everything that is made goes into $(BUILD).
#
#   make BUILD=/somewhere   several people, or several settings, build at once
#   make V=1                shows the commands
#   make CC=clang CFLAGS=-O0 WERROR=0 SANITIZE=address,undefined CUDA=auto|0|1 BENCHMARK=auto|0

VERSION := 0.1.0
BUILD ?= build
PREFIX ?= /usr/local
CUDA ?= auto
BENCHMARK ?= auto
WERROR ?= 1
V ?= $(VERBOSE)
Q := $(if $(filter-out 0,$(V)),,@)
say = $(if $(Q),@printf '  %-7s %s\n' '$(1)' '$(2)')
part := $(MAKE) --no-print-directory

# A number of jobs given on the command line wins over this one.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

# `make clean all` means one after the other, in spite of the jobs.
ifneq ($(and $(filter clean,$(MAKECMDGOALS)),$(filter-out clean,$(MAKECMDGOALS))),)
.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
$(MAKECMDGOALS):
	+@$(part) $@
else

ifeq ($(filter auto 0 1,$(CUDA)),)
$(error CUDA=$(CUDA): allowed are auto, 0 and 1)
endif
ifeq ($(filter auto 0,$(BENCHMARK)),)
$(error BENCHMARK=$(BENCHMARK): allowed are auto and 0 (without Google Benchmark))
endif
ifeq ($(CUDA)$(filter help clean,$(MAKECMDGOALS)),1)
$(error CUDA=1: no CUDA plugin in this version; CUDA=auto shows what this machine has)
endif
# The results are the same bits on every machine; these flags would change them.
refused := $(filter -ffast-math -Ofast -march=native -funsafe-math-optimizations \
    -fno-trapping-math -ffp-contract=fast,$(CC) $(CFLAGS))
ifneq ($(refused),)
$(error refused: $(refused) changes results, and every machine must get the same bits)
endif

# --- flags -------------------------------------------------------------------------------------

language := -std=c11 -D_GNU_SOURCE -I. -I$(BUILD) -ffp-contract=off -fno-math-errno
warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
    $(if $(filter-out 0,$(WERROR)),-Werror)
sanitize := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
    -fno-omit-frame-pointer) $(if $(filter libfuzzer,$(FUZZER)),-fsanitize=fuzzer-no-link)
flags = $(language) $(warnings) -g $(1) $(sanitize) $(CPPFLAGS) $(CFLAGS)
libraries = $(LDLIBS) $(JANSSON_LIBS) $(GBENCH_LIBS) -lm -lpthread -ldl

# One C++ file, where Google Benchmark is there; of the C compiler's maker, as sanitizers must agree.
ifneq ($(filter default undefined,$(origin CXX)),)
CXX := $(if $(filter cc,$(CC)),c++,$(subst gcc,g++,$(subst clang,clang++,$(CC))))
endif
cxx_flags = -std=c++17 $(filter-out -std=%,$(language)) -Wall -Wextra -Wshadow \
    $(if $(filter-out 0,$(WERROR)),-Werror) -g -O2 $(sanitize) $(CPPFLAGS) $(CXXFLAGS)

# kernels/host/isa/NAME.c is built once for each of these (kernels/host/kernels.h has the rule).
isa_base :=
isa_avx2 := -mavx2 -mfma -mf16c
isa_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512

# --- what there is -----------------------------------------------------------------------------

sources := $(filter-out kernels/cuda/%,$(wildcard $(foreach room,kernels harness scenarios, \
    $(room)/*.c $(room)/*/*.c $(room)/*/*/*.c)))
tests := $(sort $(filter %-test.c,$(sources)))
fuzzers := $(sort $(filter %-fuzz.c,$(sources)))
main := harness/cli/main.c
library_c := $(sort $(filter-out $(tests) $(fuzzers) %/main.c,$(sources)))
isa_c := $(filter kernels/host/isa/%,$(library_c))
plain_c := $(filter-out $(isa_c),$(library_c))
lessons := $(wildcard scenarios/*.md)

# A room is kernels, scenarios, or a folder of harness; it has one test program.
room_of = $(strip $(if $(filter harness/%,$(1)), \
    harness-$(word 2,$(subst /, ,$(1))),$(firstword $(subst /, ,$(1)))))
rooms := $(sort $(foreach test,$(tests),$(call room_of,$(test))))
room_tests = $(foreach test,$(tests),$(if $(filter $(1),$(call room_of,$(test))),$(test)))
fuzz_names := $(notdir $(fuzzers:-fuzz.c=))
ifneq ($(words $(fuzz_names)),$(words $(sort $(fuzz_names))))
$(error two *-fuzz.c files have one name: $(fuzzers))
endif

binary := $(BUILD)/oombench
library := $(BUILD)/liboombench.a
object = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
test_programs := $(addprefix $(BUILD)/test/,$(rooms))
fuzz_programs := $(addsuffix -fuzz,$(addprefix $(BUILD)/fuzz/,$(fuzz_names)))

# Targets that bring the compiler first, or need none, must not ask it anything while make reads.
needs_nothing := help clean deps lint run check check-asan check-clang fuzz
ifneq ($(filter-out $(needs_nothing),$(or $(MAKECMDGOALS),all)),)
include $(BUILD)/config.mk
endif

gbench_not := $(if $(GBENCH_LIBS),harness/bench/gbench-absent.c)
gbench_o := $(if $(GBENCH_LIBS),$(BUILD)/obj/harness/bench/gbench.o)
isas := $(if $(TARGET_X86_64),base avx2 avx512,base)
isa_objects := $(foreach isa,$(isas),$(patsubst %.c,$(BUILD)/obj/%.$(isa).o,$(isa_c)))
library_o := $(call object,$(filter-out $(gbench_not),$(plain_c))) $(gbench_o) $(isa_objects)

# --- targets -----------------------------------------------------------------------------------

.PHONY: all help run check check-asan check-clang check-built tests benches fuzz fuzz-built lint \
    deps config generated install clean FORCE
.DELETE_ON_ERROR:
.SECONDARY:
all: ## the program, build/oombench (the default)
all: $(binary)

help: ## this list
	@echo 'make TARGET [BUILD=build] [CC=cc] [CFLAGS=] [CUDA=auto|0|1] [V=1]'
	@awk -F' ?: ## ?' '/^[a-z-]+: ## /{printf "  %-12s %s\n", $$1, $$2}' Makefile

run: ## install what is missing (asks), build, run every scenario (ARGS=... for some)
	$(Q)ci/deps $(DEPS) build
	+$(Q)$(part) all
	$(Q)$(binary) run $(ARGS)

check: ## install what is missing (asks), build, run every test
	$(Q)ci/deps $(DEPS) build test
	+$(Q)$(part) check-built

check-asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	+$(Q)$(part) check-built BUILD=$(BUILD)/asan SANITIZE=address,undefined COMMANDS=0

check-clang: ## the tests built by clang
	+$(Q)$(part) check-built BUILD=$(BUILD)/clang CC=clang COMMANDS=0

check-built: $(binary) $(test_programs) $(fuzz_programs)
	$(Q)ci/run-tests $(BUILD) $(if $(filter 0,$(COMMANDS)),,ci/tests/*-test) $(test_programs) \
	    $(fuzz_programs) $(if $(filter 0,$(COMMANDS)),,ci/check-commands)

RUNS ?= 10000000
fuzz: ## the fuzzers at length, under sanitizers (RUNS=10000000 SEED=1 FUZZER=own|libfuzzer)
	+$(Q)$(part) fuzz-built BUILD=$(BUILD)/fuzzing SANITIZE=address,undefined \
	    $(if $(filter libfuzzer,$(FUZZER)),CC=clang)

fuzz-built: $(fuzz_programs)
	$(Q)RUNS=$(RUNS) SEED=$(or $(SEED),1) ci/fuzz $(BUILD) $(or $(FUZZER),own) $(fuzz_programs)

tests: ## the test programs, one per room: build/test/*
tests: $(test_programs)

benches: ## the measurements (ARGS='gemm/f32 --threads 2' for some)
benches: $(binary)
	$(Q)$(binary) bench $(ARGS)

test-%: $(BUILD)/test/%
	$<

lint: ## formatting, static analysis and the rules of the house (LINT=strict: no tool may lack)
	+$(Q)$(part) generated >/dev/null 2>&1 || true
	$(Q)BUILD=$(BUILD) LINT=$(LINT) ci/lint

deps: ## install everything for building, testing, linting and measuring (asks)
	$(Q)ci/deps $(DEPS) build test lint bench

config: ## what was found on this machine, once more
config: $(BUILD)/config.mk
	@cat $(BUILD)/config.txt

install: ## into $(DESTDIR)$(PREFIX)
install: $(binary)
	$(call say,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/doc/oombench'
	$(Q)install -m 755 $(binary) '$(DESTDIR)$(PREFIX)/bin/oombench'
	$(Q)install -m 644 $(wildcard README.md LICENSE) $(lessons) \
	    '$(DESTDIR)$(PREFIX)/share/doc/oombench'

clean: ## remove what was made
	$(Q)rm -rf $(addprefix $(BUILD)/,asan bench clang config.h config.mk config.txt flags \
	    fuzz fuzzing generated liboombench.a library-list obj oombench probe tap test)
	$(Q)-[ ! -d $(BUILD) ] || rmdir --ignore-fail-on-non-empty $(BUILD)

# --- rules -------------------------------------------------------------------------------------

# Writes its input to a file only when that changes the file, so that nothing is rebuilt for nothing.
update = { mkdir -p $(dir $(1)) && cat >$(1).new && \
    { cmp -s $(1).new $(1) && rm -f $(1).new || mv $(1).new $(1); }; }

$(BUILD)/flags: FORCE
	@{ $(CC) --version 2>/dev/null | head -n 1; \
	    echo '$(subst ','\'',$(CC) $(call flags,-O2) $(LDFLAGS) $(LDLIBS) CUDA=$(CUDA))'; \
	    echo '$(subst ','\'',$(CXX) $(cxx_flags) BENCHMARK=$(BENCHMARK))'; } | \
	    $(call update,$@)

# Packages that come or go change what is found; an unchanged answer rebuilds nothing.
$(BUILD)/config.mk: ci/probe Makefile $(BUILD)/flags $(wildcard /var/lib/dpkg/status)
	@BUILD='$(BUILD)' CC='$(CC)' FLAGS='$(subst ','\'',$(call flags,-O2) $(LDFLAGS))' \
	    CUDA='$(CUDA)' BENCHMARK='$(BENCHMARK)' CXX='$(CXX)' \
	    CXX_FLAGS='$(subst ','\'',$(cxx_flags))' AVX2='$(isa_avx2)' AVX512='$(isa_avx512)' ci/probe \
	    $(if $(filter config,$(MAKECMDGOALS)),>/dev/null)

$(BUILD)/generated/version.h: FORCE
	@printf '#define OOM_VERSION "%s"\n#define OOM_COMMIT "%s"\n' '$(VERSION)' \
	    "$$(git describe --always --dirty --exclude='*' 2>/dev/null || echo unknown)" | \
	    $(call update,$@)

generated: $(BUILD)/config.mk $(BUILD)/generated/version.h

made_first := $(BUILD)/flags Makefile | $(BUILD)/config.mk $(BUILD)/generated/version.h
compile = $(CC) $(call flags,$(1)) -MMD -MP -c $< -o $@

# Readers are fuzzed, not kernels, and clang takes minutes to instrument those.
isa_plain := $(if $(filter fuzz-built,$(MAKECMDGOALS)),-fno-sanitize=all)

define compile_isa
$(BUILD)/obj/kernels/host/isa/%.$(1).o: kernels/host/isa/%.c $(made_first)
	$$(call say,CC,$$< $(1))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(call compile,-O3 -DOOM_HOST_ISA=$(1) $$(isa_$(1))) $$(isa_plain)
endef
$(foreach isa,$(isas),$(eval $(call compile_isa,$(isa))))

$(BUILD)/obj/%.o: %.c $(made_first)
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(call compile,-O2)

$(BUILD)/obj/%.o: %.cc $(made_first)
	$(call say,CXX,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) $(cxx_flags) -MMD -MP -c $< -o $@

# The lessons are inside the program.
$(BUILD)/obj/scenarios/list.o: $(lessons)

# The list makes a deleted source leave the archive.
$(BUILD)/library-list: FORCE
	@echo '$(library_o)' | $(call update,$@)

$(library): $(library_o) $(BUILD)/library-list
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(library_o)

link = $(CC) $(call flags,-O2) $(LDFLAGS) $(filter %.o %.a,$^) -Wl,--as-needed $(libraries) -o $@

$(binary): $(call object,$(main)) $(library)
	$(call say,LINK,$@)
	$(Q)$(link)

define test_program
$(BUILD)/test/$(1)-main.c: ci/test-main FORCE
	@mkdir -p $$(@D) && ci/test-main $(call room_tests,$(1)) >$$@.list && \
	    $$(call update,$$@) <$$@.list && rm -f $$@.list
$(BUILD)/test/$(1)-main.o: $(BUILD)/test/$(1)-main.c $(made_first)
	$$(Q)$$(call compile,-O2)
$(BUILD)/test/$(1): $(BUILD)/test/$(1)-main.o $(call object,$(call room_tests,$(1))) $(library)
	$$(call say,LINK,$$@)
	$$(Q)$$(link)
endef
$(foreach room,$(rooms),$(eval $(call test_program,$(room))))

# clang's driver looks at what is reached and mutates accordingly; everything is built for it.
fuzz_link := $(if $(filter libfuzzer,$(FUZZER)),-fsanitize=fuzzer)

define fuzz_program
$(BUILD)/fuzz/$(1)-main.c: ci/fuzz-main FORCE
	@mkdir -p $$(@D) && ci/fuzz-main $(filter %/$(1)-fuzz.c,$(fuzzers)) $(or $(FUZZER),own) \
	    >$$@.text && $$(call update,$$@) <$$@.text && rm -f $$@.text
$(BUILD)/fuzz/$(1)-main.o: $(BUILD)/fuzz/$(1)-main.c $(made_first)
	$$(Q)$$(call compile,-O2)
$(BUILD)/fuzz/$(1)-fuzz: $(BUILD)/fuzz/$(1)-main.o $(call object,$(filter %/$(1)-fuzz.c,$(fuzzers))) \
    $(library)
	$$(call say,LINK,$$@)
	$$(Q)$$(link) $(fuzz_link)
endef
$(foreach fuzzer,$(fuzz_names),$(eval $(call fuzz_program,$(fuzzer))))

-include $(patsubst %.o,%.d,$(library_o) $(call object,$(tests) $(fuzzers) $(main)) \
    $(addsuffix -main.o,$(test_programs)) $(fuzz_programs:-fuzz=-main.o))

endif
