#!/usr/bin/env python3
"""Times a training step on the host device beside PyTorch on the CPU.

    ci/oracle/step-time.py [--oombench build/oombench] [--threads 1 2] [--rounds 5] [--model MODEL]

Same model, weights, batch, threads and precision; forward, backward and AdamW's update of one
batch, after a first step that warms up. PyTorch runs as people write it (fused attention, max_pool2d,
its own dropout, channels last, AdamW fused where this version has that). The two take turns in
rounds, each of about a quarter of a second; what is printed are the medians over all rounds of each
round's median step, and the ratio of the two: above 1, oombench is slower. Beside it the ratio of
the two least steps, which others on the machine disturb less; with more threads than free
processors neither says much, as PyTorch's threads wait for each other by spinning.

bf16 is mixed precision on both sides (torch.autocast). PyTorch 1.13 or newer; exit 3 without it.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # nothing is left beside the sources
import models
from models import F, torch

MODELS = [
    "mlp,layers=4,width=256,rows=64,vocab=16,batch=32",
    "mlp,layers=8,width=64,rows=64,vocab=16,batch=64",
    "gpt,layers=4,width=64,heads=4,context=64,vocab=256,batch=32",
    "gpt,layers=4,width=256,heads=4,context=128,vocab=256,batch=4",
    "gpt,layers=2,width=128,heads=4,context=512,vocab=256,batch=2",
    "cnn,layers=4,width=16,image=32,stages=2,norm=batch,vocab=10,batch=16",
    "cnn,layers=4,width=32,image=16,stages=2,norm=group,groups=4,vocab=10,batch=16",
]
ROUND = 0.25  # seconds


class Plain(models.Run):
    """The same model in PyTorch's own terms: nothing is looked at."""

    def drop(self, x, layer):
        return F.dropout(x, self.spec["dropout"]) if self.spec["dropout"] else x

    def relu(self, x):
        return F.relu(x)

    def relu_image(self, x):
        return F.relu(x)

    def pool_image(self, x):
        return F.max_pool2d(x, 2)

    def attention(self, qkv, heads):
        if not hasattr(F, "scaled_dot_product_attention"):  # before 2.0
            return super().attention(qkv, heads)
        b, t, c = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        q, k, v = (x.view(b, t, heads, c // heads).transpose(1, 2) for x in qkv.split(c, 2))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).reshape(b, t, c)

    def convolution(self, x, name):
        return F.conv2d(x, self.w[name + ".weight"], padding=1)

    def see_statistics(self, x, name):
        pass

    def norm(self, x, name):
        if self.spec["norm"] == "group":
            return super().norm(x, name)
        mean, var = self.statistics.setdefault(
            name, (torch.zeros(x.shape[1]), torch.ones(x.shape[1])))
        return F.batch_norm(x, mean, var, self.w[name + ".gamma"], self.w[name + ".beta"], True,
                            0.1, models.EPS)


def native(name, array, model):
    """A weight as PyTorch would have it: convolutions (K,C,R,S), channels last."""
    tensor = torch.from_numpy(array)
    if model == "cnn" and tensor.dim() == 4:
        tensor = tensor.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return torch.nn.Parameter(tensor)


def adamw(parameters):
    try:
        return torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    except (TypeError, RuntimeError):  # not on the CPU in this version
        return torch.optim.AdamW(parameters, lr=1e-3)


class Peer:
    def __init__(self, spec, file, dtype):
        self.weights = {name: native(name, file[name], spec["model"])
                        for name, _ in models.shapes(spec)}
        self.run = Plain(spec, self.weights, file["batch.identities"])
        self.inputs = torch.from_numpy(file["batch.inputs"])
        if spec["model"] == "gpt":
            self.inputs = self.inputs.long()
        self.targets = torch.from_numpy(file["batch.targets"]).long().reshape(-1)
        self.optimizer = adamw(list(self.weights.values()))
        self.half, self.vocab = dtype == "bf16", spec["vocab"]

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            logits = self.run.forward(self.inputs).reshape(-1, self.vocab)
        F.cross_entropy(logits.float(), self.targets).backward()
        self.optimizer.step()

    def times(self, count):
        out = []
        for _ in range(count):
            begin = time.perf_counter()
            self.step()
            out.append(time.perf_counter() - begin)
        return statistics.median(out), min(out)


def ours(options, path, dtype, threads, count):
    words = [options.oombench, "grad", "--weights", path, "--threads", str(threads), "--time",
             str(count)] + (["--amp", "bf16"] if dtype == "bf16" else [])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"median ([0-9.]+) s, least ([0-9.]+) s", done.stdout)
    if done.returncode != 0 or not found:
        raise RuntimeError(done.stderr.strip() or f"{' '.join(words)}: exit {done.returncode}")
    return float(found.group(1)), float(found.group(2))


def compare(options, path, spec, file, dtype, threads):
    torch.set_num_threads(threads)
    peer = Peer(spec, file, dtype)
    peer.times(2)
    count = max(3, min(1000, int(ROUND / peer.times(3)[0])))
    rounds = [(ours(options, path, dtype, threads, count), peer.times(count))
              for _ in range(options.rounds)]
    medians = [statistics.median(side[which][0] for side in rounds) for which in (0, 1)]
    least = [min(side[which][1] for side in rounds) for which in (0, 1)]
    return (*medians, least[0] / least[1])


def main(arguments):
    parser = argparse.ArgumentParser(
        description="Times a training step of `oombench grad` beside PyTorch's on the CPU.")
    parser.add_argument("--oombench", default="build/oombench", metavar="FILE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--dtypes", nargs="+", choices=("f32", "bf16"), default=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--model", action="append", metavar="MODEL",
                        help="in place of the listed ones (may be repeated)")
    options = parser.parse_args(arguments)
    if not os.access(options.oombench, os.X_OK):
        print(f"step-time: no program '{options.oombench}'; make builds it", file=sys.stderr)
        return 2
    print(f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"
          if hasattr(torch.backends, "cpu") else f"PyTorch {torch.__version__}")
    print(f"{'model':72} dtype threads  oombench   PyTorch  ratio  of the least")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "given.safetensors")
        for model in options.model or MODELS:
            subprocess.run([options.oombench, "grad", "--model", model, "--init", path], check=True)
            file, metadata = models.read(path)
            spec = models.parse(metadata["model"])
            for dtype in options.dtypes:
                for threads in options.threads:
                    a, b, least = compare(options, path, spec, file, dtype, threads)
                    print(f"{model:72} {dtype:5} {threads:7} {a * 1e3:7.2f} ms {b * 1e3:6.2f} ms "
                          f"{a / b:6.2f} {least:13.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
