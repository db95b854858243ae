#!/usr/bin/env python3
"""Records what PyTorch's caching allocator does while small models train on a GPU.

    ci/oracle/record-snapshots.py [--out DIR] [--only NAME ...] [--list]

Every case runs in a process of its own, with its PYTORCH_CUDA_ALLOC_CONF and with the history
recorded from before the first allocation, without stack frames, so that the file holds nothing but
sizes, addresses and times. A file above 1 MB is refused: make the case smaller. The table at the
end says which versions made the files. Exit status: 0 all recorded, 1 a case failed, 2 wrong
usage, 3 no PyTorch or no CUDA device.
"""
import argparse
import os
import pickle
import subprocess
import sys

LIMIT = 1_000_000
MIB = 1 << 20

# name: (settings string, what happens, share of the card the process may use or None)
CASES = {
    "default": ("", "train", None),
    "expandable": ("expandable_segments:True", "train", None),
    "max-split-20": ("max_split_size_mb:20", "train_large", None),
    "roundup-4": ("roundup_power2_divisions:4", "train", None),
    "gc-fraction": ("garbage_collection_threshold:0.6", "lengths", 1024 * MIB),
    "three-streams": ("", "streams", None),
    "expandable-streams": ("expandable_segments:True", "streams", None),
    "ends-in-oom": ("", "until_oom", 1024 * MIB),
}


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Records PyTorch allocator snapshots of small training runs on a GPU.")
    parser.add_argument("--out", default="harness/memory/traces", metavar="DIR",
                        help="folder for the recordings (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME",
                        help="these cases: " + ", ".join(CASES))
    parser.add_argument("--list", action="store_true", help="print the cases and their settings")
    parser.add_argument("--case", choices=sorted(CASES), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def load_torch():
    """The module, or None after saying why it cannot be used."""
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways
        print(f"record-snapshots: no PyTorch here ({type(error).__name__}: {error})",
              file=sys.stderr)
        return None
    if not torch.cuda.is_available():
        print(f"record-snapshots: PyTorch {torch.__version__} finds no CUDA device",
              file=sys.stderr)
        return None
    return torch


# ---- what is recorded; each is a few training steps -------------------------------------------


def model(torch, width, depth):
    layers = []
    for _ in range(depth):
        layers += [torch.nn.Linear(width, 4 * width), torch.nn.GELU(),
                   torch.nn.Linear(4 * width, width)]
    return torch.nn.Sequential(*layers).cuda()


def step(net, optimizer, batch):
    loss = net(batch).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def train(torch, width=512, rows=256):
    net = model(torch, width, 3)
    optimizer = torch.optim.AdamW(net.parameters(), foreach=False, fused=False)
    for _ in range(4):
        step(net, optimizer, torch.ones(rows, width, device="cuda"))
    torch.cuda.empty_cache()
    step(net, optimizer, torch.ones(rows // 2, width, device="cuda"))


def train_large(torch):
    """Weights and activations above the 20 MiB that may not be split."""
    train(torch, width=2048, rows=4096)


def lengths(torch):
    """Batches of changing length, so that the cache holds blocks that fit nobody."""
    net = model(torch, 512, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, foreach=False)
    for i in range(12):
        step(net, optimizer, torch.ones(3072 + 1024 * (i * 5 % 7), 512, device="cuda"))


def streams(torch):
    """Blocks that other streams use when they are freed."""
    side = [torch.cuda.Stream() for _ in range(3)]
    kept = []
    for i in range(24):
        data = torch.ones((i % 5 + 1) * 300_000, device="cuda")
        stream = side[i % 3]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = data * 2
            data.record_stream(stream)
            kept.append(result)
        del data, result
        if i % 4 == 3:
            kept.pop(0)
            torch.cuda.synchronize()
    torch.cuda.synchronize()


def until_oom(torch):
    """Larger and larger batches; the error is what is wanted."""
    net = model(torch, 512, 2)
    optimizer = torch.optim.AdamW(net.parameters(), foreach=False, fused=False)
    try:
        for i in range(40):
            step(net, optimizer, torch.ones(4096 * (i + 1), 512, device="cuda"))
    except torch.cuda.OutOfMemoryError:
        return
    raise RuntimeError("no OutOfMemoryError: the memory fraction was not kept")


# ---- one case, in its own process -------------------------------------------------------------


def record(torch, name, path):
    _, what, limit = CASES[name]
    torch.cuda.init()
    if limit is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), 0)
    if torch.cuda.memory_reserved() != 0:
        raise RuntimeError("something was allocated before the recording began")
    torch.cuda.memory._record_memory_history("all", context=None, stacks="python")
    torch.manual_seed(1)
    globals()[what](torch)
    torch.cuda.synchronize()
    torch.cuda.memory._dump_snapshot(path)
    torch.cuda.memory._record_memory_history(None)


def run_case(name, path):
    environment = dict(os.environ)
    environment.pop("PYTORCH_ALLOC_CONF", None)
    environment.pop("PYTORCH_CUDA_ALLOC_CONF", None)
    if CASES[name][0]:
        environment["PYTORCH_CUDA_ALLOC_CONF"] = CASES[name][0]
    command = [sys.executable, os.path.abspath(__file__), "--case", name, "--out", path]
    return subprocess.run(command, env=environment, check=False).returncode == 0


def judge(path):
    """(events, allocations, segments, bytes), or a sentence saying why it cannot be kept."""
    size = os.path.getsize(path)
    if size > LIMIT:
        return f"{size} bytes; at most {LIMIT} are kept"
    with open(path, "rb") as file:
        snapshot = pickle.load(file)  # our own, made a moment ago
    events = [event for trace in snapshot["device_traces"] for event in trace]
    if any(event.get("frames") for event in events):
        return "it holds stack frames"
    if not events or events[0]["action"] not in ("segment_alloc", "segment_map"):
        return "it does not begin with an empty allocator"
    allocations = sum(event["action"] == "alloc" for event in events)
    return len(events), allocations, len(snapshot["segments"]), size


def main(arguments):
    options = parse(arguments)
    if options.list:
        for name, (conf, what, limit) in CASES.items():
            share = f", at most {limit // MIB} MiB" if limit else ""
            print(f"{name:20} {conf or '(defaults)'}: {what}{share}")
        return 0
    torch = load_torch()
    if torch is None:
        return 3
    if options.case:
        record(torch, options.case, options.out)
        return 0
    os.makedirs(options.out, exist_ok=True)
    failed = 0
    print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, "
          f"{torch.cuda.get_device_name(0)}, Python {sys.version.split()[0]}")
    print(f"{'file':32} {'events':>7} {'allocs':>7} {'segments':>8} {'bytes':>8}")
    for name in options.only or CASES:
        path = os.path.join(options.out, f"{name}.pickle")
        verdict = judge(path) if run_case(name, path) else "the case failed"
        if isinstance(verdict, str):
            failed = 1
            print(f"{name + '.pickle':32} {verdict}")
            if os.path.exists(path):
                os.remove(path)
        else:
            print(f"{name + '.pickle':32} {verdict[0]:7} {verdict[1]:7} {verdict[2]:8} "
                  f"{verdict[3]:8}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
