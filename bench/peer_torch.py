#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the work of bench_engine costs in PyTorch at its best, on any of its devices.

    peer_torch.py [--device cuda|cpu] [--rounds N] [--seconds S] [--compile] [--quick] [--out FILE]

Sizes as in bench_engine.c, on random data; before anything is timed its results are compared with a
plain loop in float64, and a wrong result ends the program. Cases take turns round by round; what is
written is the median and the 10th and 90th percentile, one JSON object per case and variant. A role
says whether the variant is what people write ("usual") or what an expert would ("strongest").
--seconds: no further round after so long. --compile: torch.compile, too, where it works.
TF32 is off but in the cases named so.
"""
import argparse
import json
import os
import pathlib
import platform
import sys
import time

import torch
import torch.nn.functional as F

CLASSES = 10
FULL_CUDA = dict(widths=(784, 400, 400, CLASSES), batch=128, samples=60000, slow_samples=2048,
                 square=8192, parameters=1 << 27, copy_bytes=1 << 30)
FULL_CPU = dict(FULL_CUDA, slow_samples=256, square=2048, parameters=1 << 25, copy_bytes=1 << 29)
QUICK = dict(widths=(64, 16, 16, CLASSES), batch=16, samples=96, slow_samples=32, square=64,
             parameters=1 << 12, copy_bytes=1 << 20)
LAMBDA = 1e-3


def log(text):
    print("peer_torch: " + text, file=sys.stderr, flush=True)


def with_tf32(run):
    def wrapped():
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return run()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    return wrapped


def relative_error(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def must_agree(name, a, b, allowed):
    error = relative_error(a, b)
    if not error <= allowed:
        sys.exit(f"peer_torch: {name}: relative error {error:.2g}, allowed {allowed:g}")
    return error


# ---- The device ----------------------------------------------------------------------------------


class Device:
    def __init__(self, name):
        self.name = name
        self.is_cuda = name.startswith("cuda")
        torch.manual_seed(1)
        torch.set_float32_matmul_precision("highest")

    def sync(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def random(self, *shape):
        return torch.randn(*shape, device=self.name)

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

    def describe(self):
        if not self.is_cuda:
            with open("/proc/cpuinfo") as info:
                model = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
            return model[0] if model else platform.processor()
        return torch.cuda.get_device_name(self.name)


# ---- The network ---------------------------------------------------------------------------------


def network_create(device, sizes):
    layers = []
    for inputs, outputs in zip(sizes["widths"], sizes["widths"][1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    torch.manual_seed(2)
    network = torch.nn.Sequential(*layers[:-1]).to(device.name)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


class Data:
    """Bytes and labels of a training set, and the order in which it is read, on the device."""

    def __init__(self, device, sizes):
        count, pixels = sizes["samples"], sizes["widths"][0]
        self.images = torch.randint(0, 256, (count, pixels), dtype=torch.uint8, device=device.name)
        self.labels = torch.randint(0, CLASSES, (count,), device=device.name)
        self.order = torch.randperm(count, device=device.name)
        self.pixels = torch.randperm(pixels, device=device.name)
        self.offsets = torch.arange(sizes["batch"], device=device.name)
        self.position = torch.zeros((), dtype=torch.int64, device=device.name)

    def next(self):
        rows = self.order[(self.position + self.offsets) % len(self.order)]
        self.position += len(self.offsets)
        return self.images[rows][:, self.pixels].float() / 255, self.labels[rows]


# ---- Training step: loss, penalty LAMBDA / 2 sum S (theta - mu)^2, optimizer ----------------------


class Training:
    def __init__(self, device, sizes, kind, fused):
        self.network = network_create(device, sizes)
        self.data = Data(device, sizes)
        self.parameters = list(self.network.parameters())
        self.mu = [p.detach().clone() for p in self.parameters]
        self.s = [torch.ones_like(p) for p in self.parameters]
        how = dict(fused=True) if fused else dict(foreach=True)
        if kind == "sgd":
            self.optimizer = torch.optim.SGD(self.parameters, lr=0.01, **how)
        else:
            if fused and device.is_cuda:
                how["capturable"] = True
            self.optimizer = torch.optim.Adam(self.parameters, lr=1e-4, **how)
        self.loss = lambda x, labels: F.cross_entropy(self.network(x), labels)

    def usual_step(self):
        """The penalty through autograd."""
        x, labels = self.data.next()
        self.optimizer.zero_grad()
        penalty = 0.0
        for p, mu, s in zip(self.parameters, self.mu, self.s):
            penalty = penalty + (s * (p - mu) ** 2).sum()
        (self.loss(x, labels) + 0.5 * LAMBDA * penalty).backward()
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

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.parameters])


def training_variants(device, sizes, compiles):
    for kind in ("sgd", "adam"):
        name = f"train/{kind}+penalty"
        usual = Training(device, sizes, kind, fused=False)
        torch.manual_seed(3)
        best = Training(device, sizes, kind, fused=True)
        best.data = usual.data
        for training, step in ((usual, usual.usual_step), (best, best.best_step)):
            training.data.position.zero_()
            for _ in range(4):
                step()
        # Where Adam's first steps have the sign of a gradient, rounding may turn it.
        error = must_agree(name, best.weights(), usual.weights(), 1e-3)
        yield Case(name, "eager", "usual", usual.usual_step, error=error)
        variant = "graph" if device.is_cuda else "fused"
        yield Case(name, variant, "strongest", device.captured(best.best_step), error=error)
        if compiles():
            fast = Training(device, sizes, kind, fused=True)
            fast.loss = torch.compile(fast.loss)
            try:
                fast.best_step()
                yield Case(name, "compile+" + variant, "strongest", device.captured(fast.best_step))
            except Exception as why:  # no compiler, no Triton: any of many kinds
                log(f"{name}: torch.compile: {type(why).__name__}")


# ---- Fisher pass: F = mean over samples of the squared gradients, by squared products -------------


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
    one_hot = torch.eye(CLASSES, device=x.device)
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


def fisher_pass(weights, data, count, batch, exact):
    sums = [torch.zeros_like(w) for w in weights]
    with torch.no_grad():
        for start in range(0, count, batch):
            rows = slice(start, min(start + batch, count))
            x = data.images[rows][:, data.pixels].float() / 255
            squared_gradients(weights, x, data.labels[rows], exact, sums)
    return torch.cat([s.flatten() for s in sums]) / count


def functional_fisher(network, data, count, batch, exact):
    """Per-sample gradients by vmap over grad, squared and added."""
    weights = {name: p.detach() for name, p in network.named_parameters()}

    def loss(w, x, label):
        logits = torch.func.functional_call(network, w, (x[None],))
        return F.cross_entropy(logits, label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(w) for name, w in weights.items()}
    for start in range(0, count, batch):
        rows = slice(start, min(start + batch, count))
        x = data.images[rows][:, data.pixels].float() / 255
        if exact:
            with torch.no_grad():
                p = network(x).softmax(1)
        for label in range(CLASSES) if exact else [None]:
            labels = torch.full_like(data.labels[rows], label) if exact else data.labels[rows]
            for name, g in gradients(weights, x, labels).items():
                g = g.square_().flatten(1)
                g = p[:, label] @ g if exact else g.sum(0)
                sums[name] += g.view_as(sums[name])
    return torch.cat([s.flatten() for s in sums.values()]) / count


def fisher_by_loop(network, data, count, exact):
    """One sample and one label at a time, in float64."""
    total = 0.0
    for i in range(count):
        x = data.images[i : i + 1][:, data.pixels].double() / 255
        for label in range(CLASSES) if exact else [int(data.labels[i])]:
            p = network(x).log_softmax(1)[0, label]
            g = torch.autograd.grad(p, list(network.parameters()))
            weight = p.detach().exp() if exact else 1.0
            total = total + weight * torch.cat([t.flatten() for t in g]).square()
    return total / count


def best_batch(device, run, candidates):
    def seconds(batch):
        run(batch)
        device.sync()
        begin = time.perf_counter()
        run(batch)
        device.sync()
        return time.perf_counter() - begin

    return min(candidates, key=seconds) if len(candidates) > 1 else candidates[0]


def fisher_variants(device, sizes):
    network = network_create(device, sizes)
    data = Data(device, sizes)
    weights = [p.detach() for p in network.parameters()]
    samples, slow = sizes["samples"], sizes["slow_samples"]
    twin = network_create(device, sizes).double()
    few = 8
    for exact in (False, True):
        name = "fisher/exact" if exact else "fisher/empirical"
        truth = fisher_by_loop(twin, data, few, exact)
        error = must_agree(name, fisher_pass(weights, data, few, few, exact), truth, 1e-4)
        candidates = [b for b in (512, 2048, 8192) if b <= samples] or [samples]
        batch = best_batch(
            device,
            lambda b: fisher_pass(weights, data, min(samples, max(candidates)), b, exact),
            candidates,
        )
        run = lambda exact=exact, batch=batch: fisher_pass(weights, data, samples, batch, exact)
        yield Case(name, "squared products", "strongest", run, n=samples, batch=batch, error=error)
        if device.is_cuda:
            got = with_tf32(lambda: fisher_pass(weights, data, few, few, exact))()
            error = must_agree(name + " in TF32", got, truth, 1e-2)
            yield Case(name, "squared products tf32", "strongest", with_tf32(run), n=samples,
                       batch=batch, tf32=True, error=error)
        got = functional_fisher(network, data, few, few, exact)
        error = must_agree(name + " by torch.func", got, truth, 1e-4)
        batch = min(512 if device.is_cuda else 128, slow)
        run = lambda exact=exact, batch=batch: functional_fisher(network, data, slow, batch, exact)
        yield Case(name, "torch.func", "usual", run, n=slow, batch=batch, error=error)


# ---- Lone optimizer step -------------------------------------------------------------------------


def step_variants(device, sizes, compiles):
    count = sizes["parameters"]
    theta = torch.full((count,), 0.1, device=device.name)
    gradient, s, mu = (torch.full_like(theta, v) for v in (0.4, 0.5, 0.6))

    def penalised(g, p, s, mu):
        return g + LAMBDA * s * (p - mu)

    def step(optimizer, add):
        def run():
            theta.grad = add(gradient, theta, s, mu)
            optimizer.step()

        return run

    for kind in ("sgd", "adam"):
        make = dict(sgd=torch.optim.SGD, adam=torch.optim.Adam)[kind]
        name = f"step/{kind}+penalty"
        in_two = lambda g, p, s, mu: torch.addcmul(g, p - mu, s, value=LAMBDA)
        must_agree(name, in_two(gradient, theta, s, mu), penalised(gradient, theta, s, mu), 1e-6)
        fused = make([theta], lr=1e-4, fused=True)
        yield Case(name, "fused", "strongest", step(fused, in_two), n=count)
        foreach = make([theta], lr=1e-4, foreach=True)
        yield Case(name, "foreach", "usual", step(foreach, penalised), n=count)
        if compiles():
            try:
                fast = torch.compile(penalised)
                must_agree(name, fast(gradient, theta, s, mu), in_two(gradient, theta, s, mu), 1e-6)
                yield Case(name, "compile+fused", "strongest", step(fused, fast), n=count)
            except Exception as why:
                log(f"{name}: torch.compile: {type(why).__name__}")


# ---- Ceilings ------------------------------------------------------------------------------------


def ceiling_variants(device, sizes):
    copy_bytes = sizes["copy_bytes"]
    source = torch.ones(copy_bytes // 4, device=device.name)
    target = torch.zeros_like(source)
    yield Case("copy", "copy_", None, lambda: target.copy_(source), bytes=2 * copy_bytes)

    shapes = []
    for rows in (sizes["batch"], min(512, sizes["samples"])):
        for i, (inputs, outputs) in enumerate(zip(sizes["widths"], sizes["widths"][1:])):
            shapes += [("NT", rows, outputs, inputs), ("TN", outputs, inputs, rows)]
            shapes += [("NN", rows, inputs, outputs)] if i > 0 else []
    square = sizes["square"]
    for op, m, n, k in sorted(set(shapes)) + [("NN", square, square, square)]:
        a = device.random(m, k) if op[0] == "N" else device.random(k, m).T
        b = device.random(k, n) if op[1] == "N" else device.random(n, k).T
        c = torch.empty(m, n, device=device.name)
        calls = max(1, min(200, int((2e10 if device.is_cuda else 2e8) / (2 * m * n * k))))

        def run(a=a, b=b, c=c, calls=calls):
            for _ in range(calls):
                torch.mm(a, b, out=c)

        name = f"gemm/{op}/{m}x{n}x{k}"
        yield Case(name, "mm", None, device.captured(run), units=calls, flops=2 * m * n * k)
        if device.is_cuda and m == square:
            replay = with_tf32(lambda run=run: device.captured(run))()
            yield Case(name, "mm tf32", None, replay, units=calls, flops=2 * m * n * k, tf32=True)


# ---- Rounds and records --------------------------------------------------------------------------


class Case:
    def __init__(self, name, variant, role, run, n=None, batch=None, units=1, bytes=None, flops=None,
                 tf32=False, error=None):
        self.name, self.variant, self.role, self.run = name, variant, role, run
        self.n, self.batch, self.units, self.bytes, self.flops = n, batch, units, bytes, flops
        self.tf32, self.error = tf32, error
        self.calls, self.ms = 1, []

    def measure(self, device):
        """Seconds of `calls` calls, from an idle device to an idle device."""
        device.sync()
        begin = time.perf_counter()
        for _ in range(self.calls):
            self.run()
        device.sync()
        return time.perf_counter() - begin

    def warm_up(self, device, least):
        """Chooses how many calls last at least so many seconds."""
        self.measure(device)
        while (seconds := self.measure(device)) < least:
            self.calls = max(self.calls + 1, int(1.2 * self.calls * least / max(seconds, 1e-6)))
            self.calls = min(self.calls, 1000000)

    def object(self, env, backend):
        ms = quantiles(self.ms)
        rate = lambda amount: significant(amount / ms["p50"] / 1e6) if amount else None
        return dict(case=self.name, peer="torch", variant=self.variant, role=self.role,
                    backend=backend, rounds=len(self.ms), n=self.n, batch=self.batch, ms=ms,
                    copy_gb_per_s=rate(self.bytes), gflops=rate(self.flops), err_fro=self.error,
                    env=dict(env, allow_tf32=self.tf32))


def significant(x):
    return float(f"{x:.6g}")


def quantiles(values):
    ordered = sorted(values)
    at = lambda q: significant(ordered[round(q * (len(ordered) - 1))])
    return dict(p10=at(0.1), p50=at(0.5), p90=at(0.9))


def environment(device):
    return dict(torch=torch.__version__, cuda=torch.version.cuda, device=device.describe(),
                threads=torch.get_num_threads(), python=platform.python_version(),
                date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), load=os.getloadavg()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()

    begin = time.perf_counter()
    device = Device(options.device)
    sizes = QUICK if options.quick else FULL_CUDA if device.is_cuda else FULL_CPU

    def compiles():  # which may take a minute
        return options.compile and time.perf_counter() - begin < 0.5 * options.seconds

    cases = list(ceiling_variants(device, sizes))
    cases += training_variants(device, sizes, compiles)
    cases += fisher_variants(device, sizes)
    cases += step_variants(device, sizes, compiles)
    for case in cases:
        log(f"warm-up: {case.name}, {case.variant}")
        case.warm_up(device, 0.0 if options.quick else 0.02)
    rounds = 2 if options.quick else options.rounds
    env = environment(device)
    for number in range(rounds):
        for case in cases:
            case.ms.append(1e3 * case.measure(device) / case.calls / case.units)
        log(f"round {number + 1} of {rounds}")
        text = "".join(json.dumps(case.object(env, options.device)) + "\n" for case in cases)
        if options.out:  # what is known so far, should time run out
            pathlib.Path(options.out).write_text(text)
        if time.perf_counter() - begin > options.seconds:
            break
    if not options.out:
        print(text, end="")
        return
    for case in cases:
        print(f"{case.name:24} {case.variant:16} {quantiles(case.ms)['p50']:12.4f} ms")


if __name__ == "__main__":
    main()
