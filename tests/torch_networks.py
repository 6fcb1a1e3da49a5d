#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The networks lenet5, cnn, resnet18-reduced, one with layer norms, one with all other layers of images and
positions, and one of words in PyTorch, and weights to and from them:

  torch_networks.py FOLDER NAME

reads FOLDER/ewc.safetensors, a checkpoint, into the network, and FOLDER/inputs (4, 3, 32, 32) of
float32; writes the logits (4, 10) that come of them to FOLDER/logits. Then the weights of a network of
its own to FOLDER/torch.safetensors, and its logits to FOLDER/torch-logits.

77 ("skipped") where Python has no torch or safetensors."""
import os
import sys

try:
    import torch
    from torch import nn
except ImportError as error:
    print(error)
    sys.exit(77)
F = nn.functional


class Cnn(nn.Module):
    """Zenke et al. 2017."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 64, 3)
        self.fc1 = nn.Linear(64 * 6 * 6, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.dropout(x, 0.25, self.training)
        x = F.max_pool2d(F.relu(self.conv4(F.relu(self.conv3(x)))), 2)
        x = F.dropout(x, 0.25, self.training)
        x = F.dropout(F.relu(self.fc1(x.flatten(1))), 0.5, self.training)
        return self.head(x)


class Lenet5(nn.Module):
    """LeCun et al. 1998, with ReLU and maxima."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.head(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Block(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ReducedResNet18(nn.Module):
    """Lopez-Paz & Ranzato 2017: nf = 20."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(20)
        self.layer1 = nn.Sequential(Block(20, 20, 1), Block(20, 20, 1))
        self.layer2 = nn.Sequential(Block(20, 40, 2), Block(40, 40, 1))
        self.layer3 = nn.Sequential(Block(40, 80, 2), Block(80, 80, 1))
        self.layer4 = nn.Sequential(Block(80, 160, 2), Block(160, 160, 1))
        self.head = nn.Linear(160, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(F.avg_pool2d(x, 4).flatten(1))


class LayerNorms(nn.Module):
    """Of images, (C, H, W) each, and of a vector."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.ln1 = nn.LayerNorm((8, 16, 16))
        self.conv2 = nn.Conv2d(8, 4, (3, 5), 2)
        self.ln2 = nn.LayerNorm((4, 7, 6), eps=1e-3)
        self.fc1 = nn.Linear(4 * 7 * 6, 12)
        self.ln3 = nn.LayerNorm(12)
        self.head = nn.Linear(12, 10)
        for norm in self.ln1, self.ln2, self.ln3:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)

    def forward(self, x):
        x = F.relu(self.ln1(self.conv1(x)))
        x = F.gelu(self.ln2(self.conv2(x))).flatten(1)
        return self.head(self.ln3(self.fc1(x)))


class Positions(nn.Module):
    """Convolutions in groups, dilated and by channel, then layers of each of twelve positions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.gn1 = nn.GroupNorm(4, 8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4, bias=False)
        self.body = nn.Module()
        self.body.conv1 = nn.Conv2d(12, 12, (3, 5), padding="same", groups=12)
        self.body.conv2 = nn.Conv2d(12, 12, 1)
        self.fc1 = nn.Linear(64, 10)
        self.ln1 = nn.LayerNorm(10)
        self.head = nn.Linear(10, 10)
        for norm in self.gn1, self.ln1:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)

    def forward(self, x):
        x = torch.tanh(self.conv2(F.silu(self.gn1(self.conv1(x)))))
        x = F.avg_pool2d(x, 2)
        x = F.relu(x + self.body.conv2(F.silu(self.body.conv1(x))))
        return self.head(self.ln1(F.silu(self.fc1(x.reshape(-1, 12, 64)))).mean(1))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed1 = nn.Embedding(16, 4)
        self.fc1 = nn.Linear(4, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = self.embed1(x.flatten(1).long().clamp(0, 15))
        return self.head(torch.tanh(self.fc1(x)).mean(1))


NETWORKS = {"lenet5": Lenet5, "cnn": Cnn, "resnet18-reduced": ReducedResNet18,
            "layer-norms": LayerNorms, "positions": Positions, "words": Words}


def write(folder, path, tensor):
    with open(os.path.join(folder, path), "wb") as file:
        file.write(tensor.detach().contiguous().numpy().astype("<f4").tobytes())


def main(folder, name):
    try:
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        print(error)
        sys.exit(77)
    torch.manual_seed(5)
    torch.set_num_threads(1)
    net = NETWORKS[name]().eval()
    inputs = torch.frombuffer(
        bytearray(open(os.path.join(folder, "inputs"), "rb").read()), dtype=torch.float32)
    inputs = inputs.reshape(4, 3, 32, 32)

    weights = load_file(os.path.join(folder, "ewc.safetensors"))
    weights = {key: value for key, value in weights.items() if not key.startswith("ewc.")}
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    with torch.no_grad():
        write(folder, "logits", net(inputs))

    net = type(net)()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))  # which moves the statistics of batches
        write(folder, "torch-logits", net.eval()(inputs))
    save_file({key: value for key, value in net.state_dict().items()
               if not key.endswith("num_batches_tracked")}, os.path.join(folder, "torch.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
