#!/usr/bin/env python3
"""Compares the gradients of `oombench grad` with PyTorch's autograd, and with finite differences.

    ci/oracle/check-grad.py [--oombench build/oombench] [--only GLOB ...] [--seeds 1 2 3] [--keep DIR]

For every case `oombench grad --init` writes weights and a batch, and `oombench grad` loss, outputs
and gradients; the same model in PyTorch (ci/oracle/models.py) reads the same file. The truth is
PyTorch's in f64, on the branches (sides of ReLU, places of max pooling) that the run under test
took. With S = sum over samples of |g_s|, elementwise, and |.| the 2-norm of a tensor:

    f64        |found - truth| <= 1e-12 |S|
    f32, f16,  |found - truth| <= C u |S| with u the unit roundoff, C = 16 + sqrt(N)/2 for f32 (N
    bf16       terms of the longest sum), 4 for halves; the loss likewise

In a cnn's convolutions and norms a sample's gradient is itself a sum over pixels that may cancel: for
f32 and halves their S is the sum over samples and pixels of |term|, where that is larger; what it
would be by samples alone stands beside it, and f64 is judged by that.

Where |S| is below 1e-12 of the model's largest, the gradient is zero by mathematics, all there is
is rounding, and that largest stands in its place.

Halves are computed as mixed precision, and compared with the f64 truth of the f32 weights. The
column PyTorch is its own result in that precision by the same measure. Then losses alone: a central
difference in f64 along random directions, from `oombench grad` on moved weights, against the sum of
gradient times direction.

PyTorch 1.13 or newer, and numpy. Exit status: 0 all agree, 1 something does not, 2 wrong usage, 3
no PyTorch here.
"""
import argparse
import fnmatch
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # nothing is left beside the sources
import models
from models import np, torch

# model and what is asked of it; odd shapes on purpose
CASES = [
    "mlp,layers=2,width=16,rows=8,vocab=7,batch=4",
    "mlp,layers=3,width=33,rows=5,vocab=3,batch=7,dropout=0.25",
    "mlp,layers=1,width=1,rows=1,vocab=2,batch=1",
    "mlp,layers=4,width=64,rows=64,vocab=16,batch=16",
    "gpt,layers=2,width=16,heads=2,context=8,vocab=11,batch=3",
    "gpt,layers=1,width=15,heads=3,context=7,vocab=13,batch=5,attention=scores",
    "gpt,layers=2,width=24,heads=1,context=33,vocab=29,batch=2,tied=1,dropout=0.1",
    "gpt,layers=2,width=32,heads=4,context=65,vocab=256,batch=4,dropout=0.3,attention=scores",
    "gpt,layers=1,width=1,heads=1,context=1,vocab=2,batch=1",
    "gpt,layers=1,width=16,heads=2,context=8,vocab=50257,batch=4",
    "cnn,layers=2,width=4,image=8,stages=2,norm=batch,vocab=5,batch=6",
    "cnn,layers=3,width=5,image=9,stages=1,norm=batch,vocab=3,batch=3",
    "cnn,layers=2,width=6,image=14,stages=2,norm=group,groups=3,vocab=4,batch=5",
    "cnn,layers=1,width=3,image=5,stages=1,norm=group,groups=1,vocab=2,batch=1",
    "cnn,layers=3,width=3,image=12,stages=3,norm=batch,vocab=6,batch=2,dropout=0.1",
    "cnn,layers=2,width=8,image=16,stages=2,norm=group,groups=4,vocab=10,batch=4,dropout=0.2",
]
PRECISIONS = ("f64", "f32", "f16", "bf16")
DIRECTIONS = 3


def arguments(given):
    parser = argparse.ArgumentParser(
        description="Compares the gradients of `oombench grad` with PyTorch's.")
    parser.add_argument("--oombench", default="build/oombench", metavar="FILE",
                        help="the program (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="GLOB", help="models whose text matches")
    parser.add_argument("--model", action="append", metavar="MODEL",
                        help="this model in place of the listed ones (may be repeated)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N")
    parser.add_argument("--dtypes", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--keep", metavar="DIR", help="leave the files there")
    return parser.parse_args(given)


# ---- the program ---------------------------------------------------------------------------------


class Failed(Exception):
    pass


def oombench(options, *words):
    done = subprocess.run([options.oombench, "grad", *words], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip() or f"exit {done.returncode}")
    return done.stdout


def takes(options, what, *words):
    """Whether this program knows a model or an option."""
    done = subprocess.run([options.oombench, "grad", *words, "--init", os.devnull],
                          capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return True
    print(f"not compared: {what}: {done.stderr.strip()}")
    return False


def make_input(options, folder, model, dtype, seed):
    """Weights and batch, with weights of the rows that are not all alike; both shared by dtypes."""
    path = os.path.join(folder, f"{abs(hash((model, seed)))}-{dtype}.given")
    oombench(options, "--model", model, "--dtype", dtype, "--seed", str(seed), "--init", path)
    tensors, metadata = models.read(path)
    rng = np.random.default_rng(seed)
    weights = tensors["batch.weights"]
    weights *= rng.integers(1, 9, weights.shape).astype(weights.dtype) / 4
    if weights.size > 3:
        weights.reshape(-1)[rng.integers(weights.size)] = 0
    models.write(path, tensors, metadata)
    return path, tensors, metadata


def run(options, path, out, *words):
    oombench(options, "--weights", path, "--out", out, *words)
    tensors, metadata = models.read(out)
    again_with_safetensors(out, tensors)
    branches = []
    while f"branch.{len(branches)}" in tensors:
        branches.append(tensors[f"branch.{len(branches)}"])
    return tensors, metadata, branches


def again_with_safetensors(path, tensors):
    """The same file, read by the format's own library where that is installed."""
    try:
        from safetensors.numpy import load_file
    except ImportError:
        return
    theirs = load_file(path)
    if set(theirs) != set(tensors):
        raise Failed(f"{path}: safetensors finds other tensors")
    for name, tensor in tensors.items():
        if theirs[name].tobytes() != tensor.tobytes():
            raise Failed(f"{path}: safetensors finds another {name}")


# ---- comparing -----------------------------------------------------------------------------------


def norm(x):
    return float(np.linalg.norm(np.asarray(x, np.float64).reshape(-1)))


def bounds(spec, dtype, magnitudes):
    """By parameter: (the unit that errors are told in, how many of them are allowed)."""
    sizes = {name: norm(s) for name, s in magnitudes.items()}
    largest = max(sizes.values())
    sizes = {name: size if size >= 1e-12 * largest else largest for name, size in sizes.items()}
    if dtype == "f64":
        return {name: (1e-12 * size, 1.0) for name, size in sizes.items()}
    allowed = 16 + models.terms(spec) ** 0.5 / 2 if dtype == "f32" else 4.0
    return {name: (models.ROUNDOFF[dtype] * size, allowed) for name, size in sizes.items()}


def worst(found, truth, limits):
    """(error in units, allowed, name) of the tensor nearest to its bound, or beyond."""
    at = (-1.0, 0.0, 1.0, "")
    for name, (unit, allowed) in limits.items():
        difference = norm(np.asarray(found[name], np.float64) - truth[name])
        error = difference / unit if unit > 0 else (0.0 if difference == 0 else float("inf"))
        error = error if error == error else float("inf")  # NaN is no agreement
        at = max(at, (error / allowed, error, allowed, name))
    return at


def statistics_after(run, file):
    """Batch norm's running statistics after the step, from those of the batch."""
    return {f"{name}.{what}": 0.9 * file[f"{name}.{what}"].astype(np.float64) +
                              0.1 * value.double().numpy()
            for name, values in run.statistics.items()
            for what, value in zip(("running_mean", "running_var"), values)}


def statistics_error(after, truth, file):
    """The largest error, relative to the size of what is added up: a mean may cancel."""
    expected, error = statistics_after(truth, file), 0.0
    for name, (mean, var) in truth.statistics_sizes.items():
        for what, size in (("running_mean", mean), ("running_var", var)):
            key = f"{name}.{what}"
            size = 0.9 * np.abs(file[key].astype(np.float64)) + 0.1 * size.numpy()
            found = norm(np.asarray(after[key], np.float64) - expected[key]) / norm(size)
            error = max(error, found if found == found else float("inf"))
    return error


def peer_of(spec, file, wide, autocast, scale, **given):
    """PyTorch's own result in this precision; its f16 may overflow at a scale where ours did not."""
    while True:
        peer = models.compute(spec, file, wide, autocast=autocast, scale=scale, **given)
        if scale <= 1 or all(np.isfinite(part).all() for part in peer.gradients.values()):
            return peer
        scale /= 2


def check_case(options, folder, model, dtype, seed, micro):
    half = dtype in ("f16", "bf16")
    wide = "f32" if half else dtype
    path, file, metadata = make_input(options, folder, model, wide, seed)
    spec = models.parse(metadata["model"])
    if micro and (spec.get("norm") == "batch" or spec["batch"] <= micro):
        return None  # the statistics are those of a micro-batch; or there is nothing to cut
    words = ["--micro", str(micro)] if micro else []
    words += ["--amp", dtype] if half else []
    found, said, branches = run(options, path, path + ".out", *words)
    given = {"seed": int(said["seed"]), "step": int(said.get("step", 0))}
    truth = models.compute(spec, file, "f64", branches=branches, magnitudes=True, **given)
    peer = peer_of(spec, file, wide, dtype if half else None, float(said.get("scale", 1)),
                   branches=branches, **given)
    by_samples = bounds(spec, dtype, truth.magnitudes)
    limits = bounds(spec, dtype, {name: np.maximum(size, truth.terms.get(name, 0))
                                  for name, size in truth.magnitudes.items()})
    mine = {name: found["grad." + name] for name in limits}
    ours, coarse = (worst(mine, truth.gradients, each) for each in (limits, by_samples))
    theirs = worst(peer.gradients, truth.gradients, limits)

    unit = 1e-12 if dtype == "f64" else models.ROUNDOFF[dtype]
    allowed = next(iter(limits.values()))[1]
    loss = abs(float(found["loss"]) - truth.loss) / (unit * truth.loss_magnitude)
    outputs = norm(found["outputs"] - truth.outputs) / (unit * norm(truth.outputs))
    flips = sum(int((a != b).sum()) for a, b in zip(truth.branches, branches))
    strict = coarse if dtype == "f64" else ours
    good = strict[0] <= 1 and loss <= allowed and (dtype != "f64" or outputs <= 1)
    good = good and len(truth.branches) == len(branches)
    after = {key[len("after."):]: value for key, value in found.items() if key.startswith("after.")}
    statistics = statistics_error(after, truth, file) / unit
    statistics_peer = statistics_error(statistics_after(peer, file), truth, file) / unit
    good = good and statistics <= allowed

    # a bound that would let a wrong gradient through is none
    name = ours[3]
    spoilt = {key: found["grad." + key].astype(np.float64) for key in limits}
    spoilt[name] = spoilt[name] + 3 * limits[name][0] * limits[name][1] / spoilt[name].size ** 0.5
    good = good and not worst(spoilt, truth.gradients, limits)[0] <= 1
    print(f"{'ok' if good else 'WRONG':5} {model}{f' micro={micro}' if micro else ''} {dtype} "
          f"seed={seed}\n      gradients {ours[1]:.3g} of {ours[2]:.3g} ({ours[3]}), PyTorch "
          f"{theirs[1]:.3g}, by samples alone {coarse[1]:.3g} ({coarse[3]}); loss {loss:.3g}, outputs {outputs:.3g}, "
          f"statistics {statistics:.3g}, PyTorch {statistics_peer:.3g}; "
          f"branches that differ {flips}")
    return good, (spec["model"], dtype, strict[0], theirs[0])


# ---- finite differences --------------------------------------------------------------------------


def difference(options, path, file, metadata, move, h, branches):
    """(L(w + h move) - L(w - h move)) / 2h, the loss there, and how many branches changed."""
    losses, flipped = [], 0
    for sign in (1, -1):
        moved = dict(file)
        moved.update({name: file[name] + sign * h * way for name, way in move.items()})
        models.write(path + ".moved", moved, metadata)
        there, _, sides = run(options, path + ".moved", path + ".out")
        flipped += sum(int((a != b).sum()) for a, b in zip(sides, branches))
        losses.append(float(there["loss"]))
    return (losses[0] - losses[1]) / (2 * h), losses[0], flipped


def check_direction(options, path, file, metadata, move, found, branches):
    """(error, allowed, branches that changed), in units of sum |gradient * direction|."""
    slope = sum(float((found["grad." + name] * way).sum()) for name, way in move.items())
    size = sum(float(np.abs(found["grad." + name] * way).sum()) for name, way in move.items())
    flipped = 0
    for h in (2.0 ** -14, 2.0 ** -18, 2.0 ** -22):  # nearer, until no kink is crossed
        whole, loss, flipped = difference(options, path, file, metadata, move, h, branches)
        half, _, more = difference(options, path, file, metadata, move, h / 2, branches)
        flipped += more
        if not flipped:
            break
    rounding = 64 * 2.0 ** -53 * abs(loss) / (h * size)
    return abs((4 * half - whole) / 3 - slope) / size, 1e-8 + rounding, flipped  # Richardson


def check_differences(options, folder, model, seed):
    """The derivative of our loss along a direction, from our losses alone."""
    path, file, metadata = make_input(options, folder, model, "f64", seed)
    spec = models.parse(metadata["model"])
    names = [name for name, _ in models.shapes(spec)]
    found, _, branches = run(options, path, path + ".out")
    rng = np.random.default_rng(1000 + seed)
    verdicts, largest, changed = [], (0.0, 0.0, 0.0), 0
    for _ in range(DIRECTIONS):
        # each tensor moves by about its own size, so that none is lost among larger ones
        move = {name: rng.standard_normal(file[name].shape) *
                (np.abs(file[name]).mean() + 1e-3) for name in names}
        error, allowed, flipped = check_direction(options, path, file, metadata, move, found,
                                                  branches)
        changed += flipped
        # a kink on the way spoils the difference, not the gradient
        verdicts.append("ok" if error <= allowed else "kink" if flipped else "WRONG")
        largest = max(largest, (error / allowed, error, allowed))
    verdict = max(verdicts, key=("ok", "kink", "WRONG").index)
    print(f"{verdict:5} {model} seed={seed}: differences {largest[1]:.2g} of {largest[2]:.2g}, "
          f"branches that changed {changed}")
    return verdict


# ---- all -----------------------------------------------------------------------------------------


def check_all(options, folder):
    worst_of, good, differences = {}, True, {"ok": 0, "kink": 0, "WRONG": 0}
    chosen = options.model or CASES
    if options.only:
        chosen = [m for m in chosen if any(fnmatch.fnmatch(m, glob) for glob in options.only)]
    chosen = [m for m in chosen if takes(options, m, "--model", m)]
    dtypes = [d for d in options.dtypes if d in ("f64", "f32") or
              takes(options, d, "--model", "mlp", "--amp", d)]
    for model in chosen:
        for seed in options.seeds:
            for dtype in dtypes:
                for micro in (0, 2) if seed == options.seeds[0] else (0,):
                    answer = check_case(options, folder, model, dtype, seed, micro)
                    if answer is None:
                        continue
                    passed, row = answer
                    good = good and passed
                    key = row[:2]
                    old = worst_of.get(key, (0.0, 0.0, 0))
                    worst_of[key] = (max(old[0], row[2]), max(old[1], row[3]), old[2] + 1)
            differences[check_differences(options, folder, model, seed)] += 1
    print(f"\nPyTorch {torch.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}")
    print(f"{'model':6} {'dtype':5} {'cases':>5} {'worst / bound':>14} {'PyTorch / bound':>16}")
    for (model, dtype), (ours, theirs, count) in sorted(worst_of.items()):
        print(f"{model:6} {dtype:5} {count:5} {ours:14.3g} {theirs:16.3g}")
    print(f"finite differences: {differences['ok']} agree, {differences['kink']} crossed a kink, "
          f"{differences['WRONG']} do not agree")
    return 0 if good and worst_of and differences["ok"] and not differences["WRONG"] else 1


def main(given):
    options = arguments(given)
    if not os.access(options.oombench, os.X_OK):
        print(f"check-grad: no program '{options.oombench}'; make builds it", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    try:
        if options.keep:
            os.makedirs(options.keep, exist_ok=True)
            return check_all(options, options.keep)
        with tempfile.TemporaryDirectory() as folder:
            return check_all(options, folder)
    except Failed as error:
        print(f"check-grad: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
