#!/usr/bin/env python3
"""Writes what torch.amp.GradScaler does over thousands of steps, as a golden file.

    ci/oracle/grad-scaler.py [--out harness/train/goldens/grad-scaler.txt] [--check FILE]

The scaler really runs: each step sets a parameter's gradient (finite, or with an infinity or a NaN
by the script below), calls scale, step and update, and looks at whether SGD moved the parameter.
The file describes its own format. --check compares a file with what this PyTorch does.

The script of a setting with n steps is drawn by numpy.random.default_rng(seed): three bursts of 1 to
40 bad steps in a row, n/(2 interval) bad steps anywhere (2 at least, n/100 at most), and the very
first step and the step after the first growth are bad too.

GradScaler on the CPU came with PyTorch 2.3. Exit status: 0 done, 1 --check found a difference, 2
wrong usage, 3 no such PyTorch here.
"""
import argparse
import sys

sys.dont_write_bytecode = True  # nothing is left beside the sources
import models
from models import np, torch

# steps, initial scale, growth, backoff, interval, seed of the script
SETTINGS = [
    (10000, 65536.0, 2.0, 0.5, 2000, 1),
    (10000, 1.0, 2.0, 0.5, 500, 2),
    (1500, 65536.0, 2.0, 0.5, 7, 3),
    (400, 65536.0, 2.0, 0.5, 1, 4),  # grows until only infinity would be larger
    (1000, 1000.0, 1.1, 0.7, 20, 5),  # factors that no float is equal to
    (300, 3.0, 4.0, 0.25, 3, 6),
]

FORMAT = """\
# What torch.amp.GradScaler does, step by step; made by ci/oracle/grad-scaler.py.
# One setting after another, each:
#   setting STEPS INITIAL GROWTH BACKOFF INTERVAL
#           INITIAL: the scale before step 0, a float; GROWTH, BACKOFF: doubles; all in hexadecimal
#   bad FIRST COUNT
#           gradients of steps FIRST .. FIRST + COUNT - 1 hold an infinity or a NaN, and the
#           optimizer skipped these steps; all others are finite, and it took them
#   run FIRST COUNT SCALE TRACKER EACH
#           after step FIRST + i, 0 <= i < COUNT, the scale is SCALE (a float) and the number of
#           clean steps since it last changed (the growth tracker) is TRACKER + i * EACH
#   end
# Lines are in the order of steps; the runs of a setting cover every step once.
"""


def script(steps, interval, seed):
    """The bad steps, each with what is in its gradients."""
    rng = np.random.default_rng(seed)
    bad = {0}
    for _ in range(3):
        first = int(rng.integers(steps))
        bad.update(range(first, min(steps, first + int(rng.integers(1, 41)))))
    anywhere = max(2, min(steps // (2 * interval), steps // 100))
    bad.update(int(step) for step in rng.integers(steps, size=anywhere))
    if interval + 1 < steps:
        bad.add(interval + 1)
    kinds = (float("inf"), float("-inf"), float("nan"))
    return {step: kinds[int(rng.integers(3))] for step in sorted(bad)}


def drive(steps, initial, growth, backoff, interval, seed):
    """(scale, growth tracker) after each step; PyTorch must skip exactly the bad ones."""
    scaler = torch.amp.GradScaler("cpu", init_scale=initial, growth_factor=growth,
                                  backoff_factor=backoff, growth_interval=interval)
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    bad, history = script(steps, interval, seed), []
    for step in range(steps):
        scaler.scale(torch.zeros(()))
        with torch.no_grad():
            weight.zero_()
        weight.grad = torch.tensor([1.0, bad.get(step, 1.0), 1.0])
        scaler.step(optimizer)
        if bool((weight != 0).any()) == (step in bad) or scaler.get_scale() < 2.0 ** -126:
            raise RuntimeError(f"step {step} of seed {seed}: not a case for this file")
        scaler.update()
        history.append((scaler.get_scale(), scaler._get_growth_tracker()))
    return sorted(bad), history


def bad_lines(bad):
    first = previous = None
    for step in bad + [None]:
        if previous is not None and step == previous + 1:
            previous = step
            continue
        if previous is not None:
            yield f"bad {first} {previous - first + 1}"
        first = previous = step


def run_lines(history):
    at = 0
    while at < len(history):
        scale, tracker = history[at]
        end, each = at + 1, 0
        if end < len(history) and history[end][0] == scale:
            each = history[end][1] - tracker
        if each in (0, 1):
            while end < len(history) and history[end] == (scale, tracker + (end - at) * each):
                end += 1
        yield f"run {at} {end - at} {float(scale).hex()} {tracker} {each if end > at + 1 else 0}"
        at = end


def lines():
    yield FORMAT + f"# PyTorch {torch.__version__}, numpy {np.__version__}"
    for setting in SETTINGS:
        steps, initial, growth, backoff, interval, _ = setting
        bad, history = drive(*setting)
        yield f"setting {steps} {initial.hex()} {growth.hex()} {backoff.hex()} {interval}"
        yield from bad_lines(bad)
        yield from run_lines(history)
        yield "end"


def told(text):
    """What a file says, without its comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def main(arguments):
    parser = argparse.ArgumentParser(description="Records torch.amp.GradScaler as a golden file.")
    parser.add_argument("--out", default="harness/train/goldens/grad-scaler.txt", metavar="FILE",
                        help="where to (default %(default)s)")
    parser.add_argument("--check", metavar="FILE", help="compare, write nothing")
    options = parser.parse_args(arguments)
    if models.version() < (2, 3):
        print(f"grad-scaler: PyTorch {torch.__version__} is here; GradScaler on the CPU needs 2.3",
              file=sys.stderr)
        return 3
    torch.set_num_threads(1)
    text = "\n".join(lines()) + "\n"
    if options.check:
        with open(options.check, encoding="ascii") as file:
            same = told(file.read()) == told(text)
        print(f"{options.check}: {'as' if same else 'not as'} PyTorch {torch.__version__} has it")
        return 0 if same else 1
    with open(options.out, "w", encoding="ascii") as file:
        file.write(text)
    print(f"{options.out}: {len(text)} bytes, {len(SETTINGS)} settings, PyTorch {torch.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
