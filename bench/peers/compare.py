#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The engine and its peers, side by side in one run: PyTorch and BackPACK at their best.

    compare.py [--engine bench_engine] [--device cpu|cuda] [--precision P] [--threads N] [--rounds N]
               [--seconds S] [--samples N] [--epochs N] [--data-dir FOLDER] [--libraries PATH]
               [--networks] [--no-compile] [--quick] [--out FILE] [CASE...]

The engine is `bench_engine --serve`, a process that sleeps while a peer is measured. Cases are those
of bench_engine that a peer has: train, fisher, step, or names such as fisher/exact; with --networks
conv and network, or names such as network/cnn. A case comes in a process of its own, so that one that
fails costs itself only.

Correctness first: the engine's F on all samples is compared with squared products in float64 on the
same inputs and weights, these with a loop over single samples, and each peer's F with both; a step of
PyTorch written in two ways must give the same weights. What is wrong has no time. Then engine and peer
take turns, A B A B; what is written is the median and the 10th and 90th percentile of both times and
of the ratios peer / engine of each turn, one JSON object per case and peer. A role says whether a peer is
what people write ("usual") or what an expert would ("strongest"). Batches of peers are the best of
several. TF32 is off but in the variants named so. After --seconds, from the start of the program, there
is a table of what has been measured and a line of what has not, which makes the exit status 1.
--threads: of both sides; on a machine that others use, too, 1 is fair: threads of PyTorch wait busily
for those that are not running.
"""
import time

START = time.time()  # torch takes seconds to come

import argparse
import ctypes
import functools
import gc
import json
import math
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import warnings

import torch
import torch.nn.functional as F

CLASSES = 10
FULL_CUDA = dict(widths=(784, 400, 400, CLASSES), batch=128, parameters=1 << 27, loop=64,
                 batches=(128, 1024, 4096, 8192, 20000), checked=60000, slice=0.1)
FULL_CPU = dict(FULL_CUDA, parameters=1 << 25, batches=(64, 128, 256, 512, 1024, 2048),
                checked=4096, slice=0.25)
QUICK = dict(widths=(64, 16, 16, CLASSES), batch=16, parameters=1 << 12, loop=8, batches=(16, 32),
             checked=96, slice=0.0)
LAMBDA = 1e-3
LEAST_PEERS = 2  # of a case, however little time there is
# Of F, in norm, from float64: that of trained networks is 7e-6 to 9e-5 off in bf16x3, as logits are.
ALLOWED = dict(fp32=1e-5, bf16x3=2e-4, tf32=2e-3)
PAUSE = 0.01  # before each measurement: the other side's threads wait busily for a while
MISSING = "missing"  # a file: what has not been measured, a line each
ENDING = 2.0  # seconds in which a process that is ended gives back its GPU, and the table is written


def log(text):
    print("compare: " + text, file=sys.stderr, flush=True)


def allow_tf32(allowed):
    """In products and convolutions, for which PyTorch allows it by itself."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def with_tf32(run):
    def wrapped(*operands):
        allow_tf32(True)
        try:
            return run(*operands)
        finally:
            allow_tf32(False)

    return wrapped


class OutOfTime(Exception):
    pass


def out_of_time(signal_, frame):
    raise OutOfTime("there is no time left")


def relative_error(a, b):
    """Of the norm, and the largest over entries above 1e-6 of the largest."""
    a, b = a.double().cpu(), b.double().cpu()
    large = b > 1e-6 * b.max()
    return float((a - b).norm() / b.norm()), float(((a - b).abs() / b)[large].max())


def must_agree(name, a, b, allowed):
    errors = relative_error(a, b)
    if not errors[0] <= allowed:
        raise ValueError(f"{name}: relative error {errors[0]:.2g}, allowed {allowed:g}")
    return errors


# ---- The engine ----------------------------------------------------------------------------------


def status_mib(pid, field):
    """Of a process: VmRSS, what is resident, or VmHWM, the most that has been."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":")) / 1024


class Engine:
    """bench_engine --serve (bench/serve.h)."""

    def __init__(self, options):
        self.options = options
        command = [options.engine, "--serve", "--device", options.device, "--epochs",
                   str(options.epochs)]
        command += ["--samples", str(options.samples)] if options.samples else []
        command += ["--precision", options.precision] if options.precision else []
        command += ["--threads", str(options.threads)] if options.threads else []
        command += ["--data-dir", options.data_dir] if options.data_dir else []
        command += ["--quick"] if options.quick else []
        command += ["--networks"] if options.networks else []
        env = dict(os.environ)
        if options.libraries is not None:
            env["LD_LIBRARY_PATH"] = options.libraries
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1, env=env)
        try:
            hello = json.loads(self.answer())
        except OutOfTime:
            self.close()
            raise
        self.cases, self.env = hello["cases"], hello["env"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the engine has ended")
        return line

    def ask(self, what, operand):
        self.process.stdin.write(f"{what} {operand}\n")
        return self.answer().split()

    def ms(self, case):
        time.sleep(PAUSE)
        return float(self.ask("run", case)[0])

    def peak_mib(self, case):
        """What a process that does this alone needs beside what it has before, and beside the inputs and
        gradients of a convolution, which its peers have before."""
        alone = Engine(self.options)
        before = status_mib(alone.process.pid, "VmRSS")
        alone.ms(case)
        peak = status_mib(alone.process.pid, "VmHWM")
        alone.close()
        given = 0
        if case.startswith("conv/") and not self.options.quick:
            channels, side = (int(n) for n in case.split("/")[1].split("x"))
            given = 2 * FULL_CPU["batch"] * channels * side * side * 4
        return peak - before - given / 2**20

    def floor(self, case):
        ms, bound = self.ask("floor", case)
        return float(ms), bound

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:  # busy for a process that was ended
            self.process.kill()
            self.process.wait()


# ---- The device ----------------------------------------------------------------------------------


class Device:
    def __init__(self, name):
        self.name = name
        self.is_cuda = name.startswith("cuda")
        torch.manual_seed(1)
        torch.set_float32_matmul_precision("highest")
        allow_tf32(False)

    def sync(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def captured(self, run):
        """`run` as one replay of a CUDA graph; elsewhere as it is."""
        if not self.is_cuda:
            return run
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()

        def replay(run=run):  # which keeps the tensors that the graph works on
            graph.replay()

        return replay

    def seconds(self, run):
        self.sync()
        begin = time.perf_counter()
        run()
        self.sync()
        return time.perf_counter() - begin


# ---- Data and network: the engine's own ----------------------------------------------------------


def read_array(path, dtype=torch.float32):
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=dtype)


class Data:
    """Inputs of task 1 as bytes that a permutation is applied to, and the order in which they are
    read, on the device; the engine's weights and its F in a Fisher case."""

    def __init__(self, device, sizes, folder, case):
        self.labels = read_array(folder / "labels", torch.int32).long().to(device.name)
        inputs = read_array(folder / "inputs").view(len(self.labels), -1)
        pixels = sizes["widths"][0]
        self.pixels = torch.randperm(pixels, device=device.name)  # undone in the stored bytes
        bytes_ = (inputs * 255).round().to(torch.uint8).to(device.name)
        self.images = torch.empty_like(bytes_)
        self.images[:, self.pixels] = bytes_
        name = case.replace("/", "-") if case.startswith("fisher") else "fisher-empirical"
        self.theta = read_array(folder / (name + ".theta")).to(device.name)
        self.fisher = read_array(folder / (name + ".F"))
        self.order = torch.randperm(len(self.labels), device=device.name)
        self.offsets = torch.arange(sizes["batch"], device=device.name)
        self.position = torch.zeros((), dtype=torch.int64, device=device.name)

    def rows(self, rows):
        return self.images[rows][:, self.pixels].float() / 255, self.labels[rows]

    def next(self):
        rows = self.order[(self.position + self.offsets) % len(self.order)]
        self.position += len(self.offsets)
        return self.rows(rows)


def network_create(device, sizes, theta):
    layers, at = [], 0
    for inputs, outputs in zip(sizes["widths"], sizes["widths"][1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).to(device.name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(theta[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()
    return network


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


# ---- Training step: loss, penalty LAMBDA / 2 sum S (theta - mu)^2, optimizer ----------------------


class Training:
    def __init__(self, network, data):
        self.network, self.data = network, data
        self.parameters = list(network.parameters())
        self.mu = [p.detach().clone() for p in self.parameters]
        self.s = [torch.ones_like(p) for p in self.parameters]
        self.loss = lambda x, labels: F.cross_entropy(network(x), labels)
        self.penalised = self.loss_and_penalty

    @classmethod
    def of_perceptron(cls, device, sizes, data, kind, fused):
        self = cls(network_create(device, sizes, data.theta), data)
        how = dict(fused=True) if fused else dict(foreach=True)
        if kind == "sgd":
            self.optimizer = torch.optim.SGD(self.parameters, lr=0.01, **how)
        else:
            if fused and device.is_cuda:
                how["capturable"] = True
            self.optimizer = torch.optim.Adam(self.parameters, lr=1e-4, **how)
        return self

    @classmethod
    def of_network(cls, device, data, name, layout):
        """foreach, which a graph can have; fused may refuse gradients whose layout is not the weights'."""
        self = cls(same_network(device, data, name).to(memory_format=layout).train(), data)
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.01, momentum=0.9, foreach=True)
        self.loss = lambda x, labels: F.cross_entropy(
            self.network(x.contiguous(memory_format=layout)), labels)
        return self

    def loss_and_penalty(self, x, labels):
        penalty = 0.0
        for p, mu, s in zip(self.parameters, self.mu, self.s):
            penalty = penalty + (s * (p - mu) ** 2).sum()
        return self.loss(x, labels) + 0.5 * LAMBDA * penalty

    def usual_step(self):
        """The penalty through autograd."""
        x, labels = self.data.next()
        self.optimizer.zero_grad()
        self.penalised(x, labels).backward()
        self.optimizer.step()

    def best_step(self):
        """The penalty's gradient added to the other, all tensors at a time."""
        x, labels = self.data.next()
        gradients = list(torch.autograd.grad(self.loss(x, labels), self.parameters))
        with torch.no_grad():
            away = torch._foreach_sub(self.parameters, self.mu)
            torch._foreach_addcmul_(gradients, away, self.s, LAMBDA)
        for p, g in zip(self.parameters, gradients):
            p.grad = g
        self.optimizer.step()


def later(make, peer, *operands, **more):
    """What a maker of variants yields: a peer's name, and what makes it, which takes its time."""
    return peer, functools.partial(make, peer, *operands, **more)


def captured_step(peer, device, make, n, tf32=False, weigh=None, **more):
    """The best step of the training that `make` gives, as a graph."""
    step = make().best_step
    peak = weigh(step) if weigh else None  # before: a graph keeps its memory
    capture = lambda: device.captured(step)
    run = with_tf32(capture)() if tf32 else capture()
    return Variant(peer, "strongest", run, n=n, tf32=tf32, peak=peak, **more)


def graphs(device, make, n, weigh=None, errors=None):
    yield later(captured_step, "graph", device, make, n, weigh=weigh, errors=errors)
    yield later(captured_step, "graph tf32", device, make, n, tf32=True, weigh=weigh)


def training_variants(device, sizes, data, options, case):
    kind = case.split("/")[1].split("+")[0]
    usual = Training.of_perceptron(device, sizes, data, kind, fused=False)
    best = Training.of_perceptron(device, sizes, data, kind, fused=True)
    for training, step in ((usual, usual.usual_step), (best, best.best_step)):
        data.position.zero_()
        for _ in range(10):
            step()
    # Where Adam's first steps have the sign of a gradient, rounding may turn it.
    errors = must_agree(case, flat(best.parameters), flat(usual.parameters), 1e-3)
    n = sizes["batch"]
    make = lambda: Training.of_perceptron(device, sizes, data, kind, fused=True)
    if case.endswith("+resident"):  # the engine's alone; what it is measured against is above
        yield later(captured_step, "graph", device, make, n, errors=errors)
        return
    yield later(Variant, "eager", "usual", usual.usual_step, n=n, errors=errors)
    if device.is_cuda:
        yield from graphs(device, make, n, errors=errors)
    else:
        yield later(Variant, "fused", "strongest", best.best_step, n=n, errors=errors)

    def compiled(peer):
        fast = make()
        fast.penalised = torch.compile(fast.penalised)
        fast.usual_step()
        return Variant(peer, "strongest", device.captured(fast.usual_step), n=n)

    if options.compile:
        yield later(compiled, "compile+" + ("graph" if device.is_cuda else "fused"))


# ---- Fisher pass: F = mean over samples of the squared gradients ----------------------------------


def activations(weights, x):
    inputs = [x]
    for i in range(0, len(weights), 2):
        y = F.linear(inputs[-1], weights[i], weights[i + 1])
        inputs.append(y.relu_() if i + 2 < len(weights) else y)
    return inputs[:-1], inputs[-1]


def squared_gradients(weights, x, labels, exact, sums):
    """Adds to `sums`; with `exact` over all labels, each by its probability, as repeats of rows."""
    inputs, logits = activations(weights, x)
    p = logits.softmax(1)
    one_hot = torch.eye(CLASSES, device=x.device, dtype=x.dtype)
    if exact:  # (CLASSES, rows, CLASSES)
        delta = (p - one_hot[:, None, :]) * p.T.sqrt()[:, :, None]
    else:
        delta = (p - one_hot[labels])[None]
    for layer in reversed(range(len(inputs))):
        square = delta.square().sum(0)
        sums[2 * layer].addmm_(square.T, inputs[layer].square())
        sums[2 * layer + 1] += square.sum(0)
        if layer > 0:
            delta = (delta @ weights[2 * layer]).mul_(inputs[layer] > 0)


def products(weights, data, count, batch, exact):
    """By squared matrix products."""
    sums = [torch.zeros_like(w) for w in weights]
    with torch.no_grad():
        for start in range(0, count, batch):
            x, labels = data.rows(slice(start, min(start + batch, count)))
            squared_gradients(weights, x.to(weights[0].dtype), labels, exact, sums)
    return flat(sums) / count


def one_by_one(network, data, count, exact):
    """One sample and one label at a time."""
    parameters = list(network.parameters())
    sums = [torch.zeros_like(p) for p in parameters]
    for i in range(count):
        x, labels = data.rows(slice(i, i + 1))
        for label in range(CLASSES) if exact else [int(labels)]:
            p = network(x.to(parameters[0].dtype)).log_softmax(1)[0, label]
            weight = float(p.detach().exp()) if exact else 1.0
            with torch.no_grad():
                for total, g in zip(sums, torch.autograd.grad(p, parameters)):
                    total.addcmul_(g, g, value=weight)
    return flat(sums) / count


def by_backpack(network, data, count, batch, exact):
    from backpack import backpack, extensions

    parameters = list(network.parameters())
    sums = [torch.zeros_like(p) for p in parameters]
    extension = extensions.DiagGGNExact() if exact else extensions.SumGradSquared()
    for start in range(0, count, batch):
        x, labels = data.rows(slice(start, min(start + batch, count)))
        with backpack(extension):
            by_backpack.loss(network(x), labels).backward()
        for total, p in zip(sums, parameters):
            total += getattr(p, extension.savefield)
            p.grad = None
    return flat(sums) / count


def by_functional(network, data, count, batch, exact):
    """Per-sample gradients by vmap over grad, squared and added."""
    weights = {name: p.detach() for name, p in network.named_parameters()}

    def loss(w, x, label):
        logits = torch.func.functional_call(network, w, (x[None],))
        return F.cross_entropy(logits, label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(w) for name, w in weights.items()}
    for start in range(0, count, batch):
        x, labels = data.rows(slice(start, min(start + batch, count)))
        if exact:
            with torch.no_grad():
                p = network(x).softmax(1)
        for label in range(CLASSES) if exact else [None]:
            chosen = torch.full_like(labels, label) if exact else labels
            for name, g in gradients(weights, x, chosen).items():
                g = g.square_().flatten(1)
                g = p[:, label] @ g if exact else g.sum(0)
                sums[name] += g.view_as(sums[name])
    return flat(sums.values()) / count


def best_batch(device, run, candidates, count, least):
    """The candidate of the least time for a sample, of those that fit; and how long it takes."""
    found = []
    for batch in candidates:
        rows = min(count, max(2 * batch, least))
        if batch > count:
            continue
        try:
            run(batch, batch)
            found.append((min(device.seconds(lambda: run(rows, batch)) for _ in range(3)) / rows,
                          batch))
        except torch.OutOfMemoryError:
            break
    return min(found)


def fisher_variants(device, sizes, data, options, case):
    exact = "exact" in case
    network = network_create(device, sizes, data.theta)
    weights = [p.detach() for p in network.parameters()]
    twin = network_create(device, sizes, data.theta).double()
    doubles = [p.detach() for p in twin.parameters()]
    count, loop, checked = len(data.labels), sizes["loop"], min(sizes["checked"], len(data.labels))
    truth = one_by_one(twin, data, loop, exact)
    must_agree(case + ": products in float64", products(doubles, data, loop, loop, exact), truth,
               1e-12)
    allowed = ALLOWED[options.precision_used]
    engine = must_agree(case + ": the engine", data.fisher,
                        products(doubles, data, count, 2048, exact), allowed)
    log(f"{case}: the engine's F is off by {engine[0]:.2g}")
    truth = products(doubles, data, checked, 512, exact)

    def variant(name, role, run, allowed=1e-5, candidates=sizes["batches"], some=checked, **more):
        want = truth if some == checked else products(doubles, data, some, some, exact)
        errors = must_agree(f"{case}: {name}", run(some, min(512, some)), want, allowed)
        seconds, batch = best_batch(device, run, candidates, count, min(some, 1024))
        rows = batch * max(1, min(count // batch, round(sizes["slice"] / seconds / batch)))
        return Variant(name, role, lambda: run(rows, batch), n=rows, batch=batch, errors=errors,
                       engine_errors=engine, **more)

    def by_products(rows, batch):
        return products(weights, data, rows, batch, exact)

    yield later(variant, "squared products", "strongest", by_products)
    if device.is_cuda:
        yield later(variant, "squared products tf32", "strongest", with_tf32(by_products), 1e-2,
                    tf32=True)
    try:
        from backpack import extend
    except ImportError:
        log(f"{case}: backpack is not installed")
    else:
        extended = extend(network_create(device, sizes, data.theta))
        by_backpack.loss = extend(torch.nn.CrossEntropyLoss(reduction="sum"))
        yield later(variant, "backpack", "strongest",
                    lambda rows, batch: by_backpack(extended, data, rows, batch, exact))
    functional = sizes["batches"][:1]
    yield later(variant, "torch.func", "usual",
                lambda rows, batch: by_functional(network, data, rows, batch, exact),
                candidates=functional, some=loop)

    def single(peer):
        errors = must_agree(f"{case}: {peer}", one_by_one(network, data, loop, exact),
                            products(doubles, data, loop, loop, exact), 1e-5)
        return Variant(peer, "usual", lambda: one_by_one(network, data, loop, exact), n=loop,
                       batch=1, errors=errors, engine_errors=engine)

    yield later(single, "batch 1")


# ---- Convolutions and networks of them ----------------------------------------------------------


def pattern(shape, factor, modulus):
    """bench/networks.h"""
    i = torch.arange(math.prod(shape), dtype=torch.int64)
    return ((factor * i % modulus).double() / modulus - 0.5).view(shape)


def patches_times(x, d):
    """Each sample's gradient of the weights (rows, filters, channels * 9)."""
    return d.flatten(2) @ F.unfold(x, 3, padding=1).transpose(1, 2)


def conv_variants(device, sizes, data, options, case):
    channels, side = (int(n) for n in case.split("/")[1].split("x"))
    shape = (sizes["batch"] if not options.quick else 4, channels, side, side)
    x, d = pattern(shape, 7919, 251), pattern(shape, 104729, 241)
    truth = torch.zeros(channels, channels * 9, dtype=torch.float64)
    for i in range(shape[0]):
        truth += patches_times(x[i : i + 1], d[i : i + 1])[0].square()
    engine = read_array(data.folder / case.replace("/", "-"))
    allowed = ALLOWED[options.precision_used]
    errors = must_agree(case + ": the engine", engine, truth.flatten(), allowed)
    x, d = (t.float().to(device.name) for t in (x, d))

    def variant(name, role, run, squares=True, **more):
        """`run` works on a batch of rows; the batch is the one of least time for all of them."""
        if squares:
            must_agree(f"{case}: {name}", run(x, d).flatten(), truth.flatten(), 1e-5)
        times = []
        batches = [b for b in (8, 32, 128) if b <= shape[0]] if squares else []
        for batch in batches or [shape[0]]:
            parts = list(zip(x.split(batch), d.split(batch)))
            call = lambda parts=parts: [run(*part) for part in parts]
            call()
            times.append((min(device.seconds(call) for _ in range(3)), batch, call))
        _, batch, call = min(times, key=lambda t: t[0])
        return Variant(name, role, call, n=shape[0], batch=batch, engine_errors=errors,
                       peak=peak_of(device, call), **more)

    def weight_gradient(x, d):
        return torch.nn.grad.conv2d_weight(x, (channels, channels, 3, 3), d, padding=1)

    yield later(variant, "unfold + bmm", "strongest",
                lambda x, d: patches_times(x, d).square().sum(0))
    yield later(variant, "weight gradient, no squares", "strongest", weight_gradient,
                squares=False)
    if device.is_cuda:
        yield later(variant, "weight gradient, no squares, tf32", "strongest",
                    with_tf32(weight_gradient), squares=False, tf32=True)
    try:
        from backpack import backpack, extend, extensions
    except ImportError:
        log(f"{case}: backpack is not installed")
        return
    layer = extend(torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device.name))

    def by_backpack_alone(x, d):
        with backpack(extensions.SumGradSquared()):
            layer(x).backward(d)
        layer.weight.grad = None
        return layer.weight.sum_grad_squared

    yield later(variant, "backpack", "strongest", by_backpack_alone)


def read_safetensors(path):
    """Float32 tensors by name."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    values = torch.frombuffer(bytearray(raw[begin:]), dtype=torch.uint8)
    return {name: values[slice(*t["data_offsets"])].view(torch.float32).view(t["shape"])
            for name, t in header.items() if t.get("dtype") == "F32" and not name.startswith("ewc.")}


class Images:
    """The engine's noise."""

    def __init__(self, device, folder):
        self.folder = folder
        self.labels = read_array(folder / "labels", torch.int32).long().to(device.name)
        self.inputs = read_array(folder / "inputs").view(-1, 3, 32, 32).to(device.name)

    def rows(self, rows):
        return self.inputs[rows], self.labels[rows]

    def next(self):
        return self.rows(slice(0, min(FULL_CPU["batch"], len(self.labels))))


def same_network(device, data, name):
    here = pathlib.Path(__file__).resolve()
    sys.path += [str(here.parent), str(here.parent.parent.parent / "tests")]
    from torch_networks import NETWORKS

    network = NETWORKS[name]()
    network.load_state_dict(read_safetensors(data.folder / f"{name}.safetensors"), strict=False)
    return network.to(device.name)


def network_variants(device, sizes, data, options, case):
    _, name, what = case.split("/")
    if what == "train":
        n = len(data.next()[1])
        weigh = functools.partial(peak_of, device)
        make = functools.partial(Training.of_network, device, data, name)

        def eager(peer, role, layout):
            step = make(layout).best_step
            return Variant(peer, role, step, n=n, peak=weigh(step))

        yield later(eager, "eager", "usual", torch.contiguous_format)
        yield later(eager, "channels_last", "strongest", torch.channels_last)
        if device.is_cuda:
            yield from graphs(device, lambda: make(torch.channels_last), n, weigh=weigh)
        return
    count, loop = len(data.labels), 16
    truth_network = same_network(device, data, name).double().eval()
    network = same_network(device, data, name).eval()
    errors = None
    if count <= 512:  # else it takes too long
        given = read_safetensors(data.folder / f"{name}-F.safetensors")
        truth = one_by_one(truth_network, data, count, False)
        engine = flat([given[key] for key, _ in network.named_parameters()])
        errors = must_agree(case + ": the engine", engine, truth, 2e-5)
        log(f"{case}: the engine's F is off by {errors[0]:.2g}")
    want = one_by_one(truth_network, data, loop, False)

    def variant(peer, role, run, candidates):
        must_agree(f"{case}: {peer}", run(loop, loop), want, 1e-4)
        seconds, batch = best_batch(device, run, candidates, count, 32)
        rows = batch * max(1, min(count // batch, round(1.0 / seconds / batch)))
        return Variant(peer, role, lambda: run(rows, batch), n=rows, batch=batch,
                       engine_errors=errors, peak=peak_of(device, lambda: run(batch, batch)))

    try:
        from backpack import extend
    except ImportError:
        log(f"{case}: backpack is not installed")
    else:
        extended = extend(same_network(device, data, name).eval())
        by_backpack.loss = extend(torch.nn.CrossEntropyLoss(reduction="sum"))
        yield later(variant, "backpack", "strongest",
                    lambda rows, batch: by_backpack(extended, data, rows, batch, False),
                    (16, 32, 64, 128))
    yield later(variant, "torch.func", "usual",
                lambda rows, batch: by_functional(network, data, rows, batch, False), (16, 32))
    yield later(variant, "batch 1", "usual",
                lambda rows, batch: one_by_one(network, data, rows, False), (16,))


def peak_of(device, run):
    """MiB that a call takes on top of what is there."""
    if device.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = status_mib("self", "VmRSS")
    run()
    return status_mib("self", "VmHWM") - before


# ---- Lone optimizer step -------------------------------------------------------------------------


def step_variants(device, sizes, data, options, case):
    kind = case.split("/")[1].split("+")[0]
    count = sizes["parameters"]
    theta = torch.full((count,), 0.1, device=device.name)
    gradient, s, mu = (torch.full_like(theta, v) for v in (0.4, 0.5, 0.6))
    make = dict(sgd=torch.optim.SGD, adam=torch.optim.Adam)[kind]

    def penalised(g, p, s, mu):
        return g + LAMBDA * s * (p - mu)

    def in_two(g, p, s, mu):
        return torch.addcmul(g, p - mu, s, value=LAMBDA)

    def step(optimizer, add):
        def run():
            theta.grad = add(gradient, theta, s, mu)
            optimizer.step()

        return run

    must_agree(case, in_two(gradient, theta, s, mu), penalised(gradient, theta, s, mu), 1e-6)
    yield later(Variant, "foreach", "usual",
                step(make([theta], lr=1e-4, foreach=True), penalised), n=count)
    fused = make([theta], lr=1e-4, fused=True)
    yield later(Variant, "fused", "strongest", step(fused, in_two), n=count)

    def compiled(peer):
        fast = torch.compile(penalised)
        must_agree(case, fast(gradient, theta, s, mu), in_two(gradient, theta, s, mu), 1e-6)
        return Variant(peer, "strongest", step(fused, fast), n=count)

    if options.compile:
        yield later(compiled, "compile+fused")


# ---- Rounds and records --------------------------------------------------------------------------


class Variant:
    def __init__(self, peer, role, run, n=None, batch=None, tf32=False, errors=None,
                 engine_errors=None, peak=None):
        self.peer, self.role, self.run, self.n, self.batch = peer, role, run, n, batch
        self.tf32, self.errors, self.engine_errors = tf32, errors, engine_errors
        self.peak = peak  # MiB of one call
        self.calls, self.ms, self.engine_ms = 1, [], []

    def measure(self, device):
        """Milliseconds of a step, or of a pass over n samples."""
        time.sleep(PAUSE)
        seconds = device.seconds(lambda: [self.run() for _ in range(self.calls)])
        return 1e3 * seconds / self.calls

    def warm_up(self, device, least):
        """Chooses how many calls last at least so many seconds."""
        self.measure(device)
        while (seconds := 1e-3 * self.measure(device) * self.calls) < least:
            self.calls = max(self.calls + 1, int(1.2 * self.calls * least / max(seconds, 1e-6)))
            self.calls = min(self.calls, 1000000)


def significant(x):
    return None if x is None else float(f"{x:.6g}")


def quantiles(values):
    ordered = sorted(values)
    at = lambda q: significant(ordered[round(q * (len(ordered) - 1))])
    return dict(p10=at(0.1), p50=at(0.5), p90=at(0.9))


def environment(device, options, engine):
    versions = dict(torch=torch.__version__, cuda=torch.version.cuda, backpack=None)
    try:
        from importlib.metadata import version

        versions["backpack"] = version("backpack-for-pytorch")
    except Exception:
        pass
    gpu = torch.cuda.get_device_name() if device.is_cuda else None
    return dict(engine, **versions, gpu=gpu, threads_peer=torch.get_num_threads(),
                python=platform.python_version(), load_at_start=options.load,
                date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), load=os.getloadavg()[0])


def record(case, v, options, env, n, floors, bound, engine_peak):
    is_pass = "fisher" in case  # a peer's is a slice: for n samples
    peer_ms = [ms / v.n * n if is_pass else ms for ms in v.ms]
    ratios = [b / a for a, b in zip(v.engine_ms, peer_ms)]
    of_floor = [f / a for f, a in floors] if floors and bound != "none" else None
    peak = v.peak
    if peak is None and options.device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    first = lambda errors, i: significant(errors[i]) if errors else None
    return dict(case=case, n=n if is_pass else v.n, backend=options.device,
                mode=options.precision_used, temp="cold" if case.startswith("step") else "hot",
                peer=v.peer, role=v.role, peer_batch=v.batch, rounds=len(v.ms),
                ms=quantiles(v.engine_ms), peer_ms=quantiles(peer_ms), ratio=quantiles(ratios),
                floor_ms=quantiles([f for f, _ in floors]) if of_floor else None,
                of_floor=quantiles(of_floor) if of_floor else None,
                bound=bound if of_floor else None, err_fro=first(v.engine_errors, 0),
                err_max=first(v.engine_errors, 1), peer_err_fro=first(v.errors, 0),
                peak_mib=significant(engine_peak), peer_peak_mib=significant(peak), env=dict(env, allow_tf32=v.tf32))


MAKERS = dict(train=training_variants, fisher=fisher_variants, step=step_variants,
              conv=conv_variants, network=network_variants)


def make_variants(case, device, least, made, until, missing):
    """The first of `made`, and those that there is time for; what is not measured goes to the file `missing`."""
    variants = []
    for peer, make in made:
        try:
            if len(variants) >= LEAST_PEERS and time.time() > until:
                raise OutOfTime("there is no time left")
            variant = make()
            variant.warm_up(device, least)
            variants.append(variant)
            log(f"{case}: {peer}")
        except Exception as why:  # no compiler, out of memory: the others are measured all the same
            log(f"{case}: {peer}: {type(why).__name__}: {str(why)[:200]}")
            if isinstance(why, ValueError):
                raise  # a wrong result
            with open(missing, "a") as file:
                file.write(f"{case} ({peer})\n")
    return variants


def measure_case(case, engine, options, folder, until):
    """In a process of its own; returns when the time is over."""
    for message in ("Full backward hook", "Extension saving to"):  # of backpack's
        warnings.filterwarnings("ignore", message=message)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = Device(options.device)
    sizes = QUICK if options.quick else FULL_CUDA if device.is_cuda else FULL_CPU
    data = Images(device, folder) if options.networks else Data(device, sizes, folder, case)
    rows = len(data.labels)
    n = min(options.samples or rows, rows)
    made = MAKERS[case.split("/")[0]](device, sizes, data, options, case)
    variants = make_variants(case, device, 0.5 * sizes["slice"], made, until, folder / MISSING)
    if not variants:
        raise OutOfTime("no peer")
    if device.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    env, floors, bound = environment(device, options, engine.env), [], "none"
    engine_peak = engine.peak_mib(case) if options.networks and not device.is_cuda else None
    engine.ms(case)
    for number in range(options.rounds):
        if number >= 3 and time.time() > until:
            break
        floor, bound = engine.floor(case)
        for v in variants:
            v.engine_ms.append(engine.ms(case))
            v.ms.append(v.measure(device))
        floors.append((floor, variants[0].engine_ms[-1]))
    signal.setitimer(signal.ITIMER_REAL, 0)  # no half of a line
    with open(options.out, "a") as out:
        for v in variants:
            line = record(case, v, options, env, n, floors, bound, engine_peak)
            out.write(json.dumps(line) + "\n")


def in_child(work, seconds):
    """0, or what ended it."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            work()
        except BaseException as why:
            log(f"{type(why).__name__}: {why}")
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


# ---- Table ---------------------------------------------------------------------------------------


def spell(ms):
    for unit, factor in (("s", 1e-3), ("ms", 1.0)):
        if ms * factor >= 1:
            return f"{ms * factor:.3g} {unit}"
    return f"{ms * 1e3:.3g} µs"


def table(path, missing):
    lines = [json.loads(line) for line in open(path)]
    memory = any(o["peak_mib"] is not None for o in lines)
    print("| case | engine | of its floor | peer | batch | time | peer / engine, 10th to 90th |" +
          memory * " memory: engine | peer |")
    print("|---|---|---|---|---|---|---|" + memory * "---|---|")
    for o in lines:
        floor = f"{100 * o['of_floor']['p50']:.0f} %" if o["of_floor"] else "not measured"
        print(f"| {o['case']} | {spell(o['ms']['p50'])} | {floor} | {o['peer']} | "
              f"{o['peer_batch'] or ''} | {spell(o['peer_ms']['p50'])} | **{o['ratio']['p50']:.2f}** "
              f"({o['ratio']['p10']:.2f} to {o['ratio']['p90']:.2f}) |" +
              (f" {o['peak_mib']:.0f} MiB | {o['peer_peak_mib']:.0f} MiB |" if memory else ""))
    if missing:
        print("\nNot measured: " + ", ".join(missing))


def open_engine(options, folder, seconds):
    """And has it write what it is checked by; None where that takes too long."""
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    engine = None
    try:
        engine = Engine(options)
        engine.ask("dump", folder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return engine
    except OutOfTime as why:
        log(f"the engine: {why}")
        if engine:
            engine.close()
        return None


def wanted(engine, words):
    """The engine's cases that have peers and are named, or whose kind is."""
    return [c for c in engine.cases if c.split("/")[0] in MAKERS and "sampled" not in c
            and any(c == w or c.startswith(w + "/") for w in words)]


def check_cases(parser, engine, words):
    for word in words:
        if not wanted(engine, [word]):
            engine.close()
            parser.error(f"{word}: no such case; there are " + ", ".join(wanted(engine, MAKERS)))


def measure_cases(engine, options, folder, end):
    cases = wanted(engine, options.cases)
    for i, case in enumerate(cases):
        left = end - time.time()
        until = time.time() + 0.7 * left / (len(cases) - i)
        log(f"{case}: {left:.0f} s left")
        if left < 1 or engine.process.poll() is not None or in_child(
                lambda: measure_case(case, engine, options, folder, until), left):
            log(f"{case}: not measured")
            with open(folder / MISSING, "a") as file:
                file.write(case + "\n")


def within(number, least, most):
    """Of a flag: such a number."""
    def read(text):
        value = number(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text}, expected {least:g} to {most:g}")
        return value

    read.__name__ = "whole number" if number is int else "number"  # what argparse calls it
    return read


def main():
    here = pathlib.Path(__file__).resolve().parent
    title, usage, words = __doc__.split("\n\n", 2)
    parser = argparse.ArgumentParser(description=title, epilog=words, usage=usage.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engine", default=str(here.parent.parent / "build/release/bench_engine"),
        help="bench_engine of another build")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--precision", help="of the engine on a GPU: auto, fp32, bf16x3 or tf32")
    add("--threads", type=within(int, 0, 1024), default=0, help="of both sides; 0, the default: all")
    add("--rounds", type=within(int, 1, 1024), default=20, help="at most (default 20; quick: 2)")
    add("--seconds", type=within(float, 1, 1e6), default=600.0, help="all together (default 600)")
    add("--samples", type=within(int, 0, 60000), default=0,
        help="of a Fisher pass; 0, the default: all")
    add("--epochs", type=within(int, 1, 1000), default=10,
        help="of training before the Fisher passes (default 10)")
    add("--data-dir", help="where MNIST lies")
    add("--libraries", help="LD_LIBRARY_PATH of the engine")
    add("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    add("--quick", action="store_true", help="toy sizes, to check that it works")
    add("--out", help="one JSON object a line (default: peers-DEVICE.jsonl, or "
        "peers-networks-DEVICE.jsonl, in bench/results; none with --quick or some cases alone)")
    add("--networks", action="store_true", help="convolutions and networks of them")
    add("cases", nargs="*", metavar="CASE", help="all, where none is named")
    options = parser.parse_args()
    is_whole = not options.quick and not options.cases
    if not options.out and is_whole:
        networks = "networks-" if options.networks else ""
        options.out = str(here.parent / f"results/peers-{networks}{options.device}.jsonl")
    options.rounds = 2 if options.quick else options.rounds
    options.load = os.getloadavg()[0]
    end = START + options.seconds - ENDING
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        options.out = options.out or str(folder / "out.jsonl")
        try:
            open(options.out, "a").close()  # it can be written; what is there stays for now
            engine = open_engine(options, folder, end - time.time())
        except OSError as why:
            parser.exit(1, f"compare: {why.filename}: {why.strerror}\n")
        if engine:
            check_cases(parser, engine, options.cases)
            options.cases = options.cases or MAKERS
            pathlib.Path(options.out).write_text("")
            options.precision_used = engine.env["device"].split(", ")[-1]
            (folder / MISSING).touch()
            measure_cases(engine, options, folder, end)
            engine.close()
            missing = (folder / MISSING).read_text().splitlines()
            table(options.out, missing)
        else:
            missing = ["all cases"]
            print("Not measured: all cases")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
