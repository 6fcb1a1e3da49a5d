# SPDX-License-Identifier: MIT
"""Writes a network of PyTorch for tests/test_start.cc: model.safetensors by the package safetensors,
model.pt by torch.save and nested.pt within a dict, names.json (name here: name there), inputs.f32
and logits.f32 (rows one after the other). Exits with 77 where a package is missing.

usage: python3 write_model.py FOLDER mlp|cnn|resnet18-reduced
"""
import json
import sys

try:
    import safetensors.torch
    import torch
    from torch_networks import NETWORKS
except ImportError as missing:
    print(missing)
    sys.exit(77)


def mlp():
    """20-16-12-5, as nn.Sequential numbers its modules; in three types of numbers."""
    net = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.ReLU(), torch.nn.Linear(16, 12),
                              torch.nn.ReLU(), torch.nn.Linear(12, 5))
    net[2].bfloat16().float()  # values that bfloat16 holds
    names = {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")
             for ours, theirs in (("fc1", 0), ("fc2", 2), ("head", 4))}
    types = {"2.weight": torch.bfloat16, "2.bias": torch.bfloat16, "4.weight": torch.float64}
    state = {name: value.to(types.get(name, torch.float32))
             for name, value in net.state_dict().items()}
    return net, torch.randn(64, 20), state, names


def cnn():
    """Zenke's; its layers are called as others would call them."""
    net = NETWORKS["cnn"]()
    theirs = {"conv1": "features.0", "conv2": "features.2", "conv3": "features.6",
              "conv4": "features.8", "fc1": "classifier.0", "head": "classifier.3"}
    names = {f"{layer}.{part}": f"{name}.{part}" for layer, name in theirs.items()
             for part in ("weight", "bias")}
    state = {names[name]: value for name, value in net.state_dict().items()}
    return net, torch.randn(4, 3, 32, 32), state, names


def resnet18_reduced():
    """Called as here; with all that its batch norms keep, num_batches_tracked, too."""
    net = NETWORKS["resnet18-reduced"]()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    return net, torch.randn(4, 3, 32, 32), net.state_dict(), {}


KINDS = {"mlp": mlp, "cnn": cnn, "resnet18-reduced": resnet18_reduced}


def main():
    folder, kind = sys.argv[1:]
    torch.manual_seed(7)
    net, inputs, state, names = KINDS[kind]()
    net.eval()
    with torch.no_grad():
        logits = net(inputs)
    safetensors.torch.save_file(state, f"{folder}/model.safetensors")
    torch.save(state, f"{folder}/model.pt")
    torch.save({"epoch": 3, "state_dict": state}, f"{folder}/nested.pt")
    with open(f"{folder}/names.json", "w", encoding="utf-8") as out:
        json.dump(names, out)
    for name, values in (("inputs", inputs), ("logits", logits)):
        with open(f"{folder}/{name}.f32", "wb") as out:
            out.write(values.contiguous().numpy().astype("<f4").tobytes())


main()
