# SPDX-License-Identifier: MIT
"""Writes a network of PyTorch for tests/test_start.cc: model.safetensors by the package safetensors,
model.pt by torch.save and nested.pt within a dict, names.json (name here: name there), inputs.f32
and logits.f32 (rows one after the other). Exits with 77 where a package is missing.

usage: python3 write_model.py FOLDER mlp
"""
import json
import sys

try:
    import safetensors.torch
    import torch
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
    return net, torch.randn(64, 20), names, types


KINDS = {"mlp": mlp}


def main():
    folder, kind = sys.argv[1:]
    torch.manual_seed(7)
    net, inputs, names, types = KINDS[kind]()
    net.eval()
    with torch.no_grad():
        logits = net(inputs)
    state = {name: value.to(types.get(name, torch.float32))
             for name, value in net.state_dict().items()}
    safetensors.torch.save_file(state, f"{folder}/model.safetensors")
    torch.save(state, f"{folder}/model.pt")
    torch.save({"epoch": 3, "state_dict": state}, f"{folder}/nested.pt")
    with open(f"{folder}/names.json", "w", encoding="utf-8") as out:
        json.dump(names, out)
    for name, values in (("inputs", inputs), ("logits", logits)):
        with open(f"{folder}/{name}.f32", "wb") as out:
            out.write(values.contiguous().numpy().astype("<f4").tobytes())


main()
