"""The models of oombench in PyTorch, built from what its files hold; see harness/train/given.h for
their layout. No script by itself: the others here import it.

Every model is written with torch.nn.functional, inside in PyTorch's own layout (images as NCHW).
A computation can follow the branches of another one (which side each ReLU took, which element each
max pooling chose), and dropout's masks are made here by Philox 4x32-10 from (seed, step, layer,
sample, element), as kernels/ops.h says. Works with PyTorch 1.13 or newer.
"""
import json
import struct
import sys

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except Exception as error:  # a broken installation fails in many ways
    print(f"{sys.argv[0]}: no PyTorch and numpy here ({type(error).__name__}: {error})",
          file=sys.stderr)
    sys.exit(3)

EPS = 1e-5
ROUNDOFF = {"f64": 2.0 ** -53, "f32": 2.0 ** -24, "f16": 2.0 ** -11, "bf16": 2.0 ** -8}
TORCH = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def version():
    return tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


if version() < (1, 13):
    print(f"{sys.argv[0]}: PyTorch {torch.__version__} is here, 1.13 or newer is needed",
          file=sys.stderr)
    sys.exit(3)


# ---- files ---------------------------------------------------------------------------------------

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32,
         "U8": np.uint8}


def read(path):
    """(tensors by name, metadata) of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        kind = np.dtype(NUMPY[entry["dtype"]]).newbyteorder("<")
        tensors[name] = np.frombuffer(data[begin:end], kind).reshape(entry["shape"]).astype(
            NUMPY[entry["dtype"]])
    return tensors, metadata


def write(path, tensors, metadata):
    """Wide types first, so that every element is aligned."""
    names = {np.dtype(kind): name for name, kind in NUMPY.items()}
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header, at = {"__metadata__": metadata}, 0
    for name in order:
        tensor = tensors[name]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


# ---- what a model is -----------------------------------------------------------------------------


def parse(text):
    """The canonical text, "gpt,layers=2,...", as a dict."""
    name, *pairs = text.split(",")
    spec = {"model": name, "dropout": 0.0}
    for pair in pairs:
        key, value = pair.split("=")
        spec[key] = (value if key in ("attention", "norm") else
                     float(value) if key == "dropout" else int(value))
    return spec


def shapes(spec):
    """Parameter names and shapes, in order."""
    return {"mlp": mlp_shapes, "gpt": gpt_shapes, "cnn": cnn_shapes}[spec["model"]](spec)


def batch_shapes(spec):
    b = spec["batch"]
    if spec["model"] == "cnn":
        return (b, spec["image"], spec["image"], 3), (b,)
    if spec["model"] == "gpt":
        return (b, spec["context"]), (b, spec["context"])
    return (b, spec["rows"], spec["width"]), (b, spec["rows"])


def terms(spec):
    """Terms of the longest sum over the batch: tokens, rows or pixels."""
    each = {"mlp": "rows", "gpt": "context", "cnn": "image"}[spec["model"]]
    return spec["batch"] * spec[each] ** (2 if spec["model"] == "cnn" else 1)


# ---- dropout -------------------------------------------------------------------------------------


def philox(counter, key):
    """Salmon et al. 2011: counter (n,4) and key (2) of 32 bits to words (n,4)."""
    c = [counter[:, i].astype(np.uint64) for i in range(4)]
    k = [int(word) for word in key]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), p1 & low,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, 1).astype(np.uint32)


def keep_mask(identities, elements, p, seed, step, layer):
    """(B, elements) of bool: what dropout leaves of each sample."""
    quads = (elements + 3) // 4
    counter = np.zeros((len(identities), quads, 4), np.uint64)
    counter[:, :, 0] = np.arange(quads)
    counter[:, :, 1] = np.asarray(identities)[:, None] & 0xFFFFFFFF
    counter[:, :, 2], counter[:, :, 3] = step, layer
    words = philox(counter.reshape(-1, 4), (seed & 0xFFFFFFFF, seed >> 32))
    words = words.reshape(len(identities), quads * 4)[:, :elements]
    return words >= np.uint32(int(p * 4294967296.0))


class Run:
    """One forward: its weights, and what decides on branches and masks."""

    def __init__(self, spec, weights, identities, seed=1, step=0, branches=None, training=True):
        self.spec, self.w, self.identities = spec, weights, identities
        self.seed, self.step, self.given = seed, step, branches
        self.training = training
        self.seen = []  # the branches that it would have taken by itself, in forward order
        self.statistics = {}
        self.statistics_sizes = {}  # of what is added up in them
        self.terms = None  # a dict: sums of what is added up for a gradient, term by term, as |term|

    def drop(self, x, layer):
        """x (B, ...), in the order of elements that oombench has (channels last)."""
        p = self.spec["dropout"]
        if p == 0 or not self.training:
            return x
        flat = x.reshape(x.shape[0], -1)
        mask = keep_mask(self.identities, flat.shape[1], p, self.seed, self.step, layer)
        kept = torch.where(torch.from_numpy(mask), flat / (1 - p), torch.zeros_like(flat))
        return kept.reshape(x.shape)

    def branch(self, own):
        """The branch to follow; `own` (B, ...) is in oombench's order of elements."""
        self.seen.append(own.reshape(own.shape[0], -1).to(torch.uint8).numpy())
        if self.given is None:
            return own
        return torch.from_numpy(self.given[len(self.seen) - 1].reshape(tuple(own.shape)))

    def relu(self, x):
        return x * self.branch(x.detach() > 0).to(x.dtype)

    def relu_image(self, x):  # NCHW
        side = self.branch((x.detach() > 0).permute(0, 2, 3, 1))
        return x * side.permute(0, 3, 1, 2).to(x.dtype)

    def pool_image(self, x):
        """Max over 2x2; what is left over at the edge is not looked at."""
        b, c, p, q = x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2
        windows = x[:, :, :2 * p, :2 * q].reshape(b, c, p, 2, q, 2).permute(0, 1, 2, 4, 3, 5)
        windows = windows.reshape(b, c, p, q, 4)
        _, index = F.max_pool2d(x.detach().float() if x.dtype in (torch.float16, torch.bfloat16)
                                else x.detach(), 2, return_indices=True)
        row, column = index // x.shape[3], index % x.shape[3]
        own = (row % 2) * 2 + column % 2
        chosen = self.branch(own.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return windows.gather(4, chosen.long()[..., None])[..., 0]

    def attention(self, qkv, heads):
        """Causal, (B,T,3C) to (B,T,C), with softmax written out: it is to be exact in f64."""
        b, t, c = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        q, k, v = (x.reshape(b, t, heads, c // heads).transpose(1, 2) for x in qkv.split(c, 2))
        scores = q @ k.transpose(2, 3) * (c // heads) ** -0.5
        future = torch.ones(t, t, dtype=torch.bool).triu(1)
        probs = scores.masked_fill(future, float("-inf")).softmax(3)
        return (probs @ v).transpose(1, 2).reshape(b, t, c)

    def convolution(self, x, name):
        weight = self.w[name + ".weight"].permute(0, 3, 1, 2)
        y = F.conv2d(x, weight, padding=1)
        if self.terms is not None:
            def see(dy):
                sums = torch.nn.grad.conv2d_weight(x.detach().abs(), weight.shape, dy.abs(),
                                                   padding=1)
                self.terms[name + ".weight"] = sums.permute(0, 2, 3, 1).numpy()
            y.register_hook(see)
        return y

    def norm(self, x, name):
        gamma, beta = self.w[name + ".gamma"], self.w[name + ".beta"]
        if self.spec["norm"] == "batch":
            self.see_statistics(x.detach(), name)
        y = self.normalised(x, gamma, beta)
        if self.terms is not None:
            def see(dy):
                xhat = self.normalised(x.detach(), None, None)
                self.terms[name + ".gamma"] = (dy * xhat).abs().sum((0, 2, 3)).numpy()
                self.terms[name + ".beta"] = dy.abs().sum((0, 2, 3)).numpy()
            y.register_hook(see)
        return y

    def normalised(self, x, gamma, beta):
        if self.spec["norm"] == "group":
            return F.group_norm(x, self.spec["groups"], gamma, beta, EPS)
        return F.batch_norm(x, None, None, gamma, beta, True, 0.0, EPS)

    def see_statistics(self, x, name):
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
        squares = (x * x).mean((0, 2, 3))
        self.statistics[name] = (mean, var)
        self.statistics_sizes[name] = (x.abs().mean((0, 2, 3)), (var * squares).sqrt())

    def unit(self, x, name, number=""):
        return self.norm(self.convolution(x, f"{name}.conv{number}"), f"{name}.norm{number}")

    def forward(self, inputs):
        return {"mlp": mlp, "gpt": gpt, "cnn": cnn}[self.spec["model"]](self, inputs)


# ---- mlp -----------------------------------------------------------------------------------------


def mlp_shapes(s):
    c, out = s["width"], []
    for layer in range(s["layers"]):
        out += [(f"layer{layer}.weight", (c, c)), (f"layer{layer}.bias", (c,))]
    return out + [("head.weight", (s["vocab"], c)), ("head.bias", (s["vocab"],))]


def mlp(run, x):
    for layer in range(run.spec["layers"]):
        x = F.linear(x, run.w[f"layer{layer}.weight"], run.w[f"layer{layer}.bias"])
        x = run.drop(run.relu(x), layer)
    return F.linear(x, run.w["head.weight"], run.w["head.bias"])


# ---- gpt -----------------------------------------------------------------------------------------


def gpt_shapes(s):
    c = s["width"]
    out = [("embedding.table", (s["vocab"], c)), ("embedding.position", (s["context"], c))]
    for i in range(s["layers"]):
        out += [(f"block{i}.{name}", shape) for name, shape in (
            ("ln1.gamma", (c,)), ("ln1.beta", (c,)),
            ("qkv.weight", (3 * c, c)), ("qkv.bias", (3 * c,)),
            ("proj.weight", (c, c)), ("proj.bias", (c,)),
            ("ln2.gamma", (c,)), ("ln2.beta", (c,)),
            ("fc.weight", (4 * c, c)), ("fc.bias", (4 * c,)),
            ("out.weight", (c, 4 * c)), ("out.bias", (c,)))]
    out += [("final.gamma", (c,)), ("final.beta", (c,))]
    return out if s["tied"] else out + [("head.weight", (s["vocab"], c))]


def gpt(run, tokens):
    s, w = run.spec, run.w
    c = s["width"]
    x = w["embedding.table"][tokens.long()] + w["embedding.position"][:tokens.shape[1]]
    x = run.drop(x, 0)
    for i in range(s["layers"]):
        p = f"block{i}."
        n = F.layer_norm(x, (c,), w[p + "ln1.gamma"], w[p + "ln1.beta"], EPS)
        a = run.attention(F.linear(n, w[p + "qkv.weight"], w[p + "qkv.bias"]), s["heads"])
        x = x + run.drop(F.linear(a, w[p + "proj.weight"], w[p + "proj.bias"]), 1 + 2 * i)
        n = F.layer_norm(x, (c,), w[p + "ln2.gamma"], w[p + "ln2.beta"], EPS)
        f = F.gelu(F.linear(n, w[p + "fc.weight"], w[p + "fc.bias"]), approximate="tanh")
        x = x + run.drop(F.linear(f, w[p + "out.weight"], w[p + "out.bias"]), 2 + 2 * i)
    x = F.layer_norm(x, (c,), w["final.gamma"], w["final.beta"], EPS)
    return F.linear(x, w["embedding.table" if s["tied"] else "head.weight"])


# ---- cnn -----------------------------------------------------------------------------------------


def cnn_plan(s):
    """(name, kind, input channels, output channels) in forward order."""
    c = s["width"]
    plan, block = [("stem", "stem", 3, c)], 0
    for stage in range(s["stages"]):
        if stage > 0:
            plan.append((f"transition{stage - 1}", "transition", c, 2 * c))
            c *= 2
        for _ in range(s["layers"] // s["stages"]):
            plan.append((f"block{block}", "block", c, c))
            block += 1
    return plan, c


def cnn_shapes(s):
    plan, last = cnn_plan(s)
    out = []
    for name, kind, before, after in plan:
        for number in ("1", "2") if kind == "block" else ("",):
            out += [(f"{name}.conv{number}.weight", (after, 3, 3, before)),
                    (f"{name}.norm{number}.gamma", (after,)),
                    (f"{name}.norm{number}.beta", (after,))]
    return out + [("head.weight", (s["vocab"], last)), ("head.bias", (s["vocab"],))]


def cnn(run, images):
    plan, _ = cnn_plan(run.spec)
    x = images.permute(0, 3, 1, 2)
    for name, kind, _, _ in plan:
        if kind == "block":
            inner = run.relu_image(run.unit(x, name, "1"))
            x = run.relu_image(x + run.unit(inner, name, "2"))
        else:
            x = run.relu_image(run.unit(x, name))
            if kind == "transition":
                x = run.pool_image(x)
    x = run.drop(x.mean((2, 3)), 0)
    return F.linear(x, run.w["head.weight"], run.w["head.bias"])


# ---- gradients -----------------------------------------------------------------------------------


class Result:
    loss = outputs = None
    gradients, branches = {}, []
    magnitudes = None      # by parameter: S = sum over samples of |g_s|
    terms = None           # of convolutions and norms: the sum over samples and pixels of |term|
    loss_magnitude = None  # and of the losses


def compute(spec, file, dtype, seed=1, step=0, branches=None, magnitudes=False, autocast=None,
            scale=1.0):
    """Loss, outputs and gradients of one batch; `file` holds weights and batch by name. The
    gradients are those of scale * loss, divided by the scale."""
    kind = TORCH[dtype]
    weights = {name: torch.from_numpy(file[name]).to(kind).requires_grad_(True)
               for name, _ in shapes(spec)}
    inputs = torch.from_numpy(file["batch.inputs"])
    inputs = inputs if spec["model"] == "gpt" else inputs.to(kind)
    targets = torch.from_numpy(file["batch.targets"]).long()
    share = torch.from_numpy(file["batch.weights"]).double()
    share = (share / share.sum()).to(kind)
    run = Run(spec, weights, file["batch.identities"], seed, step, branches)
    run.terms = {} if magnitudes else None
    with torch.autocast("cpu", TORCH[autocast or "bf16"], enabled=autocast is not None):
        outputs = run.forward(inputs)
        logits = outputs.to(kind).reshape(-1, spec["vocab"])
        losses = F.cross_entropy(logits, targets.reshape(-1), reduction="none")
    losses = (losses.reshape(share.shape) * share).reshape(spec["batch"], -1).sum(1)

    result, names = Result(), list(weights)
    leaves = [weights[name] for name in names]
    result.loss, result.outputs = float(losses.detach().sum()), outputs.detach().to(kind).numpy()
    result.branches, result.statistics = run.seen, run.statistics
    result.statistics_sizes = run.statistics_sizes
    if magnitudes:
        sums = [np.zeros(tuple(leaf.shape)) for leaf in leaves]
        for loss in losses:
            for total, part in zip(sums, torch.autograd.grad(loss, leaves, retain_graph=True)):
                total += part.abs().numpy()
        result.magnitudes = dict(zip(names, sums))
        result.loss_magnitude = float(losses.detach().abs().sum())
    gradients = torch.autograd.grad(losses.sum() * scale, leaves)
    result.terms = run.terms  # of the last backward, that of the whole loss
    result.gradients = {name: part.numpy() / scale for name, part in zip(names, gradients)}
    return result
