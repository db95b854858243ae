#!/usr/bin/env python3
"""Makes the golden files that harness/train/golden-test.c reads.

    ci/oracle/make-goldens.py [--out harness/train/goldens] [--list]

Each is a safetensors file with the weights and the batch of a small model (harness/train/given.h),
drawn here by numpy, and what PyTorch's autograd makes of them in f64, with dropout's masks from
ci/oracle/models.py:

    loss, loss_magnitude   []; the latter the sum of the samples' losses' absolute values
    grad.<name>            in the shape of the parameter
    magnitude.<name>       []; the 2-norm of S = sum over samples of |g_s|, elementwise
    after.<name>           running statistics of batch norm after the step

The metadata name the model, the seed of dropout, and the versions that made the file. oombench has
no part in them. PyTorch 1.13 or newer, and numpy; exit 3 where they are not there.
"""
import argparse
import os
import sys

sys.dont_write_bytecode = True  # nothing is left beside the sources
import models
from models import np, torch

MODELS = {
    "mlp": "mlp,layers=2,width=5,rows=3,vocab=4,batch=3",
    "mlp-dropout": "mlp,layers=2,width=6,rows=2,vocab=3,batch=4,dropout=0.25",
    "gpt-tiled": "gpt,layers=1,width=6,heads=2,context=5,vocab=7,batch=2,attention=tiled,tied=0",
    "gpt-scores": "gpt,layers=1,width=4,heads=1,context=7,vocab=5,batch=3,attention=scores,tied=0",
    "gpt-tied": "gpt,layers=2,width=4,heads=2,context=3,vocab=6,batch=3,attention=tiled,tied=1,"
                "dropout=0.125",
    "cnn-batch": "cnn,layers=2,width=2,image=4,stages=2,norm=batch,groups=1,vocab=3,batch=3",
    "cnn-group": "cnn,layers=2,width=2,image=4,stages=2,norm=group,groups=2,vocab=3,batch=3,"
                 "dropout=0.25",
}


def draw_weights(rng, spec):
    out = {}
    for name, shape in models.shapes(spec):
        fan = int(np.prod(shape[1:]))
        size = 0.1 if len(shape) == 1 or name.startswith(("embedding", "head")) else fan ** -0.5
        out[name] = rng.standard_normal(shape) * size + (1.0 if name.endswith("gamma") else 0.0)
        if ".norm" in name and name.endswith("gamma"):
            if spec.get("norm") == "batch":
                stem = name[:-len("gamma")]
                out[stem + "running_mean"] = rng.standard_normal(shape)
                out[stem + "running_var"] = rng.uniform(0.5, 1.5, shape)
    return out


def draw_batch(rng, spec):
    inputs, targets = models.batch_shapes(spec)
    weights = rng.integers(1, 9, targets) / 4.0
    weights.reshape(-1)[0] = 0.0
    return {
        "batch.inputs": (rng.integers(0, spec["vocab"], inputs).astype(np.int32)
                         if spec["model"] == "gpt" else rng.standard_normal(inputs)),
        "batch.targets": rng.integers(0, spec["vocab"], targets).astype(np.int32),
        "batch.weights": weights,
        "batch.identities": rng.integers(0, 2 ** 32, spec["batch"]).astype(np.int64),
    }


def make(name, seed):
    spec = models.parse(MODELS[name])
    rng = np.random.default_rng(seed)
    file = {**draw_weights(rng, spec), **draw_batch(rng, spec)}
    result = models.compute(spec, file, "f64", seed=seed, magnitudes=True)
    out = dict(file)
    out["loss"] = np.array(result.loss)
    out["loss_magnitude"] = np.array(result.loss_magnitude)
    for parameter, gradient in result.gradients.items():
        out["grad." + parameter] = gradient
        out["magnitude." + parameter] = np.array(np.linalg.norm(result.magnitudes[parameter]))
    for norm, values in result.statistics.items():
        for what, value in zip(("running_mean", "running_var"), values):
            out[f"after.{norm}.{what}"] = 0.9 * file[f"{norm}.{what}"] + 0.1 * value.numpy()
    metadata = {"model": MODELS[name], "dtype": "f64", "seed": str(seed),
                "pytorch": torch.__version__, "numpy": np.__version__,
                "python": sys.version.split()[0], "made by": "ci/oracle/make-goldens.py"}
    return out, metadata


def main(arguments):
    parser = argparse.ArgumentParser(description="Makes golden gradients by PyTorch in f64.")
    parser.add_argument("--out", default="harness/train/goldens", metavar="DIR",
                        help="folder (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="print names and models")
    options = parser.parse_args(arguments)
    if options.list:
        for name, model in MODELS.items():
            print(f"{name:12} {model}")
        return 0
    os.makedirs(options.out, exist_ok=True)
    torch.set_num_threads(1)
    for number, name in enumerate(MODELS):
        tensors, metadata = make(name, 20 + number)
        path = os.path.join(options.out, name + ".safetensors")
        models.write(path, tensors, metadata)
        print(f"{path:48} {os.path.getsize(path):7} bytes, loss {float(tensors['loss']):.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
