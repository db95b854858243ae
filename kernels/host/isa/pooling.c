/*
 * pooling.c: pooling over an image.
 *   maxpool_forward    y = x of each window's largest element, and where that was
 *   maxpool_backward   dx = dy where the index names the element, 0 elsewhere
 *   meanpool_forward   y[b] = (x[b][0] + x[b][1] + ...) / E, one chain over positions
 *   meanpool_backward  dx[b][e] = dy[b] / E
 *
 * A vector's lanes are channels. Each image is read or written once: bytes per f32 element of the
 * large image, size 2: 5.25 both ways, the mean's 4. Threads divide rows of the pooled image (its
 * samples for the mean forward, cut by columns where those are few), backward rows of the large
 * one.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum { LINE = 16 }; /* channels by which threads divide */

#define OOM_BODY "kernels/host/isa/pooling-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(maxpool_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(maxpool_backward, OOM_BY_DTYPE)
OOM_KERNEL_OF(meanpool_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(meanpool_backward, OOM_BY_DTYPE)
