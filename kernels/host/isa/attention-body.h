/*
 * attention-body.h: attention.c for one element type (real.h).
 */
#include "kernels/host/isa/attention-rows.h"
#include "kernels/host/isa/attention-scores.h"
#include "kernels/host/isa/attention-tiled.h"
